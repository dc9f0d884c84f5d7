//! The committed comparison of our evasion attacks with ART's (`tests/peers/art`): both
//! agree, and ours still give what stands there. By default on the bundled digits and
//! without C&W; with HE_EDGE_LONG everything, for which HE_EDGE_DATA names the directory
//! of the data sets.

use std::env;
use std::path::PathBuf;

use attacks::Target;
use attacks::evasion::{bim, cw, fgsm, pgd};
use attacks::network::Differentiable;
use attacks::plain::{Plain, classes};
use attacks::target::Rows;
use he_nn::bundled;
use he_nn::data::{self, DataSet, Dataset, Split};

const FIGURES: &str = include_str!("../../tests/peers/art/figures.csv");

struct Row {
    network: &'static str,
    data: &'static str,
    attack: &'static str,
    eps: f64,
    samples: usize,
    right: usize,
    right_art: usize,
    l2: f64,
    l2_art: f64,
}

fn rows() -> Vec<Row> {
    let lines = FIGURES.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        let [
            network,
            data,
            attack,
            eps,
            samples,
            right,
            right_art,
            l2,
            l2_art,
        ] = cells[..]
        else {
            panic!("{line}");
        };
        Row {
            network,
            data,
            attack,
            eps: eps.parse().unwrap(),
            samples: samples.parse().unwrap(),
            right: right.parse().unwrap(),
            right_art: right_art.parse().unwrap(),
            l2: l2.parse().unwrap(),
            l2_art: l2_art.parse().unwrap(),
        }
    });
    rows.collect()
}

#[test]
fn ours_and_those_of_art_agree() {
    let rows = rows();
    assert!(rows.len() >= 40, "{}", rows.len());
    for row in rows {
        let what = format!(
            "{} on {}, {} {}",
            row.network, row.data, row.attack, row.eps
        );
        let points = 100.0 * row.right.abs_diff(row.right_art) as f64 / row.samples as f64;
        let farther = row.l2 / row.l2_art;
        let (most, far) = match row.attack {
            // Nothing is random: the same examples.
            "fgsm" | "bim" => (0.0, 0.001),
            // From another random start.
            "pgd" => (1.0, 0.02),
            // Both look for the nearest, by other optimizers.
            _ => (1.0, f64::INFINITY),
        };
        assert!(points <= most, "{what}: {points} points apart");
        assert!(
            (farther - 1.0).abs() <= far,
            "{what}: {farther} times as far"
        );
    }
}

/// Examples of an attack as the comparison ran it.
fn examples(row: &Row, network: &Differentiable, images: &Rows) -> Rows {
    let method = match row.attack {
        "fgsm" => fgsm::METHOD,
        "bim" => bim::METHOD,
        "pgd" => pgd::METHOD,
        "cw-l2" => return cw::METHOD.craft(network, images).unwrap(),
        other => panic!("{other}"),
    };
    method.craft(network, images, row.eps, 1).unwrap()
}

fn test_set(name: &str) -> Dataset {
    let set = match name {
        "digits" => return bundled::digits().unwrap(),
        "mnist" => DataSet::Mnist,
        "fashion-mnist" => DataSet::FashionMnist,
        other => panic!("{other}"),
    };
    let root = env::var_os("HE_EDGE_DATA").expect("HE_EDGE_DATA names no directory");
    data::load(&set.locate(&PathBuf::from(root)), Split::Test).unwrap()
}

#[test]
fn committed_figures_are_those_of_the_code() {
    let long = env::var_os("HE_EDGE_LONG").is_some();
    let quick = |row: &Row| row.data == "digits" && row.attack != "cw-l2";
    let mut compared = 0;
    for row in rows().into_iter().filter(|row| long || quick(row)) {
        let test = test_set(row.data);
        let images = Rows::images(&test.images[..row.samples]);
        let file = bundled::model(row.network).unwrap();
        let network = Plain::from_file(file, "").unwrap().weights().unwrap();
        let examples = examples(&row, &network, &images);
        let read = classes(&network.evaluate(&examples, row.samples).unwrap());
        let pairs = read.iter().zip(&test.labels);
        let right = pairs.filter(|(a, b)| a == b).count();
        let l2 = examples.iter().zip(images.iter()).map(|(a, b)| {
            let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
            squares.sum::<f64>().sqrt()
        });
        let l2 = l2.sum::<f64>() / row.samples as f64;
        let what = format!(
            "{} on {}, {} {}",
            row.network, row.data, row.attack, row.eps
        );
        // One sample may lie so near a boundary that processors differ.
        let near = right.abs_diff(row.right) <= 1 && (l2 / row.l2 - 1.0).abs() < 0.01;
        assert!(
            near,
            "{what}: {right} right at {l2:.3}, {} at {} are committed",
            row.right, row.l2
        );
        compared += 1;
    }
    assert!(compared >= 9, "{compared}");
}
