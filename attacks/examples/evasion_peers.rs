//! Writes bundled networks, test images and what our attacks make of them, for a comparison
//! with other libraries (`tests/peers/art`):
//!
//! ```sh
//! cargo run -p attacks --example evasion_peers -- DATA OUT.json
//! ```
//!
//! `DATA` is the directory of the data sets. Weights are real numbers: what the 8-bit ones
//! of the file stand for.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use attacks::Target;
use attacks::evasion::{bim, cw, fgsm, pgd};
use attacks::network::Differentiable;
use attacks::plain::{Plain, classes};
use attacks::target::Rows;
use he_nn::bundled;
use he_nn::data::{self, DataSet, Split};
use he_nn::model::{Layer, Model};
use serde_json::{Value, json};

/// Images that are attacked without chance, from random starts, and by C&W, which takes
/// long: so many that starts count for less than a point.
const SAMPLES: [usize; 3] = [100, 1000, 100];

/// Networks with their data, none for the bundled digits, and whether C&W attacks them.
const NETWORKS: [(&str, Option<DataSet>, bool); 5] = [
    ("mnist-mlp64", None, true),
    ("mnist-mlp64", Some(DataSet::Mnist), true),
    ("mnist-mlp64-relu", Some(DataSet::Mnist), true),
    ("mnist-cryptonets", Some(DataSet::Mnist), false),
    ("fashion-cryptonets", Some(DataSet::FashionMnist), false),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [data, out] = &arguments[..] else {
        return Err("give the directory of the data sets and a file to write".into());
    };
    let mut all = Vec::new();
    for (name, set, by_cw) in NETWORKS {
        let (of_set, test) = match set {
            None => ("digits", bundled::digits()?),
            Some(set) => {
                let test = data::load(&set.locate(Path::new(data)), Split::Test)?;
                let of_set = match set {
                    DataSet::FashionMnist => "fashion-mnist",
                    _ => "mnist",
                };
                (of_set, test)
            }
        };
        let file = bundled::model(name).ok_or("a bundled network is gone")?;
        let model = Model::parse(file)?;
        let network = Plain::from_file(file, name)?.weights()?;
        let count = SAMPLES[1].min(test.images.len());
        let (images, labels) = (&test.images[..count], &test.labels[..count]);
        let rows = Rows::images(images);
        let logits = network.evaluate(&rows, count)?;
        all.push(json!({
            "name": name,
            "data": of_set,
            "inputs": model.inputs(),
            "layers": layers(&model),
            "images": images.iter().map(|image| image.to_vec()).collect::<Vec<_>>(),
            "labels": labels,
            "logits": logits.iter().take(10).collect::<Vec<_>>(),
            "attacks": attacked(&network, &rows, labels, by_cw)?,
        }));
    }
    fs::write(out, serde_json::to_string(&all)?)?;
    Ok(())
}

/// The layers, weights row by row.
fn layers(model: &Model<'_>) -> Vec<Value> {
    let of = |layer: Layer<'_>, columns: usize| {
        let (weights, biases): (Vec<f64>, Vec<f64>) = match layer.linear() {
            Some(linear) => (
                linear.values(columns).collect(),
                linear.biases.iter().map(f64::from).collect(),
            ),
            None => Default::default(),
        };
        match layer {
            Layer::Conv2d { kernel, .. } => json!({
                "kind": "conv2d", "weights": weights, "biases": biases,
                "kernel": [kernel.height, kernel.width], "stride": kernel.stride,
                "padding": [
                    [kernel.padding.top, kernel.padding.bottom],
                    [kernel.padding.left, kernel.padding.right],
                ],
            }),
            Layer::Dense { .. } => json!({"kind": "dense", "weights": weights, "biases": biases}),
            Layer::Polynomial { coefficients, .. } => json!({
                "kind": "polynomial",
                "coefficients": coefficients.iter().map(f64::from).collect::<Vec<_>>(),
            }),
            Layer::Relu { .. } => json!({"kind": "relu"}),
        }
    };
    let views = model.layers();
    views
        .map(|view| of(view.layer, view.layer.fan_in(view.input)))
        .collect()
}

/// Per attack its parameters, how many samples are read rightly after it, and the mean
/// distance in L2.
fn attacked(
    network: &Differentiable,
    images: &Rows,
    labels: &[u8],
    by_cw: bool,
) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut all = Vec::new();
    let mut add = |name: &str, eps: f64, count: usize, examples: &Rows| {
        let read = classes(&network.evaluate(examples, count)?);
        let right = read.iter().zip(labels).filter(|(a, b)| a == b).count();
        let l2 = examples.iter().zip(images.iter()).map(|(a, b)| {
            let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
            squares.sum::<f64>().sqrt()
        });
        let l2 = l2.sum::<f64>() / count as f64;
        all.push(json!({
            "attack": name, "eps": eps, "samples": count, "right": right, "l2": l2,
        }));
        Ok::<(), Box<dyn Error>>(())
    };
    let first = |count| {
        let [few, _] = images.split_at(count);
        few
    };
    for (name, method, count) in [
        ("fgsm", fgsm::METHOD, SAMPLES[0]),
        ("bim", bim::METHOD, SAMPLES[0]),
        ("pgd", pgd::METHOD, SAMPLES[1]),
    ] {
        let images = first(count);
        for eps in [0.1, 0.2, 0.3] {
            let examples = method.craft(network, &images, eps, 1)?;
            add(name, eps, images.len(), &examples)?;
        }
    }
    if !by_cw {
        return Ok(all);
    }
    let few = first(SAMPLES[2]);
    let examples = cw::METHOD.craft(network, &few)?;
    add("cw-l2", 0.0, few.len(), &examples)?;
    Ok(all)
}
