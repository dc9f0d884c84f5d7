//! The client of batches: one sample per slot, one ciphertext per value.

use he_core::wire;
use he_nn::clear;
use he_nn::model::Sample;
use he_nn::plan::batch::BatchPlan;
use zeroize::Zeroizing;

use super::publication::{Form, PublicationError, Published, Publisher, Terms, expected};
use super::{ClientError, IN_MEMORY, Keys, values_of};
use crate::engine::{batch, objects};

/// The client of batches: its keys never leave it.
#[derive(Debug)]
pub struct BatchClient<'m> {
    plan: BatchPlan<'m>,
    keys: Keys,
    publisher: Option<Publisher>,
}

impl<'m> BatchClient<'m> {
    /// A client with fresh keys.
    ///
    /// # Errors
    /// [`ClientError::Random`].
    pub fn new(plan: BatchPlan<'m>) -> Result<Self, ClientError> {
        let keys = Keys::new(plan.params())?;
        Ok(Self::with_keys(plan, keys))
    }

    /// A client with keys of the plan's set.
    #[must_use]
    pub const fn with_keys(plan: BatchPlan<'m>, keys: Keys) -> Self {
        Self {
            plan,
            keys,
            publisher: None,
        }
    }

    /// From now on has every batch published, against a budget of this key: a label costs
    /// a publication, which is only of a network with a single logit, as a label is chosen
    /// among the slots of one ciphertext; values cost one per logit, for the whole batch.
    /// **Values are those of an engine that the holder of the key runs.**
    ///
    /// # Errors
    /// [`ClientError::Publication`], [`ClientError::Random`].
    pub fn publish_by(&mut self, terms: Terms) -> Result<(), ClientError> {
        self.publisher = Some(Publisher::new(terms, self.plan.params(), &self.keys)?);
        Ok(())
    }

    /// Publications that are allowed and those that have been counted, where something is
    /// published.
    #[must_use]
    pub fn publications(&self) -> Option<(u32, u32)> {
        self.publisher.as_ref().map(Publisher::count)
    }

    /// The client with new keys: nothing more is published, as the budget is of the old.
    ///
    /// # Errors
    /// [`ClientError::Random`].
    pub fn renew(&mut self) -> Result<(), ClientError> {
        if let Some(publisher) = &mut self.publisher {
            publisher.close();
        }
        self.keys = Keys::new(self.plan.params())?;
        Ok(())
    }

