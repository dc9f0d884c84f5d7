//! Training of surrogates, shadow models and generators, from a seed.
//!
//! Targets are trained by [`he_nn::train`], which knows about 8 bits and the ranges of
//! CKKS. What an attacker trains needs neither, but other targets than labels: logits,
//! probabilities or images. The same seed gives the same bits, however many threads
//! multiply the matrices: each sum is formed by one of them.

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::log_softmax};
use chacha20::ChaCha8Rng;
use he_nn::progress::Progress;
use rand_core::SeedableRng;

use crate::network::{Differentiable, NetworkError};
use crate::random;
use crate::target::Rows;

/// What can be trained: a [`Differentiable`], or a network of an attack's own.
pub trait Trainable {
    /// Everything that is learned.
    fn variables(&self) -> Vec<Var>;

    /// Evaluates a batch of `f32`, one sample per row.
    ///
    /// # Errors
    /// candle's.
    fn forward(&self, batch: &Tensor) -> candle_core::Result<Tensor>;
}

impl Trainable for Differentiable {
    fn variables(&self) -> Vec<Var> {
        Self::variables(self)
    }

    fn forward(&self, batch: &Tensor) -> candle_core::Result<Tensor> {
        Self::forward(self, batch)
    }
}

/// What the outputs shall be, one entry per sample.
#[derive(Clone, Copy, Debug)]
pub enum Goal<'g> {
    /// These classes, by cross entropy.
    Labels(&'g [u8]),
    /// These distributions over the classes, by cross entropy.
    Probabilities(&'g Rows),
    /// These values, by the mean squared error.
    Values(&'g Rows),
}

impl Goal<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Probabilities(rows) | Self::Values(rows) => rows.len(),
        }
    }

    fn loss(&self, outputs: &Tensor, indices: &[usize]) -> candle_core::Result<Tensor> {
        let wanted = |rows: &Rows| rows_of(rows, indices);
        let cross_entropy = |targets: &Tensor| {
            let logs = (log_softmax(outputs, D::Minus1)? * targets)?;
            logs.sum(D::Minus1)?.neg()?.mean_all()
        };
        match self {
            Self::Labels(labels) => {
                let labels: Vec<u8> = indices.iter().map(|&i| labels[i]).collect();
                cross_entropy(&one_hot(&labels, outputs.dim(1)?, DType::F32)?)
            }
            Self::Probabilities(rows) => cross_entropy(&wanted(rows)?),
            Self::Values(rows) => (outputs - wanted(rows)?)?.sqr()?.mean_all(),
        }
    }
}

/// Labels as rows of zeros with a one. A label beyond the classes gives none.
///
/// # Errors
/// candle's.
pub fn one_hot(labels: &[u8], classes: usize, dtype: DType) -> candle_core::Result<Tensor> {
    let mut rows = vec![0.0f64; labels.len() * classes];
    for (row, &label) in rows.chunks_exact_mut(classes.max(1)).zip(labels) {
        if let Some(one) = row.get_mut(usize::from(label)) {
            *one = 1.0;
        }
    }
    Tensor::from_vec(rows, (labels.len(), classes), &Device::Cpu)?.to_dtype(dtype)
}

fn rows_of(rows: &Rows, indices: &[usize]) -> candle_core::Result<Tensor> {
    let values = indices.iter().flat_map(|&i| rows.row(i));
    let values: Vec<f32> = values.map(|&x| x as f32).collect();
    Tensor::from_vec(values, (indices.len(), rows.width()), &Device::Cpu)
}

/// How to train: Adam with decoupled weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Passes over the samples.
    pub epochs: usize,
    /// Samples per step.
    pub batch: usize,
    /// Adam's step size; constant.
    pub learning_rate: f64,
    /// Decoupled weight decay of every variable.
    pub weight_decay: f64,
    /// Largest length of a gradient, of all variables together: a longer one is shortened
    /// to it.
    pub clip: Option<f64>,
    /// Of the order of the samples.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 32,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            clip: None,
            seed: 0,
        }
    }
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// Another number of goals than of samples, or none.
    #[error("there are {goals} goals for {samples} samples; give as many, and at least one")]
    Samples {
        /// Samples.
        samples: usize,
        /// Goals.
        goals: usize,
    },
    /// The loss became infinite or not a number.
    #[error("the loss was {loss} in epoch {epoch}; lower the learning rate")]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
        /// Its loss.
        loss: f32,
    },
    /// The network could not be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The machine learning library failed.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Trains a network on samples and gives the mean loss of the last epoch.
///
/// # Errors
/// [`TrainerError`].
pub fn train(
    network: &dyn Trainable,
    samples: &Rows,
    goal: Goal<'_>,
    training: &Training,
    progress: &mut dyn Progress,
) -> Result<f32, TrainerError> {
    let mut same = |batch: Tensor, _: &[usize]| Ok(batch);
    train_on(network, samples, goal, training, &mut same, progress)
}

/// What is done to a batch before the network learns it, with the places of its samples.
pub type Change<'c> = dyn FnMut(Tensor, &[usize]) -> candle_core::Result<Tensor> + 'c;

