//! The automorphisms `X -> X^g` for odd `g`.
//!
//! `g = 5^k mod 2N` rotates the slots left by `k`, `g = 2N - 1` conjugates them
//! (see [`crate::ckks::encode`]).

use super::kernel;
use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};

/// The Galois element `5^steps mod 2N` of a rotation to the left; negative
/// steps rotate to the right. `n` is a power of two.
#[must_use]
pub const fn rotation(n: usize, steps: i32) -> u32 {
    let mask = 2 * n as u32 - 1;
    // The order of 5 modulo 2N is N / 2, a power of two.
    let mut e = steps as u32 & (n as u32 >> 1).wrapping_sub(1);
    let mut base: u32 = 5;
    let mut g: u32 = 1;
    while e > 0 {
        if e & 1 == 1 {
            g = g.wrapping_mul(base) & mask;
        }
        base = base.wrapping_mul(base) & mask;
        e >>= 1;
    }
    g
}

/// The Galois element `2N - 1` of complex conjugation.
#[must_use]
pub const fn conjugation(n: usize) -> u32 {
    2 * n as u32 - 1
}

/// Checks that `g` is an automorphism of the ring of degree `n`.
pub(crate) fn check(g: u32, n: usize) -> Result<()> {
    if g & 1 == 1 && (g as usize) < 2 * n {
        Ok(())
    } else {
        Err(Error::Galois { element: g })
    }
}

/// Applies the automorphism to one limb in the coefficient domain.
///
/// # Errors
/// [`Error::Galois`] for an even or too large element, [`Error::Length`] for
/// slices of different or non-power-of-two length.
pub fn coeff(src: &[u32], dst: &mut [u32], g: u32, m: &Modulus) -> Result<()> {
    let n = checked_degree(src.len(), dst.len())?;
    for (&x, (place, negate)) in src.iter().zip(images(g, n)?) {
        if let Some(y) = dst.get_mut(place) {
            // x or -x, and zero has no other form.
            let signed = (x as i32 ^ negate).wrapping_sub(negate);
            *y = m.canon(signed);
        }
    }
    Ok(())
}

/// Where each coefficient goes, and -1 if it changes its sign, otherwise 0.
#[inline(always)]
fn images(g: u32, n: usize) -> Result<impl Iterator<Item = (usize, i32)>> {
    check(g, n)?;
    // Coefficient i goes to g i mod 2N, with a sign beyond N: the sign is kept
    // in the first bit of a word, the place in those after it.
    let shift = 31 - n.trailing_zeros();
    let step = g << shift;
    let mut next = 0u32;
    Ok((0..n).map(move |_| {
        let at = next;
        next = next.wrapping_add(step);
        (((at << 1) >> (shift + 1)) as usize, (at as i32) >> 31)
    }))
}

/// Applies the automorphism to integers of less than `2^31` in magnitude, which `dst` has
/// as words.
///
/// # Errors
/// As [`coeff`].
pub fn integers(src: &[i32], dst: &mut [u32], g: u32) -> Result<()> {
    let n = checked_degree(src.len(), dst.len())?;
    for (&x, (place, negate)) in src.iter().zip(images(g, n)?) {
        if let Some(y) = dst.get_mut(place) {
            *y = (x ^ negate).wrapping_sub(negate) as u32;
        }
    }
    Ok(())
}

/// Applies the automorphism to one limb in the NTT domain: a permutation.
///
/// # Errors
/// As [`coeff`].
pub fn ntt(src: &[u32], dst: &mut [u32], g: u32) -> Result<()> {
    let n = checked_degree(src.len(), dst.len())?;
    check(g, n)?;
    let from = Permutation::new(n, g);
    if kernel::permute(src, dst, g, from.half) {
        return Ok(());
    }
    let (blocks, rest) = dst.as_chunks_mut::<4>();
    for (four, block) in blocks.iter_mut().zip(0..) {
        if let Some(image) = from.four(src, block) {
            *four = image;
        }
    }
    for (y, i) in rest.iter_mut().zip(0..) {
        *y = src.get(from.place(i)).copied().unwrap_or_default();
    }
    Ok(())
}

/// Calls `f(i, x_i)` for the places of the automorphism's image of a limb in
/// the NTT domain, in order.
///
/// # Errors
/// As [`coeff`].
pub fn for_each_ntt(src: &[u32], g: u32, mut f: impl FnMut(usize, u32)) -> Result<()> {
    let n = checked_degree(src.len(), src.len())?;
    check(g, n)?;
    let from = Permutation::new(n, g);
    for i in 0..n {
        if let Some(&x) = src.get(from.place(i as u32)) {
            f(i, x);
        }
    }
    Ok(())
}

/// Where the automorphism's image takes its evaluations from.
///
/// `out(psi^e) = in(psi^(g e))` with `e = 2 r + 1`, where `r` is the place in
/// the output with its bits reversed. So the place in the input, its bits
/// reversed, is `(g e - 1) / 2 = g r + (g - 1) / 2` modulo N.
#[derive(Clone, Copy)]
struct Permutation {
    g: u32,
    /// `(g - 1) / 2` in the upper `log2 N` bits, where a reversed place lies:
    /// what overflows is what modulo N drops.
    half: u32,
}

impl Permutation {
    const fn new(n: usize, g: u32) -> Self {
        let shift = 32 - n.trailing_zeros();
        Self {
            g,
            half: (g >> 1) << shift,
        }
    }

    /// The place in the input for place `i` of the output.
    #[inline(always)]
    const fn place(self, i: u32) -> usize {
        let reversed = i.reverse_bits().wrapping_mul(self.g);
        reversed.wrapping_add(self.half).reverse_bits() as usize
    }

