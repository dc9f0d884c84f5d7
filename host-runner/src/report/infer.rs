//! What a run of inferences gave.

use std::time::Duration;

use he_core::Params;
use he_nn::clear;
use he_nn::message::{Memory, Stage, TimeUnit};
use he_nn::plan::{Packing, Sums, WeightMode};
use serde::{Deserialize, Serialize};

use crate::client::publication::Published;
use crate::client::{Padded, Padding};
use crate::receipts::{OfImage, Receipt};

use super::text::{bytes, facts, grouped, table};
use crate::service::{Answer, Deployment, Exchanged};

/// The parameter set in use.
#[derive(Clone, Debug, Serialize)]
pub struct ParamsReport {
    /// Ring degree.
    pub n: usize,
    /// log2 of the data modulus.
    pub log_q: f64,
    /// log2 of data modulus and special primes: what security is judged by.
    pub log_qp: f64,
    /// Primes of the data modulus.
    pub data_limbs: usize,
    /// Claimed security, classical, by ePrint 2024/463.
    pub security_bits: u32,
}

impl ParamsReport {
    /// Of a plan that begins at a level: security is that of the whole set, as
    /// keys are made for it.
    #[must_use]
    pub fn at_level(p: &Params, level: usize) -> Self {
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        Self {
            n: p.n(),
            log_q: round(p.log_q(level)),
            log_qp: round(p.log_qp()),
            data_limbs: level + 1,
            security_bits: p.security().bits(),
        }
    }

    /// What a plan says of them.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "N = {}, {} data primes, log2(Q) = {:.1}, log2(QP) = {:.1}, {} bit security",
            self.n, self.data_limbs, self.log_q, self.log_qp, self.security_bits
        )
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageReport {
    /// Its index in the split.
    pub index: usize,
    /// Its label.
    pub label: u8,
    /// The device that answered, where samples were spread over several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What went up for it, where it was classified: the first image sends keys that later
    /// ones find kept.
    #[serde(flatten)]
    pub upload: Option<ImageUpload>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What went up for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ImageUpload {
    /// Bytes to the evaluator, keys included.
    pub bytes_up: u64,
    /// Of these, what switching keys took.
    pub key_bytes_up: u64,
    /// How it was padded, where the link was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padded: Option<Padded>,
}

/// What became of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It was classified.
    Classified(Classified),
    /// It has no result.
    Refused {
        /// Why, in a sentence.
        refused: String,
    },
}

/// A result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classified {
    /// Class of the decrypted logits.
    pub predicted: usize,
    /// Class of the same quantized network in the clear.
    pub plain_predicted: usize,
    /// Largest difference between decrypted and clear logits.
    pub max_logit_error: f64,
    /// What it may be, where that is more than the plan's `logit_error_six_sigma`: of this
    /// very sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_error: Option<f64>,
    /// Its error is more than the plan says, and its values are beyond those of training.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beyond_training: bool,
    /// Decrypted logits.
    pub logits: Vec<f64>,
    /// Wall-clock seconds, encryption and link included; in a batch, its share.
    pub seconds: f64,
}

impl ImageReport {
    /// Its result, if it has one.
    #[must_use]
    pub const fn classified(&self) -> Option<&Classified> {
        match &self.outcome {
            Outcome::Classified(classified) => Some(classified),
            Outcome::Refused { .. } => None,
        }
    }

    /// Why it has none.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Classified(_) => None,
            Outcome::Refused { refused } => Some(refused),
        }
    }
}

/// What an image's inference took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Bytes to the evaluator.
    pub bytes_up: u64,
    /// Bytes from it.
    pub bytes_down: u64,
    /// Of `bytes_up`, what keys took.
    pub key_bytes_up: u64,
    /// The evaluator's memory.
    pub memory: Memory,
    /// Unit of the stages' times.
    pub unit: TimeUnit,
    /// Time per step.
    pub stages: Vec<Stage>,
    /// Time with the link, waiting apart; none in memory.
    pub busy: Option<u64>,
    /// Processor time of an evaluator in this process.
    pub cpu: Option<Duration>,
    /// Whether the answer was evaluated again.
    pub audited: bool,
    /// How it was padded, where the link was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padded: Option<Padded>,
}

