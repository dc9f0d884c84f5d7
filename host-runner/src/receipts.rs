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
//! A result is recorded as it came, before it is decrypted or compared: one that is
//! refused has its receipt, too. Where a refused sample was tried again over a link, its
//! receipt is that of the last result.
//!
//! A receipt is not signed. It binds whoever keeps it and shows that an answer is not
//! that of its request; that a certain evaluator returned it is the word of the client.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use he_nn::files;
use he_nn::model::Model;
use he_nn::program::Program;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::engine::{Engine, EngineError};
use crate::planning;
use crate::report::text::hex;

const VERSION: u32 = 1;

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
    #[error("line {line} of {} is no receipt of version {VERSION}: give the file as `infer --receipts` wrote it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A file without a receipt.
    #[error("{} holds no receipt: there is nothing to audit", .0.display())]
    Empty(PathBuf),
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
    /// Of this format.
    version: u32,
    /// Fingerprint of the parameter set.
    params: u32,
    /// The plan's program, without weights.
    program: Digest,
    /// The model's file, whose weights the evaluator holds; `null` where they are
    /// encrypted.
    model: Option<Digest>,
    /// The encrypted weights.
    weights: Option<Digest>,
    /// The switching keys.
    keys: Digest,
    /// The input's ciphertexts, the mask included.
    input: Digest,
    /// The result as it came, the mask still on it.
    output: Digest,
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
        let bytes = files::read(&path, MAX_OBJECT_BYTES).map_err(file(&path, "read"))?;
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

    /// The receipt of an answer; [`Self::keys`] has been called.
    pub(crate) fn receipt(
        &self,
        program: &Program<Vec<u8>>,
        input: &[u8],
        output: &[u8],
    ) -> Result<Option<Receipt>, ReceiptError> {
        let Some((keys, weights)) = self.of_key else {
            return Ok(None);
        };
        Ok(Some(Receipt {
            version: VERSION,
            params: program.params().fingerprint(),
            program: self.uploads.keep(program.bytes())?,
            model: weights.is_none().then_some(self.model),
            weights,
            keys,
            input: self.uploads.keep(input)?,
            output: Digest::of(output),
        }))
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
/// [`ReceiptError::File`], [`ReceiptError::Line`], [`ReceiptError::Empty`].
pub fn read(path: &Path) -> Result<Vec<OfImage>, ReceiptError> {
    let bytes = files::read(path, MAX_FILE_BYTES).map_err(file(path, "read"))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().enumerate();
    let receipts = lines.map(|(at, line)| {
        let wrong = || ReceiptError::Line {
            path: path.to_owned(),
            line: at + 1,
        };
        let receipt: OfImage = serde_json::from_str(line).map_err(|_| wrong())?;
        match receipt.receipt.version {
            VERSION => Ok(receipt),
            _ => Err(wrong()),
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
    engine: Option<(Receipt, Engine)>,
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
        }
    }

    /// Evaluates an answer again.
    ///
    /// # Errors
    /// [`ReceiptError`] where that cannot be done.
    pub fn audit(&mut self, receipt: &Receipt) -> Result<Verdict, ReceiptError> {
        let input = self.uploads.fetch("the input", receipt.input)?;
        let (result, _) = self.engine(receipt)?.evaluate(&input)?;
        Ok(match Digest::of(&result) == receipt.output {
            true => Verdict::Reproduced,
            false => Verdict::Forged,
        })
    }

    /// The engine with a receipt's keys and weights, kept for the next of them.
    fn engine(&mut self, receipt: &Receipt) -> Result<&mut Engine, ReceiptError> {
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

    fn fresh(&self, receipt: &Receipt) -> Result<Engine, ReceiptError> {
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
        Ok(Engine::new(program, Some(model), &keys, &weights)?)
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
        let of_image = |version| OfImage {
            index: 7,
            receipt: Receipt {
                version,
                params: 0x1234_5678,
                program: digest,
                model: None,
                weights: Some(digest),
                keys: digest,
                input: digest,
                output: digest,
            },
        };
        let sound = lines(&[of_image(VERSION), of_image(VERSION)]).unwrap();
        fs::write(&path, &sound).unwrap();
        assert_eq!(read(&path).unwrap(), [of_image(VERSION), of_image(VERSION)]);
        fs::write(&path, "").unwrap();
        assert!(matches!(read(&path), Err(ReceiptError::Empty(_))));
        let later = lines(&[of_image(VERSION + 1)]).unwrap();
        for wrong in [
            later.as_str(),
            "{}\n",
            "\u{fffd}\n",
            &sound[..sound.len() / 4],
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
        assert!(matches!(refusal, ReceiptError::File { .. }), "{refusal}");
    }
}
