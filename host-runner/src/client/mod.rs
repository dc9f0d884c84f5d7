//! The side of the key: encrypts samples, has them evaluated, decrypts the logits.
//!
//! | module | holds |
//! |---|---|
//! | here | [`Client`]: a plan, its program and the keys |
//! | `keys` | [`Keys`]: the secret key and what is done with it |
//! | `batch` | [`BatchClient`]: one sample per slot |
//! | `packed` | keys and ciphertexts as they stream |
//! | `conversation` | one inference over a link |
//! | `padded` | the same over a padded link ([`Padding`]) |
//! | `window` | [`Window`]: frames in flight |
//! | `publication` | [`publication::Publisher`]: what others may have of an answer |
//! | `error` | [`ClientError`] |

mod batch;
mod conversation;
mod error;
mod keys;
mod packed;
pub(crate) mod padded;
pub mod publication;
mod window;

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::rlwe::{KeyLimb, SwitchKey};
use he_core::wire::{self, Object};
use he_nn::clear::{self, Allowed};
use he_nn::kept::{KEY_ID_BYTES, KeyId, KeyShape};
use he_nn::message::{Item, Memory, Request, SEED_BYTES, Stage, TimeUnit};
use he_nn::model::{Model, Sample};
use he_nn::plan::{LogitError, Op, Plan, Step, Task};
use he_nn::program::Program;
use he_nn::progress::Progress;
use he_nn::schedule::{Cursor, Upload};
use zeroize::Zeroizing;

pub use batch::BatchClient;
pub(crate) use batch::{expected_of, range_of};
pub use conversation::{PATIENCE, Trace};
pub(crate) use error::failed;
pub(crate) use error::printable;
pub use error::{ClientError, RefusalSentence};
pub(crate) use keys::Mask;
pub use keys::{Fresh, Keys};
pub use packed::PackedCiphertext;
pub use padded::{Padded, Padding};
pub use window::Window;

use crate::device::{Connection, DEFAULT_BAUD, DeviceError, Transport};
use crate::engine::latency::wanted_keys;
use crate::engine::object_bytes;
use crate::files::{SealedError, SealedKey};
use crate::receipts::{Receipt, Recorder};
use conversation::{Agreement, EncryptedResult, Sending, Uploads};
use packed::{PackedKey, chunk_of};
use publication::{Form, Handed, PublicationError, PublicationTerms, Published, Publisher};

/// What an evaluator in this process is called in sentences.
const IN_MEMORY: &str = "the evaluator";

/// Above this share of the modulus a result counts as wrapped around: values
/// within the plan's ranges reach a quarter of it.
const WRAPPED: f64 = 0.5;

/// What an inference may take beside the bytes, at the most: the largest bundled network
/// takes a board a minute.
const COMPUTING: Duration = Duration::from_secs(600);

/// How long a whole inference may take over a line of so many bits per second: four times
/// what its bytes take, ten bits each, and ten minutes.
#[must_use]
pub fn deadline(plan: &Plan<'_>, baud: u32) -> Duration {
    let payload = plan.payload();
    let bytes = payload.inputs + payload.factors + payload.keys;
    let bits = 10.0 * bytes as f64;
    COMPUTING + Duration::from_secs_f64(4.0 * bits / f64::from(baud.max(1)))
}

/// Bytes on the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// To the evaluator, keys included.
    pub up: u64,
    /// From the evaluator.
    pub down: u64,
    /// Of `up`, what switching keys took, and encrypted weights that are sent once.
    pub keys_up: u64,
}

/// One decrypted inference.
pub struct Inference {
    /// One value per class.
    pub logits: Vec<f64>,
    /// Those of the same network in the clear, which the client has from the check before
    /// encryption; none of what a sensor encrypted.
    pub plain: Zeroizing<Vec<f64>>,
    /// Bytes on the link, framing included; in memory, of the objects.
    pub bytes: Bytes,
    /// The evaluator's board.
    pub board: String,
    /// Unit of the stage times.
    pub unit: TimeUnit,
    /// The evaluator's memory.
    pub memory: Memory,
    /// Time per step of the plan.
    pub stages: Vec<Stage>,
    /// The evaluator's time from the begin to the end, waiting for bytes apart, where there
    /// is a link.
    pub busy: Option<u64>,
    /// What the evaluator did when, if that was asked for.
    pub trace: Option<Trace>,
    /// From the first message to the last of the result.
    pub wall: Duration,
    /// Processor time of an evaluator in this process.
    pub cpu: Option<Duration>,
    /// The result was compared with an evaluation of the client's own.
    pub audited: bool,
    /// How far the logits may be from those in the clear, where that is more than the plan
    /// says: of an unusual sample, or one with unusual roundings.
    pub allowed_error: Option<f64>,
    /// They are further off than the plan says, and the sample's values above those of
    /// training ([`clear::Allowed`]).
    pub beyond_training: bool,
    /// What others may have of it.
    pub handed_on: HandedOn,
    /// How it was padded, where it was.
    pub padded: Option<Padded>,
}

