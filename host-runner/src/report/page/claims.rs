//! What the papers claim, and what the records say to it.

use std::collections::BTreeSet;

use attacks::paper::{CHEN_1, Paper, SHIN_4, SHIN_5, XIANG_1};
use attacks::record::{Record, Scale, Verdict};
use attacks::stats::wilson;

use super::Found;
use super::cells::{self, Cell, Ours, Place, Query};
use super::{countermeasures, number};
use crate::attacked;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The records bear it out.
    Holds,
    /// They bear out a part of it.
    Partly,
    /// They contradict it.
    Fails,
    /// They do not decide it: intervals overlap, or some are missing.
    Undecided,
    /// There are none that speak to it.
    Open,
}

impl Standing {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Partly => "holds in part",
            Self::Fails => "does not hold",
            Self::Undecided => "undecided",
            Self::Open => "not measured",
        }
    }

    /// As a class of the style sheet.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Partly => "partly",
            Self::Fails => "fails",
            Self::Undecided => "undecided",
            Self::Open => "open",
        }
    }
}

/// A claim of a paper.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Whose.
    pub paper: Paper,
    /// What it says.
    pub says: &'static str,
    /// What became of it.
    pub standing: Standing,
    /// Why, with the figures: sentences, the last of them without its full stop.
    pub because: String,
}

/// A claim's standing, and why.
pub(super) type Judged = Option<(Standing, String)>;

/// All claims, in the order of the papers.
#[must_use]
pub fn all(found: &Found) -> Vec<Claim> {
    let claim = |paper, says, judged: Judged, missing: &str| {
        let (standing, because) =
            judged.unwrap_or_else(|| (Standing::Open, format!("No record of {missing}")));
        Claim {
            paper,
            says,
            standing,
            because,
        }
    };
    use Paper::{ChenSong2021, Shin2021, Xiang2025};
    vec![
        claim(
            Xiang2025,
            "Encryption does not drastically reduce membership inference from final outputs.",
            membership_as_in_the_clear(found),
            "membership-lira on a network in the clear and encrypted",
        ),
        claim(
            Xiang2025,
            "Extraction succeeds somewhat less on the encrypted polynomial network.",
            extraction(found),
            "extraction-labels on both networks",
        ),
        claim(
            Xiang2025,
            "The effort to reconstruct inputs by gradients increases dramatically under encryption.",
            gradients(found),
            "gradient-white-box and gradient-differences",
        ),
        claim(
            Xiang2025,
            "No attacker tells which of two inputs was evaluated while the output stays encrypted.",
            game(found),
            "game-ciphertexts or game-timing on an encrypted deployment",
        ),
        claim(
            Shin2021,
            "Adversarial examples are a practical threat.",
            evasion(found),
            "fgsm, bim and cw-l2",
        ),
        claim(
            Shin2021,
            "Reconstruction from outputs is a practical threat (SSIM .998 and .972).",
            reconstruction(found),
            "inverse-generator",
        ),
        claim(
            Shin2021,
            "Membership inference is resisted, it seems because logits are unbounded.",
            membership_resisted(found),
            "membership-lira on an overfitted network",
        ),
        claim(
            Shin2021,
            "Countermeasures are infeasible, as their computation is too expensive under encryption.",
            countermeasures::judged(found),
            "networks with countermeasures (adversarial-training, membership-countermeasures)",
        ),
        claim(
            ChenSong2021,
            "Encrypted evaluation keeps the accuracy of the baselines.",
            same_accuracy(found),
            "infer --json on mnist-fcnn or mnist-cnn",
        ),
        claim(
            ChenSong2021,
            "The time is still manageable in real life scenarios (102.8 s and 10.74 s per image).",
            time(found),
            "the time of infer --json on mnist-fcnn or mnist-cnn",
        ),
    ]
}

/// A record's value with its interval.
pub(super) fn shown(record: &Record) -> String {
    let value = record.value.map_or_else(|| "-".to_owned(), number);
    match record.ci95 {
        Some([low, high]) => format!("{value} ({} to {})", number(low), number(high)),
        None => value,
    }
}

