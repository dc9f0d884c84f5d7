// Decrypted slots have no bytes.
use he_core::ckks::Decrypted;

fn bytes(slots: &Decrypted<'_>) -> Vec<u8> {
    serde_json::to_vec(slots).unwrap()
}

fn main() {}
