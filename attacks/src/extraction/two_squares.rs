//! Exact extraction of a network with two squares, from its scores.
//!
//! Each logit of `V (W2 (W1 x + d1)^2 + d2)^2 + b` is a polynomial of degree 4 whose
//! gradients lie in the span of the `h1` rows of `W1`. Five-point stencils are exact for
//! degree 4 at any step, so gradients at a few random points give the span; inside it
//! the polynomials are interpolated (`super::quartic`), and their degree-4 parts give
//! the rows of `W1` up to scale and order. For 784 inputs, 10 logits and `h1` = 12 these
//! are 24 + 2 * 3136 + 1820 = 8116 queries. The interpolation grows with the fourth power of
//! `h1`: for 100 units it would take 4.6 million queries.
//!
//! The architecture need not be known: that the scores are of degree 4 is read off
//! fifth differences, and `h1` off singular values.

use chacha20::ChaCha8Rng;
use nalgebra::{DMatrix, DVector};
use rand_core::SeedableRng;

use super::exact::{
    ACCESS, Method, Oracle, drop_of, exactly, largest_difference, left_singular, majority,
};
use super::quartic::{Quartic, exponents, point};
use super::victim::{Plans, Victim};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::plain::{Plain, classes};
use crate::random;
use crate::record::{Finding, Scale, Verdict};
use crate::stats::agreement;
use crate::target::{Activation, Evaluation, Grants, Rows, Target, View};

use he_nn::model::Shape;
use he_nn::train::LayerSpec;

/// Most hidden units of the first layer that are interpolated.
const MOST_UNITS: usize = 16;

/// Points at which gradients are read, at most.
const MOST_POINTS: usize = 3;

/// A drop between singular values that ends the span.
const DROP: f64 = 50.0;

/// Vectors beyond the span that must show the drop.
const SPARE: usize = 3;

/// Fifth differences of this share of the fourth's size are still noise.
const BENT: f64 = 0.05;

/// Fourth differences of this share of the values' are none: the scores are quadratic.
const FLAT: f64 = 1e-6;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct TwoSquares;

/// What is extracted: polynomials of degree 4 on a subspace.
struct Network {
    basis: DMatrix<f64>,
    step: f64,
    quartic: Quartic,
}

impl Network {
    fn evaluate(&self, samples: &Rows, outputs: usize) -> Rows {
        let logits = samples.iter().flat_map(|row| {
            let at = self.basis.tr_mul(&DVector::from_column_slice(row)) / self.step;
            self.quartic.evaluate(at.as_slice())
        });
        Rows::new(outputs, logits.collect())
    }

    /// Rows of the first layer as unit vectors, up to sign and order.
    fn first_layer(&self, seed: u64) -> Vec<DVector<f64>> {
        let forms = self.quartic.linear_forms(seed);
        forms.iter().map(|form| &self.basis * form).collect()
    }
}

/// How an extraction ended.
enum Ended {
    Network(Network),
    /// The scores are of another degree.
    Not(String),
    /// The first layer is wider than what is interpolated.
    Wide(usize),
    /// Singular values of so many gradients show no drop.
    Hidden(usize),
    Budget,
}

/// What is wrong with the degree, or nothing; `None` beyond the budget.
fn degree(
    oracle: &mut Oracle<'_, '_>,
    rng: &mut ChaCha8Rng,
) -> Result<Option<Result<(), String>>, AttackError> {
    let inputs = oracle.target.about().inputs;
    let step = oracle.method.radius / (inputs as f64).sqrt();
    let (mut fifth, mut fourth, mut size) = (0.0f64, 0.0f64, 0.0f64);
    for _ in 0..4 {
        let direction: Vec<f64> = (0..inputs).map(|_| random::normal(rng)).collect();
        let at = |t: f64| direction.iter().map(|d| t * step * d).collect::<Vec<f64>>();
        // Not around 0: what is even there has no fifth difference either.
        let queries: Vec<Vec<f64>> = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0].map(at).to_vec();
        let Some(f) = oracle.ask(&queries)? else {
            return Ok(None);
        };
        for k in 0..f.ncols() {
            let of = |weights: &[f64]| -> f64 {
                weights.iter().enumerate().map(|(i, w)| w * f[(i, k)]).sum()
            };
            fifth += of(&[-1.0, 5.0, -10.0, 10.0, -5.0, 1.0]).powi(2);
            fourth += of(&[1.0, -4.0, 6.0, -4.0, 1.0]).powi(2);
            size += of(&[1.0, -2.0, 1.0]).powi(2);
        }
    }
    let name = &oracle.target.about().name;
    let share = (fifth / fourth.max(f64::MIN_POSITIVE)).sqrt();
    Ok(Some(if fourth.sqrt() < FLAT * size.sqrt() {
        Err(format!(
            "the scores of {name} are of degree 2: extraction-exact is for them"
        ))
    } else if share > BENT {
        Err(format!(
            "the scores of {name} are of no degree up to 4, or noise hides it: their fifth differences are {share:.3} of the fourth"
        ))
    } else {
        Ok(())
    }))
}

