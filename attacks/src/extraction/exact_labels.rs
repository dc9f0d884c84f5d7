//! Extraction of a network with one square from labels alone.
//!
//! The logits of `V (W x + d)^2 + b` are quadratic forms, so a boundary between two
//! classes is a quadric, and its normals lie in the span of the rows of `W`. The attack
//! finds that span in normals of boundary points between images (`super::boundary`),
//! and inside it the quadric of each pair of classes and their scales
//! (`super::quadrics`). What it then knows is every logit up to one scale and one
//! common form: the classifier exactly.
//!
//! Normals cost two bisections per input and point, which is most of the queries. The
//! cheap form leaves them out and takes the principal components of public images for
//! the span: exact on that slice of the inputs, and an approximation elsewhere.
//!
//! Noise on the logits moves a boundary by the noise over the slope across it. Both
//! grow apart with the length of the queries, which a service on encrypted inputs
//! cannot check (`radius`).

use std::time::Instant;

use chacha20::ChaCha8Rng;
use he_nn::model::Shape;
use he_nn::train::LayerSpec;
use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rand_core::SeedableRng;

use super::boundary::{Labels, Probing, span};
use super::exact::{exactly, majority};
use super::quadrics::{Forms, Slice, extract, unknowns};
use super::victim::{Plans, Victim};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::plain::Plain;
use crate::random;
use crate::record::{Finding, Scale};
use crate::stats::agreement;
use crate::target::{Access, Activation, Evaluation, Grants, Rows, View};

/// What it needs.
const ACCESS: Grants = Grants::of(&[Access::Labels]);

/// Images of which principal components are taken, at most.
const COMPONENTS_OF: usize = 256;

/// Agreement from which on an extraction counts.
const BAR: f64 = 0.99;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct ExactLabels;

/// How the attack goes about it.
#[derive(Clone, Copy, Debug)]
struct Method {
    /// Principal components instead of the span of normals.
    components: Option<usize>,
    /// Factor on the queries.
    radius: f64,
    /// Bisections per boundary point.
    rounds: usize,
    /// Normals at most.
    most: usize,
    broken: bool,
}

impl Method {
    const fn components(count: usize, radius: f64, rounds: usize) -> Self {
        Self {
            components: Some(count),
            radius,
            rounds,
            most: 0,
            broken: false,
        }
    }

    const fn normals(most: usize, radius: f64, rounds: usize) -> Self {
        Self {
            components: None,
            radius,
            rounds,
            most,
            broken: false,
        }
    }

    /// About how many queries it takes for a network of so many hidden units.
    fn queries(&self, inputs: usize, hidden: usize, classes: usize) -> f64 {
        let rounds = self.rounds as f64;
        let normals = match self.components {
            Some(_) => 0.0,
            None => (2 * (hidden + 4) * inputs) as f64 * (rounds + 4.0),
        };
        let pairs = (classes * (classes - 1) / 2) as f64;
        let dimensions = self.components.unwrap_or(hidden);
        normals + 2.0 * pairs * 1.25 * unknowns(dimensions) as f64 * rounds
    }
}

/// What came of it.
struct Extracted {
    forms: Option<Forms>,
    /// The drop behind the span of normals, and their number.
    span: Option<(f64, usize)>,
    used: u64,
}

