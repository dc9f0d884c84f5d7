//! The client of batches: one sample per slot, one ciphertext per value.

use std::slice::from_ref;

use he_core::ckks::Ciphertext;
use he_core::ckks::publish::{Expected, HonestEvaluator};
use he_core::wire;
use he_nn::clear;
use he_nn::model::{Model, Sample};
use he_nn::plan::batch::BatchPlan;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::publication::{
    Form, Handed, PublicationError, PublicationTerms, Published, Publisher, expected,
};
use super::{ClientError, Compared, IN_MEMORY, Keys, Mask, failed, values_of};
use crate::engine::{batch, objects};
use crate::files::{SealedError, SealedKey};
use crate::planning;
use crate::receipts::{Receipt, Recorder};

/// Ciphertexts that are held beside their bytes: 25 MB of six limbs at N = 8192.
const ENCRYPTED_AT_A_TIME: usize = 64;

/// The client of batches: its keys never leave it.
#[derive(Debug)]
pub struct BatchClient<'m> {
    plan: BatchPlan<'m>,
    keys: Keys,
    /// Made when they are first asked for: as bytes, which receipts name.
    switching: Option<Vec<u8>>,
    publisher: Option<Publisher>,
    recorder: Option<Recorder>,
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
            switching: None,
            publisher: None,
            recorder: None,
        }
    }

    /// As [`Client::sealed`](super::Client::sealed).
    ///
    /// # Errors
    /// [`ClientError::Sealed`], [`ClientError::Random`].
    pub fn sealed(plan: BatchPlan<'m>, key: SealedKey) -> Result<Self, ClientError> {
        key.expect_set(plan.params()).map_err(SealedError::from)?;
        let mut client = Self::with_keys(plan, key.keys()?);
        client.publisher = Some(Publisher::of_sealed(key));
        Ok(client)
    }

    /// From now on has batches published, against a budget of this key: a label costs
    /// a publication, which is only of a network with a single logit, as a label is chosen
    /// among the slots of one ciphertext ([`Self::publish_labels`]); values cost one per
    /// logit, for the whole batch ([`Self::publish_values`]).
    ///
    /// # Errors
    /// [`ClientError::Publication`], [`ClientError::Random`].
    pub fn publish_by(&mut self, terms: PublicationTerms) -> Result<(), ClientError> {
        Publisher::set(&mut self.publisher, terms, self.plan.params(), &self.keys)
    }

    /// From now on has receipts written of every batch.
    pub fn record_by(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// The receipts of the samples of a batch, whose result is recorded as it came, before
    /// it is decrypted; nothing of each where none are written.
    ///
    /// # Errors
    /// [`ClientError::Receipt`] where that cannot be kept; [`ClientError::Operation`].
    pub fn record(
        &mut self,
        input: &[u8],
        result: &[u8],
        samples: usize,
    ) -> Result<Vec<Option<Receipt>>, ClientError> {
        // Taken out: the keys are the client's to give.
        let Some(mut recorder) = self.recorder.take() else {
            return Ok(vec![None; samples]);
        };
        let receipts = self.recorded(&mut recorder, (input, result), samples);
        self.recorder = Some(recorder);
        receipts
    }

    fn recorded(
        &mut self,
        recorder: &mut Recorder,
        (input, result): (&[u8], &[u8]),
        samples: usize,
    ) -> Result<Vec<Option<Receipt>>, ClientError> {
        if recorder.wants_keys() {
            recorder.keys(&self.switching_keys()?, &[])?;
        }
        let bytes = planning::batch_bytes(&self.plan);
        let plan = (self.plan.params(), &bytes[..]);
        Ok(recorder.batch(plan, input, result, samples)?)
    }

    /// What is published, if anything is.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        self.publisher.as_ref().and_then(Publisher::form)
    }

    /// Whether a sealed key was retired, as a result was refused under it.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::has_retired)
    }

    /// Publications that are allowed and those that have been counted, where something is
    /// published.
    #[must_use]
    pub fn publications(&self) -> Option<(u32, u32)> {
        self.publisher.as_ref().and_then(Publisher::count)
    }

    /// The client with new keys: nothing more is published, as the budget is of the old. A
    /// sealed key is retired in its file, and the new one ends with the process.
    ///
    /// # Errors
    /// [`ClientError::Random`]; [`ClientError::Publication`] where a sealed key cannot be
    /// retired.
    pub fn renew(&mut self) -> Result<(), ClientError> {
        if let Some(publisher) = &mut self.publisher {
            publisher.close()?;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.renewed();
        }
        self.switching = None;
        self.keys = Keys::new(self.plan.params())?;
        Ok(())
    }

    /// The decrypted logits of a sample beside those in the clear.
    ///
    /// # Errors
    /// [`ClientError::Sample`] for one of another size.
    pub fn compared(
        &self,
        sample: Sample<'_>,
        logits: Vec<f64>,
        plain: Vec<f64>,
    ) -> Result<Compared, ClientError> {
        let error = clear::largest_error(&logits, &plain);
        Ok(Compared {
            allowed: clear::allowed_in_batch(&self.plan, sample, error)?,
            logits,
            plain: Zeroizing::new(plain),
        })
    }

    /// Publishes the labels of a result, whoever computed it, where labels are to be
    /// published. `logits` are those of each sample ([`Self::compared`]): where they are
    /// further off than they may be, nothing is published nor counted.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn publish_labels(
        &mut self,
        bytes: &[u8],
        logits: &[Compared],
    ) -> Result<Vec<Handed>, ClientError> {
        let cts = self.read(bytes)?;
        let place = (self.plan.output_level(), self.plan.output_scale());
        let Some(publisher) = publisher_of(&mut self.publisher, Form::Labels) else {
            return Ok(logits.iter().map(|_| None).collect());
        };
        let [ct] = &cts[..] else {
            let of_sample = |_| Some(Err(PublicationError::Logits { logits: cts.len() }));
            return Ok(logits.iter().map(of_sample).collect());
        };
        let (params, keys) = (self.plan.params(), &self.keys);
        let label = |(slot, of_sample): (usize, &Compared)| {
            if !of_sample.is_within() {
                return Some(Err(PublicationError::Beyond));
            }
            let label = publisher.label(params, keys, ct, place, from_ref(&(slot..slot + 1)));
            Some(label.map(|label| Published::Label { label }))
        };
        Ok(logits.iter().enumerate().map(label).collect())
    }

    /// As [`Self::publish_labels`], the values of a result, **whose evaluator is stated
    /// honest: whoever made the result otherwise has the key by them**.
    ///
    /// ```no_run
    /// use he_core::ckks::publish::HonestEvaluator;
    /// use host_runner::client::{BatchClient, Compared};
    ///
    /// fn own(client: &mut BatchClient<'_>, result: &[u8], logits: &[Compared]) {
    ///     let published = client.publish_values(result, logits, HonestEvaluator::assume());
    /// }
    /// ```
    ///
    /// There are none without the statement:
    ///
    /// ```compile_fail
    /// use he_core::ckks::publish::HonestEvaluator;
    /// use host_runner::client::{BatchClient, Compared};
    ///
    /// fn own(client: &mut BatchClient<'_>, result: &[u8], logits: &[Compared]) {
    ///     let published = client.publish_values(result, logits);
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn publish_values(
        &mut self,
        bytes: &[u8],
        logits: &[Compared],
        evaluator: HonestEvaluator,
    ) -> Result<Vec<Handed>, ClientError> {
        let cts = self.read(bytes)?;
        let Some(wanted) = self.expected() else {
            return Ok(logits.iter().map(|_| None).collect());
        };
        let Some(publisher) = publisher_of(&mut self.publisher, Form::Values) else {
            return Ok(logits.iter().map(|_| None).collect());
        };
        let all = |refusal: fn() -> PublicationError| {
            let of_sample = |_| Some(Err(refusal()));
            logits.iter().map(of_sample).collect()
        };
        // One result of all samples.
        if !logits.iter().all(Compared::is_within) {
            return Ok(all(|| PublicationError::Beyond));
        }
        // The noise leaves no room for more.
        let mut decrypted = logits.iter().flat_map(|of_sample| &of_sample.logits);
        if !decrypted.all(|x| x.abs() <= wanted.magnitude) {
            return Ok(all(|| PublicationError::Room));
        }
        let mut flooded: Vec<Vec<f64>> = vec![Vec::new(); logits.len()];
        let mut bits = f64::INFINITY;
        let (params, keys) = (self.plan.params(), &self.keys);
        for ct in &cts {
            match publisher.values(params, keys, ct, &wanted, evaluator) {
                Ok((values, of_ct)) => {
                    bits = bits.min(of_ct);
                    for (flooded, value) in flooded.iter_mut().zip(values) {
                        flooded.push(value);
                    }
                }
                // Some logits alone are no answer.
                Err(error) => {
                    let sentence = error.to_string();
                    let of_sample = |_| Some(Err(PublicationError::Batch(sentence.clone())));
                    return Ok(logits.iter().map(of_sample).collect());
                }
            }
        }
        let published = flooded.into_iter().map(|values| {
            Some(Ok(Published::Values {
                values,
                precision_bits: bits,
            }))
        });
        Ok(published.collect())
    }

    /// What is known of a result whose values are to be published.
    fn expected(&self) -> Option<Expected> {
        let publisher = self.publisher.as_ref()?;
        (publisher.form() == Some(Form::Values))
            .then(|| expected_of(&self.plan, publisher.precision_bits()))
    }

    /// The ciphertexts of a result.
    fn read(&self, bytes: &[u8]) -> Result<Vec<Ciphertext<Vec<u32>>>, ClientError> {
        let parts = objects(self.plan.params(), bytes).map_err(|source| ClientError::Result {
            device: IN_MEMORY.to_owned(),
            source,
        })?;
        let level = self.plan.output_level();
        let read = |object| self.keys.read(object, level);
        parts.into_iter().map(read).collect()
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &BatchPlan<'m> {
        &self.plan
    }

    /// What the evaluator needs before the first batch: the same at each call, until the
    /// client is renewed.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn switching_keys(&mut self) -> Result<Vec<u8>, ClientError> {
        if let Some(switching) = &self.switching {
            return Ok(switching.clone());
        }
        let made = self.keys.switching_keys(&batch::wanted_keys(&self.plan))?;
        Ok(self.switching.insert(made).clone())
    }

    /// Whether a sample may be in a batch: the plan has room for its values, and, where
    /// values are published, for its logits beside the noise. Its logits in the clear.
    ///
    /// # Errors
    /// [`ClientError::Sample`], [`ClientError::Room`].
    pub fn checked(&self, sample: Sample<'_>) -> Result<Vec<f64>, ClientError> {
        let logits = clear::checked_in_batch(&self.plan, sample)?;
        if let Some(expected) = self.expected() {
            let room = expected.magnitude - self.plan.logit_error().worst_case;
            if let Some(&logit) = logits
                .iter()
                .find(|logit| logit.is_nan() || logit.abs() > room)
            {
                return Err(ClientError::Room { logit, room });
            }
        }
        Ok(logits)
    }

    /// Encrypts up to [`BatchPlan::samples`] samples, one per slot.
    ///
    /// # Errors
    /// [`ClientError::Count`] for more; [`ClientError::Sample`] for one of another
    /// size; as [`Self::checked`]; [`ClientError::Operation`].
    pub fn encrypt(&mut self, samples: &[Sample<'_>]) -> Result<Vec<u8>, ClientError> {
        let checked = samples.par_iter().map(|&sample| self.checked(sample));
        checked.collect::<Result<Vec<_>, ClientError>>()?;
        self.encrypt_checked(samples)
    }

    /// As [`Self::encrypt`], of samples that [`Self::checked`] has found to fit already: each
    /// check evaluates the network in the clear.
    pub(crate) fn encrypt_checked(
        &mut self,
        samples: &[Sample<'_>],
    ) -> Result<Vec<u8>, ClientError> {
        let most = self.plan.samples();
        if samples.len() > most {
            return Err(ClientError::Count {
                what: "samples of a batch",
                expected: most,
                got: samples.len(),
            });
        }
        let model = self.plan.model();
        let rows = samples.par_iter().map(|&sample| values_of(model, sample));
        let rows: Vec<_> = rows.collect::<Result<_, ClientError>>()?;
        let rows: Vec<&[f64]> = rows.iter().map(|row| &row[..]).collect();
        self.encrypt_values(&rows)
    }

    /// Encrypts rows of any numbers as the values that the first layer takes, without
    /// the checks of [`Self::encrypt`]: what an attacker's client does.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn encrypt_values(&mut self, rows: &[&[f64]]) -> Result<Vec<u8>, ClientError> {
        let (level, scale) = (self.plan.input_level(), self.plan.input_scale());
        let slots = |input: usize| {
            let value = |row: &&[f64]| row.get(input).copied().unwrap_or(0.0);
            Zeroizing::new(rows.iter().map(value).collect())
        };
        let count = self.plan.model().inputs();
        let mut bytes = Vec::new();
        for first in (0..count).step_by(ENCRYPTED_AT_A_TIME) {
            let block = ENCRYPTED_AT_A_TIME.min(count - first);
            let slots = |input: usize| slots(first + input);
            for fresh in self.keys.encrypt_many(block, slots, level, scale)? {
                fresh.write(self.plan.params(), &mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Masks of the results of a batch, one object per result, and what is kept of them: for an evaluator that is not this process, so that its results answer this
    /// batch and no other.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub(crate) fn masks(&mut self) -> Result<(Vec<u8>, Vec<Mask>), ClientError> {
        let (level, scale) = (self.plan.output_level(), self.plan.output_scale());
        let (params, outputs) = (self.plan.params(), self.plan.model().outputs());
        let (mut bytes, mut masks) = (Vec::new(), Vec::with_capacity(outputs));
        for _ in 0..outputs {
            let (fresh, mask) = self.keys.mask(level, scale)?;
            fresh.write(params, &mut bytes)?;
            masks.push(mask);
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
        masks: &[Mask],
        samples: usize,
    ) -> Result<Vec<Vec<f64>>, ClientError> {
        let params = self.plan.params();
        self.decrypt_by(bytes, samples, |output, object, level, scale| {
            let limbs = || vec![0; (level + 1) * params.n()];
            let read = wire::read_ciphertext(params, object, [limbs(), limbs()]);
            let ct = read.map_err(|source| ClientError::Result {
                device: IN_MEMORY.to_owned(),
                source,
            })?;
            let found = ct.scale();
            let [mut c0, mut c1] = ct.into_parts();
            // Without its mask it is noise.
            if let Some(mask) = masks.get(output) {
                mask.take_off(params, level, [&mut c0, &mut c1])
                    .map_err(failed("decryption"))?;
            }
            let halves = (c0, c1);
            let slots = (0..samples).map(|slot| slot..slot + 1);
            self.keys
                .decrypt_words(halves, found, (level, scale), slots, IN_MEMORY)
        })
    }

    /// Decrypts a result: the logits of each of the first `samples`.
    ///
    /// # Errors
    /// As [`Keys::decrypt`]; [`ClientError::Count`].
    pub fn decrypt(&self, bytes: &[u8], samples: usize) -> Result<Vec<Vec<f64>>, ClientError> {
        self.decrypt_by(bytes, samples, |_, object, level, scale| {
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
        self.decrypt_by(bytes, samples, |_, object, level, scale| {
            let slots = (0..samples).map(|slot| slot..slot + 1);
            self.keys.decrypt_any(object, (level, scale), slots)
        })
    }

    fn decrypt_by(
        &self,
        bytes: &[u8],
        samples: usize,
        decrypt: impl Fn(usize, &[u8], usize, f64) -> Result<Vec<f64>, ClientError> + Sync,
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
        let values = parts.par_iter().enumerate();
        let values = values.map(|(output, object)| decrypt(output, object, level, scale));
        for values in values.collect::<Result<Vec<_>, ClientError>>()? {
            for (logits, value) in logits.iter_mut().zip(values) {
                logits.push(value);
            }
        }
        Ok(logits)
    }
}

/// What is known of the results of a plan whose values are to be published.
pub(crate) fn expected_of(plan: &BatchPlan<'_>, precision_bits: f64) -> Expected {
    let place = (plan.output_level(), plan.output_scale());
    let range = range_of(plan.model());
    expected(plan.logit_error(), place, range, precision_bits)
}

/// The largest logit of training.
pub(crate) fn range_of(model: &Model<'_>) -> f32 {
    let last = model.layers().last();
    last.map_or(0.0, |view| view.layer.range())
}

/// Who publishes, if that form is to be published.
fn publisher_of(publisher: &mut Option<Publisher>, form: Form) -> Option<&mut Publisher> {
    publisher
        .as_mut()
        .filter(|publisher| publisher.form() == Some(form))
}
