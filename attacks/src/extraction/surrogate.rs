//! Extraction by a surrogate: a network of the same architecture, trained on the
//! answers to some queries (Tramer et al. 2016; the queries after Knockoff Nets, Orekondy
//! et al. 2019, and the augmentation of Papernot et al. 2017).
//!
//! Queries are natural images (the first part of the test split is kept for judging and
//! the rest is the attacker's, so that neither trained the target), random pixels, or
//! adaptive: a fifth natural, and then again and again each query moved along the sign
//! of the surrogate's gradient of the class that the target gave, where it is moved most
//! easily over a boundary. Curves over the budget are one step per budget.

use std::time::Instant;

use candle_core::DType;
use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;
use rayon::prelude::*;

use super::exact::majority;
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::paper::{Table, XIANG_1, figure};
use crate::plain::{Plain, classes};
use crate::random;
use crate::record::Finding;
use crate::stats::{Estimate, agreement};
use crate::synthetic;
use crate::target::{Access, Activation, Grants, Rows, Target, TargetError, View};
use crate::trainer::{Goal, Training, one_hot, train};

/// The surrogate's hidden units, whatever the target has.
const HIDDEN: u16 = 64;

/// Samples that are evaluated at once, to bound the memory.
pub(super) const BATCH: usize = 500;

/// How far an adaptive query moves (Papernot et al. 2017).
const LAMBDA: f64 = 0.1;

/// Extraction from labels.
#[derive(Clone, Copy, Debug)]
pub struct FromLabels;

/// Extraction from logits.
#[derive(Clone, Copy, Debug)]
pub struct FromLogits;

/// What queries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queries {
    Natural,
    Random,
    Adaptive,
}

impl Queries {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Natural, "natural"),
        (Self::Random, "random"),
        (Self::Adaptive, "adaptive"),
    ];
}

/// What the target said.
enum Said {
    Labels(Vec<u8>),
    Logits(Rows),
}

impl Said {
    fn goal(&self) -> Goal<'_> {
        match self {
            Self::Labels(labels) => Goal::Labels(labels),
            Self::Logits(rows) => Goal::Values(rows),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Logits(rows) => rows.len(),
        }
    }

    /// What was said to the first queries.
    fn first(&self, count: usize) -> Self {
        match self {
            Self::Labels(labels) => Self::Labels(labels.iter().take(count).copied().collect()),
            Self::Logits(rows) => {
                let values = rows.values().iter().take(count * rows.width());
                Self::Logits(Rows::new(rows.width(), values.copied().collect()))
            }
        }
    }

    fn labels(&self) -> Vec<u8> {
        match self {
            Self::Labels(labels) => labels.clone(),
            Self::Logits(rows) => classes(rows),
        }
    }
}

/// An extraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method {
    pub logits: bool,
    pub queries: Queries,
    pub activation: Activation,
    pub budget: usize,
    pub seed: u64,
    /// Broken on purpose: each query is taken for the next.
    pub broken: bool,
}

impl Method {
    fn ask(&self, target: &mut View<'_>, queries: &Rows) -> Result<Said, AttackError> {
        let mut said = if self.logits {
            Said::Logits(target.scores(queries)?)
        } else {
            Said::Labels(target.labels(queries)?)
        };
        if self.broken {
            match &mut said {
                Said::Labels(labels) if !labels.is_empty() => labels.rotate_left(1),
                Said::Logits(rows) if !rows.is_empty() => {
                    let width = rows.width();
                    rows.values_mut().rotate_left(width);
                }
                _ => {}
            }
        }
        Ok(said)
    }

    fn fitted(&self, queries: &Rows, said: &Said) -> Result<Differentiable, AttackError> {
        let network = Differentiable::one_hidden(HIDDEN, self.activation, self.seed)?;
        // As many steps for few queries as for many, within reason.
        let epochs = (30_000 / queries.len().max(1)).clamp(10, 60);
        let training = Training {
            epochs,
            seed: self.seed,
            ..Training::default()
        };
        train(&network, queries, said.goal(), &training, &mut ())?;
        Ok(network.precise()?)
    }

