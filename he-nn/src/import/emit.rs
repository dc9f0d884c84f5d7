//! Layers of the stages: a map becomes a convolution where it is one, and a dense layer
//! otherwise.

use std::rc::Rc;

use super::ImportError;
use super::affine::Affine;
use super::function::Function;
use super::graph::{Data, Stages};
use crate::model::{Dimension, MAX_VALUES, ModelError, Place, Shape};
use crate::network::{Network, NetworkInput, NetworkLayer, Weights};

/// Most weights of a dense layer.
const MAX_WEIGHTS: usize = 1 << 26;

/// A network as it is in a file: activations may be no polynomials yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Imported {
    pub(super) name: String,
    pub(super) input: NetworkInput,
    pub(super) parts: Vec<Part>,
    /// What was replaced on the way.
    pub(super) notes: Vec<String>,
}

/// A layer with weights, or an activation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Layer(NetworkLayer<f32>),
    Activation(Function),
}

impl Imported {
    /// The network, if all its activations are polynomials.
    pub(super) fn network(self) -> Result<Network<f32>, ImportError> {
        let layers = self.parts.into_iter().map(|part| match part {
            Part::Layer(layer) => Ok(layer),
            Part::Activation(Function::Polynomial(coefficients)) => Ok(NetworkLayer::Polynomial(
                coefficients.iter().map(|&c| c as f32).collect(),
            )),
            Part::Activation(Function::Other(expression)) => {
                let (operator, node) = expression.origin.clone();
                Err(ImportError::Node {
                    operator,
                    node,
                    reason: "CKKS evaluates polynomials alone; import with --fit-activations, or replace it by a polynomial such as x^2"
                        .into(),
                })
            }
        });
        Ok(Network {
            name: self.name,
            input: self.input,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }
}

/// The layers that lead to `result`.
pub(super) fn layers(
    mut stages: Stages,
    result: &Data,
    name: &str,
    input: NetworkInput,
) -> Result<Imported, ImportError> {
    let (last, map) = ending(&mut stages, result)?;
    // From the end to the input: the map to the last stage, its function, and so on.
    let mut chain = vec![(map, None)];
    let mut base = last;
    while let Some(stage) = base.checked_sub(1).and_then(|at| stages.stages.get(at)) {
        chain.push((Rc::clone(&stage.map), Some(stage.function.clone())));
        base = stage.base;
    }
    let mut shape = match &input {
        NetworkInput::Image(shape) => *shape,
        NetworkInput::Features { means, .. } => {
            Shape::flat(u16::try_from(means.len()).unwrap_or(u16::MAX))
        }
    };
    let mut parts = Vec::new();
    for (map, function) in chain.into_iter().rev() {
        let layer = layer(&map, &mut shape, parts.len())?;
        parts.push(Part::Layer(layer));
        match function {
            Some(function) if function != Function::identity() => {
                parts.push(Part::Activation(function));
            }
            _ => {}
        }
    }
    Ok(Imported {
        name: name.to_owned(),
        input,
        parts,
        notes: stages.notes,
    })
}

/// The last stage, and the map that gives the logits of it. A function at the end that
/// grows tells no more than what it is of; any other is a stage of its own.
fn ending(stages: &mut Stages, result: &Data) -> Result<(usize, Rc<Affine>), ImportError> {
    let one = result.map.outputs() == 1;
    let function = &result.function;
    let dropped = match function {
        Function::Other(_) => function.grows() && (!one || [0.0, 0.5].contains(&function.at(0.0))),
        Function::Polynomial(_) => false,
    };
    let result = match dropped {
        true => result.with(Function::identity()),
        false => result.clone(),
    };
    let last = stages
        .linear(&result)
        .map_err(|reason| ImportError::Tensor {
            name: "the output".into(),
            reason,
        })?;
    Ok((last.base, last.map))
}

fn layer(map: &Affine, shape: &mut Shape, index: usize) -> Result<NetworkLayer<f32>, ImportError> {
    if let Some((kernel, weights, biases)) = map.convolution(*shape) {
        *shape = kernel.output(*shape);
        let weights = Weights::new(weights, biases);
        return Ok(NetworkLayer::Conv2d(kernel, weights));
    }
    let (inputs, outputs) = (map.inputs(), map.outputs());
    if outputs > MAX_VALUES {
        return Err(ModelError::Dimension {
            place: Place::Layer(index),
            dimension: Dimension::Values,
            got: outputs,
            max: MAX_VALUES,
        }
        .into());
    }
    if inputs.saturating_mul(outputs) > MAX_WEIGHTS {
        return Err(ImportError::NoConvolution { inputs, outputs });
    }
    *shape = Shape::flat(outputs as u16);
    let biases = map.constants().iter().map(|&c| c as f32).collect();
    Ok(NetworkLayer::Dense(Weights::new(map.dense(), biases)))
}
