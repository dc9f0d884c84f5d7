//! What a network would be with its weights rounded otherwise: its file, its accuracy in the
//! clear and encrypted, by bits and by what has a scale of its own.

use he_nn::clear::{self, Calibrated};
use he_nn::model::{Model, ModelError, Sample};
use he_nn::network::{Granularity, Network, Quantization};
use he_nn::plan::{Packing, PlanError, Target, Terms};
use he_nn::progress::Progress;
use serde::{Serialize, Serializer};

use he_core::Params;

use crate::planning;
use crate::report::infer::ImageReport;
use crate::report::text::{bytes, wide_table};
use crate::report::timeline::Timeline;
use crate::run::{self, RunError, Work};
use crate::service::{Batches, InMemory, Service, ServiceError};

/// What is compared: few bits per tensor and per channel, and what stands for float weights.
const CHOICES: [(u8, Granularity); 7] = [
    (4, Granularity::Tensor),
    (4, Granularity::Channel),
    (6, Granularity::Tensor),
    (6, Granularity::Channel),
    (8, Granularity::Tensor),
    (8, Granularity::Channel),
    (16, Granularity::Tensor),
];

/// How encrypted samples are evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated {
    /// The parameter set; one that serves if left out.
    pub params: Option<&'static Params>,
    /// How weights are held, and who adds up lanes.
    pub terms: Terms,
    /// How values are laid out.
    pub packing: Packing,
    /// Samples, from the first of the test split.
    pub count: usize,
}

/// Why a network was not measured.
#[derive(Debug, thiserror::Error)]
pub enum QuantizedError {
    /// It is none of the format, or a sample does not fit it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It was planned, and does not run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is no evaluator of it.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// A network with its weights rounded in one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantized {
    /// Bits of a weight.
    pub bits: u8,
    /// What has a scale of its own.
    #[serde(serialize_with = "name")]
    pub per: Granularity,
    /// Bytes of the model's file.
    pub file_bytes: usize,
    /// Of the whole test split, the share that is classified right in the clear.
    pub plain_accuracy: f64,
    /// Samples of the test split.
    pub plain_samples: usize,
    /// Encrypted samples, where there is a plan.
    pub encrypted: Option<Encrypted>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unplanned: Option<String>,
}

/// What encrypted samples came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Encrypted {
    /// The parameter set.
    pub params: String,
    /// Level of the inputs.
    pub level: usize,
    /// Samples, refused ones included.
    pub samples: usize,
    /// Of these, how many the plan had no room for.
    pub refused: usize,
    /// Share of the others that is classified right, where there are any.
    pub accuracy: Option<f64>,
    /// The same of them in the clear.
    pub plain_accuracy: Option<f64>,
    /// How many have another label than in the clear.
    pub label_flips: usize,
    /// Largest error of a logit of theirs.
    pub logit_error: f64,
    /// Six standard deviations of it, by the plan.
    pub logit_error_six_sigma: f64,
}

fn name<S: Serializer>(granularity: &Granularity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(granularity.name())
}

