// 20481 = 3 * 6827, and 2N divides 20480.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 2048, security: Security::Classical128,
        data: [20_481], special: 12_289
    };
}

fn main() {}
