// A set of 128 bits that claims 192.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 4096, security: Security::Classical192,
        data: [134_176_769, 1_032_193, 974_849, 925_697], special: 270_337
    };
}

fn main() {}
