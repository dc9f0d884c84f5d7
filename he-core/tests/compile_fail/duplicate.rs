// A data prime twice.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 4096, security: Security::Classical128,
        data: [40_961, 65_537, 40_961], special: 114_689
    };
}

fn main() {}
