//! What somebody learns who sees how long an evaluator works at each step (`infer --trace`),
//! or sizes and times on a link: of the data, of the weights, of the model.
//!
//! Kinds of inferences take turns in an order drawn by coins, and a classifier learns to
//! tell two apart ([`attacks::leakage::observer`]). Two samples of one model, and two
//! models that differ in their weights alone, must look alike; another model, other keys
//! and encrypted weights are controls, which must be told. Of keys sizes tell as much as
//! the bytes do, which are the same in every inference: framing lengthens a message by
//! its bytes, so that a link shows which inferences are under one key. Hence data and
//! weights are compared under the same keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attacks::leakage::observer::{Features, advantage};
use attacks::leakage::{Line, Verdict};
use chacha20::ChaCha8Rng;
use he_core::ring::kernel;
use he_nn::bundled;
use he_nn::data::Image;
use he_nn::model::{Layer, Model, Sample};
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::progress::Progress;
use rand_core::SeedableRng;

use super::{Settings, TimingError, finite};
use crate::client::{Client, Keys, Padding};
use crate::device::duplex::Duplex;
use crate::device::{Connection, Direction};
use crate::engine::Engine;
use crate::evaluator;
use crate::planning;
use crate::service::{ServiceError, engine_of};

/// The model that is looked at, and one that it is told from.
const MODEL: &str = "mnist-mlp64";
const OTHER: &str = "mnist-cryptonets";

/// Inferences per kind of a quick run: in memory they take milliseconds, over a link, with
/// all keys, a hundred times that.
const IN_MEMORY: usize = 100;
const ON_A_LINK: usize = 40;

/// A model of the same ring that takes the same samples: sizes and times tell them apart,
/// and one class of uploads holds both.
const LIKE: &str = "fashion-cryptonets";

/// What the link is padded to: the largest upload is the first of `MODEL`, or of
/// `LIKE`, with all keys. An evaluator in this process is done with a cell in less than
/// half of the time.
pub const PADDING: Padding = Padding {
    up: 5 << 19,
    down: 1 << 16,
    every: Duration::from_millis(5),
};

/// Of the keys that data and weights are compared under.
const KEYS: [u8; 32] = [1; 32];

/// One in so many weights of the twin is not zero.
const SPARSE: usize = 10;

/// Standard deviations of guessing beyond which an advantage counts: one in 200 guessers
/// gets there.
const DEVIATIONS: f64 = 2.576;

/// A model whose weights are those of `file`, but for nine tenths, which are zero. Its plan
/// is the same, as the ranges of its values stay.
fn sparse(model: &Model<'_>) -> Vec<u8> {
    let mut file = model.file().to_vec();
    let start = model.file().as_ptr().addr();
    for view in model.layers() {
        let (Layer::Conv2d { linear, .. } | Layer::Dense { linear, .. }) = view.layer else {
            continue;
        };
        // Weights lie in the file as they are.
        let bytes = linear.weights.bytes();
        let at = bytes.as_ptr().addr() - start;
        let weights = file[at..at + bytes.len()].chunks_mut(linear.weights.width());
        let zeros = weights.enumerate().filter(|(i, _)| i % SPARSE != 0);
        zeros.for_each(|(_, weight)| weight.fill(0));
    }
    let body = file.len() - 4;
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&file[..body]);
    file[body..].copy_from_slice(&crc.to_le_bytes());
    file
}

/// Models, each parsed from its file.
struct Files {
    dense: &'static [u8],
    sparse: Vec<u8>,
    other: &'static [u8],
}

fn parse(file: &[u8]) -> Result<Model<'_>, TimingError> {
    Ok(Model::parse(file)?)
}

impl Files {
    fn new() -> Result<Self, TimingError> {
        let bundled = |name| bundled::model(name).unwrap_or_default();
        let dense = bundled(MODEL);
        Ok(Self {
            sparse: sparse(&parse(dense)?),
            dense,
            other: bundled(OTHER),
        })
    }
}

