//! What the unit tests share.

use crate::params::Security;

crate::parameter_set! {
    /// A ring small enough to read.
    pub(crate) static N16 = {
        n: 16, security: Security::Insecure,
        data: [134_217_409, 12_289, 40_961, 1_073_692_673], special: 65_537
    };

    /// Five levels and a wide special prime in a ring so small that the
    /// worst-case bounds of errors are narrow: at scale 2^26, a mistake is
    /// larger by orders of magnitude.
    pub(crate) static N64 = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 67_107_713, 67_107_457, 67_106_561, 67_104_769],
        special: 1_073_741_441
    };

    /// The same data primes in digits of two, the last of one.
    pub(crate) static N64_PAIRS = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 67_107_713, 67_107_457, 67_106_561, 67_104_769],
        special: [1_073_741_441, 1_073_738_753]
    };

    /// All primes of [`N64_PAIRS`], with one special prime.
    pub(crate) static N64_SIX = {
        n: 64, security: Security::Insecure,
        data: [
            1_073_739_649, 67_107_713, 67_107_457, 67_106_561, 67_104_769, 1_073_741_441,
        ],
        special: 1_073_738_753
    };
}

/// Residues below `q` from a linear congruential generator.
pub(crate) fn random(n: usize, q: u32, seed: u64) -> Vec<u32> {
    let mut x = seed;
    (0..n)
        .map(|_| {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) as u32 % q
        })
        .collect()
}
