//! Results: one JSON line each, kept so that an interrupted run continues.
//!
//! An attack works in steps; a [`Step`] says which attack on which target, data and
//! parameters. All records of a step carry its fields and their number, so that
//! whoever reads the lines knows which steps are whole. A step that is whole is not
//! computed again; one that was cut short is, and the last line counts.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::stats::Estimate;

/// How much work a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Minutes: fewer samples and smaller sweeps.
    Quick,
    /// What the report stands on.
    Full,
}

/// What a figure says about the attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It beats its baseline beyond the interval.
    Success,
    /// It does no better than its baseline, with an interval that rules it out.
    Failure,
    /// The interval holds both.
    Inconclusive,
    /// The target does not give the access that it needs: no defence was tried.
    NotApplicable,
}

/// What one step is: equal steps are the same work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// Name of the attack.
    pub attack: String,
    /// Name of the target.
    pub target: String,
    /// Name of the data.
    pub dataset: String,
    /// Parameters, as JSON.
    pub params: Map<String, Value>,
    /// How much work.
    pub scale: Scale,
    /// Of everything random.
    pub seed: u64,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the attack.
    pub attack: String,
    /// Commit of the sources that computed it.
    pub commit: String,
    /// Name of the target.
    pub target: String,
    /// Name of the data.
    pub dataset: String,
    /// What is measured.
    pub metric: String,
    /// The value; none where the attack was not applicable.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub ci95: Option<[f64; 2]>,
    /// What it is compared with, by name.
    pub baseline: BTreeMap<String, f64>,
    /// The paper's figure.
    pub paper: Option<f64>,
    /// Queries that the step took so far.
    pub queries: u64,
    /// Of everything random.
    pub seed: u64,
    /// Parameters of the attack.
    pub params: Map<String, Value>,
    /// What it says about the attack; none for a plain measurement.
    pub verdict: Option<Verdict>,
    /// Why, in one sentence, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Wall time of the step.
    pub seconds: f64,
    /// How much work.
    pub scale: Scale,
    /// Records of this step.
    pub parts: usize,
}

impl Record {
    /// The step that it belongs to.
    #[must_use]
    pub fn step(&self) -> Step {
        Step {
            attack: self.attack.clone(),
            target: self.target.clone(),
            dataset: self.dataset.clone(),
            params: self.params.clone(),
            scale: self.scale,
            seed: self.seed,
        }
    }

    /// Its line, without the newline.
    ///
    /// # Errors
    /// serde's; none for a record made here.
    pub fn line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// A line that is no record.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the records cannot be read ({source}); remove it")]
pub struct LineError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub source: serde_json::Error,
}

/// Reads lines as they were appended. A last line without its newline was cut short and
/// is left out; its step is then computed again.
///
/// # Errors
/// [`LineError`] for any other line that is no record.
pub fn parse(lines: &str) -> Result<Vec<Record>, LineError> {
    let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbered = whole.lines().enumerate();
    let filled = numbered.filter(|(_, line)| !line.trim().is_empty());
    let records = filled.map(|(index, line)| {
        serde_json::from_str(line).map_err(|source| LineError {
            line: index + 1,
            source,
        })
    });
    records.collect()
}

/// One figure as an attack states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    metric: String,
    estimate: Option<Estimate>,
    baseline: BTreeMap<String, f64>,
    paper: Option<f64>,
    verdict: Option<Verdict>,
    reason: Option<String>,
}

impl Finding {
    /// A value with its interval.
    #[must_use]
    pub fn new(metric: &str, estimate: Estimate) -> Self {
        Self {
            metric: metric.to_owned(),
            estimate: Some(estimate),
            baseline: BTreeMap::new(),
            paper: None,
            verdict: None,
            reason: None,
        }
    }

    /// That an attack could not be tried.
    #[must_use]
    pub fn not_applicable(reason: &str) -> Self {
        Self {
            metric: "applicability".to_owned(),
            estimate: None,
            baseline: BTreeMap::new(),
            paper: None,
            verdict: Some(Verdict::NotApplicable),
            reason: Some(reason.to_owned()),
        }
    }

