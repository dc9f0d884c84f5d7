//! Operations on ciphertexts. No secret comes here; the evaluator is public.
//!
//! They work in place, on ciphertexts of two parts and of three, and check that
//! levels and scales agree.
//!
//! | module | does |
//! |---|---|
//! | [`linear`] | sums |
//! | [`product`] | products, slot by slot |
//! | [`matrix`] | products of a vector of ciphertexts with a matrix |
//! | [`level`] | rescaling, and bringing levels and scales together |
//! | [`switching`] | relinearisation, rotation, conjugation |
//! | [`hoisting`] | several rotations of one ciphertext |
//! | [`polynomial`] | polynomials of a ciphertext |
//!
//! Every operation computes the noise of its result from that of its operands, and
//! the bound of its message ([`Ciphertext::noise`](crate::ckks::Ciphertext::noise)).
//!
//! # A product of two ciphertexts, and the sum of its slots
//!
//! The scalar product of two vectors that were encrypted under a public key.
//! The sum comes before the rescaling: the noise of key switching is absolute,
//! and there the scale is still squared.
//!
//! ```
//! use he_core::ckks::evaluator::{
//!     Workspace, inner_sum, multiply, relinearize, rescale, workspace_words,
//! };
//! use he_core::rlwe::encrypt_public;
//! # use he_core::ckks::encode::encode;
//! # use he_core::ckks::{Ciphertext, decrypt};
//! # use he_core::params::N4096_DEPTH3 as P;
//! # use he_core::ring::sample::SEED_LEN;
//! # use he_core::rlwe::keys::{self, switching_key_words};
//! # use he_core::rlwe::{KeySet, PublicKey, PublicScratch, SecretKey, SwitchKey, SwitchTarget};
//! # use rand_core::Rng;
//! # let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
//! # let (n, level, scale) = (P.n(), P.max_level(), (1u64 << 20) as f64);
//! # let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
//! # let key = SecretKey::generate(&P, storage, &mut rng)?;
//! # let mut seed = [0; SEED_LEN];
//! # rng.fill_bytes(&mut seed);
//! # let decrypted = |ct: &Ciphertext<Vec<u32>>| {
//! #     let (mut scratch, mut slots) = (vec![0; (ct.level() + 1) * n], vec![0.0; n]);
//! #     let (level, scale) = (ct.level(), ct.scale());
//! #     let d = decrypt(&P, &key, ct, level, scale, &mut scratch, &mut slots)?;
//! #     Ok::<_, he_core::Error>(d.slot(0).unwrap())
//! # };
//!
//! // The holder of the key publishes: a public key, a relinearisation key, and
//! // keys of the rotations by 1, 2 and 4.
//! let mut errors = vec![0; n];
//! let storage = vec![0; PublicKey::<Vec<u32>>::words(&P)];
//! let public = PublicKey::generate(&P, &key, &seed, &mut rng, &mut errors, storage)?;
//! let keys = [SwitchTarget::Square]
//!     .into_iter()
//!     .chain(keys::inner_sum(&P, 1, 8))
//!     .map(|target| {
//!         let storage = vec![0; switching_key_words(&P, level)];
//!         SwitchKey::generate(&P, &key, target, level, &mut rng, &mut errors, storage)
//!     })
//!     .collect::<Result<Vec<_>, _>>()?;
//! let keys = KeySet::new(&keys);
//!
//! // Anybody encrypts.
//! let mut encrypt = |values: &[f64]| {
//!     let (mut buffer, mut message) = (vec![0.0; n], vec![0; n]);
//!     encode(values, scale, &mut buffer, &mut message, |x| x as i32)?;
//!     let (mut integers, mut limbs) = (vec![0; 3 * n], vec![0; 3 * n]);
//!     let scratch = PublicScratch { integers: &mut integers, limbs: &mut limbs };
//!     let (mut c0, mut c1) = (vec![0; (level + 1) * n], vec![0; (level + 1) * n]);
//!     let halves = [&mut c0[..], &mut c1[..]];
//!     encrypt_public(&P, &public, &message, level, &mut rng, scratch, halves)?;
//!     Ciphertext::new(&P, level, scale, c0, c1)
//! };
//! let x = encrypt(&[1.0, 2.0, 3.0, 4.0, 0.5, 0.0, -1.0, 0.25])?;
//! let y = encrypt(&[0.5, -1.0, 0.25, 1.0, 2.0, 7.0, 1.0, 4.0])?;
//!
//! // The evaluator multiplies: three parts, brought back to two.
//! let mut words = vec![0; workspace_words(&P, level)];
//! let mut work = Workspace::new(&P, level, &mut words)?;
//! let product = multiply(&P, x, &y, vec![0; (level + 1) * n])?;
//! let square = keys.find(SwitchTarget::Square, level)?;
//! let (mut product, _) = relinearize(&P, product, square, &mut work)?;
//!
//! // Three rotations and additions leave the sum of slots 0 .. 8 in slot 0.
//! inner_sum(&P, &mut product, 1, 8, keys, &mut work)?;
//! rescale(&P, &mut product, &mut vec![0; n])?;
//! assert!((decrypted(&product)? - 4.25).abs() < 0.1);
//! # Ok::<(), he_core::Error>(())
//! ```

pub mod hoisting;
pub mod level;
pub mod linear;
pub mod matrix;
pub mod polynomial;
pub mod product;
pub mod switching;

pub use crate::rlwe::gadget::Debt;
pub use hoisting::{
    Hoisted, Weight, hoisting_words, inner_sum_hoisted, inner_sum_hoisted_keys, rotate_many,
};
pub use level::{align_scale, drop_level, rescale, rescale_owing, rescale_probed, scale_towards};
pub use linear::{
    add, add_constant, add_encoded, add_plain, negate, sub, sub_plain, transform_addend,
};
pub use matrix::{integer_matrix, integer_matrix_halves, plaintext_matrix};
pub use polynomial::{
    PolynomialBound, PolynomialOutcome, evaluate_polynomial, polynomial_bound, polynomial_levels,
    polynomial_outcome, polynomial_words,
};
pub use product::{
    multiply, multiply_add, multiply_constant, multiply_encoded, multiply_plain,
    multiply_plain_add, multiply_transformed, square, transform_encoded,
};
pub use switching::{
    Due, SwitchOp, Switching, Workspace, conjugate, fast_workspace_words, inner_sum, relinearize,
    rotate, switch, workspace_words,
};

use crate::error::{Error, Result};

/// Checks that the levels of two operands are equal.
fn check_level(operation: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::Level {
            operation,
            expected,
            got,
        })
    }
}

/// Limb `i` of a part.
fn limb(part: &[u32], n: usize, i: usize) -> &[u32] {
    part.get(i * n..(i + 1) * n).unwrap_or_default()
}

/// The same, mutable.
fn limb_mut(part: &mut [u32], n: usize, i: usize) -> &mut [u32] {
    part.get_mut(i * n..(i + 1) * n).unwrap_or_default()
}

#[cfg(test)]
mod tests;
