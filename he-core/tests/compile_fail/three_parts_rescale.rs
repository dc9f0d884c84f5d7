// Rescaling divides two parts: the rounding of a third stands before s^2.
use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::rescale;
use he_core::params::Params;

fn divide(params: &Params, ct: &mut Ciphertext<Vec<u32>, 3>) {
    rescale(params, ct, &mut []).unwrap();
}

fn main() {}
