//! Primality and roots of unity, in const code.

use super::Modulus;

/// Whether `n` is prime (trial division; for compile-time checks of 30-bit
/// literals).
#[must_use]
pub const fn is_prime(n: u32) -> bool {
    if n < 4 {
        return n >= 2;
    }
    if n & 1 == 0 {
        return false;
    }
    let mut d: u32 = 3;
    while d as u64 * d as u64 <= n as u64 {
        if n.is_multiple_of(d) {
            return false;
        }
        d += 2;
    }
    true
}

/// A primitive `2n`-th root of unity modulo the prime `m`, the power of the
/// smallest base that gives one. `n` is a power of two.
///
/// `None` if `2n` does not divide `q - 1`.
#[must_use]
#[expect(
    clippy::integer_division_remainder_used,
    reason = "public, at compile time"
)]
pub const fn primitive_root(m: &Modulus, n: u32) -> Option<u32> {
    let q = m.value();
    if !n.is_power_of_two() || n >= 1 << 30 || !(q - 1).is_multiple_of(2 * n) {
        return None;
    }
    let mut base = 2;
    while base < q {
        let psi = m.pow(base, (q - 1) / (2 * n));
        // A root of x^n = -1 has order exactly 2n, as 2n is a power of two.
        if m.pow(psi, n) == q - 1 {
            return Some(psi);
        }
        base += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_up_to_a_thousand() {
        let mut sieve = [true; 1000];
        sieve[0] = false;
        sieve[1] = false;
        for i in 2..1000 {
            if sieve[i] {
                for j in (2 * i..1000).step_by(i) {
                    sieve[j] = false;
                }
            }
        }
        for (i, &prime) in sieve.iter().enumerate() {
            assert_eq!(is_prime(i as u32), prime, "{i}");
        }
        assert!(is_prime(1_073_692_673));
        assert!(!is_prime(1_073_692_673 - 2));
    }

    #[test]
    fn roots_have_their_order() {
        let m = Modulus::new(188_417).unwrap();
        let psi = primitive_root(&m, 4096).unwrap();
        assert_eq!(m.pow(psi, 4096), 188_416);
        assert_eq!(m.pow(psi, 8192), 1);
        assert_eq!(primitive_root(&m, 8192), None);
        assert_eq!(primitive_root(&m, 3), None);
    }
}
