//! Boundaries between classes, found by bisection of labels.

use chacha20::ChaCha8Rng;
use nalgebra::{DMatrix, DVector};

use super::exact::{drop_of, left_singular};
use crate::attack::AttackError;
use crate::random;
use crate::target::{Rows, View};

/// Queries of one request, to bound the memory.
const BATCH: usize = 4096;

/// A drop between singular values that ends the span of the normals.
const DROP: f64 = 50.0;

/// Normals beyond the span that must show the drop.
const SPARE: usize = 4;

/// Boundary points whose normals are measured at once.
const AT_ONCE: usize = 4;

/// Bisections after which a line is looked at again, to leave out what leads nowhere.
const COARSE: usize = 8;

/// Shares of the way between two images within which a shifted boundary is looked for.
const WITHIN: [f64; 3] = [0.01, 0.04, 0.16];

/// How far the normal's product with the line that it was measured along may be from 1.
const TOLERANCE: f64 = 0.02;

/// A service that is asked for labels alone.
pub(super) struct Labels<'o, 't> {
    pub target: &'o mut View<'t>,
    /// Queries answered so far.
    pub used: u64,
    /// Broken on purpose: each answer is taken for that of the next query.
    pub broken: bool,
}

impl Labels<'_, '_> {
    pub(super) fn inputs(&self) -> usize {
        self.target.about().inputs
    }

    /// The labels of so many points, which `place` appends one at a time.
    pub(super) fn ask(
        &mut self,
        count: usize,
        mut place: impl FnMut(usize, &mut Vec<f64>),
    ) -> Result<Vec<u8>, AttackError> {
        let width = self.inputs();
        let mut all = Vec::with_capacity(count);
        for start in (0..count).step_by(BATCH) {
            let end = count.min(start + BATCH);
            let mut values = Vec::with_capacity((end - start) * width);
            (start..end).for_each(|at| place(at, &mut values));
            all.extend(self.target.labels(&Rows::new(width, values))?);
        }
        self.used += count as u64;
        if self.broken && !all.is_empty() {
            all.rotate_left(1);
        }
        Ok(all)
    }
}

/// Where a line crosses a boundary, and the classes before and behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Crossing {
    pub at: f64,
    pub before: u8,
    pub behind: u8,
}

/// Bisects so many lines at once between two parameters each. `place` appends the
/// point of a line at a parameter. Lines of which `keep` does not want the classes are
/// left out at the coarse look and at the end.
pub(super) fn bisect(
    labels: &mut Labels<'_, '_>,
    spans: &[[f64; 2]],
    rounds: usize,
    place: &dyn Fn(usize, f64, &mut Vec<f64>),
    keep: &dyn Fn(usize, u8, u8) -> bool,
) -> Result<Vec<Option<Crossing>>, AttackError> {
    let count = spans.len();
    let mut ends = [Vec::new(), Vec::new()];
    for (side, end) in ends.iter_mut().enumerate() {
        *end = labels.ask(count, |i, out| place(i, spans[i][side], out))?;
    }
    let mut spans = spans.to_vec();
    let differs = |i: usize, ends: &[Vec<u8>; 2]| ends[0][i] != ends[1][i];
    let mut active: Vec<usize> = (0..count).filter(|&i| differs(i, &ends)).collect();
    for round in 0..rounds {
        if round == COARSE {
            active.retain(|&i| keep(i, ends[0][i], ends[1][i]));
        }
        let middle = |i: usize| f64::midpoint(spans[i][0], spans[i][1]);
        let found = labels.ask(active.len(), |at, out| {
            place(active[at], middle(active[at]), out);
        })?;
        for (&i, label) in active.iter().zip(found) {
            let side = usize::from(label != ends[0][i]);
            spans[i][side] = f64::midpoint(spans[i][0], spans[i][1]);
            ends[side][i] = label;
        }
    }
    let mut crossings = vec![None; count];
    for i in active {
        let (before, behind) = (ends[0][i], ends[1][i]);
        if keep(i, before, behind) {
            crossings[i] = Some(Crossing {
                at: f64::midpoint(spans[i][0], spans[i][1]),
                before,
                behind,
            });
        }
    }
    Ok(crossings)
}

/// A point on a boundary, the line that it was found on, and the classes beside it.
struct Point {
    at: Vec<f64>,
    along: Vec<f64>,
    classes: (u8, u8),
    within: f64,
}

/// How normals are measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probing {
    /// How far from a boundary point its neighbours are looked for.
    pub offset: f64,
    /// Bisections per neighbour.
    pub rounds: usize,
    /// Normals after which a span without a clear end is taken as it is.
    pub most: usize,
}

/// The span of the normals.
pub(super) struct Span {
    /// Orthonormal columns.
    pub basis: DMatrix<f64>,
    /// The drop of the singular values behind it.
    pub drop: f64,
    /// Normals measured.
    pub normals: usize,
}

