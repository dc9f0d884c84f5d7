//! A graph of ONNX operators as a sequence of layers and activations.
//!
//! Whatever depends on the input is kept as a [`Data`]: one [`Function`] for all values
//! of an affine map of a stage. A stage is the input, or what an earlier map and function
//! gave. Linear operators change the map, and operators on single values the function;
//! a linear operator behind a function that is no line begins the next stage. So a
//! normalisation, pooling by the average or a sum of branches costs nothing.
//!
//! `operators` are those on single values and the list of all, `linear` and `layout`
//! change maps, `classical` are those of scikit-learn's models, and [`super::emit`] makes
//! layers of the stages.

use std::collections::HashMap;
use std::rc::Rc;

use crate::model::{MAX_VALUES, Shape};

use super::affine::Affine;
use super::emit::{self, Imported};
use super::function::Function;
use super::schema::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
use super::tensor::{Constant, constant};
use super::{ImportError, InputKind, Reason};
use crate::data::{PIXELS, SIDE};
use crate::network::NetworkInput;

/// Most operators of a graph: far more than a network of the format takes, and
/// each may copy a layer.
const MAX_NODES: usize = 512;

/// Weights of all maps together, and products that make them: what a hostile file may
/// take of memory and time.
const MAX_TERMS: usize = 1 << 26;
const MAX_WORK: usize = 1 << 31;

/// Characters of a name that an error shows.
const MAX_NAME: usize = 80;

/// A function of an affine map of a stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Data {
    /// Index of the stage, 0 for the input.
    pub(super) base: usize,
    pub(super) map: Rc<Affine>,
    pub(super) function: Function,
    /// Without the batch.
    pub(super) dims: Vec<usize>,
}

impl Data {
    /// Whether one is a function of what the other is a function of.
    pub(super) fn alike(&self, other: &Self) -> bool {
        self.base == other.base
            && self.dims == other.dims
            && (Rc::ptr_eq(&self.map, &other.map) || self.map == other.map)
    }

    pub(super) fn with(&self, function: Function) -> Self {
        Self {
            function,
            ..self.clone()
        }
    }

    /// Dimensions as channels, rows and columns.
    pub(super) fn image(&self) -> Result<[usize; 3], Reason> {
        <[usize; 3]>::try_from(&self.dims[..]).map_err(|_| {
            format!(
                "its data has the shape {:?} behind the batch; it must be channels, rows and columns",
                self.dims
            )
        })
    }
}

/// What a name in a graph stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Constant),
    Data(Data),
    /// Two functions of this one logit: the probabilities of two classes, the second the
    /// larger where the logit is positive.
    TwoOfOne(Data),
    /// What follows from which of these logits is the largest (or from the sign of one):
    /// labels and probabilities.
    Decision(Data),
    /// A tensor that is of no use to a network, and why.
    Unusable(Reason),
}

/// What an activation's results are made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stage {
    pub(super) base: usize,
    pub(super) map: Rc<Affine>,
    pub(super) function: Function,
}

/// The stages that were seen, the input not among them: that is stage 0.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) stages: Vec<Stage>,
    /// Whether what is no polynomial may be replaced.
    pub(super) fits: bool,
    /// What was replaced so far.
    pub(super) notes: Vec<String>,
    terms: usize,
    work: usize,
}

impl Stages {
    /// Accounts for a map of so many terms that so many products make.
    pub(super) fn spend(&mut self, terms: usize, work: usize) -> Result<(), Reason> {
        self.terms = self.terms.saturating_add(terms);
        self.work = self.work.saturating_add(work);
        if self.terms <= MAX_TERMS && self.work <= MAX_WORK {
            return Ok(());
        }
        Err(format!(
            "with it the layers have more than {MAX_TERMS} weights or take more than {MAX_WORK} products; export a smaller network"
        ))
    }

    /// Data of a map that was just made.
    pub(super) fn made(
        &mut self,
        base: usize,
        map: Affine,
        dims: Vec<usize>,
    ) -> Result<Data, Reason> {
        self.spend(map.terms() + map.outputs(), map.terms())?;
        Ok(Data {
            base,
            map: Rc::new(map),
            function: Function::identity(),
            dims,
        })
    }

