//! Attacks on networks, in the clear and under encryption.
//!
//! This crate knows no device, no link and no file. It states as traits what it needs
//! ([`Target`], [`record::Sink`], [`he_nn::progress::Progress`]), and whoever runs it
//! supplies them: the encrypted deployment is one more [`Target`].
//!
//! # To add an attack
//!
//! 1. One file with a unit struct that implements [`Attack`]: the access that it needs,
//!    the papers' tables that it fills, [`Attack::run`] and its controls.
//! 2. One line in [`ATTACKS`].
//!
//! An attack on the scheme itself, in [`ckks`], runs on parameter sets instead
//! ([`Context::each_scheme`], [`attack::Subject`]).
//!
//! `run` goes through [`Context::each_target`], which hands over one [`Case`] per target
//! that grants the access and records "not applicable" for the others. Work is done in
//! steps ([`Case::step`]): what a step finds is recorded at once, and a step that is
//! recorded already is left out, so that an interrupted run continues. Steps of one
//! target differ in their parameters. Queries go through [`Case::target`], which counts.
//! What depends on chance derives it from [`attack::Run::seed`].
//!
//! The tests run every registered attack on small data and check that its controls hold:
//! at least one that must succeed and one that must fail.
//!
//! # Layers
//!
//! [`stats`], [`paper`], [`network`] < [`target`] < [`plain`], [`trainer`], [`record`] <
//! [`attack`] < the attacks < [`ATTACKS`]. [`leakage`] stands beside them: it needs [`stats`]
//! alone.

pub mod activations;
pub mod attack;
pub mod ckks;
pub mod dp_sgd;
pub mod evasion;
pub mod extraction;
pub mod game;
pub mod gradient_recovery;
pub mod leakage;
pub mod membership;
pub mod network;
pub mod paper;
pub mod plain;
pub mod power;
pub mod random;
pub mod reconstruction;
pub mod record;
pub mod stats;
pub mod synthetic;
pub mod target;
pub mod trainer;

pub use attack::{Attack, AttackError, Case, Context, Control, Data, Must, Outcome, Run};
pub use target::{Access, Denied, Deploy, Grants, Made, Target, TargetError, View};

/// Every attack.
pub const ATTACKS: &[&dyn Attack] = &[
    &evasion::fgsm::Fgsm,
    &evasion::bim::Bim,
    &evasion::pgd::Pgd,
    &evasion::cw::Cw,
    &evasion::autoattack::AutoAttack,
    &evasion::square::BySquares,
    &evasion::hopskipjump::ByLabels,
    &evasion::eot::EotApgd,
    &evasion::eot::EotSquare,
    &evasion::transfer::Transfer,
    &evasion::adversarial_training::AdversarialTraining,
    &membership::threshold::Threshold,
    &membership::shadow::Shadow,
    &membership::lira::Lira,
    &membership::rmia::Rmia,
    &membership::one_run::OneRun,
    &membership::countermeasures::Countermeasures,
    &activations::LearnedActivations,
    &extraction::surrogate::FromLabels,
    &extraction::surrogate::FromLogits,
    &extraction::exact::Exact,
    &extraction::exact_labels::ExactLabels,
    &extraction::two_squares::TwoSquares,
    &extraction::outputs::Outputs,
    &reconstruction::generator::InverseGenerator,
    &reconstruction::class_inversion::ClassInversion,
    &gradient_recovery::white_box::WhiteBox,
    &gradient_recovery::differences::Differences,
    &gradient_recovery::spsa::Spsa,
    &game::ciphertexts::Ciphertexts,
    &game::timing::Timing,
    &game::published::Published,
    &ckks::key_recovery::KeyRecovery,
    &ckks::active_evaluator::ActiveEvaluator,
    &ckks::flooding_wrong::FloodingWrong,
    &ckks::forger::ForgerAttack,
    &ckks::bit_flips::BitFlips,
    &power::Power,
];

/// The attack of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Attack> {
    ATTACKS.iter().find(|attack| attack.name() == name).copied()
}

#[cfg(test)]
mod tests;
