//! Publication of decrypted values to others than the holder of the key.
//!
//! The error of a CKKS ciphertext is a linear function of the key, and whoever
//! sees an exact decryption sees that error (Li, Micciancio, Eurocrypt 2021,
//! ePrint 2020/1533). So [`publish_values`] drowns it: noise is added to every
//! coefficient before anything is decoded.
//!
//! # How much noise
//!
//! Let `d` bound the Euclidean norm of the errors of the coefficients. A
//! polynomial with errors up to `bound` in every slot has
//! `sum e_k^2 = (1 / N) sum |e(zeta_j)|^2 <= bound^2` (Parseval), and rounding
//! the exact result to integers adds `sqrt(N) / 2`, so `d = bound + sqrt(N) / 2`.
//! The noise has the standard deviation
//!
//! ```text
//! sigma >= d sqrt(24 q) 2^(s / 2)
//! ```
//!
//! in each coefficient, for `q` publications in all under one key and `s` bits
//! of statistical security. This is the rule of Li, Micciancio, Schultz,
//! Sorrell (Crypto 2022, ePrint 2022/816, Corollary 2), which has
//! `sqrt(24 N q) 2^(s / 2)` before a bound of the error; here the norm over the
//! coefficients stands for that bound times `sqrt(N)`. OpenFHE takes
//! `sqrt(12 q) 2^(s / 2)` before an error that it measures, and holds the
//! paper's `sqrt(2 N)` to be wrong as the game is played over coefficients
//! (`CKKS_NOISE_FLOODING.md`). What follows depends on neither: it is a
//! derivation of its own, from the norm.
//!
//! What it gives, for the noise drawn here: the square of the Hellinger
//! distance of a probability on the integers and itself moved by `e` is at most
//! `J e^2 / 8` with `J = 4 sum (sqrt p(x) - sqrt p(x - 1))^2` (the triangle
//! inequality), it adds up over independent coefficients, and over queries that
//! depend on each other's answers. A sum of eight or more uniform integers has
//! `J sigma^2 < 1.01` (a test computes it). So all that is published is within
//! the total variation `sqrt(1.01 q) d / (2 sigma) < 2^(-s / 2 - 3)` of exact
//! results with the same noise, which tell nothing about the key; to which the 2^-64 come
//! with which `bound` does not hold ([`super::noise`]). `s` counts as
//! Micciancio and Walter do (Eurocrypt 2018), by the square of an advantage: 30
//! bits are an advantage of `2^-18`, and an advantage of `2^-40` takes 74.
//!
//! The other way, of publishing rounded results (Bossuat, Costache, Mouchet,
//! Nuernberger, Troncoso-Pastoriza, ePrint 2024/853), needs less precision and
//! a bound on the probability that the bounds of the noise fail. Those of [`Noise`] have
//! one, but for results near the boundary of two roundings there would be none.
//!
//! # What it does not give
//!
//! The bound is that of a circuit honestly evaluated on honest encryptions.
//! Against an evaluator that returns something else there is none: `(1, 2^99)` at
//! the scale 2^100 decrypts to the key divided by two, values of ordinary size,
//! and one publication gives all its coefficients away (a test recovers them).
//! Neither level, scale, size nor budget stops that. So [`publish_values`] takes
//! an [`HonestResult`], which is made of a statement ([`HonestEvaluator`]) or of
//! an evaluation made again ([`HonestResult::verified`]).
//!
//! For results of anybody else there are labels ([`publish_label`]): a choice
//! among `n` slots tells `log2 n` bits at most, counted by the same budget, so `q`
//! labels up to `q log2 n` bits; every coefficient known takes one from the
//! dimension that security rests on. An evaluator that makes ciphertexts for it
//! learns 0.6 coefficients of the key per label where results that wrap around have
//! labels, too (`tests/oracles.rs`). A result that wrapped around,
//! or was made to, is refused, and as the refusal tells a bit as well, it retires
//! the key: without that rule 2 N answers of acceptance alone are the key.
//!
//! # The noise
//!
//! It comes from a ChaCha20 stream whose key is HMAC-SHA-256 of the residues of
//! the ciphertext, the scale that is expected and the size of the noise, under a
//! [`NoiseKey`] that stays with the secret key. (The scale in the ciphertext is a
//! statement of whoever sent it, which may be off by some units in the last
//! place.) So a ciphertext published twice gives the same values, and averaging
//! over repetitions gains nothing. Repetitions are counted all the same.
//!
//! It is added to the residues, before anything is turned into floating point:
//! noise in floating point would be a multiple of some power of two, and leave
//! lower bits of the error as they are (Mironov, CCS 2012).

use super::ciphertext::Ciphertext;
use super::decrypt::{check_answer, decode, decrypt, label};
use super::noise::Noise;
use crate::arith::Modulus;
use crate::error::{Error, Result};
use crate::params::Params;
use crate::ring::crt::Crt;
use crate::rlwe::{self, SecretKey};
use crate::secret::{Erased, declassify};
use chacha20::ChaCha20Rng;
use core::fmt;
use core::ops::Range;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::{Rng, SeedableRng};
use sha2::Sha256;
use zeroize::Zeroize;

/// Fewest uniform integers that are added up to one of noise.
const MIN_TERMS: f64 = 8.0;

/// Most bits of one of these integers.
const MAX_WIDTH: f64 = 118.0;

/// Standard deviations of the noise in a slot that a published value keeps
/// within, either part but for a probability of 2^-50.
const TAIL: f64 = 6.0;

/// Least bits of statistical security of an [`Allowance`]: an advantage of 2^-18.
pub const MIN_STATISTICAL_BITS: u32 = 30;

/// What one key may publish in all its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    queries: u32,
    statistical_bits: u32,
}

impl Allowance {
    /// Publications, of values and labels together, and bits `s` of statistical
    /// security, see the module. The noise of values is made for that many
    /// publications; labels have none, so that a key of labels alone loses no
    /// precision by a larger number.
    ///
    /// # Errors
    /// [`Error::StatisticalBits`] below [`MIN_STATISTICAL_BITS`].
    pub const fn new(queries: u32, statistical_bits: u32) -> Result<Self> {
        if statistical_bits < MIN_STATISTICAL_BITS {
            return Err(Error::StatisticalBits {
                least: MIN_STATISTICAL_BITS,
                got: statistical_bits,
            });
        }
        Ok(Self {
            queries,
            statistical_bits,
        })
    }

    /// Publications.
    #[must_use]
    pub const fn queries(&self) -> u32 {
        self.queries
    }

    /// Bits of statistical security.
    #[must_use]
    pub const fn statistical_bits(&self) -> u32 {
        self.statistical_bits
    }

    /// Standard deviation of the noise for errors of the norm `distance`.
    fn sigma(&self, distance: f64) -> f64 {
        let queries = f64::from(self.queries.max(1));
        distance * libm::sqrt(24.0 * queries) * libm::exp2(0.5 * f64::from(self.statistical_bits))
    }
}

