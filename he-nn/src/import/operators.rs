//! The list of operators, and those on single values.

use super::Reason;
use super::function::{Curve, Function};
use super::graph::{Data, Operator, Stages, Value, node_name, printable};
use super::schema::{DOUBLE, FLOAT};
use super::tensor::{Constant, constant};
use crate::model::MAX_DEGREE;

/// Half precision, among the types to cast to.
const FLOAT16: i64 = 10;

impl Stages {
    /// What a node gives.
    pub(super) fn node(&mut self, op: &Operator<'_>) -> Result<Vec<Value>, Reason> {
        match op.node.domain.as_str() {
            "" | "ai.onnx" => self.standard(op).map(|value| vec![value]),
            "ai.onnx.ml" => self.classical(op),
            other => Err(format!(
                "it is of the domain {}; export with the operators of ONNX alone",
                printable(other)
            )),
        }
    }

    fn standard(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let name = op.node.op_type.as_str();
        if let Some(curve) = curve(op)? {
            return self.curved(op, curve);
        }
        Ok(match name {
            "Constant" => Value::Constant(constant_node(op)?),
            // Nothing is dropped where nothing is trained.
            "Identity" | "Dropout" => op.input(0)?.clone(),
            "Cast" => return cast(op),
            "Neg" => scaled(op.input(0)?, -1.0)?,
            "Sqrt" => Value::Constant(op.needed(0)?.map(f64::sqrt)),
            "Reciprocal" => Value::Constant(op.needed(0)?.map(|x| 1.0 / x)),
            "Add" => self.add(op.input(0)?, op.input(1)?)?,
            "Sum" => {
                let mut sum = op.input(0)?.clone();
                for index in 1..op.node.input.len() {
                    sum = self.add(&sum, op.input(index)?)?;
                }
                sum
            }
            "Sub" => {
                let negative = scaled(op.input(1)?, -1.0)?;
                self.add(op.input(0)?, &negative)?
            }
            "Mul" => self.multiply(op.input(0)?, op.input(1)?)?,
            "Div" => match op.input(1)? {
                Value::Constant(divisor) if divisor.values.iter().all(|&x| x != 0.0) => {
                    let inverse = Value::Constant(divisor.map(|x| 1.0 / x));
                    self.multiply(op.input(0)?, &inverse)?
                }
                _ => return Err("its divisor must be a constant and not zero".into()),
            },
            "Pow" => power(op.input(0)?, op.input(1)?)?,
            "Softmax" | "LogSoftmax" | "Hardmax" => Value::Decision(op.data(0)?.clone()),
            "ArgMax" => self.largest(op)?,
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Concat" | "Slice"
            | "Gather" | "Shape" | "Pad" => return self.laid_out(op),
            "Gemm" | "MatMul" | "Conv" | "AveragePool" | "GlobalAveragePool" | "MaxPool"
            | "GlobalMaxPool" | "BatchNormalization" | "ReduceMean" | "ReduceSum" => {
                return self.mapped(op).map(Value::Data);
            }
            _ => return Err(nearest(name).into()),
        })
    }

    /// The class: what is largest of logits, of functions that grow of them, or of two
    /// functions of one value, which [`of_one_logit`] accepted.
    fn largest(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        match op.input(0)? {
            Value::Decision(data) => Ok(Value::Decision(data.clone())),
            Value::Data(data) if data.dims.len() == 1 && data.dims[0] > 1 => {
                Ok(Value::Decision(data.clone()))
            }
            Value::TwoOfOne(data) => Ok(Value::Decision(data.clone())),
            _ => Err("it must take the largest of the logits, in the end".into()),
        }
    }

    pub(super) fn add(&mut self, a: &Value, b: &Value) -> Result<Value, Reason> {
        Ok(match (a, b) {
            (Value::Constant(a), Value::Constant(b)) => Value::Constant(a.with(b, |a, b| a + b)?),
            (Value::Data(a), Value::Data(b)) if a.alike(b) => {
                Value::Data(a.with(a.function.plus(&b.function)?))
            }
            (Value::Data(a), Value::Data(b)) if a.dims == b.dims => {
                let (a, b) = self.joined(a, b)?;
                self.spend(0, a.map.terms() + b.map.terms())?;
                let sum = a.map.sum(&b.map);
                Value::Data(self.made(a.base, sum, a.dims)?)
            }
            (Value::Data(a), Value::Data(b)) => {
                return Err(format!(
                    "it adds data of the shapes {:?} and {:?} behind the batch; they must be the same",
                    a.dims, b.dims
                ));
            }
            (Value::Data(data), Value::Constant(constant))
            | (Value::Constant(constant), Value::Data(data)) => match constant.scalar() {
                Some(number) if constant.spread(&data.dims).is_ok() => {
                    let summand = Function::Polynomial(vec![number]);
                    Value::Data(data.with(data.function.plus(&summand)?))
                }
                _ => self.per_value(data, constant, |number| (1.0, number))?,
            },
            _ => return Err(AFTER_THE_END.into()),
        })
    }