/// The logits of a sample that were decrypted, beside those in the clear.
#[derive(Clone)]
pub struct Compared {
    /// As they were decrypted.
    pub logits: Vec<f64>,
    /// In the clear.
    pub plain: Zeroizing<Vec<f64>>,
    /// How far they may be apart: by the plan, or where that is said of usual samples and
    /// they are further apart, by what is said of this one.
    pub allowed: Allowed,
}

impl Compared {
    /// Whether they are as near as that.
    #[must_use]
    pub fn is_within(&self) -> bool {
        // What is no number is not.
        clear::largest_error(&self.logits, &self.plain) <= self.allowed.error
    }

    /// How far they may be apart, where that is more than the plan's `usual` figure.
    #[must_use]
    pub fn own_limit(&self, usual: LogitError) -> Option<f64> {
        let own = self.allowed.error;
        (own > usual.six_sigma).then_some(own)
    }
}

/// What others than the holder of the key may have of an answer.
#[derive(Debug, Default)]
pub struct HandedOn {
    /// What was published, or why nothing was.
    pub published: Handed,
    /// What it was computed from, if that was asked for.
    pub receipt: Option<Receipt>,
}

impl std::fmt::Debug for Inference {
    /// Without the logits, which are the key holder's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inference")
            .field("board", &self.board)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Inference {
    /// The class that the logits speak for.
    #[must_use]
    pub fn label(&self) -> usize {
        clear::class(&self.logits)
    }

    /// Sum of the stage times; `None` without a clock.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        (self.unit != TimeUnit::None).then(|| {
            self.stages
                .iter()
                .fold(0u64, |sum, s| sum.saturating_add(s.time))
        })
    }
}

/// A client of one plan, with its keys. An evaluator in memory is given bytes
/// ([`Self::switching_keys`], [`Self::weights`], [`Self::encrypt`], [`Self::decrypt`]);
/// one at the other end of a link is fed by [`Self::infer`], with keys and encrypted
/// weights that are made once and streamed with every sample, but for keys that the
/// evaluator keeps.
pub struct Client<'m> {
    plan: Plan<'m>,
    program: Program<Vec<u8>>,
    keys: Keys,
    /// Made when they are first asked for: one key per target, for the highest level.
    switching: Option<Vec<SwitchKey<Vec<u32>>>>,
    /// The same for encrypted weights and biases, in the order of the program.
    factors: Option<Vec<Fresh>>,
    streamed: Option<Streamed>,
    /// A key that the evaluator said it kept was not there: until an inference succeeds,
    /// all keys are streamed.
    distrusts_kept: bool,
    patience: Duration,
    deadline: Duration,
    tracing: bool,
    padding: Option<Padding>,
    /// A result was refused.
    spent: bool,
    publisher: Option<Publisher>,
    recorder: Option<Recorder>,
    /// Of the result that came last.
    receipt: Option<Receipt>,
}

/// What is made once and streamed with every sample.
struct Streamed {
    keys: Vec<PackedKey>,
    factors: Vec<PackedCiphertext>,
}

/// The ciphertexts of one sample, and what is taken off its result.
pub struct Encrypted {
    ciphertexts: Vec<Fresh>,
    mask: Option<Mask>,
    /// What the sample gives in the clear; empty where that is to be computed.
    plain: Zeroizing<Vec<f64>>,
}

impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encrypted")
            .field("ciphertexts", &self.ciphertexts.len())
            .finish_non_exhaustive()
    }
}

impl Encrypted {
    /// What was kept of a request for its result: the mask ([`Self::mask`]).
    pub(crate) fn awaited(mask: Option<Mask>) -> Self {
        Self {
            ciphertexts: Vec::new(),
            mask,
            plain: Zeroizing::default(),
        }
    }

    /// The mask of the result; nothing where the plan has none.
    pub(crate) const fn mask(&self) -> Option<Mask> {
        self.mask
    }