    /// What is asked first: all queries, or of adaptive ones a fifth. `natural` are the
    /// attacker's images; those of a smaller budget are the first of a larger one's.
    fn queries(&self, natural: &Rows) -> Rows {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..natural.len()).collect();
        random::shuffle(&mut order, &mut rng);
        let first = |count: usize| natural.select(&order[..count.min(order.len())]);
        match self.queries {
            Queries::Natural => first(self.budget),
            Queries::Random => {
                let count = self.budget * natural.width();
                let pixels = (0..count).map(|_| random::uniform(&mut rng));
                Rows::new(natural.width(), pixels.collect())
            }
            Queries::Adaptive => first(self.first()),
        }
    }

    /// How many adaptive queries are natural.
    fn first(&self) -> usize {
        (self.budget / 5).max(1)
    }

    /// Asks and trains. `natural` are the attacker's images.
    pub(super) fn extract(
        &self,
        target: &mut View<'_>,
        natural: &Rows,
    ) -> Result<Differentiable, AttackError> {
        let queries = self.queries(natural);
        let said = self.ask(target, &queries)?;
        match self.queries {
            Queries::Natural | Queries::Random => self.fitted(&queries, &said),
            Queries::Adaptive => self.adapted(target, queries, said),
        }
    }

    /// Asks for the rest of adaptive queries and trains. `all` are the first, and `said`
    /// what the target said to them.
    fn adapted(
        &self,
        target: &mut View<'_>,
        mut all: Rows,
        mut said: Said,
    ) -> Result<Differentiable, AttackError> {
        let mut network = self.fitted(&all, &said)?;
        while all.len() < self.budget {
            let count = all.len().min(self.budget - all.len());
            let from: Vec<usize> = (0..count).collect();
            let moved = moved(&network, &all.select(&from), &said.labels()[..count])?;
            let more = self.ask(target, &moved)?;
            all = Rows::new(all.width(), [all.values(), moved.values()].concat());
            said = match (said, more) {
                (Said::Labels(a), Said::Labels(b)) => Said::Labels([a, b].concat()),
                (Said::Logits(a), Said::Logits(b)) => {
                    let values = [a.values(), b.values()].concat();
                    Said::Logits(Rows::new(a.width(), values))
                }
                (said, _) => said,
            };
            network = self.fitted(&all, &said)?;
        }
        Ok(network)
    }
}

/// What serves all budgets of a target.
struct Shared {
    /// Answers to the natural queries of the largest budget, if any has some.
    natural: Option<Said>,
    /// Surrogates by natural and random queries, which do not wait for each other.
    trained: Vec<(Method, Differentiable)>,
}

impl Shared {
    /// Asks for all that does not depend on a surrogate and trains on all cores.
    fn new(target: &mut View<'_>, methods: &[Method], natural: &Rows) -> Result<Self, AttackError> {
        let of = |kind: Queries| methods.iter().filter(move |m| m.queries == kind).copied();
        // Adaptive queries begin with natural ones.
        let begun = of(Queries::Adaptive).map(|method| Method {
            queries: Queries::Natural,
            budget: method.first(),
            ..method
        });
        let largest = of(Queries::Natural).chain(begun);
        let said = match largest.max_by_key(|method| method.budget) {
            Some(largest) => Some(largest.ask(target, &largest.queries(natural))?),
            None => None,
        };
        let natural_of = |count: usize| said.as_ref().map(|said| said.first(count));
        let mut jobs = Vec::new();
        for method in of(Queries::Natural) {
            let queries = method.queries(natural);
            jobs.extend(natural_of(queries.len()).map(|answers| (method, queries, answers)));
        }
        for method in of(Queries::Random) {
            let queries = method.queries(natural);
            let answers = method.ask(target, &queries)?;
            jobs.push((method, queries, answers));
        }
        let trained = jobs.par_iter().map(|(method, queries, answers)| {
            let network = method.fitted(queries, answers)?;
            Ok::<_, AttackError>((*method, network))
        });
        Ok(Self {
            trained: trained.collect::<Result<_, _>>()?,
            natural: said,
        })
    }

