//! What goes beyond the papers, a table per question: what countermeasures cost and bring,
//! and what the strongest attacks reach, on networks and on the scheme. Everything in them is from records.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use attacks::record::{Record, Scale, Step, Verdict};

use super::claims::{Lies, WON, lies};
use super::{Found, number, verdict};

/// A table, for the page and as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// What it is about.
    pub title: &'static str,
    /// How to read it.
    pub about: &'static str,
    /// What its rows say, in a sentence; empty where the rows are few.
    pub says: String,
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
        flooded(found),
        extraction(found),
        scheme(found),
        power(found),
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
        says: String::new(),
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
        says: String::new(),
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
                (above 0, more). Gains are differences of pairs, over the same samples, PGD's \
                over images that both read right. Their intervals are not over trainings, for \
                which rectifiers from other seeds stand: differences as small as theirs say \
                nothing. Each of so many intervals holds with 95 % alone. What is not deployed \
                has its reason instead of labels.",
        says: beyond_relu(&all),
        columns: &[
            "activation",
            "accuracy",
            "over ReLU",
            "under PGD at eps 0.05",
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

/// How a difference lies to 0, and beyond what other seeds of the rectifier change; where no
/// other was trained, it is across.
fn beyond_seeds(group: &Group<'_>, all: &[Group<'_>], metric: &str) -> Lies {
    let alike = |other: &&Group<'_>| {
        let (a, b) = (other.of, group.of);
        let same = (&a.dataset, a.seed, a.scale) == (&b.dataset, b.seed, b.scale);
        same && a.target.starts_with(OTHER_SEED)
    };
    let seeds = all.iter().filter(alike);
    let most = seeds.filter_map(|other| other.figure(metric)).map(f64::abs);
    let (Some(most), Some(record)) = (most.reduce(f64::max), group.record(metric)) else {
        return Lies::Across;
    };
    match (record.value, record.ci95) {
        (Some(value), Some(ci95)) if value.abs() > most => lies(ci95, [0.0; 2]),
        _ => Lies::Across,
    }
}

/// Targets that tell how much a seed changes.
const OTHER_SEED: &str = "relu, other seed";