    /// For an evaluator in memory: one object of [`he_core::wire`] after the other.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn bytes(&self, params: &Params) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        for fresh in &self.ciphertexts {
            fresh.write(params, &mut bytes)?;
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Both halves of a result.
type Halves = (Vec<u32>, Vec<u32>);

impl<'m> Client<'m> {
    /// A client with fresh keys.
    ///
    /// # Errors
    /// [`ClientError::Random`], [`ClientError::Plan`].
    pub fn new(plan: Plan<'m>) -> Result<Self, ClientError> {
        let keys = Keys::new(plan.params())?;
        Self::with_keys(plan, keys)
    }

    /// A client with keys of the plan's set.
    ///
    /// # Errors
    /// [`ClientError::Plan`] where a program does not hold the plan.
    pub fn with_keys(plan: Plan<'m>, keys: Keys) -> Result<Self, ClientError> {
        Ok(Self {
            program: Program::of(&plan)?,
            deadline: deadline(&plan, DEFAULT_BAUD),
            plan,
            keys,
            switching: None,
            factors: None,
            streamed: None,
            distrusts_kept: false,
            patience: PATIENCE,
            tracing: false,
            padding: None,
            spent: false,
            publisher: None,
            recorder: None,
            receipt: None,
        })
    }

    /// A client with a key that is kept. A refused result retires it, for the next process
    /// too, and what is published counts against the budget that is sealed with it. As long
    /// as the client lives no other process has the key.
    ///
    /// # Errors
    /// [`ClientError::Sealed`] for a key of another set, or one that was retired;
    /// [`ClientError::Random`], [`ClientError::Plan`].
    pub fn sealed(plan: Plan<'m>, key: SealedKey) -> Result<Self, ClientError> {
        key.expect_set(plan.params()).map_err(SealedError::from)?;
        let mut client = Self::with_keys(plan, key.keys()?)?;
        client.publisher = Some(Publisher::of_sealed(key));
        Ok(client)
    }

    /// From now on has a label published of every answer, against a budget of this key;
    /// it ends with the key.
    ///
    /// # Errors
    /// [`ClientError::Publication`], with [`PublicationError::Single`] for values;
    /// [`ClientError::Random`].
    pub fn publish_by(&mut self, terms: PublicationTerms) -> Result<(), ClientError> {
        if terms.form == Form::Values {
            return Err(PublicationError::Single.into());
        }
        Publisher::set(&mut self.publisher, terms, self.plan.params(), &self.keys)
    }

    /// From now on has a receipt written of every answer.
    pub fn record_by(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Publications that are allowed and those that have been counted, where labels are
    /// published.
    #[must_use]
    pub fn publications(&self) -> Option<(u32, u32)> {
        self.publisher.as_ref().and_then(Publisher::count)
    }

    /// Whether the key outlives the process.
    pub(crate) fn is_sealed(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::is_sealed)
    }

    /// Whether a sealed key was retired, as a result was refused under it.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::has_retired)
    }

    /// The decrypted logits of a sample, which `request` has, beside those in the clear.
    ///
    /// # Errors
    /// [`ClientError::Sample`] for one of another size.
    pub fn compared(
        &self,
        request: &Encrypted,
        sample: Sample<'_>,
        logits: Vec<f64>,
    ) -> Result<Compared, ClientError> {
        let plain = match request.plain.is_empty() {
            true => Zeroizing::new(clear::logits(self.plan.model(), sample)?),
            false => request.plain.clone(),
        };
        let error = clear::largest_error(&logits, &plain);
        Ok(Compared {
            allowed: clear::allowed_alone(&self.plan, sample, error)?,
            logits,
            plain,
        })
    }

