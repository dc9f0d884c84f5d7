//! A graph of ONNX operators as a sequence of layers.
//!
//! Whatever depends on the input is kept as a polynomial, with one coefficient per
//! power for all its values, of the results of a layer with weights (or of the
//! input): `x * x`, `Pow`, and sums and multiples of them change the polynomial,
//! and the next layer with weights closes it. What is affine goes into the
//! weights, so a normalisation of the input costs nothing.

use std::collections::HashMap;

use crate::model::{Kernel, MAX_DEGREE, MAX_VALUES, Padding, Shape};

use super::schema::{
    AttributeProto, DOUBLE, FLOAT, GraphProto, INT64, NodeProto, TensorProto, ValueInfoProto,
};
use super::{ImportError, InputKind};
use crate::data::{PIXELS, SIDE};
use crate::network::{Network, NetworkInput, NetworkLayer, Weights};

/// Most operators of a graph: far more than a network of the format takes, and
/// each may copy a layer.
const MAX_NODES: usize = 512;

/// Characters of a name that an error shows.
const MAX_NAME: usize = 80;

/// Constant numbers.
#[derive(Clone, Debug)]
struct Constant {
    dims: Vec<usize>,
    values: Vec<f64>,
}

/// A polynomial of the results of a layer.
#[derive(Clone, Debug)]
struct Data {
    /// Index among the layers with weights, 0 for the input.
    base: usize,
    /// From the constant up.
    polynomial: Vec<f64>,
    /// Without the batch.
    dims: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Value {
    Constant(Constant),
    Data(Data),
}

/// A layer with weights, or the input.
#[derive(Clone, Debug)]
struct Linear {
    /// What it takes; nothing for the input.
    from: Option<Data>,
    /// For a convolution.
    kernel: Option<Kernel>,
    weights: Vec<f64>,
    biases: Vec<f64>,
}

/// Why an operator is not a part of a network here; the node is added.
type Reason = String;

/// Translates a graph.
pub(super) fn network(
    graph: &GraphProto,
    name: &str,
    kind: InputKind,
) -> Result<Network<f32>, ImportError> {
    if graph.node.len() > MAX_NODES {
        return Err(ImportError::Nodes {
            got: graph.node.len(),
            max: MAX_NODES,
        });
    }
    let mut values = HashMap::new();
    for tensor in &graph.initializer {
        let constant = constant(tensor).map_err(|reason| ImportError::Tensor {
            name: printable(&tensor.name),
            reason,
        })?;
        values.insert(tensor.name.as_str(), Value::Constant(constant));
    }
    let inputs: Vec<&ValueInfoProto> = graph
        .input
        .iter()
        .filter(|input| !values.contains_key(input.name.as_str()))
        .collect();
    let (&[input], [output]) = (&inputs[..], &graph.output[..]) else {
        return Err(ImportError::Ends {
            inputs: inputs.len(),
            outputs: graph.output.len(),
        });
    };
    let dims = input_dims(input)?;
    let network_input = network_input(kind, &dims).ok_or_else(|| ImportError::Input {
        name: printable(&input.name),
        dims: dims.clone(),
    })?;
    let mut layers = Layers(vec![Linear {
        from: None,
        kernel: None,
        weights: Vec::new(),
        biases: Vec::new(),
    }]);
    let data = Data {
        base: 0,
        polynomial: vec![0.0, 1.0],
        dims,
    };
    values.insert(input.name.as_str(), Value::Data(data));
    for node in &graph.node {
        let failed = |reason| ImportError::Node {
            operator: printable(&node.op_type),
            node: printable(node_name(node)),
            reason,
        };
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(failed(format!(
                "it is of the domain {}",
                printable(&node.domain)
            )));
        }
        let value = layers.node(node, &values).map_err(failed)?;
        let Some(result) = node.output.first() else {
            return Err(failed("it has no output".into()));
        };
        values.insert(result.as_str(), value);
    }
    match values.remove(output.name.as_str()) {
        Some(Value::Data(result)) => layers.finish(result, name, network_input),
        _ => Err(ImportError::Output {
            name: printable(&output.name),
        }),
    }
}

