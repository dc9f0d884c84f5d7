//! Affine maps `x -> A x + c` between activations, with sparse rows.
//!
//! Every linear operator (a convolution with any stride, dilation and groups, pooling by
//! the average, normalisation, padding, a change of layout, a sum of branches) makes of a
//! map another one, so what lies between two activations is one map however it was
//! written. A [`Window`] says where a row may look if the map is a convolution: a claim,
//! which [`Affine::convolution`] proves or refuses.

use crate::model::{Kernel, Padding, Shape};

/// Weights of one place of a kernel that differ by less, relative to the largest, are the
/// same: they are sums in `f64` of numbers in single precision.
const SAME: f64 = 1e-9;

/// Most weights of the kernels of a convolution.
const MAX_KERNEL_WEIGHTS: usize = 1 << 24;

/// An affine map.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    /// Values that it takes.
    inputs: usize,
    /// Where the terms of each row end.
    ends: Vec<usize>,
    /// Of every term, in ascending order within a row.
    columns: Vec<u32>,
    weights: Vec<f64>,
    /// One per row.
    constants: Vec<f64>,
    /// If it may be a convolution.
    pub(super) window: Option<Window>,
    /// Whether weights of a layer are in it, which it costs accuracy to round twice.
    pub(super) weighted: bool,
}

/// Where the rows of a convolution look, along rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Channels, rows and columns of what the map takes.
    pub(super) input: [usize; 3],
    /// And of what it gives.
    pub(super) output: [usize; 3],
    /// Places of the kernel.
    pub(super) kernel: [usize; 2],
    /// Places from one window to the next.
    pub(super) stride: [usize; 2],
    /// Places of padding in front.
    pub(super) before: [usize; 2],
}

impl Window {
    /// A window over windows, giving `output`.
    fn over(
        self,
        kernel: [usize; 2],
        stride: [usize; 2],
        before: [usize; 2],
        output: [usize; 3],
    ) -> Option<Self> {
        let along = |axis: usize| {
            let reach = kernel[axis]
                .checked_sub(1)?
                .checked_mul(self.stride[axis])?;
            Some((
                self.kernel[axis].checked_add(reach)?,
                self.stride[axis].checked_mul(stride[axis])?,
                self.before[axis].checked_add(before[axis].checked_mul(self.stride[axis])?)?,
            ))
        };
        let (rows, columns) = (along(0)?, along(1)?);
        Some(Self {
            input: self.input,
            output,
            kernel: [rows.0, columns.0],
            stride: [rows.1, columns.1],
            before: [rows.2, columns.2],
        })
    }

    /// One that holds both, for outputs of the same rows and columns; their channels are
    /// those of `output`.
    fn union(self, other: Self, output: [usize; 3]) -> Option<Self> {
        let same = self.input == other.input
            && self.stride == other.stride
            && self.output[1..] == other.output[1..];
        if !same {
            return None;
        }
        let mut union = Self { output, ..self };
        for axis in 0..2 {
            let before = self.before[axis].max(other.before[axis]);
            let behind =
                |window: Self| window.kernel[axis] - window.before[axis].min(window.kernel[axis]);
            union.before[axis] = before;
            union.kernel[axis] = before + behind(self).max(behind(other));
        }
        Some(union)
    }
}

/// Collects rows.
struct Collector {
    map: Affine,
    /// The row that is being made, and which of its columns are in it.
    row: Vec<f64>,
    present: Vec<bool>,
    touched: Vec<u32>,
}

impl Collector {
    fn new(inputs: usize, weighted: bool) -> Self {
        Self {
            map: Affine {
                inputs,
                ends: Vec::new(),
                columns: Vec::new(),
                weights: Vec::new(),
                constants: Vec::new(),
                window: None,
                weighted,
            },
            row: vec![0.0; inputs],
            present: vec![false; inputs],
            touched: Vec::new(),
        }
    }

