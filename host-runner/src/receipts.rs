//! Receipts: of every answer a digest of what the evaluator was given and of what it
//! returned, by which somebody else can evaluate again, later.
//!
//! Evaluation is deterministic to the bit and needs no secret. So whoever has the
//! objects that a receipt names (the program, the switching keys, encrypted weights, the
//! input) and the model that it names can compute the result and compare its digest.
//! The objects are ciphertexts and public keys: they tell an auditor nothing about
//! samples and results, and he cannot be given less, as he computes with all of them.
//! They are kept in a directory, each under its digest, once.
//!
//! A digest is SHA-256 of the bytes as they are, so that `sha256sum` checks an object;
//! the crate `sha2` is what he-core floods noise with already, and speed is no matter: a
//! receipt hashes half a megabyte beside an evaluation.
//!
//! A batch is one input and one result. Each of its samples has a receipt of both, and
//! says in which slot it was. In place of a program stands the plan of batches as bytes
//! ([`planning::batch_bytes`]), which whoever has the network makes again and compares.
//! Samples of one batch are evaluated again together.
//!
//! A result is recorded as it came, before it is decrypted or compared: one that is
//! refused has its receipt, too. Where a refused sample was tried again over a link, its
//! receipt is that of the last result.
//!
//! A receipt is not signed. It binds whoever keeps it and shows that an answer is not
//! that of its request; that a certain evaluator returned it is the word of the client, and
//! so is which image was in which slot.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use he_core::Params;
use he_nn::files;
use he_nn::model::Model;
use he_nn::program::Program;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::engine::batch::BatchEngine;
use crate::engine::{Engine, EngineError};
use crate::planning::{self, BatchHead};
use crate::report::text::hex;

/// Version of the receipts of single samples.
const VERSION: u32 = 1;

/// Version of those of samples of a batch: they have a slot.
const BATCH_VERSION: u32 = 2;

/// Bytes that an object never has: encrypted weights of the largest networks have a
/// tenth.
const MAX_OBJECT_BYTES: u64 = 1 << 32;

/// Bytes of a file of receipts, some five million of them.
const MAX_FILE_BYTES: u64 = 1 << 31;

/// Why there is no receipt, or none could be checked.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The file system.
    #[error("{} cannot be {doing} ({source}): name another with --receipts or --uploads", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A line that is no receipt.
    #[error("line {line} of {} is no receipt of version {VERSION}, nor of a batch of version {BATCH_VERSION}: give the file as `infer --receipts` wrote it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// An answer that has a receipt already.
    #[error("line {line} of {} is a receipt of the answer that line {first} is of: an answer is that of one request, so one of them was replayed", path.display())]
    Replayed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The line before that has it.
        first: usize,
    },
    /// A file without a receipt.
    #[error("{} holds no receipt: there is nothing to audit", .0.display())]
    Empty(PathBuf),
    /// An object that is not there.
    #[error("{what} of the receipt is {expected}, and there is no {}: name the directory that `infer --uploads` filled, or the receipt was changed", path.display())]
    Missing {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As the receipt says.
        expected: Digest,
    },
    /// A receipt that its program does not agree with.
    #[error(
        "{what} of the receipt is {receipt}, and by its program {program}: one of them was changed"
    )]
    Disagreement {
        /// Of what they differ.
        what: &'static str,
        /// As the receipt says.
        receipt: String,
        /// As the program says.
        program: String,
    },
    /// An object that is not the one named.
    #[error("{what} of the receipt is {expected}, and {} holds {got}: it was changed, or is another", path.display())]
    Object {
        /// What it should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As the receipt says.
        expected: Digest,
        /// As it is.
        got: Digest,
    },
    /// The model is not the one named.
    #[error(
        "the receipts are of a model {expected}, and this one is {got}: name that one with --model"
    )]
    Model {
        /// As the receipt says.
        expected: Digest,
        /// As it is.
        got: Digest,
    },
    /// A parameter set or a program that this version does not have.
    #[error(
        "the receipt's program under the set {params:08x} is none of this version's: audit with the version that wrote it"
    )]
    Program {
        /// Fingerprint of the set.
        params: u32,
    },
    /// The objects do not evaluate.
    #[error("what the receipt names does not evaluate: {0}")]
    Engine(#[from] EngineError),
}

