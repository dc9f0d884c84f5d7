// Digits have at most four primes.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 8192, security: Security::Classical128,
        data: [65_537], special: [114_689, 147_457, 163_841, 557_057, 638_977]
    };
}

fn main() {}