/// The name of a node, or of what it gives.
fn node_name(node: &NodeProto) -> &str {
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

fn network_input(kind: InputKind, dims: &[usize]) -> Option<NetworkInput> {
    let short = |dim: usize| u16::try_from(dim).ok();
    let image = |channels, height, width| {
        Some(NetworkInput::Image(Shape {
            channels: short(channels)?,
            height: short(height)?,
            width: short(width)?,
        }))
    };
    match (kind, dims) {
        (InputKind::Pixels, &[PIXELS]) => image(1, SIDE, SIDE),
        (InputKind::Pixels, &[pixels]) => image(1, 1, pixels),
        (InputKind::Pixels, &[height, width]) => image(1, height, width),
        (InputKind::Pixels, &[channels, height, width]) => image(channels, height, width),
        (InputKind::Features, &[features]) if features <= MAX_VALUES => {
            Some(NetworkInput::Features {
                means: vec![0.0; features],
                deviations: vec![1.0; features],
            })
        }
        _ => None,
    }
}

/// Reads a tensor.
fn constant(tensor: &TensorProto) -> Result<Constant, Reason> {
    if tensor.data_location == 1 {
        return Err("its numbers are in another file, and there is none beside bytes in memory; export the model with them inside".into());
    }
    let dims: Option<Vec<usize>> = tensor
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).ok())
        .collect();
    let count = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let dims = dims.ok_or("a dimension is negative")?;
    let raw = &tensor.raw_data;
    let values: Vec<f64> = match tensor.data_type {
        FLOAT if raw.is_empty() => tensor.float_data.iter().map(|&x| f64::from(x)).collect(),
        FLOAT => raw
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f64::from(f32::from_le_bytes(bytes)))
            .collect(),
        DOUBLE if raw.is_empty() => tensor.double_data.clone(),
        DOUBLE => raw
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&bytes| f64::from_le_bytes(bytes))
            .collect(),
        INT64 if raw.is_empty() => tensor.int64_data.iter().map(|&x| x as f64).collect(),
        INT64 => raw
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&bytes| i64::from_le_bytes(bytes) as f64)
            .collect(),
        other => return Err(format!("its data type is number {other}; use float32")),
    };
    if count(&dims) != Some(values.len()) {
        return Err(format!(
            "its shape is {dims:?} and it holds {} numbers; export the model again",
            values.len()
        ));
    }
    // What overflows single precision is of no use either.
    if let Some(index) = values.iter().position(|&x| !(x as f32).is_finite()) {
        let number = values[index];
        return Err(format!(
            "number {index} of it is {number}; train the model again"
        ));
    }
    Ok(Constant { dims, values })
}

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

fn number(node: &NodeProto, name: &str, default: f32) -> f64 {
    f64::from(attribute(node, name).map_or(default, |a| a.f))
}

/// Refuses an attribute with other values than this one.
fn only(node: &NodeProto, name: &str, value: i64) -> Result<(), Reason> {
    let Some(attribute) = attribute(node, name) else {
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

fn product(a: &[f64], b: &[f64]) -> Result<Vec<f64>, Reason> {
    let degree = a.len() + b.len() - 2;
    if degree > MAX_DEGREE {
        return Err(format!(
            "it makes an activation of degree {degree}; it may have {MAX_DEGREE}"
        ));
    }
    let mut sum = vec![0.0; degree + 1];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            sum[i + j] += a * b;
        }
    }
    Ok(sum)
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    let at = |p: &[f64], i: usize| p.get(i).copied().unwrap_or(0.0);
    let mut sum: Vec<f64> = (0..a.len().max(b.len()))
        .map(|i| at(a, i) + at(b, i))
        .collect();
    while sum.len() > 2 && sum.last() == Some(&0.0) {
        sum.pop();
    }
    sum
}

