//! What countermeasures bring and cost by the records, and the claim of the paper of 2021
//! that they are infeasible under encryption.

use std::collections::BTreeSet;

use attacks::evasion::adversarial_training;
use attacks::membership::countermeasures;
use attacks::record::Scale;

use super::beyond::{Group, groups};
use super::claims::{Judged, Lies, Standing, WON, lies, shown};
use super::{Found, number};

/// Of bytes with a countermeasure over those without: up to here the same. They are counted,
/// and do not vary.
const SAME: f64 = 1.001;

/// From here on bytes or times forbid a countermeasure.
const FORBIDDING: f64 = 10.0;

/// Accuracy that one of use may lose.
const LOSS: f64 = 0.1;

const HARDENING: &str = "adversarial-training";
const PRIVACY: &str = "membership-countermeasures";

/// A network with a countermeasure beside the same without: one data set, seed, scale and
/// place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Countered<'f> {
    pub(super) target: &'f str,
    pub(super) dataset: &'f str,
    scale: Scale,
    /// Without and with.
    accuracy: Option<[f64; 2]>,
    /// Whether the attack gains less, beyond the intervals.
    helps: Option<bool>,
    /// Of an encrypted inference, over the network without.
    bytes: Option<f64>,
    time: Option<f64>,
}

impl Countered<'_> {
    fn encrypted(&self) -> bool {
        self.target.ends_with(", encrypted") || self.target.ends_with(", encrypted-weights")
    }

    fn useful(&self) -> bool {
        let kept = self.accuracy.is_some_and(|[a, b]| a - b <= LOSS);
        self.helps == Some(true) && kept
    }
}

/// Networks trained on examples.
pub(super) fn hardened(found: &Found) -> Vec<Countered<'_>> {
    let of = |group: &Group<'_>, metric| {
        let before = group.beside(metric, "ordinary")?;
        Some([before, group.figure(metric)?])
    };
    let ratio = |group: &Group<'_>, metric| {
        of(group, metric)
            .filter(|[before, _]| *before > 0.0)
            .map(|[before, after]| after / before)
    };
    let all = groups(found, HARDENING);
    let each = all.iter().map(|group| Countered {
        target: &group.of.target,
        dataset: &group.of.dataset,
        scale: group.of.scale,
        accuracy: of(group, "accuracy"),
        helps: group
            .record("robust_accuracy")
            .map(|record| record.verdict == WON),
        bytes: ratio(group, "bytes_per_query"),
        time: ratio(group, "evaluator_ms_per_query"),
    });
    each.collect()
}

fn place(target: &str) -> &str {
    let places = [", encrypted", ", encrypted-weights"];
    places
        .into_iter()
        .find(|place| target.ends_with(place))
        .unwrap_or("")
}

/// Whether both are of one data set, place, seed and scale, under as many shadow models.
fn alike(a: &Group<'_>, b: &Group<'_>) -> bool {
    let of = |group: &Group<'_>| {
        let shadows = group.of.params.get("lira_shadows").cloned();
        (group.of.seed, group.of.scale, shadows)
    };
    let same_place = place(&a.of.target) == place(&b.of.target);
    a.of.dataset == b.of.dataset && same_place && of(a) == of(b)
}

/// Networks trained against membership inference: by the AUC of LiRA, or of the threshold
/// where not both have LiRA's.
pub(super) fn private(found: &Found) -> Vec<Countered<'_>> {
    let all = groups(found, PRIVACY);
    let undefended = |group: &&Group<'_>| group.of.target.starts_with("undefended ");
    let defended = all.iter().filter(|g| !undefended(g));
    let pairs = defended.map(|with| {
        let without = all.iter().filter(undefended).find(|g| alike(g, with));
        let both = |metric| Some([without?.figure(metric)?, with.figure(metric)?]);
        let intervals = |metric| Some([without?.record(metric)?.ci95?, with.record(metric)?.ci95?]);
        let auc = intervals("lira_auc").or_else(|| intervals("auc"));
        Countered {
            accuracy: both("test_accuracy"),
            helps: auc.map(|[without, with]| lies(with, without) == Lies::Below),
            bytes: None,
            time: both("seconds_per_query")
                .filter(|[without, _]| *without > 0.0)
                .map(|[without, with]| with / without),
            target: &with.of.target,
            dataset: &with.of.dataset,
            scale: with.of.scale,
        }
    });
    pairs.collect()
}

fn most(all: impl Iterator<Item = f64>) -> Option<f64> {
    all.reduce(f64::max)
}

/// What these cost: of an inference, and in accuracy where they cost most of it.
pub(super) fn cost(all: &[Countered<'_>]) -> String {
    let drop = |c: &Countered<'_>| c.accuracy.map(|[a, b]| a - b);
    let dropped = all.iter().filter_map(|c| Some((drop(c)?, c)));
    let Some((_, worst)) = dropped.max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return "not measured".into();
    };
    let [before, after] = worst.accuracy.unwrap_or_default().map(number);
    let bytes = most(all.iter().filter_map(|c| c.bytes));
    let time = most(all.iter().filter_map(|c| c.time));
    let inference = match (bytes, time) {
        (Some(bytes), Some(time)) => format!(
            "at most {} times the bytes and {} times the time of an inference",
            number(bytes),
            number(time)
        ),
        (Some(bytes), None) => format!("at most {} times the bytes", number(bytes)),
        (None, Some(time)) => format!(
            "at most {} times the time of an inference, by one run of each; bytes are not measured",
            number(time)
        ),
        (None, None) => "of an inference, not measured".into(),
    };
    format!(
        "{inference}; accuracy, at most from {before} to {after} ({} on {})",
        worst.target, worst.dataset
    )
}

