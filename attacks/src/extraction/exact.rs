//! Exact extraction of a network with one square, from its scores.
//!
//! Each logit of `V (W x + d)^2 + b` is a quadratic form `c + g x + x' A x`, and all `A`
//! and `g` lie in the span of the `h` rows of `W`. So the attack reads `f(0)` and
//! `f(±r e_i)`, polarises random directions `u` for the vectors `A u` (as many at once
//! as there are logits), finds the span in their singular values, and polarises inside
//! it. A large drop between singular values ends the search, or a smaller one that stays
//! where it is with the next direction, as noise makes it. For 784 inputs, 10 logits and `h` = 32 these are 1569 + 5 * 785 + 528 = 6022
//! queries. The architecture need not be known: `h` is read off the singular values,
//! and that there is one square off a third difference, which quadratic forms have not.
//!
//! Noise on the scores counts for less the larger `r` is: a service on encrypted inputs
//! cannot check their range, and only the modulus limits it.

use chacha20::ChaCha8Rng;
use nalgebra::{DMatrix, DVector};
use rand_core::SeedableRng;

use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::plain::{Plain, classes};
use crate::random;
use crate::record::{Finding, Verdict};
use crate::stats::{Estimate, agreement, wilson};
use crate::target::{Access, Activation, Grants, Rows, Target, View};

use he_nn::model::Shape;
use he_nn::train::LayerSpec;

/// What it needs.
pub const ACCESS: Grants = Grants::of(&[Access::Scores]);

/// Queries of one request.
const BATCH: usize = 4096;

/// A drop between singular values that ends the span at once.
const DROP: f64 = 50.0;

/// One that ends it where it stays at its place with the next direction.
const DROP_THAT_STAYS: f64 = 10.0;

/// Vectors beyond the span that must show the drop.
const SPARE: usize = 5;

/// Vectors after which a span without a clear end is taken as it is.
const MOST_COLUMNS: usize = 200;

/// Most queries that an attack takes.
pub(super) const MOST: u64 = 60_000;

/// Third differences of this share of the second's size are still noise.
const CURVED: f64 = 0.05;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

/// How it goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    /// Length of the queries.
    pub radius: f64,
    /// Digits after the point that the service gives; all if none.
    pub decimals: Option<i32>,
    /// Queries that the service answers.
    pub budget: u64,
    /// Broken on purpose: answers are taken for those of the next query.
    pub broken: bool,
}

/// The service as the attack asks it.
pub(super) struct Oracle<'o, 't> {
    pub target: &'o mut View<'t>,
    pub method: Method,
    pub used: u64,
}

impl Oracle<'_, '_> {
    /// The answers, one row per query; `None` beyond the budget.
    pub(super) fn ask(
        &mut self,
        queries: &[Vec<f64>],
    ) -> Result<Option<DMatrix<f64>>, AttackError> {
        if self.used + queries.len() as u64 > self.method.budget {
            return Ok(None);
        }
        self.used += queries.len() as u64;
        let (inputs, outputs) = (self.target.about().inputs, self.target.about().classes);
        let mut values = Vec::with_capacity(queries.len() * outputs);
        for part in queries.chunks(BATCH) {
            let rows = Rows::new(inputs, part.concat());
            values.extend_from_slice(self.target.scores(&rows)?.values());
        }
        if let Some(decimals) = self.method.decimals {
            let unit = 10f64.powi(decimals);
            values
                .iter_mut()
                .for_each(|v| *v = (*v * unit).round() / unit);
        }
        if self.method.broken {
            values.rotate_left(outputs);
        }
        let width = values.len() / queries.len().max(1);
        Ok(Some(DMatrix::from_row_slice(queries.len(), width, &values)))
    }
}

/// A network with one square, as its quadratic forms on a subspace.
#[derive(Clone, Debug)]
struct Quadratic {
    /// Value at 0 of each logit.
    constants: DVector<f64>,
    /// Gradient at 0: one column per logit.
    gradients: DMatrix<f64>,
    /// Orthonormal columns.
    basis: DMatrix<f64>,
    /// One symmetric matrix per logit, on the basis.
    forms: Vec<DMatrix<f64>>,
}

