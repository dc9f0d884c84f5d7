//! Vectors of 32-bit words: what the kernels of this module are written in.

use core::arch::asm;
use core::arch::x86_64::*;

/// A vector of [`Self::COUNT`] words.
///
/// Every function must only be called, and is always inlined, where the
/// processor's instructions are enabled; [`super::Backend`] sees to that.
///
/// The layers of a transform whose butterflies reach less far than a vector is
/// long take pairs of vectors `(x, y)`. [`Self::split`] brings a pair from the
/// arrangement of one such layer to that of the next, so that the two inputs
/// of every butterfly stand in the same lane of the two vectors; layer 0 reaches
/// half a vector far. [`Self::unsplit`] undoes it.
pub(super) trait Lanes: Copy {
    /// Words of a vector.
    const COUNT: usize;
    /// Layers within a vector.
    const LAYERS: usize = Self::COUNT.trailing_zeros() as usize;

    /// The same word everywhere.
    fn splat(x: i32) -> Self;
    /// The word at `p` everywhere.
    ///
    /// # Safety
    /// It must be readable.
    #[inline(always)]
    unsafe fn broadcast(p: *const i32) -> Self {
        // SAFETY: by this function's contract.
        Self::splat(unsafe { *p })
    }
    /// # Safety
    /// `COUNT` words must be readable at `p`.
    unsafe fn load(p: *const u32) -> Self;
    /// Floating-point values, rounded towards zero to integers.
    ///
    /// # Safety
    /// `COUNT` values must be readable at `p`.
    unsafe fn load_f32(p: *const f32) -> Self;
    /// Integers up to `2^62` in magnitude as `high 2^32 + low` with signed `low`:
    /// `(high, low)`.
    ///
    /// # Safety
    /// `COUNT` integers must be readable at `p`.
    unsafe fn load_i64(p: *const i64) -> (Self, Self);
    /// # Safety
    /// `COUNT` words must be writable at `p`.
    unsafe fn store(self, p: *mut u32);

    /// Wrapping sum.
    fn add(self, other: Self) -> Self;
    /// Wrapping difference.
    fn sub(self, other: Self) -> Self;
    /// Least, as unsigned words.
    fn min(self, other: Self) -> Self;
    /// Low words of the products.
    fn mul_low(self, other: Self) -> Self;
    /// Signed 64-bit products of the even words.
    ///
    /// # Safety
    /// The processor has the instruction.
    unsafe fn mul_even(self, other: Self) -> Self;
    /// Unsigned 64-bit products of the even words.
    fn mul_even_unsigned(self, other: Self) -> Self;
    /// The number of words before the first that is at most `limit`, unsigned.
    fn before_at_most(self, limit: Self) -> usize;
    /// The odd words in the places of the even ones (odd places: anything).
    fn odd(self) -> Self;
    /// The same of the words in memory, which takes no place among the multiplications.
    ///
    /// # Safety
    /// `COUNT` words must be readable at `p`; the processor has the instruction.
    unsafe fn load_odd(p: *const u32) -> Self;
    /// Sum of 64-bit words.
    fn add_wide(self, other: Self) -> Self;
    /// Difference of 64-bit words.
    fn sub_wide(self, other: Self) -> Self;
    /// High words of 64-bit words: of `even` in the even places, of `odd` in
    /// the odd ones.
    ///
    /// # Safety
    /// The processor has the instruction.
    unsafe fn high(even: Self, odd: Self) -> Self;
    /// Low words of 64-bit words, likewise.
    ///
    /// # Safety
    /// The processor has the instruction.
    unsafe fn low(even: Self, odd: Self) -> Self;
    /// Logical shift right of 64-bit words.
    fn shift_wide(self, bits: u32) -> Self;
    /// `x + q` for negative `x`, `x - q` for others (or `x` for 0): from
    /// `-2q < x < 2q` to `-q <= x <= q`.
    fn towards_zero(self, q: Self) -> Self;
    /// `x - q` where `x > half`, as signed words.
    fn sub_above(self, half: Self, q: Self) -> Self;
    /// Arithmetic shift right.
    fn shift_right(self, bits: u32) -> Self;

    /// The words whose places, modulo [`Self::COUNT`], are in `places`.
    fn permute(self, places: Self) -> Self;

