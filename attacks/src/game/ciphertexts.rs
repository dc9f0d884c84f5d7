//! The output stays encrypted, and the attacker reads the link.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::stand_in::Flaw;
use super::{Distinguisher, Gaussians, Seen, control, run_encrypted};
use crate::attack::{Attack, AttackError, Context, Control, Must};
use crate::paper::{Table, XIANG_GAME};
use crate::target::{Access, Exchange, Grants};

/// Bytes at each end of a message that are looked at place by place: headers, levels,
/// scales and seeds stand there.
const EDGE: usize = 64;

/// Bytes of a block that is looked for again: no two random ones are equal.
const BLOCK: usize = 16;

/// Evaluations of which the blocks are kept, to bound the memory.
const REMEMBERED: usize = 200;

/// Messages of one evaluation.
fn messages<'a>(seen: &Seen<'a>) -> [&'a [u8]; 2] {
    let exchange: Option<&Exchange> = seen.answers.exchanges.get(seen.index);
    exchange.map_or([&[], &[]], |e| [&e.up, &e.down])
}

/// Lengths.
fn sizes(seen: &Seen<'_>) -> Vec<f64> {
    messages(seen).map(|message| message.len() as f64).to_vec()
}

/// How often every value of a byte occurs, as a share.
fn histogram(seen: &Seen<'_>) -> Vec<f64> {
    let shares = messages(seen).map(|message| {
        let mut counts = vec![0.0; 256];
        message.iter().for_each(|&b| counts[usize::from(b)] += 1.0);
        let all = message.len().max(1) as f64;
        counts.into_iter().map(move |count| count / all)
    });
    shares.into_iter().flatten().collect()
}

/// The first and last bytes, place by place.
fn edges(seen: &Seen<'_>) -> Vec<f64> {
    let of = |message: &[u8]| -> Vec<f64> {
        let at = |i: Option<usize>| {
            i.and_then(|i| message.get(i))
                .map_or(-1.0, |&b| f64::from(b))
        };
        let first = (0..EDGE).map(|i| at(Some(i)));
        let last = (1..=EDGE).map(|i| at(message.len().checked_sub(i)));
        first.chain(last).collect()
    };
    messages(seen)
        .iter()
        .flat_map(|message| of(message))
        .collect()
}

/// What shows that a message is hardly encrypted, as where a component is zero: the
/// share of zeros, the longest run of one value, the entropy of the bytes.
fn transparency(seen: &Seen<'_>) -> Vec<f64> {
    let of = |message: &[u8]| {
        let all = message.len().max(1) as f64;
        let mut counts = [0.0f64; 256];
        message.iter().for_each(|&b| counts[usize::from(b)] += 1.0);
        let shares = counts.iter().filter(|&&count| count > 0.0).map(|c| c / all);
        let entropy: f64 = shares.map(|share| -share * share.log2()).sum();
        let runs = message.chunk_by(|a, b| a == b).map(<[u8]>::len);
        [counts[0] / all, runs.max().unwrap_or(0) as f64, entropy]
    };
    messages(seen)
        .iter()
        .flat_map(|message| of(message))
        .collect()
}

/// Looks for blocks of the challenge, at the same place, among those that it saw with
/// known bits: a seed or a nonce that comes again shows so.
#[derive(Default)]
struct Repeated {
    blocks: [HashSet<u64>; 2],
    seen: usize,
}

/// Every whole block with its place, as a hash.
fn blocks(seen: &Seen<'_>) -> Vec<u64> {
    let of = |(direction, message): (usize, &[u8])| -> Vec<u64> {
        let whole = message.chunks_exact(BLOCK).enumerate();
        let hashes = whole.map(|(place, block)| {
            let mut hasher = DefaultHasher::new();
            (direction, place, block).hash(&mut hasher);
            hasher.finish()
        });
        hashes.collect()
    };
    messages(seen)
        .into_iter()
        .enumerate()
        .flat_map(of)
        .collect()
}

impl Distinguisher for Repeated {
    fn learn(&mut self, seen: &Seen<'_>, bit: bool) {
        if self.seen < REMEMBERED {
            self.seen += 1;
            self.blocks[usize::from(bit)].extend(blocks(seen));
        }
    }

    fn score(&self, seen: &Seen<'_>) -> f64 {
        let found = blocks(seen);
        let count = |bit: usize| {
            found
                .iter()
                .filter(|b| self.blocks[bit].contains(b))
                .count()
        };
        count(1) as f64 - count(0) as f64
    }
}

/// All distinguishers, new.
fn distinguishers() -> Vec<(&'static str, Box<dyn Distinguisher>)> {
    vec![
        ("sizes", Box::new(Gaussians::new(sizes))),
        ("metadata", Box::new(Gaussians::new(edges))),
        ("bytes", Box::new(Gaussians::new(histogram))),
        ("transparent", Box::new(Gaussians::new(transparency))),
        ("repeated", Box::new(Repeated::default())),
    ]
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Ciphertexts;

impl Attack for Ciphertexts {
    fn name(&self) -> &'static str {
        "game-ciphertexts"
    }

    fn about(&self) -> &'static str {
        "tells which of two inputs was evaluated from the bytes of the link"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Ciphertexts])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_GAME]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| run_encrypted(case, self, distinguishers))
    }

    /// Each distinguisher against the flaw that it is for, and against none.
    fn controls(&self) -> Vec<Control<'_>> {
        let gaussians = |features: fn(&Seen<'_>) -> Vec<f64>| {
            move || Box::new(Gaussians::new(features)) as Box<dyn Distinguisher>
        };
        let repeated = || Box::new(Repeated::default()) as Box<dyn Distinguisher>;
        let asked = self.access();
        let (succeed, fail) = (Must::Succeed, Must::Fail);
        vec![
            control("sizes", succeed, Flaw::Size, asked, gaussians(sizes)),
            control("header", succeed, Flaw::Header, asked, gaussians(edges)),
            control(
                "no key stream, by its bytes",
                succeed,
                Flaw::Transparent,
                asked,
                gaussians(histogram),
            ),
            control(
                "no key stream, by its entropy",
                succeed,
                Flaw::Transparent,
                asked,
                gaussians(transparency),
            ),
            control("reused nonce", succeed, Flaw::ReusedNonce, asked, repeated),
            control(
                "repeated seeds",
                succeed,
                Flaw::RepeatedSeeds,
                asked,
                repeated,
            ),
            control("sound, sizes", fail, Flaw::None, asked, gaussians(sizes)),
            control("sound, metadata", fail, Flaw::None, asked, gaussians(edges)),
            control(
                "sound, bytes",
                fail,
                Flaw::None,
                asked,
                gaussians(histogram),
            ),
            control(
                "sound, transparency",
                fail,
                Flaw::None,
                asked,
                gaussians(transparency),
            ),
            control("sound, repeated", fail, Flaw::None, asked, repeated),
        ]
    }
}
