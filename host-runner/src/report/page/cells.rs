//! What of ours stands beside each figure of the papers.

use std::time::Duration;

use attacks::paper::{
    self, CHEN_1, CHEN_2, CHEN_3, CHEN_LOGISTIC, Figure, SHIN_1, SHIN_2, SHIN_3, SHIN_4, SHIN_5,
    SHIN_6, SHIN_7, SHIN_ABSTRACT, Table, XIANG_1,
};
use attacks::record::{Record, Scale};
use attacks::stats::wilson;
use he_nn::bundled;
use he_nn::model::Model;
use serde_json::Value;

use super::{Found, InferFile};

/// One figure of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Ours {
    /// The value.
    pub value: f64,
    /// Its 95 % interval, where it has one.
    pub ci95: Option<[f64; 2]>,
    /// What exactly it is of.
    pub of: String,
}

/// One of the papers' figures with ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The paper's.
    pub figure: Figure,
    /// Ours, behind encryption.
    pub encrypted: Option<Ours>,
    /// Ours, in the clear.
    pub clear: Option<Ours>,
}

impl Cell {
    /// Ours that the paper's is compared with: encrypted, if there is such.
    #[must_use]
    pub fn ours(&self) -> Option<&Ours> {
        self.encrypted.as_ref().or(self.clear.as_ref())
    }
}

/// Where a network was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Clear,
    Encrypted,
    EncryptedWeights,
}

impl Place {
    /// A network's name as a target there.
    pub(super) fn target(self, network: &str) -> String {
        match self {
            Self::Clear => network.to_owned(),
            Self::Encrypted => format!("{network}, encrypted"),
            Self::EncryptedWeights => format!("{network}, encrypted-weights"),
        }
    }
}

/// What record is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'q> {
    pub(super) attack: &'q str,
    pub(super) metric: &'q str,
    pub(super) dataset: &'q str,
    /// Parameters that it has.
    pub(super) params: &'q [(&'q str, Value)],
    /// A parameter of which the largest value is meant.
    pub(super) largest: Option<&'q str>,
}

impl Query<'_> {
    /// The record: of a full run rather than a quick one, and the last of several.
    pub(super) fn on<'f>(
        &self,
        found: &'f Found,
        network: &str,
        place: Place,
    ) -> Option<&'f Record> {
        let target = place.target(network);
        let such = found.records.iter().filter(|record| {
            record.attack == self.attack
                && record.metric == self.metric
                && record.dataset == self.dataset
                && record.target == target
                && record.value.is_some()
                && self
                    .params
                    .iter()
                    .all(|(name, value)| record.params.get(*name) == Some(value))
        });
        let size = |record: &Record| {
            let value = self.largest.and_then(|name| record.params.get(name));
            value.and_then(Value::as_f64).unwrap_or(0.0)
        };
        such.max_by(|a, b| {
            let full = |record: &Record| record.scale == Scale::Full;
            (full(a).cmp(&full(b))).then(size(a).total_cmp(&size(b)))
        })
    }

    fn ours(&self, found: &Found, network: &str, place: Place) -> Option<Ours> {
        let record = self.on(found, network, place)?;
        Some(Ours {
            value: record.value?,
            ci95: record.ci95,
            of: format!("{}, {} queries", record.target, record.queries),
        })
    }

    /// With weights in plain if there is such, otherwise with encrypted ones.
    fn pair(&self, found: &Found, network: &str) -> Pair {
        let of = |place| self.ours(found, network, place);
        let encrypted = of(Place::Encrypted).or_else(|| of(Place::EncryptedWeights));
        [encrypted, of(Place::Clear)]
    }

    /// With encrypted weights, as the paper of 2025 has them, if there is such.
    fn weights_first(&self, found: &Found, network: &str) -> Pair {
        let [plain, clear] = self.pair(found, network);
        let encrypted = self.ours(found, network, Place::EncryptedWeights);
        [encrypted.or(plain), clear]
    }
}

/// Encrypted and clear.
type Pair = [Option<Ours>; 2];

/// Ours beside a figure of a paper.
#[must_use]
pub fn cell(found: &Found, figure: &Figure) -> Cell {
    let [encrypted, clear] = match figure.table {
        XIANG_1 => xiang(found, figure.row, figure.column),
        SHIN_1 => parameters("mnist-cryptonets", figure),
        SHIN_2 => parameters("fashion-cryptonets", figure),
        SHIN_3 => accuracy(found, figure),
        SHIN_4 => evasion(found, figure),
        SHIN_5 => reconstruction(found, figure),
        SHIN_6 => shadow(found, figure, "mnist"),
        SHIN_7 => shadow(found, figure, "fashion-mnist"),
        SHIN_ABSTRACT => means(found, figure),
        CHEN_1 => per_image(found, figure),
        CHEN_2 => [stage(found, figure, "mnist-fcnn"), None],
        CHEN_3 => [stage(found, figure, "mnist-cnn"), None],
        CHEN_LOGISTIC => logistic(found, figure),
        _ => [None, None],
    };
    Cell {
        figure: *figure,
        encrypted,
        clear,
    }
}