/// Rounds a network's weights in all ways, with ranges from training, and measures each: in
/// the clear on all samples of the test split, encrypted on the first of them. The weights are
/// those that the model's integers stand for: what was rounded once is not finer again.
///
/// # Errors
/// [`QuantizedError`]. A network without a plan is no error: its row says why.
pub fn compare(
    model: &Model<'_>,
    train: &[(Sample<'_>, u8)],
    test: &[(Sample<'_>, u8)],
    evaluated: Evaluated,
    progress: &mut dyn Progress,
) -> Result<Vec<Quantized>, QuantizedError> {
    let network = Network::from(model).real();
    let choices = CHOICES
        .into_iter()
        .filter_map(|(bits, granularity)| Quantization::new(bits, granularity));
    choices
        .map(|quantization| {
            progress.note(&format!("weights of {quantization}"));
            let rounded = network.clone().quantized_by(quantization);
            let (all_train, all_test) = (train.iter().copied(), test.iter().copied());
            let Calibrated {
                file,
                test: measured,
                ..
            } = clear::calibrated(&rounded, all_train, all_test)?;
            let model = Model::parse(&file)?;
            let samples = &test[..evaluated.count.min(test.len())];
            let (encrypted, unplanned) = match encrypted(model, samples, evaluated, progress)? {
                Ok(encrypted) => (Some(encrypted), None),
                Err(reason) => (None, Some(reason.to_string())),
            };
            Ok(Quantized {
                bits: quantization.bits(),
                per: quantization.granularity(),
                file_bytes: file.len(),
                plain_accuracy: measured.accuracy(),
                plain_samples: measured.samples,
                encrypted,
                unplanned,
            })
        })
        .collect()
}

/// Encrypted samples, or why the network has no plan.
fn encrypted(
    model: Model<'_>,
    samples: &[(Sample<'_>, u8)],
    evaluated: Evaluated,
    progress: &mut dyn Progress,
) -> Result<Result<Encrypted, PlanError>, QuantizedError> {
    let Evaluated { params, terms, .. } = evaluated;
    let planned: Result<Box<dyn Service + '_>, PlanError> = match evaluated.packing {
        Packing::Latency => match planning::plan(params, model, terms, Target::Host) {
            Ok(plan) => Ok(Box::new(InMemory::new(plan)?)),
            Err(reason) => Err(reason),
        },
        Packing::Batch => match planning::batch_plan(params, model) {
            Ok(plan) => Ok(Box::new(Batches::new(plan)?)),
            Err(reason) => Err(reason),
        },
    };
    let mut service = match planned {
        Ok(service) => service,
        Err(reason) => return Ok(Err(reason)),
    };
    let deployment = service.deployment().clone();
    let work = Work::of(model.name(), samples, "inproc");
    let report = run::classify(&mut *service, work, progress, &mut Timeline::default())?;
    let classified = report.images.iter().filter_map(ImageReport::classified);
    let refused = samples.len() - classified.count();
    let of_others = |share: f64| (refused < samples.len()).then_some(share);
    Ok(Ok(Encrypted {
        params: planning::set_name(deployment.params),
        level: deployment.level,
        samples: samples.len(),
        refused,
        accuracy: of_others(report.accuracy),
        plain_accuracy: of_others(report.plain_accuracy),
        label_flips: report.label_flips,
        logit_error: report.max_logit_error(),
        logit_error_six_sigma: report.logit_error_six_sigma,
    }))
}

/// A table for people.
#[must_use]
pub fn table(rows: &[Quantized]) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let nothing = || "-".to_owned();
    let of = |row: &Quantized| -> [String; 10] {
        let plain = [
            format!("{} bits", row.bits),
            row.per.name().to_owned(),
            bytes(row.file_bytes as u64),
            percent(row.plain_accuracy),
        ];
        let encrypted = match &row.encrypted {
            Some(found) => [
                found.plain_accuracy.map_or_else(nothing, percent),
                found.accuracy.map_or_else(nothing, percent),
                found.label_flips.to_string(),
                format!("{:.4}", found.logit_error),
                format!("{:.4}", found.logit_error_six_sigma),
                format!("{}, level {}", found.params, found.level),
            ],
            None => std::array::from_fn(|_| nothing()),
        };
        let mut cells = plain.into_iter().chain(encrypted);
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    };
    let table: Vec<_> = rows.iter().map(of).collect();
    let mut text = wide_table(
        &[
            "weights",
            "scale per",
            "file",
            "right, in the clear",
            "of those encrypted",
            "right, encrypted",
            "labels changed",
            "largest error of a logit",
            "six sigma",
            "set",
        ],
        &table,
    );
    if let Some(first) = rows.first() {
        let encrypted = rows.iter().find_map(|row| row.encrypted.as_ref());
        let counted = encrypted.map_or_else(String::new, |found| {
            format!(", encrypted the first {} of them", found.samples)
        });
        text.push_str(&format!(
            "in the clear {} test samples{counted}; weights of 16 bits stand for float ones\n",
            first.plain_samples
        ));
    }
    for row in rows {
        let way = format!("{} bits per {}", row.bits, row.per.name());
        if let Some(reason) = &row.unplanned {
            text.push_str(&format!("{way}: {reason}\n"));
        }
        if let Some(Encrypted {
            refused: count @ 1..,
            ..
        }) = row.encrypted
        {
            text.push_str(&format!(
                "{way}: {count} samples have no room in the plan\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use he_nn::bundled;
    use he_nn::data::Samples;
    use he_nn::plan::WeightMode;

    use super::*;

    fn rows(name: &str, packing: Packing) -> Vec<Quantized> {
        let model = Model::parse(bundled::model(name).unwrap()).unwrap();
        let digits = Samples::from(bundled::digits().unwrap());
        let evaluated = Evaluated {
            params: None,
            terms: WeightMode::Plain.into(),
            packing,
            count: 5,
        };
        compare(&model, &digits.all(), &digits.all(), evaluated, &mut ()).unwrap()
    }

    /// Digits of wide weights and multipliers of rows come to what the network in the clear
    /// computes, in both packings: a wrong one of either would be far outside the bound.
    #[test]
    fn every_rounding_is_evaluated_as_in_the_clear() {
        for (name, packing) in [
            ("mnist-mlp64", Packing::Batch),
            ("mnist-cnn", Packing::Latency),
        ] {
            let rows = rows(name, packing);
            assert_eq!(rows.len(), CHOICES.len());
            for row in &rows {
                let found = row.encrypted.as_ref().unwrap_or_else(|| panic!("{row:?}"));
                assert!(
                    found.logit_error < found.logit_error_six_sigma,
                    "{name}: {row:?}"
                );
                assert_eq!((found.samples, found.refused, found.label_flips), (5, 0, 0));
            }
            let [four, four_each, .., eight, _, sixteen] = &rows[..] else {
                panic!("{rows:?}");
            };
            // What was rounded to 8 bits before is what it was.
            let model = bundled::model(name).unwrap();
            assert_eq!(eight.file_bytes, model.len());
            assert!(sixteen.file_bytes > 2 * model.len() - 1000);
            assert!(four_each.file_bytes > four.file_bytes);
            assert!(eight.plain_accuracy > 0.9 && sixteen.plain_accuracy > 0.9);
            let text = table(&rows);
            assert!(
                text.contains("16 bits") && text.contains("channel"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_network_without_a_plan_says_why() {
        let rows = rows("mnist-mlp64-relu", Packing::Latency);
        for row in &rows {
            assert!(
                row.encrypted.is_none() && row.plain_accuracy > 0.5,
                "{row:?}"
            );
        }
        assert!(table(&rows).contains("is a ReLU"), "{}", table(&rows));
    }
}
