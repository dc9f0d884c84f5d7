// 55 bits at N = 2048, where the table has 53.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 2048, security: Security::Classical128,
        data: [134_176_769, 12_289], special: 40_961
    };
}

fn main() {}
