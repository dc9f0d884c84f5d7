//! What attacks train and see, through the real client and evaluator.

use attacks::attack::{Data, Run};
use attacks::ckks::bit_flips::Place;
use attacks::plain::Plain;
use attacks::record::{Memory, Recorder, Scale, Verdict};
use attacks::target::View;
use attacks::{Context, synthetic};
use he_nn::clear;

use super::*;

const BOTH: [Evaluation; 2] = [Evaluation::Encrypted, Evaluation::EncryptedWeights];

/// A network that reads bars: in the clear and, with `deploy`, behind encryption.
fn network() -> Differentiable {
    let network = Differentiable::one_hidden(4, Activation::Polynomial, 1).unwrap();
    let network = network.to_network("bars").unwrap().quantized();
    Differentiable::from_network(&network).unwrap()
}

fn deployed(evaluation: Evaluation) -> Box<dyn Target> {
    let images = Rows::images(&synthetic::bars(20, 1).images);
    let network = network().to_network("bars").unwrap().quantized();
    let made = Made {
        name: "bars",
        dataset: "bars",
        network: &network,
        samples: &images,
    };
    Deployer.deploy(made, evaluation).unwrap()
}

#[test]
fn what_an_attack_trains_answers_encrypted_as_in_the_clear() {
    let images = Rows::images(&synthetic::bars(8, 2).images);
    let scores = |target: &mut dyn Target| {
        let mut view = View::new(target, Grants::of(&[Access::Scores]));
        view.scores(&images).unwrap()
    };
    let plain = scores(&mut Plain::new(
        "bars",
        "bars",
        Activation::Polynomial,
        network(),
    ));
    for evaluation in BOTH {
        let mut target = deployed(evaluation);
        assert_eq!(target.about().evaluation, evaluation);
        let sees_weights = target.grants().contains(Access::Weights);
        assert_eq!(sees_weights, evaluation == Evaluation::Encrypted);
        let found = scores(target.as_mut());
        let worst = clear::largest_error(found.values(), plain.values());
        // Encrypted it was, and right: an error there is, and a small one.
        assert!((1e-9..0.05).contains(&worst), "{evaluation:?}: {worst}");
    }
}

#[test]
fn what_lies_beyond_the_ranges_is_answered_as_in_the_clear() {
    // Ranges are of darker images: values of the first layer reach twice as far, so that
    // a plan's own headroom is what keeps them from wrapping.
    let bright = Rows::images(&synthetic::bars(20, 1).images);
    let dark: Vec<f64> = bright.values().iter().map(|pixel| pixel / 2.0).collect();
    let dark = Rows::new(bright.width(), dark);
    let network = network().to_network("bars").unwrap().quantized();
    let made = Made {
        name: "bars",
        dataset: "bars",
        network: &network,
        samples: &dark,
    };
    let in_the_clear = Differentiable::from_network(&network).unwrap();
    let plain = in_the_clear.evaluate(&bright, 20).unwrap();
    for evaluation in BOTH {
        let mut target = Deployer.deploy(made, evaluation).unwrap();
        let mut view = View::new(target.as_mut(), Grants::of(&[Access::Scores]));
        let found = view.scores(&bright).unwrap();
        let worst = clear::largest_error(found.values(), plain.values());
        assert!(worst < 0.05, "{evaluation:?}: {worst}");
    }
}

#[test]
fn an_eavesdropper_sees_fresh_ciphertexts_and_times() {
    let asked = Grants::of(&[Access::Ciphertexts, Access::Timing, Access::Scores]);
    let image = Rows::images(&synthetic::bars(1, 2).images);
    let twice = image.select(&[0, 0]);
    for evaluation in BOTH {
        let mut target = deployed(evaluation);
        let mut view = View::new(target.as_mut(), asked);
        let answers = view.observe(&twice, asked).unwrap();
        let [first, second] = &answers.exchanges[..] else {
            panic!("{} exchanges", answers.exchanges.len());
        };
        assert_ne!(first.up, second.up);
        assert_ne!(first.down, second.down);
        assert_eq!(first.up.len(), second.up.len());
        assert_eq!(first.down.len(), second.down.len());
        assert!(
            answers
                .times
                .iter()
                .all(|t| t.value > 0 && t.clock == Clock::Nanoseconds)
        );
    }
}

#[test]
fn attacks_by_queries_reach_a_deployment() {
    let bars = synthetic::bars(20, 3);
    let data = [Data {
        name: "bars".into(),
        train: bars.clone(),
        test: bars,
    }];
    let mut targets: Vec<Box<dyn Target>> = vec![deployed(Evaluation::EncryptedWeights)];
    let mut memory = Memory::default();
    for name in ["gradient-spsa", "gradient-white-box", "fgsm"] {
        let mut progress = ();
        let run = Run {
            scale: Scale::Quick,
            seed: 1,
            progress: &mut progress,
            recorder: Recorder::new(&mut memory, "0", Vec::new()),
        };
        let context = Context::new(&mut targets, &data, run);
        let attack = attacks::find(name).unwrap();
        attack.run(&mut context.deploying(&Deployer)).unwrap();
    }
    for record in &memory.records {
        let refused = record.attack != "gradient-spsa";
        let not_applicable = record.verdict == Some(Verdict::NotApplicable);
        assert_eq!(refused, not_applicable, "{record:?}");
        assert_eq!(record.queries > 1000, !refused, "{record:?}");
    }
    let residual = memory
        .records
        .iter()
        .find(|r| r.metric == "residual")
        .unwrap();
    assert!(residual.value.unwrap() < 0.9, "{residual:?}");
}

/// Every place of an evaluator's memory: some flips are wrong labels that look right, and
/// none of them is where the answer is evaluated again.
#[test]
fn a_flipped_bit_is_not_silent_where_answers_are_audited() {
    let mut exposed = Deployer.exposed().unwrap().unwrap();
    let honest = exposed.honest();
    let (mut silent, mut refused) = (0, 0);
    for (place, flips) in Place::ALL.into_iter().zip([40, 4, 4, 80]) {
        let bits = exposed.bits(place);
        for flip in 0..flips {
            // Spread over all of it, and over the bits of a byte.
            let bit = bits / flips * flip + flip % 8;
            let fate = exposed.flipped(place, bit).unwrap();
            let wrong = fate.unchecked.is_some_and(|label| label != honest);
            silent += u32::from(wrong);
            refused += u32::from(fate.checked.is_none());
            assert!(!(wrong && fate.reproduced), "{place:?}, bit {bit}");
        }
    }
    assert!(
        silent > 0 && refused > 0,
        "{silent} silent, {refused} refused"
    );
    // What is not flipped is as it was.
    let same = exposed
        .flipped(Place::Upload, exposed.bits(Place::Upload))
        .unwrap();
    assert_eq!((same.checked, same.reproduced), (Some(honest), true));
}