    /// Publishes an answer's label, if that was asked for. `result` is one that was
    /// decrypted to the logits of `answer` ([`Self::compared`]), as an object of
    /// [`he_core::wire`]; where these are further off than they may be, nothing is published
    /// nor counted.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn publish(
        &mut self,
        request: &Encrypted,
        result: &[u8],
        answer: &Compared,
    ) -> Result<Handed, ClientError> {
        if self.publications().is_none() {
            return Ok(None);
        }
        if !answer.is_within() {
            return Ok(Some(Err(PublicationError::Beyond)));
        }
        let (params, place) = (self.plan.params(), self.place());
        let slots: Vec<_> = self.output_slots().collect();
        let Some(publisher) = &mut self.publisher else {
            return Ok(None);
        };
        let ct = unmasked(params, &self.keys, place.0, request, result)?;
        let label = publisher.label(params, &self.keys, &ct, place, &slots);
        Ok(Some(label.map(|label| Published::Label { label })))
    }

    /// Records a result as it came, if that was asked for: before it is decrypted, as
    /// one that is refused matters the most ([`Self::take_receipt`]).
    ///
    /// # Errors
    /// [`ClientError::Receipt`] where that cannot be kept; [`ClientError::Operation`].
    pub fn record(&mut self, request: &Encrypted, result: &[u8]) -> Result<(), ClientError> {
        // Taken out: keys and weights are the client's to give.
        let Some(mut recorder) = self.recorder.take() else {
            return Ok(());
        };
        let receipt = self.recorded(&mut recorder, request, result);
        self.recorder = Some(recorder);
        self.receipt = receipt?;
        Ok(())
    }

    fn recorded(
        &mut self,
        recorder: &mut Recorder,
        request: &Encrypted,
        result: &[u8],
    ) -> Result<Option<Receipt>, ClientError> {
        if recorder.wants_keys() {
            recorder.keys(&self.switching_keys()?, &self.weights()?)?;
        }
        let input = request.bytes(self.plan.params())?;
        let program = (self.plan.params(), self.program.bytes());
        Ok(recorder.receipt(program, &input, result)?)
    }

    /// The receipt of the last result, once.
    pub const fn take_receipt(&mut self) -> Option<Receipt> {
        self.receipt.take()
    }

    /// The key is not used again: whoever made a result learnt what became of it. A sealed
    /// one is retired in its file at once, for every process.
    ///
    /// # Errors
    /// [`ClientError::Publication`] where that cannot be stored.
    pub(crate) fn spend(&mut self) -> Result<(), ClientError> {
        self.spent = true;
        match &mut self.publisher {
            Some(publisher) if publisher.is_sealed() => Ok(publisher.close()?),
            _ => Ok(()),
        }
    }

    /// Changes how long an evaluator may stay silent; [`PATIENCE`] at first.
    pub const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Changes how long a whole inference may take; [`deadline`] at the usual rate at
    /// first.
    pub const fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// From now on has every inference traced, or not; not at first.
    pub const fn set_tracing(&mut self, tracing: bool) {
        self.tracing = tracing;
    }

    /// From now on pads every link, or none; none at first. There is no trace of an
    /// inference that is padded.
    pub const fn set_padding(&mut self, padding: Option<Padding>) {
        self.padding = padding;
    }

    /// Draws new keys: a key is not used again once a result was refused under it, as
    /// `2 N` answers of acceptance or refusal give it away. A sealed key is retired in its
    /// file, and the new one ends with the process.
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
        self.keys = Keys::new(self.plan.params())?;
        self.switching = None;
        self.factors = None;
        self.streamed = None;
        self.spent = false;
        Ok(())
    }

    /// Whether the key was spent, so that [`Self::renew`] is due.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.spent
    }

    /// Marks the key as spent where a result was refused.
    pub(crate) fn noted<T>(&mut self, answer: Result<T, ClientError>) -> Result<T, ClientError> {
        if answer.as_ref().is_err_and(ClientError::spends_key) {
            self.spend()?;
        }
        answer
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan<'m> {
        &self.plan
    }

    /// The program.
    #[must_use]
    pub const fn program(&self) -> &Program<Vec<u8>> {
        &self.program
    }

    /// What an evaluator in memory needs before the first sample: its keys.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn switching_keys(&mut self) -> Result<Vec<u8>, ClientError> {
        let params = self.plan.params();
        let mut bytes = Vec::new();
        for key in self.switching()? {
            keys::write_key(params, key, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn switching(&mut self) -> Result<&[SwitchKey<Vec<u32>>], ClientError> {
        if self.switching.is_none() {
            let wanted = wanted_keys(&self.program);
            let keys = wanted
                .into_iter()
                .map(|(target, level)| self.keys.switching_key(target, level));
            self.switching = Some(keys.collect::<Result<_, _>>()?);
        }
        Ok(self.switching.as_deref().unwrap_or_default())
    }

    /// The weights and biases, encrypted: all products of a layer, then its biases,
    /// layer by layer. Nothing where weights are plain.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn weights(&mut self) -> Result<Vec<u8>, ClientError> {
        let params = self.plan.params();
        let mut places: Vec<(u8, Option<u16>)> = Vec::new();
        for task in self.program.factors() {
            places.push((task.step, product_of(task)));
        }
        // A program may multiply in another order than that of the indices; biases last.
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|&at| {
            let (step, product) = places[at];
            (step, product.map_or(usize::MAX, usize::from))
        });
        let mut bytes = Vec::new();
        let factors = self.factors()?;
        for at in order {
            factors[at].write(params, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn factors(&mut self) -> Result<&[Fresh], ClientError> {
        if self.factors.is_none() {
            let tasks: Vec<Task> = self.program.factors().collect();
            let factors = tasks
                .into_iter()
                .map(|task| self.factor(task.step.into(), product_of(task).map(usize::from)));
            self.factors = Some(factors.collect::<Result<_, _>>()?);
        }
        Ok(self.factors.as_deref().unwrap_or_default())
    }

    /// The encrypted weights of a product of a step, or without one its biases.
    fn factor(&mut self, step: usize, product: Option<usize>) -> Result<Fresh, ClientError> {
        let params = self.plan.params();
        let [mut re, mut im] = secret_slots(params.slots());
        let Some(Step::Linear {
            map,
            form,
            level,
            scales,
        }) = self.plan.steps().get(step)
        else {
            return Err(ClientError::Count {
                what: "layers with weights",
                expected: step + 1,
                got: step,
            });
        };
        let scale = match product {
            Some(product) => {
                let table = map.weights::<f64, true>();
                let weight = |output, input| table.at(output, input);
                form.weight_slots(map, product, weight, &mut re, &mut im);
                scales.weights
            }
            None => {
                form.bias_slots(map, |k| map.bias::<f64, true>(k), &mut re);
                scales.sums()
            }
        };
        let level = *level;
        self.keys.encrypt(&re, &im, level, scale)
    }

    /// Encrypts a sample, if the key may be used and the plan has room for it.
    ///
    /// # Errors
    /// [`ClientError::Operation`]; [`ClientError::Sample`] for one of another size, or
    /// whose values would wrap around; [`ClientError::Spent`].
    pub fn encrypt<'s>(&mut self, sample: impl Into<Sample<'s>>) -> Result<Encrypted, ClientError> {
        let sample = sample.into();
        if self.spent {
            return Err(ClientError::Spent);
        }
        let plain = Zeroizing::new(clear::checked(&self.plan, sample)?);
        let values = values_of(self.plan.model(), sample)?;
        let request = self.encrypt_values(&values)?;
        Ok(Encrypted { plain, ..request })
    }

    /// Encrypts any numbers as the values that the first layer takes, without the
    /// checks of [`Self::encrypt`]: what an attacker's client does.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn encrypt_values(&mut self, values: &[f64]) -> Result<Encrypted, ClientError> {
        let mut ciphertexts = Vec::new();
        for index in 0..self.plan.ciphertexts() {
            ciphertexts.push(self.input(index, values)?);
        }
        let mask = match self.plan.is_masked() {
            true => {
                let (level, scale) = self.place();
                let (fresh, mask) = self.keys.mask(level, scale)?;
                ciphertexts.push(fresh);
                Some(mask)
            }
            false => None,
        };
        Ok(Encrypted {
            ciphertexts,
            mask,
            plain: Zeroizing::default(),
        })
    }

    /// Input ciphertext `index`.
    fn input(&mut self, index: usize, values: &[f64]) -> Result<Fresh, ClientError> {
        let [mut re, mut im] = secret_slots(self.plan.params().slots());
        self.plan.input_slots(index, values, &mut re, &mut im);
        let (level, scale) = (self.plan.input_level(), self.plan.input_scale());
        self.keys.encrypt(&re, &im, level, scale)
    }

    /// Decrypts the result of an evaluator in memory: the logits.
    ///
    /// # Errors
    /// [`ClientError::Result`], [`ClientError::Wrapped`].
    pub fn decrypt(&mut self, request: &Encrypted, bytes: &[u8]) -> Result<Vec<f64>, ClientError> {
        let (level, _) = self.place();
        let read = self.keys.read(bytes, level);
        let ct = self.noted(read)?;
        let scale = ct.scale();
        let [c0, c1] = ct.into_parts();
        self.open(request.mask, (c0, c1), scale, IN_MEMORY)
    }

    /// As [`Self::decrypt`], whatever became of the values: what an attacker's client
    /// does with a result that wrapped around.
    ///
    /// # Errors
    /// [`ClientError::Result`].
    #[cfg(feature = "attack")]
    pub(crate) fn decrypt_any(&self, _: &Encrypted, bytes: &[u8]) -> Result<Vec<f64>, ClientError> {
        self.keys
            .decrypt_any(bytes, self.place(), self.output_slots())
    }

    /// Takes the mask off a result and decrypts it.
    fn open(
        &mut self,
        mask: Option<Mask>,
        (mut c0, mut c1): (Vec<u32>, Vec<u32>),
        found: f64,
        device: &str,
    ) -> Result<Vec<f64>, ClientError> {
        let (place, slots) = (self.place(), self.output_slots());
        if let Some(mask) = mask {
            mask.take_off(self.plan.params(), place.0, [&mut c0, &mut c1])
                .map_err(failed("decryption"))?;
        }
        let answer = self
            .keys
            .decrypt_words((c0, c1), found, place, slots, device);
        self.noted(answer)
    }

    /// The slots that add up to each logit.
    fn output_slots(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.plan.model().outputs()).map(|k| self.plan.output_slots(k))
    }

    /// Level and scale of a result.
    fn place(&self) -> (usize, f64) {
        (self.plan.output_level(), self.plan.output_scale())
    }

    /// Runs one inference on the evaluator behind `link`. `progress` is told the
    /// payload bytes.
    ///
    /// # Errors
    /// [`ClientError`]; the next inference on the same link works unless the link
    /// itself is gone, or the key was spent ([`Self::renew`]).
    pub fn infer<'s, T: Transport>(
        &mut self,
        link: &mut Connection<T>,
        sample: impl Into<Sample<'s>>,
        progress: &mut dyn Progress,
    ) -> Result<Inference, ClientError> {
        let request = self.encrypt(sample)?;
        let (inference, _) = self.infer_encrypted(link, &request, progress)?;
        Ok(inference)
    }

    /// As [`Self::infer`], for a sample that was encrypted; the result too, as an object
    /// of [`he_core::wire`], for whoever evaluates again. It is recorded
    /// ([`Self::record`]).
    ///
    /// # Errors
    /// As [`Self::infer`].
    pub fn infer_encrypted<T: Transport>(
        &mut self,
        link: &mut Connection<T>,
        request: &Encrypted,
        progress: &mut dyn Progress,
    ) -> Result<(Inference, Vec<u8>), ClientError> {
        let params = self.plan.params();
        let seal = |_: &mut Self, index: usize| match request.ciphertexts.get(index) {
            Some(fresh) => fresh.packed(params),
            None => Err(ClientError::Count {
                what: "input ciphertexts",
                expected: index + 1,
                got: request.ciphertexts.len(),
            }),
        };
        let (halves, scale, inference) = self.converse(link, seal, progress)?;
        let device = link.transport().name();
        let result = self.object(&halves, scale, &device)?;
        self.record(request, &result)?;
        let logits = self.open(request.mask, halves, scale, &device)?;
        let inference = Inference {
            logits,
            ..inference
        };
        Ok((inference, result))
    }

    /// As [`Self::infer`], with input ciphertexts that `seal` gives by their
    /// index, encrypted under this client's key: by a sensor.
    ///
    /// # Errors
    /// As [`Self::infer`], or what `seal` says.
    pub fn infer_packed<T: Transport, E: From<ClientError> + From<DeviceError>>(
        &mut self,
        link: &mut Connection<T>,
        mut seal: impl FnMut(&mut Self, usize) -> Result<PackedCiphertext, E>,
        progress: &mut dyn Progress,
    ) -> Result<Inference, E> {
        if self.spent {
            return Err(ClientError::Spent.into());
        }
        let inputs = self.plan.ciphertexts();
        // The mask is the client's.
        let (level, scale) = self.place();
        let (fresh, mask) = self.keys.mask(level, scale)?;
        let fresh = fresh.packed(self.plan.params())?;
        let seal = |client: &mut Self, index| match index < inputs {
            true => seal(client, index),
            false => Ok(fresh.clone()),
        };
        let (halves, scale, inference) = self.converse(link, seal, progress)?;
        let device = link.transport().name();
        let logits = self.open(Some(mask), halves, scale, &device)?;
        Ok(Inference {
            logits,
            ..inference
        })
    }

    /// Has a sample evaluated: the halves of the result, its scale, and the inference
    /// without logits.
    fn converse<T: Transport, E: From<ClientError> + From<DeviceError>>(
        &mut self,
        link: &mut Connection<T>,
        seal: impl FnMut(&mut Self, usize) -> Result<PackedCiphertext, E>,
        progress: &mut dyn Progress,
    ) -> Result<(Halves, f64, Inference), E> {
        let streamed = match self.streamed.take() {
            Some(streamed) => streamed,
            None => self.stream()?,
        };
        let terms = Agreement {
            params: self.plan.params(),
            level: self.plan.output_level(),
            plan: self.program.fingerprint(),
            model_name: self.plan.model().name().to_owned(),
            model_crc: self.program.model_crc(),
            patience: self.patience,
            deadline: self.deadline,
            tracing: self.tracing,
            padding: self.padding,
        };
        let mut upload = UploadOfSample {
            cursor: Cursor::start(&self.program),
            input: Vec::new(),
            streamed: &streamed,
            held: HashSet::new(),
            sent: HashSet::new(),
            keeps: true,
            client: self,
            seal,
        };
        let answered = terms.run(link, &mut upload, progress);
        self.streamed = Some(streamed);
        let (EncryptedResult { halves, scale }, inference) = answered?;
        self.distrusts_kept = false;
        Ok((halves, scale, inference))
    }

    /// A result as an object of [`he_core::wire`].
    fn object(&self, (c0, c1): &Halves, scale: f64, device: &str) -> Result<Vec<u8>, ClientError> {
        let (params, level) = (self.plan.params(), self.plan.output_level());
        let rejected = |source| ClientError::Result {
            device: device.to_owned(),
            source,
        };
        let ct = Ciphertext::new(params, level, scale, c0.clone(), c1.clone());
        let ct = ct.map_err(rejected)?;
        let length = object_bytes(params, Object::Ciphertext { scale }, level).map_err(rejected)?;
        let mut bytes = vec![0; length];
        wire::write_ciphertext(params, &ct, &mut bytes).map_err(rejected)?;
        Ok(bytes)
    }

    /// Packs what is streamed with every sample.
    fn stream(&mut self) -> Result<Streamed, ClientError> {
        let params = self.plan.params();
        let keys = self
            .switching()?
            .iter()
            .map(|key| PackedKey::of(params, key));
        let keys = keys.collect::<Result<_, _>>()?;
        let factors = self.factors()?.iter().map(|fresh| fresh.packed(params));
        let factors = factors.collect::<Result<_, _>>()?;
        Ok(Streamed { keys, factors })
    }
}

