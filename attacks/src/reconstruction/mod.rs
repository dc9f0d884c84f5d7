//! Reconstruction of inputs (Shin, Choi, Choi 2021, section 5.2 and Table 5).
//!
//! A reconstruction is worth what it adds to what the attacker has anyway: the answer
//! tells the class, and the mean of that class looks like its members. So beside every
//! figure stand the class mean, an unrelated image and a black one, made from the
//! attacker's own data, and the verdict is about SSIM *over the class mean*, image by
//! image. Reclassification alone means little: class means score close to 1.
//!
//! SSIM has the data range of the pixels, 1. [`RANGE_OF_BYTES`] is the likely mistake
//! behind the paper's figure: with it even a black image comes close to 1.

pub mod class_inversion;
pub mod generator;

use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::random;
use crate::record::{Finding, Picture};
use crate::stats::{Estimate, mean, mse, psnr, ssim};
use crate::target::Rows;

/// The data range of pixels from 0 to 255, wrong for pixels from 0 to 1.
pub const RANGE_OF_BYTES: f64 = 255.0;

/// PSNR of an image that is exact to 1e-10 in the mean square; better ones count as
/// this, since a mean over images cannot hold an infinite value.
const BEST_PSNR: f64 = 100.0;

/// What an attacker can show without the attack, one image per victim.
#[derive(Clone, Debug, PartialEq)]
pub struct Baselines {
    /// The mean of the attacker's images of the victim's class.
    pub class_mean: Rows,
    /// One of the attacker's images, at random.
    pub unrelated: Rows,
    /// Black.
    pub black: Rows,
}

impl Baselines {
    /// From the attacker's own images and their labels, for victims of these classes.
    /// A class of which the attacker has no image gets the mean of all.
    #[must_use]
    pub fn new(images: &Rows, labels: &[u8], victims: &[u8], seed: u64) -> Self {
        let width = images.width();
        let of_class = |class: Option<u8>| -> Option<Vec<f64>> {
            let wanted = |label: u8| class.is_none_or(|class| class == label);
            let members = images.iter().zip(labels).filter(|(_, l)| wanted(**l));
            let mut sum = vec![0.0; width];
            let mut count = 0.0f64;
            for (image, _) in members {
                sum.iter_mut().zip(image).for_each(|(s, p)| *s += p);
                count += 1.0;
            }
            (count > 0.0).then(|| sum.into_iter().map(|s| s / count).collect())
        };
        let all = of_class(None).unwrap_or_else(|| vec![0.0; width]);
        let means: Vec<Vec<f64>> = (0..=u8::MAX)
            .map(|class| of_class(Some(class)).unwrap_or_else(|| all.clone()))
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut any = || match images.len() {
            0 => all.clone(),
            count => images.row(random::below(&mut rng, count)).to_vec(),
        };
        let means = victims.iter().flat_map(|&v| means[usize::from(v)].clone());
        Self {
            class_mean: Rows::new(width, means.collect()),
            unrelated: Rows::new(width, victims.iter().flat_map(|_| any()).collect()),
            black: Rows::new(width, vec![0.0; width * victims.len()]),
        }
    }

    /// With their names in records.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, &Rows); 3] {
        [
            ("class_mean", &self.class_mean),
            ("unrelated", &self.unrelated),
            ("black", &self.black),
        ]
    }
}

/// SSIM of every image with its original, square images assumed; 0 where it is not
/// defined.
#[must_use]
pub fn similarities(originals: &Rows, found: &Rows, data_range: f64) -> Vec<f64> {
    let side = originals.width().isqrt();
    let pairs = originals.iter().zip(found.iter());
    pairs
        .map(|(a, b)| ssim(a, b, side, data_range).unwrap_or(0.0))
        .collect()
}

/// By how much the SSIM of reconstructions exceeds that of others, image by image.
#[must_use]
pub fn ssim_over(originals: &Rows, found: &Rows, others: &Rows, seed: u64) -> Estimate {
    let ours = similarities(originals, found, 1.0);
    let theirs = similarities(originals, others, 1.0);
    let gains: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    mean(&gains, seed)
}

