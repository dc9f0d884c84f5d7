//! The threat model as a table: who sees what, what each attack needs, how it came out in
//! these records, what stops it and what that costs. Costs are SECURITY.md's figures, which
//! a test compares, or the records' own.

use super::beyond::{Overview, outcomes};
use super::{Found, countermeasures};

/// What a countermeasure costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// As SECURITY.md has it; these words stand there.
    Stated(&'static str),
    /// By the records of adversarial training.
    Hardening,
    /// By those of the countermeasures against membership inference.
    Privacy,
    /// In words of one's own, without a figure.
    Words(&'static str),
}

struct Threat {
    who: &'static str,
    sees: &'static str,
    needs: &'static str,
    attacks: &'static [&'static str],
    stops: &'static str,
    cost: Cost,
}

const THREATS: [Threat; 11] = [
    Threat {
        who: "evaluator or link, honest but curious",
        sees: "ciphertexts, sizes, times, the program",
        needs: "a distinguisher of two inputs",
        attacks: &["game-ciphertexts", "game-timing"],
        stops: "Ring-LWE at 128 bits",
        cost: Cost::Words("encryption itself: the time and the bytes of every inference"),
    },
    Threat {
        who: "evaluator that answers something else, and sees acceptance or labels",
        sees: "what the client does with its answers",
        needs: "answers under one key: 4,094 of 4,096 coefficients from 6,825 labels, or all \
                4,096 coefficients from 6,829 answers, one at a time; several at a time from \
                labels 2,192, or 6,496 answers",
        attacks: &["active-evaluator"],
        stops: "what wraps around is refused and retires the key; labels spend a budget",
        cost: Cost::Stated("1.44 MB, streamed once"),
    },
    Threat {
        who: "evaluator that forges an answer",
        sees: "the request",
        needs: "to evaluate the check itself",
        attacks: &["forger"],
        stops: "an audit: evaluating again, compared to the bit",
        cost: Cost::Stated("one evaluation, 3 to 5 ms, per audited answer"),
    },
    Threat {
        who: "memory or line that flips bits",
        sees: "nothing",
        needs: "chance",
        attacks: &["bit-flips"],
        stops: "checksums of frames, on a line; audits alone, in memory or past a checksum",
        cost: Cost::Stated("one evaluation, 3 to 5 ms, per audited answer"),
    },
    Threat {
        who: "whoever gets published values",
        sees: "values of honest results",
        needs: "exact values: all slots of one ciphertext to 16 bits after the point, or \
                ten slots of 1,025 inferences whose values are known",
        attacks: &["key-recovery", "flooding-wrong"],
        stops: "noise for a bound of the error, against one budget: for batches, of networks of \
                squares too where the set has room for it; single results leave nothing to \
                publish",
        cost: Cost::Stated("one publication per logit"),
    },
    Threat {
        who: "user of the service who copies the model",
        sees: "labels, or scores",
        needs: "queries alone; encryption does not hinder it",
        attacks: &[
            "extraction-labels",
            "extraction-logits",
            "extraction-exact",
            "extraction-exact-labels",
            "extraction-two-squares",
        ],
        stops: "nothing here: labels alone, rounding and query budgets make it dearer",
        cost: Cost::Words("what rounding and budgets leave of the service"),
    },
    Threat {
        who: "user of the service, about who was trained on",
        sees: "scores",
        needs: "data of the same source and shadow models",
        attacks: &[
            "membership-threshold",
            "membership-shadow",
            "membership-lira",
            "membership-rmia",
            "membership-audit",
        ],
        stops: "training: early stopping, weight decay, DP-SGD",
        cost: Cost::Privacy,
    },
    Threat {
        who: "whoever sees decrypted outputs, about inputs",
        sees: "scores",
        needs: "the weights, queries, or data of the same source",
        attacks: &[
            "inverse-generator",
            "class-inversion",
            "gradient-white-box",
            "gradient-differences",
            "gradient-spsa",
        ],
        stops: "labels alone: whoever has them has no scores to invert",
        cost: Cost::Words("scores"),
    },
    Threat {
        who: "man in the middle who changes inputs before encryption",
        sees: "inputs, and weights or answers",
        needs: "the weights, or labels alone with more queries",
        attacks: &[
            "fgsm",
            "bim",
            "pgd",
            "cw-l2",
            "autoattack",
            "square",
            "hopskipjump",
            "eot-apgd",
            "eot-square",
            "transfer",
        ],
        stops: "adversarial training, in part",
        cost: Cost::Hardening,
    },
    Threat {
        who: "whoever measures a sensor's power or emissions",
        sees: "samples of every product with the key; here simulated, none was measured",
        needs: "one encryption at SNR 10, ten at SNR 1, by templates from a sensor of the same \
                kind; without one tens to thousands under one key, for a whole limb at SNR 1, \
                400 encryptions",
        attacks: &["power"],
        stops: "a key under masks (the firmware's feature masked-key), against analyses of \
                single samples; nothing here against those that combine samples, or that look \
                at the making of the key, the error sampler or the message",
        cost: Cost::Stated("48,256 bytes more of static RAM"),
    },
    Threat {
        who: "whoever holds the sensor or the client",
        sees: "memory",
        needs: "physical access",
        attacks: &[],
        stops: "nothing here",
        cost: Cost::Words("nothing is done about it"),
    },
];

