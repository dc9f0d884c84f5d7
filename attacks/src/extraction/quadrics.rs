//! Quadratic forms of the classes from points on the boundaries between them.
//!
//! On the boundary between `a` and `b` the difference of their logits is 0, so its
//! coefficients are the null vector of the boundary points' monomials, up to a scale.
//! The scales of all pairs follow from `(f_a - f_b) + (f_b - f_c) = f_a - f_c`.

use std::collections::{BTreeMap, BTreeSet};

use chacha20::ChaCha8Rng;
use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rayon::prelude::*;

use super::boundary::{Labels, bisect};
use crate::attack::AttackError;
use crate::random;
use crate::target::Rows;

/// Points per unknown of a quadric.
const SURPLUS: f64 = 1.25;

/// Requests for more boundary points.
const TURNS: usize = 12;

/// Labelled points between which boundaries are looked for, at least.
const ENDS: usize = 2000;

/// Least deviation along an axis, as a share of the largest.
const LEAST: f64 = 0.02;

/// Steps of inverse iteration.
const STEPS: usize = 6;

/// A pair of classes, the smaller first.
type Pair = (u8, u8);

/// An affine subspace of the inputs with coordinates in which images have unit
/// variance.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    centre: DVector<f64>,
    /// Orthonormal columns.
    axes: DMatrix<f64>,
    deviations: DVector<f64>,
}

impl Slice {
    /// The subspace through `centre` along the columns of `basis`, which are
    /// orthonormal.
    pub(super) fn new(centre: DVector<f64>, basis: &DMatrix<f64>, images: &Rows) -> Self {
        let count = images.len().max(1) as f64;
        let rows: Vec<DVector<f64>> = images
            .iter()
            .map(|row| basis.tr_mul(&(DVector::from_column_slice(row) - &centre)))
            .collect();
        let mut covariance = DMatrix::<f64>::zeros(basis.ncols(), basis.ncols());
        for row in &rows {
            covariance.ger(1.0 / count, row, row, 1.0);
        }
        let eigen = SymmetricEigen::new(covariance);
        let deviations = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
        let floor = (LEAST * deviations.max()).max(f64::MIN_POSITIVE);
        Self {
            centre,
            axes: basis * eigen.eigenvectors,
            deviations: deviations.map(|d| d.max(floor)),
        }
    }

    pub(super) fn dimensions(&self) -> usize {
        self.axes.ncols()
    }

    pub(super) fn coordinates(&self, input: &[f64]) -> Vec<f64> {
        let x = DVector::from_column_slice(input) - &self.centre;
        let along = self.axes.tr_mul(&x);
        let scaled = along.iter().zip(&self.deviations).map(|(y, d)| y / d);
        scaled.collect()
    }

    /// Appends the input at these coordinates.
    fn input(&self, at: &[f64], out: &mut Vec<f64>) {
        let scaled = at.iter().zip(&self.deviations).map(|(z, d)| z * d);
        let scaled = DVector::from_iterator(at.len(), scaled);
        out.extend((&self.centre + &self.axes * scaled).iter());
    }

    /// The inputs nearest to these in the subspace.
    pub(super) fn projected(&self, inputs: &Rows) -> Rows {
        let mut values = Vec::with_capacity(inputs.values().len());
        for row in inputs.iter() {
            self.input(&self.coordinates(row), &mut values);
        }
        Rows::new(inputs.width(), values)
    }
}

/// Coefficients of a quadric in so many dimensions.
pub(super) const fn unknowns(dimensions: usize) -> usize {
    (dimensions + 1) * (dimensions + 2) / 2
}

/// Products of two coordinates, coordinates, one.
fn monomials(at: &[f64]) -> Vec<f64> {
    let mut all = Vec::with_capacity(unknowns(at.len()));
    for (i, x) in at.iter().enumerate() {
        all.extend(at[i..].iter().map(|y| x * y));
    }
    all.extend_from_slice(at);
    all.push(1.0);
    all
}

/// One quadratic form per class in coordinates of a slice; none for a class that no
/// boundary was found of.
pub(super) struct Forms {
    pub slice: Slice,
    forms: Vec<Option<DVector<f64>>>,
    /// Boundaries that were fitted.
    pub pairs: usize,
}