/// As [`train`], each batch changed before it is learned.
///
/// # Errors
/// [`TrainerError`].
pub fn train_on(
    network: &dyn Trainable,
    samples: &Rows,
    goal: Goal<'_>,
    training: &Training,
    change: &mut Change<'_>,
    progress: &mut dyn Progress,
) -> Result<f32, TrainerError> {
    let count = samples.len();
    if goal.len() != count || count == 0 {
        return Err(TrainerError::Samples {
            samples: count,
            goals: goal.len(),
        });
    }
    let params = ParamsAdamW {
        lr: training.learning_rate,
        weight_decay: training.weight_decay,
        ..ParamsAdamW::default()
    };
    let variables = network.variables();
    let mut optimizer = AdamW::new(variables.clone(), params)?;
    let mut rng = ChaCha8Rng::seed_from_u64(training.seed);
    let mut order: Vec<usize> = (0..count).collect();
    let mut mean = f32::NAN;
    for epoch in 1..=training.epochs {
        random::shuffle(&mut order, &mut rng);
        let mut total = 0.0;
        for indices in order.chunks(training.batch.max(1)) {
            let batch = change(rows_of(samples, indices)?, indices)?;
            let outputs = network.forward(&batch)?;
            let loss = goal.loss(&outputs, indices)?;
            let mut gradients = loss.backward()?;
            if let Some(longest) = training.clip {
                shorten(&variables, &mut gradients, longest)?;
            }
            optimizer.step(&gradients)?;
            total += loss.to_scalar::<f32>()? * indices.len() as f32;
        }
        mean = total / count as f32;
        if !mean.is_finite() {
            return Err(TrainerError::Diverged { epoch, loss: mean });
        }
        progress.note(&format!("epoch {epoch}: loss {mean:.4}"));
    }
    Ok(mean)
}

/// Shortens the gradient of these variables together to a length.
fn shorten(variables: &[Var], gradients: &mut GradStore, longest: f64) -> candle_core::Result<()> {
    let mut square = 0.0;
    for gradient in variables.iter().filter_map(|var| gradients.get(var)) {
        square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    let length = square.sqrt();
    if length <= longest {
        return Ok(());
    }
    for var in variables {
        if let Some(gradient) = gradients.remove(var) {
            gradients.insert(var, (gradient * (longest / length))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use he_nn::model::Shape;
    use he_nn::train::LayerSpec;

    use super::*;
    use crate::plain::classes;
    use crate::synthetic;

    #[test]
    fn long_gradients_are_shortened_and_keep_their_direction() {
        let of = |values: &[f32]| Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap());
        let (a, b) = (of(&[3.0]).unwrap(), of(&[4.0]).unwrap());
        let gradient = |longest| {
            let squares = (a.sqr().unwrap() + b.sqr().unwrap()).unwrap();
            let loss = (squares.sum_all().unwrap() * 0.5).unwrap();
            let mut found = loss.backward().unwrap();
            shorten(&[a.clone(), b.clone()], &mut found, longest).unwrap();
            [&a, &b].map(|var| found.get(var).unwrap().to_vec1::<f32>().unwrap()[0])
        };
        let [x, y] = gradient(1.0);
        assert!((x - 0.6).abs() < 1e-6 && (y - 0.8).abs() < 1e-6, "{x} {y}");
        assert_eq!(gradient(5.0), [3.0, 4.0]);
    }

    const LAYERS: [LayerSpec; 3] = [LayerSpec::Dense(16), LayerSpec::Relu, LayerSpec::Dense(10)];
    const IMAGE: Shape = Shape {
        channels: 1,
        height: 28,
        width: 28,
    };

    fn trained(seed: u64) -> Differentiable {
        let data = synthetic::bars(300, 1);
        let network = Differentiable::untrained(IMAGE, &LAYERS, seed).unwrap();
        let training = Training {
            epochs: 5,
            seed,
            ..Training::default()
        };
        let samples = Rows::images(&data.images);
        train(
            &network,
            &samples,
            Goal::Labels(&data.labels),
            &training,
            &mut (),
        )
        .unwrap();
        network
    }

    #[test]
    fn learns_and_is_reproducible_bit_for_bit() {
        let network = trained(1);
        let test = synthetic::bars(100, 2);
        let found = classes(&network.evaluate(&Rows::images(&test.images), 64).unwrap());
        let right = found
            .iter()
            .zip(&test.labels)
            .filter(|(a, b)| a == b)
            .count();
        assert!(right >= 95, "{right}");
        let weights = |network: &Differentiable| network.to_network("x").unwrap();
        assert_eq!(weights(&network), weights(&trained(1)));
        assert_ne!(weights(&network), weights(&trained(2)));
        // The copy in f64 computes the same.
        let precise = network.precise().unwrap();
        let samples = Rows::images(&test.images);
        let (a, b) = (
            network.evaluate(&samples, 64).unwrap(),
            precise.evaluate(&samples, 64).unwrap(),
        );
        assert!(
            a.values()
                .iter()
                .zip(b.values())
                .all(|(a, b)| (a - b).abs() < 1e-3)
        );
    }

    #[test]
    fn a_square_network_fits_values() {
        let shape = Shape::flat(2);
        let layers = [LayerSpec::Dense(8), LayerSpec::Square, LayerSpec::Dense(1)];
        let network = Differentiable::untrained(shape, &layers, 5).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let points: Vec<f64> = (0..400)
            .map(|_| 2.0 * random::uniform(&mut rng) - 1.0)
            .collect();
        let samples = Rows::new(2, points);
        let products = Rows::new(1, samples.iter().map(|p| p[0] * p[1]).collect());
        let training = Training {
            epochs: 200,
            learning_rate: 1e-2,
            ..Training::default()
        };
        let loss = train(
            &network,
            &samples,
            Goal::Values(&products),
            &training,
            &mut (),
        )
        .unwrap();
        assert!(loss < 1e-4, "{loss}");
    }

    #[test]
    fn goals_that_do_not_fit_are_refused() {
        let network = Differentiable::untrained(IMAGE, &LAYERS, 1).unwrap();
        let samples = Rows::images(&synthetic::bars(3, 1).images);
        let error = train(
            &network,
            &samples,
            Goal::Labels(&[1]),
            &Training::default(),
            &mut (),
        );
        assert!(matches!(
            error,
            Err(TrainerError::Samples {
                samples: 3,
                goals: 1
            })
        ));
    }
}
