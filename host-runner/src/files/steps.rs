//! What `keygen`, `encrypt`, `evaluate` and `decrypt` do: an inference in steps over
//! files, of processes that share nothing else.
//!
//! | in the directory | is | for |
//! |---|---|---|
//! | `client/secret.key` | the sealed key | the client alone |
//! | `client/requests/ID.note` | what the client keeps of a request, sealed under its key | the client alone |
//! | `evaluator/evaluation.keys` | switching keys | the evaluator |
//!
//! Results are masked: an answer to one request, or to one of its units (a sample or a
//! batch), is noise for every other, and is refused. The client's note has the masks, and
//! what each sample gives in the clear; of a batch also the samples, by which errors of its
//! results are judged. What the note says is sealed, and what the result
//! file says of itself is not believed: it only finds the note.
//!
//! A refused result retires the key, also for the next process, and so does one whose
//! logits are further from those in the clear than they may be: an evaluator that adds
//! `(c0, c1)` to an honest result asks by that about the key, as by a wrap. And a request
//! takes one result: the first that is decrypted, or a label of which is published, is
//! marked in the note beforehand, durably, and every other is refused. The same one may be
//! opened again, which tells whoever made it nothing new.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use he_core::ckks::Ciphertext;
use he_core::ckks::publish::{Allowance, Budget, PublishError, publish_label};
use he_core::wire;
use he_nn::clear::{Allowed, largest_error};
use he_nn::model::{Input, Sample};
use he_nn::plan::Packing;
use he_nn::progress::Progress;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::heads::{
    check_output, check_writable, read, read_head, unwritten, write, write_again, write_new,
};
use super::planned::{AnyPlan, Planned, Sender};
use super::{
    Cost, Deployed, FileError, KeysHead, Kind, Passphrase, Problem, RequestHead, SealedError,
    SealedKey, start,
};
use crate::client::{ClientError, Mask};
use crate::engine::EngineError;
use crate::report::text::hex;
use crate::service::ServiceError;

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The sealed key.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The network does not fit, or an evaluation failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A class of a batch is a choice among ciphertexts.
    #[error("labels of batches are not published over files: use --packing latency")]
    Batch,
    /// Every sample was refused.
    #[error("all {count} samples were refused, the first, {index}, because {sentence}")]
    NoSample {
        /// How many.
        count: usize,
        /// The first.
        index: usize,
        /// Why.
        sentence: String,
    },
}

impl From<ClientError> for StepError {
    fn from(error: ClientError) -> Self {
        Self::Service(error.into())
    }
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        Self::Service(error.into())
    }
}

/// What `keygen` made.
#[derive(Clone, Debug, Serialize)]
pub struct Generated {
    /// What it is for.
    pub deployed: Deployed,
    /// Name of the key.
    pub key: String,
    /// The sealed key.
    pub secret: PathBuf,
    /// What the evaluator is given.
    pub evaluation: PathBuf,
    /// Its bytes.
    pub evaluation_bytes: u64,
    /// The sealed key was there already, without the other.
    pub was_there: bool,
}

/// The directories that [`keygen`] makes.
const CLIENT: &str = "client";
const EVALUATOR: &str = "evaluator";

/// The files that [`keygen`] makes in a directory: the sealed key, and the evaluator's.
#[must_use]
pub fn generated(directory: &Path) -> [PathBuf; 2] {
    [
        directory.join(CLIENT).join("secret.key"),
        directory.join(EVALUATOR).join("evaluation.keys"),
    ]
}

