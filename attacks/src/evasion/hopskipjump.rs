//! HopSkipJump: adversarial examples from labels alone (Chen, Jordan, Wainwright 2020,
//! arXiv:1904.02144, Algorithm 2), nearest in L2 or L-infinity.
//!
//! From any image that the target reads as another class, each round searches the boundary
//! by bisection towards the sample, estimates the boundary's normal there from labels of
//! random neighbours, and steps along it. All samples go through a round together, so that
//! their queries are one request and an encrypted target answers them in batches.

use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;

use super::{PAPER_EPS, control_data, control_network};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::plain::classes;
use crate::random;
use crate::record::{Finding, Picture};
use crate::stats::{RESAMPLES, bootstrap, quantile, wilson};
use crate::target::{Access, Evaluation, Grants, Rows};

/// What is kept small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// The Euclidean distance.
    L2,
    /// The largest change of a pixel.
    LInf,
}

impl Norm {
    const ALL: [(Self, &'static str); 2] = [(Self::L2, "l2"), (Self::LInf, "linf")];

    fn distance(self, a: &[f64], b: &[f64]) -> f64 {
        let pairs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        match self {
            Self::L2 => pairs.map(|d| d * d).sum::<f64>().sqrt(),
            Self::LInf => pairs.fold(0.0, f64::max),
        }
    }

    /// A point between an image and an example: on their line, or of the example what
    /// lies within `share` of its distance.
    fn between(self, image: &[f64], example: &[f64], share: f64) -> Vec<f64> {
        let radius = share * self.distance(image, example);
        let point = |(x, e): (&f64, &f64)| match self {
            Self::L2 => x + share * (e - x),
            Self::LInf => e.clamp(x - radius, x + radius),
        };
        image.iter().zip(example).map(point).collect()
    }
}

/// The attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HopSkipJump {
    /// What it minimises.
    pub norm: Norm,
    /// Queries per sample at most.
    pub budget: usize,
    /// Queries of the first estimate of a normal; later ones take `sqrt(round)` times
    /// as many.
    pub neighbours: usize,
    /// 1 to step to the side of the other classes; a test steps back.
    pub direction: f64,
}

/// One sample's way.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// The nearest example; none where no start was read as another class.
    pub example: Option<Vec<f64>>,
    /// Queries so far and the distance then, round by round.
    pub curve: Vec<(usize, f64)>,
    /// Queries in all.
    pub queries: usize,
}

impl Way {
    /// The distance after so many queries; the first known one before that.
    #[must_use]
    pub fn at(&self, queries: usize) -> Option<f64> {
        let past = self.curve.iter().take_while(|(used, _)| *used <= queries);
        past.last().or(self.curve.first()).map(|point| point.1)
    }
}

/// What searches are in: images, their labels, ways, and whoever answers.
struct Search<'s, F> {
    images: &'s Rows,
    labels: &'s [u8],
    ways: Vec<Way>,
    ask: F,
}

