// A prime, but 2N does not divide q - 1.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 8192, security: Security::Classical128,
        data: [12_289], special: 40_961
    };
}

fn main() {}
