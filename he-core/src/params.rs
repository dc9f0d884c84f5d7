//! Parameter sets: a literal, validated by the compiler.
//!
//! [`parameter_set!`](crate::parameter_set) turns a literal into a static
//! [`Params`] with its NTT tables. A modulus that is not an NTT prime, appears
//! twice, or a product `Q P` above the security table does not compile.
//!
//! The named sets ([`SETS`]); security in bits by ePrint 2024/463, whose row is the
//! largest log2(QP) there may be:
//!
//! | set | security | levels | log2(QP) | row | special primes | for |
//! |---|---|---|---|---|---|---|
//! | [`N2048_DEPTH1`] | 128 | 1 | 51.9 | 53 | 1 | one product with a plaintext |
//! | [`N4096_DEPTH3`] | 128 | 3 | 104.7 | 106 | 1 | the device |
//! | [`N8192_DEPTH5`] | 128 | 5 | 174.8 | 214 | 1 | two activations, on a board too |
//! | [`N8192_DEPTH6`] | 128 | 6 | 207.9 | 214 | 1 | two activations and a level more |
//! | [`N8192_SCALE40`] | 128 | 2 of two primes | 200.3 | 214 | 2 | precision, on a host |
//! | [`N16384_DEPTH14`] | 128 | 14 | 424.6 | 430 | 3 | deep circuits, on a host |
//! | [`N8192_DEPTH5_192`] | 192 | 5 | 145.2 | 147 | 1 | two activations |
//! | [`N16384_DEPTH9_192`] | 192 | 9 | 294.8 | 297 | 2 | deeper circuits, on a host |
//! | [`N8192_DEPTH3_256`] | 256 | 3 | 112.6 | 114 | 1 | the circuits of the device |
//! | [`N16384_DEPTH5_256`] | 256 | 5 | 217.9 | 230 | 2 | two activations, on a host |

use crate::arith::{Modulus, prime};
use crate::error::{Error, Result};
use crate::ring::ntt::table_len;
use core::ops::Range;

/// Longest chain, special primes included.
pub const MAX_LIMBS: usize = 32;

/// Most special primes, which is also the most primes of a digit.
pub const MAX_SPECIAL: usize = 4;

/// Claimed security in bits against classical attacks, uniform ternary
/// secrets, error width 3.19 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// 128 bits.
    Classical128,
    /// 192 bits.
    Classical192,
    /// 256 bits.
    Classical256,
    /// None at all: test vectors and tiny rings.
    #[cfg(any(test, feature = "insecure-test-sets"))]
    Insecure,
}

impl Security {
    /// Bits, for reports.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Classical128 => 128,
            Self::Classical192 => 192,
            Self::Classical256 => 256,
            #[cfg(any(test, feature = "insecure-test-sets"))]
            Self::Insecure => 0,
        }
    }

    /// The largest `log2(Q P)` for ring degree `n`: "Security Guidelines for
    /// Implementing Homomorphic Encryption" (ePrint 2024/463), table 5.2.
    ///
    /// `None` where the table has no row.
    #[must_use]
    pub const fn max_log_qp(self, n: usize) -> Option<u32> {
        let row = match (self, n) {
            (Self::Classical128, 1024) => 26,
            (Self::Classical128, 2048) => 53,
            (Self::Classical128, 4096) => 106,
            (Self::Classical128, 8192) => 214,
            (Self::Classical128, 16384) => 430,
            (Self::Classical128, 32768) => 868,
            (Self::Classical192, 2048) => 36,
            (Self::Classical192, 4096) => 73,
            (Self::Classical192, 8192) => 147,
            (Self::Classical192, 16384) => 297,
            (Self::Classical192, 32768) => 597,
            (Self::Classical256, 2048) => 27,
            (Self::Classical256, 4096) => 56,
            (Self::Classical256, 8192) => 114,
            (Self::Classical256, 16384) => 230,
            (Self::Classical256, 32768) => 462,
            #[cfg(any(test, feature = "insecure-test-sets"))]
            (Self::Insecure, _) => 31 * MAX_LIMBS as u32,
            _ => return None,
        };
        Some(row)
    }
}

/// One prime of a chain with its NTT tables.
#[derive(Debug)]
pub struct Prime {
    modulus: Modulus,
    n: usize,
    forward: &'static [i32],
    inverse: &'static [i32],
    n_inv: i32,
}

