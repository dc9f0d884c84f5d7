//! Products of the primes of a digit, and of the special primes.

use crate::arith::Modulus;
use crate::error::Result;
use crate::params::Params;
use core::ops::Range;

/// The product of the primes of `group` but `without`, modulo `m`.
pub(super) fn product(
    params: &Params,
    group: Range<usize>,
    without: usize,
    m: &Modulus,
) -> Result<u32> {
    let mut product = 1;
    for i in group.filter(|&i| i != without) {
        let q = params.prime(i)?.modulus().value();
        product = m.mul(product, m.reduce(q as i32));
    }
    Ok(product)
}

/// The primes whose product is `P`.
pub(super) const fn special(params: &Params) -> Range<usize> {
    params.special()..params.limbs()
}

/// `P` modulo `m`.
pub(crate) fn special_product(params: &Params, m: &Modulus) -> Result<u32> {
    product(params, special(params), params.limbs(), m)
}

/// `(D / q)^-1` modulo the prime `i` of `group`.
pub(super) fn cofactor_inverse(params: &Params, group: Range<usize>, i: usize) -> Result<u32> {
    let m = params.prime(i)?.modulus();
    Ok(m.inv(product(params, group, i, m)?))
}