/// Name of a secret key in a budget. It tells nothing about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 16]);

/// The count of what a key has published.
///
/// An implementation keeps the count where it outlives the process, and never
/// gives anything back: a publication that failed after it was counted stays
/// counted.
pub trait Budget {
    /// Why nothing can be spent.
    type Error;

    /// What the key may publish, the same for all its life.
    fn allowance(&self) -> Allowance;

    /// Counts one publication, of values or of a label, under `key`. When this
    /// returns, the count is durable: what is published is decrypted afterwards.
    ///
    /// # Errors
    /// Where the allowance is used up, the budget is another key's, or the
    /// count could not be stored. Nothing is published then.
    fn spend(&mut self, key: &KeyId) -> core::result::Result<(), Self::Error>;

    /// Counts all that is left of the allowance: the key publishes no more. When
    /// this returns, that is durable.
    ///
    /// # Errors
    /// Where the budget is another key's, or the count could not be stored.
    fn retire(&mut self, key: &KeyId) -> core::result::Result<(), Self::Error>;
}

/// Why nothing was published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PublishError<E> {
    /// The ciphertext or the request is at fault; nothing was decrypted and
    /// nothing spent.
    Refused(Error),
    /// The budget did not allow it; nothing was decrypted.
    Budget(E),
    /// The result fills more than half of the modulus: it wrapped around, or was
    /// made to. That it did tells a bit about the key, which is retired: make a
    /// new one.
    Retired,
}

impl<E> From<Error> for PublishError<E> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl<E: fmt::Display> fmt::Display for PublishError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Budget(error) => error.fmt(f),
            Self::Retired => f.write_str(
                "the result wraps around the modulus; its key publishes no more, make a new key",
            ),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for PublishError<E> {}

/// What the holder of the key knows of a result from the circuit and the range
/// of its inputs, before there is a ciphertext. Nothing of it may be taken from
/// the ciphertext or from whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Level.
    pub level: usize,
    /// Scale.
    pub scale: f64,
    /// The error, tracked through the circuit, in slots times the scale. Only
    /// `bound` counts. What a ciphertext itself carries
    /// ([`Ciphertext::noise`]) is not looked at: it is a figure of whoever
    /// computed, and of one that came from elsewhere there is none. The holder
    /// of the key may run the circuit on ciphertexts of his own and take what
    /// those carry.
    pub noise: Noise,
    /// Largest magnitude of a slot, in units of the result.
    pub magnitude: f64,
    /// Bits that published values must have after the binary point.
    pub precision_bits: f64,
}

/// The statement of whoever holds the key that a result was computed as it
/// should have been: by himself, or by somebody whom he trusts with his secret key.
///
/// Nothing checks it. An evaluator of whom it is stated wrongly has the secret key
/// after one publication, whatever the budget: see the module.
#[derive(Clone, Copy, Debug)]
pub struct HonestEvaluator(());

impl HonestEvaluator {
    /// States it. **If it is false, [`publish_values`] publishes the secret key**,
    /// and with it everything that was ever encrypted under it.
    #[must_use]
    pub const fn assume() -> Self {
        Self(())
    }
}

/// A result whose values may be published: of an evaluator stated honest, or
/// verified.
#[derive(Debug)]
pub struct HonestResult<'ct, S, const PARTS: usize = 2>(&'ct Ciphertext<S, PARTS>);

impl<'ct, S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize> HonestResult<'ct, S, PARTS> {
    /// The result of an evaluator that is stated honest.
    #[must_use]
    pub const fn stated(ct: &'ct Ciphertext<S, PARTS>, _: HonestEvaluator) -> Self {
        Self(ct)
    }

    /// A result that is, bit for bit, what the holder of the key computed again
    /// from his own input: evaluation is deterministic. `again` must not come from
    /// where `ct` does.
    ///
    /// # Errors
    /// [`Error::NotReproduced`], [`Error::Level`], [`Error::Scale`], [`Error::Params`].
    pub fn verified<T: AsRef<[u32]> + AsMut<[u32]>>(
        params: &Params,
        ct: &'ct Ciphertext<S, PARTS>,
        again: &Ciphertext<T, PARTS>,
    ) -> Result<Self> {
        const OP: &str = "verification";
        ct.check_params(params)?;
        again.check_params(params)?;
        if ct.level() != again.level() {
            return Err(Error::Level {
                operation: OP,
                expected: again.level(),
                got: ct.level(),
            });
        }
        if ct.scale().to_bits() != again.scale().to_bits() {
            return Err(Error::Scale {
                operation: OP,
                expected: again.scale(),
                got: ct.scale(),
            });
        }
        for (part, (x, y)) in ct.parts().into_iter().zip(again.parts()).enumerate() {
            if let Some(index) = x.iter().zip(y).position(|(x, y)| x != y) {
                return Err(Error::NotReproduced { part, index });
            }
        }
        Ok(Self(ct))
    }
}

/// The key of the pseudorandom function that the noise comes from: 32 bytes of
/// entropy, kept as the secret key is. Erased when dropped, never printed.
///
/// The bytes are held as one block of the hash, padded with zeros, which is what
/// HMAC makes of them.
pub struct NoiseKey([u8; 64]);

impl NoiseKey {
    /// Takes 32 bytes from a cryptographic generator.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let mut key = Self([0; 64]);
        for (to, from) in key.0.iter_mut().zip(&bytes) {
            *to = *from;
        }
        bytes.zeroize();
        key
    }

    /// The name of `key` in a budget, as long as this noise key is used.
    ///
    /// # Errors
    /// [`Error::Params`].
    pub fn id<K: AsRef<[u32]> + AsMut<[u32]>>(
        &self,
        params: &Params,
        key: &SecretKey<K>,
    ) -> Result<KeyId> {
        let mut mac = self.mac(b"he-edge key id 1");
        absorb(&mut mac, &[params.fingerprint()]);
        absorb(&mut mac, key.limb(params, 0)?);
        let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = finish(mac);
        Ok(KeyId(tag))
    }

    /// The generator of the noise of size `flood` for the residues of `ct` at the
    /// expected scale.
    fn stream<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        &self,
        params: &Params,
        ct: &Ciphertext<S, PARTS>,
        scale: f64,
        flood: &Flood,
    ) -> ChaCha20Rng {
        let mut mac = self.mac(b"he-edge noise  2");
        let scale = scale.to_bits();
        absorb(
            &mut mac,
            &[
                params.fingerprint(),
                PARTS as u32,
                ct.level() as u32,
                scale as u32,
                (scale >> 32) as u32,
                flood.width,
                flood.terms,
            ],
        );
        for part in ct.parts() {
            absorb(&mut mac, part);
        }
        let mut seed = finish(mac);
        let rng = ChaCha20Rng::from_seed(seed);
        seed.zeroize();
        rng
    }

    fn mac(&self, purpose: &[u8; 16]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new((&self.0).into());
        mac.update(purpose);
        mac
    }
}

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoiseKey(..)")
    }
}