    /// Publishes a result that was decrypted to `logits`, as far as that was asked for.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn publish(
        &mut self,
        bytes: &[u8],
        logits: &[Vec<f64>],
    ) -> Result<Vec<Option<Result<Published, PublicationError>>>, ClientError> {
        let (params, samples) = (self.plan.params(), logits.len());
        let Some(publisher) = &mut self.publisher else {
            return Ok((0..samples).map(|_| None).collect());
        };
        let parts = objects(params, bytes).map_err(|source| ClientError::Result {
            device: IN_MEMORY.to_owned(),
            source,
        })?;
        let (level, scale) = (self.plan.output_level(), self.plan.output_scale());
        let read = |object| self.keys.read(object, level);
        let cts = parts.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if publisher.form() == Form::Labels {
            let [ct] = &cts[..] else {
                let logits = cts.len();
                let of_sample = |_| Some(Err(PublicationError::Logits { logits }));
                return Ok((0..samples).map(of_sample).collect());
            };
            let label = |slot| {
                let place = (level, scale);
                let label = publisher.label(params, &self.keys, ct, place, &[slot]);
                Some(label.map(|label| Published::Label { label }))
            };
            return Ok((0..samples).map(label).collect());
        }
        let wanted = expected(
            self.plan.logit_error(),
            (level, scale),
            range_of(&self.plan),
            publisher.precision_bits(),
        );
        // The noise leaves no room for more.
        let largest = logits
            .iter()
            .flatten()
            .fold(0.0, |a: f64, x| a.max(x.abs()));
        if largest.is_nan() || largest > wanted.magnitude {
            let room = wanted.magnitude;
            let of_sample = |_| Some(Err(PublicationError::Range { largest, room }));
            return Ok((0..samples).map(of_sample).collect());
        }
        let mut logits: Vec<Vec<f64>> = vec![Vec::new(); samples];
        let mut bits = f64::INFINITY;
        for ct in &cts {
            match publisher.values(params, &self.keys, ct, &wanted) {
                Ok((values, of_ct)) => {
                    bits = bits.min(of_ct);
                    for (logits, value) in logits.iter_mut().zip(values) {
                        logits.push(value);
                    }
                }
                // Some logits alone are no answer.
                Err(error) => {
                    let sentence = error.to_string();
                    let of_sample = |_| Some(Err(PublicationError::Batch(sentence.clone())));
                    return Ok((0..samples).map(of_sample).collect());
                }
            }
        }
        let published = logits.into_iter().map(|values| {
            Some(Ok(Published::Values {
                values,
                precision_bits: bits,
            }))
        });
        Ok(published.collect())
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &BatchPlan<'m> {
        &self.plan
    }

    /// What the evaluator needs before the first batch.
    ///
    /// # Errors
    /// [`ClientError::Sealing`].
    pub fn switching_keys(&mut self) -> Result<Vec<u8>, ClientError> {
        self.keys.switching_keys(&batch::wanted_keys(&self.plan))
    }

    /// Encrypts up to [`BatchPlan::samples`] samples, one per slot.
    ///
    /// # Errors
    /// [`ClientError::Count`] for more; [`ClientError::Sample`] for one of another
    /// size; [`ClientError::Sealing`].
    pub fn encrypt(&mut self, samples: &[Sample<'_>]) -> Result<Vec<u8>, ClientError> {
        let most = self.plan.samples();
        if samples.len() > most {
            return Err(ClientError::Count {
                what: "samples of a batch",
                expected: most,
                got: samples.len(),
            });
        }
        let model = self.plan.model();
        let rows = samples
            .iter()
            .map(|&sample| {
                clear::checked_in_batch(&self.plan, sample)?;
                values_of(model, sample)
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        let rows: Vec<&[f64]> = rows.iter().map(|row| &row[..]).collect();
        self.encrypt_values(&rows)
    }

    /// Encrypts rows of any numbers as the values that the first layer takes, without
    /// the checks of [`Self::encrypt`]: what an attacker's client does.
    ///
    /// # Errors
    /// [`ClientError::Sealing`].
    pub fn encrypt_values(&mut self, rows: &[&[f64]]) -> Result<Vec<u8>, ClientError> {
        let (level, scale) = (self.plan.input_level(), self.plan.input_scale());
        let mut bytes = Vec::new();
        for input in 0..self.plan.model().inputs() {
            let value = |row: &&[f64]| row.get(input).copied().unwrap_or(0.0);
            let slots = Zeroizing::new(rows.iter().map(value).collect::<Vec<f64>>());
            let fresh = self.keys.encrypt(&slots, &[], level, scale)?;
            fresh.write(self.plan.params(), &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Encrypted masks of the results of a batch, one object per result, and what undoes
    /// them: for an evaluator that is not this process, so that its results answer this
    /// batch and no other.
    ///
    /// # Errors
    /// [`ClientError::Sealing`].
    pub(crate) fn masks(&mut self) -> Result<(Vec<u8>, Zeroizing<Vec<u32>>), ClientError> {
        let (level, scale) = (self.plan.output_level(), self.plan.output_scale());
        let (params, outputs) = (self.plan.params(), self.plan.model().outputs());
        let words = outputs * (level + 1) * params.n();
        let (mut bytes, mut masks) = (Vec::new(), Zeroizing::new(Vec::with_capacity(words)));
        for _ in 0..outputs {
            let (fresh, mask) = self.keys.mask(level, scale)?;
            fresh.write(params, &mut bytes)?;
            masks.extend_from_slice(&mask);
        }
        Ok((bytes, masks))
    }

    /// As [`Self::decrypt`], of results that have the masks of [`Self::masks`].
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub(crate) fn decrypt_masked(
        &self,
        bytes: &[u8],
        masks: &[u32],
        samples: usize,
    ) -> Result<Vec<Vec<f64>>, ClientError> {
        let params = self.plan.params();
        let mut masks = masks.chunks_exact((self.plan.output_level() + 1) * params.n());
        self.decrypt_by(bytes, samples, |object, level, scale| {
            let limbs = || vec![0; (level + 1) * params.n()];
            let read = wire::read_ciphertext(params, object, [limbs(), limbs()]);
            let ct = read.map_err(|source| ClientError::Result {
                device: IN_MEMORY.to_owned(),
                source,
            })?;
            let found = ct.scale();
            let [mut c0, c1] = ct.into_parts();
            self.keys
                .unmask(&mut c0, masks.next().unwrap_or_default())?;
            let halves = (c0, c1);
            self.keys
                .decrypt_words(halves, found, level, scale, 0..samples, IN_MEMORY)
        })
    }

    /// Decrypts a result: the logits of each of the first `samples`.
    ///
    /// # Errors
    /// As [`Keys::decrypt`]; [`ClientError::Count`].
    pub fn decrypt(&self, bytes: &[u8], samples: usize) -> Result<Vec<Vec<f64>>, ClientError> {
        self.decrypt_by(bytes, samples, |object, level, scale| {
            self.keys.decrypt(object, level, scale, 0..samples)
        })
    }

    /// As [`Self::decrypt`], whatever became of the values: what an attacker's client
    /// does with a result that wrapped around.
    ///
    /// # Errors
    /// [`ClientError::Result`], [`ClientError::Count`].
    #[cfg(feature = "attack")]
    pub(crate) fn decrypt_any(
        &self,
        bytes: &[u8],
        samples: usize,
    ) -> Result<Vec<Vec<f64>>, ClientError> {
        self.decrypt_by(bytes, samples, |object, level, scale| {
            self.keys.decrypt_any(object, level, scale, 0..samples)
        })
    }

    fn decrypt_by(
        &self,
        bytes: &[u8],
        samples: usize,
        mut decrypt: impl FnMut(&[u8], usize, f64) -> Result<Vec<f64>, ClientError>,
    ) -> Result<Vec<Vec<f64>>, ClientError> {
        let (params, outputs) = (self.plan.params(), self.plan.model().outputs());
        let most = self.plan.samples();
        if samples > most {
            return Err(ClientError::Count {
                what: "samples of a batch",
                expected: most,
                got: samples,
            });
        }
        let parts = objects(params, bytes).map_err(|source| ClientError::Result {
            device: IN_MEMORY.to_owned(),
            source,
        })?;
        if parts.len() != outputs {
            return Err(ClientError::Count {
                what: "result ciphertexts",
                expected: outputs,
                got: parts.len(),
            });
        }
        let (level, scale) = (self.plan.output_level(), self.plan.output_scale());
        let mut logits = vec![Vec::with_capacity(outputs); samples];
        for object in parts {
            let values = decrypt(object, level, scale)?;
            for (logits, value) in logits.iter_mut().zip(values) {
                logits.push(value);
            }
        }
        Ok(logits)
    }
}

/// The largest logit that the plan has room for.
pub(crate) fn range_of(plan: &BatchPlan<'_>) -> f32 {
    let last = plan.model().layers().last();
    last.map_or(0.0, |view| view.layer.range())
}
