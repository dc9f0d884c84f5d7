// A secret key has no text.
use he_core::rlwe::SecretKey;

fn text(key: &SecretKey<Vec<u32>>) -> String {
    key.to_string()
}

fn main() {}