/// What a run of this scale would have, and these have not.
fn missing(hardened: &[Countered<'_>], private: &[Countered<'_>], scale: Scale) -> Vec<String> {
    let has = |all: &[Countered<'_>], target: &str, dataset: Option<&str>| {
        let mut such = all.iter().filter(|c| c.scale == scale);
        such.any(|c| c.target == target && dataset.is_none_or(|d| c.dataset == d))
    };
    let priced: Vec<Countered<'_>> = hardened
        .iter()
        .copied()
        .filter(|c| c.bytes.is_some() && c.helps.is_some())
        .collect();
    let compared: Vec<Countered<'_>> = private
        .iter()
        .copied()
        .filter(|c| c.helps.is_some() && c.accuracy.is_some())
        .collect();
    let targets = adversarial_training::encrypted_targets(scale).into_iter();
    let mut all: Vec<String> = targets
        .filter(|target| !has(&priced, target, None))
        .map(|target| format!("{HARDENING} on {target}"))
        .collect();
    for dataset in ["mnist", "fashion-mnist"] {
        // The first has no countermeasure: without it none is compared.
        let targets = countermeasures::encrypted_targets(scale)
            .into_iter()
            .skip(1);
        let absent = targets.filter(|target| !has(&compared, target, Some(dataset)));
        all.extend(absent.map(|target| format!("{PRIVACY} on {target} ({dataset})")));
    }
    all
}

/// Decided by bytes: a time alone, of one run, decides nothing. The claim fails where a
/// countermeasure of use costs an encrypted inference nothing.
fn standing(all: &[Countered<'_>], complete: bool) -> Standing {
    let refutes = |c: &Countered<'_>| {
        let cheap = c.bytes.is_some_and(|bytes| bytes <= SAME);
        c.useful() && cheap && c.time.is_none_or(|time| time < FORBIDDING)
    };
    let forbidden = |c: &Countered<'_>| c.bytes.is_some_and(|bytes| bytes >= FORBIDDING);
    let mut useful = all.iter().filter(|c| c.useful()).peekable();
    if all.iter().any(refutes) {
        Standing::Fails
    } else if !complete {
        Standing::Undecided
    } else if useful.peek().is_some() {
        match useful.all(forbidden) {
            true => Standing::Holds,
            false => Standing::Undecided,
        }
    } else if all.iter().filter(|c| c.bytes.is_some()).all(forbidden) {
        Standing::Holds
    } else {
        // Of no use, but not for what they cost.
        Standing::Partly
    }
}

/// The claim that countermeasures are infeasible, as their computation is too expensive.
pub(super) fn judged(found: &Found) -> Judged {
    let scales: BTreeSet<bool> = [HARDENING, PRIVACY]
        .iter()
        .flat_map(|attack| groups(found, attack))
        .map(|group| group.of.scale == Scale::Full)
        .collect();
    let (scale, runs) = match (scales.contains(&true), scales.contains(&false)) {
        (true, true) => (
            Scale::Full,
            "full runs, and of quick ones where there is no other",
        ),
        (true, false) => (Scale::Full, "full runs"),
        (false, true) => (Scale::Quick, "quick runs"),
        (false, false) => return None,
    };
    let (mut hardened, mut private) = (hardened(found), private(found));
    hardened.retain(Countered::encrypted);
    private.retain(Countered::encrypted);
    let missing = missing(&hardened, &private, scale);
    let all = [hardened.clone(), private.clone()].concat();
    let standing = standing(&all, missing.is_empty());
    let useful = |all: &[Countered<'_>]| all.iter().filter(|c| c.useful()).count();
    let helping = |all: &[Countered<'_>]| all.iter().filter(|c| c.helps == Some(true)).count();
    let mut said = vec!["Countermeasures act in training".to_owned()];
    if !hardened.is_empty() {
        said.push(format!(
            "Adversarial training: robust accuracy rises on {} of {} encrypted networks, on {} \
             of them for at most {LOSS} of accuracy; cost, {}{}",
            helping(&hardened),
            hardened.len(),
            useful(&hardened),
            cost(&hardened),
            example(found)
        ));
    }
    if !private.is_empty() {
        said.push(format!(
            "Weight decay, early stopping and DP-SGD: the AUC of membership inference falls on {} \
             of {} encrypted networks, on {} of them for at most {LOSS} of accuracy; cost, {}",
            helping(&private),
            private.len(),
            useful(&private),
            cost(&private)
        ));
    }
    said.push(format!(
        "Bytes up to {SAME} times count as the same, and {FORBIDDING} times would forbid; records \
         are of {runs}"
    ));
    if !missing.is_empty() {
        said.push(format!("Missing: {}", missing.join(", ")));
    }
    Some((standing, said.join(". ")))
}

/// The first hardened network behind encryption.
fn example(found: &Found) -> String {
    let all = groups(found, HARDENING);
    let first = all.iter().find_map(|group| {
        let (clean, robust) = (group.record("accuracy")?, group.record("robust_accuracy")?);
        let before = |metric| group.beside(metric, "ordinary").map(number);
        (!place(&group.of.target).is_empty()).then_some(())?;
        Some(format!(
            "; on {}, accuracy {} before and {} after, under AutoAttack at eps 0.1 {} and {}",
            group.of.target,
            before("accuracy")?,
            shown(clean),
            before("robust_accuracy")?,
            shown(robust)
        ))
    });
    first.unwrap_or_default()
}