/// A finished image: what the report takes, and one line of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its index in the split.
    pub index: usize,
    /// Its label.
    pub label: u8,
    /// Its result and what it took, or why it was refused.
    pub answer: Result<(Classified, Figures), String>,
    /// How often it was tried again.
    pub retries: u64,
    /// The device that answered, where samples were spread over several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What was published of it, or why nothing was, where something is published. No
    /// ledger has it: a budget belongs to a key, which ends with its process.
    #[serde(skip)]
    pub published: Option<Result<Published, String>>,
    /// The receipt of the last result that came for it, refused or not, where receipts
    /// are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

impl Entry {
    /// A sample's answer, beside the same network in the clear.
    #[must_use]
    pub fn of((index, label): (usize, u8), answer: &Answer, retries: u64) -> Self {
        let inference = match answer {
            Ok(inference) => inference,
            Err(refused) => {
                return Self {
                    index,
                    label,
                    answer: Err(refused.to_string()),
                    retries,
                    device: None,
                    published: None,
                    receipt: refused.receipt.as_deref().cloned(),
                };
            }
        };
        let classified = Classified {
            predicted: inference.label(),
            plain_predicted: clear::class(&inference.plain),
            max_logit_error: clear::largest_error(&inference.logits, &inference.plain),
            allowed_error: inference.allowed_error,
            beyond_training: inference.beyond_training,
            logits: inference.logits.clone(),
            seconds: inference.wall.as_secs_f64(),
        };
        let figures = Figures {
            bytes_up: inference.bytes.up,
            bytes_down: inference.bytes.down,
            key_bytes_up: inference.bytes.keys_up,
            memory: inference.memory,
            unit: inference.unit,
            stages: inference.stages.clone(),
            busy: inference.busy,
            cpu: inference.cpu,
            audited: inference.audited,
            padded: inference.padded,
        };
        Self {
            index,
            label,
            answer: Ok((classified, figures)),
            retries,
            device: None,
            published: inference
                .handed_on
                .published
                .as_ref()
                .map(|published| published.as_ref().map_err(ToString::to_string).cloned()),
            receipt: inference.handed_on.receipt.clone(),
        }
    }
}

/// One step of the plan, mean over the images.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Instructions per image, `null` unless emulated.
    pub instructions: Option<u64>,
    /// Cycles per image, `null` unless on hardware.
    pub cycles: Option<u64>,
    /// Wall-clock seconds per image, `null` unless on a host.
    pub seconds: Option<f64>,
    /// Level before it.
    pub level: usize,
    /// log2 of the scale after it.
    pub scale_log2: f64,
    /// Bytes of the ciphertexts after it, on the wire.
    pub bytes: usize,
}

/// The evaluator's side, means over the images.
#[derive(Clone, Debug, Serialize)]
pub struct EvaluatorReport {
    /// Instructions per image, link excluded; `null` unless emulated.
    pub instructions: Option<u64>,
    /// Cycles per image, link excluded; `null` unless on hardware.
    pub cycles: Option<u64>,
    /// Instructions per image with everything that the evaluator does: the steps, what kept
    /// keys take, bytes to requests, and replies; `null` unless emulated.
    pub instructions_with_link: Option<u64>,
    /// The same in cycles, with what replies wait for the line, as sending blocks; `null`
    /// unless on hardware.
    pub cycles_with_link: Option<u64>,
    /// Milliseconds of processor time per image; `null` unless in process.
    pub cpu_ms: Option<f64>,
    /// Milliseconds by the clock per image, link excluded; `null` unless on a host.
    pub wall_ms: Option<f64>,
    /// Static memory; in process, what the plan estimates.
    pub ram_static_bytes: u32,
    /// Peak of the painted stack; in process, 0.
    pub ram_stack_peak_bytes: u32,
    /// Per step.
    pub stages: Vec<StageReport>,
}

/// What may be given to others, apart from the rest of the report, which is the client's.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedReport {
    /// Publications that the key is allowed in all.
    pub allowed: u32,
    /// Publications that have been counted.
    pub spent: u32,
    /// Per answer that was published.
    pub answers: Vec<PublishedAnswer>,
    /// Per answer that was not.
    pub unpublished: Vec<Unpublished>,
}

