//! The keystream of uniform polynomials: with AVX-512 sixteen blocks at a time, each
//! word of the state in a vector; without, the library's generator.

use super::{Backend, Kind, portable};
use core::arch::x86_64::*;

/// Words of ChaCha with 8 rounds, 64-bit counter from 0 and a 64-bit nonce.
#[derive(Debug)]
pub struct Keystream(Generator);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator")]
enum Generator {
    Vectors(State),
    Library(portable::Keystream),
}

/// The state of the next block.
#[derive(Debug)]
struct State {
    /// Constants and key.
    start: [u32; 12],
    counter: u64,
    nonce: u64,
}

impl Keystream {
    /// Words that [`Self::refill`] gives.
    pub const WORDS: usize = 256;

    /// The stream of `seed` numbered `stream`.
    #[must_use]
    pub fn new(seed: &[u8; 32], stream: u64) -> Self {
        Self::new_on(Backend::current(), seed, stream)
    }

    /// The same on a given backend.
    pub(crate) fn new_on(backend: Backend, seed: &[u8; 32], stream: u64) -> Self {
        Self(match backend.0 {
            Kind::Avx512 => Generator::Vectors(State::new(seed, stream)),
            Kind::Avx2 | Kind::Portable => {
                Generator::Library(portable::Keystream::new(seed, stream))
            }
        })
    }

    /// The next words.
    pub fn refill(&mut self, out: &mut [u32; Self::WORDS]) {
        match &mut self.0 {
            // SAFETY: made only for a backend that exists, on a processor with AVX-512F.
            Generator::Vectors(state) => unsafe { state.blocks(out) },
            Generator::Library(library) => {
                for part in out.as_chunks_mut().0 {
                    library.refill(part);
                }
            }
        }
    }
}

/// The residues of words in order ([`super::residues`]), those that are refused left out:
/// how many words were used, and how many residues that made. All whole vectors for which
/// there is room; up to a vector behind them is overwritten.
#[target_feature(enable = "avx512f")]
pub(super) fn accepted(
    words: &[u32],
    out: &mut [u32],
    q: u32,
    reject_below: u32,
) -> (usize, usize) {
    let (factor, least) = (
        _mm512_set1_epi32(q as i32),
        _mm512_set1_epi32(reject_below as i32),
    );
    let (mut used, mut made) = (0, 0);
    while used + 16 <= words.len() && made + 16 <= out.len() {
        // SAFETY: sixteen words from there on, as was checked.
        let w = unsafe { _mm512_loadu_si512(words.as_ptr().add(used).cast()) };
        let even = _mm512_mul_epu32(w, factor);
        let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(w), factor);
        let x = _mm512_mask_blend_epi32(0b1010_1010_1010_1010, _mm512_srli_epi64::<32>(even), odd);
        let mask = _mm512_cmpge_epu32_mask(_mm512_mullo_epi32(w, factor), least);
        let x = _mm512_maskz_compress_epi32(mask, x);
        // SAFETY: likewise.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(made).cast(), x) };
        used += 16;
        made += mask.count_ones() as usize;
    }
    (used, made)
}

/// One quarter of a round.
macro_rules! quarter {
    ($x:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
        $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
        $x[$d] = _mm512_rol_epi32::<16>(_mm512_xor_si512($x[$d], $x[$a]));
        $x[$c] = _mm512_add_epi32($x[$c], $x[$d]);
        $x[$b] = _mm512_rol_epi32::<12>(_mm512_xor_si512($x[$b], $x[$c]));
        $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
        $x[$d] = _mm512_rol_epi32::<8>(_mm512_xor_si512($x[$d], $x[$a]));
        $x[$c] = _mm512_add_epi32($x[$c], $x[$d]);
        $x[$b] = _mm512_rol_epi32::<7>(_mm512_xor_si512($x[$b], $x[$c]));
    };
}