impl Drop for NoiseKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn absorb(mac: &mut Hmac<Sha256>, words: &[u32]) {
    for word in words {
        mac.update(&word.to_le_bytes());
    }
}

fn finish(mac: Hmac<Sha256>) -> [u8; 32] {
    mac.finalize().into_bytes().into()
}

/// The sum of `terms` uniform integers of `width` bits, less its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Flood {
    width: u32,
    terms: u32,
}

impl Flood {
    /// The smallest of a standard deviation of at least `sigma`, which is above
    /// 2 and below 2^118: from 8 to 33 terms, so that it is exceeded by a
    /// sixteenth at most.
    fn new(sigma: f64) -> Self {
        let width = libm::floor(libm::log2(sigma * libm::sqrt(12.0 / MIN_TERMS)));
        let one = (libm::exp2(2.0 * width) - 1.0) / 12.0;
        Self {
            width: width as u32,
            terms: libm::ceil(sigma * sigma / one).max(MIN_TERMS) as u32,
        }
    }

    fn sigma(&self) -> f64 {
        let one = (libm::exp2(2.0 * f64::from(self.width)) - 1.0) / 12.0;
        libm::sqrt(f64::from(self.terms) * one)
    }

    /// Largest magnitude.
    fn bound(&self) -> f64 {
        0.5 * f64::from(self.terms) * libm::exp2(f64::from(self.width))
    }

    /// Draws one, in constant time.
    fn draw(&self, rng: &mut ChaCha20Rng) -> i128 {
        let mask = (1u128 << self.width) - 1;
        let mut sum = 0;
        for _ in 0..self.terms {
            let low = u128::from(rng.next_u64());
            let high = if self.width > u64::BITS {
                u128::from(rng.next_u64()) << u64::BITS
            } else {
                0
            };
            sum += ((low | high) & mask) as i128;
        }
        sum - ((u128::from(self.terms) * mask) >> 1) as i128
    }
}

/// The residue of an integer below 2^125 in magnitude, in constant time.
fn residue(mut x: i128, m: &Modulus) -> u32 {
    let digits = [(); 4].map(|()| {
        let digit = x as i32;
        // What is left is a multiple of 2^32.
        x = (x - i128::from(digit)) >> u32::BITS;
        digit
    });
    digits.into_iter().rev().fold(0, |high, digit| {
        m.add(m.canon(m.mont(high as i32, m.r2())), m.reduce(digit))
    })
}

/// Values that have been flooded with noise and paid for: they may be given
/// to others.
#[derive(Debug)]
pub struct Published<'a> {
    slots: &'a [f64],
    precision_bits: f64,
    fill: f64,
}

impl Published<'_> {
    /// Real parts of the `N / 2` slots.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        self.slots.split_at(self.slots.len() >> 1).0
    }

    /// Imaginary parts of the `N / 2` slots.
    #[must_use]
    pub fn imaginary(&self) -> &[f64] {
        self.slots.split_at(self.slots.len() >> 1).1
    }

    /// Bits after the binary point that are right, noise included: an error is
    /// below `2^-bits`.
    #[must_use]
    pub const fn precision_bits(&self) -> f64 {
        self.precision_bits
    }

    /// As [`super::Decrypted::fill`], noise included.
    #[must_use]
    pub const fn fill(&self) -> f64 {
        self.fill
    }
}

/// Decrypts a result, floods all its coefficients with noise made for the worst
/// case of `expected.noise` and the budget's allowance, and gives the values
/// out. Everything is checked first, then the budget is spent, and only then
/// the key is used. Memory as for [`super::decrypt()`].
///
/// # Errors
/// [`PublishError::Refused`] with [`Error::Level`], [`Error::Scale`],
/// [`Error::Transparent`], [`Error::Params`], [`Error::Length`],
/// [`Error::NoiseBound`], [`Error::Headroom`] or [`Error::Precision`];
/// [`PublishError::Budget`].
#[expect(
    clippy::too_many_arguments,
    reason = "two keys, the budget, the request, and memory"
)]
pub fn publish_values<'a, S, K, B, const PARTS: usize>(
    params: &Params,
    key: &SecretKey<K>,
    noise_key: &NoiseKey,
    budget: &mut B,
    result: &HonestResult<'_, S, PARTS>,
    expected: &Expected,
    scratch: &mut [u32],
    slots: &'a mut [f64],
) -> core::result::Result<Published<'a>, PublishError<B::Error>>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
    B: Budget,
{
    let ct = result.0;
    check_answer(params, ct, expected.level, expected.scale, scratch, slots)?;
    let (flood, precision_bits) = plan(params, expected, &budget.allowance())?;
    let id = noise_key.id(params, key)?;
    let mut rng = noise_key.stream(params, ct, expected.scale, &flood);
    budget.spend(&id).map_err(PublishError::Budget)?;

    let scratch = Erased::new(scratch);
    rlwe::decrypt(params, key, ct.parts(), scratch.0)?;
    add(params, &flood, &mut rng, scratch.0)?;
    let fill = decode(params, scratch.0, expected.scale, slots)?;
    Ok(Published {
        slots,
        precision_bits,
        fill,
    })
}

/// Decrypts `ct`, which may come from anybody, and gives out the index, among
/// `candidates`, of the range of slots whose real parts have the largest sum, the first of
/// equals; of a single candidate, 1 where its sum is positive and 0 otherwise. The running
/// time does not depend on the values. Everything is checked first, then
/// the budget is spent, and only then the key is used. Memory as for
/// [`super::decrypt()`]; `slots` is erased.
///
/// # Errors
/// [`PublishError::Refused`] with [`Error::Level`], [`Error::Scale`],
/// [`Error::Transparent`], [`Error::Params`], [`Error::Length`], the latter also
/// where there is no candidate, or one has no slot or ends beyond `N / 2`;
/// [`PublishError::Budget`]; [`PublishError::Retired`].
#[expect(
    clippy::too_many_arguments,
    reason = "two keys, the budget, the request, and memory"
)]
pub fn publish_label<S, K, B, const PARTS: usize>(
    params: &Params,
    key: &SecretKey<K>,
    noise_key: &NoiseKey,
    budget: &mut B,
    ct: &Ciphertext<S, PARTS>,
    (level, scale): (usize, f64),
    candidates: &[Range<usize>],
    scratch: &mut [u32],
    slots: &mut [f64],
) -> core::result::Result<usize, PublishError<B::Error>>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
    B: Budget,
{
    check_answer(params, ct, level, scale, scratch, slots)?;
    check_candidates(params, candidates)?;
    let id = noise_key.id(params, key)?;
    budget.spend(&id).map_err(PublishError::Budget)?;

    let result = decrypt(params, key, ct, level, scale, scratch, slots)?;
    // That a result is refused is seen by whoever made it.
    if declassify(!below(result.fill(), MAX_FILL)) {
        budget.retire(&id).map_err(PublishError::Budget)?;
        return Err(PublishError::Retired);
    }
    Ok(label(&result, candidates))
}

