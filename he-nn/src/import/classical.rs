//! Operators of the domain `ai.onnx.ml`: what skl2onnx makes of scikit-learn's models.

use super::Reason;
use super::graph::{Data, Operator, Stages, Value};
use super::tensor::{Constant, constant};

impl Stages {
    /// What a node gives, which may be labels and scores.
    pub(super) fn classical(&mut self, op: &Operator<'_>) -> Result<Vec<Value>, Reason> {
        Ok(match op.node.op_type.as_str() {
            "Scaler" => vec![self.scaler(op)?],
            "LinearClassifier" => self.linear_classifier(op)?,
            // Labels, or probabilities under their names.
            "ZipMap" | "LabelEncoder" => {
                ascending_labels(op)?;
                vec![decided(op.input(0)?)?]
            }
            "ArrayFeatureExtractor" => match (op.input(0)?, op.input(1)?) {
                (Value::Constant(classes), decision @ Value::Decision(_)) => {
                    ascending("classes", &classes.values)?;
                    vec![decision.clone()]
                }
                (decision @ Value::Decision(_), _) | (_, decision @ Value::Decision(_)) => {
                    vec![decision.clone()]
                }
                _ => return Err("it chooses features by index; choose columns in the data".into()),
            },
            "Normalizer" => match op.input(0)? {
                Value::Decision(data) => vec![Value::Decision(data.clone())],
                _ => {
                    return Err(
                        "it divides every sample by its own norm, which is no polynomial; use StandardScaler or MinMaxScaler"
                            .into(),
                    );
                }
            },
            // Of data without missing values, which is all that is read.
            "Imputer" if op.number("replaced_value_float", f32::NAN).is_nan() => {
                vec![op.input(0)?.clone()]
            }
            "TreeEnsembleClassifier" | "TreeEnsembleRegressor" | "TreeEnsemble" => {
                return Err(
                    "decision trees compare values, which no polynomial does; train LogisticRegression, or MLPClassifier with activation \"identity\""
                        .into(),
                );
            }
            "SVMClassifier" | "SVMRegressor" => {
                return Err(
                    "it evaluates a kernel at every support vector; train LinearSVC, whose weights are one layer"
                        .into(),
                );
            }
            _ => {
                return Err(
                    "of scikit-learn's models linear ones, MLPClassifier, StandardScaler, MinMaxScaler and PCA can be imported; train one of these"
                        .into(),
                );
            }
        })
    }

    fn scaler(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let data = op.data(0)?.clone();
        let row = |name: &str| {
            let floats = op.attribute(name).map_or(&[][..], |a| &a.floats);
            Constant::row(floats.iter().map(|&x| f64::from(x)).collect())
        };
        let offset = self.per_value(&data, &row("offset"), |x| (1.0, -x))?;
        match offset {
            Value::Data(data) => self.per_value(&data, &row("scale"), |x| (x, 0.0)),
            other => Ok(other),
        }
    }

    fn linear_classifier(&mut self, op: &Operator<'_>) -> Result<Vec<Value>, Reason> {
        ascending_labels(op)?;
        let data = op.data(0)?.clone();
        let numbers = |name: &str| -> Vec<f64> {
            let floats = op.attribute(name).map_or(&[][..], |a| &a.floats);
            floats.iter().map(|&x| f64::from(x)).collect()
        };
        let (weights, biases) = (numbers("coefficients"), numbers("intercepts"));
        let features = data.dims.iter().product::<usize>().max(1);
        let rows = weights.len() / features;
        let labels = |name: &str| {
            op.attribute(name)
                .map_or(0, |a| a.ints.len() + a.strings.len())
        };
        let classes = labels("classlabels_ints") + labels("classlabels_strings");
        let sound = rows * features == weights.len()
            && (biases.is_empty() || biases.len() == rows)
            && (rows == classes || (rows, classes) == (1, 2))
            && rows > 0;
        if !sound {
            return Err(format!(
                "it has {} coefficients and {} intercepts for {classes} classes of {features} features; export the model again",
                weights.len(),
                biases.len()
            ));
        }
        let biases = if biases.is_empty() {
            vec![0.0; rows]
        } else {
            biases
        };
        // Two logits that are each other's negative are one.
        let mirrored = |values: &[f64]| {
            let (first, second) = values.split_at(values.len() / 2);
            first.iter().zip(second).all(|(a, b)| *a == -*b)
        };
        let one = rows == 2 && mirrored(&weights) && mirrored(&biases);
        let skipped = usize::from(one);
        let weights = Constant {
            dims: vec![rows - skipped, features],
            values: weights[skipped * features..].to_vec(),
        };
        let logits = self.dense(
            &data,
            &weights,
            Some(&Constant::row(biases[skipped..].to_vec())),
        )?;
        let plain = matches!(op.text("post_transform"), b"" | b"NONE") && logits.dims == [classes];
        let scores = match plain {
            true => Value::Data(logits.clone()),
            false => Value::Decision(logits.clone()),
        };
        Ok(vec![Value::Decision(logits), scores])
    }
}

/// Attributes that list labels in the order of the classes.
const LABELS: [&str; 12] = [
    "classlabels_ints",
    "classlabels_int64s",
    "classlabels_strings",
    "classes_strings",
    "keys_int64s",
    "keys_floats",
    "keys_strings",
    "keys_tensor",
    "values_int64s",
    "values_floats",
    "values_strings",
    "values_tensor",
];

/// Refuses labels in another order than that in which the classes of data are numbered.
fn ascending_labels(op: &Operator<'_>) -> Result<(), Reason> {
    for name in LABELS {
        let Some(attribute) = op.attribute(name) else {
            continue;
        };
        if let Some(tensor) = &attribute.t {
            ascending(name, &constant(tensor)?.values)?;
        }
        ascending(name, &attribute.ints)?;
        ascending(name, &attribute.floats)?;
        ascending(name, &attribute.strings)?;
        // Data whose labels are all numbers has them by size.
        let text = attribute
            .strings
            .iter()
            .map(|s| std::str::from_utf8(s).ok());
        let numbers = text.map(|text| text?.parse::<f64>().ok());
        if let Some(numbers) = numbers.collect::<Option<Vec<f64>>>() {
            ascending(name, &numbers)?;
        }
    }
    Ok(())
}

fn ascending<T: PartialOrd>(name: &str, labels: &[T]) -> Result<(), Reason> {
    match labels.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(()),
        false => Err(format!(
            "its {name} are not in ascending order, in which the classes of the data are numbered; export the model with its classes sorted"
        )),
    }
}

/// What is only a form of labels and probabilities.
fn decided(value: &Value) -> Result<Value, Reason> {
    let decision = |data: &Data| Ok(Value::Decision(data.clone()));
    match value {
        Value::Decision(data) | Value::TwoOfOne(data) | Value::Data(data) => decision(data),
        Value::Constant(_) | Value::Unusable(_) => Err("it must follow the logits".into()),
    }
}