const fn query<'q>(attack: &'q str, metric: &'q str, dataset: &'q str) -> Query<'q> {
    Query {
        attack,
        metric,
        dataset,
        params: &[],
        largest: None,
    }
}

/// How an interval lies to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    Below,
    Across,
    Above,
}

pub(super) fn lies([low, high]: [f64; 2], other: [f64; 2]) -> Lies {
    if high < other[0] {
        Lies::Below
    } else if low > other[1] {
        Lies::Above
    } else {
        Lies::Across
    }
}

pub(super) const WON: Option<Verdict> = Some(Verdict::Success);

fn membership_as_in_the_clear(found: &Found) -> Judged {
    let params = [("mode", "online".into())];
    let query = Query {
        params: &params,
        ..query("membership-lira", "auc", "mnist")
    };
    let clear = query.on(found, "overfitted square", Place::Clear)?;
    let encrypted = query.on(found, "overfitted square", Place::Encrypted)?;
    let standing = match lies(encrypted.ci95?, clear.ci95?) {
        Lies::Below => Standing::Fails,
        Lies::Above => Standing::Holds,
        // Where the attack does not succeed, encryption has nothing to reduce.
        Lies::Across if clear.verdict == WON && encrypted.verdict == WON => Standing::Holds,
        Lies::Across => Standing::Undecided,
    };
    let because = format!(
        "AUC of LiRA: {} in the clear, {} encrypted. This compares one target, an overfitted \
         square network of seed {} on {}",
        shown(clear),
        shown(encrypted),
        encrypted.seed,
        encrypted.dataset
    );
    Some((standing, because))
}

fn extraction(found: &Found) -> Judged {
    let all = cells::cells(found, XIANG_1);
    let of = |column| {
        let row = "model extraction, agreement";
        all.iter()
            .find(move |c: &&Cell| c.figure.row == row && c.figure.column == column)
    };
    let relu = of("Black-Box")?.clear.as_ref()?;
    let square = of("Poly-HE")?;
    let encrypted = square.encrypted.as_ref()?;
    let standing = match (encrypted.ci95, relu.ci95) {
        (Some(encrypted), Some(relu)) => match lies(encrypted, relu) {
            Lies::Below => Standing::Holds,
            Lies::Across => Standing::Undecided,
            Lies::Above => Standing::Fails,
        },
        _ => Standing::Undecided,
    };
    let clear = square.clear.as_ref().map_or_else(String::new, |ours| {
        format!(", and in the clear on {}", estimate(ours))
    });
    let because = format!(
        "Surrogates agree with the rectifier network in the clear on {} of samples, with the \
         encrypted square network on {}{clear}",
        estimate(relu),
        estimate(encrypted)
    );
    Some((standing, because))
}

/// A cell's value with its interval.
fn estimate(ours: &Ours) -> String {
    match ours.ci95 {
        Some([low, high]) => {
            let (value, low, high) = (number(ours.value), number(low), number(high));
            format!("{value} ({low} to {high})")
        }
        None => number(ours.value),
    }
}

fn gradients(found: &Found) -> Judged {
    let white = query("gradient-white-box", "ssim", "mnist");
    let white = white.on(found, "mnist-mlp64", Place::Clear)?;
    let central = [("stencil", "central".into())];
    let queries = Query {
        params: &central,
        ..query("gradient-differences", "ssim", "mnist")
    };
    let by_queries = queries.on(found, "mnist-mlp64", Place::Encrypted)?;
    // Queries are an effort; where they reach as much, they are the whole of it.
    let standing = match lies(by_queries.ci95?, white.ci95?) {
        Lies::Below => Standing::Holds,
        Lies::Across | Lies::Above => Standing::Partly,
    };
    let because = format!(
        "SSIM {} with the weights and {} queries, {} by finite differences on the encrypted \
         service with {} queries",
        shown(white),
        white.queries,
        shown(by_queries),
        by_queries.queries
    );
    Some((standing, because))
}