impl Prime {
    /// Ties a prime to its tables for `n` coefficients; called by the macro.
    ///
    /// # Panics
    /// At compile time, if `q` is not a prime below 2^30 or a table has another length
    /// than [`table_len`].
    #[must_use]
    #[expect(clippy::panic, reason = "a compile-time check")]
    pub const fn new(q: u32, n: usize, forward: &'static [i32], inverse: &'static [i32]) -> Self {
        let Some(modulus) = Modulus::new(q) else {
            panic!("a modulus is not an odd number below 2^30")
        };
        assert!(prime::is_prime(q), "a modulus is not prime");
        assert!(
            forward.len() == table_len(n) && inverse.len() == table_len(n),
            "NTT tables of another length"
        );
        Self {
            modulus,
            n,
            forward,
            inverse,
            n_inv: modulus.to_mont(modulus.inv(n as u32)),
        }
    }

    /// The modulus.
    #[must_use]
    pub const fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// Ring degree.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.n
    }

    /// See [`tables`](crate::ring::ntt::tables); behind its `n` entries there may be more,
    /// for the kernels of hosts.
    pub(crate) const fn forward_table(&self) -> &'static [i32] {
        self.forward
    }

    pub(crate) const fn inverse_table(&self) -> &'static [i32] {
        self.inverse
    }

    pub(crate) const fn n_inv(&self) -> i32 {
        self.n_inv
    }
}

/// A validated parameter set: ring degree, modulus chain `q_0 .. q_L` and
/// the special primes for key switching, whose product is `P`.
///
/// Level `l` means a ciphertext modulo `q_0 .. q_l`; rescaling drops the last
/// prime. The special primes follow the data primes: they have the indices from
/// `data_limbs()` to `limbs() - 1`.
///
/// A digit of key switching has at most as many primes as there are special ones:
/// as few as leave the number of digits at the highest level as it is
/// ([`Self::digit_limbs`]), the last digit of a level what is left. Digit `d` at level
/// `l` has the primes from `d digit_limbs()` on ([`Self::digit`]).
#[derive(Debug)]
pub struct Params {
    name: &'static str,
    log_n: u32,
    security: Security,
    primes: &'static [Prime],
    data_limbs: usize,
    fingerprint: u32,
}