impl State {
    fn new(seed: &[u8; 32], nonce: u64) -> Self {
        let mut start = [0; 12];
        let constants = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
        let key = seed
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| u32::from_le_bytes(bytes));
        for (word, value) in start.iter_mut().zip(constants.into_iter().chain(key)) {
            *word = value;
        }
        Self {
            start,
            counter: 0,
            nonce,
        }
    }

    /// The next sixteen blocks.
    #[target_feature(enable = "avx512f")]
    fn blocks(&mut self, out: &mut [u32; Keystream::WORDS]) {
        let mut counters = [[0u32; 16]; 2];
        let [low, high] = &mut counters;
        for ((low, high), i) in low.iter_mut().zip(high).zip(0..) {
            let counter = self.counter.wrapping_add(i);
            (*low, *high) = (counter as u32, (counter >> 32) as u32);
        }
        self.counter = self.counter.wrapping_add(16);
        let mut first = [_mm512_setzero_si512(); 16];
        for (vector, &word) in first.iter_mut().zip(&self.start) {
            *vector = _mm512_set1_epi32(word as i32);
        }
        for (vector, words) in first[12..].iter_mut().zip(&counters) {
            // SAFETY: sixteen words.
            *vector = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
        }
        first[14] = _mm512_set1_epi32(self.nonce as i32);
        first[15] = _mm512_set1_epi32((self.nonce >> 32) as i32);

        let mut x = first;
        for _ in 0..4 {
            quarter!(x, 0, 4, 8, 12);
            quarter!(x, 1, 5, 9, 13);
            quarter!(x, 2, 6, 10, 14);
            quarter!(x, 3, 7, 11, 15);
            quarter!(x, 0, 5, 10, 15);
            quarter!(x, 1, 6, 11, 12);
            quarter!(x, 2, 7, 8, 13);
            quarter!(x, 3, 4, 9, 14);
        }
        for (x, first) in x.iter_mut().zip(first) {
            *x = _mm512_add_epi32(*x, first);
        }
        // Four words of four blocks each: block `4 l + j` in quarter `l` of `fours[..][j]`.
        // Without closures: they would be called.
        let mut fours = [[first[0]; 4]; 4];
        for (four, words) in fours.iter_mut().zip(x.as_chunks().0) {
            let &[a, b, c, d] = words;
            let (low0, high0) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (low1, high1) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            *four = [
                _mm512_unpacklo_epi64(low0, low1),
                _mm512_unpackhi_epi64(low0, low1),
                _mm512_unpacklo_epi64(high0, high1),
                _mm512_unpackhi_epi64(high0, high1),
            ];
        }
        let [first, second, third, fourth] = fours;
        let fours = first.into_iter().zip(second).zip(third).zip(fourth);
        for ((((a, b), c), d), j) in fours.zip(0..) {
            let ab = [
                _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b),
                _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b),
            ];
            let cd = [
                _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d),
                _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d),
            ];
            let blocks = [
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab[0], cd[0]),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab[0], cd[0]),
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab[1], cd[1]),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab[1], cd[1]),
            ];
            for (block, l) in blocks.into_iter().zip(0..) {
                // SAFETY: sixteen blocks of sixteen words.
                unsafe {
                    _mm512_storeu_si512(out.as_mut_ptr().add(16 * (4 * l + j)).cast(), block);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_the_same_stream() {
        let seed = core::array::from_fn(|i| 7 * i as u8);
        for stream in [0, 3, 0x0500_0000_0804_0203, u64::MAX] {
            let mut library =
                Keystream(Generator::Library(portable::Keystream::new(&seed, stream)));
            let mut others: Vec<Keystream> = Backend::available()
                .map(|backend| Keystream::new_on(backend, &seed, stream))
                .collect();
            for _ in 0..5 {
                let mut expected = [0; Keystream::WORDS];
                library.refill(&mut expected);
                for other in &mut others {
                    let mut words = [1; Keystream::WORDS];
                    other.refill(&mut words);
                    assert_eq!(words, expected);
                }
            }
        }
    }

    /// A counter is 64 bits long.
    #[test]
    fn counters_carry() {
        if !Backend::available().any(|backend| backend.0 == Kind::Avx512) {
            return;
        }
        let mut apart = State::new(&[9; 32], 1);
        apart.counter = (1 << 32) - 3;
        let mut across = [0; Keystream::WORDS];
        // SAFETY: that backend is there.
        unsafe { apart.blocks(&mut across) };
        for (first, skipped) in [((1u64 << 32) - 16, 13), (1 << 32, 0)] {
            apart.counter = first;
            let mut words = [0; Keystream::WORDS];
            // SAFETY: as above.
            unsafe { apart.blocks(&mut words) };
            let (at, count) = if skipped > 0 { (0, 3) } else { (3, 13) };
            assert_eq!(
                across[16 * at..16 * (at + count)],
                words[16 * skipped..16 * (skipped + count)]
            );
        }
    }
}
