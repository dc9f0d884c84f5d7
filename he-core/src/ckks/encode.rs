//! Encoding of complex slots as integer coefficients, and back.
//!
//! Slot `j` is the value of the polynomial at `zeta^(5^j)`,
//! `zeta = exp(i pi / N)`; coefficients are `round(scale * inverse embedding)`
//! (Cheon, Kim, Kim, Song 2017, section 3.2). The transform is the special
//! FFT of its authors' library, in place over a buffer of `N` numbers whose
//! halves hold real and imaginary parts of the `N / 2` slots; after the
//! inverse transform the same buffer holds the `N` coefficients in order.
//!
//! It runs in `f64` on a host and in `f32` on a device with a
//! single-precision FPU ([`Real`]). With `f32` a coefficient is off by less
//! than one from the exact rounding while it stays below 2^20 in magnitude.

use super::scale::check_scale;
use crate::error::{Error, Result, check_len};
use crate::ring::kernel::{self, integers};
use crate::rlwe::Coefficient;
use crate::secret::{declassify, first_negative, position_of_negative};
use core::ops::{Add, Mul, Sub};

/// Largest number of slots: N = 16384.
pub const MAX_SLOTS: usize = 8192;

/// Largest number of slots in single precision: N = 8192.
pub const MAX_SLOTS_F32: usize = 4096;

/// Coefficients in 32-bit words stay below this power of two in magnitude.
pub const COEFF_LIMIT_LOG2: u32 = 30;

