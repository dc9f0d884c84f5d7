//! The one change of a network that would make its inference cheapest: by planning what it
//! would become, not by rules.

use he_nn::model::{Model, Shape};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};
use serde::Serialize;

/// A change of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The change, in words: the network has to be trained again with it.
    pub change: String,
    /// Share of the cost that it saves, from [`LEAST`] on.
    pub saves: f64,
}

/// What saves less is no advice.
pub const LEAST: f64 = 0.01;

/// A layer and what becomes of it.
enum Change {
    Outputs(usize),
    Channels(u16),
    Stride(u16),
    Square,
}

/// The change that saves most, of these, one layer at a time: a dense layer with the largest
/// power of two of outputs below its own; a convolution with half of its channels, or with
/// twice its stride; an activation of degree 2 instead of a higher one. `price` plans what the
/// network becomes and says what it costs, or nothing for what has no plan. Weights that are
/// left are those that were, so that scales and noise are much as they would be. Pooling by the
/// average behind a convolution becomes part of it and costs what its stride does.
pub fn best(model: &Model<'_>, price: impl Fn(Model<'_>) -> Option<f64>) -> Option<Advice> {
    let before = price(*model).filter(|&price| price > 0.0)?;
    let network = Network::from(model);
    let ranges: Vec<f32> = model.layers().map(|view| view.layer.range()).collect();
    let candidates = candidates(&network);
    let advised = candidates.into_iter().filter_map(|(layer, change, words)| {
        let changed = changed(&network, layer, &change)?;
        let file = changed.file(&ranges).ok()?;
        let after = price(Model::parse(&file).ok()?)?;
        Some(Advice {
            change: words,
            saves: 1.0 - after / before,
        })
    });
    advised
        .filter(|advice| advice.saves >= LEAST)
        .max_by(|a, b| a.saves.total_cmp(&b.saves))
}

/// What can be changed, with words for it.
fn candidates(network: &Network<i16>) -> Vec<(usize, Change, String)> {
    let last = network.layers.len().saturating_sub(1);
    let mut all = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        match layer {
            // The last one's outputs are classes.
            NetworkLayer::Dense(weights) if index < last => {
                let outputs = weights.biases.len();
                let fewer = (outputs / 2 + 1).next_power_of_two();
                let fewer = if fewer < outputs { fewer } else { outputs / 2 };
                if fewer > 0 {
                    let words = format!("{fewer} outputs instead of {outputs} in layer {index}");
                    all.push((index, Change::Outputs(fewer), words));
                }
            }
            NetworkLayer::Conv2d(kernel, _) => {
                let (channels, stride) = (kernel.out_channels, kernel.stride);
                if index < last && channels > 1 {
                    let half = channels / 2;
                    let words = format!("{half} channels instead of {channels} in layer {index}");
                    all.push((index, Change::Channels(half), words));
                }
                let twice = stride.saturating_mul(2);
                let words = format!("stride {twice} instead of {stride} in layer {index}");
                all.push((index, Change::Stride(twice), words));
            }
            NetworkLayer::Polynomial(coefficients) if coefficients.len() > 3 => {
                let degree = coefficients.len() - 1;
                let words = format!("degree 2 instead of {degree} in layer {index}");
                all.push((index, Change::Square, words));
            }
            _ => {}
        }
    }
    all
}