/// What was published of an image.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedAnswer {
    /// Index of the image in the split.
    pub index: usize,
    /// Its label, or its logits flooded with noise.
    #[serde(flatten)]
    pub published: Published,
}

/// An image of which nothing was published.
#[derive(Clone, Debug, Serialize)]
pub struct Unpublished {
    /// Index of the image in the split.
    pub index: usize,
    /// Why, in a sentence.
    pub why: String,
}

impl PublishedReport {
    /// For people.
    fn text(&self) -> String {
        let mut out = format!(
            "published, {} of {} publications of this key:\n",
            self.spent, self.allowed
        );
        for PublishedAnswer { index, published } in &self.answers {
            out.push_str(&match published {
                Published::Label { label } => format!("image {index}: label {label}\n"),
                Published::Values {
                    values,
                    precision_bits,
                } => {
                    let values: Vec<String> = values.iter().map(|x| format!("{x:.3}")).collect();
                    let values = values.join(" ");
                    let within = (-precision_bits).exp2();
                    format!("image {index}: {values}, each within {within:.4}\n")
                }
            });
        }
        out
    }
}

/// A device that gave up; what it had not finished went to the others.
#[derive(Clone, Debug, Serialize)]
pub struct LostDevice {
    /// Its name.
    pub device: String,
    /// Why, in a sentence.
    pub why: String,
}

/// What a link was padded to.
#[derive(Clone, Debug, Serialize)]
pub struct PaddingReport {
    /// Bytes of an upload are a multiple of this, in whole cells.
    pub up: u32,
    /// Bytes of a result are a multiple of this.
    pub down: u32,
    /// Milliseconds from one cell to the next.
    pub every_ms: f64,
    /// Images that were padded and answered.
    pub images: u64,
    /// Cells that were sent for them.
    pub cells: u64,
    /// Cells that were sent late, or answered late or with another length: an observer may
    /// have seen how long something took.
    pub late: u64,
    /// Different numbers of cells per image, which an observer sees.
    pub sizes: Vec<u64>,
}

impl PaddingReport {
    /// Of these images.
    #[must_use]
    pub fn of(padding: Padding, images: &[ImageReport]) -> Self {
        let padded = images.iter().filter_map(|image| image.upload?.padded);
        let mut sizes: Vec<u64> = padded.clone().map(|padded| padded.cells).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Self {
            up: padding.up,
            down: padding.down,
            every_ms: 1e3 * padding.every.as_secs_f64(),
            images: padded.clone().count() as u64,
            cells: padded.clone().map(|padded| padded.cells).sum(),
            late: padded.map(|padded| padded.late).sum(),
            sizes,
        }
    }

    /// What an observer may have seen, a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let late = (self.late > 0).then(|| {
            format!(
                "{} of {} cells were late, and who watches the link may have seen how long something took: allow more with --pad-every",
                self.late, self.cells
            )
        });
        let uneven = (self.sizes.len() > 1).then(|| {
            let sizes: Vec<String> = self.sizes.iter().map(u64::to_string).collect();
            format!(
                "images took {} cells, and who watches the link tells them apart: raise UP of --pad-to to the largest upload",
                sizes.join(" or ")
            )
        });
        late.into_iter().chain(uneven)
    }
}

