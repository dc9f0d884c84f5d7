// A secret key has no bytes.
use he_core::rlwe::SecretKey;

fn bytes(key: &SecretKey<Vec<u32>>) -> Vec<u8> {
    serde_json::to_vec(key).unwrap()
}

fn main() {}