    /// The same values as an affine map, which another can be put upon: a new stage
    /// where they are no line of one.
    pub(super) fn linear(&mut self, data: &Data) -> Result<Data, Reason> {
        match data.function.line() {
            Some((0.0, 1.0)) => Ok(data.clone()),
            Some((constant, slope)) => {
                let map = data.map.scaled(|_| (slope, constant));
                self.made(data.base, map, data.dims.clone())
            }
            None => self.stage(data),
        }
    }

    /// A stage that gives these values.
    pub(super) fn stage(&mut self, data: &Data) -> Result<Data, Reason> {
        let stage = Stage {
            base: data.base,
            map: Rc::clone(&data.map),
            function: data.function.clone(),
        };
        let shape = match data.map.window {
            Some(window) => window.output.to_vec(),
            None => data.dims.clone(),
        };
        let known = self.stages.iter().position(|known| *known == stage);
        let index = known.unwrap_or_else(|| {
            self.stages.push(stage);
            self.stages.len() - 1
        });
        self.made(index + 1, Affine::identity(&shape), data.dims.clone())
    }

    /// Both over the last stage that leads to either without an activation.
    pub(super) fn joined(&mut self, a: &Data, b: &Data) -> Result<(Data, Data), Reason> {
        let (mut a, mut b) = (self.linear(a)?, self.linear(b)?);
        while a.base != b.base {
            let later = if a.base > b.base { &mut a } else { &mut b };
            let through = later.base.checked_sub(1).map(|at| self.stages[at].clone());
            match through {
                Some(stage) if stage.function == Function::identity() => {
                    self.spend(
                        0,
                        later
                            .map
                            .terms()
                            .saturating_mul(stage.map.terms() / stage.map.outputs().max(1) + 1),
                    )?;
                    let map = later.map.after(&stage.map);
                    *later = self.made(stage.base, map, later.dims.clone())?;
                }
                _ => {
                    return Err(
                        "it joins branches with an activation in one of them (a skip connection across an activation), which is not imported: join them in front of the activation, or export the network without the shortcut"
                            .into(),
                    );
                }
            }
        }
        Ok((a, b))
    }
}

/// An operator and what it takes.
pub(super) struct Operator<'g> {
    pub(super) node: &'g NodeProto,
    values: &'g HashMap<&'g str, Value>,
}

impl<'g> Operator<'g> {
    /// An input that may be left out.
    pub(super) fn optional(&self, index: usize) -> Result<Option<&'g Value>, Reason> {
        let name = self.node.input.get(index).filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Ok(None);
        };
        match self.values.get(name.as_str()) {
            Some(Value::Unusable(reason)) => Err(format!(
                "its input \"{}\" cannot be used: {reason}",
                printable(name)
            )),
            Some(value) => Ok(Some(value)),
            None => Err(format!(
                "nothing before it gives its input \"{}\"",
                printable(name)
            )),
        }
    }

    pub(super) fn input(&self, index: usize) -> Result<&'g Value, Reason> {
        self.optional(index)?
            .ok_or_else(|| format!("it has no input {index}"))
    }

    /// An input that depends on the sample.
    pub(super) fn data(&self, index: usize) -> Result<&'g Data, Reason> {
        match self.input(index)? {
            Value::Data(data) => Ok(data),
            Value::Constant(_) | Value::Unusable(_) => {
                Err(format!("its input {index} must depend on the sample"))
            }
            Value::TwoOfOne(_) | Value::Decision(_) => Err(
                "it follows labels or probabilities, which are no part of a network here; export it up to the logits"
                    .into(),
            ),
        }
    }

    /// An input that is constant, and may be left out.
    pub(super) fn constant(&self, index: usize) -> Result<Option<&'g Constant>, Reason> {
        match self.optional(index)? {
            None => Ok(None),
            Some(Value::Constant(constant)) => Ok(Some(constant)),
            Some(_) => Err(format!(
                "its input {index} must be constant, and depends on the sample"
            )),
        }
    }

    pub(super) fn needed(&self, index: usize) -> Result<&'g Constant, Reason> {
        self.constant(index)?
            .ok_or_else(|| format!("it has no input {index}"))
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'g AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn integer(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn number(&self, name: &str, default: f32) -> f64 {
        f64::from(self.attribute(name).map_or(default, |a| a.f))
    }

    pub(super) fn integers(&self, name: &str) -> &'g [i64] {
        self.attribute(name).map_or(&[], |a| &a.ints)
    }

    pub(super) fn text(&self, name: &str) -> &'g [u8] {
        self.attribute(name).map_or(&[], |a| &a.s)
    }

    /// Integers of an attribute in older files, of an input in newer ones.
    pub(super) fn listed(&self, name: &str, index: usize) -> Result<Option<Vec<f64>>, Reason> {
        if let Some(attribute) = self.attribute(name) {
            return Ok(Some(attribute.ints.iter().map(|&i| i as f64).collect()));
        }
        Ok(self
            .constant(index)?
            .map(|constant| constant.values.clone()))
    }

    /// Refuses an attribute with other values than this one.
    pub(super) fn only(&self, name: &str, value: i64) -> Result<(), Reason> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(());
        };
        let single = [attribute.i];
        let got = match &attribute.ints[..] {
            [] => &single[..],
            several => several,
        };
        if got.iter().all(|&i| i == value) {
            return Ok(());
        }
        Err(format!("its {name} is {got:?}; it must be {value}"))
    }
}