/// What `infer --json` writes. Figures are per image unless the name says otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct InferReport {
    /// The device.
    pub device: String,
    /// The model.
    pub model: String,
    /// How its weights are held.
    pub weights: WeightMode,
    /// Who adds up the lanes of the last layer's results, where there are any.
    pub sums: Sums,
    /// How values are laid out.
    pub packing: Packing,
    /// The parameter set.
    pub params: ParamsReport,
    /// Per image.
    pub images: Vec<ImageReport>,
    /// Share of images classified right from decrypted logits.
    pub accuracy: f64,
    /// Share of images classified right in the clear.
    pub plain_accuracy: f64,
    /// Images whose label differs between the two.
    pub label_flips: usize,
    /// Bytes to the evaluator, framing and keys included; what is sent once, shared.
    pub bytes_up: u64,
    /// Bytes from the evaluator.
    pub bytes_down: u64,
    /// Of `bytes_up`, what the switching keys took, and encrypted weights sent once.
    pub key_bytes_up: u64,
    /// The evaluator's side.
    pub evaluator: EvaluatorReport,
    /// Wall-clock seconds, encryption and link included.
    pub wall_seconds: f64,
    /// Processor seconds of this process over the whole run, keys and set-up included.
    pub cpu_seconds: f64,
    /// How often images were tried again after a fault of the link; a batch counts as
    /// its images.
    pub retries: u64,
    /// Devices that gave up, where samples were spread over several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_devices: Vec<LostDevice>,
    /// What went through the queue of a fleet, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Exchanged>,
    /// What the link was padded to, and what an observer may have seen all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<PaddingReport>,
    /// Images without an answer because the run ended early, refused ones apart.
    pub unfinished: u64,
    /// Answers that were evaluated again and found equal to the bit.
    pub audited: u64,
    /// What others may have; not there where nothing was to be published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedReport>,
    /// Receipts, which go to a file of their own.
    #[serde(skip)]
    pub receipts: Vec<OfImage>,
    /// Six standard deviations of the logit error, by the plan, of samples like those of
    /// training.
    pub logit_error_six_sigma: f64,
}

/// A run as it goes on.
pub struct Run<'d> {
    deployment: &'d Deployment,
    images: Vec<ImageReport>,
    up: u64,
    down: u64,
    keys_up: u64,
    memory: Memory,
    /// Of all so far; nothing before the first.
    unit: Option<TimeUnit>,
    cpu: Option<Duration>,
    stages: Vec<u64>,
    /// Of all so far, where every one had a link.
    busy: Option<u64>,
    audited: u64,
    published: Vec<PublishedAnswer>,
    unpublished: Vec<Unpublished>,
    receipts: Vec<OfImage>,
    retries: u64,
    lost: Vec<LostDevice>,
    exchanged: Option<Exchanged>,
}

impl<'d> Run<'d> {
    /// Nothing yet.
    #[must_use]
    pub fn new(deployment: &'d Deployment) -> Self {
        Self {
            stages: vec![0; deployment.steps.len()],
            busy: Some(0),
            deployment,
            images: Vec::new(),
            up: 0,
            down: 0,
            keys_up: 0,
            memory: Memory::default(),
            unit: None,
            cpu: Some(Duration::ZERO),
            audited: 0,
            published: Vec::new(),
            unpublished: Vec::new(),
            receipts: Vec::new(),
            retries: 0,
            lost: Vec::new(),
            exchanged: None,
        }
    }

    /// Something went through a queue.
    pub fn exchange(&mut self, more: Exchanged) {
        let all = self.exchanged.get_or_insert_default();
        all.sent += more.sent;
        all.sent_again += more.sent_again;
        all.put_aside += more.put_aside;
        all.doubled += more.doubled;
        all.stale += more.stale;
        for (worker, count) in more.refused_of {
            *all.refused_of.entry(worker).or_default() += count;
        }
    }

    /// A device gave up.
    pub fn lose(&mut self, device: String, why: String) {
        self.lost.push(LostDevice { device, why });
    }

    /// Adds a finished image.
    pub fn add(&mut self, entry: Entry) {
        self.retries += entry.retries;
        let (outcome, figures) = match entry.answer {
            Ok((classified, figures)) => (Outcome::Classified(classified), Some(figures)),
            Err(refused) => (Outcome::Refused { refused }, None),
        };
        let index = entry.index;
        self.images.push(ImageReport {
            index,
            label: entry.label,
            device: entry.device,
            upload: figures.as_ref().map(|figures| ImageUpload {
                bytes_up: figures.bytes_up,
                key_bytes_up: figures.key_bytes_up,
                padded: figures.padded,
            }),
            outcome,
        });
        match entry.published {
            None => {}
            Some(Ok(published)) => self.published.push(PublishedAnswer { index, published }),
            Some(Err(why)) => self.unpublished.push(Unpublished { index, why }),
        }
        if let Some(receipt) = entry.receipt {
            self.receipts.push(OfImage { index, receipt });
        }
        let Some(figures) = figures else {
            return;
        };
        self.audited += u64::from(figures.audited);
        self.up += figures.bytes_up;
        self.down += figures.bytes_down;
        self.keys_up += figures.key_bytes_up;
        let memory = &mut self.memory;
        memory.static_bytes = memory.static_bytes.max(figures.memory.static_bytes);
        let stack = figures.memory.stack_peak_bytes;
        memory.stack_peak_bytes = memory.stack_peak_bytes.max(stack);
        // Instructions of one device and seconds of another have no sum.
        self.unit = Some(match self.unit {
            Some(unit) if unit != figures.unit => TimeUnit::None,
            _ => figures.unit,
        });
        self.cpu = self.cpu.zip(figures.cpu).map(|(sum, cpu)| sum + cpu);
        let busy = self.busy.zip(figures.busy);
        self.busy = busy.map(|(sum, busy)| sum.saturating_add(busy));
        for stage in &figures.stages {
            if let Some(sum) = self.stages.get_mut(usize::from(stage.step)) {
                *sum = sum.saturating_add(stage.time);
            }
        }
    }