    /// Adds `factor` times a row of `map`, and gives that of its constant.
    fn add(&mut self, map: &Affine, row: usize, factor: f64) -> f64 {
        for (column, weight) in map.row(row) {
            let at = column as usize;
            if !self.present[at] {
                self.present[at] = true;
                self.touched.push(column);
            }
            self.row[at] += factor * weight;
        }
        factor * map.constants[row]
    }

    fn end_row(&mut self, constant: f64) {
        self.touched.sort_unstable();
        for &column in &self.touched {
            let at = column as usize;
            let weight = std::mem::take(&mut self.row[at]);
            self.present[at] = false;
            if weight != 0.0 {
                self.map.columns.push(column);
                self.map.weights.push(weight);
            }
        }
        self.touched.clear();
        self.map.ends.push(self.map.columns.len());
        self.map.constants.push(constant);
    }
}

impl Affine {
    /// What leaves values of this shape as they are.
    pub(super) fn identity(dims: &[usize]) -> Self {
        let count: usize = dims.iter().product();
        let window = match *dims {
            [channels, height, width] => Some([channels, height, width]),
            [channels] => Some([channels, 1, 1]),
            _ => None,
        };
        Self {
            inputs: count,
            ends: (1..=count).collect(),
            columns: (0..count as u32).collect(),
            weights: vec![1.0; count],
            constants: vec![0.0; count],
            window: window.map(|shape| Window {
                input: shape,
                output: shape,
                kernel: [1, 1],
                stride: [1, 1],
                before: [0, 0],
            }),
            weighted: false,
        }
    }

    /// Values that it takes.
    pub(super) const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values that it gives.
    pub(super) fn outputs(&self) -> usize {
        self.ends.len()
    }

    /// Weights that are not zero.
    pub(super) fn terms(&self) -> usize {
        self.columns.len()
    }

    /// What is added to each value.
    pub(super) fn constants(&self) -> &[f64] {
        &self.constants
    }