impl<F: FnMut(&Rows) -> Result<Vec<u8>, AttackError>> Search<'_, F> {
    /// Whether these points, each of the sample beside it, are read as other classes.
    fn misread(&mut self, points: &[(usize, Vec<f64>)]) -> Result<Vec<bool>, AttackError> {
        if points.is_empty() {
            return Ok(Vec::new());
        }
        let values = points.iter().flat_map(|(_, point)| point).copied();
        let rows = Rows::new(self.images.width(), values.collect());
        let labels = (self.ask)(&rows)?;
        for (sample, _) in points {
            self.ways[*sample].queries += 1;
        }
        let pairs = points.iter().zip(labels);
        Ok(pairs
            .map(|((sample, _), label)| label != self.labels[*sample])
            .collect())
    }

    /// Moves examples to the boundary, so near that the next estimate sees both sides.
    fn bisect(
        &mut self,
        norm: Norm,
        examples: &mut [(usize, Vec<f64>)],
        precision: f64,
    ) -> Result<(), AttackError> {
        let mut sides = vec![[0.0, 1.0]; examples.len()];
        loop {
            let open: Vec<usize> = (0..examples.len())
                .filter(|&at| sides[at][1] - sides[at][0] > precision)
                .collect();
            if open.is_empty() {
                break;
            }
            let middle = |at: usize| f64::midpoint(sides[at][0], sides[at][1]);
            let points: Vec<_> = open
                .iter()
                .map(|&at| {
                    let (sample, example) = &examples[at];
                    let image = self.images.row(*sample);
                    (*sample, norm.between(image, example, middle(at)))
                })
                .collect();
            for (misread, &at) in self.misread(&points)?.into_iter().zip(&open) {
                let middle = f64::midpoint(sides[at][0], sides[at][1]);
                sides[at][usize::from(misread)] = middle;
            }
        }
        for ((sample, example), [_, high]) in examples.iter_mut().zip(sides) {
            *example = norm.between(self.images.row(*sample), example, high);
        }
        Ok(())
    }

    /// Ends a round: keeps what is nearer than anything before.
    fn keep(&mut self, norm: Norm, examples: &[(usize, Vec<f64>)]) {
        for (sample, example) in examples {
            let way = &mut self.ways[*sample];
            let distance = norm.distance(self.images.row(*sample), example);
            let known = way.curve.last().map_or(f64::INFINITY, |point| point.1);
            if distance < known {
                way.example = Some(example.clone());
            }
            way.curve.push((way.queries, distance.min(known)));
        }
    }
}