/// Extracts the network behind a service.
fn extract(oracle: &mut Oracle<'_, '_>, seed: u64) -> Result<Ended, AttackError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let inputs = oracle.target.about().inputs;
    let step = oracle.method.radius;
    match degree(oracle, &mut rng)? {
        None => return Ok(Ended::Budget),
        Some(Err(reason)) => return Ok(Ended::Not(reason)),
        Some(Ok(())) => {}
    }
    // Gradients by five-point stencils, until their span no longer grows.
    let mut columns: Vec<DVector<f64>> = Vec::new();
    let mut found = None;
    for _ in 0..MOST_POINTS {
        let mut u: Vec<f64> = (0..inputs).map(|_| random::normal(&mut rng)).collect();
        let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt();
        u.iter_mut().for_each(|x| *x *= step / norm);
        let shifts = [-2.0, -1.0, 1.0, 2.0];
        let queries = (0..inputs).flat_map(|i| {
            let u = &u;
            shifts.map(move |shift| {
                let mut x = u.clone();
                x[i] += shift * step;
                x
            })
        });
        let Some(f) = oracle.ask(&queries.collect::<Vec<_>>())? else {
            return Ok(Ended::Budget);
        };
        for k in 0..f.ncols() {
            let slope = (0..inputs).map(|i| {
                let at = |j: usize| f[(4 * i + j, k)];
                (at(0) - 8.0 * at(1) + 8.0 * at(2) - at(3)) / (12.0 * step)
            });
            columns.push(DVector::from_iterator(inputs, slope));
        }
        let (vectors, values) = left_singular(&DMatrix::from_columns(&columns));
        let (rank, drop) = drop_of(&values);
        if drop >= DROP && rank + SPARE <= columns.len() {
            found = Some(vectors.columns(0, rank).into_owned());
            break;
        }
    }
    let Some(basis) = found else {
        return Ok(Ended::Hidden(columns.len()));
    };
    let units = basis.ncols();
    if units > MOST_UNITS {
        return Ok(Ended::Wide(units));
    }
    let lattice = exponents(units);
    let queries = lattice.iter().map(|exponent| {
        let at = DVector::from_vec(point(exponent, units));
        let x: DVector<f64> = &basis * at * step;
        x.iter().copied().collect::<Vec<f64>>()
    });
    let Some(values) = oracle.ask(&queries.collect::<Vec<_>>())? else {
        return Ok(Ended::Budget);
    };
    Ok(Ended::Network(Network {
        quartic: Quartic::interpolated(units, &values),
        basis,
        step,
    }))
}