impl Params {
    /// Validates a set; called by the macro. The last `special` primes are the
    /// special ones.
    ///
    /// # Panics
    /// At compile time, with the reason, if the set is not usable or not
    /// within the security table.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        clippy::panic,
        reason = "const code; a panic is a compile error"
    )]
    pub const fn new(
        name: &'static str,
        n: usize,
        security: Security,
        primes: &'static [Prime],
        special: usize,
    ) -> Self {
        assert!(
            n.is_power_of_two() && n >= 16 && n <= 16384,
            "N is not a power of two in 16..=16384"
        );
        assert!(
            special >= 1 && primes.len() > special,
            "a set needs a data prime and a special prime"
        );
        assert!(special <= MAX_SPECIAL, "too many special primes");
        assert!(primes.len() <= MAX_LIMBS, "too many primes");
        let mut i = 0;
        while i < primes.len() {
            assert!(primes[i].n() == n, "a prime has tables for another N");
            let mut j = 0;
            while j < i {
                assert!(
                    primes[i].modulus.value() != primes[j].modulus.value(),
                    "a prime appears twice"
                );
                j += 1;
            }
            i += 1;
        }
        let Some(max) = security.max_log_qp(n) else {
            panic!("the security table has no row for this N")
        };
        assert!(
            product_bits(primes) <= max,
            "log2(QP) is above the row of ePrint 2024/463 for this N and security"
        );
        Self {
            name,
            log_n: n.trailing_zeros(),
            security,
            primes,
            data_limbs: primes.len() - special,
            fingerprint: fingerprint(n, primes, special),
        }
    }

    /// Name of the set.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Ring degree N.
    #[must_use]
    pub const fn n(&self) -> usize {
        // Not stored, so that a compiler sees that it is not zero: limbs are
        // chunks of this length.
        1 << self.log_n
    }

    /// Slots, N / 2.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.n() >> 1
    }

    /// Claimed security.
    #[must_use]
    pub const fn security(&self) -> Security {
        self.security
    }

    /// Number of data primes.
    #[must_use]
    pub const fn data_limbs(&self) -> usize {
        self.data_limbs
    }

    /// Number of special primes.
    #[must_use]
    pub const fn special_limbs(&self) -> usize {
        self.primes.len() - self.data_limbs
    }

    /// Number of primes of a digit: digits are as many as if each had
    /// [`Self::special_limbs`], and as equal as that allows. Four data primes and
    /// three special ones make two digits of two, below `P` by a whole prime.
    #[must_use]
    pub const fn digit_limbs(&self) -> usize {
        // The least size whose digits cover the data primes.
        let mut digits = 1;
        while digits * self.special_limbs() < self.data_limbs {
            digits += 1;
        }
        let mut size = 1;
        while size * digits < self.data_limbs {
            size += 1;
        }
        size
    }

    /// Number of all primes.
    #[must_use]
    pub const fn limbs(&self) -> usize {
        self.primes.len()
    }

    /// Bytes of the static tables of its transforms.
    #[must_use]
    pub const fn table_bytes(&self) -> usize {
        2 * self.limbs() * self.n() * size_of::<i32>()
    }

    /// Index of the first special prime in [`Self::prime`].
    #[must_use]
    pub const fn special(&self) -> usize {
        self.data_limbs
    }

    /// The highest level, that of a fresh ciphertext.
    #[must_use]
    pub const fn max_level(&self) -> usize {
        self.data_limbs - 1
    }

    /// Number of digits at `level`; of a level that the set does not have, that of
    /// the highest.
    #[must_use]
    pub const fn digits(&self, level: usize) -> usize {
        self.digit_of(level) + 1
    }

    /// The digit that data prime `i` belongs to; the last one of a prime that is no
    /// data prime.
    #[must_use]
    pub const fn digit_of(&self, i: usize) -> usize {
        let size = self.digit_limbs();
        let (mut digit, mut end) = (0, size);
        while end <= i && end < self.data_limbs {
            digit += 1;
            end += size;
        }
        digit
    }

    /// The primes of a digit at `level`: none beyond the last digit.
    #[must_use]
    pub const fn digit(&self, digit: usize, level: usize) -> Range<usize> {
        let (size, limbs) = (self.digit_limbs(), self.limbs_of(level));
        let start = digit.saturating_mul(size);
        let end = start.saturating_add(size);
        start..if end < limbs { end } else { limbs }
    }

    /// Data primes of `level`; all of them for a level that the set does not have.
    const fn limbs_of(&self, level: usize) -> usize {
        if level < self.data_limbs {
            level + 1
        } else {
            self.data_limbs
        }
    }

    /// The primes that a key switch at `level` computes modulo: those of the
    /// level, then the special ones.
    pub fn targets(&self, level: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        (0..self.limbs_of(level)).chain(self.data_limbs..self.primes.len())
    }

    /// Prime `i` of the chain; the special ones are the last.
    ///
    /// # Errors
    /// [`Error::Level`] beyond the chain.
    pub fn prime(&self, i: usize) -> Result<&'static Prime> {
        self.primes.get(i).ok_or(Error::Level {
            operation: "prime of the chain",
            expected: self.primes.len() - 1,
            got: i,
        })
    }

    /// Checks that `level` exists.
    ///
    /// # Errors
    /// [`Error::Level`] naming `operation`.
    pub fn check_level(&self, operation: &'static str, level: usize) -> Result<()> {
        if level <= self.max_level() {
            Ok(())
        } else {
            Err(Error::Level {
                operation,
                expected: self.max_level(),
                got: level,
            })
        }
    }

    /// Checks that an object with this fingerprint belongs to the set.
    pub(crate) fn check_fingerprint(&self, got: u32) -> Result<()> {
        let expected = self.fingerprint();
        if got == expected {
            Ok(())
        } else {
            Err(Error::Params { expected, got })
        }
    }

    /// `log2` of the data modulus up to `level`.
    #[must_use]
    pub fn log_q(&self, level: usize) -> f64 {
        self.primes
            .iter()
            .take(self.limbs_of(level))
            .map(log2)
            .sum()
    }

    /// `log2(Q P)`, the figure that security is judged by.
    #[must_use]
    pub fn log_qp(&self) -> f64 {
        self.primes.iter().map(log2).sum()
    }

    /// A number that differs between sets (FNV-1a over degree and primes, and
    /// the number of special primes where it is not one): both ends of a link
    /// compare it.
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        self.fingerprint
    }
}