fn file(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> ReceiptError {
    let path = path.to_owned();
    move |source| ReceiptError::File {
        path: path.clone(),
        doing,
        source,
    }
}

/// SHA-256, in JSON as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of bytes as they are.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "a digest is 64 hexadecimal digits";
        let digit = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(WRONG),
        };
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return Err(WRONG);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = 16 * digit(pair[0])? + digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// What an answer was computed from, and what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Of this format: 1 of a single sample, 2 of one in a batch.
    version: u32,
    /// Fingerprint of the parameter set.
    params: u32,
    /// The plan's program, or the plan of batches as bytes, without weights.
    program: Digest,
    /// The model's file, whose weights the evaluator holds; `null` where they are
    /// encrypted.
    model: Option<Digest>,
    /// The encrypted weights.
    weights: Option<Digest>,
    /// The switching keys.
    keys: Digest,
    /// The input's ciphertexts, the mask included; of a batch those of all its samples.
    input: Digest,
    /// The result as it came, the mask still on it; of a batch that of all its samples.
    output: Digest,
    /// The slot that a sample of a batch had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
}

impl Receipt {
    /// That of a sample of the batch.
    fn in_slot(&self, slot: u32) -> Self {
        Self {
            version: BATCH_VERSION,
            slot: Some(slot),
            ..self.clone()
        }
    }

    /// Whether both are of one evaluation, of whichever samples of it.
    fn is_with(&self, other: &Self) -> bool {
        let evaluation = |of: &Self| Self {
            slot: None,
            ..of.clone()
        };
        evaluation(self) == evaluation(other)
    }
}

/// A receipt of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfImage {
    /// Index of the image.
    pub index: usize,
    /// Its receipt.
    #[serde(flatten)]
    pub receipt: Receipt,
}

/// Where objects are kept by their digests.
#[derive(Clone, Debug)]
pub struct Uploads {
    directory: Option<PathBuf>,
}

impl Uploads {
    /// In a directory, which is made; without one they are hashed and not kept.
    ///
    /// # Errors
    /// [`ReceiptError::File`].
    pub fn new(directory: Option<&Path>) -> Result<Self, ReceiptError> {
        if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(file(directory, "made"))?;
        }
        Ok(Self {
            directory: directory.map(Path::to_owned),
        })
    }

    fn keep(&self, bytes: &[u8]) -> Result<Digest, ReceiptError> {
        let digest = Digest::of(bytes);
        let Some(directory) = &self.directory else {
            return Ok(digest);
        };
        let path = directory.join(digest.to_string());
        if !path.exists() {
            // As a whole or not at all.
            let mut new = tempfile::NamedTempFile::new_in(directory)
                .map_err(file(directory, "written to"))?;
            new.write_all(bytes).map_err(file(&path, "written"))?;
            let kept = new.persist(&path).map_err(|error| error.error);
            kept.map_err(file(&path, "written"))?;
        }
        Ok(digest)
    }

    /// An object that is what the receipt says.
    fn fetch(&self, what: &'static str, expected: Digest) -> Result<Vec<u8>, ReceiptError> {
        let directory = self.directory.as_deref().unwrap_or(Path::new("."));
        let path = directory.join(expected.to_string());
        let bytes = match files::read(&path, MAX_OBJECT_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReceiptError::Missing {
                    what,
                    path,
                    expected,
                });
            }
            bytes => bytes.map_err(file(&path, "read"))?,
        };
        match Digest::of(&bytes) {
            got if got == expected => Ok(bytes),
            got => Err(ReceiptError::Object {
                what,
                path,
                expected,
                got,
            }),
        }
    }
}

/// Writes receipts for one plan; keeps what they name.
#[derive(Clone, Debug)]
pub struct Recorder {
    uploads: Uploads,
    model: Digest,
    /// Of the key in use: switching keys, and encrypted weights.
    of_key: Option<(Digest, Option<Digest>)>,
}

impl Recorder {
    /// For a model's file.
    #[must_use]
    pub fn new(model: &[u8], uploads: Uploads) -> Self {
        Self {
            uploads,
            model: Digest::of(model),
            of_key: None,
        }
    }

    /// Whether keys and weights are due, after a renewal too.
    pub(crate) const fn wants_keys(&self) -> bool {
        self.of_key.is_none()
    }

