//! `he-edge import`: a model from another program.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use he_nn::model::MAX_NAME_BYTES;

use super::{Failure, output};
use he_nn::import::{self, InputKind};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The ONNX file.
    pub file: PathBuf,
    /// Directory of the data that ranges are measured on: the IDX files that
    /// the network was trained on, or for features the Pima table.
    #[arg(long)]
    pub data: PathBuf,
    /// Where to write the `.hemodel` file.
    #[arg(long)]
    pub out: PathBuf,
    /// Name of the model; the file's if left out.
    #[arg(long)]
    pub name: Option<String>,
    /// What the network takes: pixels from 0 to 1, or features as they are in
    /// the data. A normalisation in the file goes into the weights; features are
    /// standardised by the data's means and deviations, and the weights undo it.
    #[arg(long, value_enum, default_value = "pixels")]
    pub input: InputName,
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
    let kind = arguments.input.into();
    output::check(Some(&arguments.out))?;
    let imported = import::import(&arguments.file, &name, kind, &arguments.data)?;
    output::write_bytes(&arguments.out, &imported.file)?;
    let mut text = format!(
        "{:.2} % right on {} test samples ({:.2} % on {} training samples), 8-bit weights\n",
        100.0 * imported.test.accuracy(),
        imported.test.samples,
        100.0 * imported.train.accuracy(),
        imported.train.samples
    );
    for (layer, range) in (1..).zip(&imported.train.ranges) {
        text.push_str(&format!(
            "largest result of layer {layer}: {range:.2} in training\n"
        ));
    }
    output::print(&text)
}
