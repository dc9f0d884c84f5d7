//! Vectors of `f64`: what the encoder's and the decoder's kernels are written
//! in. No operation is fused, so that results are those of scalar code, bit for
//! bit.

use super::lanes::{Avx2, Avx512, Lanes, op};
use core::arch::x86_64::*;

/// A vector of [`Self::COUNT`] numbers; to be used as [`Lanes`] are.
pub(super) trait Doubles: Copy {
    /// Numbers of a vector.
    const COUNT: usize;

    /// The same number everywhere.
    fn splat(x: f64) -> Self;
    /// # Safety
    /// `COUNT` numbers must be readable at `p`.
    unsafe fn load(p: *const f64) -> Self;
    /// # Safety
    /// `COUNT` numbers must be writable at `p`.
    unsafe fn store(self, p: *mut f64);
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Difference.
    fn sub(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;
    /// Magnitude.
    fn abs(self) -> Self;
    /// The larger one; neither is NaN.
    fn max(self, other: Self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// Whether all are below `limit`, which NaN is not.
    fn all_below(self, limit: Self) -> bool;
    /// The largest of them; none is NaN.
    fn largest(self) -> f64;
}

/// Words that are converted to numbers.
pub(super) trait Wide: Lanes {
    /// Half as many numbers.
    type Doubles: Doubles;
    /// The signed words of the lower half and of the upper half.
    fn doubles(self) -> [Self::Doubles; 2];
}

/// Four numbers; needs AVX2.
#[derive(Clone, Copy)]
pub(super) struct Four(__m256d);

impl Doubles for Four {
    const COUNT: usize = 4;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self(op!(_mm256_set1_pd(x)))
    }

    #[inline(always)]
    unsafe fn load(p: *const f64) -> Self {
        Self(op!(_mm256_loadu_pd(p)))
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f64) {
        op!(_mm256_storeu_pd(p, self.0));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm256_add_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(op!(_mm256_sub_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(op!(_mm256_mul_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(op!(_mm256_andnot_pd(_mm256_set1_pd(-0.0), self.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(op!(_mm256_max_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(op!(_mm256_round_pd::<NEAREST>(self.0)))
    }

    #[inline(always)]
    fn all_below(self, limit: Self) -> bool {
        op!(_mm256_movemask_pd(_mm256_cmp_pd::<_CMP_LT_OQ>(self.0, limit.0)) == 0b1111)
    }

    #[inline(always)]
    fn largest(self) -> f64 {
        let two = op!(_mm_max_pd(
            _mm256_castpd256_pd128(self.0),
            _mm256_extractf128_pd::<1>(self.0)
        ));
        op!(_mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two))))
    }
}

impl Four {
    /// Rows to columns.
    #[inline(always)]
    pub(super) fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        let (ab0, ab1) = op!((_mm256_unpacklo_pd(a.0, b.0), _mm256_unpackhi_pd(a.0, b.0)));
        let (cd0, cd1) = op!((_mm256_unpacklo_pd(c.0, d.0), _mm256_unpackhi_pd(c.0, d.0)));
        op!([
            Self(_mm256_permute2f128_pd::<0x20>(ab0, cd0)),
            Self(_mm256_permute2f128_pd::<0x20>(ab1, cd1)),
            Self(_mm256_permute2f128_pd::<0x31>(ab0, cd0)),
            Self(_mm256_permute2f128_pd::<0x31>(ab1, cd1)),
        ])
    }
}

impl Wide for Avx2 {
    type Doubles = Four;

    #[inline(always)]
    fn doubles(self) -> [Four; 2] {
        let (low, high) = op!((
            _mm256_castsi256_si128(self.0),
            _mm256_extracti128_si256::<1>(self.0)
        ));
        op!([
            Four(_mm256_cvtepi32_pd(low)),
            Four(_mm256_cvtepi32_pd(high))
        ])
    }
}

/// Eight numbers; needs AVX-512F.
#[derive(Clone, Copy)]
pub(super) struct Eight(__m512d);

impl Doubles for Eight {
    const COUNT: usize = 8;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self(op!(_mm512_set1_pd(x)))
    }

    #[inline(always)]
    unsafe fn load(p: *const f64) -> Self {
        Self(op!(_mm512_loadu_pd(p)))
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f64) {
        op!(_mm512_storeu_pd(p, self.0));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm512_add_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(op!(_mm512_sub_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(op!(_mm512_mul_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(op!(_mm512_abs_pd(self.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(op!(_mm512_max_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(op!(_mm512_roundscale_pd::<NEAREST>(self.0)))
    }

    #[inline(always)]
    fn all_below(self, limit: Self) -> bool {
        op!(_mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, limit.0) == 0xff)
    }

    #[inline(always)]
    fn largest(self) -> f64 {
        op!(_mm512_reduce_max_pd(self.0))
    }
}

impl Wide for Avx512 {
    type Doubles = Eight;

    #[inline(always)]
    fn doubles(self) -> [Eight; 2] {
        let (low, high) = op!((
            _mm512_castsi512_si256(self.0),
            _mm512_extracti64x4_epi64::<1>(self.0)
        ));
        op!([
            Eight(_mm512_cvtepi32_pd(low)),
            Eight(_mm512_cvtepi32_pd(high))
        ])
    }
}
