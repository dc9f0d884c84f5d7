//! What a model promises: everything in it was checked here.

use super::error::{Dimension, FloatKind, ModelError, Place};
use super::layer::{FLOAT_BYTES, Floats, Input, Layer, Linear, Shape};
use super::{MAX_DEGREE, MAX_NAME_BYTES, MAX_VALUES};

/// Gives the name back as text.
pub(super) fn name(bytes: &[u8]) -> Result<&str, ModelError> {
    if !(1..=MAX_NAME_BYTES).contains(&bytes.len()) {
        return Err(ModelError::NameLength { got: bytes.len() });
    }
    core::str::from_utf8(bytes).map_err(|error| ModelError::NameNotUtf8 {
        valid: error.valid_up_to(),
    })
}

/// Checks an input and gives its shape.
pub(super) fn input(input: &Input<'_>) -> Result<Shape, ModelError> {
    let within = |dimension, got: usize| {
        if (1..=MAX_VALUES).contains(&got) {
            return Ok(());
        }
        Err(ModelError::Dimension {
            place: Place::Input,
            dimension,
            got,
            max: MAX_VALUES,
        })
    };
    match *input {
        Input::Image(shape) => {
            within(Dimension::Channels, usize::from(shape.channels))?;
            within(Dimension::Height, usize::from(shape.height))?;
            within(Dimension::Width, usize::from(shape.width))?;
            within(Dimension::Values, shape.values())?;
        }
        Input::Features { means, deviations } => {
            within(Dimension::Features, means.len())?;
            floats(Place::Input, FloatKind::Means, means, means.len())?;
            floats(Place::Input, FloatKind::Deviations, deviations, means.len())?;
            let mut indexed = deviations.iter().enumerate();
            if let Some((index, got)) = indexed.find(|(_, d)| *d <= 0.0) {
                return Err(ModelError::Deviation { index, got });
            }
        }
    }
    Ok(input.shape())
}

/// Checks a layer behind another one (`None` for the first), and gives the
/// shape of its results.
pub(super) fn layer(
    index: usize,
    layer: &Layer<'_>,
    input: Shape,
    behind_linear: bool,
    last: bool,
) -> Result<Shape, ModelError> {
    if layer.linear().is_none() && (!behind_linear || last) {
        return Err(ModelError::Order { layer: index });
    }
    let output = layer.output(index, input)?;
    if output.values() > MAX_VALUES {
        return Err(ModelError::Dimension {
            place: Place::Layer(index),
            dimension: Dimension::Values,
            got: output.values(),
            max: MAX_VALUES,
        });
    }
    if let Some(weights) = layer.linear() {
        let rows = usize::from(output.channels);
        linear(index, weights, rows, layer.fan_in(input))?;
    }
    if let Layer::Polynomial { coefficients, .. } = *layer {
        let degree = coefficients.len().saturating_sub(1);
        let leading_zero = coefficients.iter().next_back() == Some(0.0);
        if !(2..=MAX_DEGREE).contains(&degree) || leading_zero {
            return Err(ModelError::Degree {
                layer: index,
                got: degree,
                leading_zero,
            });
        }
        let kind = FloatKind::Coefficients;
        floats(Place::Layer(index), kind, coefficients, coefficients.len())?;
    }
    let range = layer.range();
    if !range.is_finite() || range.is_sign_negative() {
        return Err(ModelError::Range {
            layer: index,
            got: range,
        });
    }
    Ok(output)
}

fn linear(
    layer: usize,
    linear: &Linear<'_>,
    rows: usize,
    columns: usize,
) -> Result<(), ModelError> {
    let Linear {
        scale,
        multipliers,
        weights,
        biases,
    } = *linear;
    if !scale.is_finite() || scale <= 0.0 {
        return Err(ModelError::Scale { layer, got: scale });
    }
    if !multipliers.is_empty() && multipliers.len() != rows {
        return Err(ModelError::MultiplierCount {
            layer,
            expected: rows,
            got: multipliers.len(),
        });
    }
    if let Some(index) = multipliers.iter().position(|&factor| factor == 0) {
        return Err(ModelError::Multiplier { layer, index });
    }
    let expected = rows.saturating_mul(columns).saturating_mul(weights.width());
    let got = weights.bytes().len();
    if got != expected {
        return Err(ModelError::WeightBytes {
            layer,
            expected,
            got,
        });
    }
    let max = weights.max();
    let larger = |w: &i16| w.unsigned_abs() > max.unsigned_abs();
    let mut indexed = weights.iter().enumerate();
    if let Some((index, got)) = indexed.find(|(_, w)| larger(w)) {
        return Err(ModelError::Weight {
            layer,
            index,
            got,
            max,
        });
    }
    floats(Place::Layer(layer), FloatKind::Biases, biases, rows)
}

fn floats(
    place: Place,
    kind: FloatKind,
    floats: Floats<'_>,
    count: usize,
) -> Result<(), ModelError> {
    let expected = count.saturating_mul(FLOAT_BYTES);
    let got = floats.bytes().len();
    if got != expected {
        return Err(ModelError::FloatBytes {
            place,
            kind,
            expected,
            got,
        });
    }
    match floats.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(ModelError::NotFinite { place, kind, index }),
        None => Ok(()),
    }
}
