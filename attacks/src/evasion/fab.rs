//! The fast adaptive boundary attack, targeted (FAB-T: Croce, Hein 2020,
//! arXiv:1907.02044, section 3; targeted as in arXiv:2003.01690, section 5), in L-infinity.
//!
//! It looks for the nearest example of a class `t`: each step goes to the hyperplane on
//! which the linearised logits of `t` and of the sample's class are equal, a little beyond
//! it, and is biased towards the sample. It knows no `eps`; what lies farther is no
//! example.

use candle_core::{D, DType};
use he_nn::clear;

use super::BATCH;
use super::apgd::{ranked, read_right};
use crate::attack::AttackError;
use crate::network::Differentiable;
use crate::target::Rows;
use crate::trainer::one_hot;

/// The attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fab {
    /// Steps of a run.
    pub iterations: usize,
    /// Classes that are aimed at, one after another, the most likely first.
    pub targets: usize,
    /// Largest share of the sample's own projection in a step.
    pub bias: f64,
    /// How far a step goes beyond the hyperplane; a test stays before it.
    pub overshoot: f64,
    /// How much of an example's distance is kept when the search goes on from it.
    pub backward: f64,
}

/// As AutoAttack has it.
pub const METHOD: Fab = Fab {
    iterations: 100,
    targets: 9,
    bias: 0.1,
    overshoot: 1.05,
    backward: 0.9,
};

impl Fab {
    /// The nearest examples that were found within `eps`; an image itself where there is
    /// none.
    ///
    /// # Errors
    /// [`AttackError::Tensor`].
    pub fn craft(
        &self,
        network: &Differentiable,
        images: &Rows,
        labels: &[u8],
        eps: f64,
    ) -> Result<Rows, AttackError> {
        let mut out = images.clone();
        let logits = network.evaluate(images, BATCH)?;
        let mut open = read_right(&logits, labels);
        for round in 0..self.targets.min(network.outputs() - 1) {
            let mut left = Vec::new();
            for part in open.chunks(BATCH) {
                let own: Vec<u8> = part.iter().map(|&i| labels[i]).collect();
                let aims: Vec<u8> = part
                    .iter()
                    .map(|&i| ranked(logits.row(i), labels[i])[round])
                    .collect();
                let found = self.search(network, &images.select(part), &own, &aims)?;
                for (&i, (distance, example)) in part.iter().zip(found) {
                    if distance <= eps {
                        out.row_mut(i).copy_from_slice(&example);
                    } else {
                        left.push(i);
                    }
                }
            }
            open = left;
        }
        Ok(out)
    }

    /// One run on a batch: the nearest examples with their distances, infinite where there
    /// is none.
    fn search(
        &self,
        network: &Differentiable,
        clean: &Rows,
        own: &[u8],
        aims: &[u8],
    ) -> Result<Vec<(f64, Vec<f64>)>, AttackError> {
        let away = (one_hot(aims, network.outputs(), network.dtype())?
            - one_hot(own, network.outputs(), network.dtype())?)?;
        let mut best: Vec<(f64, Vec<f64>)> =
            clean.iter().map(|x| (f64::INFINITY, x.to_vec())).collect();
        let mut x = clean.clone();
        for _ in 0..self.iterations {
            let mut leads = Vec::new();
            let batch = network.batch(x.values())?;
            let gradient = network.input_gradient(&batch, |logits| {
                let lead = (logits * &away)?.sum(D::Minus1)?;
                leads = lead.detach().to_dtype(DType::F64)?.to_vec1::<f64>()?;
                lead.sum_all()
            })?;
            let gradient = gradient.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            for (i, (lead, slope)) in leads.iter().zip(&gradient).enumerate() {
                let (here, origin) = (x.row_mut(i), clean.row(i));
                // At y the linearised lead is `lead + <slope, y - here>`.
                let of_origin: f64 = (slope.iter().zip(origin).zip(&*here))
                    .map(|((g, o), h)| g * (o - h))
                    .sum();
                let [near, far] = [
                    projection(here, slope, -lead),
                    projection(origin, slope, -lead - of_origin),
                ];
                let [a, b] = [&near, &far].map(|d| d.iter().fold(0.0f64, |m, d| m.max(d.abs())));
                let share = if a + b > 0.0 {
                    (a / (a + b)).min(self.bias)
                } else {
                    self.bias
                };
                for (at, value) in here.iter_mut().enumerate() {
                    let own = *value + self.overshoot * near[at];
                    let biased = origin[at] + self.overshoot * far[at];
                    *value = (own * (1.0 - share) + biased * share).clamp(0.0, 1.0);
                }
            }
            let logits = network.evaluate(&x, BATCH)?;
            for (i, row) in logits.iter().enumerate() {
                if clear::class(row) as u8 == own[i] {
                    continue;
                }
                let (here, origin) = (x.row_mut(i), clean.row(i));
                let pairs = || here.iter().zip(origin);
                let distance = pairs().fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                if distance < best[i].0 {
                    best[i] = (distance, here.to_vec());
                }
                for (value, origin) in here.iter_mut().zip(origin) {
                    *value = origin + self.backward * (*value - origin);
                }
            }
        }
        Ok(best)
    }
}

