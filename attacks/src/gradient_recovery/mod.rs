//! Recovery of an input by gradients, from its decrypted output (Xiang, Dalla, Wu 2025,
//! "Still working on code and results": gradient-based inversion, white box on the plain
//! model, by finite differences on encrypted queries).
//!
//! The attacker knows `f(x)` and descends from a black image on
//! `|f(z) - f(x)|^2 / |f(x)|^2` plus a weight times the total variation of `z`. The
//! paper conjectures that the effort "increases dramatically" under encryption. It is a
//! matter of queries alone: a polynomial of degree 2 has its derivative from two points
//! exactly, one of degree 4 from four, at *any* distance; so a large step makes the
//! noise of encryption vanish, which enters as `1 / step`. All logits come from the same
//! queries, and with them the gradient of any loss.
//!
//! Ten logits leave 774 directions of an image open. So recovery of the logits
//! (`residual`) and of the image (`ssim` beside the class mean) are different things,
//! and the controls have networks whose outputs fix the input.

pub mod differences;
pub mod spsa;
pub mod white_box;

use he_nn::model::Shape;
use he_nn::train::LayerSpec;

use crate::attack::{Attack, AttackError, Case, Control, Must, Outcome};
use crate::network::Differentiable;
use crate::plain::classes;
use crate::reconstruction::{Baselines, findings, grid, similarities};
use crate::record::Finding;
use crate::stats::mean;
use crate::target::{Rows, View};

/// Smooths the total variation where neighbours are equal.
const SMOOTH: f64 = 1e-6;

/// Descent by Adam (Kingma, Ba 2015, with its defaults) on images, clipped to 0..1. The
/// library's optimizer takes gradients from its own graph alone; these come from queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Descent {
    /// Steps.
    pub iterations: usize,
    /// Adam's step size, in pixels.
    pub rate: f64,
    /// Weight of the total variation.
    pub variation: f64,
    /// 1 to descend; a test climbs.
    pub direction: f64,
}

impl Descent {
    /// From black images of `inputs` pixels, one per goal. `gradient` gives the gradient
    /// of the loss, a row per image.
    ///
    /// # Errors
    /// The gradient's.
    pub fn run(
        &self,
        goals: &Rows,
        inputs: usize,
        mut gradient: impl FnMut(&Rows) -> Result<Rows, AttackError>,
    ) -> Result<Rows, AttackError> {
        const DECAYS: [f64; 2] = [0.9, 0.999];
        let count = goals.len() * inputs;
        let mut at = Rows::new(inputs, vec![0.0; count]);
        let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
        for iteration in 1..=self.iterations {
            let mut slopes = gradient(&at)?;
            if self.variation > 0.0 {
                let steep: Vec<f64> = at.iter().flat_map(total_variation_gradient).collect();
                let pairs = slopes.values_mut().iter_mut().zip(steep);
                pairs.for_each(|(slope, tv)| *slope += self.variation * tv);
            }
            let corrected = DECAYS.map(|decay| 1.0 - decay.powi(iteration as i32));
            for (i, pixel) in at.values_mut().iter_mut().enumerate() {
                let slope = slopes.values()[i];
                first[i] = DECAYS[0].mul_add(first[i] - slope, slope);
                second[i] = DECAYS[1].mul_add(second[i] - slope * slope, slope * slope);
                let scale = (second[i] / corrected[1]).sqrt() + 1e-12;
                let step = self.rate * first[i] / corrected[0] / scale;
                *pixel = (*pixel - self.direction * step).clamp(0.0, 1.0);
            }
        }
        Ok(at)
    }
}

/// The gradient of a square image's total variation.
fn total_variation_gradient(image: &[f64]) -> Vec<f64> {
    let side = image.len().isqrt();
    let mut gradient = vec![0.0; image.len()];
    let mut edge = |a: usize, b: usize| {
        let difference = image[a] - image[b];
        let slope = difference / difference.hypot(SMOOTH);
        gradient[a] += slope;
        gradient[b] -= slope;
    };
    for at in 0..side * side {
        if at % side + 1 < side {
            edge(at, at + 1);
        }
        if at / side + 1 < side {
            edge(at, at + side);
        }
    }
    gradient
}

/// The square of a goal's length, by which its loss is divided.
fn norm(goal: &[f64]) -> f64 {
    goal.iter().map(|g| g * g).sum::<f64>().max(1e-12)
}

/// Points of a line at which a network is asked for its slope there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stencil {
    /// Two points: exact for polynomials of degree 2.
    Central,
    /// Four points: exact for polynomials of degree 4.
    FivePoint,
}