/// Translates a graph. An input of one axis has the shape of the data, if it is given;
/// with `fits`, what is no polynomial is kept as it is.
pub(super) fn network(
    graph: &GraphProto,
    name: &str,
    kind: InputKind,
    data: Option<Shape>,
    fits: bool,
) -> Result<Imported, ImportError> {
    if graph.node.len() > MAX_NODES {
        return Err(ImportError::Nodes {
            got: graph.node.len(),
            max: MAX_NODES,
        });
    }
    let mut values = HashMap::new();
    for tensor in &graph.initializer {
        let value = constant(tensor).map_or_else(Value::Unusable, Value::Constant);
        values.insert(tensor.name.as_str(), value);
    }
    let inputs: Vec<&ValueInfoProto> = graph
        .input
        .iter()
        .filter(|input| !values.contains_key(input.name.as_str()))
        .collect();
    let &[input] = &inputs[..] else {
        return Err(ImportError::Ends {
            inputs: inputs.len(),
            outputs: graph.output.len(),
        });
    };
    let dims = input_dims(input)?;
    let (network_input, map) =
        network_input(kind, &dims, data).ok_or_else(|| ImportError::Input {
            name: printable(&input.name),
            dims: dims.clone(),
        })?;
    let mut stages = Stages {
        stages: Vec::new(),
        fits,
        notes: Vec::new(),
        terms: 0,
        work: 0,
    };
    let data = Data {
        base: 0,
        map: Rc::new(map),
        function: Function::identity(),
        dims,
    };
    values.insert(input.name.as_str(), Value::Data(data));
    for node in &graph.node {
        let operator = Operator {
            node,
            values: &values,
        };
        let given = stages
            .node(&operator)
            .map_err(|reason| refused(node, reason))?;
        for value in &given {
            if let Value::Constant(constant) = value {
                let spent = stages.spend(constant.values.len(), 0);
                spent.map_err(|reason| refused(node, reason))?;
            }
        }
        if node.output.is_empty() {
            return Err(refused(node, "it has no output".into()));
        }
        values.extend(node.output.iter().map(String::as_str).zip(given));
    }
    let result = result(graph, &values)?;
    emit::layers(stages, &result, name, network_input)
}