    /// What is measured.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.estimate.map(|estimate| estimate.value)
    }

    /// With something to compare with.
    #[must_use]
    pub fn baseline(mut self, name: &str, value: f64) -> Self {
        self.baseline.insert(name.to_owned(), value);
        self
    }

    /// With the paper's figure, from [`crate::paper::figure`].
    #[must_use]
    pub const fn paper(mut self, value: Option<f64>) -> Self {
        self.paper = value;
        self
    }

    /// With a verdict and why.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict, reason: &str) -> Self {
        self.verdict = Some(verdict);
        self.reason = Some(reason.to_owned());
        self
    }

    /// With a sentence on how to read it, whatever the verdict.
    #[must_use]
    pub fn remark(mut self, remark: &str) -> Self {
        self.reason = Some(remark.to_owned());
        self
    }

    /// With the verdict that the interval gives where an attack drives the value
    /// below what it is without one.
    #[must_use]
    pub fn succeeds_below(mut self, without: Estimate) -> Self {
        self.verdict = self.estimate.map(|found| {
            if found.ci95[1] < without.ci95[0] {
                Verdict::Success
            } else if found.value >= without.value {
                Verdict::Failure
            } else {
                Verdict::Inconclusive
            }
        });
        self
    }

    /// With the verdict that the interval gives where an attack succeeds by exceeding
    /// a value, such as 0.5 for an AUC, by more than `margin`; a whole interval within
    /// the margin is a failure.
    #[must_use]
    pub fn succeeds_above(mut self, without: f64, margin: f64) -> Self {
        self.verdict = self.estimate.map(|found| {
            if found.ci95[0] > without + margin {
                Verdict::Success
            } else if found.ci95[1] <= without + margin {
                Verdict::Failure
            } else {
                Verdict::Inconclusive
            }
        });
        self
    }
}

/// Something to look at: made into a picture by whoever draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Picture {
    /// Grey images in a grid.
    Images {
        /// Pixels per row of an image.
        width: usize,
        /// Captions of the columns.
        columns: Vec<String>,
        /// Row after row of the grid; pixels from 0 to 1.
        images: Vec<Vec<f32>>,
    },
    /// Curves over one axis.
    Curves {
        /// What the horizontal axis is, with its unit.
        x: String,
        /// What the vertical axis is, with its unit.
        y: String,
        /// Whether both axes are logarithmic, as for a ROC at small rates.
        logarithmic: bool,
        /// Names and points.
        curves: Vec<(String, Vec<(f64, f64)>)>,
    },
}

/// What a sink said.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps records and pictures. This crate knows no files; whoever runs it does.
pub trait Sink {
    /// Appends the records of one step, in one piece if it can.
    ///
    /// # Errors
    /// The sink's.
    fn append(&mut self, records: &[Record]) -> Result<(), SinkError>;

    /// Keeps a picture under a name of letters, digits, `-` and `.`; one of the same
    /// name is replaced.
    ///
    /// # Errors
    /// The sink's.
    fn picture(&mut self, name: &str, picture: &Picture) -> Result<(), SinkError>;
}

/// In memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Records as they came.
    pub records: Vec<Record>,
    /// Pictures by name.
    pub pictures: BTreeMap<String, Picture>,
}

impl Sink for Memory {
    fn append(&mut self, records: &[Record]) -> Result<(), SinkError> {
        self.records.extend_from_slice(records);
        Ok(())
    }

    fn picture(&mut self, name: &str, picture: &Picture) -> Result<(), SinkError> {
        self.pictures.insert(name.to_owned(), picture.clone());
        Ok(())
    }
}

/// Writes to a sink what is not there yet.
pub struct Recorder<'s> {
    sink: &'s mut dyn Sink,
    commit: String,
    /// Records seen of each step.
    seen: HashMap<Step, Vec<Record>>,
}

