//! End-to-end tests, and what several of them need: the reference network with
//! its plan, a machine without a clock, a link that damages frames on purpose, and
//! what counts as one clear sentence.

use std::fmt::Display;
use std::path::Path;
use std::thread;
use std::time::Duration;

use num_bigint::BigInt;

use he_core::Params;
use he_nn::clear::{self, argmax};
use he_nn::data::Image;
use he_nn::kept::Nothing;
use he_nn::message::{Held, Memory, Reply, TimeUnit};
use he_nn::model::{Model, Shape};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};
use he_nn::plan::{Plan, Terms, WeightMode};
use he_nn::program::Program;
use he_nn::session::{Encrypted, Platform};
use he_nn::{boards, bundled};
use host_runner::client::{Client, Inference, Keys};
use host_runner::device::{Connection, Duplex, duplex};
use host_runner::evaluator;
use host_runner::files::{Passphrase, SealedError, SealedKey};
use host_runner::planning::{self, DEFAULT_SET};

pub mod command;
pub mod faults;
pub mod figures;
pub mod flash;
pub mod golden;
pub mod mangler;
pub mod networks;
#[cfg(unix)]
pub mod processes;
#[cfg(unix)]
pub mod serial;
pub mod suite;
pub mod twin;
pub mod virtual_line;

/// Bytes of code that an image may have on any board: 96 KiB with 3 KB to spare.
pub const MAX_CODE: u64 = 93 * 1024;

/// Bytes of code that a board has above that where it keeps keys; SHA-256 alone is 7 KB.
pub const MAX_KEEPING_CODE: u64 = 6 * 1024;

/// The same where they are in a chip's flash: its driver, and that such a board encodes its weights
/// at each inference too, which takes 22 KB that emulated boards with keys do without.
pub const MAX_FLASH_CODE: u64 = 24 * 1024;

/// The integers between `-Q / 2` and `Q / 2` with these residues, limb by limb in the
/// coefficient domain, as floats.
///
/// # Panics
/// If there are more limbs than primes.
#[must_use]
pub fn centred(params: &Params, residues: &[u32]) -> Vec<f64> {
    let limbs: Vec<&[u32]> = residues.chunks_exact(params.n()).collect();
    let prime = |i: usize| BigInt::from(params.prime(i).unwrap().modulus().value());
    let primes: Vec<BigInt> = (0..limbs.len()).map(prime).collect();
    let product: BigInt = primes.iter().product();
    // For each prime a number that is 1 modulo it and 0 modulo the others.
    let units: Vec<BigInt> = primes
        .iter()
        .map(|q| {
            let others = &product / q;
            let inverse = others.modpow(&(q - 2), q);
            others * inverse
        })
        .collect();
    let value = |k: usize| {
        let sum: BigInt = units.iter().zip(&limbs).map(|(u, x)| u * x[k]).sum();
        let x = sum % &product;
        let x = if &x * 2 > product { x - &product } else { x };
        i128::try_from(x).unwrap() as f64
    };
    (0..params.n()).map(value).collect()
}

/// The reference network, its plan and the bundled digits.
#[derive(Debug)]
pub struct Reference {
    /// The network.
    pub model: Model<'static>,
    /// Its plan for the default board.
    pub plan: Plan<'static>,
    /// Twenty images.
    pub digits: Vec<Image>,
}

impl Reference {
    /// Loads what is bundled.
    ///
    /// # Panics
    /// If that is broken.
    #[must_use]
    pub fn new() -> Self {
        Self::on(WeightMode::Plain)
    }

    /// As [`Self::new`], with so many input ciphertexts.
    ///
    /// # Panics
    /// If there is no such plan.
    #[must_use]
    pub fn of_inputs(inputs: usize) -> Self {
        Self::on(Terms::from(WeightMode::Plain).with_inputs(Some(inputs)))
    }

    fn on(terms: impl Into<Terms>) -> Self {
        let model = Model::parse(Self::file()).unwrap();
        let target = boards::find(boards::DEFAULT_BOARD).unwrap().target();
        let plan = planning::plan(Some(DEFAULT_SET), model, terms, target).unwrap();
        let digits = bundled::digits().unwrap().images;
        Self {
            model,
            plan,
            digits,
        }
    }