impl Stencil {
    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::FivePoint => "five-point",
        }
    }

    /// Distances in steps, and weights of the values there over one step.
    const fn points(self) -> &'static [(f64, f64)] {
        const CENTRAL: &[(f64, f64)] = &[(1.0, 0.5), (-1.0, -0.5)];
        const FIVE_POINT: &[(f64, f64)] = &[
            (1.0, 8.0 / 12.0),
            (-1.0, -8.0 / 12.0),
            (2.0, -1.0 / 12.0),
            (-2.0, 1.0 / 12.0),
        ];
        match self {
            Self::Central => CENTRAL,
            Self::FivePoint => FIVE_POINT,
        }
    }

    /// The gradient of one image's loss, as far as these directions span it: their mean
    /// of `direction * slope`, times `weight`. Takes one query and two or four per
    /// direction.
    ///
    /// # Errors
    /// The oracle's.
    pub fn gradient(
        self,
        oracle: &mut dyn FnMut(&Rows) -> Result<Rows, AttackError>,
        at: &[f64],
        goal: &[f64],
        directions: &Directions,
        step: f64,
    ) -> Result<Vec<f64>, AttackError> {
        let points = self.points();
        let mut queries = at.to_vec();
        for direction in 0..directions.len() {
            for (distance, _) in points {
                let from = queries.len();
                queries.extend_from_slice(at);
                directions.add(direction, distance * step, &mut queries[from..]);
            }
        }
        let answers = oracle(&Rows::new(at.len(), queries))?;
        let residual: Vec<f64> = answers
            .row(0)
            .iter()
            .zip(goal)
            .map(|(a, g)| a - g)
            .collect();
        let mut gradient = vec![0.0; at.len()];
        for direction in 0..directions.len() {
            let first = 1 + direction * points.len();
            let rows = (first..).zip(points);
            let slope: f64 = rows
                .map(|(row, (_, weight))| {
                    let products = answers.row(row).iter().zip(&residual);
                    weight * products.map(|(a, r)| a * r).sum::<f64>()
                })
                .sum();
            let slope = 2.0 * slope / step / norm(goal);
            directions.add(direction, slope * directions.weight(), &mut gradient);
        }
        Ok(gradient)
    }
}

/// Directions in which slopes are taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Directions {
    /// Every pixel of so many.
    Pixels(usize),
    /// Random signs for all pixels at once, each entry a direction.
    Signs(Vec<Vec<f64>>),
}

impl Directions {
    const fn len(&self) -> usize {
        match self {
            Self::Pixels(count) => *count,
            Self::Signs(all) => all.len(),
        }
    }

    /// What makes the sum over directions an unbiased gradient.
    const fn weight(&self) -> f64 {
        match self {
            Self::Pixels(_) => 1.0,
            Self::Signs(all) => 1.0 / all.len() as f64,
        }
    }

    fn add(&self, direction: usize, factor: f64, to: &mut [f64]) {
        match self {
            Self::Pixels(_) => to[direction] += factor,
            Self::Signs(all) => {
                let pairs = to.iter_mut().zip(&all[direction]);
                pairs.for_each(|(t, sign)| *t += factor * sign);
            }
        }
    }
}

/// The first images of the training split, the victims.
fn victims(case: &Case<'_, '_>, count: usize) -> Result<Rows, AttackError> {
    let images = &case.data.train.images;
    if images.is_empty() {
        return Err(AttackError::Data {
            attack: "gradient recovery",
            what: "an image in the training split".into(),
        });
    }
    Ok(Rows::images(&images[..count.min(images.len())]))
}

/// What a recovery came to. `answers` are the logits of the victims, `reached` those of
/// what was found.
fn report(
    attack: &dyn Attack,
    case: &mut Case<'_, '_>,
    originals: &Rows,
    answers: &Rows,
    found: &Rows,
    reached: &Rows,
    form: &str,
) -> Result<Vec<Finding>, AttackError> {
    let test = &case.data.test;
    let known = Rows::images(&test.images);
    let seed = case.run.seed;
    let baselines = Baselines::new(&known, &test.labels, &classes(answers), seed);
    let residual = mean(&residuals(answers, reached), seed);
    let mut records = findings(originals, found, &baselines, seed);
    records.push(
        Finding::new("residual", residual)
            .baseline("none", 1.0)
            .remark("|f(z) - f(x)| / |f(x)|: small while the image differs means that other images have the same logits"),
    );
    let name = format!("{}-{form}-{}", attack.name(), case.target.about().name);
    let name = format!("{name}-{}", case.data.name);
    let rows = [originals, found, &baselines.class_mean];
    case.run.picture(&name, &grid(&rows))?;
    Ok(records)
}

/// The distance of every answer from its goal, over the goal's length.
fn residuals(goals: &Rows, answers: &Rows) -> Vec<f64> {
    let distance = |goal: &[f64], answer: &[f64]| {
        let squares = goal.iter().zip(answer).map(|(g, a)| (g - a) * (g - a));
        (squares.sum::<f64>() / norm(goal)).sqrt()
    };
    let pairs = goals.iter().zip(answers.iter());
    pairs.map(|(goal, answer)| distance(goal, answer)).collect()
}

/// Scores of a target as an oracle of gradients.
fn oracle(target: &mut View<'_>) -> impl FnMut(&Rows) -> Result<Rows, AttackError> {
    move |queries| Ok(target.scores(queries)?)
}

/// Side of the controls' images, the least for which SSIM is defined.
const SIDE: u16 = 11;

