//! Differentially private training: DP-SGD (Abadi et al. 2016, Algorithm 1) for dense
//! networks, and its accountant.
//!
//! Each step draws a batch by Poisson sampling, clips the gradient of every sample and
//! adds Gaussian noise to their sum. A sample's gradient in a dense layer is the outer
//! product of what the layer takes and of the gradient of what it gives, so that its
//! norm needs no gradient per sample (Goodfellow 2015, arXiv:1510.01799). Activations
//! are left as they are. The noise comes from a seed, for reproducible experiments:
//! whoever knows the seed is promised nothing.
//!
//! The accountant is that of Renyi differential privacy: the subsampled Gaussian
//! mechanism at integer orders (Mironov, Talwar, Zhang 2019, arXiv:1908.10530, section
//! 3.3), converted after Canonne, Kamath, Steinke 2020 (arXiv:2004.00010, Proposition
//! 12). Neighbours differ by one sample that is added or removed.

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::log_softmax};
use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;
use statrs::function::gamma::ln_gamma;

use crate::network::Differentiable;
use crate::random;
use crate::target::Rows;
use crate::trainer::{TrainerError, one_hot};

/// Orders of the divergence that the accountant tries.
const ORDERS: std::ops::RangeInclusive<u32> = 2..=256;

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Private {
    /// Probability with which a sample is in a batch, above 0 and below 1.
    pub rate: f64,
    /// Steps.
    pub steps: u32,
    /// Largest norm of a sample's gradient.
    pub clip: f64,
    /// Standard deviation of the noise, in units of `clip`.
    pub noise: f64,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Probability with which the guarantee may fail.
    pub delta: f64,
}

impl Private {
    /// The guarantee: the network is `(epsilon, delta)`-private in each sample.
    #[must_use]
    pub fn epsilon(&self) -> f64 {
        epsilon(self.rate, self.noise, self.steps, self.delta)
    }
}

/// The Renyi divergence of an integer order from 2 of one step.
fn divergence(rate: f64, noise: f64, order: u32) -> f64 {
    let n = f64::from(order);
    let terms = (0..=order).map(|k| {
        let k = f64::from(k);
        let binomial = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
        let shares = (n - k).mul_add((-rate).ln_1p(), k * rate.ln());
        binomial + shares + (k * k - k) / (2.0 * noise * noise)
    });
    let terms: Vec<f64> = terms.collect();
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|term| (term - top).exp()).sum();
    (top + sum.ln()) / (n - 1.0)
}

/// The least epsilon that the orders 2 to 256 prove for so many steps of the subsampled
/// Gaussian mechanism: an upper bound. `rate` lies above 0 and below 1, `noise` is the
/// standard deviation over the clipping norm.
#[must_use]
pub fn epsilon(rate: f64, noise: f64, steps: u32, delta: f64) -> f64 {
    let of_order = |order: u32| {
        let n = f64::from(order);
        let composed = f64::from(steps) * divergence(rate, noise, order);
        composed + (-1.0 / n).ln_1p() - (delta.ln() + n.ln()) / (n - 1.0)
    };
    ORDERS.map(of_order).fold(f64::INFINITY, f64::min).max(0.0)
}