/// The table.
#[must_use]
pub fn table(found: &Found) -> Overview {
    let row = |threat: &Threat| {
        let attacks = match threat.attacks {
            [] => "none".to_owned(),
            attacks => format!("{}: {}", attacks.join(", "), outcomes(found, attacks)),
        };
        vec![
            threat.who.to_owned(),
            threat.sees.to_owned(),
            threat.needs.to_owned(),
            attacks,
            threat.stops.to_owned(),
            cost(found, threat.cost),
        ]
    };
    Overview {
        title: "Threat model",
        about: "Figures of costs and of what attacks need are those of SECURITY.md, which says \
                what they are of, or of these records. Attacks on the scheme under an old or a wrong rule, or without \
                one, are counted apart.",
        says: String::new(),
        columns: &[
            "who",
            "sees",
            "needs",
            "attacks, and how they came out",
            "what stops it",
            "what that costs",
        ],
        rows: THREATS.iter().map(row).collect(),
    }
}

fn cost(found: &Found, cost: Cost) -> String {
    match cost {
        Cost::Stated(text) | Cost::Words(text) => text.to_owned(),
        Cost::Hardening => countermeasures::cost(&countermeasures::hardened(found)),
        Cost::Privacy => countermeasures::cost(&countermeasures::private(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines joined, so that words are found where a line breaks.
    fn security() -> String {
        let text = include_str!("../../../../SECURITY.md");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn costs_that_are_stated_are_those_of_the_document() {
        let security = security();
        let mut stated = 0;
        for threat in &THREATS {
            if let Cost::Stated(text) = threat.cost {
                assert!(security.contains(text), "{text}");
                stated += 1;
            }
        }
        assert!(stated > 3);
    }

    #[test]
    fn what_attacks_need_is_counted_as_in_the_document() {
        let security = security();
        for (phrase, attack) in [
            (
                "4,094 of 4,096 coefficients from 6,825 labels",
                "active-evaluator",
            ),
            (
                "all 4,096 coefficients from 6,829 answers",
                "active-evaluator",
            ),
            ("labels 2,192", "active-evaluator"),
            ("6,496", "active-evaluator"),
            ("16 bits after the point", "key-recovery"),
            ("ten slots of 1,025 inferences", "key-recovery"),
            ("at SNR 1, 400 encryptions", "power"),
        ] {
            assert!(
                security.to_lowercase().contains(&phrase.to_lowercase()),
                "{phrase}"
            );
            let of = THREATS
                .iter()
                .find(|t| t.attacks.contains(&attack))
                .unwrap();
            assert!(of.needs.contains(phrase), "{phrase}: {}", of.needs);
        }
    }

    #[test]
    fn every_attack_is_of_somebody() {
        // Countermeasures and studies are no threats.
        let others = [
            "adversarial-training",
            "membership-countermeasures",
            "learned-activations",
            "extraction-outputs",
            "game-published",
        ];
        for attack in attacks::ATTACKS {
            let name = attack.name();
            let threats = THREATS.iter().filter(|t| t.attacks.contains(&name));
            let expected = usize::from(!others.contains(&name));
            assert_eq!(threats.count(), expected, "{name}");
        }
        for threat in &THREATS {
            for name in threat.attacks {
                assert!(attacks::find(name).is_some(), "{name}");
            }
        }
        for name in super::super::beyond::SCHEME {
            assert!(attacks::find(name).is_some(), "{name}");
        }
    }
}
