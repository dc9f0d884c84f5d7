// A secret key is erased when dropped: there is one of it.
use he_core::rlwe::SecretKey;

fn copied(key: &SecretKey<Vec<u32>>) -> SecretKey<Vec<u32>> {
    key.clone()
}

fn main() {}
