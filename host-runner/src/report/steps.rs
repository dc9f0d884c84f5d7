//! The steps of a plan, by name.

use he_core::Params;
use he_nn::model::{Layer, LayerView};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{Form, LinearMap, Payload, Plan, Step, Target};
use serde::Serialize;

use crate::engine::{EngineError, ciphertext_bytes};

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepInfo {
    /// What it does.
    pub name: String,
    /// How, in words; empty for an activation.
    pub form: String,
    /// Level of what it takes.
    pub level: usize,
    /// log2 of the scale of its results.
    pub scale_log2: f64,
    /// Products with weights, or of ciphertexts.
    pub products: usize,
    /// Bytes of the ciphertexts that it leaves, on the wire.
    pub bytes: usize,
    /// Six standard deviations of the error of its results, of samples like those of training.
    pub error_six_sigma: f64,
    /// What it costs: instructions on a board, passes over a limb on a host.
    pub cost: usize,
    /// Bytes of inputs, keys and encrypted weights that a board is sent for it, with the first
    /// image; 0 on a host, which has all before it begins.
    pub bytes_up: usize,
}

/// The steps of a plan of one sample.
///
/// # Errors
/// [`EngineError::Operation`] where the set has no such level.
pub fn of_plan(plan: &Plan<'_>) -> Result<Vec<StepInfo>, EngineError> {
    let params = plan.params();
    let of = |(index, step): (usize, &Step<'_>)| {
        let payload = match plan.target() {
            Target::Stream { .. } => plan.step_payload(index),
            Target::Host => Payload::default(),
        };
        let (form, scale, products) = match step {
            Step::Linear { form, scales, .. } => (
                form_name(*form),
                scales.output,
                form.products(params.slots()),
            ),
            Step::Square { output, .. } => (String::new(), *output, 1),
            Step::Polynomial { output, .. } => {
                let outcome = step.polynomial_outcome(params);
                let products = outcome.map_or(0, |outcome| outcome.products as usize);
                (String::new(), *output, products)
            }
        };
        Ok(StepInfo {
            name: step_name(step),
            form,
            level: step.level(),
            scale_log2: scale.log2(),
            products,
            bytes: ciphertext_bytes(params, step.output_level())?,
            error_six_sigma: plan.step_error(index),
            cost: plan.step_cost(index),
            bytes_up: payload.inputs + payload.factors + payload.keys,
        })
    };
    plan.steps().iter().enumerate().map(of).collect()
}

/// The steps of a plan of batches.
///
/// # Errors
/// As [`of_plan`].
pub fn of_batch(plan: &BatchPlan<'_>) -> Result<Vec<StepInfo>, EngineError> {
    let params: &Params = plan.params();
    let layers = plan.model().layers().zip(plan.steps());
    let of = |(view, step): (LayerView<'_>, &he_nn::plan::batch::BatchStep)| {
        Ok(StepInfo {
            name: layer_name(&view),
            form: String::new(),
            level: step.level,
            scale_log2: step.output.log2(),
            products: match view.layer.linear() {
                Some(_) => view.layer.fan_in(view.input) * view.output.values(),
                None => view.output.values(),
            },
            bytes: view.output.values() * ciphertext_bytes(params, step.level - step.rescales)?,
            error_six_sigma: step.error,
            cost: plan.layer_passes(&view, step),
            bytes_up: 0,
        })
    };
    layers.map(of).collect()
}

/// A name for a step.
#[must_use]
pub fn step_name(step: &Step<'_>) -> String {
    match step {
        Step::Linear { map, .. } => map_name(map),
        Step::Square { layer, .. } => format!("square {layer}"),
        Step::Polynomial {
            layer,
            coefficients,
            ..
        } => polynomial_name(*layer, coefficients.len()),
    }
}

fn map_name(map: &LinearMap<'_>) -> String {
    let (first, last) = map.layers();
    let (inputs, outputs) = (map.inputs(), map.outputs());
    if first == last {
        format!("layer {first}: {inputs}-{outputs}")
    } else {
        format!("layers {first} to {last}: {inputs}-{outputs}")
    }
}

fn polynomial_name(layer: usize, coefficients: usize) -> String {
    let degree = coefficients.saturating_sub(1);
    format!("polynomial {layer}: degree {degree}")
}

fn layer_name(view: &LayerView<'_>) -> String {
    match view.layer {
        Layer::Polynomial { coefficients, .. } if view.layer.is_polynomial() => {
            polynomial_name(view.index, coefficients.len())
        }
        _ if view.layer.linear().is_none() => format!("square {}", view.index),
        _ => {
            let (inputs, outputs) = (view.input.values(), view.output.values());
            format!("layer {}: {inputs}-{outputs}", view.index)
        }
    }
}

fn form_name(form: Form) -> String {
    match form {
        Form::Blocks { lanes, .. } => format!("blocks of {lanes} lanes"),
        Form::Diagonals { baby, copies, .. } => {
            let counted = |count: usize, what: &str| {
                format!("{count} {what}{}", if count == 1 { "" } else { "s" })
            };
            let copied = if copies > 1 {
                format!(" in each of {copies} copies")
            } else {
                String::new()
            };
            format!(
                "{}{copied}, {}, {}",
                counted(form.diagonals(), "diagonal"),
                counted(baby, "baby step"),
                counted(form.giants(), "giant step")
            )
        }
        Form::Rows { period, summed } => match summed {
            true => format!("rows of {period}"),
            false => format!("rows of {period} lanes, which the client adds up"),
        },
    }
}