/// A result of a level without its mask.
fn unmasked(
    params: &Params,
    keys: &Keys,
    level: usize,
    request: &Encrypted,
    result: &[u8],
) -> Result<Ciphertext<Vec<u32>>, ClientError> {
    let ct = keys.read(result, level)?;
    let scale = ct.scale();
    let [mut c0, mut c1] = ct.into_parts();
    if let Some(mask) = request.mask {
        mask.take_off(params, level, [&mut c0, &mut c1])
            .map_err(failed("publication"))?;
    }
    Ciphertext::new(params, level, scale, c0, c1).map_err(failed("publication"))
}

/// Which of its step's products a task forms; none for biases.
const fn product_of(task: Task) -> Option<u16> {
    match task.op {
        Op::Product { index, .. } => Some(index),
        _ => None,
    }
}

/// A sample as the first layer sees it.
fn values_of(model: &Model<'_>, sample: Sample<'_>) -> Result<Zeroizing<Vec<f64>>, ClientError> {
    let mut values = Zeroizing::new(vec![0.0; model.inputs()]);
    model.input_values(sample, &mut values)?;
    Ok(values)
}

/// Slots, their real and their imaginary parts, erased when dropped.
fn secret_slots(slots: usize) -> [Zeroizing<Vec<f64>>; 2] {
    [(); 2].map(|()| Zeroizing::new(vec![0.0; slots]))
}

