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

    /// Against {60, 34, 34, 60}: scales 2^34, 2^41.2, 2^55.6, one prime a level,
    /// and four primes left.
    static N8192 = {
        n: 8192, security: Security::Classical128,
        data: [
            116_801_537, 116_736_001, 116_686_849,
            116_310_017, 116_211_713, 116_195_329,
        ],
        special: 184_467_457
    };

    /// Against {60, 40, 40, 60}: scales 2^40, 2^51.7, 2^46.7, one prime for the
    /// first level and two for the second, and three primes left.
    static N8192_WIDE = {
        n: 8192, security: Security::Classical128,
        data: [
            342_048_769, 342_016_001, 341_999_617,
            341_819_393, 341_770_241, 341_655_553,
        ],
        special: 1_001_684_993
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

/// All of them. One whose message he-core cannot encode is named and left out.
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
        drops: &[1, 2],
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
