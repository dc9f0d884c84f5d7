//! What goes beyond the papers, a table per question: what countermeasures cost and bring,
//! and what the strongest attacks reach, on networks and on the scheme. Everything in them is from records.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use attacks::record::{Record, Scale, Step, Verdict};

use super::{Found, number, verdict};

/// A table, for the page and as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// What it is about.
    pub title: &'static str,
    /// How to read it.
    pub about: &'static str,
    /// Names of its columns.
    pub columns: &'static [&'static str],
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// The records of one step, by metric.
pub(super) struct Group<'f> {
    /// One of them, for what they share.
    pub(super) of: &'f Record,
    by: BTreeMap<&'f str, &'f Record>,
}

impl<'f> Group<'f> {
    /// The record of a metric, where it has a value.
    pub(super) fn record(&self, metric: &str) -> Option<&'f Record> {
        let record = self.by.get(metric).copied();
        record.filter(|record| record.value.is_some())
    }

    /// The value with its interval, where it has one that is none of a single figure.
    fn value(&self, metric: &str) -> String {
        let Some(record) = self.record(metric) else {
            return "-".into();
        };
        let value = number(record.value.unwrap_or(0.0));
        match record.ci95 {
            Some([low, high]) if low < high => {
                format!("{value} ({} to {})", number(low), number(high))
            }
            _ => value,
        }
    }

    /// The value alone.
    pub(super) fn figure(&self, metric: &str) -> Option<f64> {
        self.record(metric)?.value
    }

    pub(super) fn beside(&self, metric: &str, baseline: &str) -> Option<f64> {
        self.record(metric)?.baseline.get(baseline).copied()
    }

    fn beside_shown(&self, metric: &str, baseline: &str) -> String {
        self.beside(metric, baseline)
            .map_or_else(|| "-".into(), number)
    }

    fn parameter(&self, name: &str) -> String {
        match self.of.params.get(name) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(serde_json::Value::Null) | None => "-".into(),
            Some(other) => other.as_f64().map_or_else(|| other.to_string(), number),
        }
    }

    fn on(&self) -> String {
        format!("{} ({})", self.of.target, self.of.dataset)
    }
}

/// Steps of an attack with some value; of a target on a data set, those of a full run where
/// there is one.
pub(super) fn groups<'f>(found: &'f Found, attack: &str) -> Vec<Group<'f>> {
    let own = || {
        let records = found.records.iter();
        records.filter(move |r| r.attack == attack && r.value.is_some())
    };
    let full: BTreeSet<(&str, &str)> = own()
        .filter(|r| r.scale == Scale::Full)
        .map(|r| (&*r.target, &*r.dataset))
        .collect();
    let counts = |r: &&Record| {
        r.scale == Scale::Full || !full.contains(&(r.target.as_str(), r.dataset.as_str()))
    };
    let mut all: Vec<Group<'f>> = Vec::new();
    let mut places: HashMap<Step, usize> = HashMap::new();
    for record in own().filter(counts) {
        let place = *places.entry(record.step()).or_insert(all.len());
        if place == all.len() {
            all.push(Group {
                of: record,
                by: BTreeMap::new(),
            });
        }
        all[place].by.insert(&record.metric, record);
    }
    all
}

/// All tables of which there are rows.
#[must_use]
pub fn overviews(found: &Found) -> Vec<Overview> {
    let all = [
        hardened(found),
        defended(found),
        activations(found),
        autoattack(found),
        extraction(found),
        scheme(found),
    ];
    all.into_iter().filter(|o| !o.rows.is_empty()).collect()
}

fn hardened(found: &Found) -> Overview {
    let row = |group: &Group<'_>| {
        let pair = |metric: &str| [group.beside_shown(metric, "ordinary"), group.value(metric)];
        let [clean, pgd, robust, bytes, time] = [
            "accuracy",
            "accuracy_pgd",
            "robust_accuracy",
            "bytes_per_query",
            "evaluator_ms_per_query",
        ]
        .map(pair);
        let cells = [clean, pgd, robust, bytes, time].concat();
        std::iter::once(group.on()).chain(cells).collect()
    };
    Overview {
        title: "Adversarial training",
        about: "Networks trained on PGD's examples beside the same networks trained on images: \
                accuracy, accuracy under PGD and under AutoAttack at eps 0.1, and what an \
                encrypted inference takes. It acts before encryption.",
        columns: &[
            "network",
            "accuracy, before",
            "after",
            "under PGD, before",
            "after",
            "under AutoAttack, before",
            "after",
            "bytes per inference, before",
            "after",
            "ms of the evaluator, before",
            "after",
        ],
        rows: groups(found, "adversarial-training")
            .iter()
            .map(row)
            .collect(),
    }
}