/// Share of the modulus beyond which a result has wrapped around, or was made to.
const MAX_FILL: f64 = 0.5;

fn check_candidates(params: &Params, candidates: &[Range<usize>]) -> Result<()> {
    let wrong = |expected, got| Error::Length {
        what: "label",
        expected,
        got,
    };
    if candidates.is_empty() {
        return Err(wrong(1, 0));
    }
    for candidate in candidates {
        if candidate.is_empty() {
            return Err(wrong(1, 0));
        }
        if candidate.end > params.slots() {
            return Err(wrong(params.slots(), candidate.end));
        }
    }
    Ok(())
}

/// Whether `x < limit`; what is not a number is not.
fn below(x: f64, limit: f64) -> bool {
    x < limit
}

/// The bits after the binary point that [`publish_values`] would leave of a result:
/// for who wants to know before there is one.
///
/// # Errors
/// [`Error::NoiseBound`], [`Error::Headroom`]; [`Error::Precision`] where it is less
/// than `expected` asks for; [`Error::Level`].
pub fn precision(params: &Params, expected: &Expected, allowance: &Allowance) -> Result<f64> {
    plan(params, expected, allowance).map(|(_, bits)| bits)
}

/// The noise for a result, and the bits after the binary point that it leaves.
fn plan(params: &Params, expected: &Expected, allowance: &Allowance) -> Result<(Flood, f64)> {
    let (n, bound, scale) = (params.n() as f64, expected.noise.bound, expected.scale);
    if !(bound >= 1.0 && bound.is_finite()) {
        return Err(Error::NoiseBound { got: bound });
    }
    let sigma = allowance.sigma(bound + 0.5 * libm::sqrt(n));
    let message = scale * libm::fabs(expected.magnitude) + bound;
    let room = 0.5 * Crt::new(params, expected.level + 1)?.modulus();
    let headroom = |needed: f64, room_log2: f64| Error::Headroom {
        needed_log2: libm::log2(needed),
        room_log2,
    };
    if !below(sigma, libm::exp2(MAX_WIDTH)) {
        return Err(headroom(sigma, MAX_WIDTH));
    }
    let flood = Flood::new(sigma);
    let needed = message + flood.bound();
    if !below(needed, room) {
        return Err(headroom(needed, libm::log2(room)));
    }
    let error = bound + TAIL * flood.sigma() * libm::sqrt(n);
    let left = libm::log2(scale / error);
    if below(left, expected.precision_bits) || expected.precision_bits.is_nan() || left.is_nan() {
        return Err(Error::Precision {
            asked: expected.precision_bits,
            left,
        });
    }
    Ok((flood, left))
}