impl Quadratic {
    fn evaluate(&self, samples: &Rows) -> Rows {
        let logits = samples.iter().flat_map(|row| {
            let x = DVector::from_column_slice(row);
            let y = self.basis.tr_mul(&x);
            let linear = self.gradients.tr_mul(&x);
            (0..self.forms.len())
                .map(|k| self.constants[k] + linear[k] + y.dot(&(&self.forms[k] * &y)))
                .collect::<Vec<f64>>()
        });
        Rows::new(self.forms.len(), logits.collect())
    }
}

/// How an extraction ended.
enum Ended {
    /// With a network; the drop of the singular values behind its span.
    Network(Quadratic, f64),
    /// The scores are no quadratic forms.
    NotQuadratic(f64),
    /// More queries were needed than the service answers.
    Budget,
}

/// Third difference over second along random directions: 0 for quadratic forms.
fn curvature(
    oracle: &mut Oracle<'_, '_>,
    rng: &mut ChaCha8Rng,
) -> Result<Option<f64>, AttackError> {
    let inputs = oracle.target.about().inputs;
    let step = oracle.method.radius / (inputs as f64).sqrt();
    let (mut third, mut second) = (0.0f64, 0.0f64);
    for _ in 0..4 {
        let direction: Vec<f64> = (0..inputs).map(|_| random::normal(rng)).collect();
        let at = |t: f64| direction.iter().map(|d| t * step * d).collect::<Vec<f64>>();
        // Not around 0: what is even there has no third difference either.
        let queries: Vec<Vec<f64>> = [-1.0, 0.0, 1.0, 2.0].map(at).to_vec();
        let Some(f) = oracle.ask(&queries)? else {
            return Ok(None);
        };
        for k in 0..f.ncols() {
            let d3 = f[(3, k)] - 3.0 * f[(2, k)] + 3.0 * f[(1, k)] - f[(0, k)];
            third += d3 * d3;
            let d2 = f[(2, k)] - 2.0 * f[(1, k)] + f[(0, k)];
            second += d2 * d2;
        }
    }
    Ok(Some((third / second.max(f64::MIN_POSITIVE)).sqrt()))
}

/// Where singular values, largest first, drop most, and by how much.
pub(super) fn drop_of(values: &[f64]) -> (usize, f64) {
    let floor = values.first().copied().unwrap_or(0.0) * 1e-14;
    let ratios = values
        .windows(2)
        .map(|w| w[0] / w[1].max(floor).max(f64::MIN_POSITIVE));
    let mut best = (values.len(), 1.0);
    for (at, ratio) in ratios.enumerate() {
        if ratio > best.1 {
            best = (at + 1, ratio);
        }
        // What comes after the floor is rounding alone.
        if values[at + 1] <= floor {
            break;
        }
    }
    best
}

/// Left singular vectors with their values, largest first.
pub(super) fn left_singular(vectors: &DMatrix<f64>) -> (DMatrix<f64>, Vec<f64>) {
    let svd = vectors.clone().svd(true, false);
    let mut order: Vec<usize> = (0..svd.singular_values.len()).collect();
    order.sort_by(|&a, &b| svd.singular_values[b].total_cmp(&svd.singular_values[a]));
    let values = order.iter().map(|&i| svd.singular_values[i]).collect();
    let columns = svd.u.map_or_else(
        || DMatrix::zeros(vectors.nrows(), 0),
        |u| {
            let columns: Vec<_> = order.iter().map(|&i| u.column(i).into_owned()).collect();
            DMatrix::from_columns(&columns)
        },
    );
    (columns, values)
}