    /// The surrogate of a method, and how many queries it takes: they are those of the
    /// step that is under way, whenever they were asked.
    fn surrogate(
        &self,
        method: Method,
        case: &mut Case<'_, '_>,
        natural: &Rows,
    ) -> Result<(Differentiable, usize), AttackError> {
        let first = method.queries(natural);
        let found = self.trained.iter().find(|(other, _)| *other == method);
        if let Some((_, network)) = found {
            case.shares(first.len() as u64, 0.0);
            return Ok((network.clone(), first.len()));
        }
        let before = case.target.queries();
        let asked = first.len() as u64;
        let said = match &self.natural {
            Some(said) if method.queries == Queries::Adaptive && asked <= said.len() as u64 => {
                case.shares(asked, 0.0);
                said.first(first.len())
            }
            _ => method.ask(&mut case.target, &first)?,
        };
        let shared = case.target.queries() == before;
        let network = method.adapted(&mut case.target, first, said)?;
        let own = case.target.queries() - before + if shared { asked } else { 0 };
        Ok((network, own as usize))
    }
}

/// A surrogate with this activation of a target, from the labels of natural images.
pub(crate) fn from_labels(
    target: &mut View<'_>,
    natural: &Rows,
    activation: Activation,
    budget: usize,
    seed: u64,
) -> Result<Differentiable, AttackError> {
    let method = Method {
        logits: false,
        queries: Queries::Natural,
        activation,
        budget,
        seed,
        broken: false,
    };
    method.extract(target, natural)
}

/// Images moved along the sign of the gradient of the logit of a class.
fn moved(network: &Differentiable, images: &Rows, labels: &[u8]) -> Result<Rows, AttackError> {
    let mut out = Vec::with_capacity(images.values().len());
    let parts = images.values().chunks(images.width() * BATCH);
    for (part, labels) in parts.zip(labels.chunks(BATCH)) {
        let batch = network.batch(part)?;
        let own = one_hot(labels, network.outputs(), network.dtype())?;
        let gradient = network.input_gradient(&batch, |logits| (logits * &own)?.sum_all())?;
        let step = (gradient.sign()? * LAMBDA)?;
        let x = (batch + step)?.clamp(0.0, 1.0)?.to_dtype(DType::F64)?;
        out.extend(x.flatten_all()?.to_vec1::<f64>()?);
    }
    Ok(Rows::new(images.width(), out))
}

/// Runs an extraction on every target over the budgets.
fn sweep(attack: &dyn Attack, logits: bool, context: &mut Context<'_>) -> Result<(), AttackError> {
    context.each_target(attack, |case| {
        let test = &case.data.test;
        let kept = (test.images.len() / 2).min(if case.sparing() { 300 } else { 2000 });
        let (judge, natural) = test.images.split_at(kept);
        let (judge, natural) = (Rows::images(judge), Rows::images(natural));
        let budgets = case
            .run
            .by_scale(&[100, 500, 2000][..], &[100, 300, 1000, 3000, 8000]);
        // Adaptive queries of a quick run are in the clear: encrypted, each of their rounds
        // is a batch of its own.
        let (budgets, kinds) = match (case.sparing(), case.one_sample()) {
            (true, _) => (&[500][..], &Queries::ALL[..1]),
            (false, true) => (budgets, &Queries::ALL[..2]),
            (false, false) => (budgets, &Queries::ALL[..]),
        };
        // A quick run has curves of natural queries alone.
        let few = case.run.by_scale(&[500][..], budgets);
        // No further than the attacker's images reach, so that curves compare.
        let within = natural.len().max(100);
        let mut methods = Vec::new();
        for &(queries, name) in kinds {
            let budgets = match queries {
                Queries::Natural => budgets,
                Queries::Random | Queries::Adaptive => few,
            };
            for &budget in budgets.iter().filter(|&&budget| budget <= within) {
                let method = Method {
                    logits,
                    queries,
                    activation: case.target.about().activation,
                    budget,
                    seed: case.run.seed,
                    broken: false,
                };
                methods.push((method, name));
            }
        }
        let of_step = |method: &Method, name: &str| {
            params([
                ("queries", name.into()),
                ("budget", method.budget.into()),
                ("samples", kept.into()),
            ])
        };
        // What an interrupted run has already is not asked again.
        methods.retain(|(method, name)| !case.is_done(&of_step(method, name)));
        if methods.is_empty() {
            return Ok(());
        }
        let all: Vec<Method> = methods.iter().map(|(method, _)| *method).collect();
        let start = Instant::now();
        let shared = match Shared::new(&mut case.target, &all, &natural) {
            // Each step says so of itself.
            Err(AttackError::Target(TargetError::Denied(_))) => None,
            other => Some(other?),
        };
        case.shares(0, start.elapsed().as_secs_f64());
        let mut truth = None;
        for (method, name) in methods {
            case.step(of_step(&method, name), |case| {
                let found = match &shared {
                    Some(shared) => shared.surrogate(method, case, &natural)?,
                    None => {
                        let network = method.extract(&mut case.target, &natural)?;
                        (network, method.budget)
                    }
                };
                judged(case, method, found, &judge, &mut truth)
            })?;
        }
        Ok(())
    })
}