/// Which differences to the rectifier are more than chance.
fn beyond_relu(all: &[Group<'_>]) -> String {
    let metrics = [
        ("accuracy_over_relu", "accuracy"),
        ("gain_of_pgd", "PGD"),
        ("gain_of_relu_surrogate", "a ReLU surrogate"),
        ("gain_of_square_surrogate", "a square surrogate"),
        ("gain_of_membership", "membership inference"),
    ];
    let said = metrics.map(|(metric, what)| {
        let side = |side: Lies, word: &str| {
            let polynomials = all.iter().filter(|g| !g.of.target.starts_with(OTHER_SEED));
            let such = polynomials.filter(|g| beyond_seeds(g, all, metric) == side);
            let names: Vec<String> = such.map(Group::on).collect();
            (!names.is_empty()).then(|| format!("{word} with {}", names.join(", ")))
        };
        let sides = [side(Lies::Above, "more"), side(Lies::Below, "less")];
        let sides: Vec<String> = sides.into_iter().flatten().collect();
        match sides.is_empty() {
            true => format!("{what}, no difference"),
            false => format!("{what}, {}", sides.join(", and ")),
        }
    });
    format!(
        "Beyond the interval and every other seed of the rectifier: {}.",
        said.join("; ")
    )
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
        says: String::new(),
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

fn flooded(found: &Found) -> Overview {
    let row = |group: &Group<'_>| {
        let single = "accuracy_by_single";
        vec![
            group.of.attack.clone(),
            group.on(),
            group.parameter("eps"),
            group.parameter("noise"),
            group.value("precision_bits"),
            group.value("accuracy_through_noise"),
            group.beside_shown(single, "clean"),
            group.beside_shown(single, "blind"),
            group.value("accuracy_without_noise"),
            group.value(single),
            group.value("accuracy_by_means"),
            group.value("gain_of_means"),
        ]
    };
    let attacks = ["eot-apgd", "eot-square"];
    let all: Vec<Group<'_>> = attacks.iter().flat_map(|a| groups(found, a)).collect();
    Overview {
        title: "Expectation over the noise of flooded logits",
        about: "Accuracy, read without noise, on examples that were made under noise: by \
                gradients of one draw or means of 20, or by single answers or means of 20 for \
                as many queries. The noise is simulated, as values of networks with activations \
                are not published; it is given in medians of the margin by which clean images \
                are read. At 100 of them no mean of 20 answers can succeed. Blind is a search \
                whose answers are noise alone. The gain is a difference of pairs, above 0 where \
                means mislead more images; each of so many intervals holds with 95 % alone.",
        says: of_means(&all),
        columns: &[
            "attack",
            "network",
            "eps",
            "noise",
            "bits of precision left",
            "clean, read through noise",
            "clean",
            "blind",
            "gradients without noise",
            "single draws or answers",
            "means of 20",
            "gain of means",
        ],
        rows: all.iter().map(row).collect(),
    }
}

/// How often means gain, and whether an attack succeeds without them.
fn of_means(all: &[Group<'_>]) -> String {
    let share = |attack: &str| {
        let own: Vec<&Group<'_>> = all.iter().filter(|g| g.of.attack == attack).collect();
        let lie = |side: Lies| {
            let gains = own.iter().filter_map(|g| g.record("gain_of_means")?.ci95);
            gains.filter(|ci95| lies(*ci95, [0.0; 2]) == side).count()
        };
        let won = |metric: &str| {
            let records = own.iter().filter_map(|g| g.record(metric));
            records.filter(|record| record.verdict == WON).count()
        };
        let rows = own.len();
        (rows > 0).then(|| {
            format!(
                "In {rows} rows of {attack}, means mislead more images than single draws or \
                 answers, beyond the interval, in {}, and fewer in {}; by single ones the attack \
                 succeeds in {}, by means in {}.",
                lie(Lies::Above),
                lie(Lies::Below),
                won("accuracy_by_single"),
                won("accuracy_by_means")
            )
        })
    };
    let said = ["eot-apgd", "eot-square"].map(share);
    said.into_iter().flatten().collect::<Vec<_>>().join(" ")
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
        says: String::new(),
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
        says: String::new(),
        columns: &[
            "attack", "set", "with", "metric", "rule", "value", "verdict",
        ],
        rows,
    }
}

/// The attack on simulated power.
pub(super) const POWER: &str = "power";

/// The parameter by which it says how the key is held, and its value without masks.
const PROTECTION: &str = "protection";
const UNPROTECTED: &str = "none";

fn power(found: &Found) -> Overview {
    let row = |group: &Group<'_>| {
        let parameters = [
            PROTECTION,
            "by",
            "leakage",
            "snr",
            "encryptions",
            "words",
            "runs",
        ];
        let metrics = [
            "simulated power: encryptions needed",
            "simulated power: runs that find all words",
            "simulated power: runs that find any word",
            "simulated power: bits of the key found",
            "simulated power: keys found",
            "simulated power: coefficients found",
            "simulated power: bits of the key known",
        ];
        let mut row = vec![group.of.target.clone()];
        row.extend(parameters.map(|name| group.parameter(name)));
        row.extend(metrics.map(|metric| group.value(metric)));
        row
    };
    Overview {
        title: "Simulated power of a sensor",
        about: "No power was measured: what leaks is computed, from the words that the \
                instructions of the emulated board's kernel write, with normal noise. How many \
                encryptions it takes until all words of a run are found (a mean over the runs \
                that find them), by signal-to-noise ratio of a sample; whether a whole limb is \
                the key; and the same against a key under masks, where nothing may be found. By \
                templates: the key in one encryption, or the mean of ten, from a sensor of the \
                same kind with a known key, of whose stored words the templates are made. Guessing \
                finds a third of the coefficients. Intervals of few runs are rough.",
        says: String::new(),
        columns: &[
            "set",
            "key",
            "by",
            "leakage",
            "SNR",
            "encryptions at most",
            "words",
            "runs",
            "encryptions needed",
            "find all words",
            "find any word",
            "bits of the key",
            "keys found",
            "coefficients found",
            "bits known",
        ],
        rows: groups(found, POWER).iter().map(row).collect(),
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
        POWER => is(PROTECTION, UNPROTECTED),
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
