//! The statement that an evaluator was honest is made by its name.

use he_core::ckks::publish::HonestEvaluator;

fn main() {
    let _ = HonestEvaluator(());
}