impl<'s> Recorder<'s> {
    /// A recorder for sources of this commit, which goes on from these records.
    pub fn new(sink: &'s mut dyn Sink, commit: &str, present: Vec<Record>) -> Self {
        let mut seen: HashMap<Step, Vec<Record>> = HashMap::new();
        for record in present {
            let records = seen.entry(record.step()).or_default();
            records.retain(|old| old.metric != record.metric);
            records.push(record);
        }
        Self {
            sink,
            commit: commit.to_owned(),
            seen,
        }
    }

    /// The records of a step if all of them are there.
    #[must_use]
    pub fn whole(&self, step: &Step) -> Option<&[Record]> {
        let records = self.seen.get(step)?;
        let parts = records.last()?.parts;
        let of_last = records.iter().filter(|record| record.parts == parts);
        (of_last.count() == parts).then_some(records)
    }

    /// Writes the findings of a step. Two of one metric are an error of the attack,
    /// as are values that are no numbers.
    pub(crate) fn write(
        &mut self,
        step: &Step,
        findings: Vec<Finding>,
        queries: u64,
        seconds: f64,
    ) -> Result<(), RecordError> {
        let mut records: Vec<Record> = Vec::new();
        let parts = findings.len();
        for finding in findings {
            let metric = finding.metric;
            if records.iter().any(|record| record.metric == metric) {
                return Err(RecordError::Twice { metric });
            }
            let numbers = finding
                .estimate
                .iter()
                .flat_map(|e| [e.value, e.ci95[0], e.ci95[1]]);
            let mut numbers = numbers.chain(finding.baseline.values().copied());
            if numbers.any(|x| !x.is_finite()) {
                return Err(RecordError::NotFinite { metric });
            }
            records.push(Record {
                attack: step.attack.clone(),
                commit: self.commit.clone(),
                target: step.target.clone(),
                dataset: step.dataset.clone(),
                metric,
                value: finding.estimate.map(|e| e.value),
                ci95: finding.estimate.map(|e| e.ci95),
                baseline: finding.baseline,
                paper: finding.paper,
                queries,
                seed: step.seed,
                params: step.params.clone(),
                verdict: finding.verdict,
                reason: finding.reason,
                seconds,
                scale: step.scale,
                parts,
            });
        }
        if records.is_empty() {
            return Err(RecordError::Nothing);
        }
        // A step that still does not apply, for the same reason, stands there already.
        let refusals = |of: &[Record]| -> Option<Vec<Option<String>>> {
            let refused = of.iter().all(|record| record.value.is_none());
            refused.then(|| of.iter().map(|record| record.reason.clone()).collect())
        };
        let before = self.whole(step).and_then(refusals);
        if before.is_some() && before == refusals(&records) {
            return Ok(());
        }
        self.sink.append(&records).map_err(RecordError::Sink)?;
        self.seen.insert(step.clone(), records);
        Ok(())
    }

    /// Keeps a picture.
    ///
    /// # Errors
    /// The sink's.
    pub fn picture(&mut self, name: &str, picture: &Picture) -> Result<(), RecordError> {
        self.sink.picture(name, picture).map_err(RecordError::Sink)
    }
}

