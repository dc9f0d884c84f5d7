//! Every target on its valid inputs, and on these with changes that follow from
//! a fixed seed: flipped bits, bytes of interest, pieces cut out, doubled and
//! taken from other inputs. libFuzzer does it better (`tests/fuzz/run`); this
//! needs no C++ compiler.

use chacha20::ChaCha8Rng;
use he_edge_fuzz::TARGETS;
use rand_core::{Rng, SeedableRng};

/// Below `n`, or 0.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

fn change(rng: &mut ChaCha8Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[below(rng, seeds.len())].clone();
    for _ in 0..=below(rng, 4) {
        let at = below(rng, bytes.len());
        let end = at + below(rng, 9).min(bytes.len() - at);
        match below(rng, 8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => {
                let other = &seeds[below(rng, seeds.len())];
                let from = below(rng, other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            4 => bytes[at..end].fill([0, 0xff, 0x7f, 0x80][below(rng, 4)]),
            // Most fields of interest are at the beginning.
            5 => {
                if let Some(byte) = bytes.get_mut(at % 24) {
                    *byte = rng.next_u32() as u8;
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << below(rng, 8);
                }
            }
        }
    }
    bytes
}

#[test]
fn no_target_fails_on_changed_inputs() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no valid input", target.name);
        let mut rng = ChaCha8Rng::from_seed([71; 32]);
        for seed in &seeds {
            (target.run)(seed);
        }
        (target.run)(&[]);
        for _ in 0..target.inputs_a_second {
            let input = change(&mut rng, &seeds);
            if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
                panic!("{} fails on {input:02x?}", target.name);
            }
        }
    }
}

#[test]
fn the_script_runs_every_target() {
    let script = include_str!("../run");
    let (_, table) = script.split_once("<<TARGETS\n").unwrap();
    let names = table.lines().filter_map(|line| line.split_once(' '));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    assert_eq!(names, TARGETS.iter().map(|t| t.name).collect::<Vec<_>>());
}