/// Makes a sealed key, and what an evaluator needs, in two directories. Where the first is
/// there alone, as after a process that was ended, the second is made of it, if it is of the
/// same set and allowance and the passphrase opens it.
///
/// # Errors
/// [`StepError`]; [`Problem::Exists`] where the evaluator's is there.
pub fn keygen(
    directory: &Path,
    planned: &Planned<'_>,
    allowance: Allowance,
    passphrase: &Passphrase,
    cost: Cost,
) -> Result<Generated, StepError> {
    let (client, evaluator) = (directory.join(CLIENT), directory.join(EVALUATOR));
    for folder in [directory, &client, &evaluator] {
        make_folder(folder, folder == client)?;
    }
    let [secret, evaluation] = generated(directory);
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    // Not the keys of another secret key, either.
    if is_there(&evaluation) {
        return Err(Problem::Exists.at(&evaluation).into());
    }
    let was_there = is_there(&secret);
    let key = match was_there {
        true => {
            let key = SealedKey::open(&secret, passphrase)?;
            key.expect_set(planned.params())?;
            if key.allowance() != allowance {
                return Err(Problem::Exists.at(&secret).into());
            }
            key
        }
        false => SealedKey::create(&secret, planned.params(), allowance, passphrase, cost)?,
    };
    let mut sender = planned.sender(key.keys()?)?;
    let head = KeysHead {
        deployed: planned.deployed.clone(),
        key: key.head().key.clone(),
    };
    let keys = sender.switching_keys()?;
    let evaluation_bytes = write(&evaluation, Kind::EvaluationKeys, &head, &keys)?;
    Ok(Generated {
        deployed: head.deployed,
        key: head.key,
        secret,
        evaluation,
        evaluation_bytes,
        was_there,
    })
}

/// Makes a directory if there is none; a `private` one is its owner's alone.
fn make_folder(path: &Path, private: bool) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    }
    builder
        .create(path)
        .map_err(|error| unwritten(error).at(path))
}

/// What `encrypt` made.
#[derive(Clone, Debug, Serialize)]
pub struct Requested {
    /// Name of the request.
    pub request: String,
    /// The request, for the evaluator.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Indices of the samples in it.
    pub samples: Vec<usize>,
    /// Those that the plan has no room for.
    pub refused: Vec<RefusedSample>,
}

/// A sample without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedSample {
    /// Its index.
    pub index: usize,
    /// Why.
    pub refused: String,
}

/// What the client keeps of a sample.
struct Noted {
    index: usize,
    label: u8,
    /// Its logits in the clear.
    logits: Zeroizing<Vec<f64>>,
    /// Its pixels or features, unless an earlier version made the note.
    values: Values,
}

/// A sample that a note holds.
enum Values {
    Pixels(Zeroizing<Vec<u8>>),
    Features(Zeroizing<Vec<f32>>),
}

impl Values {
    fn of(sample: Sample<'_>) -> Self {
        match sample {
            Sample::Pixels(pixels) => Self::Pixels(Zeroizing::new(pixels.to_vec())),
            Sample::Features(features) => Self::Features(Zeroizing::new(features.to_vec())),
        }
    }

    fn sample(&self) -> Sample<'_> {
        match self {
            Self::Pixels(pixels) => Sample::Pixels(pixels),
            Self::Features(features) => Sample::Features(features),
        }
    }

    /// Bytes of each in a note.
    fn length(planned: &Planned<'_>) -> usize {
        let model = planned.model();
        match model.input() {
            Input::Image(_) => model.inputs(),
            Input::Features { .. } => 4 * model.inputs(),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Pixels(pixels) => bytes.extend_from_slice(pixels),
            Self::Features(features) => {
                for feature in features.iter() {
                    bytes.extend_from_slice(&feature.to_le_bytes());
                }
            }
        }
    }

    /// Of the bytes that there are.
    fn read(planned: &Planned<'_>, bytes: &[u8]) -> Option<Self> {
        match planned.model().input() {
            _ if bytes.is_empty() => None,
            Input::Image(_) => Some(Self::Pixels(Zeroizing::new(bytes.to_vec()))),
            Input::Features { .. } => {
                let (features, _) = bytes.as_chunks();
                let features = features.iter().map(|&x| f32::from_le_bytes(x));
                Some(Self::Features(Zeroizing::new(features.collect())))
            }
        }
    }
}

/// What the client keeps of a request.
struct Note {
    /// SHA-256 of the result that it was answered with.
    answered: Option<[u8; DIGEST]>,
    samples: Vec<Noted>,
    /// The masks of its results.
    masks: Vec<Mask>,
}

/// Bytes of SHA-256.
const DIGEST: usize = 32;