/// A network with one layer changed, and those behind it taking what is left of its results;
/// `None` where there is no such network.
fn changed(network: &Network<i16>, at: usize, change: &Change) -> Option<Network<i16>> {
    let mut changed = network.clone();
    let mut shape = match &network.input {
        NetworkInput::Image(shape) => *shape,
        NetworkInput::Features { means, .. } => Shape::flat(u16::try_from(means.len()).ok()?),
    };
    for (index, layer) in changed.layers.iter_mut().enumerate() {
        let here = (index == at).then_some(change);
        match layer {
            NetworkLayer::Conv2d(kernel, weights) => {
                match here {
                    Some(Change::Channels(channels)) => kernel.out_channels = *channels,
                    Some(Change::Stride(stride)) => kernel.stride = *stride,
                    _ => {}
                }
                if kernel.height > shape.height || kernel.width > shape.width {
                    return None;
                }
                let plane = usize::from(kernel.height) * usize::from(kernel.width);
                let columns = usize::from(shape.channels) * plane;
                cut(weights, usize::from(kernel.out_channels), columns);
                shape = kernel.output(shape);
            }
            NetworkLayer::Dense(weights) => {
                let outputs = match here {
                    Some(Change::Outputs(outputs)) => *outputs,
                    _ => weights.biases.len(),
                };
                cut(weights, outputs, shape.values());
                shape = Shape::flat(u16::try_from(outputs).ok()?);
            }
            NetworkLayer::Polynomial(coefficients) => {
                if let Some(Change::Square) = here {
                    *coefficients = vec![0.0, 0.0, 1.0];
                }
            }
            NetworkLayer::Relu => {}
        }
    }
    Some(changed)
}

/// The first rows and columns of weights.
fn cut(weights: &mut Weights<i16>, rows: usize, columns: usize) {
    let before = (weights.weights.len() / weights.biases.len().max(1)).max(1);
    let kept = weights.weights.chunks(before).take(rows);
    weights.weights = kept
        .flat_map(|row| &row[..columns.min(row.len())])
        .copied()
        .collect();
    weights.biases.truncate(rows);
    weights.multipliers.truncate(rows);
}

#[cfg(test)]
mod tests {
    use he_nn::bundled;
    use he_nn::network::{Granularity, Quantization};
    use he_nn::plan::{Target, WeightMode};

    use super::*;
    use crate::planning;

    fn price(model: Model<'_>) -> Option<f64> {
        let plan = planning::plan(None, model, WeightMode::Plain, Target::Host).ok()?;
        Some((plan.total_cost() * plan.params().n()) as f64)
    }

    #[test]
    fn what_is_advised_costs_so_much_less() {
        // However weights are rounded.
        for (bits, granularity) in [
            (8, Granularity::Tensor),
            (4, Granularity::Channel),
            (16, Granularity::Tensor),
        ] {
            let quantization = Quantization::new(bits, granularity).unwrap();
            let bundled = Model::parse(bundled::model("mnist-cnn").unwrap()).unwrap();
            let ranges: Vec<f32> = bundled.layers().map(|view| view.layer.range()).collect();
            let network = Network::from(&bundled).real().quantized_by(quantization);
            let file = network.file(&ranges).unwrap();
            let model = Model::parse(&file).unwrap();
            let advice = best(&model, price).unwrap();
            // Half of the outputs of its largest layer, by hand.
            let mut halved = network.clone();
            let [
                ..,
                NetworkLayer::Dense(middle),
                _,
                NetworkLayer::Dense(last),
            ] = &mut halved.layers[..]
            else {
                panic!("{halved:?}");
            };
            let columns = middle.weights.len() / 64;
            middle.weights.truncate(32 * columns);
            middle.biases.truncate(32);
            middle.multipliers.truncate(32);
            last.weights = last
                .weights
                .chunks(64)
                .flat_map(|row| &row[..32])
                .copied()
                .collect();
            let file = halved.file(&ranges).unwrap();
            let after = price(Model::parse(&file).unwrap()).unwrap();
            let saves = 1.0 - after / price(model).unwrap();
            assert_eq!(
                advice.change, "32 outputs instead of 64 in layer 2",
                "{quantization}"
            );
            assert!((advice.saves - saves).abs() < 1e-12, "{advice:?} {saves}");
        }
    }

    #[test]
    fn nothing_is_advised_where_nothing_can_be_changed() {
        let model = Model::parse(bundled::model("pima-logreg").unwrap()).unwrap();
        assert_eq!(best(&model, price), None);
        // Nor where a network has no plan.
        let relu = Model::parse(bundled::model("mnist-mlp64-relu").unwrap()).unwrap();
        assert_eq!(best(&relu, price), None);
    }
}
