//! What a file of this project holds, as far as it says without a passphrase.

use std::path::Path;

use he_core::Params;
use he_core::wire::{self, Header, Object};
use he_nn::model::{self, Model};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::heads::read_regular;
use super::{Container, FileError, KeysHead, Kind, MAGIC, Problem, RequestHead, SealedHead};
use crate::budget;
use crate::client::printable;
use crate::engine::objects;
use crate::planning;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// What it is, in a few words.
    pub kind: String,
    /// Version of its format.
    pub version: u32,
    /// Its bytes.
    pub bytes: usize,
    /// What it says of itself, in order.
    pub facts: Vec<Fact>,
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Of what.
    pub name: &'static str,
    /// Fit for a terminal.
    pub value: String,
}

/// Says what a file holds: a container of this module, a model, a budget, or an object of
/// [`he_core::wire`]. It is checked as far as that is possible without a secret.
///
/// # Errors
/// [`FileError`] where it is none of these, or damaged.
pub fn show(path: &Path) -> Result<Shown, FileError> {
    let found = read_regular(path).and_then(shown);
    found.map_err(|problem| problem.at(path))
}

/// The same of a file's bytes.
///
/// # Errors
/// [`Problem`].
pub fn shown(bytes: Vec<u8>) -> Result<Shown, Problem> {
    if bytes.starts_with(&MAGIC) {
        return of_container(Container::parse(bytes)?);
    }
    if bytes.starts_with(&model::MAGIC) {
        return of_model(&bytes);
    }
    if bytes.starts_with(&wire::MAGIC) {
        return of_object(&bytes);
    }
    match budget::described(&bytes) {
        Some((key, spent, publications)) => Ok(Shown {
            kind: "a budget of publications".to_owned(),
            version: budget::VERSION,
            bytes: bytes.len(),
            facts: vec![
                fact("key", key),
                fact("publications", format!("{spent} of {publications} spent")),
            ],
        }),
        None => Err(Problem::Foreign),
    }
}

fn fact(name: &'static str, value: impl ToString) -> Fact {
    Fact {
        name,
        value: printable(&value.to_string()),
    }
}

fn of_container(container: Container) -> Result<Shown, Problem> {
    let facts = match container.kind {
        Kind::SealedKey => of_key(&container.head()?),
        Kind::EvaluationKeys => {
            let head: KeysHead = read(&container)?;
            let mut facts = of_deployed(&head.deployed, &head.key);
            let params = head.deployed.params()?;
            facts.push(held("switching keys", params, container.body())?);
            facts
        }
        Kind::Request | Kind::Result | Kind::Note => {
            let head: RequestHead = read(&container)?;
            let mut facts = of_deployed(&head.deployed, &head.key);
            facts.push(fact("request", &head.request));
            facts.push(fact("samples", head.samples));
            if container.kind == Kind::Note {
                facts.push(fact("content", "sealed under the secret key"));
            } else {
                let params = head.deployed.params()?;
                facts.push(held("ciphertexts", params, container.body())?);
            }
            facts
        }
    };
    Ok(Shown {
        kind: container.kind.to_string(),
        version: super::VERSION.into(),
        bytes: container.bytes.len(),
        facts,
    })
}

fn read<T: DeserializeOwned>(container: &Container) -> Result<T, Problem> {
    container.head()
}

fn of_key(head: &SealedHead) -> Vec<Fact> {
    let cost = head.argon2id;
    let state = match head.retired {
        true => "retired: a result was refused under it",
        false => "in use",
    };
    vec![
        fact("parameter set", &head.params),
        fact("key", &head.key),
        fact("state", state),
        fact(
            "publications",
            format!("{} of {} spent", head.spent, head.publications),
        ),
        fact(
            "passphrase",
            format!("Argon2id, {} KiB, {} passes", cost.memory_kib, cost.passes),
        ),
        fact("checked", "by its hash; opening it checks the rest"),
    ]
}

fn of_deployed(deployed: &super::Deployed, key: &str) -> Vec<Fact> {
    vec![
        fact(
            "model",
            format!("{} ({:08x})", deployed.model, deployed.model_crc),
        ),
        fact("parameter set", &deployed.params),
        fact("packing", format!("{:?}", deployed.packing).to_lowercase()),
        fact("plan", &deployed.plan),
        fact("key", key),
    ]
}

/// How many objects there are, of which kind and level.
fn held(name: &'static str, params: &'static Params, bytes: &[u8]) -> Result<Fact, Problem> {
    let object = |source| Problem::Object { source };
    let mut groups: Vec<(usize, String)> = Vec::new();
    for bytes in objects(params, bytes).map_err(object)? {
        let header = Header::parse(bytes, params).map_err(object)?;
        let what = what(&header);
        match groups.iter_mut().find(|(_, known)| *known == what) {
            Some((count, _)) => *count += 1,
            None => groups.push((1, what)),
        }
    }
    let groups: Vec<String> = groups
        .into_iter()
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    Ok(Fact {
        name,
        value: groups.join(", "),
    })
}

fn what(header: &Header) -> String {
    let scale = |scale: f64| format!("at scale 2^{:.2}", scale.log2());
    let (kind, detail) = match header.object {
        Object::Ciphertext { scale: x } => ("of two parts", scale(x)),
        Object::SeededCiphertext { scale: x } => ("seeded", scale(x)),
        Object::ThreePartCiphertext { scale: x } => ("of three parts", scale(x)),
        Object::PublicKey => ("public", String::new()),
        Object::SwitchingKey { .. } => ("seeded", String::new()),
    };
    format!("{kind}, level {} {detail}", header.level)
        .trim_end()
        .to_owned()
}

fn of_model(bytes: &[u8]) -> Result<Shown, Problem> {
    let model = Model::parse(bytes).map_err(Problem::Model)?;
    let layers = model.layers().map(|view| {
        let kind = match view.layer {
            model::Layer::Conv2d { .. } => "convolution",
            model::Layer::Dense { .. } => "dense",
            _ => "polynomial",
        };
        format!("{kind} {}", view.output.values())
    });
    let layers: Vec<String> = layers.collect();
    Ok(Shown {
        kind: "a model".to_owned(),
        version: model::FILE_VERSION,
        bytes: bytes.len(),
        facts: vec![
            fact("name", model.name()),
            fact("checksum", format!("{:08x}", model.crc())),
            fact("inputs", model.inputs()),
            Fact {
                name: "layers",
                value: layers.join(", "),
            },
            fact("outputs", model.outputs()),
        ],
    })
}

fn of_object(bytes: &[u8]) -> Result<Shown, Problem> {
    let fingerprint = bytes.get(8..).and_then(|bytes| bytes.first_chunk());
    let fingerprint = fingerprint.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let params = super::heads::set_of("of no name", fingerprint)?;
    Ok(Shown {
        kind: "objects of he-core".to_owned(),
        version: wire::VERSION.into(),
        bytes: bytes.len(),
        facts: vec![
            fact("parameter set", planning::set_name(params)),
            held("objects", params, bytes)?,
        ],
    })
}