/// Adds noise to every coefficient.
fn add(params: &Params, flood: &Flood, rng: &mut ChaCha20Rng, limbs: &mut [u32]) -> Result<()> {
    let n = params.n();
    for k in 0..n {
        let noise = flood.draw(rng);
        for (i, limb) in limbs.chunks_exact_mut(n).enumerate() {
            let m = params.prime(i)?.modulus();
            if let Some(x) = limb.get_mut(k) {
                *x = m.add(*x, residue(noise, m));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::encode::encode_in_place;
    use super::*;
    use crate::testing::{N16, N64};

    const N: usize = 64;
    const LEVEL: usize = 2;
    const SCALE: f64 = (1u64 << 28) as f64;

    /// Counts in memory; fails without counting or after it.
    struct Counted {
        allowance: Allowance,
        spent: u32,
        key: Option<KeyId>,
        crash: bool,
    }

    impl Budget for Counted {
        type Error = &'static str;
        fn allowance(&self) -> Allowance {
            self.allowance
        }
        fn spend(&mut self, key: &KeyId) -> core::result::Result<(), Self::Error> {
            if *self.key.get_or_insert(*key) != *key {
                return Err("another key's");
            }
            if self.spent >= self.allowance.queries {
                return Err("used up");
            }
            self.spent += 1;
            if self.crash { Err("crash") } else { Ok(()) }
        }
        fn retire(&mut self, key: &KeyId) -> core::result::Result<(), Self::Error> {
            if *self.key.get_or_insert(*key) != *key {
                return Err("another key's");
            }
            self.spent = self.allowance.queries;
            Ok(())
        }
    }

    struct Lab {
        rng: ChaCha20Rng,
        key: SecretKey<Vec<u32>>,
        noise_key: NoiseKey,
        budget: Counted,
    }

    impl Lab {
        fn new(seed: u8) -> Self {
            let mut rng = ChaCha20Rng::from_seed([seed; 32]);
            let words = SecretKey::<Vec<u32>>::words(&N64);
            let key = SecretKey::generate(&N64, vec![0; words], &mut rng).unwrap();
            // Fewer bits than `Allowance::new` takes, so that noise is small
            // beside the values and can be looked at.
            let allowance = Allowance {
                queries: 4,
                statistical_bits: 8,
            };
            Self {
                rng,
                key,
                noise_key: NoiseKey::new([seed; 32]),
                budget: Counted {
                    allowance,
                    spent: 0,
                    key: None,
                    crash: false,
                },
            }
        }

        fn encrypt(&mut self, values: &[f64]) -> Ciphertext<Vec<u32>> {
            let mut buffer = values.to_vec();
            buffer.resize(N, 0.0);
            encode_in_place(&mut buffer, SCALE).unwrap();
            let mut m: Vec<i32> = buffer.iter().map(|&x| x as i32).collect();
            let mut seed = [0; 32];
            self.rng.fill_bytes(&mut seed);
            let (mut c0, mut c1) = (vec![0; (LEVEL + 1) * N], vec![0; (LEVEL + 1) * N]);
            let (key, rng) = (&self.key, &mut self.rng);
            rlwe::encrypt_with_seed(&N64, key, &mut m, LEVEL, &seed, rng, &mut c0).unwrap();
            rlwe::expand_c1(&N64, &seed, &mut c1).unwrap();
            Ciphertext::new(&N64, LEVEL, SCALE, c0, c1).unwrap()
        }

        fn exact(&self, ct: &Ciphertext<Vec<u32>>) -> Vec<f64> {
            let (mut scratch, mut slots) = (vec![0; (LEVEL + 1) * N], vec![0.0; N]);
            let d = decrypt(&N64, &self.key, ct, LEVEL, SCALE, &mut scratch, &mut slots).unwrap();
            let re = (0..N / 2).map(|i| d.slot(i).unwrap());
            re.chain((0..N / 2).map(|i| d.imaginary(i).unwrap()))
                .collect()
        }

        /// All slots, real parts and imaginary parts, and the bits left.
        fn publish(
            &mut self,
            ct: &Ciphertext<Vec<u32>>,
            expected: &Expected,
        ) -> core::result::Result<(Vec<f64>, f64), PublishError<&'static str>> {
            let (mut scratch, mut slots) = (vec![7; (LEVEL + 1) * N], vec![7.0; N]);
            let result = publish_values(
                &N64,
                &self.key,
                &self.noise_key,
                &mut self.budget,
                &HonestResult::stated(ct, HonestEvaluator::assume()),
                expected,
                &mut scratch,
                &mut slots,
            )
            .map(|p| {
                assert!(p.fill() > 0.0 && p.fill() < 0.01);
                ([p.values(), p.imaginary()].concat(), p.precision_bits())
            });
            // Erased, or never touched.
            let left = if result.is_ok() { 0 } else { 7 };
            assert!(scratch.iter().all(|&x| x == left));
            assert!(result.is_ok() || slots.iter().all(|&x| x == 7.0));
            result
        }
    }

    fn expected() -> Expected {
        Expected {
            level: LEVEL,
            scale: SCALE,
            noise: Noise::error(&N64).plus(Noise::rounding(&N64)),
            magnitude: 1.0,
            precision_bits: 3.0,
        }
    }

    fn values() -> Vec<f64> {
        (0..N / 2).map(|i| (i as f64 * 0.7).sin()).collect()
    }

    /// Coefficients of the noise that was published with `ct`.
    fn noise(exact: &[f64], published: &[f64]) -> Vec<f64> {
        let mut difference: Vec<f64> = published.iter().zip(exact).map(|(a, b)| a - b).collect();
        encode_in_place(&mut difference, SCALE).unwrap();
        difference
    }

    /// A sum of uniform numbers of so many bits, centred.
    #[test]
    fn a_flood_says_what_it_draws() {
        for wanted in [2.5, 3.0, 100.0, 1e6, 1e30] {
            let flood = Flood::new(wanted);
            let (terms, size) = (f64::from(flood.terms), f64::from(flood.width).exp2());
            let sigma = (terms * (size * size - 1.0) / 12.0).sqrt();
            assert!((flood.sigma() / sigma - 1.0).abs() < 1e-12, "{wanted}");
            assert!(
                (1.0 - 1e-12..1.0625).contains(&(sigma / wanted)),
                "{wanted}"
            );
            assert_eq!(flood.bound(), terms * size / 2.0, "{wanted}");
        }
    }

    #[test]
    fn candidates_are_slots_that_there_are() {
        let slots = N64.slots();
        let of = |candidate: Range<usize>| check_candidates(&N64, &[0..1, candidate]);
        let wrong = |expected, got| {
            Err(Error::Length {
                what: "label",
                expected,
                got,
            })
        };
        assert_eq!(of(0..slots), Ok(()));
        assert_eq!(of(slots - 1..slots), Ok(()));
        assert_eq!(of(0..slots + 1), wrong(slots, slots + 1));
        assert_eq!(of(3..3), wrong(1, 0));
        assert_eq!(check_candidates(&N64, &[]), wrong(1, 0));
    }

    /// The message, the largest error and the noise must lie within half the modulus, of all
    /// primes of the level; what reaches the limit does not lie below it.
    #[test]
    fn there_is_room_up_to_half_the_modulus() {
        let allowance = Allowance {
            queries: 4,
            statistical_bits: 8,
        };
        let of = |level: usize, message: f64| {
            let noise = Noise {
                bound: 1024.0,
                sigma: 1.0,
            };
            let expected = Expected {
                level,
                scale: 1024.0,
                noise,
                magnitude: message / 1024.0,
                precision_bits: -1000.0,
            };
            precision(&N64, &expected, &allowance)
        };
        let flood = Flood::new(allowance.sigma(1024.0 + 0.5 * 8.0));
        let mut room = 0.5;
        for level in 0..=1 {
            room *= f64::from(N64.prime(level).unwrap().modulus().value());
            let left = room - flood.bound() - 1024.0;
            assert!(of(level, left * (1.0 - 1e-9)).is_ok(), "{level}");
            let refused = of(level, left * (1.0 + 1e-9));
            assert!(matches!(refused, Err(Error::Headroom { .. })), "{level}");
        }
        assert!(below(1.0, 1.5) && !below(1.0, 1.0) && !below(f64::NAN, 1.0));
    }

    #[test]
    fn a_shifted_sum_of_eight_is_as_close_as_the_derivation_says() {
        for (terms, range) in [(8, 4), (8, 16), (8, 64), (8, 128), (33, 16)] {
            let mut p = vec![1.0f64];
            for _ in 0..terms {
                let mut next = vec![0.0; p.len() + range - 1];
                for (i, x) in p.iter().enumerate() {
                    for to in &mut next[i..i + range] {
                        *to += x / range as f64;
                    }
                }
                p = next;
            }
            let at = |i: usize| p.get(i).copied().unwrap_or(0.0).sqrt();
            let step = |i: usize| at(i) - if i == 0 { 0.0 } else { at(i - 1) };
            let j = 4.0 * (0..=p.len()).map(|i| step(i) * step(i)).sum::<f64>();
            let variance = terms as f64 * (range * range - 1) as f64 / 12.0;
            assert!((0.95..1.01).contains(&(j * variance)), "{terms} {range}");
        }
    }

    #[test]
    fn the_noise_has_the_size_asked_for_down_to_its_lowest_bits() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        for sigma in [15.0, 1000.0, 1.7e9, 3e18, 5e19, 1e25, 1e35] {
            let flood = Flood::new(sigma);
            assert!((8..=33).contains(&flood.terms), "{flood:?}");
            let excess = flood.sigma() / sigma;
            assert!((1.0..1.07).contains(&excess), "{sigma} {excess}");
            let count = 20_000;
            let (mut square, mut odd) = (0.0, 0);
            for _ in 0..count {
                let x = flood.draw(&mut rng);
                assert!((x as f64).abs() <= flood.bound());
                square += (x as f64 / flood.sigma()).powi(2);
                odd += x & 1;
            }
            let count = f64::from(count);
            assert!((square / count - 1.0).abs() < 0.05, "{sigma}");
            assert!((odd as f64 / count - 0.5).abs() < 0.02, "{sigma}");
        }
    }

    #[test]
    fn residues_of_the_noise_are_right() {
        let limit = (1i128 << 124) - 1;
        for i in 0..5 {
            let m = N16.prime(i).unwrap().modulus();
            for x in [
                0,
                1,
                -1,
                1 << 31,
                1 << 95,
                -(1 << 95),
                1 << 63,
                limit,
                -limit,
            ] {
                let expected = x.rem_euclid(i128::from(m.value()));
                assert_eq!(i128::from(residue(x, m)), expected, "{x}");
            }
        }
    }

    #[test]
    fn every_coefficient_is_flooded_and_the_values_are_as_exact_as_promised() {
        let mut lab = Lab::new(1);
        let ct = lab.encrypt(&values());
        let exact = lab.exact(&ct);
        let (got, bits) = lab.publish(&ct, &expected()).unwrap();
        assert_eq!(lab.budget.spent, 1);
        assert!(bits > 3.0);
        for (got, value) in got.iter().zip(values()) {
            assert!((got - value).abs() < (-bits).exp2());
        }
        // d = 223.3 (64 coefficients of the variance 10.5, with their tail) + 64 / 2 + 4,
        // sqrt(24 * 4) 2^4 = 156.8.
        let sigma = 259.3 * 156.767;
        let noise = noise(&exact, &got);
        assert!(noise.iter().all(|x| x.abs() > 1.0 && x.abs() < 6.0 * sigma));
        let rms = (noise.iter().map(|x| x * x).sum::<f64>() / N as f64).sqrt();
        assert!((0.7..1.4).contains(&(rms / sigma)), "{}", rms / sigma);
    }

    #[test]
    fn the_noise_depends_on_ciphertext_and_key_alone() {
        let mut lab = Lab::new(2);
        let (a, b) = (lab.encrypt(&values()), lab.encrypt(&values()));
        let first = lab.publish(&a, &expected()).unwrap().0;
        let other = lab.publish(&b, &expected()).unwrap().0;
        let again = lab.publish(&a, &expected()).unwrap().0;
        assert_eq!(first, again);
        assert_eq!(lab.budget.spent, 3, "a repetition is counted");
        let near = |x: &[f64], y: &[f64]| x.iter().zip(y).any(|(x, y)| (x - y).abs() < 1.0);
        let noises = [noise(&lab.exact(&a), &first), noise(&lab.exact(&b), &other)];
        assert!(!near(&noises[0], &noises[1]), "two ciphertexts share noise");
        // Noise of another size is drawn anew, or their difference would tell.
        let mut wider = expected();
        wider.noise.bound *= 2.0;
        wider.precision_bits = 0.0;
        let double = noise(&lab.exact(&a), &lab.publish(&a, &wider).unwrap().0);
        let halved: Vec<f64> = double.iter().map(|x| x / 2.0).collect();
        assert!(!near(&noises[0], &double) && !near(&noises[0], &halved));
        let mut lab = Lab::new(2);
        let (a, _) = (lab.encrypt(&values()), ());
        lab.noise_key = NoiseKey::new([3; 32]);
        assert_ne!(first, lab.publish(&a, &expected()).unwrap().0);
    }

    /// All that decides what is published is in the key of the noise.
    #[test]
    fn the_noise_is_of_every_part_its_scale_and_its_own_size() {
        let parts = || [vec![1; 3 * N], vec![2; 3 * N]];
        let flood = Flood {
            width: 20,
            terms: 9,
        };
        let first = |params: &Params, level, parts: [Vec<u32>; 2], scale, flood: &Flood, key| {
            let [c0, c1] = parts;
            let ct = Ciphertext::new(params, level, SCALE, c0, c1).unwrap();
            NoiseKey::new([key; 32])
                .stream(params, &ct, scale, flood)
                .next_u64()
        };
        let one = || first(&N64, 2, parts(), SCALE, &flood, 1);
        let mut all = vec![one()];
        assert_eq!(all, [one()]);
        for part in 0..2 {
            for index in [0, N, 3 * N - 1] {
                let mut parts = parts();
                parts[part][index] += 1;
                all.push(first(&N64, 2, parts, SCALE, &flood, 1));
            }
        }
        all.push(first(&N64, 1, parts(), SCALE, &flood, 1));
        all.push(first(
            &crate::testing::N64_PAIRS,
            2,
            parts(),
            SCALE,
            &flood,
            1,
        ));
        // In the lower half of its bits and in the upper.
        let near = f64::from_bits(SCALE.to_bits() + 1);
        all.push(first(&N64, 2, parts(), near, &flood, 1));
        all.push(first(&N64, 2, parts(), 2.0 * SCALE, &flood, 1));
        all.push(first(
            &N64,
            2,
            parts(),
            SCALE,
            &Flood { width: 21, ..flood },
            1,
        ));
        all.push(first(
            &N64,
            2,
            parts(),
            SCALE,
            &Flood { terms: 10, ..flood },
            1,
        ));
        all.push(first(&N64, 2, parts(), SCALE, &flood, 2));
        let three = [vec![1; 3 * N], vec![2; 3 * N], vec![0; 3 * N]];
        let three = Ciphertext::from_parts(&N64, 2, SCALE, three).unwrap();
        let key = NoiseKey::new([1; 32]);
        all.push(key.stream(&N64, &three, SCALE, &flood).next_u64());
        let different: std::collections::BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!(different.len(), all.len());
    }

    /// Its memory, which outlives it here, holds nothing of it.
    #[test]
    fn a_noise_key_is_erased_when_it_is_dropped() {
        let mut key = core::mem::ManuallyDrop::new(NoiseKey::new([7; 32]));
        assert!(key.0.starts_with(&[7; 32]));
        // SAFETY: it is dropped once, and what is looked at afterwards are bytes.
        unsafe { core::mem::ManuallyDrop::drop(&mut key) };
        assert_eq!(key.0, [0; 64]);
    }

    /// The noise is made for the error and the rounding of the exact result, however
    /// small the error is stated.
    #[test]
    fn the_noise_is_made_for_the_rounding_too() {
        let allowance = Allowance::new(4, 30).unwrap();
        for bound in [1.0, 4.0, 1000.0] {
            let mut request = expected();
            (request.noise.bound, request.precision_bits) = (bound, -30.0);
            let (flood, _) = plan(&N64, &request, &allowance).unwrap();
            // sqrt(24 * 4) 2^15 times the error and sqrt(64) / 2.
            let sigma = (bound + 4.0) * 9.797_958_971_132_712 * 32_768.0;
            let excess = flood.sigma() / sigma;
            assert!((1.0..1.07).contains(&excess), "{bound}: {excess}");
        }
    }

    #[test]
    fn a_budget_ends_and_is_of_one_key() {
        let mut lab = Lab::new(3);
        let ct = lab.encrypt(&values());
        for _ in 0..4 {
            lab.publish(&ct, &expected()).unwrap();
        }
        let end = lab.publish(&ct, &expected()).unwrap_err();
        assert_eq!(end, PublishError::Budget("used up"));
        assert_eq!(end.to_string(), "used up");
        let other = Lab::new(4);
        let ids = [&lab, &other].map(|l| lab.noise_key.id(&N64, &l.key).unwrap());
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[0], other.noise_key.id(&N64, &lab.key).unwrap());
        lab.key = other.key;
        let foreign = lab.publish(&ct, &expected()).unwrap_err();
        assert_eq!(foreign, PublishError::Budget("another key's"));
    }

    #[test]
    fn what_failed_after_it_was_spent_stays_spent() {
        let mut lab = Lab::new(5);
        let ct = lab.encrypt(&values());
        lab.budget.crash = true;
        let crash = lab.publish(&ct, &expected()).unwrap_err();
        assert_eq!(crash, PublishError::Budget("crash"));
        assert_eq!(lab.budget.spent, 1);
        lab.budget.crash = false;
        lab.publish(&ct, &expected()).unwrap();
        assert_eq!(lab.budget.spent, 2);
    }

    #[test]
    fn too_little_precision_is_refused_with_both_numbers() {
        let mut lab = Lab::new(6);
        let ct = lab.encrypt(&values());
        let left = lab.publish(&ct, &expected()).unwrap().1;
        let mut request = expected();
        let foretold = precision(&N64, &request, &lab.budget.allowance);
        assert_eq!(foretold, Ok(left));
        request.precision_bits = left + 0.5;
        let refusal = lab.publish(&ct, &request).unwrap_err();
        let asked = request.precision_bits;
        assert_eq!(
            refusal,
            PublishError::Refused(Error::Precision { asked, left })
        );
        let text = refusal.to_string();
        for number in [asked, left] {
            assert!(text.contains(&format!("{number:.1}")), "{text}");
        }
        // A larger allowance or more security costs its bits.
        lab.budget.allowance.queries *= 16;
        lab.budget.allowance.statistical_bits += 2;
        let Err(PublishError::Refused(Error::Precision { left: less, .. })) =
            lab.publish(&ct, &request)
        else {
            unreachable!("published");
        };
        assert!((left - less - 3.0).abs() < 0.1, "{left} {less}");
        assert_eq!(lab.budget.spent, 1, "a refusal spends nothing");
    }

    #[test]
    fn bad_requests_and_ciphertexts_are_refused_before_anything_is_spent() {
        let mut lab = Lab::new(7);
        let ct = lab.encrypt(&values());
        let mut refused = |ct: &Ciphertext<Vec<u32>>, change: &dyn Fn(&mut Expected)| {
            let mut request = expected();
            change(&mut request);
            match lab.publish(ct, &request) {
                Err(PublishError::Refused(error)) => error,
                other => unreachable!("{other:?}"),
            }
        };
        for bound in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = refused(&ct, &|e| e.noise.bound = bound);
            assert!(matches!(error, Error::NoiseBound { .. }), "{bound}");
        }
        let error = refused(&ct, &|e| e.level = 1);
        let (expected, got) = (1, LEVEL);
        assert!(
            matches!(error, Error::Level { expected: a, got: b, .. } if (a, b) == (expected, got))
        );
        let error = refused(&ct, &|e| e.scale *= 2.0);
        assert!(matches!(error, Error::Scale { .. }));
        let error = refused(&ct, &|e| e.precision_bits = f64::NAN);
        assert!(matches!(error, Error::Precision { .. }));
        // Q is about 2^82.
        for magnitude in [2f64.powi(53), -2f64.powi(53), f64::NAN, f64::INFINITY] {
            let error = refused(&ct, &|e| e.magnitude = magnitude);
            assert!(matches!(error, Error::Headroom { .. }), "{magnitude}");
        }
        for bound in [2f64.powi(73), 2f64.powi(1000)] {
            let error = refused(&ct, &|e| e.noise.bound = bound);
            assert!(matches!(error, Error::Headroom { .. }), "{bound}");
        }
        let (c0, c1) = ct.into_storage();
        let zero = || vec![0; (LEVEL + 1) * N];
        for halves in [(zero(), c1), (c0, zero())] {
            let ct = Ciphertext::new(&N64, LEVEL, SCALE, halves.0, halves.1).unwrap();
            assert_eq!(refused(&ct, &|_| ()), Error::Transparent);
        }
        let part = || vec![1; (LEVEL + 1) * N];
        let ct = Ciphertext::new(&N16, LEVEL, SCALE, part(), part()).unwrap();
        assert!(matches!(refused(&ct, &|_| ()), Error::Params { .. }));
        assert_eq!(lab.budget.spent, 0);
    }

    impl Lab {
        fn label(
            &mut self,
            ct: &Ciphertext<Vec<u32>>,
            candidates: &[Range<usize>],
        ) -> core::result::Result<usize, PublishError<&'static str>> {
            let words = (ct.level() + 1) * N;
            let (mut scratch, mut slots) = (vec![7; words], vec![7.0; N]);
            let label = publish_label(
                &N64,
                &self.key,
                &self.noise_key,
                &mut self.budget,
                ct,
                (ct.level(), SCALE),
                candidates,
                &mut scratch,
                &mut slots,
            );
            // Erased, or never touched.
            let left = match label {
                Err(PublishError::Refused(_) | PublishError::Budget(_)) => 7,
                Ok(_) | Err(PublishError::Retired) => 0,
            };
            assert!(scratch.iter().all(|&x| x == left));
            assert!(slots.iter().all(|&x| x == f64::from(left)));
            label
        }
    }

    #[test]
    fn a_label_is_the_largest_of_the_slots_named_and_spends_the_budget() {
        let mut lab = Lab::new(8);
        let mut v = vec![-0.9; N / 2];
        (v[3], v[7], v[9]) = (-0.25, -0.5, 0.75);
        let ct = lab.encrypt(&v);
        let slots = |slots: &[usize]| -> Vec<Range<usize>> {
            slots.iter().map(|&slot| slot..slot + 1).collect()
        };
        for (candidates, got) in [
            (vec![], 0),
            (slots(&[0, N / 2]), N / 2 + 1),
            (vec![0..1, 5..5], 0),
            (vec![0..1, Range { start: 5, end: 4 }], 0),
        ] {
            assert!(matches!(
                lab.label(&ct, &candidates),
                Err(PublishError::Refused(Error::Length { got: g, .. })) if g == got
            ));
        }
        assert_eq!(lab.budget.spent, 0, "a refusal spends nothing");
        assert_eq!(lab.label(&ct, &slots(&[0, 3, 7, 9])), Ok(3));
        assert_eq!(lab.label(&ct, &slots(&[0, 3, 7])), Ok(1), "all negative");
        assert_eq!(
            lab.label(&ct, &slots(&[9, 9])),
            Ok(0),
            "the first of equals"
        );
        // Of the same budget as values.
        lab.publish(&ct, &expected()).unwrap();
        assert_eq!(lab.budget.spent, 4);
        lab.budget.spent = 2;
        assert_eq!(lab.label(&ct, &slots(&[9])), Ok(1), "positive");
        assert_eq!(lab.label(&ct, &slots(&[3])), Ok(0), "negative");
        let end = lab.label(&ct, &slots(&[0, 1]));
        assert_eq!(end, Err(PublishError::Budget("used up")));
        assert_eq!(format!("{:?}", lab.noise_key), "NoiseKey(..)");
    }

    #[test]
    fn a_label_is_that_of_the_largest_sum_of_lanes() {
        let mut lab = Lab::new(8);
        let mut v = vec![0.0; N / 2];
        // The largest slot is in the range with the least sum.
        v[..8].copy_from_slice(&[0.9, -0.9, -0.5, -0.25, 0.25, 0.125, 0.25, 0.5]);
        let ct = lab.encrypt(&v);
        assert_eq!(lab.label(&ct, &[0..4, 4..8]), Ok(1));
        assert_eq!(
            lab.label(&ct, core::slice::from_ref(&(0..4))),
            Ok(0),
            "negative"
        );
        assert_eq!(
            lab.label(&ct, core::slice::from_ref(&(4..8))),
            Ok(1),
            "positive"
        );
    }

    #[test]
    fn a_label_of_a_result_that_wrapped_around_retires_the_key() {
        let mut lab = Lab::new(9);
        let honest = lab.encrypt(&values());
        // c0 + Q / 2 in the first coefficient.
        let (mut c0, c1) = lab.encrypt(&values()).into_storage();
        for (i, limb) in c0.chunks_exact_mut(N).enumerate() {
            let m = N64.prime(i).unwrap().modulus();
            // (Q - 1) / 2 is -1 / 2 modulo each prime.
            let half = (m.value() - 1) / 2;
            for x in limb {
                *x = m.add(*x, half);
            }
        }
        let wrapped = Ciphertext::new(&N64, LEVEL, SCALE, c0, c1).unwrap();
        assert_eq!(
            lab.label(&wrapped, &[0..1, 1..2]),
            Err(PublishError::Retired)
        );
        assert_eq!(lab.budget.spent, 4);
        let end = lab.label(&honest, &[0..1, 1..2]);
        assert_eq!(end, Err(PublishError::Budget("used up")));
    }

    #[test]
    fn a_scale_some_units_off_gives_the_same_noise() {
        let mut lab = Lab::new(10);
        let ct = lab.encrypt(&values());
        let first = lab.publish(&ct, &expected()).unwrap().0;
        let (c0, c1) = ct.into_storage();
        let near = f64::from_bits(SCALE.to_bits() + 4);
        let ct = Ciphertext::new(&N64, LEVEL, near, c0, c1).unwrap();
        assert_eq!(lab.publish(&ct, &expected()).unwrap().0, first);
    }

    #[test]
    fn an_allowance_has_a_least_security() {
        let least = MIN_STATISTICAL_BITS;
        assert_eq!(least, 30);
        for got in [0, 1, 29] {
            let refusal = Allowance::new(4, got).unwrap_err();
            assert_eq!(refusal, Error::StatisticalBits { least, got });
            assert!(refusal.to_string().contains("at least 30"));
        }
        let allowance = Allowance::new(4, 30).unwrap();
        assert_eq!((allowance.queries(), allowance.statistical_bits()), (4, 30));
    }

    #[test]
    fn a_result_is_verified_bit_for_bit() {
        let mut lab = Lab::new(11);
        let ct = lab.encrypt(&values());
        let copy = || {
            let [c0, c1] = ct.parts().map(<[u32]>::to_vec);
            (LEVEL, SCALE, c0, c1)
        };
        let verify = |(level, scale, mut c0, mut c1): (usize, f64, Vec<u32>, Vec<u32>)| {
            c0.truncate((level + 1) * N);
            c1.truncate((level + 1) * N);
            let again = Ciphertext::new(&N64, level, scale, c0, c1).unwrap();
            HonestResult::verified(&N64, &ct, &again).map(|_| ())
        };
        assert_eq!(verify(copy()), Ok(()));
        for (part, index) in [(0, 0), (0, 3 * N - 1), (1, 0), (1, 3 * N - 1)] {
            let mut other = copy();
            let half = if part == 0 {
                &mut other.2
            } else {
                &mut other.3
            };
            half[index] ^= 1;
            assert_eq!(verify(other), Err(Error::NotReproduced { part, index }));
        }
        let mut other = copy();
        other.1 = f64::from_bits(SCALE.to_bits() + 1);
        assert!(matches!(verify(other), Err(Error::Scale { .. })));
        let mut other = copy();
        other.0 = LEVEL - 1;
        assert!(matches!(verify(other), Err(Error::Level { .. })));
        let part = || vec![1; (LEVEL + 1) * N];
        let foreign = Ciphertext::new(&N16, LEVEL, SCALE, part(), part()).unwrap();
        let refusal = HonestResult::verified(&N64, &ct, &foreign).unwrap_err();
        assert!(matches!(refusal, Error::Params { .. }));
    }

    /// What [`HonestEvaluator`] is worth where it is false: one publication, with
    /// the least security and far within the modulus, is the key.
    #[test]
    fn an_evaluator_stated_honest_that_lies_has_the_key_after_one_publication() {
        let mut lab = Lab::new(12);
        lab.budget.allowance = Allowance::new(1, 30).unwrap();
        let level = N64.max_level();
        let scale = 2f64.powi(100);
        // The constants 1 and 2^99 in the NTT domain, modulo each prime.
        let constant = |log2: u32| -> Vec<u32> {
            let limb = |i: usize| {
                let q = u64::from(N64.prime(i).unwrap().modulus().value());
                let x = (0..log2).fold(1, |x: u64, _| 2 * x % q);
                [x as u32; N]
            };
            (0..=level).flat_map(limb).collect()
        };
        let crafted = Ciphertext::new(&N64, level, scale, constant(0), constant(99)).unwrap();
        let request = Expected {
            level,
            scale,
            noise: Noise::error(&N64).plus(Noise::rounding(&N64)),
            magnitude: 64.0,
            precision_bits: 40.0,
        };
        let (mut scratch, mut slots) = (vec![0; (level + 1) * N], vec![0.0; N]);
        let published = publish_values(
            &N64,
            &lab.key,
            &lab.noise_key,
            &mut lab.budget,
            &HonestResult::stated(&crafted, HonestEvaluator::assume()),
            &request,
            &mut scratch,
            &mut slots,
        )
        .unwrap();
        assert!(published.fill() < 0.5);
        let largest = published
            .values()
            .iter()
            .fold(0.0, |a: f64, x| a.max(x.abs()));
        assert!(largest < 64.0, "ordinary values");
        let mut given = [published.values(), published.imaginary()].concat();
        encode_in_place(&mut given, 2.0).unwrap();
        let recovered: Vec<i8> = given.iter().map(|&x| x as i8).collect();
        let words = SecretKey::<Vec<u32>>::words(&N64);
        let copy = SecretKey::from_coefficients(&N64, vec![0; words], &recovered).unwrap();
        for i in 0..N64.limbs() {
            assert_eq!(copy.limb(&N64, i), lab.key.limb(&N64, i));
        }
    }
}