/// One step: an extraction of this target.
fn step(case: &mut Case<'_, '_>, radius: f64) -> Result<(), AttackError> {
    let images = &case.data.test.images;
    let samples = images.len().min(case.run.by_scale(500, 5000));
    let images = Rows::images(&images[..samples]);
    let of_step = params([("radius", radius.into()), ("samples", samples.into())]);
    case.step(of_step, |case| {
        let seed = case.run.seed;
        let mut oracle = Oracle {
            target: &mut case.target,
            method: Method {
                radius,
                decimals: None,
                budget: u64::MAX,
                broken: false,
            },
            used: 0,
        };
        let ended = extract(&mut oracle, seed)?;
        let used = oracle.used;
        let queries = Finding::new("attack_queries", exactly(used as f64));
        let network = match ended {
            Ended::Not(reason) => return Ok(vec![Finding::not_applicable(&reason)]),
            Ended::Budget => return Ok(vec![queries]),
            Ended::Wide(units) => {
                let reason = format!(
                    "a first layer of {units} units or more: only up to {MOST_UNITS} are interpolated, as the queries grow with the fourth power"
                );
                let units = Finding::new("hidden_units_at_least", exactly(units as f64));
                return Ok(vec![units.remark(&reason), queries]);
            }
            Ended::Hidden(gradients) => {
                let reason = format!(
                    "no drop among the singular values of {gradients} gradients: the first layer is wider, or noise hides it"
                );
                return Ok(vec![queries.verdict(Verdict::Failure, &reason)]);
            }
            Ended::Network(network) => network,
        };
        let truth = case.target.scores(&images)?;
        let found = network.evaluate(&images, truth.width());
        let (own, labels) = (classes(&found), classes(&truth));
        let majority = majority(&labels);
        let units = network.basis.ncols();
        let rows = network.first_layer(seed).len();
        Ok(vec![
            Finding::new("agreement", agreement(&own, &labels))
                .baseline("majority", majority)
                .succeeds_above(majority, 0.0),
            Finding::new(
                "largest_logit_difference",
                exactly(largest_difference(&found, &truth)),
            ),
            Finding::new("hidden_units", exactly(units as f64)),
            Finding::new("first_layer_rows", exactly(rows as f64))
                .remark("rows of the first layer recovered up to scale and order"),
            queries,
        ])
    })
}

/// Networks that it trains to attack them.
fn plans(scale: Scale) -> Plans {
    const SMALL: [LayerSpec; 5] = [
        LayerSpec::Dense(4),
        LayerSpec::Square,
        LayerSpec::Dense(6),
        LayerSpec::Square,
        LayerSpec::Dense(10),
    ];
    const LARGE: [LayerSpec; 5] = [
        LayerSpec::Dense(12),
        LayerSpec::Square,
        LayerSpec::Dense(16),
        LayerSpec::Square,
        LayerSpec::Dense(10),
    ];
    let (name, layers, epochs) = match scale {
        Scale::Quick => ("784-4-6-10 two squares", &SMALL[..], 3),
        Scale::Full => ("784-12-16-10 two squares", &LARGE[..], 8),
    };
    Plans {
        name,
        layers,
        activation: Activation::Polynomial,
        epochs,
    }
}

impl Attack for TwoSquares {
    fn name(&self) -> &'static str {
        "extraction-two-squares"
    }

    fn about(&self) -> &'static str {
        "exact extraction of a network with two squares, by stencils and interpolation"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            // A quick run attacks encrypted what it trains, and the others in the clear.
            if case.one_sample() {
                return Ok(());
            }
            let clear = case.target.about().evaluation == Evaluation::Clear;
            step(case, if clear { 1.0 } else { 10.0 })
        })?;
        let (all, deploy, seed) = (context.data, context.deploy, context.run.seed);
        for data in all {
            let plans = plans(context.run.scale);
            let mut evaluations = vec![None];
            evaluations.extend(deploy.map(|deploy| Some((deploy, Evaluation::Encrypted))));
            for deployed in evaluations {
                let radii = match deployed {
                    None => &[1.0][..],
                    Some(_) => context.run.by_scale(&[10.0][..], &[1.0, 4.0, 10.0, 20.0]),
                };
                let mut victim = Victim::new(plans, &data.name, &data.train, deployed, seed);
                for &radius in radii {
                    context.own_target(self, &mut victim, data, |case| step(case, radius))?;
                }
            }
        }
        Ok(())
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 1e-6;
        let control = |name, must, activation, broken| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let found = attempt(14, [4, 6], activation, broken, seed)?;
                // The network and the directions of its first layer.
                let value = found.map_or(f64::MAX, |(error, _, rows)| {
                    error.max(1.0 - worst_row(&rows))
                });
                Ok(Outcome {
                    succeeded: value < BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("two squares", Must::Succeed, LayerSpec::Square, false),
            control("rectifiers", Must::Fail, LayerSpec::Relu, false),
            control("broken on purpose", Must::Fail, LayerSpec::Square, true),
        ]
    }
}

/// Largest error of a logit on random inputs, queries, and rows of the first layer:
/// recovered and true.
type Attempt = (f64, u64, [Vec<DVector<f64>>; 2]);