    /// See the trait. `layer` is below [`Self::LAYERS`].
    fn split(layer: usize, x: Self, y: Self) -> (Self, Self);
    /// Undoes [`Self::split`].
    fn unsplit(layer: usize, x: Self, y: Self) -> (Self, Self);
    /// All of [`Self::split`]: from the order of memory to the arrangement of the last
    /// layer.
    #[inline(always)]
    fn deal(mut x: Self, mut y: Self) -> (Self, Self) {
        for layer in 0..Self::LAYERS {
            (x, y) = Self::split(layer, x, y);
        }
        (x, y)
    }
    /// Undoes [`Self::deal`].
    #[inline(always)]
    fn gather(mut x: Self, mut y: Self) -> (Self, Self) {
        for layer in (0..Self::LAYERS).rev() {
            (x, y) = Self::unsplit(layer, x, y);
        }
        (x, y)
    }
    /// The `2 << layer` factors of the blocks of a pair, each in the lanes of its
    /// block in the arrangement of `layer`.
    ///
    /// # Safety
    /// `2 << layer` words must be readable at `p`.
    unsafe fn factors(layer: usize, p: *const i32) -> Self;
    /// [`Self::odd`] of them.
    ///
    /// # Safety
    /// As [`Self::factors`], and one word more if `layer` is not the last.
    #[inline(always)]
    unsafe fn factors_odd(layer: usize, p: *const i32) -> Self {
        // SAFETY: by this function's contract.
        unsafe { Self::factors(layer, p) }.odd()
    }
}

/// Eight words; needs AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(pub(super) __m256i);

/// One intrinsic.
macro_rules! op {
    ($e:expr) => {
        // SAFETY: by the trait's contract the processor has the instruction.
        unsafe { $e }
    };
}
pub(super) use op;

impl Lanes for Avx2 {
    const COUNT: usize = 8;

    #[inline(always)]
    fn splat(x: i32) -> Self {
        Self(op!(_mm256_set1_epi32(x)))
    }

    #[inline(always)]
    unsafe fn load(p: *const u32) -> Self {
        Self(op!(_mm256_loadu_si256(p.cast())))
    }

    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> Self {
        Self(op!(_mm256_cvttps_epi32(_mm256_loadu_ps(p))))
    }