    /// Images that are finished.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.images.len()
    }

    /// The report on what is finished, of `due` images. `wall` is the time of the whole
    /// run, `cpu` that of the process; `publications` those that are allowed and counted.
    #[must_use]
    pub fn report(
        mut self,
        due: usize,
        device: String,
        model: String,
        (wall, cpu): (Duration, Duration),
        publications: Option<(u32, u32)>,
    ) -> InferReport {
        self.images.sort_by_key(|image| image.index);
        self.receipts.sort_by_key(|receipt| receipt.index);
        let classified = || {
            let images = self.images.iter();
            images.filter_map(|image| Some((usize::from(image.label), image.classified()?)))
        };
        let count = classified().count().max(1);
        let share = |right: fn(usize, &Classified) -> bool| {
            classified()
                .filter(|(label, image)| right(*label, image))
                .count() as f64
                / count as f64
        };
        let mean = |total: u64| total / count as u64;
        let of = |unit, time: u64| (self.unit == Some(unit)).then(|| mean(time));
        // Nanoseconds are few for a small network: their mean keeps its fraction.
        let seconds = |time: u64| {
            let nanoseconds = time as f64 / count as f64;
            (self.unit == Some(TimeUnit::Nanoseconds)).then_some(nanoseconds / 1e9)
        };
        let total: u64 = self.stages.iter().fold(0, |a, b| a.saturating_add(*b));
        let busy_of = |unit| self.busy.and_then(|busy| of(unit, busy));
        let steps = self.deployment.steps.iter().zip(&self.stages);
        let stages = steps.map(|(step, &time)| StageReport {
            name: step.name.clone(),
            instructions: of(TimeUnit::Instructions, time),
            cycles: of(TimeUnit::Cycles, time),
            seconds: seconds(time),
            level: step.level,
            scale_log2: step.scale_log2,
            bytes: step.bytes,
        });
        let cpu_ms = self.cpu.map(|cpu| 1e3 * cpu.as_secs_f64() / count as f64);
        InferReport {
            device,
            model,
            weights: self.deployment.weights,
            sums: self.deployment.sums,
            packing: self.deployment.packing,
            params: ParamsReport::at_level(self.deployment.params, self.deployment.level),
            accuracy: share(|label, image| image.predicted == label),
            plain_accuracy: share(|label, image| image.plain_predicted == label),
            label_flips: classified()
                .filter(|(_, image)| image.predicted != image.plain_predicted)
                .count(),
            bytes_up: mean(self.up),
            bytes_down: mean(self.down),
            key_bytes_up: mean(self.keys_up),
            evaluator: EvaluatorReport {
                instructions: of(TimeUnit::Instructions, total),
                cycles: of(TimeUnit::Cycles, total),
                instructions_with_link: busy_of(TimeUnit::Instructions),
                cycles_with_link: busy_of(TimeUnit::Cycles),
                cpu_ms,
                wall_ms: seconds(total).map(|seconds| 1e3 * seconds),
                ram_static_bytes: self.memory.static_bytes,
                ram_stack_peak_bytes: self.memory.stack_peak_bytes,
                stages: stages.collect(),
            },
            wall_seconds: wall.as_secs_f64() / count as f64,
            cpu_seconds: cpu.as_secs_f64(),
            retries: self.retries,
            lost_devices: self.lost,
            fleet: self.exchanged,
            padding: None,
            unfinished: due.saturating_sub(self.images.len()) as u64,
            audited: self.audited,
            published: publications.map(|(allowed, spent)| PublishedReport {
                allowed,
                spent,
                answers: self.published,
                unpublished: self.unpublished,
            }),
            receipts: self.receipts,
            logit_error_six_sigma: self.deployment.logit_error.six_sigma,
            images: self.images,
        }
    }
}