/// Principal components of images: their mean and orthonormal columns.
fn components(images: &Rows, count: usize) -> (DVector<f64>, DMatrix<f64>) {
    let taken: Vec<usize> = (0..images.len().min(COMPONENTS_OF)).collect();
    let rows: Vec<f64> = images.select(&taken).values().to_vec();
    let mut matrix = DMatrix::from_row_slice(taken.len(), images.width(), &rows);
    let mean = matrix.row_mean();
    for mut row in matrix.row_iter_mut() {
        row -= &mean;
    }
    let eigen = SymmetricEigen::new(&matrix * matrix.transpose());
    let mut order: Vec<usize> = (0..taken.len()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    // One fewer than images, as the mean is taken off them.
    order.truncate(count.min(taken.len().saturating_sub(1)).max(1));
    let columns: Vec<DVector<f64>> = order
        .iter()
        .map(|&i| matrix.tr_mul(&eigen.eigenvectors.column(i)))
        .collect();
    let basis = DMatrix::from_columns(&columns).qr().q();
    (mean.transpose(), basis)
}

/// Carries it out. `images` are the attacker's.
fn carried_out(
    target: &mut View<'_>,
    images: &Rows,
    method: Method,
    seed: u64,
) -> Result<Extracted, AttackError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut labels = Labels {
        target,
        used: 0,
        broken: method.broken,
    };
    let far = images.values().iter().map(|x| x * method.radius).collect();
    let far = Rows::new(images.width(), far);
    let mut found = None;
    let (centre, basis) = if let Some(count) = method.components {
        components(images, count)
    } else {
        let probing = Probing {
            offset: 0.05 * method.radius,
            rounds: method.rounds,
            most: method.most,
        };
        let Some(span) = span(&mut labels, &far, probing, &mut rng)? else {
            return Ok(Extracted {
                forms: None,
                span: None,
                used: labels.used,
            });
        };
        found = Some((span.drop, span.normals));
        (DVector::zeros(images.width()), span.basis)
    };
    let slice = Slice::new(centre, &basis, images);
    let (radius, rounds) = (method.radius, method.rounds + 14);
    let forms = extract(&mut labels, slice, images, radius, rounds, &mut rng)?;
    Ok(Extracted {
        forms,
        span: found,
        used: labels.used,
    })
}

/// One step: an extraction, judged on images that the attacker did not have.
fn step(
    case: &mut Case<'_, '_>,
    method: Method,
    natural: &Rows,
    judge: &Rows,
) -> Result<(), AttackError> {
    let of_step = params([
        ("components", method.components.into()),
        ("radius", method.radius.into()),
        ("rounds", method.rounds.into()),
        ("samples", judge.len().into()),
    ]);
    case.step(of_step, |case| {
        let seed = case.run.seed;
        let found = carried_out(&mut case.target, natural, method, seed)?;
        let mut all = vec![Finding::new("attack_queries", exactly(found.used as f64))];
        if let Some((drop, normals)) = found.span {
            all.push(Finding::new("singular_value_drop", exactly(drop)));
            all.push(Finding::new("normals", exactly(normals as f64)));
        }
        let truth = case.target.labels(judge)?;
        let majority = majority(&truth);
        let Some(forms) = found.forms else {
            let none = agreement::<u8>(&[], &truth);
            let reason = "no boundary between classes could be fitted";
            all.push(
                Finding::new("agreement", none)
                    .succeeds_above(majority, 0.0)
                    .remark(reason),
            );
            return Ok(all);
        };
        let own = forms.classes(judge);
        let dimensions = forms.slice.dimensions();
        if method.components.is_some() {
            let projected = forms.slice.projected(judge);
            let truth = case.target.labels(&projected)?;
            let inside = agreement(&forms.classes(&projected), &truth);
            all.push(Finding::new("agreement_in_slice", inside).succeeds_above(BAR, -0.01));
        }
        let mut judged =
            Finding::new("agreement", agreement(&own, &truth)).baseline("majority", majority);
        // A slice is all that components claim.
        if method.components.is_none() {
            judged = judged.succeeds_above(majority, 0.0);
        }
        all.extend([
            judged,
            Finding::new("dimensions", exactly(dimensions as f64)),
            Finding::new("pairs", exactly(forms.pairs as f64)),
        ]);
        Ok(all)
    })
}