    pub(super) fn multiply(&mut self, a: &Value, b: &Value) -> Result<Value, Reason> {
        Ok(match (a, b) {
            (Value::Constant(a), Value::Constant(b)) => Value::Constant(a.with(b, |a, b| a * b)?),
            (Value::Data(a), Value::Data(b)) if a.alike(b) => {
                Value::Data(a.with(a.function.times(&b.function)?))
            }
            (Value::Data(_), Value::Data(_)) => {
                return Err(
                    "it multiplies results of two different layers; only powers of one, and sums and multiples of them, are activations"
                        .into(),
                );
            }
            (data @ Value::Data(of), Value::Constant(constant))
            | (Value::Constant(constant), data @ Value::Data(of)) => match constant.scalar() {
                Some(number) if constant.spread(&of.dims).is_ok() => scaled(data, number)?,
                _ => self.per_value(of, constant, |number| (number, 0.0))?,
            },
            _ => return Err(AFTER_THE_END.into()),
        })
    }

    fn curved(&mut self, op: &Operator<'_>, curve: Curve) -> Result<Value, Reason> {
        match op.input(0)? {
            // Of what was decided already: probabilities of logits, say.
            Value::Decision(data) => Ok(Value::Decision(data.clone())),
            Value::Constant(constant) => {
                let function = Function::identity().curved(curve, "", "")?;
                Ok(Value::Constant(constant.map(|x| function.at(x))))
            }
            _ => {
                // A single value may be the logit, whose sign then tells the class: what
                // is added to it belongs to it.
                let data = match op.data(0)? {
                    data if data.map.outputs() == 1 => self.linear(data)?,
                    data => data.clone(),
                };
                let name = printable(node_name(op.node));
                let function = data.function.curved(curve, &op.node.op_type, &name)?;
                Ok(Value::Data(data.with(function)))
            }
        }
    }

    /// A factor and a summand for every value.
    pub(super) fn per_value(
        &mut self,
        data: &Data,
        constant: &Constant,
        of: impl Fn(f64) -> (f64, f64),
    ) -> Result<Value, Reason> {
        let numbers = constant.spread(&data.dims)?;
        let data = self.linear(data)?;
        let map = data.map.scaled(|row| of(numbers[row]));
        self.made(data.base, map, data.dims).map(Value::Data)
    }
}

/// Functions of one value that stand for two classes: the second is the larger exactly
/// where the value is positive, as a network here reads a single logit.
pub(super) fn of_one_logit(data: &Data, functions: &[Function]) -> Result<Value, Reason> {
    let second = |x: f64| match functions {
        [first, second] => Some(second.at(x) > first.at(x)),
        _ => None,
    };
    let fits = [1.0 / 64.0, 0.25, 1.0, 4.0]
        .iter()
        .all(|&x| second(x) == Some(true) && second(-x) == Some(false));
    match fits {
        true => Ok(Value::TwoOfOne(data.with(Function::identity()))),
        false => Err(
            "it joins functions of one value whose sign does not tell the class: of two, the second must be the larger where the value is positive; export the logits"
                .into(),
        ),
    }
}

const AFTER_THE_END: &str = "it follows labels or probabilities, which are no part of a network here; export it up to the logits";

/// The activation that an operator is, if it is one that is no polynomial.
fn curve(op: &Operator<'_>) -> Result<Option<Curve>, Reason> {
    Ok(Some(match op.node.op_type.as_str() {
        "Relu" => Curve::Relu,
        "LeakyRelu" => Curve::LeakyRelu(op.number("alpha", 0.01)),
        "PRelu" => match op.needed(1)?.scalar() {
            Some(slope) => Curve::LeakyRelu(slope),
            None => {
                return Err(
                    "it has a slope per channel; use one slope for the layer, or Relu".into(),
                );
            }
        },
        "Elu" => Curve::Elu(op.number("alpha", 1.0)),
        "Sigmoid" => Curve::Sigmoid,
        "HardSigmoid" => Curve::HardSigmoid(op.number("alpha", 0.2), op.number("beta", 0.5)),
        "Tanh" => Curve::Tanh,
        "Erf" => Curve::Erf,
        "Exp" => Curve::Exp,
        "Softplus" => Curve::Softplus,
        "Softsign" => Curve::Softsign,
        "Abs" => Curve::Abs,
        "Gelu" if op.text("approximate") == b"tanh" => Curve::GeluByTanh,
        "Gelu" => Curve::Gelu,
        "Clip" => {
            let bound = |name, index, default: f64| match (op.attribute(name), op.constant(index)?)
            {
                (Some(attribute), _) => Ok(f64::from(attribute.f)),
                (None, Some(bound)) => bound
                    .scalar()
                    .ok_or_else(|| Reason::from("its bounds must be one number each")),
                (None, None) => Ok(default),
            };
            let (low, high) = (
                bound("min", 1, f64::NEG_INFINITY)?,
                bound("max", 2, f64::INFINITY)?,
            );
            Curve::Clip(low, high)
        }
        _ => return Ok(None),
    }))
}

