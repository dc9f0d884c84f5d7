// A rotation moves two parts: the third would need a key of its own.
use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::{Workspace, rotate};
use he_core::params::Params;
use he_core::rlwe::KeySet;

fn turn(params: &Params, ct: &mut Ciphertext<Vec<u32>, 3>, keys: KeySet<'_, Vec<u32>>) {
    let mut words = vec![];
    let mut work = Workspace::new(params, 0, &mut words).unwrap();
    rotate(params, ct, 1, keys, &mut work).unwrap();
}

fn main() {}