/// Extracts the network behind a service.
fn extract(oracle: &mut Oracle<'_, '_>, seed: u64) -> Result<Ended, AttackError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let inputs = oracle.target.about().inputs;
    let r = oracle.method.radius;
    let axis = |i: usize, by: f64| {
        let mut x = vec![0.0; inputs];
        x[i] = by;
        x
    };
    match curvature(oracle, &mut rng)? {
        None => return Ok(Ended::Budget),
        Some(found) if found > CURVED => return Ok(Ended::NotQuadratic(found)),
        Some(_) => {}
    }

    // f(0), f(r e_i), f(-r e_i).
    let mut queries = vec![vec![0.0; inputs]];
    queries.extend((0..inputs).map(|i| axis(i, r)));
    queries.extend((0..inputs).map(|i| axis(i, -r)));
    let Some(answers) = oracle.ask(&queries)? else {
        return Ok(Ended::Budget);
    };
    let outputs = answers.ncols();
    let zero = answers.row(0).transpose();
    let plus = answers.rows(1, inputs).into_owned();
    let minus = answers.rows(1 + inputs, inputs);
    let gradients = (&plus - minus) / (2.0 * r);

    // A u by polarisation, until the span no longer grows.
    let mut columns: Vec<DVector<f64>> = Vec::new();
    let mut before = None;
    let (basis, found) = loop {
        let mut u: Vec<f64> = (0..inputs).map(|_| random::normal(&mut rng)).collect();
        let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt();
        u.iter_mut().for_each(|x| *x *= r / norm);
        let mut queries = vec![u.clone()];
        queries.extend((0..inputs).map(|i| {
            let mut x = u.clone();
            x[i] += r;
            x
        }));
        let Some(answers) = oracle.ask(&queries)? else {
            return Ok(Ended::Budget);
        };
        for k in 0..outputs {
            let image = (0..inputs).map(|i| {
                let mixed = answers[(i + 1, k)] - answers[(0, k)] - plus[(i, k)] + zero[k];
                mixed / (2.0 * r * r)
            });
            columns.push(DVector::from_iterator(inputs, image));
        }
        let (vectors, values) = left_singular(&DMatrix::from_columns(&columns));
        let (rank, ratio) = drop_of(&values);
        let spare = rank + SPARE <= columns.len();
        let here = (spare && ratio >= DROP_THAT_STAYS).then_some(rank);
        let ends = (spare && ratio >= DROP) || (here.is_some() && here == before);
        if ends || columns.len() >= inputs.min(MOST_COLUMNS) {
            break (vectors.columns(0, rank).into_owned(), ratio);
        }
        before = here;
    };

    // Polarisation inside the span.
    let h = basis.ncols();
    let direction = |i: usize| (basis.column(i) * r).iter().copied().collect::<Vec<f64>>();
    let mut queries: Vec<Vec<f64>> = (0..h).map(direction).collect();
    for i in 0..h {
        for j in i + 1..h {
            let sum = (basis.column(i) + basis.column(j)) * r;
            queries.push(sum.iter().copied().collect());
        }
    }
    let Some(answers) = oracle.ask(&queries)? else {
        return Ok(Ended::Budget);
    };
    let gradients = &basis * basis.tr_mul(&gradients);
    let slopes = basis.tr_mul(&gradients);
    let mut forms = vec![DMatrix::zeros(h, h); outputs];
    for (k, form) in forms.iter_mut().enumerate() {
        for i in 0..h {
            form[(i, i)] = (answers[(i, k)] - zero[k] - r * slopes[(i, k)]) / (r * r);
        }
        let mut at = h;
        for i in 0..h {
            for j in i + 1..h {
                let mixed = answers[(at, k)] - answers[(i, k)] - answers[(j, k)] + zero[k];
                form[(i, j)] = mixed / (2.0 * r * r);
                form[(j, i)] = form[(i, j)];
                at += 1;
            }
        }
    }
    let network = Quadratic {
        constants: zero,
        gradients,
        basis,
        forms,
    };
    Ok(Ended::Network(network, found))
}

