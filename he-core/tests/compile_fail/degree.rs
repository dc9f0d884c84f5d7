// N is a power of two.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 3000, security: Security::Classical128,
        data: [12_289], special: 40_961
    };
}

fn main() {}
