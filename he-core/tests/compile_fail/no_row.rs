// The table has no row for 192 bits at N = 1024.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 1024, security: Security::Classical192,
        data: [12_289], special: 18_433
    };
}

fn main() {}
