//! Polynomials in the place of rectifiers.

use candle_core::{DType, Tensor};
use he_nn::import::fit;

use super::{Differentiable, NetworkError, Op};
use crate::target::Rows;

/// Values that a polynomial is fitted on, at most.
const VALUES: usize = 1 << 16;

impl Differentiable {
    /// The same network with variables of its own and, in place of each rectifier, the
    /// polynomial of this degree that lies nearest on what these samples bring there: by
    /// least squares ([`fit::polynomial`]). Layers behind it see what it gives.
    ///
    /// Its coefficients are of `x` over the largest value that enters, so that a step of
    /// one size suits all of them: those of `x^5` itself would be `10^-5` for values up to
    /// 10, and one of Adam's steps would throw them far off.
    ///
    /// # Errors
    /// [`NetworkError::Fit`] where samples bring one value alone, or none;
    /// [`NetworkError::Tensor`].
    pub fn with_polynomials(&self, degree: usize, samples: &Rows) -> Result<Self, NetworkError> {
        let mut x = self.batch(samples.values())?;
        let mut ops = Vec::with_capacity(self.ops.len());
        for (layer, op) in self.ops.iter().enumerate() {
            let op = match op {
                Op::Relu => {
                    let fitted = nearest(&x, degree)?;
                    fitted.ok_or(NetworkError::Fit { layer, degree })?
                }
                other => other.cast(self.dtype)?,
            };
            x = op.forward(&x)?.detach();
            ops.push(op);
        }
        Ok(Self { ops, ..*self })
    }
}

/// The polynomial nearest to a rectifier on these values.
fn nearest(x: &Tensor, degree: usize) -> candle_core::Result<Option<Op>> {
    let values = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let step = values.len().div_ceil(VALUES).max(1);
    let some: Vec<f64> = values.into_iter().step_by(step).collect();
    let Some(found) = fit::polynomial(&|x| x.max(0.0), degree, &some, low, high) else {
        return Ok(None);
    };
    let scale = high.abs().max(low.abs());
    let powers = found.into_iter().enumerate();
    let coefficients = powers.map(|(k, c)| {
        let own = Tensor::from_vec(vec![c * scale.powi(k as i32)], 1, x.device())?;
        candle_core::Var::from_tensor(&own.to_dtype(x.dtype())?)
    });
    Ok(Some(Op::Polynomial {
        coefficients: coefficients.collect::<candle_core::Result<_>>()?,
        scale,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use crate::target::Activation;

    /// Root of the mean square of what a polynomial changes in the logits.
    fn error(network: &Differentiable, degree: usize, images: &Rows) -> f64 {
        let replaced = network.with_polynomials(degree, images).unwrap();
        let [a, b] = [network, &replaced].map(|n| n.evaluate(images, 100).unwrap());
        let pairs = a.values().iter().zip(b.values());
        let squares: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
        (squares / a.values().len() as f64).sqrt()
    }

    #[test]
    fn higher_degrees_lie_nearer_to_a_rectifier() {
        let images = Rows::images(&synthetic::bars(60, 1).images);
        let network = Differentiable::one_hidden(16, Activation::Relu, 1).unwrap();
        let errors = [2, 4, 6, 8].map(|degree| error(&network, degree, &images));
        for pair in errors.windows(2) {
            assert!(pair[1] < pair[0], "{errors:?}");
        }
        // Of a network without a rectifier nothing is left to replace.
        let square = Differentiable::one_hidden(16, Activation::Polynomial, 1).unwrap();
        assert_eq!(error(&square, 3, &images), 0.0);
    }

    #[test]
    fn a_network_of_scaled_coefficients_and_its_file_are_the_same() {
        let images = Rows::images(&synthetic::bars(30, 1).images);
        let network = Differentiable::one_hidden(16, Activation::Relu, 1).unwrap();
        for degree in [2, 3, 5] {
            let replaced = network.with_polynomials(degree, &images).unwrap();
            let file = replaced.to_network("x").unwrap();
            let back = Differentiable::from_network(&file).unwrap();
            let [a, b] = [&replaced, &back].map(|n| n.evaluate(&images, 30).unwrap());
            for (a, b) in a.values().iter().zip(b.values()) {
                assert!((a - b).abs() < 1e-4, "degree {degree}: {a} {b}");
            }
        }
    }

    #[test]
    fn variables_are_its_own_and_one_value_is_refused() {
        let images = Rows::images(&synthetic::bars(30, 1).images);
        let network = Differentiable::one_hidden(4, Activation::Relu, 1).unwrap();
        let before = network.evaluate(&images, 30).unwrap();
        let replaced = network.with_polynomials(3, &images).unwrap();
        for var in replaced.variables() {
            var.set(&var.zeros_like().unwrap()).unwrap();
        }
        assert_eq!(network.evaluate(&images, 30).unwrap(), before);
        assert_eq!(replaced.coefficients().len(), 4);
        let black = Rows::new(images.width(), vec![0.0; images.width()]);
        let refused = network.with_polynomials(3, &black).unwrap_err();
        assert!(matches!(
            refused,
            NetworkError::Fit {
                layer: 1,
                degree: 3
            }
        ));
    }
}