fn defended(found: &Found) -> Overview {
    let row = |group: &Group<'_>| {
        let metrics = [
            "test_accuracy",
            "auc",
            "lira_auc",
            "lira_tpr_at_fpr_1_percent",
            "epsilon",
            "seconds_per_query",
        ];
        let cells = metrics.map(|metric| group.value(metric));
        std::iter::once(group.on()).chain(cells).collect()
    };
    Overview {
        title: "Countermeasures against membership inference",
        about: "Overfitted networks trained with each, under a threshold and under offline LiRA, \
                whose shadow models have the same defence. Epsilon is that of DP-SGD; seconds \
                are of one run in batches.",
        columns: &[
            "network",
            "accuracy",
            "AUC, threshold",
            "AUC, LiRA",
            "TPR at 1 % FPR, LiRA",
            "epsilon",
            "s per encrypted query",
        ],
        rows: groups(found, "membership-countermeasures")
            .iter()
            .map(row)
            .collect(),
    }
}

/// One row per activation: its network in the clear, and the same behind encryption.
fn activations(found: &Found) -> Overview {
    const DEPLOYED: &str = ", encrypted";
    let all = groups(found, "learned-activations");
    let in_the_clear = |group: &&Group<'_>| !group.of.target.ends_with(DEPLOYED);
    let row = |group: &Group<'_>| {
        let mut cells = vec![group.on()];
        if let Some(diverged) = group.record("diverged_in_epoch") {
            let reason = diverged.reason.clone().unwrap_or_default();
            let epoch = group.value("diverged_in_epoch");
            cells.push(format!("epoch {epoch}: {reason}"));
        } else {
            cells.push(group.value("accuracy"));
        }
        let metrics = [
            "accuracy_over_relu",
            "robust_accuracy",
            "gain_of_pgd",
            "agreement_of_relu_surrogate",
            "gain_of_relu_surrogate",
            "agreement_of_square_surrogate",
            "gain_of_square_surrogate",
            "auc",
            "gain_of_membership",
        ];
        cells.extend(metrics.map(|metric| group.value(metric)));
        let name = format!("{}{DEPLOYED}", group.of.target);
        let deployed = all.iter().find(|other| {
            let (a, b) = (other.of, group.of);
            a.target == name && (&a.dataset, a.seed, a.scale) == (&b.dataset, b.seed, b.scale)
        });
        let refused = deployed.and_then(|deployed| {
            let record = deployed.record("deployed")?;
            (record.value == Some(0.0)).then(|| record.reason.clone().unwrap_or_default())
        });
        let of = |metric| deployed.map_or_else(|| "-".into(), |deployed| deployed.value(metric));
        cells.push(refused.unwrap_or_else(|| of("label_flips")));
        cells.extend(["evaluator_ms_per_query", "bytes_per_query"].map(of));
        cells
    };
    Overview {
        title: "Activations",
        about: "Networks 784-64-10 that differ in their activation alone, from the same initial \
                weights and the same members: accuracy, and what attacks gain over the rectifier \
                (above 0, more). Gains are differences of pairs, over the same samples; their \
                intervals are not over trainings, for which the rectifier from another seed \
                stands, and each of so many holds with 95 % alone. What is not deployed has its \
                reason instead of labels.",
        columns: &[
            "activation",
            "accuracy",
            "over ReLU",
            "under PGD at eps 0.1",
            "gain of PGD",
            "a ReLU surrogate agrees",
            "its gain",
            "a square surrogate agrees",
            "its gain",
            "AUC of membership",
            "gain of membership",
            "labels changed by encryption",
            "ms of the evaluator",
            "bytes per inference",
        ],
        rows: all.iter().filter(in_the_clear).map(row).collect(),
    }
}

fn autoattack(found: &Found) -> Overview {
    let row = |group: &Group<'_>| {
        let robust = "robust_accuracy";
        vec![
            group.on(),
            group.parameter("eps"),
            group.beside_shown(robust, "clean"),
            group.beside_shown(robust, "random_noise"),
            group.beside_shown(robust, "pgd"),
            group.value(robust),
            group.value("label_flips"),
        ]
    };
    Overview {
        title: "AutoAttack",
        about: "Accuracy where no member of the ensemble succeeds, beside plain PGD and random \
                noise of the same size.",
        columns: &[
            "network",
            "eps",
            "clean",
            "random noise",
            "PGD",
            "AutoAttack",
            "labels changed by encryption",
        ],
        rows: groups(found, "autoattack").iter().map(row).collect(),
    }
}