/// Largest difference between two sets of logits.
pub(super) fn largest_difference(a: &Rows, b: &Rows) -> f64 {
    let pairs = a.values().iter().zip(b.values());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// What an extraction came to.
pub(super) enum Tried {
    /// With a network, judged.
    Findings(Vec<Finding>),
    /// The scores are no quadratic forms: third differences over second.
    NotQuadratic(f64),
    /// More queries were needed than these.
    Budget(u64),
}

/// Extracts the network behind a service and judges it on images with their labels.
pub(super) fn tried(
    target: &mut View<'_>,
    method: Method,
    (images, known): (&Rows, &[u8]),
    seed: u64,
) -> Result<Tried, AttackError> {
    let mut oracle = Oracle {
        target: &mut *target,
        method,
        used: 0,
    };
    let ended = extract(&mut oracle, seed)?;
    let used = oracle.used;
    let (network, ratio) = match ended {
        Ended::NotQuadratic(share) => return Ok(Tried::NotQuadratic(share)),
        Ended::Budget => return Ok(Tried::Budget(used)),
        Ended::Network(network, ratio) => (network, ratio),
    };
    let truth = target.scores(images)?;
    let found = network.evaluate(images);
    let (own, labels) = (classes(&found), classes(&truth));
    let majority = majority(&labels);
    Ok(Tried::Findings(vec![
        Finding::new("agreement", agreement(&own, &labels))
            .baseline("majority", majority)
            .succeeds_above(majority, 0.0),
        Finding::new("accuracy", agreement(&own, known))
            .baseline("target", agreement(&labels, known).value),
        Finding::new(
            "largest_logit_difference",
            exactly(largest_difference(&found, &truth)),
        ),
        Finding::new("hidden_units", exactly(network.basis.ncols() as f64)),
        Finding::new("singular_value_drop", exactly(ratio)),
        Finding::new("attack_queries", exactly(used as f64)),
    ]))
}

/// That the attack does not apply.
pub(super) fn not_quadratic(target: &str, share: f64) -> Finding {
    let reason = format!(
        "the scores of {target} are no quadratic forms, or noise hides it at this length: their third differences are {share:.3} of the second"
    );
    Finding::not_applicable(&reason)
}

/// A figure that is no estimate.
pub(crate) const fn exactly(value: f64) -> Estimate {
    Estimate {
        value,
        ci95: [value; 2],
    }
}

impl Attack for Exact {
    fn name(&self) -> &'static str {
        "extraction-exact"
    }

    fn about(&self) -> &'static str {
        "exact extraction of a network with one square, by differences of its scores"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let samples = case
                .data
                .test
                .images
                .len()
                .min(case.run.by_scale(1000, 5000));
            let images = Rows::images(&case.data.test.images[..samples]);
            let seed = case.run.seed;
            let quick = [(1.0, None, MOST), (30.0, Some(2), MOST), (1.0, None, 2000)];
            let full = [
                (1.0, None, MOST),
                (30.0, None, MOST),
                (1.0, Some(4), MOST),
                (1.0, Some(2), MOST),
                (30.0, Some(2), MOST),
                (30.0, Some(1), MOST),
                (1.0, None, 8000),
                (1.0, None, 2000),
            ];
            // Where every query is evaluated alone, the radius at which noise is small.
            let sparing = [(30.0, None, MOST)];
            let methods = match case.sparing() {
                true => &sparing[..],
                false => case.run.by_scale(&quick[..], &full[..]),
            };
            for &(radius, decimals, budget) in methods {
                let of_step = params([
                    ("radius", radius.into()),
                    ("decimals", decimals.into()),
                    ("budget", budget.into()),
                    ("samples", samples.into()),
                ]);
                case.step(of_step, |case| {
                    let name = case.target.about().name.clone();
                    let method = Method {
                        radius,
                        decimals,
                        budget,
                        broken: false,
                    };
                    let known = &case.data.test.labels[..samples];
                    match tried(&mut case.target, method, (&images, known), seed)? {
                        Tried::Findings(findings) => Ok(findings),
                        Tried::NotQuadratic(share) => Ok(vec![not_quadratic(&name, share)]),
                        Tried::Budget(used) => {
                            let reason = format!("more than {budget} queries were needed");
                            Ok(vec![
                                Finding::new("attack_queries", exactly(used as f64))
                                    .verdict(Verdict::Failure, &reason),
                            ])
                        }
                    }
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let control = |name, must, activation: LayerSpec, broken: bool| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let (error, _) = attempt(20, 6, activation, broken, seed)?;
                Ok(Outcome {
                    succeeded: error < 1e-6,
                    value: error,
                    bar: 1e-6,
                })
            }),
        };
        vec![
            control("one square", Must::Succeed, LayerSpec::Square, false),
            control("rectifiers", Must::Fail, LayerSpec::Relu, false),
            control("broken on purpose", Must::Fail, LayerSpec::Square, true),
        ]
    }
}