/// Extracts a random network; `None` if there was no network.
fn attempt(
    inputs: u16,
    hidden: [u16; 2],
    activation: LayerSpec,
    broken: bool,
    seed: u64,
) -> Result<Option<Attempt>, AttackError> {
    let layers = [
        LayerSpec::Dense(hidden[0]),
        activation,
        LayerSpec::Dense(hidden[1]),
        activation,
        LayerSpec::Dense(10),
    ];
    let network = Differentiable::untrained(Shape::flat(inputs), &layers, seed)?.precise()?;
    let kind = match activation {
        LayerSpec::Relu => Activation::Relu,
        _ => Activation::Polynomial,
    };
    let weights = network.variables()[0].flatten_all()?.to_vec1::<f64>()?;
    let rows = weights.chunks_exact(usize::from(inputs));
    let rows = rows.map(|row| DVector::from_column_slice(row).normalize());
    let rows: Vec<DVector<f64>> = rows.collect();
    let mut target = Plain::new("random", "random", kind, network);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let samples = (0..100 * usize::from(inputs)).map(|_| random::uniform(&mut rng));
    let samples = Rows::new(usize::from(inputs), samples.collect());
    let truth = target.observe(&samples, ACCESS)?.scores;
    let mut view = View::new(&mut target, ACCESS);
    let mut oracle = Oracle {
        target: &mut view,
        method: Method {
            radius: 1.0,
            decimals: None,
            budget: u64::MAX,
            broken,
        },
        used: 0,
    };
    let Ended::Network(network) = extract(&mut oracle, seed)? else {
        return Ok(None);
    };
    let error = largest_difference(&network.evaluate(&samples, 10), &truth);
    Ok(Some((
        error,
        oracle.used,
        [network.first_layer(seed), rows],
    )))
}

/// The cosine of the true row that was recovered worst.
fn worst_row([own, truth]: &[Vec<DVector<f64>>; 2]) -> f64 {
    let best = |row: &DVector<f64>| own.iter().map(|o| o.dot(row).abs()).fold(0.0, f64::max);
    truth.iter().map(best).fold(1.0, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extraction::victim::mnist;

    #[test]
    fn twelve_and_sixteen_units_are_extracted_with_the_rows_of_the_first_layer() {
        let found = attempt(60, [12, 16], LayerSpec::Square, false, 3).unwrap();
        let (error, queries, rows) = found.unwrap();
        assert!(error < 1e-6, "{error}");
        assert!(queries <= 24 + 3 * 240 + 1820, "{queries}");
        assert_eq!(rows[0].len(), 12);
        assert!(worst_row(&rows) > 1.0 - 1e-6, "{}", worst_row(&rows));
    }

    #[test]
    fn a_first_layer_as_wide_as_the_gradients_is_not_counted() {
        let layers = [40, 16, 10].map(LayerSpec::Dense);
        let square = LayerSpec::Square;
        let layers = [layers[0], square, layers[1], square, layers[2]];
        let network = Differentiable::untrained(Shape::flat(60), &layers, 2).unwrap();
        let network = network.precise().unwrap();
        let mut target = Plain::new("random", "random", Activation::Polynomial, network);
        let mut view = View::new(&mut target, ACCESS);
        let mut oracle = Oracle {
            target: &mut view,
            method: Method {
                radius: 1.0,
                decimals: None,
                budget: u64::MAX,
                broken: false,
            },
            used: 0,
        };
        let ended = extract(&mut oracle, 2).unwrap();
        assert!(matches!(ended, Ended::Hidden(30)));
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "figures of the long form")]
    fn a_network_trained_on_mnist_is_extracted() {
        let Some([train, test]) = mnist() else { return };
        let mut victim = Victim::new(plans(Scale::Full), "mnist", &train, None, 1);
        let mut view = View::new(&mut victim, ACCESS);
        let mut oracle = Oracle {
            target: &mut view,
            method: Method {
                radius: 1.0,
                decimals: None,
                budget: u64::MAX,
                broken: false,
            },
            used: 0,
        };
        let Ended::Network(network) = extract(&mut oracle, 1).unwrap() else {
            panic!("no network");
        };
        let queries = oracle.used;
        let judge = Rows::images(&test.images[..1000]);
        let truth = view.scores(&judge).unwrap();
        let error = largest_difference(&network.evaluate(&judge, 10), &truth);
        let rows = network.first_layer(1).len();
        println!("error {error:e}, {queries} queries, {rows} rows");
        assert!(error < 1e-6 && queries <= 8116, "{error} {queries}");
        assert_eq!(rows, 12);
    }
}