fn extraction(found: &Found) -> Overview {
    let attacks = [
        "extraction-exact",
        "extraction-exact-labels",
        "extraction-two-squares",
    ];
    let with = |group: &Group<'_>| {
        let names = ["radius", "decimals", "budget", "components", "rounds"];
        let given = names
            .iter()
            .filter(|name| group.of.params.contains_key(**name));
        let each: Vec<String> = given
            .map(|name| (name, group.parameter(name)))
            .filter(|(_, value)| value != "-")
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        each.join(", ")
    };
    let row = |group: &Group<'_>| {
        vec![
            group.of.attack.clone(),
            group.on(),
            with(group),
            group.value("agreement"),
            group.value("largest_logit_difference"),
            group.value("attack_queries"),
        ]
    };
    let all = attacks.iter().flat_map(|attack| groups(found, attack));
    Overview {
        title: "Exact extraction",
        about: "Networks of one or two squares from scores or labels: how many test images the \
                extracted network gives the target's label, its largest error of a logit, and \
                the queries.",
        columns: &[
            "attack",
            "target",
            "with",
            "labels agree",
            "largest error of a logit",
            "queries",
        ],
        rows: all.map(|group| row(&group)).collect(),
    }
}

/// Attacks on the scheme.
pub(super) const SCHEME: [&str; 5] = [
    "key-recovery",
    "active-evaluator",
    "flooding-wrong",
    "forger",
    "bit-flips",
];

fn scheme(found: &Found) -> Overview {
    let with = |record: &Record| {
        let each = record.params.iter().map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        });
        each.collect::<Vec<String>>().join(", ")
    };
    let row = |record: &Record| {
        vec![
            record.attack.clone(),
            record.target.clone(),
            with(record),
            record.metric.clone(),
            match lesser_rule(record) {
                true => "old or wrong".to_owned(),
                false => "present".to_owned(),
            },
            record.value.map_or_else(|| "-".into(), number),
            verdict(record.verdict).to_owned(),
        ]
    };
    let mut rows = Vec::new();
    for attack in SCHEME {
        for group in groups(found, attack) {
            let judged = group.by.values().filter(|r| r.verdict.is_some());
            rows.extend(judged.map(|record| row(record)));
        }
    }
    Overview {
        title: "Attacks on CKKS and on the rules of who holds the key",
        about: "What has a verdict. Attacks under an old or a wrong rule, or without one, show \
                what the rules here stop; those under the present ones have to fail.",
        columns: &[
            "attack", "set", "with", "metric", "rule", "value", "verdict",
        ],
        rows,
    }
}

/// Whether a record is of an attack on the scheme under an old or a wrong rule, or none,
/// and not under those here.
fn lesser_rule(record: &Record) -> bool {
    let is = |name: &str, value: &str| {
        let given = record.params.get(name);
        given.and_then(serde_json::Value::as_str) == Some(value)
    };
    match record.attack.as_str() {
        "key-recovery" => !is("rule", "guarded publication"),
        "forger" => !is("check", "evaluated again"),
        _ => {
            let metric = record.metric.as_str();
            metric.starts_with("old rule: ")
                || metric.starts_with("countermeasure: ")
                || metric.ends_with(", unchecked")
        }
    }
}

/// How often attacks came out how, in words; apart, under old or wrong rules.
pub(super) fn outcomes(found: &Found, attacks: &[&str]) -> String {
    let mut counts = [[0usize; 3]; 2];
    for attack in attacks {
        for group in groups(found, attack) {
            for record in group.by.values() {
                let counts = &mut counts[usize::from(lesser_rule(record))];
                match record.verdict {
                    Some(Verdict::Success) => counts[0] += 1,
                    Some(Verdict::Failure) => counts[1] += 1,
                    Some(Verdict::Inconclusive) => counts[2] += 1,
                    Some(Verdict::NotApplicable) | None => {}
                }
            }
        }
    }
    let words = |[won, lost, open]: [usize; 3]| match won + lost + open {
        0 => "not measured".to_owned(),
        all => format!("of {all} figures {won} succeed, {lost} fail, {open} are undecided"),
    };
    match counts[1] {
        [0, 0, 0] => words(counts[0]),
        lesser => format!(
            "{}; under old or wrong rules, {}",
            words(counts[0]),
            words(lesser)
        ),
    }
}
