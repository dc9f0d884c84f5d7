//! A target that encrypts with a stream cipher, with flaws at choice. It stands in for
//! a deployment in controls, where the outcome must be known; figures about encryption
//! come from encrypted targets alone.

use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::random;
use crate::target::{
    About, Access, Activation, Answers, Clock, Evaluation, Exchange, Grants, Rows, Target,
    TargetError, Time,
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nothing.
    None,
    /// Every encryption has the same key stream.
    ReusedNonce,
    /// Few key streams, that come again.
    RepeatedSeeds,
    /// No key stream.
    Transparent,
    /// Zeros at the end are not sent.
    Size,
    /// A field of the header that depends on the input.
    Header,
    /// The evaluator skips zeros.
    Branch,
}

/// Values per input.
const INPUTS: usize = 64;

/// Bytes before the encrypted ones.
const HEADER: usize = 16;

/// The target.
#[derive(Debug)]
pub(super) struct StandIn {
    about: About,
    flaw: Flaw,
    rng: ChaCha8Rng,
}

impl StandIn {
    /// One with a flaw.
    pub(super) fn new(flaw: Flaw, seed: u64) -> Self {
        let about = About {
            name: format!("stand-in ({flaw:?})"),
            dataset: "stand-in".into(),
            inputs: INPUTS,
            classes: 2,
            activation: Activation::Polynomial,
            evaluation: Evaluation::Encrypted,
        };
        let rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
        Self { about, flaw, rng }
    }

    /// Two inputs to tell apart: the second ends with zeros.
    pub(super) fn pair(&self) -> Rows {
        let value = |i: usize| (i * 37 % 61 + 1) as f64 / 64.0;
        let first = (0..INPUTS).map(value);
        let second = (0..INPUTS).map(|i| if i < 40 { value(i + 7) } else { 0.0 });
        Rows::new(INPUTS, first.chain(second).collect())
    }

    fn encrypt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let nonce = match self.flaw {
            Flaw::ReusedNonce => 1,
            Flaw::RepeatedSeeds => random::below(&mut self.rng, 16) as u64,
            _ => self.rng.next_u64(),
        };
        let mut sent = vec![0x4e; HEADER];
        sent[8..].copy_from_slice(&nonce.to_le_bytes());
        let mut stream = vec![0; bytes.len()];
        if self.flaw != Flaw::Transparent {
            ChaCha8Rng::seed_from_u64(nonce).fill_bytes(&mut stream);
        }
        sent.extend(bytes.iter().zip(stream).map(|(byte, key)| byte ^ key));
        sent
    }
}

impl Target for StandIn {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        Grants::of(&[Access::Scores, Access::Ciphertexts, Access::Timing])
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let mut answers = Answers::default();
        let mut scores = Vec::new();
        for query in queries.iter() {
            let bytes: Vec<u8> = query.iter().map(|x| (x * 255.0) as u8).collect();
            let zeros = bytes.iter().filter(|&&byte| byte == 0).count();
            let sum: f64 = query.iter().sum();
            if asked.contains(Access::Ciphertexts) {
                let mut sent = &bytes[..];
                if self.flaw == Flaw::Size {
                    let end = bytes.iter().rposition(|&byte| byte != 0);
                    sent = &bytes[..end.map_or(0, |last| last + 1)];
                }
                let mut up = self.encrypt(sent);
                if self.flaw == Flaw::Header {
                    up[3] = u8::from(zeros > 0);
                }
                let down = self.encrypt(&sum.to_le_bytes());
                answers.exchanges.push(Exchange { up, down });
            }
            if asked.contains(Access::Timing) {
                let work = if self.flaw == Flaw::Branch {
                    bytes.len() - zeros
                } else {
                    bytes.len()
                };
                let noise = 5.0 * random::normal(&mut self.rng);
                answers.times.push(Time {
                    value: (1000.0 + work as f64 + noise) as u64,
                    clock: Clock::Cycles,
                });
            }
            scores.extend([sum, -sum]);
        }
        if asked.contains(Access::Scores) {
            answers.scores = Rows::new(2, scores);
        }
        Ok(answers)
    }
}