/// All cells of a table.
#[must_use]
pub fn cells(found: &Found, table: Table) -> Vec<Cell> {
    let figures = paper::FIGURES.iter().filter(|f| f.table == table);
    figures.map(|figure| cell(found, figure)).collect()
}

fn network_of(dataset: &str) -> &'static str {
    match dataset {
        "fashion-mnist" => "fashion-cryptonets",
        _ => "mnist-cryptonets",
    }
}

fn xiang(found: &Found, row: &str, column: &str) -> Pair {
    if column == "difference" {
        let of = |column, place: usize| xiang(found, row, column)[place].clone();
        let less = |square: Option<Ours>| {
            let (relu, square) = (of("Black-Box", 1)?, square?);
            Some(Ours {
                value: relu.value - square.value,
                ci95: None,
                of: format!("{} less {}", relu.of, square.of),
            })
        };
        return [less(of("Poly-HE", 0)), less(of("Poly-HE", 1))];
    }
    let relu = column == "Black-Box";
    if let Some(metric) = row.strip_prefix("membership inference, ") {
        let query = Query {
            attack: "membership-threshold",
            metric: &metric.to_lowercase(),
            dataset: "mnist",
            params: &[("signal", "largest probability".into())],
            largest: Some("members"),
        };
        let kind = if relu { "relu" } else { "square" };
        return query.weights_first(found, &format!("well-fitted {kind}"));
    }
    let query = Query {
        attack: "extraction-labels",
        metric: "agreement",
        dataset: "mnist",
        params: &[("queries", "natural".into())],
        largest: Some("budget"),
    };
    query.weights_first(
        found,
        if relu {
            "mnist-mlp64-relu"
        } else {
            "mnist-mlp64"
        },
    )
}

/// Parameters of a bundled network's layers, in their order.
fn parameters(name: &str, figure: &Figure) -> Pair {
    let ours = || {
        let model = Model::parse(bundled::model(name)?).ok()?;
        let order = paper::FIGURES.iter().filter(|f| f.table == figure.table);
        let at = order.into_iter().position(|f| f.row == figure.row)?;
        let counts = model.layers().filter_map(|view| {
            let linear = view.layer.linear()?;
            Some(linear.weights.len() + linear.biases.iter().count())
        });
        let count = counts.into_iter().nth(at)?;
        Some(Ours {
            value: count as f64,
            ci95: None,
            of: format!("{name}, biases included"),
        })
    };
    [None, ours()]
}

fn accuracy(found: &Found, figure: &Figure) -> Pair {
    let network = network_of(figure.row);
    if figure.column == "train" {
        let query = Query {
            attack: "inverse-generator",
            metric: "base_line_accuracy",
            dataset: figure.row,
            params: &[],
            largest: Some("victims"),
        };
        return query.pair(found, network);
    }
    of_run(found, network)
}

/// Accuracies of the largest run of a network.
fn of_run(found: &Found, network: &str) -> Pair {
    let runs = found.runs.iter().filter(|run| run.model == network);
    let Some(run) = runs.max_by_key(|run| run.images.len()) else {
        return [None, None];
    };
    let ours = |share: f64, how: &str| {
        let count = run.images.len();
        let estimate = wilson((share * count as f64).round() as usize, count);
        Some(Ours {
            value: share,
            ci95: Some(estimate.ci95),
            of: format!("{network}, {count} samples, {how}"),
        })
    };
    let encrypted = ours(run.accuracy, &run.device);
    [encrypted, ours(run.plain_accuracy, "in the clear")]
}

fn evasion(found: &Found, figure: &Figure) -> Pair {
    let network = network_of(figure.row);
    let attack = match figure.column {
        "FGSM" => "fgsm",
        "BIM" => "bim",
        "C&W" => "cw-l2",
        _ => return of_run(found, network),
    };
    let eps = [("eps", 0.3.into())];
    let query = Query {
        attack,
        metric: "accuracy",
        dataset: figure.row,
        params: if attack == "cw-l2" { &[] } else { &eps },
        largest: Some("samples"),
    };
    query.pair(found, network)
}

fn reconstruction(found: &Found, figure: &Figure) -> Pair {
    let metric = match figure.column {
        "SSIM" => "ssim",
        "reclassification" => "reclassification",
        _ => "base_line_accuracy",
    };
    let query = Query {
        attack: "inverse-generator",
        metric,
        dataset: figure.row,
        params: &[],
        largest: Some("victims"),
    };
    query.pair(found, network_of(figure.row))
}

fn shadow(found: &Found, figure: &Figure, dataset: &str) -> Pair {
    let parts: Vec<&str> = figure.row.split(", ").collect();
    let [shadows, share, phase] = parts[..] else {
        return [None, None];
    };
    let count = shadows
        .split(' ')
        .next()
        .and_then(|n| n.parse::<u64>().ok());
    let query = Query {
        attack: "membership-shadow",
        metric: &format!("{phase}_{}", figure.column),
        dataset,
        params: &[
            ("shadows", count.into()),
            ("data", share.into()),
            ("outputs", "logits".into()),
        ],
        largest: Some("samples"),
    };
    query.pair(found, "well-fitted square")
}