impl Classified {
    /// What its error may be, by the plan's figure and by its own.
    #[must_use]
    pub fn allowed(&self, by_plan: f64) -> f64 {
        self.allowed_error.unwrap_or(by_plan)
    }

    /// Whether it is as near to the clear as that. What is no number is not.
    fn is_within(&self, by_plan: f64) -> bool {
        self.max_logit_error <= self.allowed(by_plan)
    }
}

/// Those of `images` that are unlike the samples of training, as
/// [`InferReport::unusual`] has it.
pub(super) fn unusual(images: &[ImageReport]) -> impl Iterator<Item = (usize, &Classified)> {
    let classified = images
        .iter()
        .filter_map(|i| Some((i.index, i.classified()?)));
    classified.filter(|(_, found)| {
        let own = found.allowed_error.unwrap_or_default();
        found.beyond_training && found.max_logit_error <= own
    })
}

/// A line about one of them.
pub(super) fn unusual_line(index: usize, found: &Classified, by_plan: f64) -> String {
    let label = match found.predicted == found.plain_predicted {
        true => "its label is the one in the clear",
        false => "its label is not the one in the clear",
    };
    let (error, own) = (found.max_logit_error, found.allowed(by_plan));
    format!(
        "sample {index} has values beyond those of training, and its logits are off by {error:.1e}: the plan says {by_plan:.1e} of others, its own values let expect {own:.1e}; {label}\n"
    )
}

impl InferReport {
    /// Largest error of a logit over all images.
    #[must_use]
    pub fn max_logit_error(&self) -> f64 {
        let classified = self.images.iter().filter_map(ImageReport::classified);
        clear::largest(classified.map(|image| image.max_logit_error))
    }

    /// Images that were refused.
    pub fn refusals(&self) -> impl Iterator<Item = (usize, &str)> {
        let images = self.images.iter();
        images.filter_map(|image| Some((image.index, image.refused()?)))
    }

    /// Images whose logits differ from those in the clear by more than they may, or
    /// are no numbers.
    pub fn beyond_plan(&self) -> impl Iterator<Item = &ImageReport> {
        let beyond = |image: &&ImageReport| {
            let classified = image.classified();
            let allowed = self.logit_error_six_sigma;
            classified.is_some_and(|image| !image.is_within(allowed))
        };
        self.images.iter().filter(beyond)
    }

    /// Samples with values beyond those of training, whose logits are as near to those in the
    /// clear as these values let expect, and further than the plan says: with their indices.
    pub fn unusual(&self) -> impl Iterator<Item = (usize, &Classified)> {
        unusual(&self.images)
    }