    /// The four evaluations for block `block` of the output. All come from one
    /// block: its last two bits are the first two of the reversed place, to
    /// which `g` times 0, 2, 1, 3 quarters of N are added.
    #[inline(always)]
    fn four(self, src: &[u32], block: u32) -> Option<[u32; 4]> {
        let first = self.place(4 * block);
        // A quarter of N: the second bit changes, and the first by its carry,
        // and by the second bit of `g`.
        let carry = (first >> 1) ^ (self.g as usize >> 1);
        let third = first ^ 2 ^ (carry & 1);
        let four = src.as_chunks::<4>().0.get(first >> 2)?;
        let of = |place: usize| four.get(place & 3).copied().unwrap_or_default();
        Some([of(first), of(first ^ 1), of(third), of(third ^ 1)])
    }
}

fn checked_degree(n: usize, output: usize) -> Result<usize> {
    check_len("automorphism output", output, n)?;
    if n.is_power_of_two() && n >= 2 {
        Ok(n)
    } else {
        Err(Error::Length {
            what: "automorphism input",
            expected: n.next_power_of_two().max(2),
            got: n,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::ntt as transform;
    use crate::testing::{N16, random};

    #[test]
    fn integers_are_permuted_as_residues_are() {
        let m = N16.prime(0).unwrap().modulus();
        let a = random(16, m.value(), 3);
        let centred: Vec<i32> = a.iter().map(|&x| m.centred(x)).collect();
        for g in (1..32).step_by(2) {
            let (mut residues, mut images) = (vec![0; 16], vec![0; 16]);
            coeff(&a, &mut residues, g, m).unwrap();
            integers(&centred, &mut images, g).unwrap();
            let images: Vec<u32> = images.iter().map(|&x| m.reduce(x as i32)).collect();
            assert_eq!(images, residues, "{g}");
        }
        // By hand: X^5 becomes X^15, and X^6 becomes X^18 = -X^2.
        let mut one = [0; 16];
        (one[5], one[6]) = (7, i32::MAX);
        let mut image = [1; 16];
        integers(&one, &mut image, 3).unwrap();
        let mut expected = [0; 16];
        (expected[15], expected[2]) = (7, -i32::MAX as u32);
        assert_eq!(image, expected);
        let refused = integers(&one, &mut image[..15], 3);
        assert!(matches!(refused, Err(Error::Length { .. })), "{refused:?}");
        assert_eq!(integers(&one, &mut image, 2), coeff(&a, &mut [0; 16], 2, m));
        assert!(integers(&one, &mut image, 2).is_err());
    }

    #[test]
    fn both_domains_agree() {
        let p = N16.prime(0).unwrap();
        let m = p.modulus();
        let a = random(16, m.value(), 1);
        for g in (1..32).step_by(2) {
            let mut by_coeff = vec![0; 16];
            coeff(&a, &mut by_coeff, g, m).unwrap();
            transform::forward(&mut by_coeff, p).unwrap();
            let mut t = a.clone();
            transform::forward(&mut t, p).unwrap();
            let mut by_ntt = vec![0; 16];
            ntt(&t, &mut by_ntt, g).unwrap();
            assert_eq!(by_coeff, by_ntt, "g {g}");
        }
    }

    #[test]
    fn fours_and_vectors_are_the_places_one_by_one() {
        for n in [2, 4, 8, 16, 256] {
            let a: Vec<u32> = (0..n as u32).collect();
            for g in (1..2 * n as u32).step_by(2) {
                let mut image = vec![0; n];
                ntt(&a, &mut image, g).unwrap();
                let mut expected = Vec::new();
                for_each_ntt(&a, g, |i, x| {
                    assert_eq!(i, expected.len());
                    expected.push(x);
                })
                .unwrap();
                assert_eq!(image, expected, "n {n} g {g}");
                let from = Permutation::new(n, g);
                let fours = (0..n as u32 >> 2).filter_map(|i| from.four(&a, i));
                let fours: Vec<u32> = fours.flatten().collect();
                assert_eq!(fours, expected[..n & !3], "n {n} g {g}");
                #[cfg(target_arch = "x86_64")]
                for backend in kernel::Backend::available() {
                    let least = match backend.name() {
                        "avx512" => 16,
                        "avx2" => 8,
                        _ => usize::MAX,
                    };
                    image.fill(0);
                    let done = kernel::permute_on(backend, &a, &mut image, g, from.half);
                    assert_eq!(done, n >= least);
                    assert!(!done || image == expected, "{} {n} {g}", backend.name());
                }
            }
        }
    }

    #[test]
    fn rotations_form_a_group() {
        for n in [16usize, 1024, 4096] {
            assert_eq!(rotation(n, 0), 1);
            assert_eq!(rotation(n, 1), 5);
            assert_eq!(rotation(n, (n / 2) as i32), 1);
            let mask = 2 * n as u32 - 1;
            assert_eq!(rotation(n, 3).wrapping_mul(rotation(n, -3)) & mask, 1);
            assert_eq!(rotation(n, i32::MIN) & 1, 1);
        }
    }

    #[test]
    fn wrong_elements_and_lengths_are_refused() {
        let m = *N16.prime(0).unwrap().modulus();
        let (a, mut b) = ([0; 16], [0; 16]);
        assert_eq!(coeff(&a, &mut b, 2, &m), Err(Error::Galois { element: 2 }));
        assert_eq!(ntt(&a, &mut b, 33), Err(Error::Galois { element: 33 }));
        assert!(coeff(&a, &mut b[..8], 1, &m).is_err());
        assert!(ntt(&a[..3], &mut b[..3], 1).is_err());
        assert!(ntt(&[], &mut [], 1).is_err());
    }
}
