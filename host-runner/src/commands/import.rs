//! `he-edge import`: a model from another program.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use he_nn::model::{MAX_DEGREE, MAX_NAME_BYTES};

use super::{Failure, output};
use he_nn::data::Choice;
use he_nn::import::fit::{Degree, Replaced};
use he_nn::import::{self, InputKind, Wanted};
use he_nn::network::{Granularity, Quantization, WEIGHT_BITS};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The ONNX file.
    pub file: PathBuf,
    /// The data that ranges are measured on, which the network was trained on: a directory,
    /// tar or file, as `infer --data` takes it.
    #[arg(long)]
    pub data: PathBuf,
    /// Column of a table that holds the labels, by its name or its number from 1; one that
    /// is called so, or the last one, if left out.
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// Replace activations that are no polynomials (ReLU, SiLU, GELU, tanh, sigmoid and
    /// others) by polynomials fitted on the data, the largest of a pool by the average,
    /// and say what accuracy each costs.
    #[arg(long)]
    pub fit_activations: bool,
    /// Degree of these polynomials, from 2 to 15; `auto` takes the lowest of 2, 3 and 7 (one,
    /// two and three levels) that keeps the accuracy.
    #[arg(long, value_name = "D|auto", requires = "fit_activations", default_value = "auto", value_parser = degree)]
    pub degree: Degree,
    /// Bits of a weight, from 2 to 16; 16 stand for float weights, as their rounding is of the
    /// size of the error that a weight is encoded with.
    #[arg(long, default_value_t = Quantization::USUAL.bits(), value_parser = clap::value_parser!(u8).range(i64::from(*WEIGHT_BITS.start())..=i64::from(*WEIGHT_BITS.end())))]
    pub bits: u8,
    /// What has a scale of its own: all weights of a layer, or those of each output or output
    /// channel.
    #[arg(long, value_enum, default_value = "tensor")]
    pub per: Per,
    /// Where to write the `.hemodel` file.
    #[arg(long)]
    pub out: PathBuf,
    /// Name of the model; the file's if left out.
    #[arg(long)]
    pub name: Option<String>,
    /// What the network takes: pixels from 0 to 1, or features as they are in
    /// the data; what the data holds, if left out. A normalisation in the file goes into
    /// the weights; features are standardised by the data's means and deviations, and the
    /// weights undo it.
    #[arg(long, value_enum)]
    pub input: Option<InputName>,
}

/// [`InputKind`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum InputName {
    /// Pixels from 0 to 1.
    Pixels,
    /// Features, as they are in the data.
    Features,
}

impl From<InputName> for InputKind {
    fn from(name: InputName) -> Self {
        match name {
            InputName::Pixels => Self::Pixels,
            InputName::Features => Self::Features,
        }
    }
}

/// [`Granularity`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Per {
    /// All weights of a layer together.
    Tensor,
    /// Those of each output, or output channel.
    Channel,
}

impl From<Per> for Granularity {
    fn from(per: Per) -> Self {
        match per {
            Per::Tensor => Self::Tensor,
            Per::Channel => Self::Channel,
        }
    }
}

fn degree(text: &str) -> Result<Degree, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Degree::Auto),
        (_, Ok(degree @ 2..=MAX_DEGREE)) => Ok(Degree::Fixed(degree)),
        _ => Err(format!(
            "a degree is a number from 2 to {MAX_DEGREE}, or auto"
        )),
    }
}

/// What was replaced, for people.
fn replacements(replaced: &Replaced) -> String {
    let mut text = format!(
        "{:.2} % right before activations were replaced, weights not rounded\n",
        100.0 * replaced.accuracy
    );
    for note in &replaced.notes {
        text.push_str(&format!("{note}\n"));
    }
    for activation in &replaced.activations {
        text.push_str(&format!(
            "{} of node {}: degree {} from {:.2} to {:.2}, off by {:.3} (root of mean square); {:.2} % right{}\n",
            activation.operator,
            activation.node,
            activation.coefficients.len() - 1,
            activation.range[0],
            activation.range[1],
            activation.error,
            100.0 * activation.accuracy,
            match activation.distilled {
                true => ", the layer behind it distilled from the original",
                false => "",
            }
        ));
    }
    text
}

/// Runs `import`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &ImportArguments) -> Result<(), Failure> {
    let name = arguments.name.clone().unwrap_or_else(|| {
        let stem = arguments.file.file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy();
        // As much of it as a name may have, at a boundary of characters.
        stem[..stem.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
    });
    let choice = Choice {
        label: arguments.label.clone(),
    };
    output::check(Some(&arguments.out))?;
    let kind = arguments.input.map(Into::into);
    let degree = arguments.fit_activations.then_some(arguments.degree);
    let quantization = Quantization::new(arguments.bits, arguments.per.into());
    let quantization = quantization.ok_or(Failure::Unplanned {
        what: "weights of so few or so many bits",
        instead: "--bits from 2 to 16",
    })?;
    let wanted = Wanted {
        kind,
        degree,
        quantization,
    };
    let imported = import::import(&arguments.file, &name, &arguments.data, &choice, wanted)?;
    let measured = &imported.calibrated;
    output::write_bytes(&arguments.out, &measured.file)?;
    let mut text = imported
        .replaced
        .as_ref()
        .map_or_else(String::new, replacements);
    text.push_str(&format!(
        "{:.2} % right on {} test samples ({:.2} % on {} training samples), weights of {quantization}\n",
        100.0 * measured.test.accuracy(),
        measured.test.samples,
        100.0 * measured.train.accuracy(),
        measured.train.samples
    ));
    text.push_str(&format!("the data holds {}", imported.form));
    match &imported.classes[..] {
        [] => text.push('\n'),
        classes => {
            let shown: Vec<&str> = classes.iter().take(20).map(String::as_str).collect();
            let more = if classes.len() > 20 { ", .." } else { "" };
            text.push_str(&format!(" of the classes {}{more}\n", shown.join(", ")));
        }
    }
    for (layer, range) in (1..).zip(&measured.train.ranges) {
        text.push_str(&format!(
            "largest result of layer {layer}: {range:.2} in training\n"
        ));
    }
    output::print(&text)
}