/// How long an extraction would take at the rate of a target.
fn priced(case: &mut Case<'_, '_>, hidden: usize, judge: &Rows) -> Result<(), AttackError> {
    let method = Method::normals(0, 1.0, 26);
    let alone = case.target.about().evaluation == Evaluation::EncryptedWeights;
    let count = if alone { 20 } else { 2048 };
    let few = judge.select(&(0..judge.len().min(count)).collect::<Vec<_>>());
    let of_step = params([("hidden", hidden.into()), ("samples", few.len().into())]);
    case.step(of_step, |case| {
        let about = case.target.about();
        let queries = method.queries(about.inputs, hidden, about.classes);
        // What is made when it is first asked is none of the rate.
        case.target.labels(&few)?;
        let start = Instant::now();
        case.target.labels(&few)?;
        let rate = few.len() as f64 / start.elapsed().as_secs_f64();
        let remark = "a price at this rate: no extraction was tried";
        Ok(vec![
            Finding::new("queries_needed", exactly(queries.round())).remark(remark),
            Finding::new("queries_per_second", exactly(rate)),
            Finding::new("hours_needed", exactly(queries / rate / 3600.0)).remark(remark),
        ])
    })
}

/// Networks that it trains to attack them.
fn plans(scale: Scale) -> Vec<(Plans, Method)> {
    const SMALL: [LayerSpec; 3] = [LayerSpec::Dense(4), LayerSpec::Square, LayerSpec::Dense(10)];
    const WHOLE: [LayerSpec; 3] = [
        LayerSpec::Dense(32),
        LayerSpec::Square,
        LayerSpec::Dense(10),
    ];
    let of = |name, layers, epochs| Plans {
        name,
        layers,
        activation: Activation::Polynomial,
        epochs,
    };
    let small = of("784-4-10 square", &SMALL[..], 4);
    match scale {
        Scale::Quick => vec![(small, Method::normals(16, 1.0, 22))],
        Scale::Full => vec![
            (small, Method::normals(16, 1.0, 26)),
            (
                of("784-32-10 square", &WHOLE[..], 8),
                Method::normals(64, 1.0, 26),
            ),
        ],
    }
}