/// Means over other tables, of as many cells as the paper's.
fn means(found: &Found, figure: &Figure) -> Pair {
    let (table, columns): (Table, &[&str]) = match figure.column {
        "accuracy before" => (SHIN_4, &["none"]),
        "accuracy under attack" => (SHIN_4, &["FGSM", "BIM", "C&W"]),
        _ => (SHIN_5, &["reclassification"]),
    };
    let all = cells(found, table);
    let mean = |of: fn(&Cell) -> Option<&Ours>| {
        let such = all
            .iter()
            .filter(|cell| columns.contains(&cell.figure.column));
        let values: Option<Vec<f64>> = such.map(|cell| of(cell).map(|o| o.value)).collect();
        let values = values.filter(|values| !values.is_empty())?;
        Some(Ours {
            value: values.iter().sum::<f64>() / values.len() as f64,
            ci95: None,
            of: format!("mean of {} cells of {}", values.len(), table.name),
        })
    };
    [mean(|c| c.encrypted.as_ref()), mean(|c| c.clear.as_ref())]
}

/// The run of a network that says most about time: one image at a time, and many of them.
fn timed<'f>(found: &'f Found, network: &str) -> Option<&'f InferFile> {
    let runs = found.runs.iter().filter(|run| run.model == network);
    runs.max_by_key(|run| (run.packing == "latency", run.images.len()))
}

fn per_image(found: &Found, figure: &Figure) -> Pair {
    let (network, encrypted) = match figure.row {
        "FCNN" => ("mnist-fcnn", false),
        "CNN" => ("mnist-cnn", false),
        "EncFCNN" => ("mnist-fcnn", true),
        _ => ("mnist-cnn", true),
    };
    let only = |[a, b]: Pair| if encrypted { [a, None] } else { [None, b] };
    match figure.column {
        "accuracy" => only(of_run(found, network)),
        "images" => only(of_run(found, network).map(|ours| {
            let ours = ours?;
            let count = found.runs.iter().filter(|run| run.model == network);
            let count = count.map(|run| run.images.len()).max()?;
            Some(Ours {
                value: count as f64,
                ci95: None,
                of: ours.of,
            })
        })),
        // Nothing measures the time of a network in the clear.
        _ if !encrypted => [None, None],
        _ => {
            let ours = timed(found, network).and_then(|run| {
                let seconds: Vec<f64> = run.images.iter().filter_map(|i| i.seconds).collect();
                let mean = attacks::stats::mean(&seconds, 1);
                (!seconds.is_empty()).then(|| Ours {
                    value: mean.value,
                    ci95: Some(mean.ci95),
                    of: format!(
                        "{network}, {} samples, {}, {}",
                        seconds.len(),
                        run.device,
                        run.packing
                    ),
                })
            });
            [ours, None]
        }
    }
}

/// The layer with weights in the place of the figure's.
fn stage(found: &Found, figure: &Figure, network: &str) -> Option<Ours> {
    let order = paper::FIGURES.iter().filter(|f| f.table == figure.table);
    let at = order.into_iter().position(|f| f.row == figure.row)?;
    let run = timed(found, network)?;
    let layers = run
        .evaluator
        .stages
        .iter()
        .filter(|s| s.name.starts_with("layer"));
    let layer = layers.into_iter().nth(at)?;
    Some(Ours {
        value: layer.seconds?,
        ci95: None,
        of: format!("{network}, {}, {}, {}", layer.name, run.device, run.packing),
    })
}

fn logistic(found: &Found, figure: &Figure) -> Pair {
    let [encrypted, clear] = of_run(found, "pima-logreg");
    match (figure.row, figure.column) {
        ("evaluation on encrypted data", "plain accuracy") => [None, clear],
        ("evaluation on encrypted data", _) => [encrypted, None],
        (_, column) => [training(found, column), None],
    }
}

/// The paper's epochs of training on encrypted data.
const EPOCHS: usize = 5;

/// Of training on encrypted data, in as many epochs as the paper's.
fn training(found: &Found, column: &str) -> Option<Ours> {
    let mut such = found.trainings.iter();
    let training = such.find(|training| training.epochs.len() == EPOCHS)?;
    let time = |value: Duration| Ours {
        value: value.as_secs_f64(),
        ci95: None,
        of: "one run in this process".to_owned(),
    };
    match column {
        "accuracy" => {
            let right = training.epochs.last()?.right;
            let share = wilson(right.min(training.test_rows), training.test_rows);
            Some(Ours {
                value: share.value,
                ci95: Some(share.ci95),
                of: format!("{} rows", training.test_rows),
            })
        }
        "five epochs, s" => {
            let epochs = training.epochs.iter();
            Some(time(
                epochs.map(|epoch| epoch.evaluator + epoch.client).sum(),
            ))
        }
        _ => Some(time(training.encryption)),
    }
}