/// Coefficients in 64-bit words, which take double precision, stay below this
/// power of two in magnitude. From 2^53 on they are multiples of the unit of
/// their binade, so their errors are those of the slots' double precision.
pub const WIDE_LIMIT_LOG2: u32 = integers::LIMIT_LOG2;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`.
pub trait Real:
    sealed::Sealed + Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + 'static
{
    /// Zero.
    const ZERO: Self;
    /// Coefficients of any kind stay below this power of two: what [`Self::round`]
    /// is right for.
    const LIMIT_LOG2: u32;
    /// Nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// Nearest integer, ties to even, of a number below 2^31 in magnitude, and of
    /// any `f64`.
    fn round(self) -> Self;
    /// The exponent's field: a number is below `2^k` in magnitude if it is less
    /// than that of `2^k`, and infinities and NaN have the largest. Unlike a
    /// comparison it has nothing to branch on.
    fn exponent(self) -> i32;
    /// Twiddle factors: entry `len / 2 + j` belongs to stage `len`.
    fn twiddles() -> &'static [[Self; 2]];
    /// Runs stages of the inverse transform from the longest on, as many as
    /// this machine has a kernel for; returns the length of the next one.
    fn inverse_stages(re: &mut [Self], im: &mut [Self]) -> usize {
        let _ = im;
        re.len()
    }
    /// The inverse transform with its bit reversal, where this machine has a
    /// kernel for all of it; whether it was done.
    fn inverse(re: &mut [Self], im: &mut [Self]) -> bool {
        let _ = (re, im);
        false
    }
    /// The same of the forward transform of `factor` times the input.
    fn forward(re: &mut [Self], im: &mut [Self], factor: Self) -> bool {
        let _ = (re, im, factor);
        false
    }
    /// Multiplies by `factor` and rounds as many as this machine has a kernel
    /// for; how many, and whether all of them were below `limit` in magnitude.
    fn scale_and_round(buffer: &mut [Self], factor: Self, limit: Self) -> (usize, bool) {
        let _ = (buffer, factor, limit);
        (0, true)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const LIMIT_LOG2: u32 = WIDE_LIMIT_LOG2;
    fn from_f64(x: f64) -> Self {
        x
    }
    fn round(self) -> Self {
        // Without a branch: what is encoded on a host is secret. Adding 2^52
        // leaves no bits below one; from there on a number is an integer already.
        const UNIT: f64 = 4_503_599_627_370_496.0;
        let unit = UNIT.copysign(self);
        let rounded = ((self + unit) - unit).copysign(self);
        let distance = libm::fabs(self).to_bits().wrapping_sub(UNIT.to_bits());
        let below = (distance as i64 >> 63) as u64;
        Self::from_bits((rounded.to_bits() & below) | (self.to_bits() & !below))
    }
    fn exponent(self) -> i32 {
        (self.to_bits() >> 52) as i32 & 0x7ff
    }
    fn twiddles() -> &'static [[Self; 2]] {
        &TWIDDLES_F64
    }
    fn inverse(re: &mut [Self], im: &mut [Self]) -> bool {
        kernel::fft_inverse_f64(re, im, split_twiddles())
    }
    fn forward(re: &mut [Self], im: &mut [Self], factor: Self) -> bool {
        kernel::fft_forward_f64(re, im, split_twiddles(), factor)
    }
    fn scale_and_round(buffer: &mut [Self], factor: Self, limit: Self) -> (usize, bool) {
        kernel::scale_and_round(buffer, factor, limit)
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const LIMIT_LOG2: u32 = COEFF_LIMIT_LOG2;
    fn from_f64(x: f64) -> Self {
        x as Self
    }
    fn round(self) -> Self {
        kernel::round_f32(self)
    }
    fn exponent(self) -> i32 {
        (self.to_bits() >> 23) as i32 & 0xff
    }
    fn twiddles() -> &'static [[Self; 2]] {
        &TWIDDLES_F32
    }
    fn inverse_stages(re: &mut [Self], im: &mut [Self]) -> usize {
        kernel::fft_inverse(re, im, Self::twiddles())
    }
}

/// `exp(2 pi i num / 2^log_den)` as `[cos, sin]`, in const code: exact
/// reduction to an eighth of the circle, then Taylor series.
const fn unit_root(num: u32, log_den: u32) -> [f64; 2] {
    let quarter = 1u32 << (log_den - 2);
    let quadrant = (num >> (log_den - 2)) & 3;
    let r = num & (quarter - 1);
    let mirrored = r > quarter >> 1;
    let k = if mirrored { quarter - r } else { r };
    let x = core::f64::consts::FRAC_PI_2 * (k as f64 / quarter as f64);
    let (mut sin, mut cos, mut term) = (0.0, 0.0, 1.0);
    let mut i = 0;
    while i < 22 {
        match i & 3 {
            0 => cos += term,
            1 => sin += term,
            2 => cos -= term,
            _ => sin -= term,
        }
        i += 1;
        term = term * x / i as f64;
    }
    let (c, s) = if mirrored { (sin, cos) } else { (cos, sin) };
    match quadrant {
        0 => [c, s],
        1 => [-s, c],
        2 => [-c, -s],
        _ => [s, -c],
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "const code; a panic is a compile error"
)]
const fn twiddles_f64<const M: usize>() -> [[f64; 2]; M] {
    let mut t = [[0.0; 2]; M];
    let mut half: usize = 1;
    while half < M {
        // Stage of length len = 2 half: exp(2 pi i 5^j / (4 len)).
        let log_den = half.trailing_zeros() + 3;
        let mut power: u32 = 1;
        let mut j = 0;
        while j < half {
            t[half + j] = unit_root(power, log_den);
            power = (power * 5) & ((1 << log_den) - 1);
            j += 1;
        }
        half *= 2;
    }
    t
}

#[expect(
    clippy::indexing_slicing,
    reason = "const code; a panic is a compile error"
)]
const fn twiddles_f32<const M: usize>() -> [[f32; 2]; M] {
    let wide = twiddles_f64::<M>();
    let mut t = [[0.0; 2]; M];
    let mut i = 0;
    while i < M {
        t[i] = [wide[i][0] as f32, wide[i][1] as f32];
        i += 1;
    }
    t
}

static TWIDDLES_F64: [[f64; 2]; MAX_SLOTS] = twiddles_f64();
static TWIDDLES_F32: [[f32; 2]; MAX_SLOTS_F32] = twiddles_f32();

/// One of the two of every entry.
#[expect(
    clippy::indexing_slicing,
    reason = "const code; a panic is a compile error"
)]
const fn split<const M: usize>(table: &[[f64; 2]; M], part: usize) -> [f64; M] {
    let mut t = [0.0; M];
    let mut i = 0;
    while i < M {
        t[i] = table[i][part];
        i += 1;
    }
    t
}

static COSINES: [f64; MAX_SLOTS] = split(&TWIDDLES_F64, 0);
static SINES: [f64; MAX_SLOTS] = split(&TWIDDLES_F64, 1);

/// The table for vectors.
pub(crate) const fn split_twiddles() -> kernel::Twiddles {
    (&COSINES, &SINES)
}

/// Brings two arrays of one power-of-two length into bit-reversed order.
fn bit_reverse<T>(x: &mut [T], y: &mut [T]) {
    let n = x.len().min(y.len());
    let bits = n.trailing_zeros();
    if bits == 0 {
        return;
    }
    for i in 0..n {
        let j = ((i as u32).reverse_bits() >> (32 - bits)) as usize;
        if i < j && j < n {
            x.swap(i, j);
            y.swap(i, j);
        }
    }
}

/// Halves of a buffer, checked to be those of a ring with a twiddle table.
fn halves<T: Real>(buffer: &mut [T]) -> Result<(&mut [T], &mut [T])> {
    let n = buffer.len();
    let slots = n >> 1;
    if !slots.is_power_of_two() || slots > T::twiddles().len() {
        return Err(Error::Length {
            what: "encoding buffer",
            expected: (2 * T::twiddles().len()).min(n.next_power_of_two().max(2)),
            got: n,
        });
    }
    Ok(buffer.split_at_mut(slots))
}

/// Applies one stage: `f` on every butterfly `(re a, im a, re b, im b, w)`.
#[inline(always)]
fn stage<T: Real>(
    re: &mut [T],
    im: &mut [T],
    len: usize,
    mut f: impl FnMut(&mut T, &mut T, &mut T, &mut T, [T; 2]),
) {
    let half = len >> 1;
    let Some(w) = T::twiddles().get(half..len) else {
        return;
    };
    for (re, im) in re.chunks_exact_mut(len).zip(im.chunks_exact_mut(len)) {
        let (ra, rb) = re.split_at_mut(half);
        let (ia, ib) = im.split_at_mut(half);
        for ((((ra, ia), rb), ib), &w) in ra.iter_mut().zip(ia).zip(rb).zip(ib).zip(w) {
            f(ra, ia, rb, ib, w);
        }
    }
}

/// The inverse transform with its bit reversal, up to its factor, without
/// [`Real::inverse`].
pub(crate) fn inverse_by_stages<T: Real>(re: &mut [T], im: &mut [T]) {
    let len = T::inverse_stages(re, im);
    stages_from(re, im, len);
    bit_reverse(re, im);
}

/// Stages of the inverse transform from that of length `len` on.
pub(crate) fn stages_from<T: Real>(re: &mut [T], im: &mut [T], mut len: usize) {
    while len >= 2 {
        stage(re, im, len, |ra, ia, rb, ib, [c, s]| {
            let (dr, di) = (*ra - *rb, *ia - *ib);
            *ra = *ra + *rb;
            *ia = *ia + *ib;
            // Times the conjugate twiddle factor.
            *rb = dr * c + di * s;
            *ib = di * c - dr * s;
        });
        len >>= 1;
    }
}

/// The forward transform of `factor` times the input, without
/// [`Real::forward`].
pub(crate) fn forward_by_stages<T: Real>(re: &mut [T], im: &mut [T], factor: T) {
    for x in re.iter_mut().chain(im.iter_mut()) {
        *x = *x * factor;
    }
    bit_reverse(re, im);
    let mut len = 2;
    while len <= re.len() {
        stage(re, im, len, |ra, ia, rb, ib, [c, s]| {
            let (tr, ti) = (*rb * c - *ib * s, *rb * s + *ib * c);
            (*rb, *ib) = (*ra - tr, *ia - ti);
            (*ra, *ia) = (*ra + tr, *ia + ti);
        });
        len <<= 1;
    }
}

/// Turns slots into coefficients, in place: `buffer` holds the real parts of
/// the `N / 2` slots, then their imaginary parts; afterwards the `N` rounded
/// coefficients of `scale` times the polynomial, as integers in `T`.
///
/// # Errors
/// [`Error::Scale`]; [`Error::Length`] unless `buffer.len()` is the degree of a
/// supported ring; [`Error::NotFinite`] or [`Error::Range`] where a coefficient is not below
/// `2^30` in magnitude.
pub fn encode_in_place<T: Real>(buffer: &mut [T], scale: f64) -> Result<()> {
    encode_below(buffer, scale, COEFF_LIMIT_LOG2)
}

/// As [`encode_in_place`], with another limit of at most `T::LIMIT_LOG2`.
fn encode_below<T: Real>(buffer: &mut [T], scale: f64, limit_log2: u32) -> Result<()> {
    check_scale("encoding", scale)?;
    let (re, im) = halves(buffer)?;
    let slots = re.len();
    if !T::inverse(re, im) {
        inverse_by_stages(re, im);
    }
    let factor = T::from_f64(scale / slots as f64);
    let limit = T::from_f64((1u64 << limit_log2) as f64);
    let (done, below) = T::scale_and_round(buffer, factor, limit);
    let mut margin = -1;
    for x in buffer.iter_mut().skip(done) {
        *x = *x * factor;
        margin &= x.exponent() - limit.exponent();
    }
    // Values are secret; that they cannot be encoded is not.
    if declassify(!below | (margin >= 0)) {
        // Rounding leaves what is not below the limit there.
        return Err(refusal(buffer, limit_log2));
    }
    for x in buffer.iter_mut().skip(done) {
        // Rounding does not reach a power of two above 2^24 from below in single
        // precision; in double precision that is of no harm.
        *x = x.round();
    }
    Ok(())
}

/// The first number that is not finite, if there is one.
fn first_not_finite<T: Real>(numbers: &[T]) -> Option<usize> {
    let infinite = T::from_f64(f64::INFINITY).exponent();
    first_negative(numbers.iter().map(|x| infinite - 1 - x.exponent()))
}

/// Why these coefficients are refused.
#[cold]
#[inline(never)]
fn refusal<T: Real>(coefficients: &[T], limit_log2: u32) -> Error {
    let first = |least: T| {
        let least = least.exponent();
        position_of_negative(coefficients.iter().map(|x| least - 1 - x.exponent()))
    };
    if let Some(index) = first(T::from_f64(f64::INFINITY)) {
        return Error::NotFinite { index };
    }
    Error::Range {
        index: first(T::from_f64((1u64 << limit_log2) as f64)).unwrap_or(coefficients.len()),
        limit_log2,
    }
}

/// Encodes up to `N / 2` real values (missing ones are zero) at `scale` into
/// `N` integer coefficients: `i32` below `2^30`, or `i64` below `2^62` in
/// magnitude ([`WIDE_LIMIT_LOG2`]; `2^30` from single precision). `buffer` is
/// scratch of `N` numbers, `to_int` a conversion (`|x| x as i64`).
///
/// # Errors
/// As [`encode_in_place`], with that limit; [`Error::NotFinite`] names the slot.
pub fn encode<T: Real, C: Coefficient>(
    values: &[T],
    scale: f64,
    buffer: &mut [T],
    coefficients: &mut [C],
    to_int: impl Fn(T) -> C,
) -> Result<()> {
    encode_complex(values, &[], scale, buffer, coefficients, to_int)
}

/// Encodes up to `N / 2` complex values, given by their real and imaginary
/// parts (missing ones are zero), as [`encode`] does.
///
/// # Errors
/// As [`encode`].
pub fn encode_complex<T: Real, C: Coefficient>(
    re: &[T],
    im: &[T],
    scale: f64,
    buffer: &mut [T],
    coefficients: &mut [C],
    to_int: impl Fn(T) -> C,
) -> Result<()> {
    check_len("coefficients", coefficients.len(), buffer.len())?;
    let slots = buffer.len() >> 1;
    buffer.fill(T::ZERO);
    let (left, right) = buffer.split_at_mut(slots);
    for (half, values) in [(left, re), (right, im)] {
        if values.len() > slots {
            return Err(Error::Length {
                what: "slots",
                expected: slots,
                got: values.len(),
            });
        }
        if let Some(index) = first_not_finite(values) {
            return Err(Error::NotFinite { index });
        }
        for (x, &v) in half.iter_mut().zip(values) {
            *x = v;
        }
    }
    encode_below(buffer, scale, C::ENCODED_LOG2.min(T::LIMIT_LOG2))?;
    for (c, &x) in coefficients.iter_mut().zip(buffer.iter()) {
        *c = to_int(x);
    }
    Ok(())
}

/// Turns coefficients into slots, in place: the inverse of
/// [`encode_in_place`] up to rounding. Afterwards `buffer` holds the real
/// parts of the slots, then their imaginary parts.
///
/// # Errors
/// [`Error::Scale`]; [`Error::Length`] unless `buffer.len()` is the degree of a
/// supported ring.
pub fn decode_in_place<T: Real>(buffer: &mut [T], scale: f64) -> Result<()> {
    check_scale("decoding", scale)?;
    let factor = T::from_f64(1.0 / scale);
    let (re, im) = halves(buffer)?;
    if !T::forward(re, im, factor) {
        forward_by_stages(re, im, factor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn twiddles_match_libm() {
        for log_den in [3u32, 5, 15] {
            for num in 0..1u32 << log_den {
                let angle = core::f64::consts::TAU * f64::from(num) / f64::from(1u32 << log_den);
                let [c, s] = unit_root(num, log_den);
                assert!((c - libm::cos(angle)).abs() < 1e-15);
                assert!((s - libm::sin(angle)).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn slots_come_back_in_both_precisions() {
        for n in [4usize, 16, 1024, 4096, 8192] {
            let values: Vec<f64> = (0..n / 2).map(|i| (i as f64 * 0.7).sin() * 3.0).collect();
            let mut b: Vec<f64> = values.clone();
            b.resize(n, 0.0);
            let scale = (1u64 << 22) as f64;
            encode_in_place(&mut b, scale).unwrap();
            let b32: Vec<f32> = {
                let mut b32: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                b32.resize(n, 0.0);
                encode_in_place(&mut b32, scale).unwrap();
                b32
            };
            for (x, y) in b.iter().zip(&b32) {
                assert!(
                    (x - f64::from(*y)).abs() <= 1.0 + x.abs() * 2e-6,
                    "{n} {x} {y}"
                );
            }
            decode_in_place(&mut b, scale).unwrap();
            for (x, v) in b.iter().zip(&values) {
                assert!((x - v).abs() < n as f64 / scale, "{n} {x} {v}");
            }
        }
    }

    proptest! {
        #[test]
        fn complex_slots_come_back_in_both_precisions(
            values in proptest::collection::vec((-4.0..4.0f64, -4.0..4.0f64), 0..=32),
            log_scale in 10.0..22.0f64,
        ) {
            let (re, im): (Vec<f64>, Vec<f64>) = values.iter().copied().unzip();
            let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let scale = log_scale.exp2();
            let (mut b, mut c) = ([0.0f64; 64], [0; 64]);
            encode_complex(&re, &im, scale, &mut b, &mut c, |x| x as i32).unwrap();
            let (mut b32, mut c32) = ([0.0f32; 64], [0; 64]);
            encode_complex(&narrow(&re), &narrow(&im), scale, &mut b32, &mut c32, |x| x as i32)
                .unwrap();
            // Six stages of four roundings to 24 bits, and one unit.
            let largest = re.iter().zip(&im).map(|(a, b)| a.hypot(*b)).fold(0.0, f64::max);
            let slack = 1.0 + largest * scale * 24.0 * 2f64.powi(-24);
            for (x, y) in c.iter().zip(&c32) {
                prop_assert!(f64::from((x - y).abs()) <= slack, "{x} {y}");
            }
            let mut b = c.map(f64::from);
            decode_in_place(&mut b, scale).unwrap();
            for (half, values) in [(&b[..32], &re), (&b[32..], &im)] {
                for (i, x) in half.iter().enumerate() {
                    let v = values.get(i).copied().unwrap_or(0.0);
                    // Half a unit in each of 64 coefficients.
                    prop_assert!((x - v).abs() <= 32.0 / scale + 1e-12);
                }
            }
        }
    }

    #[test]
    fn single_precision_rounds_as_libm_does() {
        let mut bits = 1u32;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(bits);
            if x.is_finite() {
                assert_eq!(Real::round(x), libm::rintf(x), "{x}");
            }
        }
        for x in [
            0.0f32,
            0.5,
            1.5,
            2.5,
            4_194_303.5,
            4_194_304.5,
            8_388_607.5,
            8_388_609.0,
        ] {
            assert_eq!(Real::round(x), libm::rintf(x), "{x}");
            assert_eq!(Real::round(-x), libm::rintf(-x), "-{x}");
        }
    }

    #[test]
    fn double_precision_rounds_as_libm_does() {
        let mut bits = 1u64;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Exponents around those of integers.
            let x = f64::from_bits(bits & !(0x7ff << 52) | (1000 + (bits >> 57)) << 52);
            for x in [x, -x] {
                assert_eq!(Real::round(x).to_bits(), libm::rint(x).to_bits(), "{x}");
            }
        }
    }

    #[test]
    fn wide_coefficients_carry_double_precision() {
        for n in [16usize, 1024, 4096] {
            let (re, im): (Vec<f64>, Vec<f64>) = (0..n / 2)
                .map(|i| ((i as f64 * 0.7).sin() * 3.0, (i as f64 * 1.3).cos()))
                .unzip();
            for log_scale in [31, 40, 50, 55] {
                let scale = 2f64.powi(log_scale);
                let (mut buffer, mut wide) = (vec![0.0; n], vec![0i64; n]);
                encode_complex(&re, &im, scale, &mut buffer, &mut wide, |x| x as i64).unwrap();
                for (b, &w) in buffer.iter_mut().zip(&wide) {
                    assert_eq!(*b, w as f64);
                    *b = w as f64;
                }
                decode_in_place(&mut buffer, scale).unwrap();
                // Half a unit in every coefficient, and some roundings to 53 bits.
                let slack = n as f64 / scale + 3.0 * 2f64.powi(-48);
                for (x, v) in buffer.iter().zip(re.iter().chain(&im)) {
                    assert!((x - v).abs() < slack, "{n} {log_scale} {x} {v}");
                }
            }
        }
    }

    #[test]
    fn coefficients_are_limited_by_words_and_precision() {
        let refused = |limit_log2| {
            Err(Error::Range {
                index: 0,
                limit_log2,
            })
        };
        let (mut b, mut narrow, mut wide) = ([0.0f64; 64], [0i32; 64], [0i64; 64]);
        let r = encode(&[1.0; 32], 2f64.powi(30), &mut b, &mut narrow, |x| x as i32);
        assert_eq!(r, refused(30));
        let r = encode(&[1.0; 32], 2f64.powi(62), &mut b, &mut wide, |x| x as i64);
        assert_eq!(r, refused(62));
        encode(&[-1.0; 32], 2f64.powi(61), &mut b, &mut wide, |x| x as i64).unwrap();
        assert_eq!(wide[0], -1 << 61);
        let r = encode(
            &[1.0f32; 32],
            2f64.powi(30),
            &mut [0.0; 64],
            &mut wide,
            |x| x as i64,
        );
        assert_eq!(r, refused(30));
    }

    #[test]
    fn bad_input_is_refused() {
        let mut b = [0.0f64; 16];
        assert!(encode_in_place(&mut b[..12], 1.0).is_err());
        assert!(encode_in_place(&mut b[..0], 1.0).is_err());
        assert!(decode_in_place(&mut b[..1], 1.0).is_err());
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                encode_in_place(&mut b, scale),
                Err(Error::Scale { .. })
            ));
            assert!(matches!(
                decode_in_place(&mut b, scale),
                Err(Error::Scale { .. })
            ));
        }
        b[3] = f64::NAN;
        assert!(matches!(
            encode_in_place(&mut b, 1.0),
            Err(Error::NotFinite { .. })
        ));
        let mut b = [1e9f64; 16];
        assert!(matches!(
            encode_in_place(&mut b, 1e9),
            Err(Error::Range { .. })
        ));
        let (mut b, mut c) = ([0.0f64; 16], [0; 16]);
        let r = encode(&[0.0; 9], 1.0, &mut b, &mut c, |x| x as i32);
        assert!(matches!(
            r,
            Err(Error::Length {
                what: "slots",
                expected: 8,
                got: 9
            })
        ));
        let r = encode(&[0.0, f64::INFINITY], 1.0, &mut b, &mut c, |x| x as i32);
        assert_eq!(r, Err(Error::NotFinite { index: 1 }));
        let r = encode_complex(&[0.0; 2], &[0.0; 9], 1.0, &mut b, &mut c, |x| x as i32);
        assert!(matches!(r, Err(Error::Length { got: 9, .. })));
        let mut large = vec![0.0f32; 16384];
        assert!(encode_in_place(&mut large, 1.0).is_err());
    }
}