impl Note {
    /// Bytes of a note of so many samples, before it is sealed: which result it has, in a
    /// byte and a digest; index, label, logits and `values` bytes of each sample; and the
    /// masks.
    fn length(planned: &Planned<'_>, samples: usize, values: usize) -> Option<usize> {
        let sample = 8 + 1 + 8 * planned.model().outputs() + values;
        let units = samples.div_ceil(planned.unit());
        let masks = units.checked_mul(planned.mask_bytes());
        match (samples.checked_mul(sample), masks) {
            (Some(samples), Some(masks)) => (1 + DIGEST + masks).checked_add(samples),
            _ => None,
        }
    }

    /// Its bytes, in memory that does not move.
    fn bytes(&self, planned: &Planned<'_>) -> Zeroizing<Vec<u8>> {
        let values = Values::length(planned);
        let length = Self::length(planned, self.samples.len(), values).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.push(u8::from(self.answered.is_some()));
        bytes.extend_from_slice(&self.answered.unwrap_or_default());
        for sample in &self.samples {
            bytes.extend_from_slice(&(sample.index as u64).to_le_bytes());
            bytes.push(sample.label);
            for logit in sample.logits.iter() {
                bytes.extend_from_slice(&logit.to_le_bytes());
            }
            sample.values.write(&mut bytes);
        }
        for mask in &self.masks {
            bytes.extend_from_slice(&mask.bytes());
        }
        bytes
    }

    /// The note of so many samples that has these bytes.
    fn parse(planned: &Planned<'_>, samples: usize, bytes: &[u8]) -> Option<Self> {
        let of_values = Values::length(planned);
        if Self::length(planned, samples, of_values) != Some(bytes.len()) {
            return None;
        }
        let (&is_answered, bytes) = bytes.split_first()?;
        let (digest, bytes) = bytes.split_first_chunk()?;
        let answered = match is_answered {
            0 => None,
            1 => Some(*digest),
            _ => return None,
        };
        let of_logits = 8 * planned.model().outputs();
        let size = 8 + 1 + of_logits + of_values;
        let (of_samples, masks) = bytes.split_at_checked(size * samples)?;
        let noted = |bytes: &[u8]| {
            let (index, bytes) = bytes.split_first_chunk()?;
            let (&label, bytes) = bytes.split_first()?;
            let (logits, values) = bytes.split_at_checked(of_logits)?;
            let (logits, _) = logits.as_chunks();
            Some(Noted {
                index: usize::try_from(u64::from_le_bytes(*index)).ok()?,
                label,
                logits: Zeroizing::new(logits.iter().map(|&x| f64::from_le_bytes(x)).collect()),
                values: Values::read(planned, values)?,
            })
        };
        Some(Self {
            answered,
            samples: of_samples
                .chunks_exact(size)
                .map(noted)
                .collect::<Option<_>>()?,
            masks: masks.as_chunks().0.iter().copied().map(Mask::new).collect(),
        })
    }
}