    #[inline(always)]
    unsafe fn load_i64(p: *const i64) -> (Self, Self) {
        let [a, b] = op!([
            _mm256_loadu_si256(p.cast()),
            _mm256_loadu_si256(p.add(4).cast())
        ]);
        // Rounds to a multiple of 2^32.
        let round = op!(_mm256_set1_epi64x(1 << 31));
        let (c, d) = op!((_mm256_add_epi64(a, round), _mm256_add_epi64(b, round)));
        let [a, b, c, d] = [a, b, c, d].map(|x| op!(_mm256_castsi256_ps(x)));
        let low = op!(_mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b)));
        let high = op!(_mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(c, d)));
        let [high, low] = [high, low].map(|x| {
            Self(op!(_mm256_castpd_si256(_mm256_permute4x64_pd::<
                0b11_01_10_00,
            >(x))))
        });
        (high, low)
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u32) {
        op!(_mm256_storeu_si256(p.cast(), self.0));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm256_add_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(op!(_mm256_sub_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(op!(_mm256_min_epu32(self.0, other.0)))
    }

    #[inline(always)]
    fn mul_low(self, other: Self) -> Self {
        Self(op!(_mm256_mullo_epi32(self.0, other.0)))
    }

    // The intrinsic is a plain multiplication of sign-extended words to the
    // compiler, which moves the extension of a loop's constant out of the loop
    // and is then left with a full 64-bit product.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn mul_even(self, other: Self) -> Self {
        let product: __m256i;
        // SAFETY: touches nothing but its registers.
        unsafe {
            asm!(
                "vpmuldq {p}, {a}, {b}",
                p = lateout(ymm_reg) product,
                a = in(ymm_reg) self.0,
                b = in(ymm_reg) other.0,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(product)
    }

    #[inline(always)]
    fn mul_even_unsigned(self, other: Self) -> Self {
        Self(op!(_mm256_mul_epu32(self.0, other.0)))
    }

    #[inline(always)]
    fn before_at_most(self, limit: Self) -> usize {
        let at_most = op!(_mm256_cmpeq_epi32(
            _mm256_min_epu32(self.0, limit.0),
            self.0
        ));
        let mask = op!(_mm256_movemask_ps(_mm256_castsi256_ps(at_most)));
        (mask | 1 << Self::COUNT).trailing_zeros() as usize
    }

    #[inline(always)]
    fn odd(self) -> Self {
        Self(op!(_mm256_srli_epi64::<32>(self.0)))
    }

    // In assembler, as the compiler would load once and take a shuffle for the rest.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load_odd(p: *const u32) -> Self {
        let words: __m256i;
        // SAFETY: reads what is readable by the trait's contract.
        unsafe {
            asm!(
                "vmovshdup {words}, ymmword ptr [{p}]",
                words = lateout(ymm_reg) words,
                p = in(reg) p,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        Self(words)
    }

    #[inline(always)]
    fn add_wide(self, other: Self) -> Self {
        Self(op!(_mm256_add_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        Self(op!(_mm256_sub_epi64(self.0, other.0)))
    }

    #[inline(always)]
    unsafe fn high(even: Self, odd: Self) -> Self {
        Self(op!(_mm256_blend_epi32::<0b1010_1010>(
            _mm256_srli_epi64::<32>(even.0),
            odd.0
        )))
    }

    #[inline(always)]
    unsafe fn low(even: Self, odd: Self) -> Self {
        Self(op!(_mm256_blend_epi32::<0b1010_1010>(
            even.0,
            _mm256_slli_epi64::<32>(odd.0)
        )))
    }

    #[inline(always)]
    fn shift_wide(self, bits: u32) -> Self {
        Self(op!(_mm256_srl_epi64(
            self.0,
            _mm_cvtsi32_si128(bits as i32)
        )))
    }

    #[inline(always)]
    fn towards_zero(self, q: Self) -> Self {
        Self(op!(_mm256_sub_epi32(
            self.0,
            _mm256_sign_epi32(q.0, self.0)
        )))
    }

    #[inline(always)]
    fn sub_above(self, half: Self, q: Self) -> Self {
        Self(op!(_mm256_sub_epi32(
            self.0,
            _mm256_and_si256(_mm256_cmpgt_epi32(self.0, half.0), q.0)
        )))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        Self(op!(_mm256_sra_epi32(
            self.0,
            _mm_cvtsi32_si128(bits as i32)
        )))
    }

    #[inline(always)]
    fn permute(self, places: Self) -> Self {
        Self(op!(_mm256_permutevar8x32_epi32(self.0, places.0)))
    }

    #[inline(always)]
    fn split(layer: usize, x: Self, y: Self) -> (Self, Self) {
        match layer {
            0 => Self::halves(x, y),
            1 => Self::quarters(x, y),
            _ => {
                let (x, y) = op!((_mm256_castsi256_ps(x.0), _mm256_castsi256_ps(y.0)));
                let even = op!(_mm256_shuffle_ps::<0b10_00_10_00>(x, y));
                let odd = op!(_mm256_shuffle_ps::<0b11_01_11_01>(x, y));
                op!((
                    Self(_mm256_castps_si256(even)),
                    Self(_mm256_castps_si256(odd))
                ))
            }
        }
    }

    #[inline(always)]
    fn unsplit(layer: usize, x: Self, y: Self) -> (Self, Self) {
        match layer {
            0 => Self::halves(x, y),
            1 => Self::quarters(x, y),
            _ => op!((
                Self(_mm256_unpacklo_epi32(x.0, y.0)),
                Self(_mm256_unpackhi_epi32(x.0, y.0))
            )),
        }
    }

    #[inline(always)]
    unsafe fn factors(layer: usize, p: *const i32) -> Self {
        match layer {
            0 => Self(op!(_mm256_permutevar8x32_epi32(
                _mm256_castsi128_si256(_mm_loadl_epi64(p.cast())),
                _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)
            ))),
            1 => Self(op!(_mm256_permutevar8x32_epi32(
                _mm256_castsi128_si256(_mm_loadu_si128(p.cast())),
                _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)
            ))),
            _ => Self(op!(_mm256_shuffle_epi32::<0b11_01_10_00>(
                _mm256_loadu_si256(p.cast())
            ))),
        }
    }
}

impl Avx2 {
    /// `[x0..4 y0..4]` and `[x4..8 y4..8]`; its own inverse.
    #[inline(always)]
    fn halves(x: Self, y: Self) -> (Self, Self) {
        op!((
            Self(_mm256_permute2x128_si256::<0x20>(x.0, y.0)),
            Self(_mm256_permute2x128_si256::<0x31>(x.0, y.0))
        ))
    }

    /// The same within halves, pairs of words; its own inverse.
    #[inline(always)]
    fn quarters(x: Self, y: Self) -> (Self, Self) {
        op!((
            Self(_mm256_unpacklo_epi64(x.0, y.0)),
            Self(_mm256_unpackhi_epi64(x.0, y.0))
        ))
    }
}

/// Sixteen words; needs AVX-512F.
#[derive(Clone, Copy)]
pub(super) struct Avx512(pub(super) __m512i);

impl Lanes for Avx512 {
    const COUNT: usize = 16;

    #[inline(always)]
    fn splat(x: i32) -> Self {
        Self(op!(_mm512_set1_epi32(x)))
    }

    #[inline(always)]
    unsafe fn load(p: *const u32) -> Self {
        Self(op!(_mm512_loadu_si512(p.cast())))
    }

    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> Self {
        Self(op!(_mm512_cvttps_epi32(_mm512_loadu_ps(p))))
    }

    #[inline(always)]
    unsafe fn load_i64(p: *const i64) -> (Self, Self) {
        let [a, b] = op!([
            _mm512_loadu_si512(p.cast()),
            _mm512_loadu_si512(p.add(8).cast())
        ]);
        // Rounds to a multiple of 2^32.
        let round = op!(_mm512_set1_epi64(1 << 31));
        let (c, d) = op!((_mm512_add_epi64(a, round), _mm512_add_epi64(b, round)));
        let even = op!(_mm512_setr_epi32(
            0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
        ));
        let odd = op!(_mm512_setr_epi32(
            1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
        ));
        op!((
            Self(_mm512_permutex2var_epi32(c, odd, d)),
            Self(_mm512_permutex2var_epi32(a, even, b))
        ))
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u32) {
        op!(_mm512_storeu_si512(p.cast(), self.0));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(op!(_mm512_add_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(op!(_mm512_sub_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(op!(_mm512_min_epu32(self.0, other.0)))
    }

    #[inline(always)]
    fn mul_low(self, other: Self) -> Self {
        Self(op!(_mm512_mullo_epi32(self.0, other.0)))
    }

    // The intrinsic is a plain multiplication of sign-extended words to the
    // compiler, which moves the extension of a loop's constant out of the loop
    // and is then left with a full 64-bit product.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn mul_even(self, other: Self) -> Self {
        let product: __m512i;
        // SAFETY: touches nothing but its registers.
        unsafe {
            asm!(
                "vpmuldq {p}, {a}, {b}",
                p = lateout(zmm_reg) product,
                a = in(zmm_reg) self.0,
                b = in(zmm_reg) other.0,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(product)
    }

    #[inline(always)]
    fn mul_even_unsigned(self, other: Self) -> Self {
        Self(op!(_mm512_mul_epu32(self.0, other.0)))
    }

    #[inline(always)]
    fn before_at_most(self, limit: Self) -> usize {
        let mask = op!(_mm512_cmple_epu32_mask(self.0, limit.0));
        (u32::from(mask) | 1 << Self::COUNT).trailing_zeros() as usize
    }

    #[inline(always)]
    fn odd(self) -> Self {
        Self(op!(_mm512_srli_epi64::<32>(self.0)))
    }

    // In assembler, as the compiler would load once and take a shuffle for the rest.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load_odd(p: *const u32) -> Self {
        let words: __m512i;
        // SAFETY: reads what is readable by the trait's contract.
        unsafe {
            asm!(
                "vmovshdup {words}, zmmword ptr [{p}]",
                words = lateout(zmm_reg) words,
                p = in(reg) p,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        Self(words)
    }

    #[inline(always)]
    fn add_wide(self, other: Self) -> Self {
        Self(op!(_mm512_add_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn sub_wide(self, other: Self) -> Self {
        Self(op!(_mm512_sub_epi64(self.0, other.0)))
    }

    // In assembler, as the compiler would make two shuffles of one under a mask.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn high(even: Self, odd: Self) -> Self {
        let mut words = odd.0;
        // SAFETY: touches nothing but its registers.
        unsafe {
            asm!(
                "vmovshdup {words}{{{mask}}}, {even}",
                words = inlateout(zmm_reg) words,
                even = in(zmm_reg) even.0,
                mask = in(kreg) 0b0101_0101_0101_0101u16,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(words)
    }

    // As above.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn low(even: Self, odd: Self) -> Self {
        let mut words = even.0;
        // SAFETY: touches nothing but its registers.
        unsafe {
            asm!(
                "vmovsldup {words}{{{mask}}}, {odd}",
                words = inlateout(zmm_reg) words,
                odd = in(zmm_reg) odd.0,
                mask = in(kreg) 0b1010_1010_1010_1010u16,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(words)
    }

    #[inline(always)]
    fn shift_wide(self, bits: u32) -> Self {
        Self(op!(_mm512_srl_epi64(
            self.0,
            _mm_cvtsi32_si128(bits as i32)
        )))
    }

    #[inline(always)]
    fn towards_zero(self, q: Self) -> Self {
        let down = op!(_mm512_sub_epi32(self.0, q.0));
        Self(op!(_mm512_mask_add_epi32(
            down,
            _mm512_cmplt_epi32_mask(self.0, _mm512_setzero_si512()),
            self.0,
            q.0
        )))
    }

    #[inline(always)]
    fn sub_above(self, half: Self, q: Self) -> Self {
        Self(op!(_mm512_mask_sub_epi32(
            self.0,
            _mm512_cmpgt_epi32_mask(self.0, half.0),
            self.0,
            q.0
        )))
    }

    #[inline(always)]
    fn shift_right(self, bits: u32) -> Self {
        Self(op!(_mm512_sra_epi32(
            self.0,
            _mm_cvtsi32_si128(bits as i32)
        )))
    }

    #[inline(always)]
    fn permute(self, places: Self) -> Self {
        Self(op!(_mm512_permutexvar_epi32(places.0, self.0)))
    }

    // Block `i` modulo the number of blocks is in lane `i`, in every layer: so factors
    // are loads that repeat themselves, and permutations one instruction per vector.
    #[inline(always)]
    fn split(layer: usize, x: Self, y: Self) -> (Self, Self) {
        match layer {
            0 => Self::chosen(x, y, [&const { split(0, 0) }, &const { split(0, 1) }]),
            1 => Self::chosen(x, y, [&const { split(1, 0) }, &const { split(1, 1) }]),
            2 => Self::chosen(x, y, [&const { split(2, 0) }, &const { split(2, 1) }]),
            _ => Self::chosen(x, y, [&const { split(3, 0) }, &const { split(3, 1) }]),
        }
    }

    #[inline(always)]
    fn unsplit(layer: usize, x: Self, y: Self) -> (Self, Self) {
        match layer {
            0 => Self::chosen(x, y, [&const { unsplit(0, 0) }, &const { unsplit(0, 1) }]),
            1 => Self::chosen(x, y, [&const { unsplit(1, 0) }, &const { unsplit(1, 1) }]),
            2 => Self::chosen(x, y, [&const { unsplit(2, 0) }, &const { unsplit(2, 1) }]),
            _ => Self::chosen(x, y, [&const { unsplit(3, 0) }, &const { unsplit(3, 1) }]),
        }
    }

    #[inline(always)]
    fn deal(x: Self, y: Self) -> (Self, Self) {
        // Blocks of the last layer are two words.
        Self::chosen(x, y, [&const { deal(0) }, &const { deal(1) }])
    }

    #[inline(always)]
    fn gather(x: Self, y: Self) -> (Self, Self) {
        Self::chosen(x, y, [&const { gather(0) }, &const { gather(8) }])
    }

    #[inline(always)]
    unsafe fn factors(layer: usize, p: *const i32) -> Self {
        Self(match layer {
            0 => op!(_mm512_set1_epi64(p.cast::<i64>().read_unaligned())),
            1 => op!(_mm512_broadcast_i32x4(_mm_loadu_si128(p.cast()))),
            2 => op!(_mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast()))),
            _ => op!(_mm512_loadu_si512(p.cast())),
        })
    }

    #[inline(always)]
    unsafe fn factors_odd(layer: usize, p: *const i32) -> Self {
        Self(match layer {
            0 => op!(_mm512_set1_epi32(*p.add(1))),
            1 => op!(_mm512_broadcast_i32x4(_mm_loadu_si128(p.add(1).cast()))),
            2 => op!(_mm512_broadcast_i64x4(_mm256_loadu_si256(p.add(1).cast()))),
            // SAFETY: by the trait's contract.
            _ => return unsafe { Self::load_odd(p.cast()) },
        })
    }
}

impl Avx512 {
    /// Two vectors of words of a pair, by their places in it.
    #[inline(always)]
    fn chosen(x: Self, y: Self, places: [&[i32; 16]; 2]) -> (Self, Self) {
        let [first, second] = places.map(|places| {
            op!(_mm512_permutex2var_epi32(
                x.0,
                _mm512_loadu_si512(places.as_ptr().cast()),
                y.0
            ))
        });
        (Self(first), Self(second))
    }
}

/// Places of a vector that [`Lanes::split`] makes: the first or the second, `which`.
/// Lane `i` gets word `i >> (layer + 1)` of half `which` of block `i mod (2 << layer)`.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const fn split(layer: usize, which: usize) -> [i32; 16] {
    let mut places = [0; 16];
    let mut i = 0;
    while i < 16 {
        let (block, word) = (i & ((2 << layer) - 1), i >> (layer + 1));
        // Of the layer before, that block is one half of block `block >> 1`.
        let word = word + which * (8 >> layer);
        places[i] = ((block & 1) * 16 + (word << layer) + (block >> 1)) as i32;
        i += 1;
    }
    places
}

/// The same of [`Lanes::unsplit`].
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const fn unsplit(layer: usize, which: usize) -> [i32; 16] {
    let mut places = [0; 16];
    let mut i = 0;
    while i < 16 {
        let (block, word) = (i & ((1 << layer) - 1), i >> layer);
        let (block, half) = (2 * block + which, 8 >> layer);
        let second = word >= half;
        let word = if second { word - half } else { word };
        places[i] = (16 * second as usize + (word << (layer + 1)) + block) as i32;
        i += 1;
    }
    places
}

/// Every other word of a pair, from the one numbered `first` on.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const fn deal(first: usize) -> [i32; 16] {
    let mut places = [0; 16];
    let mut i = 0;
    while i < 16 {
        places[i] = (2 * i + first) as i32;
        i += 1;
    }
    places
}

/// Words of two vectors by turns, from the one numbered `first` on.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
const fn gather(first: usize) -> [i32; 16] {
    let mut places = [0; 16];
    let mut i = 0;
    while i < 16 {
        places[i] = ((i & 1) * 16 + first + (i >> 1)) as i32;
        i += 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_pair(x: [i32; 32], places: [[i32; 16]; 2]) -> [i32; 32] {
        core::array::from_fn(|i| x[places[i / 16][i % 16] as usize])
    }

    #[test]
    fn arrangements_have_their_blocks_in_turn_and_go_back() {
        let words: [i32; 32] = core::array::from_fn(|i| i as i32);
        let mut pair = words;
        for layer in 0..4 {
            let before = pair;
            pair = of_pair(pair, [split(layer, 0), split(layer, 1)]);
            // Inputs of a butterfly stand `8 >> layer` apart in a block.
            for i in 0..16 {
                let block = i & ((2 << layer) - 1);
                assert_eq!(pair[i] as usize / (16 >> layer), block);
                assert_eq!(pair[i] + (8 >> layer), pair[i + 16]);
            }
            assert_eq!(
                of_pair(pair, [unsplit(layer, 0), unsplit(layer, 1)]),
                before
            );
        }
        assert_eq!(of_pair(words, [deal(0), deal(1)]), pair);
        assert_eq!(of_pair(pair, [gather(0), gather(8)]), words);
    }
}
