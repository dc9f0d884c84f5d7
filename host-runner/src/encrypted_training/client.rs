//! The holder of the key: encrypts the table and the model, and decrypts models.

use std::fmt;

use chacha20::ChaCha20Rng;
use he_core::ckks::decrypt::decrypt;
use he_core::ckks::encode::encode_complex;
use he_core::ring::sample::SEED_LEN;
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{self, SecretKey, SwitchKey};
use he_core::wire::{self, Kind};
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::circuit::{BIAS, Circuit, PAIRS, STRIDE, Shape};
use super::{Data, EncryptedModel, Error, Model, Rows};

/// Above this share of the modulus a model counts as wrapped around.
const WRAPPED: f64 = 0.5;

/// The client, with its secret key.
pub struct Client {
    circuit: Circuit,
    key: SecretKey<Vec<u32>>,
    rng: ChaCha20Rng,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}

impl Client {
    /// With a key and everything else drawn from `seed`, which must come from the
    /// system and be used once.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn from_seed(circuit: Circuit, seed: &[u8; 32]) -> Result<Self, Error> {
        let params = circuit.params();
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let words = SecretKey::<Vec<u32>>::words(params);
        let key = SecretKey::generate(params, vec![0; words], &mut rng)?;
        Ok(Self { circuit, key, rng })
    }

    /// The switching keys, for the evaluator.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn keys(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let params = self.circuit.params();
        let mut errors = vec![0; params.n()];
        let write = |(target, level)| {
            let storage = vec![0; switching_key_words(params, level)];
            let (key, rng) = (&self.key, &mut self.rng);
            let key = SwitchKey::generate(params, key, target, level, rng, &mut errors, storage)?;
            let mut bytes = vec![0; Kind::SwitchingKey.object_len(params, level)?];
            wire::write_switch_key(params, &key, &mut bytes)?;
            Ok(bytes)
        };
        self.circuit.keys().into_iter().map(write).collect()
    }

    /// The table, as [`super::circuit`] lays it out.
    ///
    /// # Errors
    /// [`Error::Library`] for another number of rows than the circuit's, or a feature
    /// too large to be encoded.
    pub fn encrypt_rows(&mut self, rows: &Rows) -> Result<Data, Error> {
        let circuit = self.circuit;
        for got in [rows.features.len(), rows.labels.len()] {
            if got != circuit.rows() {
                return Err(Error::Library(he_core::Error::Length {
                    what: "rows of the table",
                    expected: circuit.rows(),
                    got,
                }));
            }
        }
        let (level, unit) = (circuit.params().max_level(), circuit.unit());
        let forward = Shape {
            level,
            scale: circuit.forward_scale(),
        };
        let gradient = Shape {
            level,
            scale: circuit.gradient_scale(),
        };
        let labels: Vec<f64> = rows
            .labels
            .iter()
            .map(|&label| if label == 0 { -1.0 } else { 1.0 })
            .collect();
        let mut data = Data::default();
        let features = rows.features.chunks(circuit.rows_each());
        for (features, labels) in features.zip(labels.chunks(circuit.rows_each())) {
            let pair = |row: usize, j: usize| {
                let y = labels[row];
                (y * features[row][2 * j], y * features[row][2 * j + 1])
            };
            data.forward
                .push(self.encrypt(features.len(), forward, |row, j| {
                    if j < PAIRS {
                        let (a, b) = pair(row, j);
                        (a / 2.0, -b / 2.0)
                    } else {
                        (0.0, 0.0)
                    }
                })?);
            data.labels
                .push(self.encrypt(features.len(), forward, |row, j| {
                    let half = if j == 0 { labels[row] / 2.0 } else { 0.0 };
                    (half, 0.0)
                })?);
            data.gradient
                .push(self.encrypt(features.len(), gradient, |row, j| {
                    let (a, b) = match j {
                        0..PAIRS => pair(row, j),
                        BIAS => (labels[row], 0.0),
                        _ => (0.0, 0.0),
                    };
                    (a * unit, b * unit)
                })?);
        }
        Ok(data)
    }

    /// A model, at the highest level.
    ///
    /// # Errors
    /// [`Error::Library`] for a weight too large to be encoded.
    pub fn encrypt_model(&mut self, model: &Model) -> Result<EncryptedModel, Error> {
        let (rows, shape) = (self.circuit.rows_each(), self.circuit.fresh());
        let weights = self.encrypt(rows, shape, |_, j| match j {
            0..PAIRS => (model.weights[2 * j], model.weights[2 * j + 1]),
            BIAS => (model.bias, 0.0),
            _ => (0.0, 0.0),
        })?;
        let bias = self.encrypt(rows, shape, |_, j| {
            (if j == 0 { model.bias } else { 0.0 }, 0.0)
        })?;
        Ok(EncryptedModel { weights, bias })
    }

    /// The weights that an evaluator returned, which must have the shape that the
    /// client expects; each the mean over all rows, which have the same but for
    /// noise.
    ///
    /// # Errors
    /// [`Error::Library`] naming the level, scale or bytes that are wrong;
    /// [`Error::Wrapped`] where values are too large to be right.
    pub fn decrypt_model(&self, weights: &[u8], expected: Shape) -> Result<Model, Error> {
        let params = self.circuit.params();
        let Shape { level, scale } = expected;
        let limbs = || vec![0; (level + 1) * params.n()];
        let ct = wire::read_ciphertext(params, weights, [limbs(), limbs()])?;
        let mut scratch = limbs();
        let mut slots = vec![0.0; params.n()];
        let slots = decrypt(
            params,
            &self.key,
            &ct,
            level,
            scale,
            &mut scratch,
            &mut slots,
        )?;
        if slots.fill() > WRAPPED {
            return Err(Error::Wrapped { fill: slots.fill() });
        }
        let rows = self.circuit.rows_each();
        let mean = |j: usize, part: &dyn Fn(usize) -> Option<f64>| {
            let values = (0..rows).filter_map(|row| part(row * STRIDE + j));
            values.sum::<f64>() / rows as f64
        };
        let weight = |i: usize| {
            if i.is_multiple_of(2) {
                mean(i / 2, &|slot| slots.slot(slot))
            } else {
                mean(i / 2, &|slot| slots.imaginary(slot))
            }
        };
        Ok(Model {
            weights: std::array::from_fn(weight),
            bias: mean(BIAS, &|slot| slots.slot(slot)),
        })
    }

    /// Encrypts the complex numbers that `value` has for each slot of each row.
    fn encrypt(
        &mut self,
        rows: usize,
        Shape { level, scale }: Shape,
        value: impl Fn(usize, usize) -> (f64, f64),
    ) -> Result<Vec<u8>, Error> {
        let params = self.circuit.params();
        let n = params.n();
        let mut re = Zeroizing::new(vec![0.0; params.slots()]);
        let mut im = Zeroizing::new(vec![0.0; params.slots()]);
        let slots = re.chunks_exact_mut(STRIDE).zip(im.chunks_exact_mut(STRIDE));
        for (row, (re, im)) in slots.take(rows).enumerate() {
            for (j, (re, im)) in re.iter_mut().zip(im).enumerate() {
                (*re, *im) = value(row, j);
            }
        }
        let mut buffer = Zeroizing::new(vec![0.0; n]);
        let mut message = Zeroizing::new(vec![0i32; n]);
        encode_complex(&re, &im, scale, &mut buffer, &mut message, |x| x as i32)?;
        let mut seed = [0; SEED_LEN];
        self.rng.fill_bytes(&mut seed);
        let mut c0 = vec![0; (level + 1) * n];
        let (key, rng) = (&self.key, &mut self.rng);
        rlwe::encrypt(params, key, &mut message, level, &seed, rng, &mut c0)?;
        let mut bytes = vec![0; Kind::SeededCiphertext.object_len(params, level)?];
        wire::write_seeded(params, scale, &seed, &c0, &mut bytes)?;
        Ok(bytes)
    }
}