/// Something that answers samples and shows what an observer sees of it.
trait Observed {
    fn observe(&mut self, image: &Image) -> Result<Vec<Features>, TimingError>;
}

/// An evaluator in memory, of which the time of every step is seen.
struct InMemory<'m> {
    client: Client<'m>,
    engine: Engine,
}

impl<'m> InMemory<'m> {
    fn new(model: Model<'m>, weights: WeightMode) -> Result<Self, TimingError> {
        let plan = planning::plan(None, model, weights, Target::Host);
        let mut client = Client::new(plan.map_err(ServiceError::from)?)?;
        let (engine, _) = engine_of(&mut client)?;
        Ok(Self { client, engine })
    }
}

impl Observed for InMemory<'_> {
    fn observe(&mut self, image: &Image) -> Result<Vec<Features>, TimingError> {
        let request = self.client.encrypt(Sample::from(image))?;
        let input = request.bytes(self.client.plan().params());
        let input = input.map_err(ServiceError::from)?;
        let evaluated = self.engine.evaluate(&input);
        let (_, times) = evaluated.map_err(ServiceError::from)?;
        let all = std::iter::once(&times.input).chain(&times.steps);
        // Interruptions make a few times very long.
        let logarithms = all.map(|time| (time.as_nanos().max(1) as f64).ln());
        Ok(vec![padded(logarithms.collect())])
    }
}

/// Models have different numbers of steps: an observer sees zeros after the last.
fn padded(mut features: Features) -> Features {
    const STEPS: usize = 16;
    features.resize(features.len().max(STEPS), 0.0);
    features
}

/// What is seen of one inference on a link.
#[derive(Default)]
struct Seen {
    frames: Vec<(Direction, usize, Instant)>,
}

/// An evaluator behind a link.
struct Linked<'m> {
    client: Client<'m>,
    link: Connection<Duplex>,
    seen: Arc<Mutex<Seen>>,
    /// Every sample is the first of a link, with all keys.
    is_first: bool,
    /// Cells that were late, where it is padded.
    late: u64,
}

impl<'m> Linked<'m> {
    fn new(model: Model<'m>, weights: WeightMode, seed: &[u8; 32]) -> Result<Self, TimingError> {
        let plan = planning::plan(None, model, weights, Target::STREAM);
        let plan = plan.map_err(ServiceError::from)?;
        let keys = Keys::from_seed(plan.params(), seed)?;
        let seen = Arc::<Mutex<Seen>>::default();
        Ok(Self {
            link: connect(&plan, &seen)?,
            client: Client::with_keys(plan, keys)?,
            seen,
            is_first: false,
            late: 0,
        })
    }

    fn padded(mut self, padding: Option<Padding>) -> Self {
        self.client.set_padding(padding);
        self
    }
}

/// An evaluator in a thread, and a link to it on which everything is seen.
fn connect(plan: &Plan<'_>, seen: &Arc<Mutex<Seen>>) -> Result<Connection<Duplex>, TimingError> {
    let end = evaluator::in_process(plan).map_err(ServiceError::from)?;
    let mut link = Connection::new(end);
    let recorder = seen.clone();
    link.record(move |way, bytes| {
        let mut seen = recorder.lock().unwrap_or_else(PoisonError::into_inner);
        seen.frames.push((way, bytes.len(), Instant::now()));
    });
    Ok(link)
}