/// The smallest move in L-infinity, pixels staying within 0..1, along which `<slope, move>`
/// becomes `rise`; as far as pixels allow where it cannot become that. Every pixel
/// moves by the same `radius`, or by what room it has, so that the rise is piecewise
/// linear in the radius.
fn projection(at: &[f64], slope: &[f64], rise: f64) -> Vec<f64> {
    let up = |g: f64| (g > 0.0) == (rise > 0.0);
    let room = |(x, g): (&f64, &f64)| if up(*g) { 1.0 - x } else { *x };
    let rooms: Vec<f64> = at.iter().zip(slope).map(room).collect();
    let mut order: Vec<usize> = (0..at.len()).collect();
    order.sort_by(|&a, &b| rooms[a].total_cmp(&rooms[b]));
    let mut rate: f64 = slope.iter().map(|g| g.abs()).sum();
    let (mut left, mut radius) = (rise.abs(), 0.0);
    for i in order {
        let gained = rate * (rooms[i] - radius);
        if gained >= left {
            if rate > 0.0 {
                radius += left / rate;
            }
            left = 0.0;
            break;
        }
        (left, radius) = (left - gained, rooms[i]);
        rate -= slope[i].abs();
    }
    if left > 0.0 {
        radius = 1.0;
    }
    let moved = slope.iter().zip(&rooms).map(|(&g, &room)| {
        let size = radius.min(room);
        match g == 0.0 {
            true => 0.0,
            false if up(g) => size,
            false => -size,
        }
    });
    moved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evasion::{control_data, control_network};

    #[test]
    fn projections_reach_the_hyperplane_by_the_shortest_way() {
        let at = [0.5, 0.9, 0.1, 0.3];
        let slope = [1.0, 2.0, -1.0, 0.0];
        let rises = |d: &[f64]| d.iter().zip(&slope).map(|(d, g)| d * g).sum::<f64>();
        // Radius 0.1 gives 0.4, and then the second and the third pixel have no room.
        let d = projection(&at, &slope, 0.3);
        assert!((rises(&d) - 0.3).abs() < 1e-12 && (d[0] - 0.075).abs() < 1e-12);
        assert_eq!(d[3], 0.0);
        let d = projection(&at, &slope, 0.6);
        assert!((rises(&d) - 0.6).abs() < 1e-12, "{d:?}");
        assert!((d[0] - 0.3).abs() < 1e-12 && (d[1] - 0.1).abs() < 1e-12);
        let d = projection(&at, &slope, -0.4);
        assert!((rises(&d) + 0.4).abs() < 1e-12 && (d[0] + 0.1).abs() < 1e-12);
        // Out of reach: all the room there is.
        let d = projection(&at, &slope, 9.0);
        assert!((d[0] - 0.5).abs() < 1e-12 && (d[2] + 0.1).abs() < 1e-12);
        assert_eq!(projection(&at, &[0.0; 4], 1.0), [0.0; 4]);
    }

    #[test]
    fn a_linear_network_is_broken_at_its_exact_distance() {
        // The distance to a hyperplane of a linear network is lead / |slope|_1 where pixels
        // have room.
        let network = crate::synthetic::linear(4).unwrap().precise().unwrap();
        let image = Rows::new(784, vec![0.5; 784]);
        let logits = network.evaluate(&image, 1).unwrap();
        let own = clear::class(logits.row(0)) as u8;
        let zero = network
            .evaluate(&Rows::new(784, vec![0.0; 784]), 1)
            .unwrap();
        let mut expected = f64::INFINITY;
        let units: Vec<f64> = (0..784 * 784)
            .map(|i| f64::from(i / 784 == i % 784))
            .collect();
        let columns = network.evaluate(&Rows::new(784, units), 1024).unwrap();
        for class in (0..10).filter(|&c| c != usize::from(own)) {
            let own = usize::from(own);
            let lead = logits.row(0)[own] - logits.row(0)[class];
            let norm: f64 = columns
                .iter()
                .map(|row| {
                    ((row[own] - zero.row(0)[own]) - (row[class] - zero.row(0)[class])).abs()
                })
                .sum();
            expected = expected.min(lead / norm);
        }
        let method = Fab {
            iterations: 20,
            ..METHOD
        };
        let nearest = (0..9).map(|round| {
            let aim = ranked(logits.row(0), own)[round];
            method.search(&network, &image, &[own], &[aim]).unwrap()[0].0
        });
        let nearest = nearest.fold(f64::INFINITY, f64::min);
        assert!(
            (expected..expected * 1.06).contains(&nearest),
            "{nearest} {expected}"
        );
    }

    #[test]
    fn what_lies_beyond_eps_is_no_example() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let method = Fab {
            iterations: 15,
            targets: 2,
            ..METHOD
        };
        let examples = method.craft(&network, &images, &labels, 0.05).unwrap();
        let mut changed = 0;
        for (a, b) in examples.iter().zip(images.iter()) {
            let far = a
                .iter()
                .zip(b)
                .fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(far <= 0.05);
            changed += usize::from(far > 0.0);
        }
        assert!((1..images.len()).contains(&changed), "{changed}");
    }
}