    /// The model file.
    ///
    /// # Panics
    /// If it is not bundled.
    #[must_use]
    pub fn file() -> &'static [u8] {
        bundled::model("mnist-mlp64").unwrap()
    }

    /// A client with the randomness of a test.
    ///
    /// # Panics
    /// If the keys cannot be made.
    #[must_use]
    pub fn client(&self, seed: u8) -> Client<'static> {
        let keys = Keys::from_seed(self.plan.params(), &[seed; 32]).unwrap();
        Client::with_keys(self.plan.clone(), keys).unwrap()
    }

    /// A link to an evaluator of the plan in a thread.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn link(&self) -> Connection<Duplex> {
        Connection::new(evaluator::in_process(&self.plan).unwrap())
    }

    /// Checks decrypted logits against the network in the clear.
    ///
    /// # Panics
    /// If the label differs, or a logit by more than the plan allows.
    pub fn check(&self, image: &Image, inference: &Inference) {
        let plain = clear::logits(&self.model, image).unwrap();
        let bound = self.plan.logit_error().six_sigma;
        for (encrypted, plain) in inference.logits.iter().zip(&plain) {
            assert!(
                (encrypted - plain).abs() < bound,
                "{encrypted} for {plain}, {bound} allowed"
            );
        }
        assert_eq!(inference.label(), argmax(&plain));
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

/// The readiness of an evaluator that keeps no key.
pub const READY: Reply<'static> = Reply::Ready {
    held: Held::new(&[]),
};

/// An evaluator of a plan in a thread that keeps no keys, so that every inference streams
/// all of them; the client's end of its link.
///
/// # Panics
/// If no program holds the plan.
#[must_use]
pub fn forgetful(plan: &Plan<'_>) -> Duplex {
    let program = Program::of(plan).unwrap();
    let model = match plan.weights() {
        WeightMode::Plain => Some(plan.model().file().to_vec()),
        WeightMode::Encrypted => None,
    };
    let (client, mut end) = duplex();
    thread::spawn(move || match model {
        None => evaluator::evaluate_keeping(&program, Encrypted, &mut end, Nothing),
        Some(file) => {
            let model = Model::parse(&file)?;
            evaluator::evaluate_keeping(&program, model, &mut end, Nothing)
        }
    });
    client
}

/// A machine without a clock.
#[derive(Clone, Copy, Debug)]
pub struct NoClock {
    /// Bytes of frames that it takes before the first is acknowledged.
    pub window: u32,
}

impl Default for NoClock {
    fn default() -> Self {
        Self { window: 1 }
    }
}

impl Platform for NoClock {
    fn board(&self) -> &'static str {
        "test"
    }
    fn unit(&self) -> TimeUnit {
        TimeUnit::None
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn memory(&mut self) -> Memory {
        Memory::default()
    }
    fn window(&self) -> u32 {
        self.window
    }
}

/// The file of a network of two dense layers with a square between them; the
/// ranges are those of pre-activations, squares and logits.
///
/// # Panics
/// If the format does not hold it.
#[must_use]
pub fn two_layer(
    name: &str,
    inputs: u16,
    first: Weights<i16>,
    second: Weights<i16>,
    ranges: [f32; 3],
) -> Vec<u8> {
    let network = Network {
        name: name.to_owned(),
        input: NetworkInput::Image(Shape {
            channels: 1,
            height: 1,
            width: inputs,
        }),
        layers: vec![
            NetworkLayer::Dense(first),
            NetworkLayer::Polynomial(vec![0.0, 0.0, 1.0]),
            NetworkLayer::Dense(second),
        ],
    };
    network.file(&ranges).unwrap()
}

/// Opens a sealed key. A process that another test starts holds the lock, too, until it has
/// become its own program.
///
/// # Errors
/// As [`SealedKey::open`].
pub fn sealed(path: &Path, passphrase: &Passphrase) -> Result<SealedKey, SealedError> {
    let mut tries = 0;
    loop {
        match SealedKey::open(path, passphrase) {
            Err(SealedError::Held(_)) if tries < 1000 => {
                tries += 1;
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Checks that an error is one sentence for people: one line, without what
/// only a programmer can read.
///
/// # Panics
/// If it is not; `what` is said then.
pub fn assert_one_sentence(what: &str, error: &impl Display) {
    let text = error.to_string();
    let bad = |part: &str| text.contains(part);
    let code = ["{", "}", "panicked", "unwrap", "Err(", "Some(", "backtrace"];
    assert!(
        text.len() > 20 && !text.chars().any(char::is_control) && !code.into_iter().any(bad),
        "{what}: not one clear sentence: {text:?}"
    );
    // What is wrong, then what to do.
    assert!(bad(":") || bad(";"), "{what}: says nothing to do: {text}");
}