    /// The key was renewed.
    pub(crate) fn renewed(&mut self) {
        self.of_key = None;
    }

    /// Takes the keys, and the weights where they are encrypted.
    pub(crate) fn keys(&mut self, keys: &[u8], weights: &[u8]) -> Result<(), ReceiptError> {
        let weights = match weights {
            [] => None,
            weights => Some(self.uploads.keep(weights)?),
        };
        self.of_key = Some((self.uploads.keep(keys)?, weights));
        Ok(())
    }

    /// The receipt of an answer by a program under a set; [`Self::keys`] has been called.
    pub(crate) fn receipt(
        &self,
        (params, program): (&Params, &[u8]),
        input: &[u8],
        output: &[u8],
    ) -> Result<Option<Receipt>, ReceiptError> {
        let Some((keys, weights)) = self.of_key else {
            return Ok(None);
        };
        Ok(Some(Receipt {
            version: VERSION,
            params: params.fingerprint(),
            program: self.uploads.keep(program)?,
            model: weights.is_none().then_some(self.model),
            weights,
            keys,
            input: self.uploads.keep(input)?,
            output: Digest::of(output),
            slot: None,
        }))
    }

    /// The receipts of so many samples of a batch, by a plan of batches as bytes.
    pub(crate) fn batch(
        &self,
        plan: (&Params, &[u8]),
        input: &[u8],
        output: &[u8],
        samples: usize,
    ) -> Result<Vec<Option<Receipt>>, ReceiptError> {
        let of_all = self.receipt(plan, input, output)?;
        let of_slot = |slot| of_all.as_ref().map(|receipt| receipt.in_slot(slot));
        Ok((0..).take(samples).map(of_slot).collect())
    }
}

/// What an audit found of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The evaluation gives the same result to the bit.
    Reproduced,
    /// It gives another.
    Forged,
}

/// Reads receipts, one per line.
///
/// # Errors
/// [`ReceiptError::File`], [`ReceiptError::Line`], [`ReceiptError::Replayed`],
/// [`ReceiptError::Empty`].
pub fn read(path: &Path) -> Result<Vec<OfImage>, ReceiptError> {
    let bytes = files::read(path, MAX_FILE_BYTES).map_err(file(path, "read"))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().enumerate();
    // Encryption is never twice the same, and a slot has one sample.
    let mut known = HashMap::new();
    let receipts = lines.map(|(at, line)| {
        let wrong = || ReceiptError::Line {
            path: path.to_owned(),
            line: at + 1,
        };
        let of_image: OfImage = serde_json::from_str(line).map_err(|_| wrong())?;
        let receipt = &of_image.receipt;
        match (receipt.version, receipt.slot) {
            (VERSION, None) | (BATCH_VERSION, Some(_)) => {}
            _ => return Err(wrong()),
        }
        match known.insert((receipt.input, receipt.slot), at + 1) {
            None => Ok(of_image),
            Some(first) => Err(ReceiptError::Replayed {
                path: path.to_owned(),
                line: at + 1,
                first,
            }),
        }
    });
    let receipts: Vec<OfImage> = receipts.collect::<Result<_, _>>()?;
    match receipts.is_empty() {
        true => Err(ReceiptError::Empty(path.to_owned())),
        false => Ok(receipts),
    }
}

/// Receipts as lines of JSON.
///
/// # Errors
/// That of the serialiser, which there is not.
pub fn lines(receipts: &[OfImage]) -> serde_json::Result<String> {
    let mut text = String::new();
    for receipt in receipts {
        text.push_str(&serde_json::to_string(receipt)?);
        text.push('\n');
    }
    Ok(text)
}