impl Observed for Linked<'_> {
    /// Sizes, then times.
    fn observe(&mut self, image: &Image) -> Result<Vec<Features>, TimingError> {
        if self.is_first {
            self.link = connect(self.client.plan(), &self.seen)?;
        }
        let start = Instant::now();
        let inference = self.client.infer(&mut self.link, image, &mut ())?;
        self.late += inference.padded.map_or(0, |padded| padded.late);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = std::mem::take(&mut seen.frames);
        let of = |way| frames.iter().filter(move |frame| frame.0 == way);
        let bytes = |way| of(way).map(|frame| frame.1 as f64).sum::<f64>();
        // Frames of what size, and where: the first quarter of the bytes, the second, ..
        let mut quarters = [0.0; 4];
        for (i, frame) in of(Direction::Up).enumerate() {
            let quarter = 4 * i / of(Direction::Up).count().max(1);
            quarters[quarter.min(3)] += frame.1 as f64;
        }
        let sizes = [
            bytes(Direction::Up),
            bytes(Direction::Down),
            of(Direction::Up).count() as f64,
        ];
        let sizes: Features = sizes.into_iter().chain(quarters).collect();
        // On a padded link it is the first cell that the sample's time is seen by.
        let start = match inference.padded {
            Some(_) => frames.first().map_or(start, |frame| frame.2),
            None => start,
        };
        let after = |frame: Option<&(Direction, usize, Instant)>| {
            let time = frame.map_or(0.0, |frame| frame.2.duration_since(start).as_secs_f64());
            time.max(1e-9).ln()
        };
        let middle = frames.len() / 2;
        let times = vec![
            after(of(Direction::Down).next()),
            after(frames.get(middle / 2)),
            after(frames.get(middle)),
            after(frames.get(middle + middle / 2)),
            after(frames.last()),
        ];
        Ok(vec![sizes, times])
    }
}

/// A question: what two kinds differ in, which they are, and whether they must be told.
struct Question {
    about: &'static str,
    kinds: [usize; 2],
    control: bool,
    /// Asked of the first view alone: what differs in sizes need not differ in time.
    first_alone: bool,
}

const fn question(about: &'static str, other: usize, control: bool) -> Question {
    Question {
        about,
        kinds: [0, other],
        control,
        first_alone: false,
    }
}

/// Of sizes alone, a control.
const fn of_sizes(about: &'static str, other: usize) -> Question {
    Question {
        first_alone: true,
        ..question(about, other, true)
    }
}

/// Runs kinds, each an evaluator and a sample, in turns, `count` of each, and asks the
/// questions of what was seen.
fn ask(
    evaluators: &mut [&mut dyn Observed],
    kinds: &[(usize, &Image)],
    views: &[&str],
    questions: &[Question],
    (experiment, count): (&str, usize),
    rng: &mut ChaCha8Rng,
    progress: &mut dyn Progress,
) -> Result<Vec<Line>, TimingError> {
    let mut seen: Vec<Vec<Vec<Features>>> = vec![vec![Vec::new(); views.len()]; kinds.len()];
    progress.start((count + 1) as u64);
    progress.note(experiment);
    for round in 0..=count {
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        attacks::random::shuffle(&mut order, rng);
        for kind in order {
            let (evaluator, image) = kinds[kind];
            let views = evaluators[evaluator].observe(image)?;
            // The first round fills caches.
            if round > 0 {
                for (all, view) in seen[kind].iter_mut().zip(views) {
                    all.push(view);
                }
            }
        }
        progress.advance(1);
    }
    progress.finish();
    let mut lines = Vec::new();
    for (at, view) in views.iter().enumerate() {
        let asked = questions.iter();
        for question in asked.filter(|question| at == 0 || !question.first_alone) {
            let [a, b] = question.kinds.map(|kind| &seen[kind][at][..]);
            let Some(found) = advantage([a, b]) else {
                return Err(TimingError::Few {
                    got: count,
                    least: 4,
                });
            };
            let judged = a.len() / 2 + b.len() / 2;
            let threshold = DEVIATIONS / (judged as f64).sqrt();
            let operation = format!("{} by {view}", question.about);
            lines.push(Line {
                experiment: experiment.into(),
                operation,
                target: format!("{MODEL} inproc {}", kernel::backend()),
                statistic: "advantage".into(),
                value: finite(found.value),
                threshold,
                samples: (a.len() + b.len()) as u64,
                control: question.control,
                // An advantage that would be certain to be seen is one of a half or more.
                verdict: Verdict::of(found.value, threshold, threshold < 0.5),
                details: [("ci95".into(), found.ci95.to_vec().into())].into(),
            });
        }
    }
    Ok(lines)
}