/// Trains a dense network on labelled samples, privately in each of them.
///
/// # Errors
/// [`TrainerError`]; [`crate::network::NetworkError::NotDense`] in it for a convolution.
pub fn train(
    network: &Differentiable,
    samples: &Rows,
    labels: &[u8],
    private: &Private,
    seed: u64,
) -> Result<(), TrainerError> {
    if samples.len() != labels.len() || samples.is_empty() {
        return Err(TrainerError::Samples {
            samples: samples.len(),
            goals: labels.len(),
        });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let params = ParamsAdamW {
        lr: private.learning_rate,
        weight_decay: 0.0,
        ..ParamsAdamW::default()
    };
    let variables = network.variables();
    let mut optimizer = AdamW::new(variables, params)?;
    for step in 1..=private.steps {
        let data = (samples, labels);
        let loss = private_step(network, data, private, &mut rng, &mut optimizer)?;
        if !loss.is_finite() {
            return Err(TrainerError::Diverged {
                epoch: step as usize,
                loss,
            });
        }
    }
    Ok(())
}

/// Sums of the clipped gradients of a batch, variable by variable, with what else the
/// backward pass gave and the losses.
struct Clipped {
    sums: Vec<(Var, Tensor)>,
    gradients: GradStore,
    losses: Tensor,
}

/// Clips each sample's gradient of the cross entropy to a norm and sums them.
fn clipped(
    network: &Differentiable,
    samples: &Rows,
    labels: &[u8],
    clip: f64,
) -> Result<Clipped, TrainerError> {
    let (logits, layers) = network.traced(&network.batch(samples.values())?)?;
    let wanted = one_hot(labels, network.outputs(), DType::F32)?;
    let losses = (log_softmax(&logits, D::Minus1)? * wanted)?
        .sum(D::Minus1)?
        .neg()?;
    let gradients = losses.sum_all()?.backward()?;
    let of = |probe: &Var| match gradients.get(probe) {
        Some(found) => Ok(found.detach()),
        None => probe.zeros_like(),
    };
    let outer = layers.iter().map(|layer| of(&layer.probe));
    let outer: Vec<Tensor> = outer.collect::<candle_core::Result<_>>()?;
    let mut squares = Tensor::zeros(labels.len(), DType::F32, &Device::Cpu)?;
    for (layer, outer) in layers.iter().zip(&outer) {
        let taken = (layer.input.sqr()?.sum(1)? + 1.0)?;
        squares = (squares + (outer.sqr()?.sum(1)? * taken)?)?;
    }
    let factors = squares.to_vec1::<f32>()?.into_iter().map(|square| {
        let norm = f64::from(square).sqrt().max(f64::MIN_POSITIVE);
        (clip / norm).min(1.0) as f32
    });
    let factors: Vec<f32> = factors.collect();
    let factors = Tensor::from_vec(factors, (labels.len(), 1), &Device::Cpu)?;
    let mut sums = Vec::new();
    for (layer, outer) in layers.into_iter().zip(&outer) {
        let outer = outer.broadcast_mul(&factors)?;
        sums.push((layer.weights, outer.t()?.matmul(&layer.input)?));
        sums.push((layer.biases, outer.sum(0)?));
    }
    Ok(Clipped {
        sums,
        gradients,
        losses,
    })
}

/// One step; its loss is the mean over the batch before clipping.
fn private_step(
    network: &Differentiable,
    (samples, labels): (&Rows, &[u8]),
    private: &Private,
    rng: &mut ChaCha8Rng,
    optimizer: &mut AdamW,
) -> Result<f32, TrainerError> {
    let drawn = (0..samples.len()).filter(|_| random::uniform(rng) < private.rate);
    let mut drawn: Vec<usize> = drawn.collect();
    // An empty batch is a step of noise alone: a sample that counts for nothing.
    let counts = if drawn.is_empty() { 0.0 } else { 1.0 };
    if drawn.is_empty() {
        drawn.push(0);
    }
    let chosen: Vec<u8> = drawn.iter().map(|&i| labels[i]).collect();
    let clipped = clipped(network, &samples.select(&drawn), &chosen, private.clip)?;
    let mut gradients = clipped.gradients;
    let expected = private.rate * samples.len() as f64;
    for (var, sum) in clipped.sums {
        let noise = normals(sum.elem_count(), private.noise * private.clip, rng);
        let noise = Tensor::from_vec(noise, sum.dims(), &Device::Cpu)?;
        let noisy = ((sum * counts)? + noise)?;
        gradients.insert(&var, (noisy / expected)?);
    }
    // Activations see the samples without noise, so they are not learned.
    for coefficient in network.coefficients() {
        gradients.remove(&coefficient);
    }
    optimizer.step(&gradients)?;
    Ok(clipped.losses.mean_all()?.to_scalar::<f32>()?)
}

fn normals(count: usize, deviation: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let draw = |_| (deviation * random::normal(rng)) as f32;
    (0..count).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use he_nn::model::Shape;
    use he_nn::train::LayerSpec;

    use super::*;
    use crate::plain::classes;
    use crate::stats::agreement;

    #[test]
    fn the_accountant_gives_published_values() {
        // TensorFlow Privacy, compute_dp_sgd_privacy_test.py: samples, batch, noise,
        // epochs, delta.
        for (samples, batch, noise, epochs, delta, published) in [
            (60_000.0, 150.0, 1.3, 15.0, 1e-5, 0.724_223_402_610_959_5),
            (100_000.0, 100.0, 1.0, 30.0, 1e-7, 1.415_498_849_544_484_5),
        ] {
            let steps = (epochs * samples / batch) as u32;
            let found = epsilon(batch / samples, noise, steps, delta);
            assert!((found - published).abs() < 1e-9, "{found} {published}");
        }
        // Abadi et al. 2016, section 3.2: the moments accountant gave 1.26 here, with a
        // conversion that loses more.
        let found = epsilon(0.01, 4.0, 10_000, 1e-5);
        assert!((0.9..1.26).contains(&found), "{found}");
    }

    /// Two clouds in six dimensions.
    fn clouds(count: usize) -> (Rows, Vec<u8>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let labels: Vec<u8> = (0..count).map(|i| (i % 2) as u8).collect();
        let values = labels.iter().flat_map(|&label| {
            let centre = 2.0 * f64::from(label) - 1.0;
            [(); 6].map(|()| centre + random::normal(&mut rng))
        });
        (Rows::new(6, values.collect()), labels)
    }

    const LAYERS: [LayerSpec; 3] = [LayerSpec::Dense(4), LayerSpec::Square, LayerSpec::Dense(2)];

    #[test]
    fn sums_are_of_clipped_gradients_of_every_sample() {
        let (samples, labels) = clouds(12);
        let network = Differentiable::untrained(Shape::flat(6), &LAYERS, 3).unwrap();
        let clip = 0.7;
        let found = clipped(&network, &samples, &labels, clip).unwrap();
        // Every sample alone, by automatic differentiation of its own loss.
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut expected: Vec<f64> = Vec::new();
        let mut shortened = 0;
        for (row, &label) in samples.iter().zip(&labels) {
            let logits = network.forward(&network.batch(row).unwrap()).unwrap();
            let wanted = one_hot(&[label], 2, DType::F32).unwrap();
            let loss = (log_softmax(&logits, D::Minus1).unwrap() * wanted).unwrap();
            let gradients = loss.sum_all().unwrap().neg().unwrap().backward().unwrap();
            let vars = found.sums.iter().map(|(var, _)| var);
            let own = vars.flat_map(|var| flat(gradients.get(var).unwrap()));
            let own: Vec<f64> = own.map(f64::from).collect();
            let norm = own.iter().map(|g| g * g).sum::<f64>().sqrt();
            shortened += usize::from(norm > clip);
            expected.resize(own.len(), 0.0);
            for (sum, g) in expected.iter_mut().zip(own) {
                *sum += g * (clip / norm).min(1.0);
            }
        }
        assert!((3..12).contains(&shortened), "{shortened}");
        let sums = found.sums.iter().flat_map(|(_, sum)| flat(sum));
        for (sum, expected) in sums.zip(expected) {
            assert!((f64::from(sum) - expected).abs() < 1e-4, "{sum} {expected}");
        }
    }

    #[test]
    fn noise_costs_accuracy() {
        let (samples, labels) = clouds(200);
        let accuracy = |noise: f64| {
            let network = Differentiable::untrained(Shape::flat(6), &LAYERS, 3).unwrap();
            let private = Private {
                rate: 0.25,
                steps: 60,
                clip: 1.0,
                noise,
                learning_rate: 0.02,
                delta: 1e-4,
            };
            train(&network, &samples, &labels, &private, 1).unwrap();
            agreement(&classes(&network.evaluate(&samples, 64).unwrap()), &labels).value
        };
        let (little, much) = (accuracy(0.5), accuracy(500.0));
        assert!(little > 0.9 && much < little, "{little} {much}");
    }
}