impl Attack for ExactLabels {
    fn name(&self) -> &'static str {
        "extraction-exact-labels"
    }

    fn about(&self) -> &'static str {
        "extraction of a network with one square from labels alone, by its boundaries"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let most = context.run.by_scale(2048, 5000);
        let parts = |data: &crate::Data| {
            let images = &data.test.images;
            let kept = (images.len() / 2).min(most);
            let (judge, natural) = images.split_at(kept);
            (Rows::images(judge), Rows::images(natural.iter().take(2000)))
        };
        // A quick run takes the first network of each data set and evaluation.
        let mut taken: Vec<(String, Evaluation)> = Vec::new();
        context.each_target(self, |case| {
            let (judge, natural) = parts(case.data);
            let evaluation = case.target.about().evaluation;
            let kind = (case.data.name.clone(), evaluation);
            if case.run.scale == Scale::Quick && taken.contains(&kind) {
                return Ok(());
            }
            taken.push(kind);
            if evaluation == Evaluation::EncryptedWeights || case.one_sample() {
                return priced(case, 64, &judge);
            }
            let quick = [Method::components(4, 1.0, 10)];
            let full = [
                Method::components(8, 1.0, 26),
                Method::components(8, 1.0, 10),
                Method::components(16, 1.0, 26),
            ];
            // Noise hides what a longer search would find, and longer queries outdo it.
            let noisy = [
                Method::components(3, 1.0, 10),
                Method::components(3, 10.0, 10),
            ];
            let methods = match evaluation {
                Evaluation::Clear => case.run.by_scale(&quick[..], &full[..]),
                _ => &noisy[..],
            };
            for &method in methods {
                step(case, method, &natural, &judge)?;
            }
            Ok(())
        })?;
        let (all, deploy, seed) = (context.data, context.deploy, context.run.seed);
        for data in all {
            let (judge, natural) = parts(data);
            for (plans, method) in plans(context.run.scale) {
                let mut victim = Victim::new(plans, &data.name, &data.train, None, seed);
                context.own_target(self, &mut victim, data, |case| {
                    step(case, method, &natural, &judge)
                })?;
                let affordable = context.run.scale == Scale::Full && method.most <= 16;
                let Some(deploy) = deploy.filter(|_| affordable) else {
                    continue;
                };
                let deployed = Some((deploy, Evaluation::Encrypted));
                let mut victim = Victim::new(plans, &data.name, &data.train, deployed, seed);
                for radius in [1.0, 10.0] {
                    let method = Method::normals(method.most, radius, 16);
                    context.own_target(self, &mut victim, data, |case| {
                        step(case, method, &natural, &judge)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let control = |name, must, activation, broken| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let value = attempt(16, 4, activation, broken, seed)?.0;
                Ok(Outcome {
                    succeeded: value >= BAR,
                    value,
                    bar: BAR,
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

/// Extracts a random network of 5 classes and gives the agreement on random inputs, the
/// queries and the dimensions of the span.
fn attempt(
    inputs: u16,
    hidden: u16,
    activation: LayerSpec,
    broken: bool,
    seed: u64,
) -> Result<(f64, u64, usize), AttackError> {
    let layers = [LayerSpec::Dense(hidden), activation, LayerSpec::Dense(5)];
    let network = Differentiable::untrained(Shape::flat(inputs), &layers, seed)?.precise()?;
    let kind = match activation {
        LayerSpec::Relu => Activation::Relu,
        _ => Activation::Polynomial,
    };
    let mut target = Plain::new("random", "random", kind, network);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let mut drawn = |count: usize| {
        let values = (0..count * usize::from(inputs)).map(|_| random::normal(&mut rng));
        Rows::new(usize::from(inputs), values.collect())
    };
    let (natural, judge) = (drawn(200), drawn(1000));
    let mut view = View::new(&mut target, ACCESS);
    let method = Method {
        broken,
        ..Method::normals(16, 1.0, 26)
    };
    let found = carried_out(&mut view, &natural, method, seed)?;
    let truth = view.labels(&judge)?;
    let Some(forms) = found.forms else {
        return Ok((0.0, found.used, 0));
    };
    let value = agreement(&forms.classes(&judge), &truth).value;
    Ok((value, found.used, forms.slice.dimensions()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extraction::victim::mnist;

    #[test]
    fn the_span_is_as_wide_as_the_hidden_layer() {
        let (agreement, queries, dimensions) = attempt(24, 6, LayerSpec::Square, false, 3).unwrap();
        assert_eq!(dimensions, 6);
        assert!(agreement >= 0.995, "{agreement} {queries}");
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "figures of the long form")]
    fn networks_trained_on_mnist_are_extracted_from_labels() {
        let Some([train, test]) = mnist() else { return };
        let natural = Rows::images(&test.images[5000..7000]);
        let judge = Rows::images(&test.images[..5000]);
        for (scale, hidden, most) in [(Scale::Quick, 4, 600_000), (Scale::Full, 32, 8_000_000)] {
            let (plans, method) = plans(scale).pop().unwrap();
            let mut victim = Victim::new(plans, "mnist", &train, None, 1);
            let mut view = View::new(&mut victim, ACCESS);
            let start = Instant::now();
            let found = carried_out(&mut view, &natural, method, 1).unwrap();
            let (queries, forms) = (found.used, found.forms.unwrap());
            let truth = view.labels(&judge).unwrap();
            let value = agreement(&forms.classes(&judge), &truth).value;
            let (span, seconds) = (found.span, start.elapsed().as_secs());
            println!(
                "{hidden} units: agreement {value}, {queries} queries, span {span:?}, {} pairs, {seconds} s",
                forms.pairs
            );
            assert_eq!(forms.slice.dimensions(), hidden);
            assert!(value >= BAR && queries <= most, "{value} {queries}");
        }
    }
}
