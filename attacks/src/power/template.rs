//! The key out of a single trace, by templates (Chari, Rao, Rohatgi, "Template attacks", CHES
//! 2002), **simulated**.
//!
//! An open sensor makes the key's transform anew for every limb of every encryption. It begins
//! with the coefficients themselves: each is -1, 0 or 1, and for each a residue of that value in
//! Montgomery form is stored, one of three words per limb (`he_core::rlwe::CompactKey`). Whatever
//! instructions make them, these words are written to memory. Whoever has another sensor of the
//! same kind, with a key of his own, learns what each of the three leaks, and then tells them
//! apart in one encryption of the sensor that he attacks, or in the mean of several, as the words
//! are the same in all.
//!
//! What leaks is the Hamming weight of a stored word, with normal noise of the same size as in
//! [`super::cpa`]; other words of the conversion and of the transform, which leak as well, are not
//! looked at. A sensor under masks stores no such word during an encryption: there the same
//! templates see words of its share. It makes the transform openly once, when the key is put
//! under masks, and whoever measures that has this attack.

use chacha20::ChaCha8Rng;
use he_core::Result;
use he_core::params::Params;
use rand_core::SeedableRng;

use super::cpa::SIGNAL;
use crate::random;

/// Values of a coefficient.
pub const VALUES: [i8; 3] = [-1, 0, 1];

/// The words that a sensor stores of its key's coefficients, limb by limb.
///
/// # Errors
/// Those of he-core; none is expected.
pub fn stored(params: &Params, coefficients: &[i8]) -> Result<Vec<Vec<u32>>> {
    let limbs = 0..params.data_limbs();
    limbs
        .map(|limb| {
            let m = params.prime(limb)?.modulus();
            let residue = |&s: &i8| m.canon(i32::from(s).wrapping_mul(m.r()));
            Ok(coefficients.iter().map(residue).collect())
        })
        .collect()
}

/// How much is measured, and how well.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// [`SIGNAL`] over the variance of the noise on every sample.
    pub snr: f64,
    /// Encryptions of which the mean is taken.
    pub encryptions: usize,
    /// Of the noise.
    pub seed: u64,
}

/// What words leak, limb by limb.
#[must_use]
pub fn leaks(words: &[Vec<u32>], measured: Measured) -> Vec<Vec<f64>> {
    let Measured {
        snr,
        encryptions,
        seed,
    } = measured;
    // Of a mean.
    let deviation = (SIGNAL / snr / encryptions as f64).sqrt();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut of =
        |word: &u32| deviation.mul_add(random::normal(&mut rng), f64::from(word.count_ones()));
    words
        .iter()
        .map(|limb| limb.iter().map(&mut of).collect())
        .collect()
}

/// What each value leaks: per limb the means of [`VALUES`], and the deviation of all.
#[derive(Clone, Debug)]
pub struct Templates {
    means: Vec<[f64; 3]>,
    variances: Vec<f64>,
}

impl Templates {
    /// From what a sensor leaked of a key that is known.
    #[must_use]
    pub fn new(coefficients: &[i8], leaks: &[Vec<f64>]) -> Self {
        let mut templates = Self {
            means: Vec::new(),
            variances: Vec::new(),
        };
        for leaks in leaks {
            let means = VALUES.map(|value| {
                let pairs = coefficients.iter().zip(leaks);
                let of_value: Vec<f64> = pairs
                    .filter(|&(&s, _)| s == value)
                    .map(|(_, &leak)| leak)
                    .collect();
                of_value.iter().sum::<f64>() / of_value.len().max(1) as f64
            });
            let pairs = coefficients.iter().zip(leaks);
            let squares = pairs.map(|(&s, leak)| (leak - means[place(s)]).powi(2));
            // Without noise there is nothing to weigh.
            let variance = squares.sum::<f64>() / leaks.len().max(1) as f64;
            templates.means.push(means);
            templates.variances.push(variance.max(1e-9));
        }
        templates
    }

    /// The same with values exchanged: what they tell is wrong.
    #[must_use]
    pub fn exchanged(mut self) -> Self {
        self.means.iter_mut().for_each(|means| means.rotate_left(1));
        self
    }