/// Games in which the output stays encrypted: by the bytes of the link, and by time.
const GAMES: [&str; 2] = ["game-ciphertexts", "game-timing"];

fn game(found: &Found) -> Judged {
    let played: Vec<&Record> = found
        .records
        .iter()
        .filter(|r| GAMES.contains(&r.attack.as_str()) && r.value.is_some())
        .collect();
    let of = |verdict| played.iter().filter(move |r| r.verdict == Some(verdict));
    let best = played
        .iter()
        .max_by(|a, b| a.value.unwrap_or(0.0).total_cmp(&b.value.unwrap_or(0.0)))?;
    let full = played.iter().any(|r| r.scale == Scale::Full);
    let scale = if full { Scale::Full } else { Scale::Quick };
    let missing: Vec<String> = attacked::deployments(scale)
        .into_iter()
        .flat_map(|(network, weights)| GAMES.map(|game| (game, attacked::name(network, weights))))
        .filter(|(game, target)| {
            let mut of_game = played.iter().filter(|r| r.attack == *game);
            !of_game.any(|r| r.target == *target)
        })
        .map(|(game, target)| format!("{game} on {target}"))
        .collect();
    let (won, lost) = (of(Verdict::Success).count(), of(Verdict::Failure).count());
    let standing = if won > 0 {
        Standing::Fails
    } else if missing.is_empty() && lost == played.len() {
        Standing::Holds
    } else {
        Standing::Undecided
    };
    let targets: BTreeSet<&str> = played.iter().map(|r| r.target.as_str()).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!(". Not played: {}", missing.join("; ")),
    };
    let because = format!(
        "Distinguishers won {won} of {} games on {} targets, lost {lost}, and {} are undecided; \
         the largest advantage was {}, of {} by {} on {}{missing}. That none of these wins would \
         prove nothing about others",
        played.len(),
        targets.len(),
        played.len() - won - lost,
        shown(best),
        best.metric.trim_start_matches("advantage: "),
        best.attack,
        best.target
    );
    Some((standing, because))
}

fn evasion(found: &Found) -> Judged {
    let all = cells::cells(found, SHIN_4);
    let attacked: Vec<&Cell> = all.iter().filter(|c| c.figure.column != "none").collect();
    let ours: Vec<&Ours> = attacked.iter().filter_map(|c| c.ours()).collect();
    let worst = ours.iter().max_by(|a, b| a.value.total_cmp(&b.value))?;
    // Every second sample misread is the bar.
    let standing = if ours.len() < attacked.len() {
        Standing::Undecided
    } else if worst.ci95.is_some_and(|[_, high]| high < 0.5) {
        Standing::Holds
    } else {
        Standing::Partly
    };
    let because = format!(
        "Of {} attacks of the paper at eps 0.3 (C&W without bound) {} are recorded, and the \
         weakest left an accuracy of {} ({}); each must leave less than one half",
        attacked.len(),
        ours.len(),
        estimate(worst),
        worst.of
    );
    Some((standing, because))
}

fn reconstruction(found: &Found) -> Judged {
    let gain = |dataset, network| {
        let query = query("inverse-generator", "ssim_over_class_mean", dataset);
        let encrypted = query.on(found, network, Place::Encrypted);
        encrypted.or_else(|| query.on(found, network, Place::Clear))
    };
    let mnist = gain("mnist", "mnist-cryptonets")?;
    let fashion = gain("fashion-mnist", "fashion-cryptonets")?;
    let ssim: Vec<String> = cells::cells(found, SHIN_5)
        .iter()
        .filter(|c| c.figure.column == "SSIM")
        .filter_map(|c| Some(estimate(c.ours()?)))
        .collect();
    let won = [mnist, fashion].iter().filter(|r| r.verdict == WON).count();
    let lost = [mnist, fashion]
        .iter()
        .filter(|r| r.verdict == Some(Verdict::Failure))
        .count();
    let standing = match (won, lost) {
        (0, 2) => Standing::Fails,
        (0, _) => Standing::Undecided,
        _ => Standing::Partly,
    };
    let because = format!(
        "A generator exceeds the mean of the class by {} (MNIST) and {} (Fashion-MNIST) in SSIM; \
         SSIM itself, with a data range of 1, is {}",
        shown(mnist),
        shown(fashion),
        ssim.join(" and ")
    );
    Some((standing, because))
}