    /// Columns and weights of a row.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (u32, f64)> + '_ {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        let terms = start..self.ends[row];
        let columns = self.columns[terms.clone()].iter().copied();
        columns.zip(self.weights[terms].iter().copied())
    }

    /// Rows that are mixed of the rows of this map, one per call of `each` with its
    /// index; it fills the terms and gives the constant.
    pub(super) fn mixed(
        &self,
        rows: usize,
        mut each: impl FnMut(usize, &mut Vec<(usize, f64)>) -> f64,
    ) -> Self {
        let mut collector = Collector::new(self.inputs, self.weighted);
        let mut terms = Vec::new();
        for row in 0..rows {
            terms.clear();
            let mut constant = each(row, &mut terms);
            for &(of, factor) in &terms {
                constant += collector.add(self, of, factor);
            }
            collector.end_row(constant);
        }
        collector.map
    }

    /// A map over the results of `first`, over what that takes.
    pub(super) fn after(&self, first: &Self) -> Self {
        let mut map = first.mixed(self.outputs(), |row, terms| {
            terms.extend(self.row(row).map(|(column, w)| (column as usize, w)));
            self.constants[row]
        });
        map.weighted |= self.weighted;
        map
    }

    /// Every row times a factor of its own, plus a constant of its own.
    pub(super) fn scaled(&self, of: impl Fn(usize) -> (f64, f64)) -> Self {
        let mut map = self.clone();
        let mut start = 0;
        for row in 0..map.ends.len() {
            let (factor, summand) = of(row);
            map.weights[start..map.ends[row]]
                .iter_mut()
                .for_each(|w| *w *= factor);
            map.constants[row] = factor * map.constants[row] + summand;
            start = map.ends[row];
        }
        map
    }

    /// The sum of two maps of the same size.
    pub(super) fn sum(&self, other: &Self) -> Self {
        let weighted = self.weighted || other.weighted;
        let mut collector = Collector::new(self.inputs, weighted);
        for row in 0..self.outputs() {
            let constant = collector.add(self, row, 1.0) + collector.add(other, row, 1.0);
            collector.end_row(constant);
        }
        let mut map = collector.map;
        let windows = self.window.zip(other.window);
        map.window = windows.and_then(|(a, b)| match a.output == b.output {
            true => a.union(b, a.output),
            false => None,
        });
        map
    }

    /// Rows of one map or the other: `(map, row)` in order. `stacked` says that whole
    /// channels of rows and columns follow each other.
    pub(super) fn chosen(maps: &[&Self], order: &[(usize, usize)], stacked: bool) -> Self {
        let inputs = maps.first().map_or(0, |map| map.inputs);
        let weighted = maps.iter().any(|map| map.weighted);
        let mut collector = Collector::new(inputs, weighted);
        for &(map, row) in order {
            let constant = collector.add(maps[map], row, 1.0);
            collector.end_row(constant);
        }
        let mut chosen = collector.map;
        if stacked {
            let windows: Option<Vec<Window>> = maps.iter().map(|map| map.window).collect();
            chosen.window = windows.and_then(|windows| {
                let channels = windows.iter().map(|window| window.output[0]).sum();
                let (first, rest) = windows.split_first()?;
                let output = [channels, first.output[1], first.output[2]];
                let all = |window: Window, next: &Window| window.union(*next, output);
                rest.iter().try_fold(Window { output, ..*first }, all)
            });
        }
        chosen
    }

    /// With the window of values that are left as they are, if these are: behind two
    /// changes of layout of which one undoes the other.
    pub(super) fn recognised(mut self, dims: &[usize]) -> Self {
        let identity = Self::identity(dims);
        let same = self.inputs == identity.inputs
            && self.ends == identity.ends
            && self.columns == identity.columns
            && self.weights == identity.weights
            && self.constants == identity.constants;
        if same {
            self.window = identity.window;
        }
        self
    }

    /// Says that `map`, which was made of the rows of this one, looks at them through
    /// windows of rows and columns, giving `output`.
    pub(super) fn looked_through(
        &self,
        mut map: Self,
        kernel: [usize; 2],
        stride: [usize; 2],
        before: [usize; 2],
        output: [usize; 3],
    ) -> Self {
        let window = self.window;
        map.window = window.and_then(|window| window.over(kernel, stride, before, output));
        map
    }

    /// All weights, row after row.
    pub(super) fn dense(&self) -> Vec<f32> {
        let mut weights = vec![0.0f32; self.inputs * self.outputs()];
        for (index, row) in weights.chunks_exact_mut(self.inputs.max(1)).enumerate() {
            for (column, weight) in self.row(index) {
                row[column as usize] = weight as f32;
            }
        }
        weights
    }

    /// Kernels and biases, if it is a convolution of an input of this shape.
    pub(super) fn convolution(&self, input: Shape) -> Option<(Kernel, Vec<f32>, Vec<f32>)> {
        let window = self.window?;
        let of_input = [input.channels, input.height, input.width].map(usize::from);
        if window.input != of_input || window.output.iter().product::<usize>() != self.outputs() {
            return None;
        }
        let kernel = kernel(&window, input)?;
        // A dense layer with fewer weights is the simpler one.
        let [channels, height, width] = window.output;
        if height * width == 1 && window.kernel == [window.input[1], window.input[2]] {
            return None;
        }
        let patch = window.input[0] * window.kernel[0] * window.kernel[1];
        if channels * patch > MAX_KERNEL_WEIGHTS {
            return None;
        }
        let mut weights = vec![None; channels * patch];
        let places = height * width;
        let largest = self.weights.iter().fold(0.0f64, |max, w| max.max(w.abs()));
        let same = |a: f64, b: f64, unit: f64| (a - b).abs() <= SAME * unit;
        // What a weight is, wherever it is.
        for row in 0..self.outputs() {
            let own = &mut weights[row / places * patch..][..patch];
            for (column, weight) in self.row(row) {
                let place = place_in_kernel(&window, row % places, column as usize)?;
                own[place].get_or_insert(weight);
            }
        }
        let weights: Vec<f64> = weights.into_iter().map(Option::unwrap_or_default).collect();
        // That it is the same at all places, and that nothing is missing.
        for row in 0..self.outputs() {
            let own = &weights[row / places * patch..][..patch];
            let mut terms = self.row(row).peekable();
            let (rows, columns) = under(&window, row % places);
            for channel in 0..window.input[0] {
                for y in rows.clone() {
                    for x in columns.clone() {
                        let at = (channel * window.input[1] + y) * window.input[2] + x;
                        let place = place_in_kernel(&window, row % places, at)?;
                        let found = terms.next_if(|&(column, _)| column as usize == at);
                        let found = found.map_or(0.0, |(_, weight)| weight);
                        if !same(found, own[place], largest) {
                            return None;
                        }
                    }
                }
            }
        }
        let biases: Vec<f64> = self.constants.chunks_exact(places).map(|c| c[0]).collect();
        let of_constants = self
            .constants
            .iter()
            .fold(largest, |max, c| max.max(c.abs()));
        let mut rows = self.constants.iter().enumerate();
        if !rows.all(|(row, &c)| same(c, biases[row / places], of_constants)) {
            return None;
        }
        let single = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
        Some((kernel, single(weights), single(biases)))
    }
}

