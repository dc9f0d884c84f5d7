// Primes are below 2^30.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 16384, security: Security::Classical128,
        data: [2_147_352_577], special: 65_537
    };
}

fn main() {}
