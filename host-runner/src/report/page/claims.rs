//! What the papers claim, and what the records say to it.

use attacks::paper::{Paper, SHIN_4, SHIN_5, XIANG_1};
use attacks::record::{Record, Verdict};

use super::Found;
use super::cells::{self, Cell, Place, Query};
use super::number;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The records bear it out.
    Holds,
    /// They bear out a part of it.
    Partly,
    /// They contradict it.
    Fails,
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
    /// Why, with the figures.
    pub because: String,
}

/// A claim's standing, and why.
type Judged = Option<(Standing, String)>;

/// All claims, in the order of the papers.
#[must_use]
pub fn all(found: &Found) -> Vec<Claim> {
    let claim = |paper, says, judged: Judged, missing: &str| {
        let (standing, because) =
            judged.unwrap_or_else(|| (Standing::Open, format!("no record of {missing}")));
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
            game(found, "game-ciphertexts"),
            "game-ciphertexts on an encrypted deployment",
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
            None,
            "networks with countermeasures (these act before encryption, so that encrypted inference costs the same)",
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
            "infer --json on mnist-fcnn or mnist-cnn",
        ),
    ]
}

/// A record's value with its interval.
fn shown(record: &Record) -> String {
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

/// Intervals that have a point in common.
fn overlap(a: &Record, b: &Record) -> Option<bool> {
    let ([a_low, a_high], [b_low, b_high]) = (a.ci95?, b.ci95?);
    Some(a_low <= b_high && b_low <= a_high)
}

fn membership_as_in_the_clear(found: &Found) -> Judged {
    let params = [("mode", "online".into())];
    let query = Query {
        params: &params,
        ..query("membership-lira", "auc", "mnist")
    };
    let clear = query.on(found, "overfitted square", Place::Clear)?;
    let encrypted = query.on(found, "overfitted square", Place::Encrypted)?;
    let standing = match overlap(clear, encrypted)? {
        true => Standing::Holds,
        false => Standing::Fails,
    };
    let because = format!(
        "AUC of LiRA on an overfitted network: {} in the clear, {} encrypted",
        shown(clear),
        shown(encrypted)
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
    let square = of("Poly-HE")?.ours()?;
    let standing = match (relu.ci95, square.ci95) {
        (Some([low, _]), Some([_, high])) if high < low => Standing::Holds,
        _ => Standing::Fails,
    };
    let because = format!(
        "surrogates agree with the rectifier network on {} of samples, with the square network on {}: \
         a difference belongs to the activation and not to encryption",
        number(relu.value),
        number(square.value)
    );
    Some((standing, because))
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
    let because = format!(
        "SSIM {} with the weights; {} by finite differences on the encrypted service, at the \
         price of {} queries and no other",
        shown(white),
        shown(by_queries),
        by_queries.queries
    );
    Some((Standing::Partly, because))
}

fn game(found: &Found, attack: &str) -> Judged {
    let played: Vec<&Record> = found
        .records
        .iter()
        .filter(|r| r.attack == attack && r.value.is_some())
        .collect();
    let won: Vec<&&Record> = played
        .iter()
        .filter(|r| r.verdict == Some(Verdict::Success))
        .collect();
    let best = played
        .iter()
        .max_by(|a, b| a.value.unwrap_or(0.0).total_cmp(&b.value.unwrap_or(0.0)))?;
    let standing = match won.is_empty() {
        true => Standing::Holds,
        false => Standing::Fails,
    };
    let because = format!(
        "of {} games {} were won; the largest advantage was {}, by {} on {}. That none of these \
         distinguishers wins proves nothing about others",
        played.len(),
        won.len(),
        shown(best),
        best.metric.trim_start_matches("advantage: "),
        best.target
    );
    Some((standing, because))
}

fn evasion(found: &Found) -> Judged {
    let all = cells::cells(found, SHIN_4);
    let attacked: Vec<&Cell> = all.iter().filter(|c| c.figure.column != "none").collect();
    let ours: Vec<f64> = attacked
        .iter()
        .filter_map(|c| Some(c.ours()?.value))
        .collect();
    let worst = ours.iter().copied().max_by(f64::total_cmp)?;
    let standing = match worst < 0.5 {
        true => Standing::Holds,
        false => Standing::Partly,
    };
    let because = format!(
        "of {} attacks at eps 0.3 the weakest left an accuracy of {}",
        ours.len(),
        number(worst)
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
        .filter_map(|c| Some(number(c.ours()?.value)))
        .collect();
    let won = [mnist, fashion]
        .iter()
        .filter(|r| r.verdict == Some(Verdict::Success))
        .count();
    let standing = match won {
        0 => Standing::Fails,
        _ => Standing::Partly,
    };
    let because = format!(
        "a generator exceeds the mean of the class by {} (MNIST) and {} (Fashion-MNIST) in SSIM; \
         SSIM itself is {}, and the paper's figures come out with a data range of 255, with which \
         a black image has .98",
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
        _ => Standing::Holds,
    };
    let well = well.map_or_else(String::new, |r| {
        format!(" and {} on a well-fitted one", shown(r))
    });
    let because = format!(
        "AUC of LiRA: {} on an overfitted network{well}. Attackers apply a softmax themselves; \
         what resists is a good fit",
        shown(over)
    );
    Some((standing, because))
}

fn same_accuracy(found: &Found) -> Judged {
    let networks = ["mnist-fcnn", "mnist-cnn"];
    let runs = found
        .runs
        .iter()
        .filter(|run| networks.contains(&run.model.as_str()));
    let runs: Vec<_> = runs.collect();
    let samples: usize = runs.iter().map(|run| run.images.len()).sum();
    if samples == 0 {
        return None;
    }
    let flips: u64 = runs.iter().map(|run| run.label_flips).sum();
    let standing = match flips * 1000 <= samples as u64 {
        true => Standing::Holds,
        false => Standing::Partly,
    };
    let because = format!("encryption changed {flips} of {samples} labels");
    Some((standing, because))
}

fn time(found: &Found) -> Judged {
    let seconds = |network: &str| {
        let runs = found.runs.iter().filter(|run| run.model == network);
        let run = runs.max_by_key(|run| (run.packing == "latency", run.images.len()))?;
        let all: Vec<f64> = run.images.iter().filter_map(|i| i.seconds).collect();
        let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
        (!all.is_empty()).then(|| {
            format!(
                "{} s ({network}, {}, {})",
                number(mean),
                run.packing,
                run.device
            )
        })
    };
    let all: Vec<String> = ["mnist-fcnn", "mnist-cnn"]
        .into_iter()
        .filter_map(seconds)
        .collect();
    if all.is_empty() {
        return None;
    }
    Some((Standing::Holds, format!("per image: {}", all.join(", "))))
}