impl HopSkipJump {
    /// Searches from random images, and from `starts` where the target reads none of
    /// those as another class. `ask` gives the labels of a batch; samples that it does
    /// not give their label need no search and have distance 0.
    ///
    /// # Errors
    /// What `ask` says.
    pub fn search(
        &self,
        ask: impl FnMut(&Rows) -> Result<Vec<u8>, AttackError>,
        images: &Rows,
        labels: &[u8],
        starts: &Rows,
        seed: u64,
    ) -> Result<Vec<Way>, AttackError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let width = images.width();
        let dimensions = width as f64;
        // Section 4 of the paper: how near the boundary is near enough.
        let theta = match self.norm {
            Norm::L2 => dimensions.powf(-1.5),
            Norm::LInf => dimensions.powi(-2),
        };
        let way = Way {
            example: None,
            curve: Vec::new(),
            queries: 0,
        };
        let mut search = Search {
            images,
            labels,
            ways: vec![way; images.len()],
            ask,
        };
        let mut examples = begin(&mut search, starts, &mut rng)?;
        search.bisect(self.norm, &mut examples, theta)?;
        search.keep(self.norm, &examples);
        for round in 1.. {
            let count = (self.neighbours as f64 * f64::from(round).sqrt()) as usize;
            // A bisection takes 20 at most, a step rarely more than 10.
            examples.retain(|(sample, _)| search.ways[*sample].queries + count + 30 <= self.budget);
            if examples.is_empty() {
                break;
            }
            let distance =
                |(sample, x): &(usize, Vec<f64>)| self.norm.distance(images.row(*sample), x);
            let distances: Vec<f64> = examples.iter().map(distance).collect();
            // Equation 15 of the paper, of the point on the boundary.
            let reach = distances.iter().map(|distance| match (round, self.norm) {
                (1, _) => 0.1,
                (_, Norm::L2) => dimensions.sqrt() * theta * distance,
                (_, Norm::LInf) => dimensions * theta * distance,
            });
            let reach: Vec<f64> = reach.collect();
            let normals = self.normals(&mut search, &examples, &reach, count, &mut rng)?;
            let first: Vec<f64> = distances
                .iter()
                .map(|distance| distance / f64::from(round).sqrt())
                .collect();
            self.step(&mut search, &mut examples, &normals, first)?;
            search.bisect(self.norm, &mut examples, theta)?;
            search.keep(self.norm, &examples);
        }
        Ok(search.ways)
    }

    /// Directions to the side of the other classes, estimated from random neighbours at
    /// `reach` (equations 9 and 16 of the paper, its baseline being the mean label).
    fn normals<F: FnMut(&Rows) -> Result<Vec<u8>, AttackError>>(
        &self,
        search: &mut Search<'_, F>,
        examples: &[(usize, Vec<f64>)],
        reach: &[f64],
        count: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Vec<f64>>, AttackError> {
        let mut points = Vec::with_capacity(examples.len() * count);
        for ((sample, x), reach) in examples.iter().zip(reach) {
            for _ in 0..count {
                let mut drawn: Vec<f64> = x
                    .iter()
                    .map(|_| match self.norm {
                        Norm::L2 => random::normal(rng),
                        Norm::LInf => 2.0f64.mul_add(random::uniform(rng), -1.0),
                    })
                    .collect();
                unit(&mut drawn);
                let pairs = x.iter().zip(&drawn);
                let point = pairs.map(|(x, d)| (x + reach * d).clamp(0.0, 1.0));
                points.push((*sample, point.collect()));
            }
        }
        let misread = search.misread(&points)?;
        let mut normals = Vec::with_capacity(examples.len());
        let parts = points.chunks(count).zip(misread.chunks(count));
        for ((_, x), (points, misread)) in examples.iter().zip(parts) {
            let share = misread.iter().filter(|m| **m).count() as f64 / count as f64;
            let baseline = match share {
                // All on one side: their mean is the best guess.
                0.0 | 1.0 => 0.0,
                share => 2.0 * share - 1.0,
            };
            let mut normal = vec![0.0; x.len()];
            for ((_, point), misread) in points.iter().zip(misread) {
                let weight = if *misread { 1.0 } else { -1.0 } - baseline;
                for ((sum, point), x) in normal.iter_mut().zip(point).zip(x) {
                    *sum += weight * (point - x);
                }
            }
            match self.norm {
                Norm::L2 => unit(&mut normal),
                Norm::LInf => normal.iter_mut().for_each(|n| *n = n.signum()),
            }
            normal.iter_mut().for_each(|n| *n *= self.direction);
            normals.push(normal);
        }
        Ok(normals)
    }

    /// Steps along the normals, halving the step until the point is read as another class;
    /// an example stays where it is where no step serves.
    fn step<F: FnMut(&Rows) -> Result<Vec<u8>, AttackError>>(
        &self,
        search: &mut Search<'_, F>,
        examples: &mut [(usize, Vec<f64>)],
        normals: &[Vec<f64>],
        mut sizes: Vec<f64>,
    ) -> Result<(), AttackError> {
        const HALVINGS: usize = 12;
        let mut open: Vec<usize> = (0..examples.len()).collect();
        for _ in 0..HALVINGS {
            let points: Vec<(usize, Vec<f64>)> = open
                .iter()
                .map(|&at| {
                    let (sample, x) = &examples[at];
                    let pairs = x.iter().zip(&normals[at]);
                    let point = pairs.map(|(x, n)| (x + sizes[at] * n).clamp(0.0, 1.0));
                    (*sample, point.collect())
                })
                .collect();
            let misread = search.misread(&points)?;
            let mut left = Vec::new();
            for ((at, point), misread) in open.into_iter().zip(points).zip(misread) {
                if misread {
                    examples[at] = point;
                } else {
                    sizes[at] /= 2.0;
                    left.push(at);
                }
            }
            open = left;
        }
        Ok(())
    }
}

