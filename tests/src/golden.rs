//! The golden files (see `tests/golden/README.md`), and the table of parameter
//! sets in `he-core/WIRE.md`.

use he_core::params::{Params, SETS, Security};
use he_core::rlwe::PublicKey;
use he_core::rlwe::keys::switching_key_words;
use he_core::wire::{self, Header, Kind};
use host_runner::planning::{N8192_NETWORK, N8192_SHALLOW, N16384_NETWORK};
use host_runner::encrypted_training::circuit::N16384_FIVE_EPOCHS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

he_core::parameter_set! {
    /// One prime just below a power of two, one in the middle, so that packed
    /// residues both nearly always and often are none after a change.
    pub static GOLDEN64 = {
        n: 64, security: Security::Insecure,
        data: [134_217_089, 785_153, 1_048_193], special: 134_215_681
    };

    /// Several special primes, more than a digit has: two digits of two primes, and
    /// at level 2 one of two and one of one.
    pub static GOLDEN64_GROUPED = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 785_153, 12_289, 1_048_193],
        special: [134_215_681, 7681, 1_073_738_753]
    };
}

/// Every set of the document: the named ones, then those of the files alone.
pub fn known_sets() -> impl Iterator<Item = &'static Params> {
    let of_the_host = [
        &N8192_SHALLOW,
        &N8192_NETWORK,
        &N16384_NETWORK,
        &N16384_FIVE_EPOCHS,
    ];
    let of_tests = [&GOLDEN64, &GOLDEN64_GROUPED];
    SETS.into_iter().chain(of_the_host).chain(of_tests)
}

/// The specification.
pub const DOCUMENT: &str = include_str!("../../he-core/WIRE.md");

/// `golden.json`: what the files hold.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Golden {
    /// Secret keys by the name of the set: a coefficient a character, `+`, `0`
    /// or `-`.
    pub keys: BTreeMap<String, String>,
    /// The files.
    pub objects: Vec<Description>,
}

/// One file.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Description {
    /// Its name.
    pub file: String,
    /// Name of the parameter set.
    pub set: String,
    /// What it holds.
    pub holds: Holds,
    /// Level of the object.
    pub level: usize,
}

/// What a file holds.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// A ciphertext of any kind.
    Ciphertext {
        /// Kind in the header.
        kind: u8,
        /// Exact scale.
        scale: f64,
        /// The first slots, real and imaginary part.
        slots: Vec<[f64; 2]>,
        /// Largest error of a part of a slot.
        error: f64,
    },
    /// A public key.
    PublicKey,
    /// A switching key.
    SwitchingKey {
        /// 0 for relinearisation, or the Galois element.
        element: u32,
    },
}

/// Where they are.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", name]
        .iter()
        .collect()
}

/// Reads the description.
///
/// # Panics
/// If it is not there or not readable.
#[must_use]
pub fn load() -> Golden {
    serde_json::from_slice(&fs::read(path("golden.json")).unwrap()).unwrap()
}

impl Golden {
    /// The secret key of a set.
    ///
    /// # Panics
    /// If there is none, or a character is none of the three.
    #[must_use]
    pub fn key(&self, set: &str) -> Vec<i8> {
        let coefficient = |c| match c {
            '+' => 1,
            '0' => 0,
            '-' => -1,
            other => panic!("{other} in the key of {set}"),
        };
        self.keys[set].chars().map(coefficient).collect()
    }
}

impl Description {
    /// The file.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(path(&self.file)).unwrap()
    }
}

/// A row of the document's table of parameter sets.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Ring degree.
    pub n: usize,
    /// `q_0 .. q_L`.
    pub data: Vec<u32>,
    /// Special primes.
    pub special: Vec<u32>,
    /// Fingerprint.
    pub fingerprint: u32,
}

/// The document's table of parameter sets.
///
/// # Panics
/// If it is not there or not readable.
#[must_use]
pub fn sets() -> Vec<Set> {
    let table = DOCUMENT.split("\n| set | N |").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let mut cell = || cells.next().unwrap();
        let primes = |cell: &str| cell.split(' ').map(|q| q.parse().unwrap()).collect();
        Set {
            name: cell().into(),
            n: cell().parse().unwrap(),
            data: primes(cell()),
            special: primes(cell()),
            fingerprint: u32::from_str_radix(cell(), 16).unwrap(),
        }
    })
    .collect()
}

/// Reads any object, and gives its bytes written again and the words that were
/// read.
///
/// # Errors
/// Of the readers and writers.
pub fn reread(params: &Params, bytes: &[u8]) -> he_core::Result<(Vec<u8>, Vec<u32>)> {
    let header = Header::parse(bytes, params)?;
    let mut out = vec![0; header.object_len(params)?];
    let half = || vec![0; (header.level + 1) * params.n()];
    let words = match header.object.kind() {
        Kind::Ciphertext => {
            let ct = wire::read_ciphertext(params, bytes, [half(), half()])?;
            wire::write_ciphertext(params, &ct, &mut out)?;
            ct.parts().concat()
        }
        Kind::ThreePartCiphertext => {
            let ct = wire::read_ciphertext(params, bytes, [half(), half(), half()])?;
            wire::write_ciphertext(params, &ct, &mut out)?;
            ct.parts().concat()
        }
        Kind::SeededCiphertext => {
            let ct = wire::read_seeded(params, bytes, half(), half())?;
            let seed = bytes[wire::HEADER_LEN..].first_chunk().unwrap();
            wire::write_seeded(params, ct.scale(), seed, ct.halves().0, &mut out)?;
            ct.parts().concat()
        }
        Kind::PublicKey => {
            let storage = vec![0; PublicKey::<Vec<u32>>::words(params)];
            let key = wire::read_public_key(params, bytes, storage)?;
            wire::write_public_key(params, &key, &mut out)?;
            let seed = key.seed().iter().map(|&byte| byte.into());
            seed.chain(key.b().iter().copied()).collect()
        }
        Kind::SwitchingKey => {
            let storage = vec![0; switching_key_words(params, header.level)];
            let key = wire::read_switch_key(params, bytes, storage)?;
            wire::write_switch_key(params, &key, &mut out)?;
            let seed = key.seed().iter().map(|&byte| byte.into());
            seed.chain(key.b().iter().copied()).collect()
        }
    };
    Ok((out, words))
}