/// Evaluates again what receipts name. It holds no secret and needs none.
pub struct Auditor<'m> {
    uploads: Uploads,
    /// The model and the digest of its file.
    model: (Model<'m>, Digest),
    /// With the receipt that it was made for.
    engine: Option<(Receipt, AnyEngine<'m>)>,
    /// The last receipt, and what was found: samples of a batch have the same.
    last: Option<(Receipt, Verdict)>,
}

/// What evaluates again.
enum AnyEngine<'m> {
    Single(Box<Engine>),
    /// With the samples that a batch may have.
    Batch(Box<BatchEngine<'m>>, usize),
}

impl AnyEngine<'_> {
    fn evaluate(&mut self, input: &[u8]) -> Result<Vec<u8>, EngineError> {
        Ok(match self {
            Self::Single(engine) => engine.evaluate(input)?.0,
            Self::Batch(engine, _) => engine.evaluate(input, || ())?.0,
        })
    }

    /// Refuses a slot that there is not.
    fn check(&self, slot: Option<u32>) -> Result<(), ReceiptError> {
        let said = |slot: Option<u32>| slot.map_or("none".to_owned(), |slot| slot.to_string());
        let program = match (self, slot) {
            (Self::Single(_), None) => return Ok(()),
            (Self::Single(_), _) => said(None),
            (Self::Batch(_, samples), Some(slot)) if (slot as usize) < *samples => return Ok(()),
            (Self::Batch(_, samples), _) => format!("one below {samples}"),
        };
        Err(ReceiptError::Disagreement {
            what: "the slot",
            receipt: said(slot),
            program,
        })
    }
}

impl<'m> Auditor<'m> {
    /// For objects in a directory, and a model with its file.
    #[must_use]
    pub fn new(uploads: &Path, model: Model<'m>, file: &[u8]) -> Self {
        Self {
            uploads: Uploads {
                directory: Some(uploads.to_owned()),
            },
            model: (model, Digest::of(file)),
            engine: None,
            last: None,
        }
    }

    /// Evaluates an answer again; a batch once for all of its samples that follow each
    /// other.
    ///
    /// # Errors
    /// [`ReceiptError`] where that cannot be done.
    pub fn audit(&mut self, receipt: &Receipt) -> Result<Verdict, ReceiptError> {
        self.engine(receipt)?.check(receipt.slot)?;
        if let Some((last, verdict)) = &self.last
            && last.is_with(receipt)
        {
            return Ok(*verdict);
        }
        let input = self.uploads.fetch("the input", receipt.input)?;
        let result = self.engine(receipt)?.evaluate(&input)?;
        let verdict = match Digest::of(&result) == receipt.output {
            true => Verdict::Reproduced,
            false => Verdict::Forged,
        };
        self.last = Some((receipt.clone(), verdict));
        Ok(verdict)
    }