fn judged(
    case: &mut Case<'_, '_>,
    method: Method,
    (network, used): (Differentiable, usize),
    judge: &Rows,
    truth: &mut Option<Said>,
) -> Result<Vec<Finding>, AttackError> {
    let found = network.evaluate(judge, BATCH)?;
    let own = classes(&found);
    let known = &case.data.test.labels[..judge.len()];
    let column = match case.target.about().activation {
        Activation::Relu => "Black-Box",
        Activation::Polynomial => "Poly-HE",
    };
    // What the surrogate is judged by is asked for once, and by no attacker.
    let truth = match truth {
        Some(truth) => truth,
        none => {
            let honest = Method {
                broken: false,
                ..method
            };
            none.insert(honest.ask(&mut case.target, judge)?)
        }
    };
    let difference = match truth {
        Said::Labels(_) => None,
        Said::Logits(rows) => {
            let pairs = found.values().iter().zip(rows.values());
            Some(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
        }
    };
    let labels = truth.labels();
    let majority = majority(&labels);
    let exactly = |value: f64| Estimate {
        value,
        ci95: [value; 2],
    };
    let mut all = vec![
        Finding::new("agreement", agreement(&own, &labels))
            .baseline("majority", majority)
            .paper(figure(XIANG_1, "model extraction, agreement", column))
            .succeeds_above(majority, 0.0),
        Finding::new("accuracy", agreement(&own, known))
            .baseline("target", agreement(&labels, known).value),
        Finding::new("attack_queries", exactly(used as f64)),
    ];
    all.extend(difference.map(|d| Finding::new("largest_logit_difference", exactly(d))));
    Ok(all)
}

/// Controls on a target that reads bars in noise: a surrogate must agree with it on
/// nine of ten.
fn controls(logits: bool) -> Vec<Control<'static>> {
    const BAR: f64 = 0.9;
    let control = move |name, must, budget: usize, broken: bool| Control {
        name,
        must,
        run: Box::new(move |seed| {
            let data = synthetic::bars(300, seed);
            let method = Method {
                logits,
                queries: Queries::Natural,
                activation: Activation::Polynomial,
                budget,
                seed,
                broken,
            };
            let samples = Rows::images(&data.images);
            let trained = method.fitted(&samples, &Said::Labels(data.labels))?;
            let mut target = Plain::new("bars", "bars", Activation::Polynomial, trained);
            let (natural, judge) = (
                synthetic::bars(300, seed + 1),
                synthetic::bars(200, seed + 2),
            );
            let judge = Rows::images(&judge.images);
            let labels = target
                .observe(&judge, Grants::of(&[Access::Labels]))?
                .labels;
            let mut view = View::new(&mut target, Grants::of(&[Access::Labels, Access::Scores]));
            let other = Method {
                seed: seed + 3,
                ..method
            };
            let network = other.extract(&mut view, &Rows::images(&natural.images))?;
            let value = agreement(&classes(&network.evaluate(&judge, BATCH)?), &labels).value;
            Ok(Outcome {
                succeeded: value >= BAR,
                value,
                bar: BAR,
            })
        }),
    };
    vec![
        control("300 queries", Must::Succeed, 300, false),
        control("2 queries", Must::Fail, 2, false),
        control("broken on purpose", Must::Fail, 300, true),
    ]
}

