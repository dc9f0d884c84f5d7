//! What streams to an evaluator, packed.

use super::{ClientError, failed};
use he_core::Params;
use he_core::rlwe::{KeyLimb, SwitchKey, SwitchTarget};
use he_core::wire;
use he_nn::kept::{KeyHash, KeyId};
use he_nn::message::{CHUNK_COEFFS, Item, Request, SEED_BYTES};

/// The `b` half of a switching key, packed limb by limb in the order that a key of its
/// level is consumed in. It serves every lower level too, whose limbs it has.
pub(super) struct PackedKey {
    pub(super) target: SwitchTarget,
    level: usize,
    pub(super) seed: [u8; SEED_BYTES],
    limbs: Vec<Vec<u8>>,
    /// By which an evaluator keeps it.
    pub(super) id: KeyId,
}

impl PackedKey {
    /// Packs a key.
    pub(super) fn of(params: &Params, key: &SwitchKey<Vec<u32>>) -> Result<Self, ClientError> {
        let mut packed = Self {
            target: key.target(),
            level: key.level(),
            seed: *key.seed(),
            limbs: Vec::new(),
            id: KeyId::default(),
        };
        let mut hash = KeyHash::new(&packed.seed);
        let mut at = Some(KeyLimb::FIRST);
        for limb in key.b().chunks_exact(params.n()) {
            let Some(KeyLimb { target, .. }) = at else {
                break;
            };
            let limb = pack(params, target, limb).map_err(failed("key generation"))?;
            hash.update(&limb);
            packed.limbs.push(limb);
            at = at.and_then(|at| at.next(params, packed.level));
        }
        packed.id = hash.id();
        Ok(packed)
    }

    /// One limb of it.
    pub(super) fn limb(&self, params: &Params, at: KeyLimb) -> Option<&Vec<u8>> {
        self.limbs.get(at.index(params, self.level)?)
    }
}

/// A seeded ciphertext, packed limb by limb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedCiphertext {
    /// Seed of the uniform half.
    pub seed: [u8; SEED_BYTES],
    /// The limbs of `c0`.
    pub limbs: Vec<Vec<u8>>,
}

/// A chunk of a packed limb as a message.
pub(super) fn chunk_of<'l>(
    params: &Params,
    item: Item,
    limb: Option<&'l Vec<u8>>,
    offset: usize,
) -> Request<'l> {
    let bytes = limb.and_then(|l| chunk(l, offset, params.n()));
    Request::Data {
        item,
        offset: offset as u16,
        bytes: bytes.unwrap_or_default(),
    }
}

pub(super) fn pack(params: &Params, limb: usize, words: &[u32]) -> Result<Vec<u8>, he_core::Error> {
    let modulus = params.prime(limb)?.modulus();
    let mut bytes = vec![0; wire::packed_len(words.len(), modulus.bits())];
    wire::pack(words, modulus, &mut bytes)?;
    Ok(bytes)
}

/// The packed coefficients `offset ..` of one chunk of a limb of `n`.
fn chunk(limb: &[u8], offset: usize, n: usize) -> Option<&[u8]> {
    let length = limb.len() * CHUNK_COEFFS / n;
    limb.chunks_exact(length).nth(offset / CHUNK_COEFFS)
}
