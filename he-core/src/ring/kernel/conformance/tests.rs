//! The suite on this machine, and that it finds what is wrong.

use super::definitions::Definitions;
use super::list::every_kernel;
use super::{Current, Kernels, MODULI, Memory, Pair, Portable};
use crate::arith::Modulus;
use crate::ckks::encode;
use crate::params::{N4096_DEPTH3, N8192_DEPTH5, Params};
use crate::ring::kernel::{Carried, RadixStep, SumTerm, Twiddles, small_packed_len};
use crate::ring::ntt::table_len;

/// Every set that is for use.
const SETS: [&Params; 2] = [&N4096_DEPTH3, &N8192_DEPTH5];

/// Largest length of a transform.
const MAX_N: usize = 1 << 14;

fn moduli() -> Vec<u32> {
    let of_sets = SETS
        .into_iter()
        .flat_map(|set| (0..=set.special()).map(|i| set.prime(i).unwrap().modulus().value()));
    let mut moduli: Vec<u32> = MODULI.into_iter().chain(of_sets).collect();
    moduli.sort_unstable();
    moduli.dedup();
    moduli
}

/// Comparisons of kernels that leave to their caller what they have no vectors for,
/// by words of a vector.
fn due(lanes: usize) -> u32 {
    match lanes {
        16 => 280_649,
        8 => 280_730,
        _ => 276_664,
    }
}

fn compare<K: Kernels, R: Kernels>(kernels: &K, reference: &R, due: u32) {
    let mut limbs = [(); 6].map(|()| vec![0; MAX_N]);
    let (mut table, mut integers, mut wide) =
        (vec![0; table_len(MAX_N)], vec![0; 256], vec![0; 256]);
    let mut numbers = [(); 4].map(|()| vec![0.0; encode::MAX_SLOTS]);
    let mut memory = Memory {
        limbs: limbs.each_mut().map(|limb| &mut limb[..]),
        table: &mut table,
        integers: &mut integers,
        wide: &mut wide,
        floats: &mut vec![0.0; 4096],
        numbers: numbers.each_mut().map(|part| &mut part[..]),
        bytes: &mut [0; 512],
        halves: &mut vec![0; small_packed_len(514)],
    };
    let pair = Pair { kernels, reference };
    let compared = pair.all(&moduli(), &mut memory).unwrap();
    assert_eq!(compared, due, "comparisons");
}

#[test]
fn portable_computes_what_is_defined() {
    // Nothing is left to a caller.
    compare(&Portable, &Definitions, 285_878);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn all_that_this_processor_runs_are_portable() {
    use crate::ring::kernel::Backend;
    use std::io::Write;
    let all: Vec<Backend> = Backend::available().collect();
    assert_eq!(all.last().unwrap().name(), "portable");
    for backend in all {
        compare(&backend, &Portable, due(backend.lanes()));
        // Past the capture of the output: `tests/run` looks for it.
        let line = format!("conformance: {} agrees with portable\n", backend.name());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn those_in_use_are_portable() {
    compare(&Current, &Portable, due(Current.lanes()));
}

/// What a wrong kernel does to its last word.
trait Spoil {
    fn spoil(&mut self);
}
impl Spoil for [u32] {
    fn spoil(&mut self) {
        if let Some(x) = self.last_mut() {
            *x ^= 1;
        }
    }
}
impl Spoil for [f32] {
    fn spoil(&mut self) {
        if let Some(x) = self.last_mut() {
            *x = -1.0 - *x;
        }
    }
}
impl Spoil for [f64] {
    fn spoil(&mut self) {
        if let Some(x) = self.last_mut() {
            *x = f64::from_bits(x.to_bits() ^ 1);
        }
    }
}

/// `portable`, but for the last word of one kernel.
struct Wrong(&'static str);

macro_rules! wrong {
    (
        chosen { $(
            $on:ident $name:ident [$out:ident] ($($arg:ident : $ty:ty),*) $(-> $result:ty)?;
        )* }
        single { $(
            $one:ident [$end:ident] ($($of:ident : $is:ty),*) $(-> $gives:ty)?;
        )* }
    ) => {
        impl Kernels for Wrong {
            fn lanes(&self) -> usize {
                1
            }
            $(fn $name(&self, $($arg: $ty),*) $(-> $result)? {
                let result = Portable.$name($($arg),*);
                if self.0 == stringify!($name) {
                    $out.spoil();
                }
                result
            })*
            $(fn $one(&self, $($of: $is),*) $(-> $gives)? {
                let result = Portable.$one($($of),*);
                if self.0 == stringify!($one) {
                    $end.spoil();
                }
                result
            })*
        }
        const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($one)),*];
    };
}
every_kernel!(wrong);

/// A suite that finds nothing in wrong kernels is none, and every kernel that is
/// in the list has its comparison.
#[test]
fn one_wrong_word_is_found() {
    let mut limbs = [(); 6].map(|()| vec![0; 4096]);
    let mut numbers = [(); 4].map(|()| vec![0.0; 300]);
    for name in NAMES {
        let mut memory = Memory {
            limbs: limbs.each_mut().map(|limb| &mut limb[..]),
            table: &mut [0; table_len(8)],
            integers: &mut [0; 256],
            wide: &mut [0; 256],
            floats: &mut [0.0; 256],
            numbers: numbers.each_mut().map(|part| &mut part[..]),
            bytes: &mut [0; 512],
            halves: &mut [0; 1024],
        };
        let pair = Pair {
            kernels: &Wrong(name),
            reference: &Portable,
        };
        let found = pair.all(&[12_289], &mut memory).unwrap_err();
        assert_eq!(found.kernel, *name);
    }
}

/// The modules of which every target has a form name all kernels: the files here
/// (those of one kind of machine are in folders).
#[test]
fn every_kernel_is_in_the_list() {
    // What these modules have beside kernels.
    const OTHERS: [&str; 2] = ["backend", "pack_column"];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ring/kernel");
    let mut declared = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let source = std::fs::read_to_string(path).unwrap();
        let names = source.lines().filter_map(|line| {
            let free = line.strip_prefix("pub fn ");
            // Of the module of what only hosts have.
            let free = free.or(line.strip_prefix("    pub(crate) fn "))?;
            free.split(['(', '<']).next()
        });
        let names = names.filter(|name| !OTHERS.contains(name));
        declared.extend(names.map(String::from));
    }
    for name in &declared {
        let there = NAMES.contains(&name.as_str());
        assert!(there, "{name} has no entry in every_kernel");
    }
    assert_eq!(declared.len(), NAMES.len(), "{declared:?}");
}
