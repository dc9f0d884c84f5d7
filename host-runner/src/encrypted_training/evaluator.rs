//! The untrusted half: keys, data and models are bytes that it cannot decrypt.
//! Nothing here knows a secret key.

use he_core::ckks::encode::encode;
use he_core::ckks::evaluator::{
    SwitchOp, Workspace, add, add_constant, drop_level, fast_workspace_words, inner_sum, multiply,
    multiply_constant, multiply_plain, relinearize, rescale, rotate, switch,
};
use he_core::ckks::{self, Constant, Plaintext};
use he_core::params::Params;
use he_core::ring::automorphism::{conjugation, rotation};
use he_core::rlwe::{self, KeySet, SwitchTarget};
use he_core::wire::{self, Kind};

use super::circuit::{BIAS, Circuit, DECAY, PAIRS, SIGMOID, STRIDE, Shape, TO_BIAS, WINDOW};
use super::{Data, EncryptedModel, Error, Mode};
use crate::engine::{read_fresh, read_keys};

type Ciphertext<const PARTS: usize = 2> = ckks::Ciphertext<Vec<u32>, PARTS>;
type SwitchKey = rlwe::SwitchKey<Vec<u32>>;

/// The rows that one ciphertext of each kind has.
struct Part {
    forward: Ciphertext,
    labels: Ciphertext,
    gradient: Ciphertext,
}

/// The evaluator, with everything that is sent once.
pub struct Evaluator {
    circuit: Circuit,
    keys: Vec<SwitchKey>,
    parts: Vec<Part>,
    /// The gradient's rows, summed over the parts.
    rows: Ciphertext,
    /// What a slot of the weights keeps from one epoch to the next.
    kept: Vec<f64>,
    memory: Memory,
}

/// What epochs work in.
struct Memory {
    switching: Vec<u32>,
    limb: Vec<u32>,
    buffer: Vec<f64>,
    coefficients: Vec<i32>,
}

/// An encrypted model as the evaluator has it between epochs.
pub struct Weights {
    weights: Ciphertext,
    /// None where the model goes back to the client.
    bias: Option<Ciphertext>,
}

impl Evaluator {
    /// Reads keys and data, and expands the keys' uniform halves.
    ///
    /// # Errors
    /// [`Error::Library`] naming what is wrong with the bytes; [`Error::Engine`] for
    /// other keys than the circuit takes.
    pub fn new(circuit: Circuit, keys: &[u8], data: &Data) -> Result<Self, Error> {
        let params = circuit.params();
        let (n, top) = (params.n(), params.max_level());
        let keys = read_keys(params, keys, &circuit.keys())?;
        let kinds = [&data.forward, &data.labels, &data.gradient];
        for objects in kinds {
            if objects.len() != circuit.parts() {
                return Err(Error::Library(he_core::Error::Length {
                    what: "ciphertexts of the table",
                    expected: circuit.parts(),
                    got: objects.len(),
                }));
            }
        }
        let (forward, gradient) = (circuit.forward_scale(), circuit.gradient_scale());
        let read = |object: &[u8], scale| read_fresh(params, object, top, scale, "the table");
        let objects = data.forward.iter().zip(&data.labels).zip(&data.gradient);
        let mut parts = Vec::new();
        for ((features, labels), rows) in objects {
            parts.push(Part {
                forward: read(features, forward)?,
                labels: read(labels, forward)?,
                gradient: read(rows, gradient)?,
            });
        }
        let (first, others) = parts.split_first().ok_or(Error::Rows {
            rows: 0,
            most: circuit.rows(),
        })?;
        let mut rows = copied(params, &first.gradient)?;
        for part in others {
            add(params, &mut rows, &part.gradient)?;
        }
        let kept = (0..params.slots()).map(|slot| match slot % STRIDE {
            0..PAIRS => 1.0 - DECAY,
            BIAS => 1.0,
            _ => 0.0,
        });
        Ok(Self {
            circuit,
            keys,
            parts,
            rows,
            kept: kept.collect(),
            memory: Memory {
                switching: vec![0; fast_workspace_words(params, top)],
                limb: vec![0; n],
                buffer: vec![0.0; n],
                coefficients: vec![0; n],
            },
        })
    }

    /// Reads a model.
    ///
    /// # Errors
    /// [`Error::Library`] naming what is wrong with the bytes.
    pub fn read(&self, model: &EncryptedModel) -> Result<Weights, Error> {
        let params = self.circuit.params();
        let Shape { level, scale } = self.circuit.fresh();
        let read = |object: &[u8]| read_fresh(params, object, level, scale, "the model");
        Ok(Weights {
            weights: read(&model.weights)?,
            bias: Some(read(&model.bias)?),
        })
    }