/// Encrypts samples, each with its index and label, into a request, and keeps a note of it
/// beside the key. Samples that the plan has no room for are left out.
///
/// # Errors
/// [`StepError`]; [`StepError::NoSample`] where none is left.
pub fn encrypt(
    key: &SealedKey,
    planned: &Planned<'_>,
    samples: &[(usize, Sample<'_>, u8)],
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Requested, StepError> {
    key.expect_set(planned.params())?;
    check_output(out, &[key.path()])?;
    check_writable(out)?;
    let mut sender = planned.sender(key.keys()?)?;
    let (mut noted, mut fit, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for &(index, sample, label) in samples {
        match planned.checked(sample) {
            Ok(logits) => {
                fit.push(sample);
                noted.push(Noted {
                    index,
                    label,
                    logits: Zeroizing::new(logits),
                    values: Values::of(sample),
                });
            }
            Err(error) => refused.push(RefusedSample {
                index,
                refused: error.to_string(),
            }),
        }
    }
    let units = fit.chunks(planned.unit());
    let mut body = Vec::new();
    let mut masks = Vec::new();
    progress.start(units.len() as u64);
    for unit in units {
        let (bytes, of_unit) = sender.encrypt(unit)?;
        body.extend_from_slice(&bytes);
        masks.extend_from_slice(&of_unit);
        progress.advance(1);
    }
    progress.finish();
    if let (true, Some(first)) = (noted.is_empty(), refused.first()) {
        return Err(StepError::NoSample {
            count: refused.len(),
            index: first.index,
            sentence: first.refused.clone(),
        });
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(ClientError::Random)?;
    let head = RequestHead {
        deployed: planned.deployed.clone(),
        key: key.head().key.clone(),
        request: hex(&id),
        samples: noted.len(),
        nonce: None,
    };
    // The note first: a request without one can never be answered.
    let note = Note {
        answered: None,
        samples: noted,
        masks,
    };
    write_note(key, planned, &head, &note, write_new)?;
    let bytes = write(out, Kind::Request, &head, &body)?;
    Ok(Requested {
        request: head.request,
        file: out.to_owned(),
        bytes,
        samples: note.samples.iter().map(|noted| noted.index).collect(),
        refused,
    })
}

/// Where the note of a request lies: beside its key.
fn note_path(key: &SealedKey, request: &str) -> PathBuf {
    let folder = key.path().parent().unwrap_or(Path::new("."));
    folder.join("requests").join(format!("{request}.note"))
}

/// Seals a note and writes it: as a new file, or in the place of the one that is there.
fn write_note(
    key: &SealedKey,
    planned: &Planned<'_>,
    head: &RequestHead,
    note: &Note,
    write: fn(&Path, Kind, &RequestHead, &[u8]) -> Result<u64, FileError>,
) -> Result<(), StepError> {
    let path = note_path(key, &head.request);
    make_folder(path.parent().unwrap_or(Path::new(".")), true)?;
    let failed = |error| unwritten(error).at(&path);
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(ClientError::Random)?;
    let head = RequestHead {
        nonce: Some(nonce),
        ..head.clone()
    };
    let begin = start(Kind::Note, &head).map_err(failed)?;
    let payload = Payload {
        msg: &note.bytes(planned),
        aad: &begin,
    };
    let body = XChaCha20Poly1305::new(key.notes().into())
        .encrypt(&XNonce::from(nonce), payload)
        .map_err(|_| failed(std::io::Error::other("sealing failed")))?;
    write(&path, Kind::Note, &head, &body)?;
    Ok(())
}

/// The note of a request, and its head.
fn read_note(
    key: &SealedKey,
    planned: &Planned<'_>,
    request: &str,
) -> Result<(RequestHead, Note), FileError> {
    let path = note_path(key, request);
    let (head, container) = read::<RequestHead>(&path, Kind::Note)?;
    let opened = || {
        planned.deployed.expect(&head.deployed)?;
        let payload = Payload {
            msg: container.body(),
            aad: container.before(),
        };
        let nonce = XNonce::from(head.nonce.unwrap_or_default());
        let plain = XChaCha20Poly1305::new(key.notes().into()).decrypt(&nonce, payload);
        let plain = Zeroizing::new(plain.map_err(|_| Problem::Note)?);
        match Note::parse(planned, head.samples, &plain) {
            Some(note) if head.request == request => Ok(note),
            _ => Err(Problem::Note),
        }
    };
    match opened() {
        Ok(note) => Ok((head, note)),
        Err(problem) => Err(problem.at(&path)),
    }
}

/// What `evaluate` made.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluated {
    /// Name of the request.
    pub request: String,
    /// The result, for the client.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Samples in it.
    pub samples: usize,
    /// Seconds by the clock per sample, reading and keys apart.
    pub seconds: f64,
}

/// How the samples of an evaluator's keys or of a result are laid out, by its own account:
/// which plan it is checked against.
///
/// # Errors
/// [`FileError`].
pub fn packing_of(path: &Path, kind: Kind) -> Result<Packing, FileError> {
    Ok(match kind {
        Kind::EvaluationKeys => read_head::<KeysHead>(path, kind)?.deployed.packing,
        _ => read_head::<RequestHead>(path, kind)?.deployed.packing,
    })
}

/// Evaluates a request. It takes the evaluator's keys and the model, and no secret.
///
/// # Errors
/// [`StepError`]; nothing is written then.
pub fn evaluate(
    keys: &Path,
    planned: Planned<'_>,
    request: &Path,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Evaluated, StepError> {
    check_output(out, &[keys, request])?;
    check_writable(out)?;
    let (keys_head, keys_file) = read::<KeysHead>(keys, Kind::EvaluationKeys)?;
    let expected = &planned.deployed;
    let of_keys = expected.expect(&keys_head.deployed);
    of_keys.map_err(|problem| problem.at(keys))?;
    let (head, file) = read::<RequestHead>(request, Kind::Request)?;
    let sound = || {
        expected.expect(&head.deployed)?;
        same_key(&head.key, &keys_head.key)?;
        let (body, units) = (file.body(), head.samples.div_ceil(planned.unit()));
        if units == 0 || !body.len().is_multiple_of(units) || body.is_empty() {
            return Err(Problem::Samples {
                samples: head.samples,
                bytes: body.len(),
            });
        }
        Ok(body.chunks_exact(body.len() / units))
    };
    let units = sound().map_err(|problem| problem.at(request))?;
    let mut evaluator = planned.evaluator(keys_file.body())?;
    let start = Instant::now();
    let mut results = Vec::new();
    progress.start(units.len() as u64);
    for unit in units {
        results.extend_from_slice(&evaluator.evaluate(unit)?);
        progress.advance(1);
    }
    progress.finish();
    let seconds = start.elapsed().as_secs_f64() / head.samples as f64;
    let bytes = write(out, Kind::Result, &head, &results)?;
    Ok(Evaluated {
        request: head.request,
        file: out.to_owned(),
        bytes,
        samples: head.samples,
        seconds,
    })
}

fn same_key(theirs: &str, ours: &str) -> Result<(), Problem> {
    if theirs == ours {
        return Ok(());
    }
    Err(Problem::Mismatch {
        what: "key",
        theirs: crate::client::printable(theirs).into(),
        ours: crate::client::printable(ours).into(),
        todo: "take the files of one keygen",
    })
}

/// The results of a unit that a note was found for.
struct Answer {
    noted: Vec<Noted>,
    /// Objects of [`wire`].
    objects: Vec<u8>,
    /// Their masks.
    masks: Vec<Mask>,
}

/// Checks a result's file against the plan, the key and the note of its request, which is
/// marked with it, durably, before anything of it is decrypted.
fn answers(
    key: &SealedKey,
    planned: &Planned<'_>,
    result: &Path,
) -> Result<Vec<Answer>, StepError> {
    key.expect_set(planned.params())?;
    let (head, file) = read::<RequestHead>(result, Kind::Result)?;
    let size = planned.result_bytes()?;
    let sound = || {
        planned.deployed.expect(&head.deployed)?;
        same_key(&head.key, &key.head().key)?;
        // It becomes part of a path.
        if head.request.len() != 32 || !head.request.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Problem::Request);
        }
        match note_path(key, &head.request).try_exists() {
            Ok(true) => {}
            _ => return Err(Problem::Request),
        }
        let units = head.samples.div_ceil(planned.unit());
        match units.checked_mul(size) == Some(file.body().len()) {
            true => Ok(()),
            false => Err(Problem::Samples {
                samples: head.samples,
                bytes: file.body().len(),
            }),
        }
    };
    sound().map_err(|problem| problem.at(result))?;
    let (of_note, mut note) = read_note(key, planned, &head.request)?;
    if note.samples.len() != head.samples {
        let (samples, bytes) = (head.samples, file.body().len());
        return Err(Problem::Samples { samples, bytes }.at(result).into());
    }
    let digest: [u8; DIGEST] = Sha256::digest(file.body()).into();
    match note.answered {
        Some(known) if known == digest => {}
        Some(_) => return Err(Problem::Answered.at(result).into()),
        None => {
            note.answered = Some(digest);
            write_note(key, planned, &of_note, &note, write_again)?;
        }
    }
    let objects = file.body().chunks_exact(size);
    let masks = note.masks.chunks_exact(planned.results().0);
    let noted = &mut note.samples;
    let each = objects.zip(masks).map(|(objects, masks)| {
        let count = noted.len().min(planned.unit());
        Answer {
            noted: noted.drain(..count).collect(),
            objects: objects.to_vec(),
            masks: masks.to_vec(),
        }
    });
    Ok(each.collect())
}

/// A decrypted answer.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Index of the sample.
    pub index: usize,
    /// Its label.
    pub label: u8,
    /// Its logits in the clear.
    pub plain: Zeroizing<Vec<f64>>,
    /// The decrypted logits, or why there are none.
    pub logits: Result<Vec<f64>, String>,
    /// How far they may be from the others, where that is more than the plan's figure.
    pub allowed_error: Option<f64>,
    /// As [`crate::client::Inference::beyond_training`].
    pub beyond_training: bool,
    /// What its decryption took.
    pub wall: Duration,
}

/// Why the client does without an answer that it has decrypted.
#[derive(Debug, thiserror::Error)]
enum Unaccepted {
    /// There is none.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is not what the sample gives.
    #[error(
        "its logits differ from those in the clear by {error:.4}, which may be {allowed:.4}: the evaluator changed them, and as acceptance is an answer to it, the key is retired; make a new one"
    )]
    BeyondPlan {
        /// By how much.
        error: f64,
        /// What it may be, of usual samples or of this one.
        allowed: f64,
    },
}

