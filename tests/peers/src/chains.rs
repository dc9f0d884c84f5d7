//! What is compared: for each, a modulus chain of ours and one of SEAL's, of the
//! same N and log2(QP) within two bits, and the circuit that both must serve.

use he_core::params::{Params, Security};

he_core::parameter_set! {
    /// Against {36, 34, 36}: a product at scale 2^34 has the scale 2^68 below
    /// log2(Q) = 79, and one prime less leaves 2^41.7.
    static N4096 = {
        n: 4096, security: Security::Classical128,
        data: [82_616_321, 82_493_441, 82_444_289], special: 125_157_377
    };

    /// Against {60, 34, 34, 60}: scales 2^34, 2^38, 2^48.5, one prime a level, and two
    /// primes left. A square has the scale 2^76 below log2(Q) = 82.4. Two digits of
    /// two primes; no prime but the first to go is above 1.86 * 10^8, where
    /// transforms reduce between their layers.
    static N8192 = {
        n: 8192, security: Security::Classical128,
        data: [185_909_249, 185_745_409, 185_597_953, 1_073_692_673],
        special: [38_535_169, 38_305_793, 38_289_409]
    };

    /// Against {60, 40, 40, 60}: scales 2^40, 2^51.4, 2^75.3, one prime a level, and
    /// three primes left. A square has the scale 2^102.8 below log2(Q) = 109.9.
    /// Three digits, of two, two and one prime.
    static N8192_WIDE = {
        n: 8192, security: Security::Classical128,
        data: [
            185_909_249, 185_745_409, 185_597_953, 185_499_649, 406_208_513,
        ],
        special: [1_073_692_673, 1_073_643_521]
    };
}

/// One comparison. The circuit of precision multiplies two vectors and then
/// squares, as often as there are entries in `drops`.
pub struct Chain {
    /// For reports.
    pub name: &'static str,
    /// Ours.
    pub params: &'static Params,
    /// Bits of SEAL's primes, the special one last; TenSEAL takes the same.
    pub bits: &'static [i32],
    /// Of fresh ciphertexts and plaintexts, on both sides.
    pub scale: f64,
    /// How many of our primes the rescaling after each product drops.
    pub drops: &'static [usize],
}

const fn power_of_two(bits: u32) -> f64 {
    (1u64 << bits) as f64
}

/// All of them.
pub const CHAINS: [Chain; 3] = [
    Chain {
        name: "n4096-scale34",
        params: &N4096,
        bits: &[36, 34, 36],
        scale: power_of_two(34),
        drops: &[1],
    },
    Chain {
        name: "n8192-scale34",
        params: &N8192,
        bits: &[60, 34, 34, 60],
        scale: power_of_two(34),
        drops: &[1, 1],
    },
    Chain {
        name: "n8192-scale40",
        params: &N8192_WIDE,
        bits: &[60, 40, 40, 60],
        scale: power_of_two(40),
        drops: &[1, 1],
    },
];

impl Chain {
    /// Values in -1 .. 1 for all slots; the same in every run.
    pub fn values(&self, stream: u64) -> Vec<f64> {
        let mut state = stream;
        (0..self.params.slots())
            .map(|_| {
                // SplitMix64 (Steele, Lea, Flood 2014).
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((z ^ (z >> 31)) >> 11) as f64 / power_of_two(52) - 1.0
            })
            .collect()
    }

    /// What the circuit of precision should give.
    pub fn expected(&self) -> Vec<f64> {
        let product = self.values(1).into_iter().zip(self.values(2));
        let mut values: Vec<f64> = product.map(|(x, y)| x * y).collect();
        for _ in 1..self.drops.len() {
            values.iter_mut().for_each(|x| *x *= *x);
        }
        values
    }
}