    /// Of every coefficient the probabilities of [`VALUES`], by all limbs that leaked.
    #[must_use]
    pub fn probabilities(&self, leaks: &[Vec<f64>]) -> Vec<[f64; 3]> {
        let count = leaks.first().map_or(0, Vec::len);
        let of = |index: usize| {
            let mut logs = [0.0; 3];
            let limbs = leaks.iter().zip(self.means.iter().zip(&self.variances));
            for (leaks, (means, variance)) in limbs {
                for (log, mean) in logs.iter_mut().zip(means) {
                    *log -= (leaks[index] - mean).powi(2) / (2.0 * variance);
                }
            }
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares = logs.map(|log| (log - most).exp());
            let all: f64 = shares.iter().sum();
            shares.map(|share| share / all)
        };
        (0..count).map(of).collect()
    }
}

/// The place of a coefficient among [`VALUES`].
const fn place(coefficient: i8) -> usize {
    (coefficient + 1) as usize
}

/// What probabilities come to, beside the key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// Coefficients of which the likeliest value is right.
    pub right: usize,
    /// Bits of the key that are known: of log2(3) each, less what the right values' own
    /// probabilities leave.
    pub bits: f64,
}

impl Told {
    /// Of so many coefficients.
    #[must_use]
    pub fn of(probabilities: &[[f64; 3]], coefficients: &[i8]) -> Self {
        let mut told = Self {
            right: 0,
            bits: 0.0,
        };
        for (shares, &s) in probabilities.iter().zip(coefficients) {
            let own = shares[place(s)];
            let others = VALUES.iter().filter(|&&value| value != s);
            let is_most = others.copied().all(|value| shares[place(value)] < own);
            told.right += usize::from(is_most);
            // What is thought impossible and is right costs no more than a double can say.
            told.bits += 3f64.log2() + own.max(f64::MIN_POSITIVE).log2();
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use he_core::params::N4096_DEPTH3;
    use he_core::ring::ntt;

    use super::super::sensor::{Protection, Sensor};
    use super::*;

    /// The words are those of the key's transform before it: their NTT is the sensor's, of the
    /// limb that it looks at.
    #[test]
    fn words_are_those_that_are_transformed() {
        let sensor = Sensor::new(&N4096_DEPTH3, 9, Protection::None).unwrap();
        let words = stored(&N4096_DEPTH3, sensor.coefficients()).unwrap();
        assert_eq!(words.len(), N4096_DEPTH3.data_limbs());
        let transforms = words.into_iter().enumerate().map(|(limb, mut words)| {
            ntt::forward(&mut words, N4096_DEPTH3.prime(limb).unwrap()).unwrap();
            words
        });
        let like = transforms.filter(|words| words == sensor.transform());
        assert_eq!(like.count(), 1);
    }

    #[test]
    fn one_trace_with_little_noise_is_the_key_and_much_noise_is_nothing() {
        let [own, other] = [1, 2].map(|seed| {
            let sensor = Sensor::new(&N4096_DEPTH3, seed, Protection::None).unwrap();
            sensor.coefficients().to_vec()
        });
        let words = [&own, &other].map(|key| stored(&N4096_DEPTH3, key).unwrap());
        let told = |snr, change: fn(Templates) -> Templates| {
            let measured = |seed| Measured {
                snr,
                encryptions: 1,
                seed,
            };
            let templates = change(Templates::new(&own, &leaks(&words[0], measured(1))));
            let found = templates.probabilities(&leaks(&words[1], measured(2)));
            Told::of(&found, &other)
        };
        let all = 4096.0 * 3f64.log2();
        let clean = told(1000.0, |templates| templates);
        assert_eq!(clean.right, 4096);
        assert!(clean.bits > 0.999 * all, "{clean:?}");
        // Guessing is right in a third, give or take five standard deviations of 30.
        let noisy = told(1e-6, |templates| templates);
        assert!(
            noisy.right.abs_diff(4096 / 3) < 151 && noisy.bits < 50.0,
            "{noisy:?}"
        );
        let wrong = told(1000.0, Templates::exchanged);
        assert!(wrong.right < 4096 / 3 && wrong.bits < 0.0, "{wrong:?}");
    }
}
