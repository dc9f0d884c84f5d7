//! `he-edge encrypt`: samples into a request.

use std::path::PathBuf;

use clap::Args;
use he_nn::plan::Packing;

use super::output::{self, Bar};
use super::{
    DataArguments, Failure, KeyArguments, ModelFile, SplitName, check_outputs, chosen, packings,
};
use crate::files::{self, Planned};
use crate::report::text::{bytes, facts};

/// Arguments of `encrypt`.
#[derive(Debug, Args)]
pub struct EncryptArguments {
    /// The sealed key.
    #[command(flatten)]
    pub key: KeyArguments,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// Where the samples are.
    #[command(flatten)]
    pub data: DataArguments,
    /// Which half of the data.
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitName,
    /// How many samples.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// First sample.
    #[arg(long, default_value_t = 0)]
    pub offset: usize,
    /// How values are laid out.
    #[arg(long, default_value = "latency", value_parser = packings())]
    pub packing: Packing,
    /// Write the request to this file, for the evaluator.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write what was made as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `encrypt`.
///
/// # Errors
/// [`Failure`]; [`Failure::Refused`] where samples were left out.
pub fn run(arguments: &EncryptArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let mut inputs = vec![file.path()];
    inputs.extend(arguments.key.files());
    inputs.push(arguments.data.data.as_deref());
    let data = arguments.data.data.as_deref().map(std::fs::read_dir);
    let data: Vec<PathBuf> = data
        .and_then(Result::ok)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    inputs.extend(data.iter().map(|path| Some(&**path)));
    let outputs = [Some(&*arguments.out), arguments.json.as_deref()];
    check_outputs(&outputs, &inputs)?;
    let model = file.parse()?;
    let samples = arguments.data.samples(&model, arguments.split.into())?;
    let all = samples.all();
    let offset = arguments.offset;
    let chosen = chosen(&all, offset, arguments.count)?;
    let numbered = (offset..).zip(chosen);
    let numbered: Vec<_> = numbered.map(|(i, &(sample, y))| (i, sample, y)).collect();
    let key = arguments.key.open()?;
    let planned =
        Planned::new(Some(key.params()), model, arguments.packing).map_err(file.failed())?;
    let mut bar = Bar::default();
    let made = files::encrypt(&key, &planned, &numbered, &arguments.out, &mut bar)?;
    output::present(arguments.json.as_deref(), &made, || {
        let mut text = facts(&[
            ("request", made.request.clone()),
            ("samples", made.samples.len().to_string()),
            (
                "for the evaluator",
                format!("{} ({})", made.file.display(), bytes(made.bytes)),
            ),
        ]);
        for sample in &made.refused {
            text.push_str(&format!(
                "sample {} was refused: {}\n",
                sample.index, sample.refused
            ));
        }
        text
    })?;
    match made.refused.len() {
        0 => Ok(()),
        count => Err(Failure::Refused {
            count,
            of: numbered.len(),
        }),
    }
}
