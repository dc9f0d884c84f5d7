//! Models from other programs: ONNX files, as PyTorch exports them.
//!
//! Whatever is linear between two activations becomes one layer: `Gemm`, `MatMul`,
//! `Conv` (padded, with strides, dilations and groups), pooling by the average,
//! `BatchNormalization`, sums and products with constants, padding, sums of branches,
//! and changes of layout. It is a convolution if it is one, and dense otherwise. Layers
//! with weights that follow a convolution stay layers of their own.
//! Activations are what `Mul`, `Add`, `Sub`, `Neg`, `Div` and `Pow` build, as polynomials.
//! Labels and probabilities at the end tell no more than the logits, which are taken
//! instead: a network here ends with them. Models of scikit-learn, as skl2onnx exports
//! them, are linear classifiers and perceptrons. Weights are rounded, to 8 bits per tensor
//! unless something else is [`Wanted`], and the
//! ranges that a plan needs are measured on training data. Anything else is refused by
//! the name of operator and node, with what comes nearest.
//!
//! A plan takes features for standardised, so their means and deviations over the
//! training data go into the file, and the first layer undoes them
//! ([`Network::standardise`]): a network that takes features as they are computes
//! the same.

mod affine;
mod classical;
mod emit;
mod external;
pub mod fit;
mod function;
mod graph;
mod layout;
mod linear;
mod operators;
pub mod schema;
mod tensor;
#[cfg(test)]
mod tests;
mod windows;

use std::path::{Path, PathBuf};

use crate::model::ModelError;
use fit::{Degree, Replaced};
use graph::printable;
use prost::Message;

use crate::clear::{self, Calibrated};
use crate::data::{Choice, DataError, DataSet, Form, Samples, Split};
use crate::files;
use crate::network::{Network, NetworkInput, Quantization};

/// Bytes that an ONNX file of a network of the format never has; a protobuf message has no
/// more than twice as many.
const MAX_BYTES: u64 = 1 << 30;

/// Why an operator is not a part of a network here; the node is added.
type Reason = String;

/// What the input of an imported network stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Pixels from 0 to 1.
    Pixels,
    /// Features, as they are in the data.
    Features,
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{} cannot be read ({source}): name an ONNX file", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file with a tensor's numbers cannot be read.
    #[error(
        "the numbers of the tensor {name:?} are in {file:?}, which cannot be read ({source}): put it beside the ONNX file"
    )]
    External {
        /// Its name.
        name: String,
        /// Which file, as the ONNX file has it.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no protobuf message of the schema.
    #[error("this is not a sound ONNX file ({source}): export the model again")]
    Protobuf {
        /// What the decoder found.
        source: prost::DecodeError,
    },
    /// The message holds no graph.
    #[error("this is not an ONNX file, or it holds no graph: export the model again")]
    NoGraph,
    /// More operators than a network of the format can be made of.
    #[error(
        "the graph has {got} operators and at most {max} are imported: export a smaller network"
    )]
    Nodes {
        /// How many.
        got: usize,
        /// The most there may be.
        max: usize,
    },
    /// Not one input, or outputs that do not follow from the same logits.
    #[error(
        "the graph has {inputs} inputs and {outputs} outputs: export a network with one input and its logits, and what follows from them"
    )]
    Ends {
        /// Its inputs, weights excluded.
        inputs: usize,
        /// Its outputs.
        outputs: usize,
    },
    /// An input without a usable shape.
    #[error(
        "the input {name:?} has the shape {dims:?} behind the batch, which is no image or row of features of known size: export it with a batch and fixed dimensions"
    )]
    Input {
        /// Its name.
        name: String,
        /// Its dimensions, none where they are not known.
        dims: Vec<usize>,
    },
    /// A tensor that cannot be used.
    #[error("the tensor {name:?} cannot be used: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// An operator that cannot be used.
    #[error("the operator {operator} of node {node:?} cannot be imported: {reason}")]
    Node {
        /// The operator.
        operator: String,
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The output does not depend on the input.
    #[error("the output {name:?} is not computed from the input: export the network again")]
    Output {
        /// Its name.
        name: String,
    },
    /// A dense layer that is too large, where there is no convolution.
    #[error(
        "between two activations lies a map of {inputs} values to {outputs} that is no convolution, because places differ in weights or constants: put no constant in front of padding, use equal strides, or fewer values"
    )]
    NoConvolution {
        /// Values that it takes.
        inputs: usize,
        /// Values that it gives.
        outputs: usize,
    },
    /// The network is outside the format.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data to measure with cannot be loaded, or is not what the network takes.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Reads the bytes of a file: the network as it is there, which takes features as