    /// The engine with a receipt's keys and weights, kept for the next of them.
    fn engine(&mut self, receipt: &Receipt) -> Result<&mut AnyEngine<'m>, ReceiptError> {
        let serves = |of: &Receipt| {
            let held = |r: &Receipt| (r.program, r.model, r.weights, r.keys);
            of.params == receipt.params && held(of) == held(receipt)
        };
        let engine = match self.engine.take() {
            Some((of, engine)) if serves(&of) => engine,
            _ => self.fresh(receipt)?,
        };
        Ok(&mut self.engine.insert((receipt.clone(), engine)).1)
    }

    fn fresh(&self, receipt: &Receipt) -> Result<AnyEngine<'m>, ReceiptError> {
        let (model, got) = &self.model;
        if let Some(expected) = receipt.model
            && expected != *got
        {
            return Err(ReceiptError::Model {
                expected,
                got: *got,
            });
        }
        let program = self.uploads.fetch("the program", receipt.program)?;
        if let Some(head) = BatchHead::read(&program) {
            return self.batches(receipt, &program, head);
        }
        let unknown = || ReceiptError::Program {
            params: receipt.params,
        };
        let params = planning::set_of(receipt.params).ok_or_else(unknown)?;
        let program = Program::parse(params, program).ok_or_else(unknown)?;
        // Which of both a program takes stands in it.
        if program.is_encrypted() != receipt.weights.is_some()
            || program.is_encrypted() != receipt.model.is_none()
        {
            return Err(unknown());
        }
        let keys = self.uploads.fetch("the keys", receipt.keys)?;
        let weights = receipt
            .weights
            .map(|weights| self.uploads.fetch("the encrypted weights", weights));
        let weights = weights.transpose()?.unwrap_or_default();
        let engine = Engine::new(program, Some(model), &keys, &weights)?;
        Ok(AnyEngine::Single(Box::new(engine)))
    }

    /// The engine of a plan of batches, which is made again and has to be the same.
    fn batches(
        &self,
        receipt: &Receipt,
        plan: &[u8],
        head: BatchHead,
    ) -> Result<AnyEngine<'m>, ReceiptError> {
        let (model, of_model) = &self.model;
        let shown = |x: u32| format!("{x:08x}");
        let digest = |x: Option<Digest>| x.map_or("none".to_owned(), String::from);
        for (what, receipt, program) in [
            (
                "the parameter set",
                shown(receipt.params),
                shown(head.params),
            ),
            ("the model", digest(receipt.model), of_model.to_string()),
            (
                "the encrypted weights",
                digest(receipt.weights),
                digest(None),
            ),
        ] {
            if receipt != program {
                return Err(ReceiptError::Disagreement {
                    what,
                    receipt,
                    program,
                });
            }
        }
        if head.model_crc != model.crc() {
            return Err(ReceiptError::Disagreement {
                what: "the checksum of the model",
                receipt: shown(model.crc()),
                program: shown(head.model_crc),
            });
        }
        let made = planning::batch_plan_of(*model, plan);
        let plan = made.ok_or(ReceiptError::Program {
            params: receipt.params,
        })?;
        let keys = self.uploads.fetch("the keys", receipt.keys)?;
        let samples = plan.samples();
        let engine = BatchEngine::new(plan, &keys)?;
        Ok(AnyEngine::Batch(Box::new(engine), samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_other_programs_and_is_read_as_it_is_written() {
        // `printf abc | sha256sum`.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), known);
        assert_eq!(Digest::try_from(known.to_owned()), Ok(digest));
        for wrong in [
            "",
            &known[1..],
            &known.to_uppercase(),
            &known.replace('b', "g"),
        ] {
            assert!(Digest::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_are_no_receipts_is_refused_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receipts");
        let digest = Digest::of(b"");
        let of = |version, slot, input: &[u8]| OfImage {
            index: 7,
            receipt: Receipt {
                version,
                params: 0x1234_5678,
                program: digest,
                model: None,
                weights: Some(digest),
                keys: digest,
                input: Digest::of(input),
                output: digest,
                slot,
            },
        };
        let of_image = |version| of(version, None, b"");
        let all = [
            of_image(VERSION),
            of(VERSION, None, b"another"),
            of(BATCH_VERSION, Some(0), b"batch"),
            of(BATCH_VERSION, Some(1), b"batch"),
        ];
        let sound = lines(&all).unwrap();
        fs::write(&path, &sound).unwrap();
        assert_eq!(read(&path).unwrap(), all);
        // What a single sample's has always been.
        assert!(!sound.lines().next().unwrap().contains("slot"));
        fs::write(&path, "").unwrap();
        assert!(matches!(read(&path), Err(ReceiptError::Empty(_))));
        // The same answer for two requests.
        for (at, of_image) in all.iter().enumerate() {
            let again = lines(&[&all[..], std::slice::from_ref(of_image)].concat()).unwrap();
            fs::write(&path, again).unwrap();
            let refusal = read(&path).unwrap_err();
            let ReceiptError::Replayed { line, first, .. } = refusal else {
                panic!("{refusal}");
            };
            assert_eq!((line, first), (all.len() + 1, at + 1));
        }
        let later = lines(&[of(BATCH_VERSION + 1, Some(0), b"later")]).unwrap();
        let slotless = lines(&[of(BATCH_VERSION, None, b"slotless")]).unwrap();
        let slotted = lines(&[of(VERSION, Some(0), b"slotted")]).unwrap();
        for wrong in [
            later.as_str(),
            &slotless,
            &slotted,
            "{}\n",
            "\u{fffd}\n",
            &sound[..sound.len() / 16],
        ] {
            let text = lines(&[of_image(VERSION)]).unwrap() + wrong;
            fs::write(&path, text).unwrap();
            let refusal = read(&path).unwrap_err();
            assert!(
                matches!(refusal, ReceiptError::Line { line: 2, .. }),
                "{refusal}"
            );
        }
        // What is named and not there.
        let model = he_nn::bundled::model("mnist-mlp64").unwrap();
        let parsed = Model::parse(model).unwrap();
        let mut auditor = Auditor::new(folder.path(), parsed, model);
        let refusal = auditor.audit(&of_image(VERSION).receipt).unwrap_err();
        assert!(matches!(refusal, ReceiptError::Missing { .. }), "{refusal}");
    }
}