/// The logits that the outputs are, or follow from.
fn result(graph: &GraphProto, values: &HashMap<&str, Value>) -> Result<Data, ImportError> {
    let mut found: Option<&Data> = None;
    for output in &graph.output {
        let logits = match values.get(output.name.as_str()) {
            Some(Value::Data(data) | Value::TwoOfOne(data) | Value::Decision(data)) => data,
            _ => {
                return Err(ImportError::Output {
                    name: printable(&output.name),
                });
            }
        };
        match found {
            Some(other) if !other.alike(logits) => {
                return Err(ImportError::Ends {
                    inputs: 1,
                    outputs: graph.output.len(),
                });
            }
            // Logits tell more than what follows from them.
            _ => found = Some(logits),
        }
    }
    found.cloned().ok_or(ImportError::Ends {
        inputs: 1,
        outputs: 0,
    })
}

/// What is wrong with a node.
fn refused(node: &NodeProto, reason: Reason) -> ImportError {
    ImportError::Node {
        operator: printable(&node.op_type),
        node: printable(node_name(node)),
        reason,
    }
}

/// The name of a node, or of what it gives.
pub(super) fn node_name(node: &NodeProto) -> &str {
    match (&node.name[..], node.output.first()) {
        ("", Some(output)) => output,
        (name, _) => name,
    }
}

/// A name out of a file, fit for one line on a terminal.
pub(super) fn printable(name: &str) -> String {
    let fit = |c: &char| (' '..='~').contains(c) && !matches!(c, '"' | '\\' | '{' | '}');
    let mut name: String = name
        .chars()
        .take(MAX_NAME + 1)
        .map(|c| if fit(&c) { c } else { '?' })
        .collect();
    if name.len() > MAX_NAME {
        name.truncate(MAX_NAME);
        name.push_str("..");
    }
    name
}

/// Dimensions without the batch.
fn input_dims(input: &ValueInfoProto) -> Result<Vec<usize>, ImportError> {
    let shape = input
        .r#type
        .as_ref()
        .and_then(|t| t.tensor_type.as_ref())
        .and_then(|t| t.shape.as_ref());
    let dims: Option<Vec<usize>> = shape.and_then(|shape| {
        let behind_batch = shape.dim.get(1..)?;
        behind_batch
            .iter()
            .map(|dim| usize::try_from(dim.dim_value).ok().filter(|&d| d > 0))
            .collect()
    });
    dims.ok_or_else(|| ImportError::Input {
        name: printable(&input.name),
        dims: Vec::new(),
    })
}

/// What a network takes, and the input of the graph as a map of it.
fn network_input(
    kind: InputKind,
    dims: &[usize],
    data: Option<Shape>,
) -> Option<(NetworkInput, Affine)> {
    let short = |dim: usize| u16::try_from(dim).ok();
    let image = |channels, height, width| {
        let shape = Shape {
            channels: short(channels)?,
            height: short(height)?,
            width: short(width)?,
        };
        (shape.values() <= MAX_VALUES).then_some(())?;
        let map = Affine::identity(&[channels, height, width]);
        Some((NetworkInput::Image(shape), map))
    };
    match (kind, dims) {
        (InputKind::Pixels, &[pixels]) if data.is_some_and(|data| data.values() == pixels) => {
            let Shape {
                channels,
                height,
                width,
            } = data?;
            image(channels.into(), height.into(), width.into())
        }
        (InputKind::Pixels, &[PIXELS]) => image(1, SIDE, SIDE),
        (InputKind::Pixels, &[pixels]) => image(1, 1, pixels),
        (InputKind::Pixels, &[height, width]) => image(1, height, width),
        // Channels last, as TensorFlow has them: a network here takes them first.
        (InputKind::Pixels, &[height, width, channels @ (1 | 3)])
            if height > 4 && width > 4 && ![1, 3].contains(&height) =>
        {
            let (input, first) = image(channels, height, width)?;
            let places = height * width;
            let order: Vec<(usize, usize)> = (0..channels * places)
                .map(|at| (0, at % channels * places + at / channels))
                .collect();
            Some((input, Affine::chosen(&[&first], &order, false)))
        }
        (InputKind::Pixels, &[channels, height, width]) => image(channels, height, width),
        (InputKind::Features, &[features]) if features <= MAX_VALUES => {
            let input = NetworkInput::Features {
                means: vec![0.0; features],
                deviations: vec![1.0; features],
            };
            Some((input, Affine::identity(&[features])))
        }
        _ => None,
    }
}