/// The share of the commonest label.
pub(crate) fn majority(labels: &[u8]) -> f64 {
    let mut counts = [0usize; 256];
    labels
        .iter()
        .for_each(|&label| counts[usize::from(label)] += 1);
    let most = counts.into_iter().max().unwrap_or(0);
    wilson(most, labels.len()).value
}

/// Extracts a random network and gives the largest error on random inputs, infinite if
/// there was no network, and the queries.
fn attempt(
    inputs: u16,
    hidden: u16,
    activation: LayerSpec,
    broken: bool,
    seed: u64,
) -> Result<(f64, u64), AttackError> {
    let layers = [LayerSpec::Dense(hidden), activation, LayerSpec::Dense(10)];
    let network = Differentiable::untrained(Shape::flat(inputs), &layers, seed)?.precise()?;
    let kind = match activation {
        LayerSpec::Relu => Activation::Relu,
        _ => Activation::Polynomial,
    };
    let mut target = Plain::new("random", "random", kind, network);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let samples = (0..100 * usize::from(inputs)).map(|_| random::uniform(&mut rng));
    let samples = Rows::new(usize::from(inputs), samples.collect());
    let truth = target.observe(&samples, ACCESS)?.scores;
    let mut view = View::new(&mut target, ACCESS);
    let method = Method {
        radius: 1.0,
        decimals: None,
        budget: MOST,
        broken,
    };
    let mut oracle = Oracle {
        target: &mut view,
        method,
        used: 0,
    };
    let ended = extract(&mut oracle, seed)?;
    let used = oracle.used;
    Ok(match ended {
        Ended::Network(network, _) => (
            largest_difference(&network.evaluate(&samples), &truth),
            used,
        ),
        Ended::NotQuadratic(_) | Ended::Budget => (f64::INFINITY, used),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::Noisy;

    #[test]
    fn thirty_two_squares_take_fewer_than_8000_queries() {
        let (error, queries) = attempt(784, 32, LayerSpec::Square, false, 3).unwrap();
        assert!(error < 1e-6 && queries <= 8000, "{error} {queries}");
    }

    #[test]
    fn longer_queries_undo_noise() {
        let layers = [LayerSpec::Dense(8), LayerSpec::Square, LayerSpec::Dense(10)];
        let network = Differentiable::untrained(Shape::flat(60), &layers, 5).unwrap();
        let network = network.precise().unwrap();
        let plain = Plain::new("random", "random", Activation::Polynomial, network);
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let samples = (0..6000).map(|_| random::uniform(&mut rng)).collect();
        let samples = Rows::new(60, samples);
        let truth = plain.clone().observe(&samples, ACCESS).unwrap().scores;
        let error = |radius: f64| {
            let mut noisy = Noisy::new(plain.clone(), 1e-3, 7);
            let mut view = View::new(&mut noisy, ACCESS);
            let mut oracle = Oracle {
                target: &mut view,
                method: Method {
                    radius,
                    decimals: None,
                    budget: MOST,
                    broken: false,
                },
                used: 0,
            };
            match extract(&mut oracle, 1).unwrap() {
                Ended::Network(network, _) => {
                    largest_difference(&network.evaluate(&samples), &truth)
                }
                _ => f64::INFINITY,
            }
        };
        let (near, far) = (error(1.0), error(100.0));
        assert!(far < 0.02 && far < near / 5.0, "{near} {far}");
    }

    #[test]
    fn a_drop_is_where_values_fall() {
        assert_eq!(drop_of(&[8.0, 4.0, 0.04, 0.02]).0, 2);
        assert_eq!(drop_of(&[8.0, 4.0, 1e-15, 1e-18]).0, 2);
    }
}