/// What a client sends for one sample.
struct UploadOfSample<'c, 'm, F> {
    client: &'c mut Client<'m>,
    streamed: &'c Streamed,
    seal: F,
    cursor: Cursor,
    input: Vec<Vec<u8>>,
    /// Ids of keys that the evaluator keeps.
    held: HashSet<KeyId>,
    /// Of those that were sent in this inference.
    sent: HashSet<KeyId>,
    /// The evaluator may keep what it is sent: no key was due again that it did not keep.
    keeps: bool,
}

impl<F> UploadOfSample<'_, '_, F> {
    /// The key of use `index`.
    fn key_use(&self, index: usize) -> Option<&PackedKey> {
        let target = self.client.program.key_uses().nth(index)?.op.key()?;
        self.streamed.keys.iter().find(|key| key.target == target)
    }

    /// What is sent of a key use that the evaluator keeps, in the place of the key.
    fn kept(&self, index: usize) -> Option<KeyId> {
        let id = self.key_use(index)?.id;
        self.held.contains(&id).then_some(id)
    }

    /// Bytes of the key of use `index` where it is not kept.
    fn key_bytes(&self, index: usize) -> usize {
        let task = self.client.program.key_uses().nth(index);
        let level = task.map_or(0, |task| task.level.into());
        let shape = KeyShape::new(self.client.plan.params(), level, false);
        shape.size().bytes
    }