const fn fingerprint(n: usize, primes: &[Prime], special: usize) -> u32 {
    let mut h = fnv(0x811c_9dc5, n as u32);
    let mut rest = primes;
    while let Some((p, tail)) = rest.split_first() {
        h = fnv(h, p.modulus.value());
        rest = tail;
    }
    if special > 1 {
        fnv(h, special as u32)
    } else {
        h
    }
}

fn log2(p: &Prime) -> f64 {
    libm::log2(f64::from(p.modulus.value()))
}

/// One FNV-1a step over the four bytes of a word.
#[must_use]
pub const fn fnv(mut h: u32, word: u32) -> u32 {
    let mut i = 0;
    while i < 4 {
        h = (h ^ ((word >> (8 * i)) & 0xff)).wrapping_mul(0x0100_0193);
        i += 1;
    }
    h
}

/// Bits of the product of all primes, by exact multiplication: a set is
/// within `log2(QP) <= max` if its product has at most `max` bits.
#[expect(
    clippy::indexing_slicing,
    reason = "const code; a panic is a compile error"
)]
const fn product_bits(primes: &[Prime]) -> u32 {
    let mut words = [0u32; MAX_LIMBS];
    words[0] = 1;
    let mut i = 0;
    while i < primes.len() {
        let mut carry = 0u64;
        let mut w = 0;
        while w < MAX_LIMBS {
            let t = words[w] as u64 * primes[i].modulus.value() as u64 + carry;
            words[w] = t as u32;
            carry = t >> 32;
            w += 1;
        }
        i += 1;
    }
    let mut top = MAX_LIMBS - 1;
    while words[top] == 0 {
        top -= 1;
    }
    32 * top as u32 + 32 - words[top].leading_zeros()
}