    /// How many images have an error beyond the plan's figure of usual ones.
    fn judged_by_themselves(&self) -> u64 {
        let classified = self.images.iter().filter_map(ImageReport::classified);
        classified
            .filter(|image| image.allowed_error.is_some())
            .count() as u64
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let e = &self.evaluator;
        let ram = u64::from(e.ram_static_bytes) + u64::from(e.ram_stack_peak_bytes);
        let mut rows = vec![
            ("device", self.device.clone()),
            ("model", self.model.clone()),
            (
                "parameters",
                format!(
                    "N = {}, log2(QP) = {:.1}, {} bit security",
                    self.params.n, self.params.log_qp, self.params.security_bits
                ),
            ),
            (
                "images",
                match self.refusals().count() {
                    0 => self.images.len().to_string(),
                    refused => format!("{}, {refused} of them refused", self.images.len()),
                },
            ),
            ("answers evaluated again", self.audited.to_string()),
            ("accuracy, encrypted", percent(self.accuracy)),
            ("accuracy, in the clear", percent(self.plain_accuracy)),
            ("labels changed by encryption", self.label_flips.to_string()),
            (
                "largest logit error",
                format!("{:.4}", self.max_logit_error()),
            ),
            (
                "bytes up per image",
                format!(
                    "{} (keys {})",
                    grouped(self.bytes_up),
                    grouped(self.key_bytes_up)
                ),
            ),
            ("bytes down per image", grouped(self.bytes_down)),
            (
                "evaluator memory",
                format!(
                    "{} bytes ({} static, {} stack)",
                    grouped(ram),
                    grouped(e.ram_static_bytes.into()),
                    grouped(e.ram_stack_peak_bytes.into())
                ),
            ),
            (
                "wall-clock seconds per image",
                format!("{:.3}", self.wall_seconds),
            ),
        ];
        let of_fleet = |count: fn(&Exchanged) -> u64| self.fleet.as_ref().map_or(0, count);
        for (what, count) in [
            (
                "sent to the fleet again",
                of_fleet(|fleet| fleet.sent_again),
            ),
            ("put aside by workers", of_fleet(|fleet| fleet.put_aside)),
            ("answered twice", of_fleet(|fleet| fleet.doubled)),
            ("stale answers", of_fleet(|fleet| fleet.stale)),
            (
                "errors judged by the sample's own limit",
                self.judged_by_themselves(),
            ),
            ("tried again", self.retries),
            ("unfinished", self.unfinished),
        ] {
            if count > 0 {
                rows.push((what, count.to_string()));
            }
        }
        if let Some(padding) = &self.padding {
            rows.push((
                "padded",
                format!(
                    "{} cells, one per {} ms, {} of them late",
                    grouped(padding.cells),
                    padding.every_ms,
                    padding.late
                ),
            ));
        }
        if let Some(count) = e.instructions {
            rows.push(("instructions per image, link excluded", grouped(count)));
        }
        if let Some(count) = e.instructions_with_link {
            rows.push(("instructions per image, link included", grouped(count)));
        }
        if let Some(count) = e.cycles {
            rows.push(("cycles per image, link excluded", grouped(count)));
        }
        if let Some(count) = e.cycles_with_link {
            rows.push(("cycles per image, link included", grouped(count)));
        }
        if let Some(wall) = e.wall_ms {
            rows.push(("evaluator, ms per image by the clock", format!("{wall:.2}")));
        }
        if let Some(cpu) = e.cpu_ms {
            rows.push((
                "evaluator, ms per image of the processor",
                format!("{cpu:.2}"),
            ));
        }
        let mut out = format!("{}\n{}", facts(&rows), self.stage_table());
        for LostDevice { device, why } in &self.lost_devices {
            out.push_str(&format!("{device} {why}\n"));
        }
        for (worker, count) in self.fleet.iter().flat_map(|fleet| &fleet.refused_of) {
            out.push_str(&format!(
                "{count} results of a worker that calls itself {worker} were refused\n"
            ));
        }
        for (index, sentence) in self.refusals() {
            out.push_str(&format!("image {index} was refused: {sentence}\n"));
        }
        for (index, found) in self.unusual() {
            out.push_str(&unusual_line(index, found, self.logit_error_six_sigma));
        }
        if let Some(published) = &self.published {
            out.push('\n');
            out.push_str(&published.text());
        }
        out
    }

    /// Step by step.
    fn stage_table(&self) -> String {
        let unit = match (self.evaluator.instructions, self.evaluator.cycles) {
            (Some(_), _) => "instructions per image",
            (_, Some(_)) => "cycles per image",
            _ => "ms per image",
        };
        let row = |stage: &StageReport| {
            let counted = stage.instructions.or(stage.cycles).map(grouped);
            let timed = stage.seconds.map(|s| format!("{:.3}", 1e3 * s));
            [
                stage.name.clone(),
                counted.or(timed).unwrap_or_default(),
                stage.level.to_string(),
                format!("2^{:.2}", stage.scale_log2),
                bytes(stage.bytes as u64),
            ]
        };
        let rows: Vec<[String; 5]> = self.evaluator.stages.iter().map(row).collect();
        let header = [
            "layer",
            unit,
            "level before",
            "scale after",
            "ciphertexts after",
        ];
        table(header, &rows)
    }
}
