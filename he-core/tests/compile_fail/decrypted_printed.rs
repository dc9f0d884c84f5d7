// Decrypted slots stay with the holder of the key.
use he_core::ckks::Decrypted;

fn text(slots: &Decrypted<'_>) -> String {
    slots.to_string()
}

fn main() {}