impl Unaccepted {
    const fn spends_key(&self) -> bool {
        match self {
            Self::Client(error) => error.spends_key(),
            Self::BeyondPlan { .. } => true,
        }
    }
}

/// Logits, and how far they may be from those in the clear.
type Accepted = (Vec<f64>, Allowed);

/// The logits of a unit, if they are as near to those in the clear as the plan says: one
/// that is not speaks against all.
fn accepted(
    sender: &mut Sender<'_>,
    planned: &Planned<'_>,
    unit: &Answer,
) -> Result<Vec<Accepted>, Unaccepted> {
    let logits = sender.decrypt(&unit.objects, &unit.masks, unit.noted.len())?;
    let each = logits.into_iter().zip(&unit.noted);
    let accepted = each.map(|(found, noted)| {
        let error = largest_error(&found, &noted.logits);
        let sample = noted.values.sample();
        let allowed = planned.allowed(sample, error).map_err(ClientError::from)?;
        // What is no number is not.
        match error <= allowed.error {
            true => Ok((found, allowed)),
            false => Err(Unaccepted::BeyondPlan {
                error,
                allowed: allowed.error,
            }),
        }
    });
    accepted.collect()
}

/// The same; where a unit speaks against the key, that is retired before anybody hears of it.
fn accepted_or_retired(
    key: &mut SealedKey,
    sender: &mut Sender<'_>,
    planned: &Planned<'_>,
    unit: &Answer,
) -> Result<Result<Vec<Accepted>, Unaccepted>, StepError> {
    let logits = accepted(sender, planned, unit);
    if logits.as_ref().is_err_and(Unaccepted::spends_key) {
        let id = *key.id();
        key.retire(&id)?;
    }
    Ok(logits)
}

