//! What `he-edge` can run without any other file: trained networks and twenty
//! digits drawn for this project. `assets/README.md` says where each is from.

use std::path::{Path, PathBuf};

use crate::data::{self, DataError, Dataset};

/// A name and its file.
macro_rules! bundled {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../assets/models/", $name, ".hemodel")),
        )
    };
}

/// Name and file of every bundled network.
const MODELS: &[(&str, &[u8])] = &[
    bundled!("mnist-mlp64"),
    bundled!("mnist-mlp64-relu"),
    bundled!("mnist-cryptonets"),
    bundled!("mnist-cryptonets-relu"),
    bundled!("fashion-cryptonets"),
    bundled!("fashion-cryptonets-relu"),
    bundled!("pima-logreg"),
    bundled!("mnist-fcnn"),
    bundled!("mnist-cnn"),
];

const DIGITS_IMAGES: &[u8] = include_bytes!("../assets/digits/digits-images-idx3-ubyte");
const DIGITS_LABELS: &[u8] = include_bytes!("../assets/digits/digits-labels-idx1-ubyte");

/// The names of the bundled networks.
pub fn model_names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// The `.hemodel` file of a bundled network.
#[must_use]
pub fn model(name: &str) -> Option<&'static [u8]> {
    MODELS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, file)| *file)
}

/// The file that a bundled network is in, in the sources.
#[must_use]
pub fn source(name: &str) -> Option<PathBuf> {
    model(name)?;
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models");
    Some(assets.join(name).with_extension("hemodel"))
}

/// The bundled digits: 0 to 9 in one hand, then 0 to 9 in another.
///
/// # Errors
///
/// None for the files of this repository, which a test reads; [`DataError`]
/// where they were exchanged for others that are broken.
pub fn digits() -> Result<Dataset, DataError> {
    data::parse(
        (
            Path::new("the bundled digits-images-idx3-ubyte"),
            DIGITS_IMAGES,
        ),
        (
            Path::new("the bundled digits-labels-idx1-ubyte"),
            DIGITS_LABELS,
        ),
    )
}

#[cfg(test)]
mod tests {
    use crate::model::Model;

    use super::*;
    use crate::clear;

    #[test]
    fn every_model_is_sound_and_carries_its_name() {
        for name in model_names() {
            let model = Model::parse(model(name).unwrap()).unwrap();
            assert_eq!(model.name(), name);
            assert!(source(name).unwrap().is_file());
            let readme = include_str!("../assets/README.md");
            assert!(readme.contains(&format!("`{:08x}`", model.crc())), "{name}");
            assert!(readme.contains(name));
        }
        assert!(model("no-such-model").is_none() && source("no-such-model").is_none());
    }

    #[test]
    fn the_reference_network_is_the_one_described() {
        let model = Model::parse(model("mnist-mlp64").unwrap()).unwrap();
        let layers: Vec<_> = model.layers().collect();
        let sizes: Vec<usize> = layers.iter().map(|view| view.output.values()).collect();
        assert_eq!((model.inputs(), &sizes[..]), (784, &[64, 64, 10][..]));
        assert!(layers[1].layer.is_square());
        assert!(layers[0].layer.range() < 12.0 && layers[2].layer.range() < 25.0);
    }

    #[test]
    fn two_digits_of_every_class() {
        let digits = digits().unwrap();
        assert_eq!(digits.labels, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].repeat(2));
    }

    #[test]
    fn digits_are_placed_as_in_mnist() {
        for image in digits().unwrap().images {
            let mass: f64 = image.iter().map(|&p| f64::from(p)).sum();
            let centre = |of: fn(usize) -> usize| {
                let moments = image
                    .iter()
                    .enumerate()
                    .map(|(i, &p)| of(i) as f64 * f64::from(p));
                moments.sum::<f64>() / mass
            };
            let (row, column) = (centre(|i| i / data::SIDE), centre(|i| i % data::SIDE));
            assert!(
                (row - 13.5).abs() <= 0.6 && (column - 13.5).abs() <= 0.6,
                "{row} {column}"
            );
            let lit = |of: fn(usize) -> usize| {
                let places = (0..data::PIXELS).filter(|&i| image[i] > 0).map(of);
                places.clone().max().unwrap() - places.min().unwrap() + 1
            };
            let longer = lit(|i| i / data::SIDE).max(lit(|i| i % data::SIDE));
            // Twenty pixels, or one more where whole-pixel placement split one.
            assert!((20..=21).contains(&longer), "{longer}");
        }
    }

    #[test]
    fn the_reference_network_reads_every_digit() {
        let model = Model::parse(model("mnist-mlp64").unwrap()).unwrap();
        let digits = digits().unwrap();
        let measured = clear::measure(&model, digits.samples()).unwrap();
        assert_eq!(measured.right, measured.samples);
    }
}
