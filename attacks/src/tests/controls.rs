//! The controls of each attack, in a test of its name: they run side by side, and what fails
//! says whose they are.

use crate::attack::Must;
use crate::{ATTACKS, find};

/// A test of the controls of each of these attacks, with `_` for `-`.
macro_rules! controls {
    ($($attack:ident,)*) => {
        $(
            #[test]
            fn $attack() {
                come_out_as_they_must(&name(stringify!($attack)));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($attack)),*];
    };
}

controls! {
    fgsm,
    bim,
    pgd,
    cw_l2,
    autoattack,
    square,
    hopskipjump,
    eot_apgd,
    eot_square,
    transfer,
    adversarial_training,
    membership_threshold,
    membership_shadow,
    membership_lira,
    membership_rmia,
    membership_audit,
    membership_countermeasures,
    learned_activations,
    extraction_labels,
    extraction_logits,
    extraction_exact,
    extraction_exact_labels,
    extraction_two_squares,
    extraction_outputs,
    inverse_generator,
    class_inversion,
    gradient_white_box,
    gradient_differences,
    gradient_spsa,
    game_ciphertexts,
    game_timing,
    game_published,
    key_recovery,
    active_evaluator,
    flooding_wrong,
    forger,
    bit_flips,
    power,
}

fn name(test: &str) -> String {
    test.replace('_', "-")
}

fn come_out_as_they_must(name: &str) {
    let attack = find(name).unwrap();
    let controls = attack.controls();
    for must in [Must::Succeed, Must::Fail] {
        let some = controls.iter().any(|control| control.must == must);
        assert!(some, "no control must {must:?}");
    }
    for control in controls {
        let (holds, outcome) = control.holds(1).unwrap();
        assert!(holds, "{}: {outcome:?}", control.name);
    }
}

#[test]
fn every_attack_is_tested() {
    let tested: Vec<String> = TESTED.iter().map(|test| name(test)).collect();
    let all: Vec<&str> = ATTACKS.iter().map(|attack| attack.name()).collect();
    assert_eq!(
        tested, all,
        "a line in `controls!` for each of `ATTACKS`, in its order"
    );
}
