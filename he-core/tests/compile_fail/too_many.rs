// 33 primes, one more than a chain may have.
use he_core::{parameter_set, params::Security};

parameter_set! {
    /// Refused.
    pub static SET = {
        n: 1024, security: Security::Classical128,
        data: [
            12_289, 18_433, 40_961, 59_393, 61_441, 65_537, 79_873, 83_969,
            86_017, 114_689, 120_833, 133_121, 147_457, 151_553, 163_841, 176_129,
            184_321, 188_417, 202_753, 249_857, 270_337, 286_721, 301_057, 307_201,
            319_489, 329_729, 331_777, 366_593, 380_929, 417_793, 428_033, 430_081,
        ],
        special: 464_897
    };
}

fn main() {}