/// Two digits that were drawn for this project, of different classes.
fn digits() -> Result<[Image; 2], TimingError> {
    let digits = bundled::digits()?;
    match digits.images[..] {
        [first, second, ..] => Ok([first, second]),
        _ => Err(TimingError::Few { got: 0, least: 2 }),
    }
}

/// Times of the steps of an evaluator in memory.
///
/// # Errors
/// [`TimingError`].
pub fn stages(settings: &Settings, progress: &mut dyn Progress) -> Result<Vec<Line>, TimingError> {
    let (files, [one, two]) = (Files::new()?, digits()?);
    let mut dense = InMemory::new(parse(files.dense)?, WeightMode::Plain)?;
    let mut sparse = InMemory::new(parse(&files.sparse)?, WeightMode::Plain)?;
    let mut other = InMemory::new(parse(files.other)?, WeightMode::Plain)?;
    ask(
        &mut [&mut dense, &mut sparse, &mut other],
        &[(0, &one), (0, &two), (1, &one), (2, &one)],
        &["time of stages"],
        &[
            question("data", 1, false),
            question("weights", 2, false),
            question("model", 3, true),
        ],
        ("stages", settings.samples.unwrap_or(IN_MEMORY)),
        &mut ChaCha8Rng::seed_from_u64(settings.seed),
        progress,
    )
}

/// Sizes and times on a link.
///
/// # Errors
/// [`TimingError`].
pub fn link(settings: &Settings, progress: &mut dyn Progress) -> Result<Vec<Line>, TimingError> {
    let (files, [one, two]) = (Files::new()?, digits()?);
    let (plain, encrypted) = (WeightMode::Plain, WeightMode::Encrypted);
    let mut dense = Linked::new(parse(files.dense)?, plain, &KEYS)?;
    let mut sparse = Linked::new(parse(&files.sparse)?, plain, &KEYS)?;
    let mut other = Linked::new(parse(files.other)?, plain, &KEYS)?;
    let mut encrypted = Linked::new(parse(files.dense)?, encrypted, &KEYS)?;
    ask(
        &mut [&mut dense, &mut sparse, &mut other, &mut encrypted],
        &[(0, &one), (0, &two), (1, &one), (2, &one), (3, &one)],
        &["sizes", "times"],
        &[
            question("data and answer", 1, false),
            question("weights", 2, false),
            question("model", 3, true),
            of_sizes("encrypted weights", 4),
        ],
        ("link", settings.samples.unwrap_or(ON_A_LINK)),
        &mut ChaCha8Rng::seed_from_u64(settings.seed),
        progress,
    )
}