fn constant_node(op: &Operator<'_>) -> Result<Constant, Reason> {
    if let Some(tensor) = op.attribute("value").and_then(|a| a.t.as_ref()) {
        return constant(tensor);
    }
    if let Some(attribute) = op.attribute("value_float") {
        return Ok(Constant::single(f64::from(attribute.f)));
    }
    if let Some(attribute) = op.attribute("value_int") {
        return Ok(Constant::single(attribute.i as f64));
    }
    if let Some(attribute) = op.attribute("value_ints") {
        return Ok(Constant::row(
            attribute.ints.iter().map(|&i| i as f64).collect(),
        ));
    }
    if let Some(attribute) = op.attribute("value_floats") {
        return Ok(Constant::row(
            attribute.floats.iter().map(|&x| f64::from(x)).collect(),
        ));
    }
    Err("its value is no tensor of numbers".into())
}

fn cast(op: &Operator<'_>) -> Result<Value, Reason> {
    let to = op.integer("to", i64::from(FLOAT));
    let floats = [i64::from(FLOAT), i64::from(DOUBLE), FLOAT16].contains(&to);
    match op.input(0)? {
        Value::Data(_) if !floats => Err(format!(
            "it rounds the data to the type {to}, which is no polynomial; leave it out"
        )),
        Value::Constant(constant) if !floats => Ok(Value::Constant(constant.map(f64::trunc))),
        value => Ok(value.clone()),
    }
}

fn scaled(value: &Value, factor: f64) -> Result<Value, Reason> {
    Ok(match value {
        Value::Constant(constant) => Value::Constant(constant.map(|x| factor * x)),
        Value::Data(data) => {
            let factor = Function::Polynomial(vec![factor]);
            Value::Data(data.with(data.function.times(&factor)?))
        }
        _ => return Err(AFTER_THE_END.into()),
    })
}

fn power(value: &Value, exponent: &Value) -> Result<Value, Reason> {
    if let (Value::Constant(base), Value::Constant(exponent)) = (value, exponent) {
        return Ok(Value::Constant(base.with(exponent, f64::powf)?));
    }
    let (Value::Data(data), Value::Constant(exponent)) = (value, exponent) else {
        return Err("it must raise the data to a constant power".into());
    };
    let whole = (1..=MAX_DEGREE).find(|&n| exponent.scalar() == Some(n as f64));
    let Some(whole) = whole else {
        return Err(format!(
            "its exponent is no whole number from 1 to {MAX_DEGREE}; use one"
        ));
    };
    let mut function = Function::Polynomial(vec![1.0]);
    for _ in 0..whole {
        function = function.times(&data.function)?;
    }
    Ok(Value::Data(data.with(function)))
}

/// Why an operator is not imported, and what comes nearest to it.
fn nearest(name: &str) -> &'static str {
    match name {
        "LSTM" | "GRU" | "RNN" | "Loop" | "Scan" => {
            "it is recurrent, and a network here is a sequence of layers; use dense layers over a window of fixed length"
        }
        "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "RMSNormalization"
        | "LpNormalization"
        | "LRN"
        | "MeanVarianceNormalization" => {
            "it divides by what it measures on each sample, which is no polynomial; train with BatchNormalization, which is linear once trained"
        }
        "Attention" | "MultiHeadAttention" | "Einsum" => {
            "it multiplies results of two different layers; use convolutions or dense layers"
        }
        "Mod" | "Floor" | "Ceil" | "Round" | "Sign" | "Greater" | "Less" | "Equal" | "Where"
        | "Max" | "Min" | "Not" | "And" | "Or" => {
            "it compares or rounds values, which no polynomial does; use a smooth activation and --fit-activations, or leave it out"
        }
        "ConvTranspose" | "Resize" | "Upsample" => {
            "it makes more places of fewer, which is not imported; use Conv or a dense layer"
        }
        "Embedding" | "OneHot" | "NonZero" | "TopK" | "Unique" => {
            "what it gives depends on values as indices; put it into the data, in front of the network"
        }
        _ => {
            "only sums, products by constants, convolutions, average pooling, normalisations by constants, changes of layout and activations can be imported; replace it by a polynomial, or leave it out where only the largest logit counts"
        }
    }
}