/// The row space of the first layer: the span of normals of boundaries, at points
/// between images of different classes, until it no longer grows.
pub(super) fn span(
    labels: &mut Labels<'_, '_>,
    images: &Rows,
    probing: Probing,
    rng: &mut ChaCha8Rng,
) -> Result<Option<Span>, AttackError> {
    let mut normals: Vec<DVector<f64>> = Vec::new();
    let mut best = None;
    let tries = 4 * probing.most.div_ceil(AT_ONCE);
    for _ in 0..tries {
        let points = points(labels, images, probing, rng)?;
        normals.extend(normals_at(labels, &points, probing)?);
        if normals.len() <= SPARE {
            continue;
        }
        let (vectors, values) = left_singular(&DMatrix::from_columns(&normals));
        let (rank, drop) = drop_of(&values);
        best = Some(Span {
            basis: vectors.columns(0, rank).into_owned(),
            drop,
            normals: normals.len(),
        });
        let whole = drop >= DROP && rank + SPARE <= normals.len();
        if whole || normals.len() >= probing.most.min(labels.inputs()) {
            break;
        }
    }
    Ok(best)
}

/// Some points on boundaries, each between two images of different classes, at which
/// no third class comes between.
fn points(
    labels: &mut Labels<'_, '_>,
    images: &Rows,
    probing: Probing,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Point>, AttackError> {
    let mut pick = || random::below(rng, images.len());
    let pairs: Vec<(usize, usize)> = (0..2 * AT_ONCE).map(|_| (pick(), pick())).collect();
    let between = |i: usize, t: f64, out: &mut Vec<f64>| {
        let (from, to) = (images.row(pairs[i].0), images.row(pairs[i].1));
        out.extend(from.iter().zip(to).map(|(a, b)| a + t * (b - a)));
    };
    let spans = vec![[0.0, 1.0]; pairs.len()];
    let found = bisect(labels, &spans, 48, &between, &|_, _, _| true)?;
    let mut points: Vec<Point> = Vec::new();
    for (i, crossing) in found.into_iter().enumerate() {
        let (from, to) = (images.row(pairs[i].0), images.row(pairs[i].1));
        points.extend(crossing.map(|crossing| {
            let mut at = Vec::new();
            between(i, crossing.at, &mut at);
            Point {
                at,
                along: from.iter().zip(to).map(|(a, b)| b - a).collect(),
                classes: (crossing.before, crossing.behind),
                within: 0.0,
            }
        }));
    }
    // Where a neighbour's boundary is not met within the share, the next is tried.
    let width = labels.inputs();
    for within in WITHIN {
        for point in points.iter_mut().filter(|point| point.within == 0.0) {
            let at = |i: usize, out: &mut Vec<f64>| {
                let by = if i.is_multiple_of(2) { -within } else { within };
                neighbour(point, probing.offset, i / 2, by, out);
            };
            let ends = labels.ask(4 * width, at)?;
            let (before, behind) = point.classes;
            let sound = |pair: &[u8]| pair == [before, behind];
            if ends.chunks_exact(2).all(sound) {
                point.within = within;
            }
        }
    }
    points.retain(|point| point.within > 0.0);
    points.truncate(AT_ONCE);
    Ok(points)
}

/// Appends a point beside a boundary point: shifted by the offset along an axis, up for
/// even lines and down for odd ones, and by `t` along the line.
fn neighbour(point: &Point, offset: f64, line: usize, t: f64, out: &mut Vec<f64>) {
    let start = out.len();
    let moved = point.at.iter().zip(&point.along).map(|(x, v)| x + t * v);
    out.extend(moved);
    let sign = if line.is_multiple_of(2) { 1.0 } else { -1.0 };
    out[start + line / 2] += sign * offset;
}

/// Unit normals. Where the boundary shifted by `±offset e_i` is met at `t+` and `t-`
/// along the line `v`, the normal with `n v = 1` has `n_i = (t- - t+) / (2 offset)`.
fn normals_at(
    labels: &mut Labels<'_, '_>,
    points: &[Point],
    probing: Probing,
) -> Result<Vec<DVector<f64>>, AttackError> {
    let lines = 2 * labels.inputs();
    let spans = points
        .iter()
        .flat_map(|point| std::iter::repeat_n([-point.within, point.within], lines));
    let spans: Vec<[f64; 2]> = spans.collect();
    let place = |i: usize, t: f64, out: &mut Vec<f64>| {
        neighbour(&points[i / lines], probing.offset, i % lines, t, out);
    };
    let keep = |i: usize, before: u8, behind: u8| points[i / lines].classes == (before, behind);
    let found = bisect(labels, &spans, probing.rounds, &place, &keep)?;
    let mut normals = Vec::new();
    for (point, found) in points.iter().zip(found.chunks_exact(lines)) {
        let met: Option<Vec<f64>> = found.iter().map(|c| c.map(|c| c.at)).collect();
        let Some(met) = met else { continue };
        let pairs = met.chunks_exact(2);
        let normal = pairs.map(|t| (t[1] - t[0]) / (2.0 * probing.offset));
        let normal = DVector::from_iterator(labels.inputs(), normal);
        let along = DVector::from_column_slice(&point.along);
        // What wraps around a third class, or is no smooth boundary, shows here.
        if (normal.dot(&along) - 1.0).abs() < TOLERANCE {
            normals.push(normal.normalize());
        }
    }
    Ok(normals)
}