fn membership_resisted(found: &Found) -> Judged {
    let online = [("mode", "online".into())];
    let query = Query {
        params: &online,
        ..query("membership-lira", "auc", "mnist")
    };
    let of = |network| {
        let encrypted = query.on(found, network, Place::Encrypted);
        encrypted.or_else(|| query.on(found, network, Place::Clear))
    };
    let over = of("overfitted square")?;
    let well = of("well-fitted square");
    let standing = match over.verdict {
        Some(Verdict::Success) => Standing::Fails,
        Some(Verdict::Failure) => Standing::Holds,
        _ => Standing::Undecided,
    };
    let well = well.map_or_else(String::new, |r| format!(", {} on {}", shown(r), r.target));
    let because = format!(
        "AUC of LiRA on logits: {} on {}{well}; seed {}",
        shown(over),
        over.target,
        over.seed
    );
    Some((standing, because))
}

/// Chen and Song's networks.
const TIMED: [&str; 2] = ["mnist-fcnn", "mnist-cnn"];

/// The share of labels that may change for "the same accuracy".
const FLIPS: f64 = 0.01;

fn same_accuracy(found: &Found) -> Judged {
    let runs = TIMED.map(|network| {
        let runs = found.runs.iter().filter(|run| run.model == network);
        runs.max_by_key(|run| run.images.len())
            .filter(|run| !run.images.is_empty())
    });
    let mut said = Vec::new();
    let mut shares = Vec::new();
    for (network, run) in TIMED.iter().zip(runs) {
        let Some(run) = run else {
            said.push(format!("of {network} there is no run"));
            continue;
        };
        let flips = run.label_flips as usize;
        let share = wilson(flips.min(run.images.len()), run.images.len());
        shares.push(share.ci95);
        said.push(format!(
            "of {network}, {flips} of {} labels changed, a share of up to {}",
            run.images.len(),
            number(share.ci95[1])
        ));
    }
    if shares.is_empty() {
        return None;
    }
    let standing = if shares.iter().any(|[low, _]| *low > FLIPS) {
        Standing::Fails
    } else if shares.len() == TIMED.len() && shares.iter().all(|[_, high]| *high <= FLIPS) {
        Standing::Holds
    } else {
        Standing::Undecided
    };
    let because = format!("At most a share of {FLIPS} may change: {}", said.join("; "));
    Some((standing, because))
}

fn time(found: &Found) -> Judged {
    let cells = cells::cells(found, CHEN_1);
    let encrypted = cells.iter().filter(|c| c.figure.row.starts_with("Enc"));
    let of_time: Vec<&Cell> = encrypted
        .filter(|c| c.figure.column == "s per image")
        .collect();
    let timed: Vec<(f64, &Ours)> = of_time
        .iter()
        .filter_map(|c| Some((c.figure.value, c.ours()?)))
        .collect();
    if timed.is_empty() {
        return None;
    }
    let standing = if timed.iter().any(|(paper, ours)| ours.value > *paper) {
        Standing::Partly
    } else if timed.len() == of_time.len() {
        Standing::Holds
    } else {
        Standing::Undecided
    };
    let each = timed.iter().map(|(paper, ours)| {
        format!(
            "{} s where the paper has {} ({})",
            number(ours.value),
            number(*paper),
            ours.of
        )
    });
    let each: Vec<String> = each.collect();
    let because = format!(
        "Per image: {}. Checked is that both of its networks take no longer than in the paper, \
         on another machine; what is manageable no record decides",
        each.join("; ")
    );
    Some((standing, because))
}