/// A network with a square whose outputs fix their input: more of them than pixels.
fn control_network(seed: u64) -> Result<Differentiable, AttackError> {
    let shape = Shape {
        channels: 1,
        height: SIDE,
        width: SIDE,
    };
    let layers = [LayerSpec::Dense(256), LayerSpec::Square];
    Ok(Differentiable::untrained(shape, &layers, seed)?.precise()?)
}

/// A bright frame around a dark square, and its mirror in brightness.
fn control_images() -> Rows {
    let side = usize::from(SIDE);
    let square = |at: usize| (3..8).contains(&(at % side)) && (2..7).contains(&(at / side));
    let image = |inside: f64, outside: f64| {
        (0..side * side).map(move |at| if square(at) { inside } else { outside })
    };
    Rows::new(
        side * side,
        image(0.2, 0.8).chain(image(0.9, 0.1)).collect(),
    )
}

/// A control: recovers images whose outputs fix them, and asks for an SSIM of 0.9.
fn control<'a>(
    name: &'static str,
    must: Must,
    recover: impl Fn(&Differentiable, &Rows, u64) -> Result<Rows, AttackError> + 'a,
) -> Control<'a> {
    const BAR: f64 = 0.9;
    Control {
        name,
        must,
        run: Box::new(move |seed| {
            let network = control_network(seed)?;
            let images = control_images();
            let answers = network.evaluate(&images, images.len())?;
            let found = recover(&network, &answers, seed)?;
            let all = similarities(&images, &found, 1.0);
            let value = all.iter().sum::<f64>() / all.len() as f64;
            Ok(Outcome {
                succeeded: value >= BAR,
                value,
                bar: BAR,
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::plain::Plain;
    use crate::random;
    use crate::target::Target;

    /// Relative error of a stencil's gradient of a network's loss, with noise on logits.
    fn error(network: &Differentiable, stencil: Stencil, step: f64, noise: f64) -> f64 {
        let digits = he_nn::bundled::digits().unwrap();
        let images = Rows::images(&digits.images[..2]);
        let goal = network.evaluate(&images, 2).unwrap().row(1).to_vec();
        let goals = Rows::new(goal.len(), goal.clone());
        let at = images.row(0);
        let exact = white_box::gradient(network, &images.select(&[0]), &goals).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut oracle = |queries: &Rows| -> Result<Rows, AttackError> {
            let mut logits = network.evaluate(queries, 512)?;
            for logit in logits.values_mut() {
                *logit += noise * random::normal(&mut rng);
            }
            Ok(logits)
        };
        let pixels = Directions::Pixels(at.len());
        let found = stencil
            .gradient(&mut oracle, at, &goal, &pixels, step)
            .unwrap();
        let squares = found
            .iter()
            .zip(exact.values())
            .map(|(a, b)| (a - b) * (a - b));
        let length: f64 = exact.values().iter().map(|g| g * g).sum();
        (squares.sum::<f64>() / length).sqrt()
    }

    fn bundled(name: &str) -> Differentiable {
        let plain = Plain::bundled(name, "digits").unwrap().unwrap();
        plain.weights().unwrap()
    }

    #[test]
    fn stencils_are_exact_for_their_degree_at_any_step() {
        let shape = Shape {
            channels: 1,
            height: 28,
            width: 28,
        };
        let layers = [
            LayerSpec::Dense(12),
            LayerSpec::Square,
            LayerSpec::Dense(8),
            LayerSpec::Square,
            LayerSpec::Dense(10),
        ];
        let quartic = Differentiable::untrained(shape, &layers, 1).unwrap();
        let quartic = quartic.precise().unwrap();
        let square = bundled("mnist-mlp64");
        for step in [0.01, 1.0, 5.0] {
            assert!(error(&square, Stencil::Central, step, 0.0) < 1e-9);
            assert!(error(&quartic, Stencil::FivePoint, step, 0.0) < 1e-9);
        }
        assert!(error(&quartic, Stencil::Central, 5.0, 0.0) > 1e-3);
    }

    #[test]
    fn a_large_step_makes_noise_vanish() {
        let square = bundled("mnist-mlp64");
        let small = error(&square, Stencil::Central, 0.01, 1e-3);
        let large = error(&square, Stencil::Central, 1.0, 1e-3);
        assert!(large * 50.0 < small, "{large} {small}");
    }

    #[test]
    fn total_variation_slopes_are_those_of_differences() {
        let image: Vec<f64> = (0..16).map(|i| f64::from(i * 7 % 11) / 11.0).collect();
        let variation = |image: &[f64]| -> f64 {
            let edge = |a: usize, b: usize| (image[a] - image[b]).hypot(SMOOTH);
            let across = (0..16).filter(|at| at % 4 < 3).map(|at| edge(at, at + 1));
            let down = (0..12).map(|at| edge(at, at + 4));
            across.sum::<f64>() + down.sum::<f64>()
        };
        for (at, slope) in total_variation_gradient(&image).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut image = image.clone();
                image[at] += by;
                variation(&image)
            };
            let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((difference - slope).abs() < 1e-6, "{at}");
        }
    }
}
