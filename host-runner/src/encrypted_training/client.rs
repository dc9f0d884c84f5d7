//! The holder of the key: encrypts the table and the model, and decrypts models.

use zeroize::Zeroizing;

use super::circuit::{BIAS, Circuit, PAIRS, STRIDE, Shape};
use super::{Data, EncryptedModel, Error, Model, Rows};
use crate::client::Keys;

/// The client, with its secret key.
#[derive(Debug)]
pub struct Client {
    circuit: Circuit,
    keys: Keys,
}

impl Client {
    /// With a key and everything else drawn from `seed`, which must come from the
    /// system and be used once.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn from_seed(circuit: Circuit, seed: &[u8; 32]) -> Result<Self, Error> {
        let keys = Keys::from_seed(circuit.params(), seed)?;
        Ok(Self { circuit, keys })
    }

    /// The switching keys, for the evaluator, one object after the other.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn keys(&mut self) -> Result<Vec<u8>, Error> {
        Ok(self.keys.switching_keys(&self.circuit.keys())?)
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
        let Shape { level, scale } = expected;
        let rows = self.circuit.rows_each();
        let model = self.keys.decrypted(weights, level, scale, |slots| {
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
            Model {
                weights: std::array::from_fn(weight),
                bias: mean(BIAS, &|slot| slots.slot(slot)),
            }
        });
        Ok(model?)
    }

    /// Encrypts the complex numbers that `value` has for each slot of each row.
    fn encrypt(
        &mut self,
        rows: usize,
        Shape { level, scale }: Shape,
        value: impl Fn(usize, usize) -> (f64, f64),
    ) -> Result<Vec<u8>, Error> {
        let params = self.circuit.params();
        let mut re = Zeroizing::new(vec![0.0; params.slots()]);
        let mut im = Zeroizing::new(vec![0.0; params.slots()]);
        let slots = re.chunks_exact_mut(STRIDE).zip(im.chunks_exact_mut(STRIDE));
        for (row, (re, im)) in slots.take(rows).enumerate() {
            for (j, (re, im)) in re.iter_mut().zip(im).enumerate() {
                (*re, *im) = value(row, j);
            }
        }
        let mut bytes = Vec::new();
        let fresh = self.keys.encrypt(&re, &im, level, scale)?;
        fresh.write(params, &mut bytes)?;
        Ok(bytes)
    }
}