/// Decrypts a result. Where one is refused, or is further from what its sample gives in the
/// clear than it may be, the key is retired, durably, before anybody hears of it, and
/// the samples after it have no answer.
///
/// # Errors
/// [`StepError`].
pub fn decrypt(
    key: &mut SealedKey,
    planned: &Planned<'_>,
    result: &Path,
) -> Result<Vec<Opened>, StepError> {
    let mut sender = planned.sender(key.keys()?)?;
    let usual = planned.logit_error().six_sigma;
    let mut opened = Vec::new();
    for unit in answers(key, planned, result)? {
        let start = Instant::now();
        let count = unit.noted.len();
        let logits = match key.head().retired {
            true => Err(ClientError::Spent.into()),
            false => accepted_or_retired(key, &mut sender, planned, &unit)?,
        };
        let wall = start.elapsed() / count.max(1) as u32;
        let logits: Vec<Result<Accepted, String>> = match logits {
            Ok(logits) => logits.into_iter().map(Ok).collect(),
            Err(Unaccepted::Client(error))
                if !error.is_of_sample() && !matches!(error, ClientError::Spent) =>
            {
                return Err(error.into());
            }
            Err(error) => vec![Err(error.to_string()); count],
        };
        let each = unit.noted.into_iter().zip(logits);
        opened.extend(each.map(|(mut noted, accepted)| {
            let allowed = accepted.as_ref().ok().map(|(_, allowed)| *allowed);
            Opened {
                index: noted.index,
                label: noted.label,
                plain: std::mem::take(&mut noted.logits),
                logits: accepted.map(|(logits, _)| logits),
                allowed_error: allowed.map(|it| it.error).filter(|own| *own > usual),
                beyond_training: allowed.is_some_and(|it| it.beyond_training),
                wall,
            }
        }));
    }
    Ok(opened)
}