/// A measure of one image with its original.
type Measure = fn(&[f64], &[f64]) -> f64;

/// SSIM, its gain over the class mean with the verdict, MSE and PSNR, beside the
/// baselines.
#[must_use]
pub fn findings(originals: &Rows, found: &Rows, baselines: &Baselines, seed: u64) -> Vec<Finding> {
    let measured = |name: &str, measure: &dyn Fn(&Rows) -> Vec<f64>| {
        let start = Finding::new(name, mean(&measure(found), seed));
        baselines
            .named()
            .into_iter()
            .fold(start, |finding, (name, rows)| {
                let values = measure(rows);
                finding.baseline(
                    name,
                    values.iter().sum::<f64>() / values.len().max(1) as f64,
                )
            })
    };
    let each = |measure: Measure| {
        move |rows: &Rows| -> Vec<f64> {
            let pairs = originals.iter().zip(rows.iter());
            pairs.map(|(a, b)| measure(a, b)).collect()
        }
    };
    let gain = ssim_over(originals, found, &baselines.class_mean, seed);
    vec![
        measured("ssim", &|rows| similarities(originals, rows, 1.0)),
        Finding::new("ssim_over_class_mean", gain).succeeds_above(0.0, 0.0),
        measured("mse", &each(mse)),
        measured("psnr_db", &each(|a, b| psnr(a, b, 1.0).min(BEST_PSNR))),
    ]
}

/// The SSIM of the likely mistake, with the paper's figure.
#[must_use]
pub fn mistaken(
    originals: &Rows,
    found: &Rows,
    baselines: &Baselines,
    paper: Option<f64>,
    seed: u64,
) -> Finding {
    let of = |rows: &Rows| mean(&similarities(originals, rows, RANGE_OF_BYTES), seed);
    let start = Finding::new("ssim_range_255", of(found)).paper(paper);
    let finding = baselines
        .named()
        .into_iter()
        .fold(start, |finding, (name, rows)| {
            finding.baseline(name, of(rows).value)
        });
    finding.remark(
        "pixels lie between 0 and 1, so a data range of 255 is a mistake: its constants \
         drown the images, and a black image scores nearly as high as a reconstruction",
    )
}

/// Rows of pictures under each other, at most ten columns.
#[must_use]
pub fn grid(rows: &[&Rows]) -> Picture {
    let count = rows
        .iter()
        .map(|rows| rows.len())
        .min()
        .unwrap_or(0)
        .min(10);
    let image = |rows: &Rows, i: usize| rows.row(i).iter().map(|&p| p as f32).collect();
    Picture::Images {
        width: rows.first().map_or(0, |rows| rows.width().isqrt()),
        columns: (1..=count).map(|i| i.to_string()).collect(),
        images: rows
            .iter()
            .flat_map(|rows| (0..count).map(|i| image(rows, i)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn a_wrong_data_range_makes_a_black_image_look_right() {
        let data = synthetic::waves(40, 1);
        let images = Rows::images(&data.images);
        let baselines = Baselines::new(&images, &data.labels, &data.labels, 1);
        let mean = |rows: &Rows, range| -> f64 {
            similarities(&images, rows, range).iter().sum::<f64>() / 40.0
        };
        assert!(mean(&baselines.black, 1.0) < 0.9);
        assert!(mean(&baselines.black, RANGE_OF_BYTES) > 0.95);
        assert!((mean(&images, 1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn baselines_are_the_attackers_means() {
        let images = Rows::new(2, vec![0.0, 1.0, 1.0, 0.0, 0.5, 0.5]);
        let baselines = Baselines::new(&images, &[3, 3, 4], &[3, 4, 9], 1);
        assert_eq!(
            baselines.class_mean.values(),
            [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
        );
        assert_eq!(baselines.black.values(), [0.0; 6]);
        assert_eq!(baselines.unrelated.len(), 3);
        let one = Baselines::new(&images.select(&[0, 2]), &[3, 4], &[3, 9], 1);
        assert_eq!(one.class_mean.values(), [0.0, 1.0, 0.25, 0.75]);
    }
}