    /// Bytes of what is sent, without framing.
    fn total(&self) -> u64 {
        let payload = self.client.plan.payload();
        let mut keys = 0;
        for index in 0..self.client.program.key_uses().count() {
            keys += match self.kept(index) {
                Some(_) => KEY_ID_BYTES,
                None => self.key_bytes(index),
            };
        }
        (payload.inputs + payload.factors + keys) as u64
    }

    /// The packed limb that an item is.
    fn limb(&self, item: Item) -> Option<&Vec<u8>> {
        match item {
            Item::Input { limb, .. } => self.input.get(usize::from(limb)),
            Item::Weight { factor, limb } => {
                let factor = self.streamed.factors.get(usize::from(factor))?;
                factor.limbs.get(usize::from(limb))
            }
            Item::Key { key, limb, digit } => {
                let at = KeyLimb {
                    target: usize::from(limb),
                    digit: usize::from(digit),
                };
                let key = self.key_use(usize::from(key))?;
                key.limb(self.client.plan.params(), at)
            }
        }
    }
}

impl<'m, E, F> Uploads<E> for UploadOfSample<'_, 'm, F>
where
    F: FnMut(&mut Client<'m>, usize) -> Result<PackedCiphertext, E>,
{
    fn held(&mut self, keys: &HashSet<KeyId>) -> u64 {
        if !self.client.distrusts_kept {
            self.held.clone_from(keys);
        }
        self.total()
    }

    fn stored(&mut self, key: KeyId) {
        if !self.client.distrusts_kept {
            self.held.insert(key);
        }
    }

    fn waits(&self) -> bool {
        let Some(Upload::KeySeed(index)) = self.cursor.upload(&self.client.program) else {
            return false;
        };
        let is_sent = |key: &PackedKey| self.sent.contains(&key.id);
        let may_keep = self.keeps && !self.client.distrusts_kept;
        may_keep && self.key_use(index).is_some_and(is_sent) && self.kept(index).is_none()
    }

    fn failed(&mut self, error: &ClientError) {
        self.client.distrusts_kept |= error.is_of_kept_key();
    }

    fn next(&mut self) -> Result<Option<Sending<'_>>, E> {
        let Some(upload) = self.cursor.upload(&self.client.program) else {
            return Ok(None);
        };
        if let Upload::KeySeed(index) = upload
            && let Some(key) = self.kept(index)
        {
            self.cursor.pass_key(&self.client.program);
            // One that is kept since was counted as a whole.
            let counted = match self.sent.contains(&key) {
                true => self.key_bytes(index),
                false => KEY_ID_BYTES,
            };
            return Ok(Some(Sending {
                request: Request::Kept { key },
                is_key: true,
                counted: counted as u64,
            }));
        }
        self.cursor.advance(&self.client.program);
        let (request, is_key) = match upload {
            Upload::InputSeed(index) => {
                let sealed = (self.seal)(self.client, index)?;
                self.input = sealed.limbs;
                (Request::Seed { seed: sealed.seed }, false)
            }
            Upload::FactorSeed(factor) => {
                let seed = self.streamed.factors.get(factor).map(|f| f.seed);
                let seed = seed.unwrap_or_default();
                (Request::Seed { seed }, false)
            }
            Upload::KeySeed(key) => {
                let of_use = self.key_use(key).map(|key| (key.seed, key.id));
                let (seed, id) = of_use.unwrap_or_default();
                self.keeps &= self.sent.insert(id);
                (Request::Seed { seed }, true)
            }
            Upload::Chunk(item, offset) => {
                let params = self.client.plan.params();
                let is_key = matches!(item, Item::Key { .. });
                (chunk_of(params, item, self.limb(item), offset), is_key)
            }
        };
        let counted = match request {
            Request::Data { bytes, .. } => bytes.len(),
            _ => SEED_BYTES,
        };
        Ok(Some(Sending {
            request,
            is_key,
            counted: counted as u64,
        }))
    }
}