    /// The weights, bias included, as bytes.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn write(&self, model: &Weights) -> Result<Vec<u8>, Error> {
        let (params, level) = (self.circuit.params(), model.weights.level());
        let mut bytes = vec![0; Kind::Ciphertext.object_len(params, level)?];
        wire::write_ciphertext(params, &model.weights, &mut bytes)?;
        Ok(bytes)
    }

    /// One epoch. Data that is at a higher level than the model is brought down to
    /// it for good, so a model that is refreshed has to come back at the highest.
    ///
    /// # Errors
    /// [`Error::Stale`] for a model that has to be refreshed; [`Error::Library`] where
    /// levels are used up, or levels or scales differ.
    pub fn epoch(&mut self, model: Weights) -> Result<Weights, Error> {
        let Weights { mut weights, bias } = model;
        let bias = bias.ok_or(Error::Stale)?;
        let shape = Shape {
            level: weights.level(),
            scale: weights.scale(),
        };
        let params = self.circuit.params();
        let n = params.n();
        let step = self.circuit.step(shape)?;
        let (level, sums) = (shape.level, shape.level - 2);
        let keys = KeySet::new(&self.keys);
        let square = keys.find(SwitchTarget::Square, level)?;
        let conjugated = conjugation(n);
        let memory = &mut self.memory;
        let mut work = Workspace::new(params, level, &mut memory.switching)?;

        let mut sum: Option<Ciphertext<3>> = None;
        for part in &mut self.parts {
            drop_level(params, &mut part.forward, level)?;
            drop_level(params, &mut part.labels, level)?;
            drop_level(params, &mut part.gradient, level - 1)?;

            // u = w z, at the doubled scale until it is summed.
            let u = product(params, &part.forward, &weights)?;
            let u = plus(params, u, &product(params, &part.labels, &bias)?)?;
            let (mut u, storage) = relinearize(params, u, square, &mut work)?;
            for g in WINDOW
                .map(|steps| rotation(n, steps))
                .into_iter()
                .chain([conjugated])
            {
                let key = keys.find(SwitchTarget::Galois(g), level)?;
                switch(params, SwitchOp::RotateAdd(g), &mut u, key, &mut work)?;
            }
            rescale(params, &mut u, &mut memory.limb)?;

            // u z, and u^2 - 0.197 / 0.004.
            let mut z = copied(params, &part.gradient)?;
            multiply_constant(params, &mut z, &Constant::real(1.0, step.factor)?)?;
            let uz = multiply(params, z, &u, storage)?;
            let (mut uz, storage) = relinearize(params, uz, square, &mut work)?;
            rescale(params, &mut uz, &mut memory.limb)?;
            switch(params, SwitchOp::Square, &mut u, square, &mut work)?;
            rescale(params, &mut u, &mut memory.limb)?;
            let linear = Constant::real(SIGMOID[1] / SIGMOID[3], u.scale())?;
            add_constant(params, &mut u, &linear)?;

            let term = multiply(params, uz, &u, storage)?;
            sum = Some(match sum {
                Some(sum) => plus(params, sum, &term)?,
                None => term,
            });
        }
        let sum = sum.ok_or(Error::Rows {
            rows: 0,
            most: self.circuit.rows(),
        })?;
        let (mut sum, _) = relinearize(params, sum, square, &mut work)?;

        // The sigmoid's constant, once for all parts.
        drop_level(params, &mut self.rows, sums)?;
        let mut halves = copied(params, &self.rows)?;
        let constant = Constant::real(-SIGMOID[0] / SIGMOID[3], sum.scale() / halves.scale())?;
        multiply_constant(params, &mut halves, &constant)?;
        add(params, &mut sum, &halves)?;

        // Four terms at a time, hoisted, took as long at N = 16384 (84 ms of ten
        // rotations, and half as many keys more).
        let rows = self.circuit.rows_each();
        inner_sum(params, &mut sum, STRIDE as i32, rows, keys, &mut work)?;

        // What is left of the weights.
        drop_level(params, &mut weights, sums)?;
        let scale = sum.scale() / weights.scale();
        let coefficients = &mut memory.coefficients;
        encode(&self.kept, scale, &mut memory.buffer, coefficients, |x| {
            x as i32
        })?;
        let limbs = vec![0; (sums + 1) * n];
        let kept = Plaintext::new(params, coefficients, sums, scale, limbs)?;
        multiply_plain(params, &mut weights, &kept)?;
        add(params, &mut sum, &weights)?;

        let bias = match self.circuit.mode() {
            Mode::Refresh => None,
            Mode::NoRefresh => {
                // Before the rescaling, where the noise of a key switch is small.
                let mut bias = copied(params, &sum)?;
                rotate(params, &mut bias, TO_BIAS, keys, &mut work)?;
                rescale(params, &mut bias, &mut memory.limb)?;
                Some(bias)
            }
        };
        rescale(params, &mut sum, &mut memory.limb)?;
        Ok(Weights { weights: sum, bias })
    }
}

/// A copy at its own level.
fn copied(params: &Params, ct: &Ciphertext) -> Result<Ciphertext, Error> {
    let (c0, c1) = ct.halves();
    let (level, scale) = (ct.level(), ct.scale());
    Ok(Ciphertext::new(
        params,
        level,
        scale,
        c0.to_vec(),
        c1.to_vec(),
    )?)
}

/// The product of two, in three parts.
fn product(params: &Params, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext<3>, Error> {
    let third = vec![0; (a.level() + 1) * params.n()];
    Ok(multiply(params, copied(params, a)?, b, third)?)
}

/// The sum of two products.
fn plus(params: &Params, mut a: Ciphertext<3>, b: &Ciphertext<3>) -> Result<Ciphertext<3>, Error> {
    add(params, &mut a, b)?;
    Ok(a)
}