/// A first example of every sample that has one.
fn begin<F: FnMut(&Rows) -> Result<Vec<u8>, AttackError>>(
    search: &mut Search<'_, F>,
    starts: &Rows,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<(usize, Vec<f64>)>, AttackError> {
    const RANDOM: usize = 10;
    let images = search.images;
    let width = images.width();
    let drawn = (0..RANDOM * width).map(|_| random::uniform(rng));
    let starts = Rows::joined(&[&Rows::new(width, drawn.collect()), starts]);
    let labels = (search.ask)(&Rows::joined(&[images, &starts]))?;
    let (own, of_starts) = labels.split_at(images.len());
    let mut examples = Vec::new();
    for (sample, way) in search.ways.iter_mut().enumerate() {
        // Asked once for all samples, counted for each.
        way.queries = 1 + starts.len();
        if own[sample] != search.labels[sample] {
            way.example = Some(images.row(sample).to_vec());
            way.curve.push((1, 0.0));
            continue;
        }
        let other = of_starts.iter().position(|label| *label != own[sample]);
        examples.extend(other.map(|at| (sample, starts.row(at).to_vec())));
    }
    Ok(examples)
}

/// How far beyond the boundary an example is taken that is asked again, in distances of it:
/// the search ends within `theta` of the boundary, where noise takes every other one back.
const BEYOND: f64 = 1.01;

/// An example, farther from its image by [`BEYOND`].
fn pushed(image: &[f64], example: &[f64]) -> Vec<f64> {
    let pairs = image.iter().zip(example);
    pairs
        .map(|(x, e)| (x + BEYOND * (e - x)).clamp(0.0, 1.0))
        .collect()
}

/// Length 1, in L2.
fn unit(row: &mut [f64]) {
    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x /= length);
    }
}

/// The attack by queries to the target itself.
#[derive(Clone, Copy, Debug)]
pub struct ByLabels;

impl Attack for ByLabels {
    fn name(&self) -> &'static str {
        "hopskipjump"
    }

    fn about(&self) -> &'static str {
        "the nearest adversarial examples in L2 and L-infinity from labels alone"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Labels])
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let (samples, budget) = match case.target.about().evaluation {
                Evaluation::Clear => case.run.by_scale((10, 1500), (50, 25_000)),
                Evaluation::Encrypted => case.run.by_scale((3, 400), (20, 5000)),
                Evaluation::EncryptedWeights => case.run.by_scale((1, 180), (2, 2000)),
            };
            let samples = samples.min(case.data.test.images.len());
            for (norm, name) in Norm::ALL {
                let method = HopSkipJump {
                    norm,
                    budget,
                    neighbours: NEIGHBOURS,
                    direction: 1.0,
                };
                let of_step = params([
                    ("norm", name.into()),
                    ("samples", samples.into()),
                    ("queries", budget.into()),
                ]);
                case.step(of_step, |case| searched(case, method, name, samples))?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let control = |name, must, norm, bar: f64, budget, direction| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let (images, labels) = control_data()?;
                let few: Vec<usize> = (0..6).collect();
                let network = control_network()?;
                let method = HopSkipJump {
                    norm,
                    budget,
                    neighbours: NEIGHBOURS,
                    direction,
                };
                let ask = |rows: &Rows| Ok(classes(&network.evaluate(rows, rows.len())?));
                let ways = method.search(ask, &images.select(&few), &labels, &images, seed)?;
                let mut distances: Vec<f64> = ways.iter().filter_map(|w| w.at(budget)).collect();
                let value = quantile(&mut distances, 0.5);
                Ok(Outcome {
                    succeeded: distances.len() == few.len() && value <= bar,
                    value,
                    bar,
                })
            }),
        };
        vec![
            control("800 labels, L2", Must::Succeed, Norm::L2, 3.0, 800, 1.0),
            control(
                "800 labels, L-infinity",
                Must::Succeed,
                Norm::LInf,
                0.3,
                800,
                1.0,
            ),
            control(
                "no normal was estimated",
                Must::Fail,
                Norm::L2,
                3.0,
                60,
                1.0,
            ),
            control(
                "normals with the wrong sign",
                Must::Fail,
                Norm::L2,
                3.0,
                800,
                -1.0,
            ),
        ]
    }
}

/// Labels of the first estimate of a normal, as published.
const NEIGHBOURS: usize = 100;

/// Within which distance an example counts: of L2 what Madry et al.'s successors take for
/// MNIST.
const fn radius(norm: Norm) -> f64 {
    match norm {
        Norm::L2 => 1.5,
        Norm::LInf => PAPER_EPS,
    }
}

