//! Transforms of divisions that are put off, against divisions at once.

use crate::ckks::Ciphertext;
use crate::ckks::evaluator::{
    Debt, Due, SwitchOp, Switching, Workspace, rescale, rescale_owing, workspace_words,
};
use crate::error::Error;
use crate::params::Params;
use crate::ring::automorphism::{conjugation, rotation};
use crate::testing::{N16, N64, random};

type Ct = Ciphertext<Vec<u32>>;

fn words(params: &Params, level: usize, seed: u64) -> Vec<u32> {
    let limb = |i| {
        let q = params.prime(i).unwrap().modulus().value();
        random(params.n(), q, seed * 16 + i as u64)
    };
    (0..=level).flat_map(limb).collect()
}

fn ciphertext(params: &Params, level: usize, seed: u64) -> Ct {
    let parts = [
        words(params, level, 2 * seed),
        words(params, level, 2 * seed + 1),
    ];
    Ciphertext::from_parts(params, level, 1024.0, parts).unwrap()
}

/// What both halves owe.
struct Owed {
    words: [Vec<i32>; 2],
    bounds: [u32; 2],
}

impl Owed {
    fn new(params: &Params) -> Self {
        Self {
            words: [(); 2].map(|()| vec![i32::MIN; params.n()]),
            bounds: [0; 2],
        }
    }

    fn debts(&mut self) -> [Debt<'_>; 2] {
        let [w0, w1] = &mut self.words;
        let [b0, b1] = &mut self.bounds;
        [Debt::new(w0, b0), Debt::new(w1, b1)]
    }
}

/// Up to the division, with a key of any words.
fn until_division(
    params: &Params,
    op: SwitchOp,
    ct: &mut Ct,
    work: &mut Workspace<'_>,
) -> Switching {
    let mut run = Switching::start(params, op, ct).unwrap();
    let mut seed = 1000;
    loop {
        match run.due().unwrap() {
            Due::Digit(_) => run.digit(params, ct, work, &mut ()).unwrap(),
            Due::Key(at) => {
                let q = params.prime(at.target).unwrap().modulus().value();
                let [b, a] = [seed, seed + 1].map(|seed| random(params.n(), q, seed));
                seed += 2;
                run.absorb(params, ct, work, &b, &a).unwrap();
            }
            Due::Division => return run,
        }
    }
}

/// A chain of doublings long enough that a debt is paid on the way, a wide special prime
/// whose debts last for one division alone, and what else ends in a rescaling.
#[test]
fn divisions_that_are_put_off_give_the_same_words() {
    let mut lasted = 0;
    for (params, level) in [(&N16, 3), (&N16, 1), (&N64, 2)] {
        let n = params.n();
        let doubling = |k: usize| match k % 3 {
            2 => SwitchOp::RotateAdd(conjugation(n)),
            _ => SwitchOp::RotateAdd(rotation(n, 1 << (k % 3))),
        };
        for first in [
            SwitchOp::Square,
            SwitchOp::Rotate(rotation(n, 3)),
            doubling(0),
        ] {
            for doublings in [0, 1, 5, 30] {
                let ops = [first].into_iter().chain((0..doublings).map(doubling));
                let ops: Vec<SwitchOp> = ops.collect();
                let (mut prompt, mut late) =
                    (ciphertext(params, level, 7), ciphertext(params, level, 7));
                let mut memory = vec![0; workspace_words(params, level)];
                let mut owed = Owed::new(params);
                for (k, &op) in ops.iter().enumerate() {
                    let work = &mut Workspace::new(params, level, &mut memory).unwrap();
                    let mut run = until_division(params, op, &mut prompt, work);
                    run.divide(params, &mut prompt, work, &mut ()).unwrap();
                    let mut run = until_division(params, op, &mut late, work);
                    let lasts = [true, k + 1 == ops.len()];
                    run.divide_owing(params, &mut late, owed.debts(), lasts, work, &mut ())
                        .unwrap();
                    assert_eq!(run.due(), None);
                    assert!(owed.bounds[1] == 0 || lasts[1]);
                    lasted += u32::from(owed.bounds[0] > 0);
                    assert_eq!(prompt.parts()[1] == late.parts()[1], owed.bounds[1] == 0);
                }
                let mut scratch = vec![0; 2 * n];
                rescale(params, &mut prompt, &mut scratch[..n]).unwrap();
                let debts = owed.debts();
                rescale_owing(params, &mut late, debts, &mut scratch, &mut ()).unwrap();
                assert_eq!(owed.bounds, [0; 2]);
                assert_eq!(late.level(), level - 1);
                assert_eq!(prompt.scale().to_bits(), late.scale().to_bits());
                assert_eq!(prompt.parts(), late.parts(), "{first:?} {doublings}");
            }
        }
    }
    assert!(lasted > 50, "{lasted}");
}

#[test]
fn a_debt_is_no_operand_of_another_switch() {
    let (params, level) = (&N16, 2);
    let mut memory = vec![0; workspace_words(params, level)];
    let work = &mut Workspace::new(params, level, &mut memory).unwrap();
    let mut owed = Owed::new(params);
    let mut ct = ciphertext(params, level, 3);
    let op = SwitchOp::Rotate(rotation(params.n(), 1));
    let mut run = until_division(params, op, &mut ct, work);
    run.divide_owing(params, &mut ct, owed.debts(), [true, false], work, &mut ())
        .unwrap();
    let mut run = until_division(params, op, &mut ct, work);
    let refused = run.divide_owing(params, &mut ct, owed.debts(), [true; 2], work, &mut ());
    assert!(matches!(refused, Err(Error::Turn { .. })), "{refused:?}");
    // Nor is one of the second half, whose digits a doubling reads.
    let mut owed = Owed::new(params);
    let doubling = SwitchOp::RotateAdd(rotation(params.n(), 1));
    let mut run = until_division(params, doubling, &mut ct, work);
    run.divide_owing(params, &mut ct, owed.debts(), [true; 2], work, &mut ())
        .unwrap();
    assert!(owed.bounds.iter().all(|&bound| bound > 0));
    let mut run = until_division(params, doubling, &mut ct, work);
    let (words, bounds) = (ct.parts().map(<[u32]>::to_vec), owed.bounds);
    let refused = run.divide_owing(params, &mut ct, owed.debts(), [true; 2], work, &mut ());
    assert!(matches!(refused, Err(Error::Turn { .. })), "{refused:?}");
    // Before anything was changed.
    assert_eq!(ct.parts().map(<[u32]>::to_vec), words);
    assert_eq!(owed.bounds, bounds);
    // Lengths are checked.
    let mut owed = Owed::new(params);
    owed.words[0].pop();
    let mut run = until_division(params, op, &mut ct, work);
    let refused = run.divide_owing(params, &mut ct, owed.debts(), [true; 2], work, &mut ());
    assert!(matches!(refused, Err(Error::Length { .. })), "{refused:?}");
    let short = &mut vec![0; 2 * params.n() - 1];
    let refused = rescale_owing(params, &mut ct, Owed::new(params).debts(), short, &mut ());
    assert!(matches!(refused, Err(Error::Length { .. })), "{refused:?}");
}