/// As the format has it, if it has.
fn kernel(window: &Window, input: Shape) -> Option<Kernel> {
    let [channels, height, width] = window.output;
    let along = |axis: usize, places: usize, side: u16| {
        let side = usize::from(side);
        let last = places.checked_sub(1)?.checked_mul(window.stride[axis])?;
        let end = last.checked_add(window.kernel[axis])?;
        let behind = end.saturating_sub(side.checked_add(window.before[axis])?);
        let fits = window.kernel[axis] <= side
            && window.before[axis] < window.kernel[axis]
            && behind < window.kernel[axis];
        fits.then_some(behind)
    };
    let bottom = along(0, height, input.height)?;
    let right = along(1, width, input.width)?;
    // A single row or column has no next window.
    let stride = match (height, width) {
        (1, 1) => 1,
        (1, _) => window.stride[1],
        (_, 1) => window.stride[0],
        _ if window.stride[0] == window.stride[1] => window.stride[0],
        _ => return None,
    };
    let short = |dim: usize| u16::try_from(dim).ok();
    let kernel = Kernel {
        out_channels: short(channels)?,
        height: short(window.kernel[0])?,
        width: short(window.kernel[1])?,
        stride: short(stride)?.min(input.height.max(input.width)),
        padding: Padding {
            top: short(window.before[0])?,
            bottom: short(bottom)?,
            left: short(window.before[1])?,
            right: short(right)?,
        },
    };
    let output = kernel.output(input);
    let got = [output.channels, output.height, output.width].map(usize::from);
    (got == window.output).then_some(kernel)
}

/// Rows and columns of the input under a window.
fn under(window: &Window, place: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let at = [place / window.output[2], place % window.output[2]];
    let along = |axis: usize| {
        let start = at[axis] * window.stride[axis];
        let end = start + window.kernel[axis];
        let of_input = |x: usize| x.saturating_sub(window.before[axis]);
        of_input(start)..of_input(end).min(window.input[axis + 1])
    };
    (along(0), along(1))
}

/// The place in the kernels of a channel of a place of the input under a window.
fn place_in_kernel(window: &Window, place: usize, column: usize) -> Option<usize> {
    let [_, height, width] = window.input;
    let at = [place / window.output[2], place % window.output[2]];
    let (channel, y, x) = (
        column / (height * width),
        column / width % height,
        column % width,
    );
    let along = |axis: usize, source: usize| {
        let offset = (source + window.before[axis]).checked_sub(at[axis] * window.stride[axis])?;
        (offset < window.kernel[axis]).then_some(offset)
    };
    let (dy, dx) = (along(0, y)?, along(1, x)?);
    Some((channel * window.kernel[0] + dy) * window.kernel[1] + dx)
}
