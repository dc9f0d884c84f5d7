//! What the decryption of a result gave.

use he_nn::clear;
use serde::Serialize;

use super::infer::{Classified, ImageReport, Outcome, unusual, unusual_line};
use super::text::facts;
use crate::files::{Opened, Planned};

/// What `decrypt --json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct OpenedReport {
    /// The model.
    pub model: String,
    /// The parameter set.
    pub params: String,
    /// Per sample, as `infer` has them; `seconds` are those of its decryption.
    pub images: Vec<ImageReport>,
    /// Share of answered samples classified right.
    pub accuracy: f64,
    /// Share of them classified right in the clear.
    pub plain_accuracy: f64,
    /// Those whose label differs between the two.
    pub label_flips: usize,
    /// What the plan says of the largest logit error; answers beyond it, or what their own
    /// entry has, are refused.
    pub allowed_error: f64,
}

impl OpenedReport {
    /// Of the answers to a request.
    #[must_use]
    pub fn of(planned: &Planned<'_>, opened: Vec<Opened>) -> Self {
        let images = opened.into_iter().map(|opened| ImageReport {
            upload: None,
            index: opened.index,
            label: opened.label,
            device: None,
            outcome: match opened.logits {
                Err(refused) => Outcome::Refused { refused },
                Ok(logits) => Outcome::Classified(Classified {
                    predicted: clear::class(&logits),
                    plain_predicted: clear::class(&opened.plain),
                    max_logit_error: clear::largest_error(&logits, &opened.plain),
                    allowed_error: opened.allowed_error,
                    beyond_training: opened.beyond_training,
                    logits,
                    seconds: opened.wall.as_secs_f64(),
                }),
            },
        });
        let images: Vec<ImageReport> = images.collect();
        let share = |right: fn(&Classified) -> usize| {
            let classified = images.iter().filter_map(|image| {
                let label = usize::from(image.label);
                Some(right(image.classified()?) == label)
            });
            let answered: Vec<bool> = classified.collect();
            let count = answered.iter().filter(|&&right| right).count();
            count as f64 / answered.len().max(1) as f64
        };
        let flips = images.iter().filter_map(ImageReport::classified);
        let flips = flips.filter(|image| image.predicted != image.plain_predicted);
        Self {
            model: planned.model().name().to_owned(),
            params: crate::planning::set_name(planned.params()),
            accuracy: share(|image| image.predicted),
            plain_accuracy: share(|image| image.plain_predicted),
            label_flips: flips.count(),
            allowed_error: planned.logit_error().six_sigma,
            images,
        }
    }

    /// Samples without an answer.
    #[must_use]
    pub fn refused(&self) -> usize {
        let refused = self.images.iter().filter(|i| i.classified().is_none());
        refused.count()
    }

    /// Samples unlike those of training, as [`InferReport::unusual`] has it.
    ///
    /// [`InferReport::unusual`]: super::infer::InferReport::unusual
    pub fn unusual(&self) -> impl Iterator<Item = (usize, &Classified)> {
        unusual(&self.images)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for image in &self.images {
            out.push_str(&match &image.outcome {
                Outcome::Refused { refused } => {
                    format!("sample {} was refused: {refused}\n", image.index)
                }
                Outcome::Classified(found) => format!(
                    "sample {}: class {}, in the clear {}, label {}\n",
                    image.index, found.predicted, found.plain_predicted, image.label
                ),
            });
        }
        for (index, found) in self.unusual() {
            out.push_str(&unusual_line(index, found, self.allowed_error));
        }
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let errors = self.images.iter().filter_map(ImageReport::classified);
        let error = clear::largest(errors.map(|i| i.max_logit_error));
        let rows = [
            ("model", self.model.clone()),
            ("samples", self.images.len().to_string()),
            ("refused", self.refused().to_string()),
            ("accuracy, encrypted", percent(self.accuracy)),
            ("accuracy, in the clear", percent(self.plain_accuracy)),
            ("labels changed by encryption", self.label_flips.to_string()),
            (
                "largest logit error",
                format!("{error:.4}, by the plan {:.4}", self.allowed_error),
            ),
        ];
        format!("{out}{}", facts(&rows))
    }
}