/// Why a step left no records.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A metric twice in one step.
    #[error("the metric {metric} was found twice in one step")]
    Twice {
        /// Its name.
        metric: String,
    },
    /// A value that is no number.
    #[error("the metric {metric} or one of its baselines is infinite or no number")]
    NotFinite {
        /// Its name.
        metric: String,
    },
    /// A step without a finding, which would be computed for ever.
    #[error("a step found nothing")]
    Nothing,
    /// The sink's.
    #[error("a record could not be kept: {0}")]
    Sink(SinkError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::wilson;

    fn step(eps: f64) -> Step {
        let mut params = Map::new();
        params.insert("eps".into(), eps.into());
        Step {
            attack: "fgsm".into(),
            target: "t".into(),
            dataset: "digits".into(),
            params,
            scale: Scale::Quick,
            seed: 7,
        }
    }

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new("accuracy", wilson(1, 20)).baseline("chance", 0.1),
            Finding::new("label_flips", wilson(0, 20)),
        ]
    }

    fn lines(records: &[Record]) -> String {
        records
            .iter()
            .map(|record| record.line().unwrap() + "\n")
            .collect()
    }

    #[test]
    fn a_run_goes_on_where_it_stopped() {
        let mut memory = Memory::default();
        let mut recorder = Recorder::new(&mut memory, "abc", Vec::new());
        recorder.write(&step(0.1), findings(), 40, 1.5).unwrap();
        recorder.write(&step(0.3), findings(), 40, 1.5).unwrap();
        assert!(recorder.whole(&step(0.3)).is_some() && recorder.whole(&step(0.2)).is_none());
        let text = lines(&memory.records);
        assert_eq!(parse(&text).unwrap(), memory.records);

        // Cut within the last line, and before it: the second step is not whole.
        for cut in [
            text.len() - 5,
            text[..text.len() - 1].rfind('\n').unwrap() + 1,
        ] {
            let present = parse(&text[..cut]).unwrap();
            assert_eq!(present.len(), 3);
            let mut again = Memory::default();
            let mut recorder = Recorder::new(&mut again, "abc", present);
            assert!(recorder.whole(&step(0.1)).is_some() && recorder.whole(&step(0.3)).is_none());
            recorder.write(&step(0.3), findings(), 40, 1.5).unwrap();
            // What stands in the file then, the old half and the whole.
            let all = [parse(&text[..cut]).unwrap(), again.records].concat();
            let mut nothing = Memory::default();
            let recorder = Recorder::new(&mut nothing, "abc", all);
            assert_eq!(recorder.whole(&step(0.3)).unwrap().len(), 2);
        }
        let error = parse("{}\n").unwrap_err();
        assert!(error.to_string().starts_with("line 1 "), "{error}");
    }

    #[test]
    fn the_line_has_the_agreed_fields() {
        let mut memory = Memory::default();
        let mut recorder = Recorder::new(&mut memory, "abc", Vec::new());
        recorder.write(&step(0.3), findings(), 40, 1.5).unwrap();
        let value: Value = serde_json::from_str(&memory.records[0].line().unwrap()).unwrap();
        for field in [
            "attack", "commit", "target", "dataset", "metric", "value", "ci95", "baseline",
            "paper", "queries", "seed",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert_eq!(value["baseline"]["chance"], 0.1);
        assert_eq!(value["ci95"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn findings_that_say_nothing_are_refused() {
        let mut memory = Memory::default();
        let mut recorder = Recorder::new(&mut memory, "abc", Vec::new());
        let twice = [findings(), findings()].concat();
        let error = recorder.write(&step(0.1), twice, 0, 0.0).unwrap_err();
        assert!(matches!(error, RecordError::Twice { .. }));
        let nan = vec![Finding::new("auc", wilson(1, 2)).baseline("chance", f64::NAN)];
        let error = recorder.write(&step(0.1), nan, 0, 0.0).unwrap_err();
        assert!(matches!(error, RecordError::NotFinite { .. }));
        let error = recorder.write(&step(0.1), Vec::new(), 0, 0.0).unwrap_err();
        assert!(matches!(error, RecordError::Nothing));
        assert!(memory.records.is_empty());
    }

    #[test]
    fn verdicts_follow_the_intervals() {
        let clean = wilson(95, 100);
        let verdict = |right| {
            Finding::new("accuracy", wilson(right, 100))
                .succeeds_below(clean)
                .verdict
        };
        assert_eq!(verdict(10), Some(Verdict::Success));
        assert_eq!(verdict(95), Some(Verdict::Failure));
        assert_eq!(verdict(92), Some(Verdict::Inconclusive));
        let verdict = |low, high| {
            let estimate = Estimate {
                value: (low + high) / 2.0,
                ci95: [low, high],
            };
            Finding::new("auc", estimate)
                .succeeds_above(0.5, 0.02)
                .verdict
        };
        assert_eq!(verdict(0.6, 0.7), Some(Verdict::Success));
        assert_eq!(verdict(0.48, 0.515), Some(Verdict::Failure));
        assert_eq!(verdict(0.45, 0.7), Some(Verdict::Inconclusive));
    }
}