impl Constant {
    /// The number, if all are the same.
    fn scalar(&self) -> Option<f64> {
        let (&first, rest) = self.values.split_first()?;
        rest.iter().all(|&x| x == first).then_some(first)
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            dims: self.dims.clone(),
            values: self.values.iter().map(|&x| f(x)).collect(),
        }
    }

    /// A number for every output channel of values of these dimensions.
    fn per_channel(&self, dims: &[usize]) -> Option<Vec<f64>> {
        let leading = self.dims.iter().take_while(|&&dim| dim == 1).count();
        let own = &self.dims[leading..];
        let (&channels, rest) = dims.split_first()?;
        let fits = own.len() == dims.len()
            && own.first() == Some(&channels)
            && own[1..].iter().all(|&dim| dim == 1)
            && own.len() == rest.len() + 1;
        fits.then(|| self.values.clone())
    }
}

/// All layers with weights that were seen, the input first.
struct Layers(Vec<Linear>);

impl Layers {
    /// What a node gives.
    fn node(&mut self, node: &NodeProto, values: &HashMap<&str, Value>) -> Result<Value, Reason> {
        let optional = |index: usize| {
            let name = node.input.get(index).filter(|name| !name.is_empty());
            name.map(|name| {
                values.get(name.as_str()).ok_or_else(|| {
                    format!("nothing before it gives its input {:?}", printable(name))
                })
            })
            .transpose()
        };
        let input =
            |index: usize| optional(index)?.ok_or_else(|| format!("it has no input {index}"));
        match node.op_type.as_str() {
            "Constant" => {
                let tensor = attribute(node, "value").and_then(|a| a.t.as_ref());
                match (tensor, attribute(node, "value_float")) {
                    (Some(tensor), _) => constant(tensor).map(Value::Constant),
                    (None, Some(a)) => Ok(Value::Constant(Constant {
                        dims: Vec::new(),
                        values: vec![f64::from(a.f)],
                    })),
                    _ => Err("its value is no tensor of numbers".into()),
                }
            }
            // Nothing is dropped where nothing is trained.
            "Identity" | "Dropout" => Ok(input(0)?.clone()),
            "Flatten" => match input(0)? {
                Value::Data(data) if integer(node, "axis", 1) == 1 => Ok(Value::Data(Data {
                    dims: vec![data.dims.iter().product()],
                    ..data.clone()
                })),
                _ => Err("it must flatten everything behind the batch; use axis 1".into()),
            },
            "Reshape" => reshape(input(0)?, input(1)?),
            "Transpose" => match input(0)? {
                Value::Constant(constant) => transpose(constant).map(Value::Constant),
                Value::Data(_) => Err("only constants can be transposed".into()),
            },
            "Neg" => scaled(input(0)?, -1.0),
            "Add" => self.add(input(0)?, input(1)?),
            "Sub" => {
                let negative = scaled(input(1)?, -1.0)?;
                self.add(input(0)?, &negative)
            }
            "Mul" => self.multiply(input(0)?, input(1)?),
            "Div" => match input(1)? {
                Value::Constant(divisor) if divisor.values.iter().all(|&x| x != 0.0) => {
                    let inverse = Value::Constant(divisor.map(|x| 1.0 / x));
                    self.multiply(input(0)?, &inverse)
                }
                _ => Err("its divisor must be a constant and not zero".into()),
            },
            "Pow" => power(input(0)?, input(1)?),
            "Gemm" => self.gemm(node, input(0)?, input(1)?, optional(2)?),
            "MatMul" => match (input(0)?, input(1)?) {
                (Value::Data(data), Value::Constant(weights)) => {
                    self.dense(data, &transpose(weights)?, None)
                }
                _ => Err("it must multiply the data by constant weights".into()),
            },
            "Conv" => self.conv(node, input(0)?, input(1)?, optional(2)?),
            _ => Err(
                "only Gemm, MatMul, Conv, Add, Sub, Mul, Div, Pow, Neg, Flatten, Reshape and constants can be imported; replace it by a polynomial, or leave it out where only the largest logit counts"
                    .into(),
            ),
        }
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, Reason> {
        let (data, constant) = match (a, b) {
            (Value::Data(a), Value::Data(b)) if a.base == b.base && a.dims == b.dims => {
                return Ok(Value::Data(Data {
                    polynomial: sum(&a.polynomial, &b.polynomial),
                    ..a.clone()
                }));
            }
            (Value::Data(data), Value::Constant(constant))
            | (Value::Constant(constant), Value::Data(data)) => (data, constant),
            _ => return Err("it adds results of two different layers".into()),
        };
        match (constant.scalar(), constant.per_channel(&data.dims)) {
            (Some(number), _) if constant.values.len() == 1 || data.polynomial.len() > 2 => {
                Ok(Value::Data(Data {
                    polynomial: sum(&data.polynomial, &[number]),
                    ..data.clone()
                }))
            }
            (_, Some(numbers)) => self.channelwise(data, |channel| (1.0, numbers[channel])),
            _ => Err(format!(
                "a constant of shape {:?} is neither one number nor one per channel of {:?}",
                constant.dims, data.dims
            )),
        }
    }

    fn multiply(&mut self, a: &Value, b: &Value) -> Result<Value, Reason> {
        let (data, constant) = match (a, b) {
            (Value::Data(a), Value::Data(b)) if a.base == b.base && a.dims == b.dims => {
                return Ok(Value::Data(Data {
                    polynomial: product(&a.polynomial, &b.polynomial)?,
                    ..a.clone()
                }));
            }
            (Value::Data(data), Value::Constant(constant))
            | (Value::Constant(constant), Value::Data(data)) => (data, constant),
            _ => return Err("it multiplies results of two different layers".into()),
        };
        match (constant.scalar(), constant.per_channel(&data.dims)) {
            (Some(number), _) if constant.values.len() == 1 || data.polynomial.len() > 2 => {
                scaled(&Value::Data(data.clone()), number)
            }
            (_, Some(numbers)) => self.channelwise(data, |channel| (numbers[channel], 0.0)),
            _ => Err(format!(
                "a constant of shape {:?} is neither one number nor one per channel of {:?}",
                constant.dims, data.dims
            )),
        }
    }

    /// A copy of the layer that gives `data`, with a factor and a summand a
    /// channel.
    fn channelwise(
        &mut self,
        data: &Data,
        of: impl Fn(usize) -> (f64, f64),
    ) -> Result<Value, Reason> {
        let (&[c, s], true) = (&data.polynomial[..], data.base > 0) else {
            return Err(
                "a constant a channel can only follow a Gemm, MatMul or Conv directly".into(),
            );
        };
        let mut layer = self.0[data.base].clone();
        let outputs = layer.biases.len();
        if data.dims.first() != Some(&outputs) {
            return Err("a constant a channel does not fit behind a Flatten".into());
        }
        let columns = layer.weights.len() / outputs.max(1);
        let rows = layer.weights.chunks_exact_mut(columns.max(1));
        for ((channel, row), bias) in rows.enumerate().zip(&mut layer.biases) {
            let (factor, summand) = of(channel);
            row.iter_mut().for_each(|w| *w *= s * factor);
            *bias = (s * *bias + c) * factor + summand;
        }
        Ok(self.push(layer, data.dims.clone()))
    }

    fn push(&mut self, layer: Linear, dims: Vec<usize>) -> Value {
        self.0.push(layer);
        Value::Data(Data {
            base: self.0.len() - 1,
            polynomial: vec![0.0, 1.0],
            dims,
        })
    }

    fn gemm(
        &mut self,
        node: &NodeProto,
        data: &Value,
        weights: &Value,
        biases: Option<&Value>,
    ) -> Result<Value, Reason> {
        only(node, "transA", 0)?;
        let (Value::Data(data), Value::Constant(weights)) = (data, weights) else {
            return Err("it must multiply the data by constant weights".into());
        };
        let (alpha, beta) = (number(node, "alpha", 1.0), number(node, "beta", 1.0));
        let weights = match integer(node, "transB", 0) {
            0 => transpose(weights)?,
            _ => weights.clone(),
        };
        let biases = match biases {
            None => None,
            Some(Value::Constant(biases)) => Some(biases.map(|x| beta * x)),
            Some(Value::Data(_)) => return Err("its biases must be constant".into()),
        };
        self.dense(data, &weights.map(|x| alpha * x), biases.as_ref())
    }

    /// `weights` has one row per output.
    fn dense(
        &mut self,
        data: &Data,
        weights: &Constant,
        biases: Option<&Constant>,
    ) -> Result<Value, Reason> {
        let &[outputs, inputs] = &weights.dims[..] else {
            return Err(format!("its weights have the shape {:?}", weights.dims));
        };
        if data.dims != [inputs] || outputs == 0 {
            return Err(format!(
                "its weights take {inputs} values and the data has the shape {:?} behind the batch",
                data.dims
            ));
        }
        let layer = Linear {
            from: Some(data.clone()),
            kernel: None,
            weights: weights.values.clone(),
            biases: row_of(biases, outputs)?,
        };
        Ok(self.push(layer, vec![outputs]))
    }

    fn conv(
        &mut self,
        node: &NodeProto,
        data: &Value,
        weights: &Value,
        biases: Option<&Value>,
    ) -> Result<Value, Reason> {
        only(node, "group", 1)?;
        only(node, "dilations", 1)?;
        let (Value::Data(data), Value::Constant(weights)) = (data, weights) else {
            return Err("its kernels must be constant".into());
        };
        let biases = match biases {
            None => None,
            Some(Value::Constant(biases)) => Some(biases),
            Some(Value::Data(_)) => return Err("its biases must be constant".into()),
        };
        let (&[out, channels, height, width], &[of_data, rows, columns]) =
            (&weights.dims[..], &data.dims[..])
        else {
            return Err(format!(
                "its kernels have the shape {:?} and the data {:?} behind the batch; only two-dimensional convolutions can be imported",
                weights.dims, data.dims
            ));
        };
        if channels != of_data
            || !(1..=rows).contains(&height)
            || !(1..=columns).contains(&width)
            || out == 0
        {
            return Err(format!(
                "its kernels of shape {:?} do not fit data of shape {:?}",
                weights.dims, data.dims
            ));
        }
        let strides = attribute(node, "strides").map_or(&[1, 1][..], |a| &a.ints);
        let stride = match *strides {
            [y, x] if y == x && y > 0 => u16::try_from(y).ok(),
            _ => None,
        };
        let short = |dim: usize| u16::try_from(dim).ok();
        let kernel = stride.and_then(|stride| {
            Some(Kernel {
                out_channels: short(out)?,
                height: short(height)?,
                width: short(width)?,
                stride,
                padding: Padding::NONE,
            })
        });
        let Some(mut kernel) = kernel else {
            return Err(format!(
                "its strides are {strides:?}; both must be the same and positive"
            ));
        };
        let image = short(of_data).zip(short(rows)).zip(short(columns));
        let Some(((channels, height), width)) = image else {
            return Err(format!("it takes data of shape {:?}", data.dims));
        };
        let input = Shape {
            channels,
            height,
            width,
        };
        kernel.padding = padding(node, input, kernel)?;
        let data = match data.polynomial[..] {
            [c, _] if c != 0.0 && !kernel.padding.is_none() => self.behind_zeros(data)?,
            _ => data.clone(),
        };
        let output = kernel.output(input);
        let dims = [output.channels, output.height, output.width].map(usize::from);
        let layer = Linear {
            from: Some(data),
            kernel: Some(kernel),
            weights: weights.values.clone(),
            biases: row_of(biases, out)?,
        };
        Ok(self.push(layer, dims.to_vec()))
    }

    /// `data`, its constant being in the biases of the layer that gives it: those of
    /// the next one serve windows that lie in padding as well, which has no constant.
    fn behind_zeros(&mut self, data: &Data) -> Result<Data, Reason> {
        match self.channelwise(data, |_| (1.0, 0.0)) {
            Ok(Value::Data(data)) => Ok(data),
            _ => Err(
                "it pads with zeros behind a constant that was added to the input; add none, or use padding 0"
                    .into(),
            ),
        }
    }

    /// The layers that lead to `result`.
    fn finish(
        mut self,
        result: Data,
        name: &str,
        input: NetworkInput,
    ) -> Result<Network<f32>, ImportError> {
        // An affine end goes into the last layer, everything else has none.
        let result = match (&result.polynomial[..], result.base) {
            ([0.0, 1.0], 1..) => result,
            ([_, _], 1..) => match self.channelwise(&result, |_| (1.0, 0.0)) {
                Ok(Value::Data(data)) => data,
                // Behind a Flatten: the same for every channel.
                _ => return Err(ImportError::End),
            },
            _ => return Err(ImportError::End),
        };
        let mut layers = Vec::new();
        let mut next = Some(result);
        while let Some(data) = next {
            let Linear {
                from,
                kernel,
                weights,
                biases,
            } = &self.0[data.base];
            let Some(from) = from else {
                break;
            };
            let (mut weights, mut biases) = (weights.clone(), biases.clone());
            let columns = (weights.len() / biases.len().max(1)).max(1);
            let polynomial = match from.polynomial[..] {
                [c, s] => {
                    for (row, bias) in weights.chunks_exact_mut(columns).zip(&mut biases) {
                        *bias += c * row.iter().sum::<f64>();
                        row.iter_mut().for_each(|w| *w *= s);
                    }
                    None
                }
                _ if from.base == 0 => return Err(ImportError::Start),
                _ => Some(from.polynomial.iter().map(|&c| c as f32).collect()),
            };
            let single = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
            let weights = Weights {
                weights: single(weights),
                scale: 1.0,
                biases: single(biases),
            };
            layers.push(match kernel {
                Some(kernel) => NetworkLayer::Conv2d(*kernel, weights),
                None => NetworkLayer::Dense(weights),
            });
            layers.extend(polynomial.map(NetworkLayer::Polynomial));
            next = Some(from.clone());
        }
        layers.reverse();
        Ok(Network {
            name: name.to_owned(),
            input,
            layers,
        })
    }
}

/// The padding of a convolution: `auto_pad`, or `pads` from the starts of the axes to
/// their ends.
fn padding(node: &NodeProto, input: Shape, kernel: Kernel) -> Result<Padding, Reason> {
    let pads = attribute(node, "pads").map_or(&[][..], |a| &a.ints);
    let automatic = attribute(node, "auto_pad").map_or(&[][..], |a| &a.s);
    let same = || Padding::same(input, kernel.height, kernel.width, kernel.stride);
    let padding = match automatic {
        b"" | b"NOTSET" => {
            let short = |pad: i64| u16::try_from(pad).ok();
            let sides = match *pads {
                [] => Some([0; 4]),
                [top, left, bottom, right] => short(top)
                    .zip(short(left))
                    .zip(short(bottom).zip(short(right)))
                    .map(|((top, left), (bottom, right))| [top, left, bottom, right]),
                _ => None,
            };
            let fits = |&[top, left, bottom, right]: &[u16; 4]| {
                top.max(bottom) < kernel.height && left.max(right) < kernel.width
            };
            let Some([top, left, bottom, right]) = sides.filter(fits) else {
                return Err(format!(
                    "its pads are {pads:?}; they must be four, none negative, and less than the kernel's {} rows and {} columns",
                    kernel.height, kernel.width
                ));
            };
            return Ok(Padding {
                top,
                bottom,
                left,
                right,
            });
        }
        b"VALID" => Padding::NONE,
        b"SAME_UPPER" => same(),
        b"SAME_LOWER" => same().mirrored(),
        other => {
            return Err(format!(
                "its auto_pad is \"{}\"; use NOTSET, VALID, SAME_UPPER or SAME_LOWER",
                printable(&String::from_utf8_lossy(other))
            ));
        }
    };
    if pads.iter().any(|&pad| pad != 0) {
        return Err(format!(
            "it has an auto_pad and pads of {pads:?}; leave one out"
        ));
    }
    Ok(padding)
}

/// Biases of so many outputs.
fn row_of(biases: Option<&Constant>, outputs: usize) -> Result<Vec<f64>, Reason> {
    let Some(biases) = biases else {
        return Ok(vec![0.0; outputs]);
    };
    match (biases.values.len(), biases.values.first()) {
        (1, Some(&bias)) => Ok(vec![bias; outputs]),
        (count, _) if count == outputs => Ok(biases.values.clone()),
        (count, _) => Err(format!("it has {count} biases for {outputs} outputs")),
    }
}

fn scaled(value: &Value, factor: f64) -> Result<Value, Reason> {
    Ok(match value {
        Value::Constant(constant) => Value::Constant(constant.map(|x| factor * x)),
        Value::Data(data) => Value::Data(Data {
            polynomial: product(&data.polynomial, &[factor])?,
            ..data.clone()
        }),
    })
}

fn power(value: &Value, exponent: &Value) -> Result<Value, Reason> {
    let (Value::Data(data), Value::Constant(exponent)) = (value, exponent) else {
        return Err("it must raise the data to a constant power".into());
    };
    let whole = (1..=MAX_DEGREE).find(|&n| exponent.scalar() == Some(n as f64));
    let Some(whole) = whole else {
        return Err(format!(
            "its exponent is no whole number from 1 to {MAX_DEGREE}"
        ));
    };
    let mut polynomial = vec![1.0];
    for _ in 0..whole {
        polynomial = product(&polynomial, &data.polynomial)?;
    }
    Ok(Value::Data(Data {
        polynomial,
        ..data.clone()
    }))
}

fn transpose(constant: &Constant) -> Result<Constant, Reason> {
    let &[rows, columns] = &constant.dims[..] else {
        return Err(format!(
            "its weights have the shape {:?}; they must be a matrix",
            constant.dims
        ));
    };
    let at = |i: usize| constant.values[i % rows * columns + i / rows];
    Ok(Constant {
        dims: vec![columns, rows],
        values: (0..rows * columns).map(at).collect(),
    })
}

/// Only what leaves the batch alone: the values keep their order.
fn reshape(value: &Value, shape: &Value) -> Result<Value, Reason> {
    let Value::Constant(shape) = shape else {
        return Err("its shape must be constant; use Flatten".into());
    };
    match value {
        Value::Constant(constant) => {
            let dims: Vec<usize> = shape.values.iter().map(|&d| d.max(0.0) as usize).collect();
            let count = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
            if count != Some(constant.values.len()) {
                return Err(format!("a constant does not take the shape {dims:?}"));
            }
            Ok(Value::Constant(Constant {
                dims,
                values: constant.values.clone(),
            }))
        }
        Value::Data(data) => {
            let count: usize = data.dims.iter().product();
            let refused = || {
                format!(
                    "it does not leave the batch alone, or {count} values do not take the shape {:?}",
                    shape.values
                )
            };
            let Some((&batch, rest)) = shape.values.split_first() else {
                return Err(refused());
            };
            let known: f64 = rest.iter().filter(|&&d| d > 0.0).product();
            let dims: Vec<usize> = rest
                .iter()
                .map(|&d| {
                    let dim = if d == -1.0 { count as f64 / known } else { d };
                    dim.max(0.0) as usize
                })
                .collect();
            let product = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
            // A batch of 0 is the input's, one of -1 what is left, or one of 1.
            let free = rest.iter().filter(|&&d| d == -1.0).count() + usize::from(batch == -1.0);
            let sound = [-1.0, 0.0, 1.0].contains(&batch) && free <= 1;
            if product != Some(count) || !sound {
                return Err(refused());
            }
            Ok(Value::Data(Data {
                dims,
                ..data.clone()
            }))
        }
    }
}