fn searched(
    case: &mut Case<'_, '_>,
    method: HopSkipJump,
    norm: &str,
    samples: usize,
) -> Result<Vec<Finding>, AttackError> {
    let test = &case.data.test;
    let images = Rows::images(&test.images[..samples]);
    let labels = &test.labels[..samples];
    // The attacker's own images, where a random one is read like the sample.
    let own = &test.images[samples..test.images.len().min(samples + 10)];
    let seed = case.run.seed;
    let clean = case.target.labels(&images)?;
    let clean = wilson(
        clean.iter().zip(labels).filter(|(a, b)| a == b).count(),
        samples,
    );
    let target = &mut case.target;
    let ask = |rows: &Rows| Ok(target.labels(rows)?);
    let ways = method.search(ask, &images, labels, &Rows::images(own), seed)?;
    let example = |at: usize| ways[at].example.as_deref().unwrap_or(images.row(at));
    let kept = (0..samples).flat_map(|at| example(at).iter().copied());
    let kept = Rows::new(images.width(), kept.collect());
    let beyond = (0..samples).flat_map(|at| pushed(images.row(at), example(at)));
    let beyond = Rows::new(images.width(), beyond.collect());
    let after = case.target.labels(&Rows::joined(&[&beyond, &kept]))?;
    let (after, reread) = after.split_at(samples);
    let mut robust = 0;
    for (at, way) in ways.iter().enumerate() {
        let distance = method.norm.distance(images.row(at), beyond.row(at));
        let near = way.example.is_some() && distance <= radius(method.norm);
        robust += usize::from(!near || after[at] == labels[at]);
    }
    // Those that the search brought to the boundary.
    let searched = |at: &usize| ways[*at].at(method.budget).is_some_and(|d| d > 0.0);
    let searched: Vec<usize> = (0..samples).filter(searched).collect();
    let back = searched.iter().filter(|&&at| reread[at] == labels[at]);
    let back = back.count();
    let median = |budget: usize| {
        let distances: Vec<f64> = ways.iter().filter_map(|way| way.at(budget)).collect();
        (!distances.is_empty()).then(|| {
            bootstrap(distances.len(), RESAMPLES, seed, |drawn| {
                let mut drawn: Vec<f64> = drawn.iter().map(|&i| distances[i]).collect();
                quantile(&mut drawn, 0.5)
            })
        })
    };
    let mut all = vec![
        Finding::new("accuracy", wilson(robust, samples))
            .baseline("clean", clean.value)
            .baseline("chance", 1.0 / case.target.about().classes as f64)
            .succeeds_below(clean)
            .remark(&format!(
                "an example counts within {} in {norm}, taken {BEYOND} times as far as the search took it",
                radius(method.norm)
            )),
    ];
    if !searched.is_empty() {
        let back = Finding::new("reread_right", wilson(back, searched.len()));
        all.push(back.remark("of examples at the boundary, as the search left them"));
    }
    let budgets = [method.budget / 4, method.budget / 2, method.budget];
    for budget in budgets {
        let first = median(0);
        if let (Some(found), Some(first)) = (median(budget), first) {
            let name = format!("median_distance_after_{budget}_queries");
            all.push(
                Finding::new(&name, found)
                    .baseline("first_boundary_point", first.value)
                    .succeeds_below(first),
            );
        }
    }
    let about = case.target.about();
    let name = format!("hopskipjump-{norm}-{}-{}", about.name, case.data.name);
    let curves = ways.iter().enumerate().map(|(i, way)| {
        let points = way.curve.iter().map(|&(q, d)| (q as f64, d));
        (format!("image {}", i + 1), points.collect())
    });
    let picture = Picture::Curves {
        x: "queries per image".into(),
        y: format!("distance in {norm}"),
        logarithmic: false,
        curves: curves.take(10).collect(),
    };
    case.run.picture(&name, &picture)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes on the sides of a hyperplane, of which the distances are known.
    fn half_space(rows: &Rows) -> Vec<u8> {
        let side = |row: &[f64]| u8::from(row.iter().sum::<f64>() > 0.6 * row.len() as f64);
        rows.iter().map(side).collect()
    }

    #[test]
    fn the_nearest_point_of_a_hyperplane_is_found_within_the_budget() {
        let width = 25;
        let images = Rows::new(width, vec![0.5; 2 * width]);
        let starts = Rows::new(width, vec![0.9; width]);
        // 0.1 in every pixel: the distance in L2 is 0.1 * 5.
        for (norm, nearest) in [(Norm::L2, 0.5), (Norm::LInf, 0.1)] {
            let method = HopSkipJump {
                norm,
                budget: 3000,
                neighbours: 100,
                direction: 1.0,
            };
            let mut asked = 0;
            let ask = |rows: &Rows| {
                asked += rows.len();
                Ok(half_space(rows))
            };
            let ways = method.search(ask, &images, &[0, 1], &starts, 3).unwrap();
            let found = ways[0].at(3000).unwrap();
            assert!(
                (nearest..nearest * 1.1).contains(&found),
                "{norm:?} {found}"
            );
            assert!(ways[0].queries <= 3000 && asked <= 3000 + 20, "{asked}");
            let example = ways[0].example.clone().unwrap();
            assert!((norm.distance(&example, images.row(0)) - found).abs() < 1e-12);
            assert_eq!(half_space(&Rows::new(width, example)), [1]);
            let falling = ways[0].curve.windows(2).all(|w| w[1].1 <= w[0].1);
            assert!(falling && ways[0].curve.len() > 3);
            // The second is misread as it is.
            assert_eq!(ways[1].at(0), Some(0.0));
        }
    }

    #[test]
    fn noise_takes_examples_back_that_lie_at_the_boundary_and_none_beyond_it() {
        let (width, count) = (25, 20);
        let images = Rows::new(width, vec![0.5; count * width]);
        let starts = Rows::new(width, vec![0.9; width]);
        // A thousandth of what lies between an image and the boundary.
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut noisy = |rows: &Rows| -> Vec<u8> {
            let mut side = |row: &[f64]| {
                let noise = 2.5e-3 * (2.0 * random::uniform(&mut rng) - 1.0);
                u8::from(row.iter().sum::<f64>() + noise > 0.6 * width as f64)
            };
            rows.iter().map(&mut side).collect()
        };
        for norm in [Norm::L2, Norm::LInf] {
            let method = HopSkipJump {
                norm,
                budget: 600,
                neighbours: 100,
                direction: 1.0,
            };
            let ask = |rows: &Rows| Ok(noisy(rows));
            let ways = method.search(ask, &images, &[0; 20], &starts, 3).unwrap();
            let kept: Vec<&[f64]> = ways
                .iter()
                .filter_map(|way| way.example.as_deref())
                .collect();
            assert_eq!(kept.len(), count);
            let beyond = kept
                .iter()
                .flat_map(|example| pushed(images.row(0), example));
            let beyond = Rows::new(width, beyond.collect());
            assert_eq!(noisy(&beyond), [1; 20], "{norm:?}");
            for (beyond, kept) in beyond.iter().zip(&kept) {
                let far = norm.distance(images.row(0), beyond);
                assert!((far / norm.distance(images.row(0), kept) - BEYOND).abs() < 1e-9);
            }
            let kept = Rows::new(width, kept.concat());
            assert!(noisy(&kept).contains(&0), "{norm:?}");
        }
    }

    #[test]
    fn a_target_of_one_label_has_no_example() {
        let images = Rows::new(4, vec![0.5; 4]);
        let method = HopSkipJump {
            norm: Norm::L2,
            budget: 500,
            neighbours: 10,
            direction: 1.0,
        };
        let ask = |rows: &Rows| Ok(vec![3; rows.len()]);
        let ways = method.search(ask, &images, &[3], &images, 1).unwrap();
        assert_eq!((ways[0].example.as_ref(), ways[0].at(500)), (None, None));
    }
}