/// What may be given to others of a sample's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedLabel {
    /// Index of the sample.
    pub index: usize,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: PublishedOutcome,
}

/// A class, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PublishedOutcome {
    /// It was counted, and the result decrypted.
    Label {
        /// The class.
        label: usize,
    },
    /// Nothing is given out.
    Refused {
        /// Why.
        refused: String,
    },
}

/// Classes that may be given to others than the holder of the key, whoever made the result:
/// each is counted in the key's budget, durably, before it is given out. Logits that are
/// further from those in the clear than they may be retire the key, as [`decrypt`] has it, and
/// no label is given out. Of a network with one logit the class is 1 where it is positive.
///
/// # Errors
/// [`StepError`]; [`StepError::Batch`] of results of batches.
pub fn publish_labels(
    key: &mut SealedKey,
    planned: &Planned<'_>,
    result: &Path,
) -> Result<Vec<PublishedLabel>, StepError> {
    let AnyPlan::Latency(plan, _) = &planned.plan else {
        return Err(StepError::Batch);
    };
    let outputs = plan.model().outputs();
    let slots: Vec<_> = (0..outputs).map(|k| plan.output_slots(k)).collect();
    let place = (plan.output_level(), plan.output_scale());
    let mut sender = planned.sender(key.keys()?)?;
    let mut published = Vec::new();
    for answer in answers(key, planned, result)? {
        // Of one sample each.
        let index = answer.noted.first().map_or(0, |noted| noted.index);
        // A retired key publishes nothing, which its budget says.
        let unaccepted = match key.head().retired {
            true => None,
            false => accepted_or_retired(key, &mut sender, planned, &answer)?.err(),
        };
        let refused = |error: &dyn std::fmt::Display| PublishedOutcome::Refused {
            refused: error.to_string(),
        };
        let outcome = match unaccepted {
            Some(error) => refused(&error),
            None => match label_of(key, &answer, place, &slots) {
                Ok(label) => PublishedOutcome::Label { label },
                Err(error) => refused(&error),
            },
        };
        published.push(PublishedLabel { index, outcome });
    }
    Ok(published)
}

/// The class of an answer, counted.
fn label_of(
    key: &mut SealedKey,
    answer: &Answer,
    (level, scale): (usize, f64),
    slots: &[Range<usize>],
) -> Result<usize, PublishError<SealedError>> {
    let params = key.params();
    let limbs = || vec![0; (level + 1) * params.n()];
    let ct = wire::read_ciphertext(params, &answer.objects, [limbs(), limbs()])?;
    let found = ct.scale();
    let [mut c0, mut c1] = ct.into_parts();
    if let Some(mask) = answer.masks.first() {
        mask.take_off(params, level, [&mut c0, &mut c1])?;
    }
    let ct = Ciphertext::new(params, level, found, c0, c1)?;
    let (secret, noise_key) = (key.secret()?, key.noise_key());
    let (mut scratch, mut values) = (limbs(), vec![0.0; params.n()]);
    publish_label(
        params,
        &secret,
        &noise_key,
        key,
        &ct,
        (level, scale),
        slots,
        &mut scratch,
        &mut values,
    )
}