impl Forms {
    pub(super) fn classes(&self, inputs: &Rows) -> Vec<u8> {
        let labels = inputs.iter().map(|row| {
            let at = DVector::from_vec(monomials(&self.slice.coordinates(row)));
            self.class(&at)
        });
        labels.collect()
    }

    fn class(&self, monomials: &DVector<f64>) -> u8 {
        let mut best = (0, f64::NEG_INFINITY);
        for (class, form) in self.forms.iter().enumerate() {
            let value = form
                .as_ref()
                .map_or(f64::NEG_INFINITY, |f| f.dot(monomials));
            if value > best.1 {
                best = (class as u8, value);
            }
        }
        best.0
    }
}

/// Points of a slice with the labels that the service gave them, by class.
struct Ends {
    by_class: Vec<Vec<Vec<f64>>>,
}

impl Ends {
    /// Images, and images moved by part of the way between two others.
    fn asked(
        labels: &mut Labels<'_, '_>,
        slice: &Slice,
        images: &Rows,
        radius: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, AttackError> {
        let images: Vec<Vec<f64>> = images.iter().map(|row| slice.coordinates(row)).collect();
        let mut points = Vec::new();
        while points.len() < ENDS {
            let [a, b, c] = [(); 3].map(|()| &images[random::below(rng, images.len())]);
            let by = random::uniform(rng);
            let moved = (0..a.len())
                .map(|i| radius * (a[i] + by * (b[i] - c[i]) + 0.2 * random::normal(rng)));
            points.push(moved.collect::<Vec<f64>>());
        }
        let found = labels.ask(points.len(), |i, out| slice.input(&points[i], out))?;
        let classes = labels.target.about().classes;
        let mut by_class = vec![Vec::new(); classes];
        for (point, label) in points.into_iter().zip(found) {
            if let Some(list) = by_class.get_mut(usize::from(label)) {
                list.push(point);
            }
        }
        Ok(Self { by_class })
    }

    fn pairs(&self) -> BTreeSet<Pair> {
        let filled: Vec<u8> = (0..self.by_class.len() as u8)
            .filter(|&class| !self.by_class[usize::from(class)].is_empty())
            .collect();
        let firsts = filled.iter().enumerate();
        firsts
            .flat_map(|(i, &a)| filled[i + 1..].iter().map(move |&b| (a, b)))
            .collect()
    }

    fn any(&self, class: u8, rng: &mut ChaCha8Rng) -> &[f64] {
        let list = &self.by_class[usize::from(class)];
        &list[random::below(rng, list.len())]
    }
}

/// Boundary points of every pair that has a boundary, as many as its quadric needs.
fn gathered(
    labels: &mut Labels<'_, '_>,
    slice: &Slice,
    ends: &Ends,
    rounds: usize,
    rng: &mut ChaCha8Rng,
) -> Result<BTreeMap<Pair, Vec<Vec<f64>>>, AttackError> {
    let needed = (SURPLUS * unknowns(slice.dimensions()) as f64) as usize + 8;
    let mut points: BTreeMap<Pair, Vec<Vec<f64>>> = BTreeMap::new();
    let mut wanted = ends.pairs();
    let mut yields: BTreeMap<Pair, f64> = BTreeMap::new();
    for _ in 0..TURNS {
        let mut segments: Vec<[&[f64]; 2]> = Vec::new();
        let have: BTreeMap<Pair, usize> = wanted
            .iter()
            .map(|&pair| (pair, points.get(&pair).map_or(0, Vec::len)))
            .collect();
        for (&(a, b), &have) in &have {
            let per = yields.get(&(a, b)).copied().unwrap_or(0.5).max(0.1);
            let count = (needed - have) as f64 / per;
            for _ in 0..(count.ceil() as usize).max(8) {
                segments.push([ends.any(a, rng), ends.any(b, rng)]);
            }
        }
        if segments.is_empty() {
            break;
        }
        let at = |i: usize, t: f64| -> Vec<f64> {
            let [from, to] = segments[i];
            from.iter().zip(to).map(|(a, b)| a + t * (b - a)).collect()
        };
        let place = |i: usize, t: f64, out: &mut Vec<f64>| slice.input(&at(i, t), out);
        let pair = |a: u8, b: u8| (a.min(b), a.max(b));
        let keep = |_: usize, a: u8, b: u8| wanted.contains(&pair(a, b));
        let spans = vec![[0.0, 1.0]; segments.len()];
        let found = bisect(labels, &spans, rounds, &place, &keep)?;
        for (i, crossing) in found.iter().enumerate() {
            let Some(crossing) = crossing else { continue };
            let list = points
                .entry(pair(crossing.before, crossing.behind))
                .or_default();
            if list.len() < needed {
                list.push(at(i, crossing.at));
            }
        }
        for (&pair, &before) in &have {
            let now = points.get(&pair).map_or(0, Vec::len);
            let share = (now - before) as f64 / (needed - before).max(1) as f64;
            // A pair that hardly meets is reached through others.
            if now >= needed || share < 0.02 {
                wanted.remove(&pair);
            }
            yields.insert(pair, 0.5 * share);
        }
    }
    points.retain(|_, list| list.len() >= needed);
    Ok(points)
}

/// The null vector of the points' monomials, of unit length, by inverse iteration on
/// the triangle of their QR decomposition: normal equations would halve the digits.
fn null_vector(points: &[Vec<f64>]) -> Option<DVector<f64>> {
    let width = points.first().map_or(0, |point| unknowns(point.len()));
    let rows = points.iter().flat_map(|point| {
        let row = monomials(point);
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.into_iter().map(move |x| x / norm)
    });
    let rows: Vec<f64> = rows.collect();
    let matrix = DMatrix::from_row_slice(points.len(), width, &rows);
    let mut triangle = matrix.qr().r();
    let floor = f64::EPSILON * triangle.norm();
    for i in 0..width {
        if triangle[(i, i)].abs() < floor {
            triangle[(i, i)] = floor;
        }
    }
    let transposed = triangle.transpose();
    let mut vector = DVector::from_element(width, 1.0);
    for _ in 0..STEPS {
        let half = transposed.solve_lower_triangular(&vector)?;
        vector = triangle.solve_upper_triangular(&half)?.normalize();
    }
    vector.iter().all(|x| x.is_finite()).then_some(vector)
}

/// Pairs that are held together by triangles: the largest such group.
fn rigid(pairs: &[Pair]) -> (Vec<Pair>, Vec<[usize; 3]>) {
    let index: BTreeMap<Pair, usize> = pairs.iter().enumerate().map(|(i, &p)| (p, i)).collect();
    let mut triangles = Vec::new();
    for &(a, b) in pairs {
        for &(_, c) in pairs.iter().filter(|pair| pair.0 == b) {
            if let (Some(&x), Some(&y), Some(&z)) =
                (index.get(&(a, b)), index.get(&(b, c)), index.get(&(a, c)))
            {
                triangles.push([x, y, z]);
            }
        }
    }
    let mut group: Vec<usize> = (0..pairs.len()).collect();
    // As many passes as the longest chain of triangles is long.
    for _ in 0..pairs.len() {
        for triangle in &triangles {
            let least = triangle.iter().map(|&i| group[i]).min().unwrap_or(0);
            triangle.iter().for_each(|&i| group[i] = least);
        }
    }
    let size = |g: usize| group.iter().filter(|&&other| other == g).count();
    let largest = (0..pairs.len()).max_by_key(|&g| (size(g), pairs.len() - g));
    let inside = |i: usize| Some(group[i]) == largest;
    let kept: Vec<usize> = (0..pairs.len()).filter(|&i| inside(i)).collect();
    let place = |i: usize| kept.iter().position(|&k| k == i).unwrap_or(0);
    let triangles = triangles.into_iter().filter(|t| inside(t[0]));
    let triangles = triangles.map(|t| t.map(place)).collect();
    (kept.iter().map(|&i| pairs[i]).collect(), triangles)
}

/// Scales of the pairs' quadrics, up to one for all.
fn scales(quadrics: &[DVector<f64>], triangles: &[[usize; 3]]) -> DVector<f64> {
    let count = quadrics.len();
    let mut gram = DMatrix::<f64>::zeros(count, count);
    for triangle in triangles {
        let signs = [1.0, 1.0, -1.0];
        for (i, sign_i) in triangle.iter().zip(signs) {
            for (j, sign_j) in triangle.iter().zip(signs) {
                gram[(*i, *j)] += sign_i * sign_j * quadrics[*i].dot(&quadrics[*j]);
            }
        }
    }
    let eigen = SymmetricEigen::new(gram);
    eigen
        .eigenvectors
        .column(eigen.eigenvalues.imin())
        .into_owned()
}

/// Forms of the classes from the scaled quadrics of pairs, by least squares; one class
/// has the form 0.
fn solved(pairs: &[Pair], quadrics: &[DVector<f64>], classes: usize) -> Vec<Option<DVector<f64>>> {
    let width = quadrics.first().map_or(0, DVector::len);
    let mut laplacian = DMatrix::<f64>::zeros(classes, classes);
    let mut sums = DMatrix::<f64>::zeros(classes, width);
    for (&(a, b), quadric) in pairs.iter().zip(quadrics) {
        let (a, b) = (usize::from(a), usize::from(b));
        for (i, j) in [(a, b), (b, a)] {
            laplacian[(i, i)] += 1.0;
            laplacian[(i, j)] -= 1.0;
        }
        for k in 0..width {
            sums[(a, k)] += quadric[k];
            sums[(b, k)] -= quadric[k];
        }
    }
    let known: Vec<bool> = (0..classes).map(|i| laplacian[(i, i)] > 0.0).collect();
    let inverse = laplacian.pseudo_inverse(1e-9);
    let Ok(inverse) = inverse else {
        return vec![None; classes];
    };
    let forms: DMatrix<f64> = inverse * sums;
    let form = |i: usize| known[i].then(|| forms.row(i).transpose());
    (0..classes).map(form).collect()
}

/// The quadratic forms of a service's classes on a slice, from labels alone; `None`
/// where its boundaries do not hang together.
pub(super) fn extract(
    labels: &mut Labels<'_, '_>,
    slice: Slice,
    images: &Rows,
    radius: f64,
    rounds: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Option<Forms>, AttackError> {
    let ends = Ends::asked(labels, &slice, images, radius, rng)?;
    let points = gathered(labels, &slice, &ends, rounds, rng)?;
    let fitted: Vec<(Pair, Option<DVector<f64>>)> = points
        .par_iter()
        .map(|(&pair, points)| (pair, null_vector(points)))
        .collect();
    let fitted = fitted.into_iter();
    let fitted: BTreeMap<Pair, DVector<f64>> = fitted
        .filter_map(|(pair, q)| q.map(|q| (pair, q)))
        .collect();
    let (pairs, triangles) = rigid(&fitted.keys().copied().collect::<Vec<_>>());
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut quadrics: Vec<DVector<f64>> = pairs.iter().map(|pair| fitted[pair].clone()).collect();
    let scales = scales(&quadrics, &triangles);
    for (quadric, scale) in quadrics.iter_mut().zip(&scales) {
        *quadric *= *scale;
    }
    let classes = labels.target.about().classes;
    let solved = solved(&pairs, &quadrics, classes);
    // One sign is left: that with which labelled points have their labels.
    let of_sign = |sign: f64| Forms {
        slice: slice.clone(),
        forms: solved
            .iter()
            .map(|f| f.as_ref().map(|f| f * sign))
            .collect(),
        pairs: pairs.len(),
    };
    let right = |forms: &Forms| -> usize {
        let lists = ends.by_class.iter().enumerate();
        let of = lists.map(|(class, list)| {
            let list = list.iter().take(100);
            let labels = list.map(|at| forms.class(&DVector::from_vec(monomials(at))));
            labels.filter(|&label| usize::from(label) == class).count()
        });
        of.sum()
    };
    let [plus, minus] = [of_sign(1.0), of_sign(-1.0)];
    Ok(Some(if right(&plus) >= right(&minus) {
        plus
    } else {
        minus
    }))
}
