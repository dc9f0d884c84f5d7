// Special primes count as well.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 2048, security: Security::Classical128,
        data: [12_289, 40_961], special: [61_441, 65_537]
    };
}

fn main() {}
