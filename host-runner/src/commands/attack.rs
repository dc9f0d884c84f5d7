//! `he-edge attack`: the experiments of the papers, and beyond.

use std::path::{Path, PathBuf};
use std::process::Command;

use attacks::attack::{Attack, Data};
use attacks::plain::Plain;
use attacks::record::{Recorder, Scale};
use attacks::{ATTACKS, Context, Run, Target};
use clap::Args;
use he_nn::bundled;
use he_nn::data::{self, DataSet, Split};
use he_nn::model::Model;
use serde::Serialize;

use super::Failure;
use super::output::{self, Bar};
use crate::attacked::sink::{RECORDS, Results};
use crate::attacked::{self, Deployer, Deployment};
use crate::report::text;

/// Arguments of `attack`.
#[derive(Debug, Args)]
pub struct AttackArguments {
    /// An attack by its name, `all`, or `list` for what there is.
    pub name: String,
    /// Directory of the data sets.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Directory for the results. What is there already is not computed again.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Fewer samples, queries and models: minutes.
    #[arg(long)]
    pub quick: bool,
    /// Of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the list, or the records of the run, as JSON to this file; `-` for
    /// standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// One attack in the list.
#[derive(Clone, Debug, Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    access: Vec<String>,
    tables: Vec<String>,
}

fn listed(attack: &dyn Attack) -> Listed {
    let tables = attack.tables().iter();
    Listed {
        name: attack.name(),
        about: attack.about(),
        access: attack.access().iter().map(|a| a.to_string()).collect(),
        tables: tables
            .map(|t| format!("{:?}, {}", t.paper, t.name))
            .collect(),
    }
}

/// Runs `attack`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &AttackArguments) -> Result<(), Failure> {
    if arguments.name == "list" {
        return list(arguments.json.as_deref());
    }
    let chosen: Vec<&dyn Attack> = match arguments.name.as_str() {
        "all" => ATTACKS.to_vec(),
        name => vec![attacks::find(name).ok_or_else(|| Failure::NoAttack {
            name: name.to_owned(),
        })?],
    };
    let (Some(data), Some(out)) = (&arguments.data, &arguments.out) else {
        return Err(Failure::AttackPaths);
    };
    let sets = [
        ("mnist", DataSet::Mnist),
        ("fashion-mnist", DataSet::FashionMnist),
    ];
    let loaded = sets.into_iter().map(|(name, set)| {
        let directory = set.locate(data);
        Ok(Data {
            name: name.to_owned(),
            train: data::load(&directory, Split::Train)?,
            test: data::load(&directory, Split::Test)?,
        })
    });
    let loaded: Vec<Data> = loaded.collect::<Result<_, data::DataError>>()?;
    let scale = match arguments.quick {
        true => Scale::Quick,
        false => Scale::Full,
    };
    let mut targets = targets(scale)?;
    let mut bar = Bar::default();
    for attack in chosen {
        // Opened anew for each, so that what it has found is there for the next.
        let (mut results, present) = Results::open(out)?;
        let recorder = Recorder::new(&mut results, &commit(), present);
        let run = Run {
            scale,
            seed: arguments.seed,
            progress: &mut bar,
            recorder,
        };
        let context = Context::new(&mut targets, &loaded, run);
        let context = context.on_schemes(attacked::schemes(scale));
        attack.run(&mut context.deploying(&Deployer))?;
    }
    let (_, records) = Results::open(out)?;
    let names: Vec<&str> = match arguments.name.as_str() {
        "all" => ATTACKS.iter().map(|attack| attack.name()).collect(),
        name => vec![name],
    };
    let of_run: Vec<_> = records
        .into_iter()
        .filter(|record| names.contains(&record.attack.as_str()))
        .collect();
    if let Some(path) = &arguments.json {
        let lines = of_run.iter().map(|record| record.line());
        let lines: Vec<String> = lines
            .collect::<Result<_, _>>()
            .map_err(|e| Failure::Write {
                path: path.clone(),
                source: e.into(),
            })?;
        return output::write(path, &format!("{}\n", lines.join("\n")));
    }
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    let rows: Vec<[String; 6]> = of_run
        .iter()
        .map(|record| {
            let params = serde_json::Value::Object(record.params.clone());
            let interval = record
                .ci95
                .map(|[low, high]| format!("{low:.4} to {high:.4}"));
            [
                format!("{} on {}", record.attack, record.target),
                params.to_string(),
                record.metric.clone(),
                cell(record.value),
                interval.unwrap_or_default(),
                cell(record.paper),
            ]
        })
        .collect();
    let header = [
        "attack",
        "with",
        "metric",
        "value",
        "95 % interval",
        "paper",
    ];
    output::print(&format!(
        "{}\n{} records are in {}\n",
        text::table(header, &rows),
        rows.len(),
        out.join(RECORDS).display()
    ))
}

fn list(json: Option<&Path>) -> Result<(), Failure> {
    let all: Vec<Listed> = ATTACKS.iter().map(|attack| listed(*attack)).collect();
    output::present(json, &all, || {
        let row = |a: &Listed| {
            [
                a.name.to_owned(),
                a.access.join(", "),
                a.tables.join("; "),
                a.about.to_owned(),
            ]
        };
        let rows: Vec<[String; 4]> = all.iter().map(row).collect();
        text::table(["attack", "needs", "fills", "does"], &rows)
    })
}

/// Bundled networks for images: in the clear, and where it is a polynomial network
/// behind the real client and evaluator.
fn targets(scale: Scale) -> Result<Vec<Box<dyn Target>>, Failure> {
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    let deployments = attacked::deployments(scale);
    for name in attacked::networks(scale) {
        let Some(file) = bundled::model(name) else {
            continue;
        };
        let model = Model::parse(file).map_err(|source| Failure::Model {
            name: name.to_owned(),
            source,
        })?;
        let dataset = match name.starts_with("fashion") {
            true => "fashion-mnist",
            false => "mnist",
        };
        let plain = Plain::from_file(file, dataset).map_err(attacks::AttackError::from)?;
        targets.push(Box::new(plain));
        for (_, weights) in deployments.iter().filter(|(network, _)| *network == name) {
            let deployment = Deployment::new(model, dataset, *weights)?;
            targets.push(Box::new(deployment));
        }
    }
    Ok(targets)
}

/// The commit that this was built from, as far as the sources say.
fn commit() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = Command::new("git")
        .current_dir(root)
        .args(["describe", "--always", "--dirty", "--abbrev=10"])
        .output();
    match said {
        Ok(said) if said.status.success() => {
            String::from_utf8_lossy(&said.stdout).trim().to_owned()
        }
        _ => concat!("he-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