/// Defines a static [`Params`] from a literal, checked at compile time.
///
/// ```
/// use he_core::{parameter_set, params::Security};
/// parameter_set! {
///     /// Two data primes at N = 2048.
///     pub static MINE = {
///         n: 2048, security: Security::Classical128,
///         data: [12_289, 40_961], special: 61_441
///     };
/// }
/// assert!(MINE.log_qp() < 53.0);
/// ```
///
/// A set above the security table does not compile:
///
/// ```compile_fail
/// use he_core::{parameter_set, params::Security};
/// parameter_set! {
///     /// 54 bits at N = 2048.
///     pub static TOO_LARGE = {
///         n: 2048, security: Security::Classical128,
///         data: [134_176_769], special: 134_111_233
///     };
/// }
/// ```
///
/// With several special primes, `special: [p, q]`, digits have as many, or fewer where
/// that makes them equal ([`crate::params::Params::digit_limbs`]).
#[macro_export]
macro_rules! parameter_set {
    ($(
        $(#[$meta:meta])*
        $vis:vis static $name:ident = {
            n: $n:literal, security: $security:expr,
            data: [$($q:literal),+ $(,)?], special: $special:tt $(,)?
        };
    )+) => {$(
        $(#[$meta])*
        $vis static $name: $crate::params::Params =
            $crate::__params!($name, $n, $security, [$($q),+], $special);
    )+};
}

/// A set with one special prime or a list of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __params {
    ($name:ident, $n:literal, $security:expr, [$($q:literal),+], $p:literal) => {
        $crate::__params!($name, $n, $security, [$($q),+], [$p])
    };
    ($name:ident, $n:literal, $security:expr, [$($q:literal),+], [$($p:literal),+ $(,)?]) => {{
        static PRIMES: &[$crate::params::Prime] =
            &[$($crate::__prime!($n, $q),)+ $($crate::__prime!($n, $p)),+];
        $crate::params::Params::new(
            stringify!($name), $n, $security, PRIMES, [$($p),+].len(),
        )
    }};
}

/// One prime with its static tables.
#[doc(hidden)]
#[macro_export]
macro_rules! __prime {
    ($n:literal, $q:literal) => {{
        use $crate::ring::ntt;
        const LEN: usize = ntt::table_len($n);
        static FORWARD: ntt::Entries<LEN> = ntt::forward_table::<$n, LEN>($q);
        static INVERSE: ntt::Entries<LEN> = ntt::inverse_table::<$n, LEN>($q);
        $crate::params::Prime::new($q, $n, &FORWARD.0, &INVERSE.0)
    }};
}

parameter_set! {
    /// N = 4096, depth 3: the device's set, made for circuits that switch keys
    /// before they rescale (the noise of key switching then vanishes beside a
    /// squared scale, so the special prime may be narrow and the bits go to
    /// the data).
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 134 176 769 | 27.00 | base: the result, scale 2^20 and 2^6 of headroom on either side |
    /// | 1 032 193 | 19.98 | last rescale |
    /// | 974 849 | 19.90 | second rescale |
    /// | 925 697 | 19.82 | first rescale |
    /// | 270 337 | 18.04 | special: key-switching noise is below 2^21 in a slot, where scales are 2^38 and more |
    ///
    /// log2(QP) = 104.74: one bit below the table's 106.
    pub static N4096_DEPTH3 = {
        n: 4096, security: Security::Classical128,
        data: [134_176_769, 1_032_193, 974_849, 925_697], special: 270_337
    };

    /// N = 8192, depth 5: for networks of three layers with two activations
    /// (convolution, square, dense, square, dense).
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 909 249 | 27.47 | base: the result, scale 2^24 and 2^2.5 of headroom on either side |
    /// | 16 760 833 | 24.00 | fifth rescale |
    /// | 16 580 609 | 23.98 | fourth rescale |
    /// | 16 515 073 | 23.98 | third rescale |
    /// | 16 465 921 | 23.97 | second rescale |
    /// | 16 384 001 | 23.97 | first rescale |
    /// | 185 745 409 | 27.47 | special: wider than a digit, so that key-switching noise stays small also where scales are not doubled |
    ///
    /// log2(QP) = 174.84, and the table's row is 214. The rest is left: a board
    /// encodes weights in single precision, of 24 bits, and above 1.86 * 10^8 a
    /// transform needs reductions between its layers.
    pub static N8192_DEPTH5 = {
        n: 8192, security: Security::Classical128,
        data: [
            185_909_249, 16_760_833, 16_580_609,
            16_515_073, 16_465_921, 16_384_001,
        ],
        special: 185_745_409
    };

    /// N = 2048, depth 1: one product with a plaintext, then its rescale.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 2 936 833 | 21.49 | base: the result, scale 2^16.8 and 2^3.7 of headroom on either side |
    /// | 114 689 | 16.81 | the rescale |
    /// | 12 289 | 13.59 | special: key-switching noise is about 2^19 in a slot, so rotations come before the rescale, at scale 2^33.6 |
    ///
    /// log2(QP) = 51.88, one bit below the table's 53.
    pub static N2048_DEPTH1 = {
        n: 2048, security: Security::Classical128,
        data: [2_936_833, 114_689], special: 12_289
    };

    /// N = 8192, depth 6, with streamed keys.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 536 690 689 | 29.00 | base: the result, scale 2^25 and 2^3 of headroom on either side |
    /// | 33 538 049 | 25.00 | sixth rescale |
    /// | 33 292 289 | 24.99 | fifth rescale |
    /// | 33 177 601 | 24.98 | fourth rescale |
    /// | 33 128 449 | 24.98 | third rescale |
    /// | 32 931 841 | 24.97 | second rescale |
    /// | 32 899 073 | 24.97 | first rescale |
    /// | 536 641 537 | 29.00 | special: as wide as the widest digit |
    ///
    /// log2(QP) = 207.90, and the table's row is 214.
    pub static N8192_DEPTH6 = {
        n: 8192, security: Security::Classical128,
        data: [
            536_690_689, 33_538_049, 33_292_289, 33_177_601,
            33_128_449, 32_931_841, 32_899_073,
        ],
        special: 536_641_537
    };

    /// N = 8192, two levels at scale 2^40, each of two primes: rescale twice. The
    /// precision of a chain of 60, 40, 40 and 60 bits on 64-bit words.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 1 073 479 681 | 30.00 | base, with the next: the result, 2^19 of headroom on either side |
    /// | 1 073 430 529 | 30.00 | base |
    /// | 1 146 881 | 20.13 | second level, with the next |
    /// | 1 130 497 | 20.11 | second level |
    /// | 1 097 729 | 20.07 | first level, with the next |
    /// | 1 032 193 | 19.98 | first level |
    /// | 1 073 692 673 | 30.00 | special, with the next: as wide as the widest digit |
    /// | 1 073 643 521 | 30.00 | special |
    ///
    /// Digits of two primes: 60, 40.2 and 40.1 bits. log2(QP) = 200.28, and the
    /// table's row is 214.
    pub static N8192_SCALE40 = {
        n: 8192, security: Security::Classical128,
        data: [
            1_073_479_681, 1_073_430_529, 1_146_881, 1_130_497, 1_097_729, 1_032_193,
        ],
        special: [1_073_692_673, 1_073_643_521]
    };

    /// N = 8192, depth 5, at 192 bits: for circuits that switch keys before they
    /// rescale, as [`N4096_DEPTH3`] is.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 745 409 | 27.47 | base: the result, scale 2^20 and 2^6 of headroom on either side |
    /// | 1 179 649 | 20.17 | fifth rescale |
    /// | 1 146 881 | 20.13 | fourth rescale |
    /// | 1 130 497 | 20.11 | third rescale |
    /// | 1 097 729 | 20.07 | second rescale |
    /// | 1 032 193 | 19.98 | first rescale |
    /// | 163 841 | 17.32 | special: key-switching noise is about 2^23 in a slot, where scales are 2^40 |
    ///
    /// log2(QP) = 145.24, one bit below the table's 147.
    pub static N8192_DEPTH5_192 = {
        n: 8192, security: Security::Classical192,
        data: [
            185_745_409, 1_179_649, 1_146_881, 1_130_497, 1_097_729, 1_032_193,
        ],
        special: 163_841
    };

    /// N = 8192, depth 3, at 256 bits: the circuits of [`N4096_DEPTH3`].
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 745 409 | 27.47 | base: the result, scale 2^21 and 2^5 of headroom on either side |
    /// | 3 850 241 | 21.88 | last rescale |
    /// | 3 735 553 | 21.83 | second rescale |
    /// | 3 686 401 | 21.81 | first rescale |
    /// | 786 433 | 19.58 | special: key-switching noise is below 2^21 in a slot, where scales are 2^43 |
    ///
    /// log2(QP) = 112.58, one bit below the table's 114.
    pub static N8192_DEPTH3_256 = {
        n: 8192, security: Security::Classical256,
        data: [185_745_409, 3_850_241, 3_735_553, 3_686_401], special: 786_433
    };

    /// N = 16384, depth 14: deep circuits on a host. Digits of three primes, five
    /// of them at the highest level, where one prime per digit would make fifteen.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 597 953 | 27.47 | base: the result, scale 2^23 and 2^3.5 of headroom on either side |
    /// | 9 732 097 | 23.21 | fourteenth rescale |
    /// | 9 502 721 | 23.18 | thirteenth rescale |
    /// | 9 338 881 | 23.15 | twelfth rescale |
    /// | 9 011 201 | 23.10 | eleventh rescale |
    /// | 8 814 593 | 23.07 | tenth rescale |
    /// | 8 716 289 | 23.06 | ninth rescale |
    /// | 8 650 753 | 23.04 | eighth rescale |
    /// | 8 519 681 | 23.02 | seventh rescale |
    /// | 8 257 537 | 22.98 | sixth rescale |
    /// | 8 159 233 | 22.96 | fifth rescale |
    /// | 7 667 713 | 22.87 | fourth rescale |
    /// | 7 569 409 | 22.85 | third rescale |
    /// | 7 438 337 | 22.83 | second rescale |
    /// | 7 340 033 | 22.81 | first rescale |
    /// | 33 292 289 | 24.99 | special: the three together wider than the widest digit, 73.9 bits |
    /// | 33 128 449 | 24.98 | special |
    /// | 32 931 841 | 24.97 | special |
    ///
    /// log2(QP) = 424.55, and the table's row is 430. No prime is above 1.86 * 10^8,
    /// where transforms need reductions between their layers.
    pub static N16384_DEPTH14 = {
        n: 16384, security: Security::Classical128,
        data: [
            185_597_953, 9_732_097, 9_502_721, 9_338_881, 9_011_201,
            8_814_593, 8_716_289, 8_650_753, 8_519_681, 8_257_537,
            8_159_233, 7_667_713, 7_569_409, 7_438_337, 7_340_033,
        ],
        special: [33_292_289, 33_128_449, 32_931_841]
    };

    /// N = 16384, depth 9, at 192 bits. Digits of two primes.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 597 953 | 27.47 | base: the result, scale 2^24 and 2^2.5 of headroom on either side |
    /// | 17 367 041 | 24.05 | ninth rescale |
    /// | 17 006 593 | 24.02 | eighth rescale |
    /// | 16 580 609 | 23.98 | seventh rescale |
    /// | 16 515 073 | 23.98 | sixth rescale |
    /// | 16 384 001 | 23.97 | fifth rescale |
    /// | 16 121 857 | 23.94 | fourth rescale |
    /// | 15 630 337 | 23.90 | third rescale |
    /// | 14 942 209 | 23.83 | second rescale |
    /// | 14 909 441 | 23.83 | first rescale |
    /// | 62 423 041 | 25.90 | special: the two together wider than the widest digit, 51.5 bits |
    /// | 62 291 969 | 25.89 | special |
    ///
    /// log2(QP) = 294.75, two bits below the table's 297.
    pub static N16384_DEPTH9_192 = {
        n: 16384, security: Security::Classical192,
        data: [
            185_597_953, 17_367_041, 17_006_593, 16_580_609, 16_515_073,
            16_384_001, 16_121_857, 15_630_337, 14_942_209, 14_909_441,
        ],
        special: [62_423_041, 62_291_969]
    };

    /// N = 16384, depth 5, at 256 bits: the circuits of [`N8192_DEPTH5`]. Digits of
    /// two primes.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 1 073 643 521 | 30.00 | base: the result, scale 2^26 and 2^3 of headroom on either side |
    /// | 67 043 329 | 26.00 | fifth rescale |
    /// | 66 813 953 | 25.99 | fourth rescale |
    /// | 66 551 809 | 25.99 | third rescale |
    /// | 66 420 737 | 25.99 | second rescale |
    /// | 65 929 217 | 25.97 | first rescale |
    /// | 536 641 537 | 29.00 | special: the two together wider than the widest digit, 56 bits |
    /// | 536 608 769 | 29.00 | special |
    ///
    /// log2(QP) = 217.94, and the table's row is 230.
    pub static N16384_DEPTH5_256 = {
        n: 16384, security: Security::Classical256,
        data: [
            1_073_643_521, 67_043_329, 66_813_953,
            66_551_809, 66_420_737, 65_929_217,
        ],
        special: [536_641_537, 536_608_769]
    };
}

/// All named sets, by degree, security and depth. A program that names this holds
/// all their tables: 7 MB, on x86-64 21.
pub static SETS: [&Params; 10] = [
    &N2048_DEPTH1,
    &N4096_DEPTH3,
    &N8192_SCALE40,
    &N8192_DEPTH5,
    &N8192_DEPTH6,
    &N8192_DEPTH5_192,
    &N8192_DEPTH3_256,
    &N16384_DEPTH14,
    &N16384_DEPTH9_192,
    &N16384_DEPTH5_256,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::N16;

    #[test]
    fn the_device_set_keeps_one_bit_of_margin() {
        let p = &N4096_DEPTH3;
        let max = p.security().max_log_qp(p.n()).unwrap();
        assert_eq!((max, p.security().bits()), (106, 128));
        assert!(product_bits(p.primes) < max);
        assert!(p.log_qp() <= f64::from(max) - 1.0, "{}", p.log_qp());
        assert_eq!(
            (p.data_limbs(), p.special(), p.max_level(), p.slots()),
            (4, 4, 3, 2048)
        );
        assert!((p.log_q(3) + p.prime(4).unwrap().modulus().value().ilog2() as f64) < p.log_qp());
        assert!(p.prime(5).is_err() && p.check_level("x", 4).is_err());
    }

    #[test]
    fn the_larger_set_serves_depth_five() {
        let p = &N8192_DEPTH5;
        let max = p.security().max_log_qp(p.n()).unwrap();
        assert_eq!((max, p.security().bits()), (214, 128));
        assert!(p.log_qp() <= f64::from(max) - 1.0, "{}", p.log_qp());
        assert_eq!((p.max_level(), p.slots()), (5, 4096));
        let largest = p.primes.iter().map(|p| p.modulus.value()).max().unwrap();
        assert!(largest <= crate::ring::kernel::portable::MAX_UNREDUCED);
        assert_ne!(p.fingerprint(), N4096_DEPTH3.fingerprint());
    }

    #[test]
    fn every_set_is_named_for_what_it_is_and_keeps_a_margin() {
        for (i, p) in SETS.iter().enumerate() {
            let name = p.name();
            let max = f64::from(p.security().max_log_qp(p.n()).unwrap());
            assert!(p.log_qp() <= max - 1.0, "{name}: {}", p.log_qp());
            let mut parts = name.split('_');
            assert_eq!(parts.next(), Some(format!("N{}", p.n()).as_str()));
            let middle = parts.next().unwrap();
            if let Some(depth) = middle.strip_prefix("DEPTH") {
                assert_eq!(depth.parse(), Ok(p.max_level()), "{name}");
            } else {
                assert_eq!(middle, "SCALE40");
                for level in [5, 3] {
                    let bits = p.log_q(level) - p.log_q(level - 2);
                    assert!((bits - 40.0).abs() < 0.25, "{name}: {bits}");
                }
            }
            let security = parts.next().unwrap_or("128");
            assert_eq!(security.parse(), Ok(p.security().bits()), "{name}");
            for other in &SETS[..i] {
                assert_ne!(p.fingerprint(), other.fingerprint(), "{name}");
            }
            // Digits cover the level, and with several special primes P is at
            // least as wide as they are.
            for level in 0..=p.max_level() {
                let covered: Vec<usize> = (0..p.digits(level))
                    .flat_map(|d| p.digit(d, level))
                    .collect();
                assert_eq!(covered, (0..=level).collect::<Vec<_>>(), "{name}");
                assert!(
                    covered
                        .iter()
                        .all(|&i| p.digit(p.digit_of(i), level).contains(&i))
                );
                assert!(p.digit(p.digits(level), level).is_empty());
            }
            let bits = |primes: Range<usize>| primes.map(|i| log2(&p.primes[i])).sum::<f64>();
            if p.special_limbs() > 1 {
                let special = bits(p.special()..p.limbs());
                for d in 0..p.digits(p.max_level()) {
                    assert!(special >= bits(p.digit(d, p.max_level())), "{name}");
                }
            }
        }
    }

    #[test]
    fn digits_are_as_equal_as_their_number_allows() {
        parameter_set! {
            static FOUR_AND_THREE = {
                n: 64, security: Security::Insecure,
                data: [1_073_739_649, 67_107_713, 67_107_457, 67_106_561],
                special: [1_073_741_441, 1_073_738_753, 67_104_769]
            };
        }
        let p = &FOUR_AND_THREE;
        assert_eq!((p.special_limbs(), p.digit_limbs()), (3, 2));
        let digits = [0, 1].map(|digit| p.digit(digit, 3));
        assert_eq!(digits, [0..2, 2..4]);
        assert_eq!([0, 1, 2, 3].map(|level| p.digits(level)), [1, 1, 2, 2]);
        let pairs = &crate::testing::N64_PAIRS;
        assert_eq!((pairs.digit_limbs(), pairs.digits(4)), (2, 3));
    }

    #[test]
    fn the_number_of_special_primes_is_part_of_the_fingerprint() {
        let (one, two) = (&crate::testing::N64_SIX, &crate::testing::N64_PAIRS);
        assert_eq!((one.special_limbs(), two.special_limbs()), (1, 2));
        assert_eq!((one.limbs(), one.log_qp()), (two.limbs(), two.log_qp()));
        assert_ne!(one.fingerprint(), two.fingerprint());
    }

    #[test]
    fn product_bits_is_exact() {
        let product: u128 = N4096_DEPTH3
            .primes
            .iter()
            .map(|p| u128::from(p.modulus.value()))
            .product();
        assert_eq!(
            product_bits(N4096_DEPTH3.primes),
            128 - product.leading_zeros()
        );
    }

    #[test]
    fn fingerprints_differ() {
        assert_ne!(N16.fingerprint(), N4096_DEPTH3.fingerprint());
    }

    #[test]
    fn degrees_outside_the_table_have_no_row() {
        assert_eq!(Security::Classical192.max_log_qp(1024), None);
        assert_eq!(Security::Classical128.max_log_qp(4097), None);
    }
}