impl Attack for FromLabels {
    fn name(&self) -> &'static str {
        "extraction-labels"
    }

    fn about(&self) -> &'static str {
        "a surrogate trained on the labels of natural, random and adaptive queries"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Labels])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_1]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        sweep(self, false, context)
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(false)
    }
}

impl Attack for FromLogits {
    fn name(&self) -> &'static str {
        "extraction-logits"
    }

    fn about(&self) -> &'static str {
        "a surrogate trained on the logits of natural, random and adaptive queries"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Scores])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_1]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        sweep(self, true, context)
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Data, Run};
    use crate::record::{Memory, Recorder, Scale};

    /// What is asked and trained for all budgets at once gives the surrogates that each method
    /// gives alone, for as many queries.
    #[test]
    fn shared_queries_give_the_surrogates_of_each_method_alone() {
        let data = Data {
            name: "bars".into(),
            train: synthetic::bars(10, 1),
            test: synthetic::bars(60, 2),
        };
        let natural = Rows::images(&data.test.images);
        let own = || {
            let network = synthetic::linear(3).unwrap().precise().unwrap();
            Plain::new("bars", "bars", Activation::Polynomial, network)
        };
        let method = |logits, (queries, budget)| Method {
            logits,
            queries,
            activation: Activation::Polynomial,
            budget,
            seed: 4,
            broken: false,
        };
        let (few, many) = ((Queries::Natural, 10), (Queries::Natural, 40));
        let (random, adaptive) = ((Queries::Random, 20), (Queries::Adaptive, 25));
        // Adaptive queries begin with those of natural ones, which may be fewer or none.
        let all: [&[(Queries, usize)]; 3] = [
            &[few, many, random, adaptive],
            &[(Queries::Natural, 2), adaptive],
            &[adaptive, (Queries::Adaptive, 10)],
        ];
        // Answers in batches of another size may differ in their last bits.
        let apart = |a: &Rows, b: &Rows| {
            let pairs = a.values().iter().zip(b.values());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        for (logits, kinds) in [true, false].into_iter().flat_map(|l| all.map(|k| (l, k))) {
            let methods: Vec<Method> = kinds.iter().map(|kind| method(logits, *kind)).collect();
            let mut memory = Memory::default();
            let run = Run {
                scale: Scale::Quick,
                seed: 1,
                progress: &mut (),
                recorder: Recorder::new(&mut memory, "0", Vec::new()),
            };
            let mut context = Context::new(&mut [], std::slice::from_ref(&data), run);
            let attack: &dyn Attack = if logits { &FromLogits } else { &FromLabels };
            let compared = context.own_target(attack, &mut own(), &data, |case| {
                let shared = Shared::new(&mut case.target, &methods, &natural)?;
                let mut before: Option<Rows> = None;
                for method in &methods {
                    let of_step = params([("method", format!("{method:?}").into())]);
                    case.step(of_step, |case| {
                        let (network, used) = shared.surrogate(*method, case, &natural)?;
                        let mut alone = own();
                        let mut view = View::new(&mut alone, attack.access());
                        let expected = method.extract(&mut view, &natural)?;
                        assert_eq!(used as u64, view.queries(), "{method:?}");
                        let said = network.evaluate(&natural, BATCH)?;
                        let expected = expected.evaluate(&natural, BATCH)?;
                        assert!(apart(&said, &expected) < 1e-3, "{method:?}");
                        if let Some(before) = before.replace(said) {
                            assert!(apart(&before, &expected) > 1e-2, "{method:?}");
                        }
                        let used = Estimate {
                            value: used as f64,
                            ci95: [used as f64; 2],
                        };
                        Ok(vec![Finding::new("attack_queries", used)])
                    })?;
                }
                Ok(())
            });
            compared.unwrap();
            assert_eq!(memory.records.len(), methods.len());
            for (record, method) in memory.records.iter().zip(&methods) {
                assert_eq!(record.queries, method.budget as u64, "{method:?}");
                assert_eq!(record.value, Some(method.budget as f64), "{method:?}");
            }
        }
    }
}