/// they are. Numbers in other files are refused, see [`read`].
///
/// # Errors
/// [`ImportError`].
pub fn network(bytes: &[u8], name: &str, kind: InputKind) -> Result<Network<f32>, ImportError> {
    graph::network(&decoded(bytes)?, name, kind, None, false)?.network()
}

/// Reads a file, and the files beside it that it names, as [`network`].
///
/// # Errors
/// [`ImportError`].
pub fn read(file: &Path, name: &str, kind: InputKind) -> Result<Network<f32>, ImportError> {
    graph::network(&opened(file)?, name, kind, None, false)?.network()
}

/// The graph of a file, with the numbers that lie beside it.
fn opened(file: &Path) -> Result<schema::GraphProto, ImportError> {
    let bytes = files::read(file, MAX_BYTES).map_err(|source| ImportError::Read {
        file: file.into(),
        source,
    })?;
    let mut graph = decoded(&bytes)?;
    external::inline(&mut graph, file.parent().unwrap_or(Path::new("")))?;
    Ok(graph)
}

fn decoded(bytes: &[u8]) -> Result<schema::GraphProto, ImportError> {
    let model =
        schema::ModelProto::decode(bytes).map_err(|source| ImportError::Protobuf { source })?;
    model.graph.ok_or(ImportError::NoGraph)
}

/// A network from a file, with what was measured of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedModel {
    /// The network and its measurements.
    pub calibrated: Calibrated,
    /// What the data holds.
    pub form: Form,
    /// What the labels stand for; empty where they are numbers from 0.
    pub classes: Vec<String>,
    /// The activations that were replaced, if that was asked for.
    pub replaced: Option<Replaced>,
}

/// What is made of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// What the network takes; what the data holds, if left out.
    pub kind: Option<InputKind>,
    /// The degree of polynomials that replace activations which are none ([`fit`]); such
    /// are refused, if left out.
    pub degree: Option<Degree>,
    /// How weights are rounded.
    pub quantization: Quantization,
}

/// Imports a file and quantizes its network. Ranges are measured on the data of a path
/// ([`Samples::open`]), which also gives the means and deviations of features.
///
/// # Errors
/// [`ImportError`].
pub fn import(
    file: &Path,
    name: &str,
    data: &Path,
    choice: &Choice,
    wanted: Wanted,
) -> Result<ImportedModel, ImportError> {
    let Wanted {
        kind,
        degree,
        quantization,
    } = wanted;
    let graph = opened(file)?;
    let set = match kind {
        Some(InputKind::Features) => DataSet::Pima,
        _ => DataSet::Mnist,
    };
    let path = set.locate(data);
    let train = Samples::open(&path, Split::Train, choice)?;
    let test = Samples::open(&path, Split::Test, choice)?;
    let (found, shape) = match train.form() {
        Form::Image(shape) => (InputKind::Pixels, Some(shape)),
        Form::Features(_) => (InputKind::Features, None),
    };
    let kind = kind.unwrap_or(found);
    let mut imported = graph::network(&graph, name, kind, shape, degree.is_some())?;
    let wanted = match &imported.input {
        NetworkInput::Image(shape) => Form::Image(*shape),
        NetworkInput::Features { means, .. } => Form::Features(means.len()),
    };
    let (train, test) = (train.fitting(wanted, &path)?, test.fitting(wanted, &path)?);
    let replaced = match degree {
        Some(degree) => Some(fit::fit(&mut imported, degree, &train, &test)?),
        None => None,
    };
    let mut network = imported.network()?;
    if let Form::Features(_) = wanted {
        let (means, deviations) = train.standard();
        network.standardise(&means, &deviations)?;
    }
    let (train_all, test_all) = (train.all(), test.all());
    let calibrated = clear::calibrated(
        &network.quantized_by(quantization),
        train_all.into_iter(),
        test_all.into_iter(),
    )?;
    Ok(ImportedModel {
        calibrated,
        form: wanted,
        classes: train.classes().to_vec(),
        replaced,
    })
}