/// Sizes and times on a link that is padded, and on the same without padding as a control.
///
/// # Errors
/// [`TimingError`].
pub fn padding(
    settings: &Settings,
    padding: Padding,
    progress: &mut dyn Progress,
) -> Result<Vec<Line>, TimingError> {
    let (files, [one, two]) = (Files::new()?, digits()?);
    let like = bundled::model(LIKE).unwrap_or_default();
    let (plain, encrypted) = (WeightMode::Plain, WeightMode::Encrypted);
    let mut lines = Vec::new();
    for padding in [None, Some(padding)] {
        // Each under keys of its own, by which an open link tells them apart too.
        let new = |file, weights, seed: u8| {
            let linked = Linked::new(parse(file)?, weights, &[seed; 32])?;
            Ok::<_, TimingError>(linked.padded(padding))
        };
        let mut all = [
            new(files.dense, plain, 1)?,
            new(&files.sparse, plain, 2)?,
            new(like, plain, 3)?,
            new(files.dense, encrypted, 4)?,
            new(files.dense, plain, 5)?,
        ];
        all[4].is_first = true;
        let [dense, sparse, like, encrypted, first] = &mut all;
        let is_open = padding.is_none();
        let asked = |about, other| question(about, other, is_open);
        let mut questions = vec![asked("model", 3), asked("first image", 5)];
        // What tells nothing without padding is no control.
        match is_open {
            true => questions.push(of_sizes("encrypted weights", 4)),
            false => questions.extend([
                asked("encrypted weights", 4),
                asked("data and answer", 1),
                asked("weights and keys", 2),
            ]),
        }
        let experiment = if is_open { "open link" } else { "padding" };
        let new = ask(
            &mut [dense, sparse, like, encrypted, first],
            &[
                (0, &one),
                (0, &two),
                (1, &one),
                (2, &one),
                (3, &one),
                (4, &one),
            ],
            &["sizes", "times"],
            &questions,
            (experiment, settings.samples.unwrap_or(ON_A_LINK)),
            &mut ChaCha8Rng::seed_from_u64(settings.seed),
            progress,
        )?;
        let late: u64 = all.iter().map(|linked| linked.late).sum();
        for mut line in new {
            line.experiment = "padding".into();
            line.operation = match is_open {
                true => format!("{}, not padded", line.operation),
                false => format!("{}, padded", line.operation),
            };
            if !is_open {
                line.details.insert("late_cells".into(), late.into());
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use he_nn::model::Integers;

    use super::*;

    /// Sizes are not noise: of the same model they tell nothing of data and weights, of
    /// another one everything.
    #[test]
    fn sizes_on_a_link_tell_the_model_alone() {
        let settings = Settings {
            samples: Some(8),
            smallest_leak: 0.01,
            seed: 1,
        };
        let lines = link(&settings, &mut ()).unwrap();
        assert_eq!(lines.len(), 7);
        for line in lines
            .iter()
            .filter(|line| line.operation.ends_with("sizes"))
        {
            match line.control {
                true => assert_eq!((line.value, line.verdict), (1.0, Verdict::Leak), "{line:?}"),
                false => assert!(line.verdict != Verdict::Leak, "{line:?}"),
            }
        }
    }

    /// Sizes of whatever is evaluated are equal to the byte where the link is padded: the
    /// classifier guesses. Times are measured by the command, on an idle machine.
    #[test]
    fn sizes_on_a_padded_link_tell_nothing() {
        let settings = Settings {
            samples: Some(4),
            smallest_leak: 0.01,
            seed: 1,
        };
        let lines = padding(&settings, PADDING, &mut ()).unwrap();
        assert_eq!(lines.len(), 15);
        let sizes = lines.iter().filter(|line| line.operation.contains("sizes"));
        for line in sizes {
            let expected = if line.control { 1.0 } else { 0.0 };
            assert_eq!(line.value, expected, "{line:?}");
        }
    }

    #[test]
    fn the_sparse_twin_has_the_same_plan() {
        let files = Files::new().unwrap();
        let [dense, twin] = [files.dense, &files.sparse].map(|file| {
            let model = parse(file).unwrap();
            planning::plan(None, model, WeightMode::Plain, Target::STREAM).unwrap()
        });
        let zeros = |model: &Model<'_>| {
            let weights = model.layers().filter_map(|view| match view.layer {
                Layer::Conv2d { linear, .. } | Layer::Dense { linear, .. } => Some(linear.weights),
                _ => None,
            });
            weights.flat_map(Integers::iter).filter(|&w| w == 0).count()
        };
        let weights = 784 * 64 + 64 * 10;
        assert!(zeros(twin.model()) >= weights * 9 / 10 - 10);
        assert!(zeros(dense.model()) < weights / 2);
        assert_eq!(dense.total_cost(), twin.total_cost());
    }
}
