//! Operators with weights, and those that sum or average: maps upon maps.

use super::Reason;
use super::affine::Affine;
use super::graph::{Data, Operator, Stages, Value, printable};
use super::tensor::{Constant, axis, number, place};
use crate::model::{Padding, Shape};

/// Values that a layer between two activations never has: what is averaged afterwards
/// may be more than a model's layers.
const MAX_PLACES: usize = 1 << 20;

/// Windows along rows and columns.
struct Windows {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Above, to the left, below, to the right.
    pads: [usize; 4],
    input: [usize; 2],
    output: [usize; 2],
}

impl Windows {
    /// As the attributes have them.
    fn of(op: &Operator<'_>, kernel: [usize; 2], input: [usize; 2]) -> Result<Self, Reason> {
        let pair = |name: &str| -> Result<[usize; 2], Reason> {
            let given = op.integers(name);
            let positive = |x: i64| {
                usize::try_from(x)
                    .ok()
                    .filter(|&x| (1..1 << 16).contains(&x))
            };
            match *given {
                [] => Ok([1, 1]),
                [y, x] => positive(y).zip(positive(x)).map(|(y, x)| [y, x]).ok_or(()),
                _ => Err(()),
            }
            .map_err(|()| format!("its {name} are {given:?}; they must be two, and positive"))
        };
        let (stride, dilation) = (pair("strides")?, pair("dilations")?);
        let reach = [0, 1].map(|axis| {
            let reach = kernel[axis]
                .saturating_sub(1)
                .saturating_mul(dilation[axis]);
            reach.saturating_add(1)
        });
        let pads = pads(op, reach, stride, input)?;
        let ceil = op.integer("ceil_mode", 0) != 0;
        let along = |axis: usize| {
            let side = input[axis] + pads[axis] + pads[axis + 2];
            let room = side.checked_sub(reach[axis])?;
            let places = match ceil {
                false => room / stride[axis] + 1,
                // The last window begins within the data or the padding in front.
                true => {
                    let places = room.div_ceil(stride[axis]) + 1;
                    let begins = (places - 1) * stride[axis];
                    places - usize::from(begins >= input[axis] + pads[axis])
                }
            };
            Some(places)
        };
        let output = along(0)
            .zip(along(1))
            .filter(|_| kernel.iter().all(|&k| k > 0));
        let Some((height, width)) = output else {
            return Err(format!(
                "its kernels of {}x{} places do not fit data of {}x{}",
                reach[0], reach[1], input[0], input[1]
            ));
        };
        Ok(Self {
            kernel,
            stride,
            dilation,
            pads,
            input,
            output: [height, width],
        })
    }

    /// Calls `each` with the places of a kernel and of the input under it, of the window
    /// at `at`; `None` in the padding.
    fn under(&self, at: [usize; 2], mut each: impl FnMut([usize; 2], Option<[usize; 2]>)) {
        for dy in 0..self.kernel[0] {
            for dx in 0..self.kernel[1] {
                let along = |axis: usize, offset: usize| {
                    let place = at[axis] * self.stride[axis] + offset * self.dilation[axis];
                    let inside = place.checked_sub(self.pads[axis])?;
                    (inside < self.input[axis]).then_some(inside)
                };
                let source = along(0, dy).zip(along(1, dx)).map(|(y, x)| [y, x]);
                each([dy, dx], source);
            }
        }
    }

    fn reach(&self) -> [usize; 2] {
        [0, 1].map(|axis| (self.kernel[axis] - 1) * self.dilation[axis] + 1)
    }

    fn before(&self) -> [usize; 2] {
        [self.pads[0], self.pads[1]]
    }
}

/// The padding of windows: `auto_pad`, or `pads` from the starts of the axes to their ends.
fn pads(
    op: &Operator<'_>,
    reach: [usize; 2],
    stride: [usize; 2],
    input: [usize; 2],
) -> Result<[usize; 4], Reason> {
    let given = op.integers("pads");
    let automatic = op.text("auto_pad");
    let short = |x: usize| u16::try_from(x).unwrap_or(u16::MAX);
    let same = |axis: usize| {
        let shape = Shape {
            channels: 1,
            height: short(input[0]),
            width: short(input[1]),
        };
        let (height, width) = (short(reach[0]), short(reach[1]));
        Padding::same(shape, height, width, short(stride[axis]))
    };
    let padding = |lower: bool| {
        let (rows, columns) = (same(0), same(1));
        let side = |padding: Padding| if lower { padding.mirrored() } else { padding };
        let (rows, columns) = (side(rows), side(columns));
        [rows.top, columns.left, rows.bottom, columns.right].map(usize::from)
    };
    let found = match automatic {
        b"" | b"NOTSET" => {
            let sides = match *given {
                [] => Some([0; 4]),
                [a, b, c, d] => {
                    let side = |x: i64| usize::try_from(x).ok();
                    side(a)
                        .zip(side(b))
                        .zip(side(c).zip(side(d)))
                        .map(|((a, b), (c, d))| [a, b, c, d])
                }
                _ => None,
            };
            let fits = |&[top, left, bottom, right]: &[usize; 4]| {
                top.max(bottom) < reach[0] && left.max(right) < reach[1]
            };
            return sides.filter(fits).ok_or_else(|| {
                format!(
                    "its pads are {given:?}; they must be four, none negative, and less than the kernel's {} rows and {} columns",
                    reach[0], reach[1]
                )
            });
        }
        b"VALID" => [0; 4],
        b"SAME_UPPER" => padding(false),
        b"SAME_LOWER" => padding(true),
        other => {
            return Err(format!(
                "its auto_pad is \"{}\"; use NOTSET, VALID, SAME_UPPER or SAME_LOWER",
                printable(&String::from_utf8_lossy(other))
            ));
        }
    };
    if given.iter().any(|&pad| pad != 0) {
        return Err(format!(
            "it has an auto_pad and pads of {given:?}; leave one out"
        ));
    }
    Ok(found)
}

impl Stages {
    /// What an operator gives that makes a map of its data's.
    pub(super) fn mapped(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        match op.node.op_type.as_str() {
            "Gemm" => self.gemm(op),
            "MatMul" => self.matmul(op),
            "Conv" => self.conv(op),
            "BatchNormalization" => self.normalised(op),
            "AveragePool" => self.average(op),
            "GlobalAveragePool" => {
                let data = op.data(0)?;
                let [_, height, width] = data.image()?;
                let windows = Windows {
                    kernel: [height, width],
                    stride: [1, 1],
                    dilation: [1, 1],
                    pads: [0; 4],
                    input: [height, width],
                    output: [1, 1],
                };
                self.pooled(data, &windows, true)
            }
            "MaxPool" | "GlobalMaxPool" => self.largest_of_windows(op),
            _ => self.reduced(op),
        }
    }

    /// Data to put weights upon. Weights behind weights are a layer of their own where
    /// the first are a convolution's, whose structure is worth more, or where both
    /// together would be more weights than one after the other.
    fn operand(&mut self, data: &Data, outputs: usize) -> Result<Data, Reason> {
        let data = self.linear(data)?;
        let map = &data.map;
        let together = outputs.saturating_mul(map.inputs());
        let apart = outputs
            .saturating_mul(map.outputs())
            .saturating_add(map.terms());
        match map.weighted && (map.window.is_some() || together > apart) {
            true => self.stage(&data),
            false => Ok(data),
        }
    }

    /// A layer with weights: `each` fills the terms of a row and gives its constant.
    fn weighted(
        &mut self,
        data: &Data,
        dims: Vec<usize>,
        work: usize,
        each: impl FnMut(usize, &mut Vec<(usize, f64)>) -> f64,
    ) -> Result<(Data, Data), Reason> {
        let rows = dims.iter().product();
        let row = data.map.terms() / data.map.outputs().max(1) + 1;
        self.spend(0, work.saturating_mul(row))?;
        let mut map = data.map.mixed(rows, each);
        map.weighted = true;
        Ok((data.clone(), self.made(data.base, map, dims)?))
    }

    fn gemm(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        op.only("transA", 0)?;
        let (Value::Data(data), Value::Constant(weights)) = (op.input(0)?, op.input(1)?) else {
            return Err("it must multiply the data by constant weights".into());
        };
        let (alpha, beta) = (op.number("alpha", 1.0), op.number("beta", 1.0));
        let weights = match op.integer("transB", 0) {
            0 => weights.transposed()?,
            _ => weights.clone(),
        };
        let biases = op.constant(2)?.map(|biases| biases.map(|x| beta * x));
        self.dense(data, &weights.map(|x| alpha * x), biases.as_ref())
    }

    /// `weights` has one row per output.
    pub(super) fn dense(
        &mut self,
        data: &Data,
        weights: &Constant,
        biases: Option<&Constant>,
    ) -> Result<Data, Reason> {
        let &[outputs, inputs] = &weights.dims[..] else {
            return Err(format!(
                "its weights have the shape {:?}; they must be a matrix",
                weights.dims
            ));
        };
        if data.dims != [inputs] || outputs == 0 {
            return Err(format!(
                "its weights take {inputs} values and the data has the shape {:?} behind the batch",
                data.dims
            ));
        }
        let biases = row_of(biases, outputs)?;
        let data = self.operand(data, outputs)?;
        let rows = |row: usize, terms: &mut Vec<(usize, f64)>| {
            let own = &weights.values[row * inputs..][..inputs];
            terms.extend(own.iter().copied().enumerate().filter(|(_, w)| *w != 0.0));
            biases[row]
        };
        let work = weights.values.len();
        Ok(self.weighted(&data, vec![outputs], work, rows)?.1)
    }

    fn matmul(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        let (Value::Data(data), Value::Constant(weights)) = (op.input(0)?, op.input(1)?) else {
            return Err("it must multiply the data by constant weights".into());
        };
        let (&[inputs, outputs], Some((&last, before))) =
            (&weights.dims[..], data.dims.split_last())
        else {
            return Err(format!(
                "its weights have the shape {:?}; they must be a matrix",
                weights.dims
            ));
        };
        if before.is_empty() {
            return self.dense(data, &weights.transposed()?, None);
        }
        if last != inputs {
            return Err(format!(
                "its weights take {inputs} values and the data has the shape {:?} behind the batch",
                data.dims
            ));
        }
        // The same matrix for each of several rows.
        let dims = [before, &[outputs]].concat();
        let count: usize = before.iter().product();
        let data = self.operand(data, count.saturating_mul(outputs))?;
        let rows = |row: usize, terms: &mut Vec<(usize, f64)>| {
            let (of, output) = (row / outputs, row % outputs);
            let own = (0..inputs).map(|i| (of * inputs + i, weights.values[i * outputs + output]));
            terms.extend(own.filter(|(_, w)| *w != 0.0));
            0.0
        };
        let work = count.saturating_mul(weights.values.len());
        Ok(self.weighted(&data, dims, work, rows)?.1)
    }

    fn conv(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        let (Value::Data(data), Value::Constant(weights)) = (op.input(0)?, op.input(1)?) else {
            return Err("its kernels must be constant".into());
        };
        let (&[out, own_channels, height, width], &[channels, rows, columns]) =
            (&weights.dims[..], &data.dims[..])
        else {
            return Err(format!(
                "its kernels have the shape {:?} and the data {:?} behind the batch; only two-dimensional convolutions can be imported",
                weights.dims, data.dims
            ));
        };
        let groups = usize::try_from(op.integer("group", 1)).unwrap_or(0);
        if groups == 0
            || own_channels.checked_mul(groups) != Some(channels)
            || out == 0
            || !out.is_multiple_of(groups)
        {
            return Err(format!(
                "its kernels of shape {:?} in {groups} groups do not fit data of shape {:?}",
                weights.dims, data.dims
            ));
        }
        let windows = Windows::of(op, [height, width], [rows, columns])?;
        let biases = row_of(op.constant(2)?, out)?;
        let [high, wide] = windows.output;
        let places = high.saturating_mul(wide);
        let patch = own_channels * height * width;
        if out.saturating_mul(places) > MAX_PLACES {
            return Err(format!(
                "it gives {out} channels of {high}x{wide} values, more than {MAX_PLACES}; use a stride, or fewer channels"
            ));
        }
        let data = self.operand(data, out.saturating_mul(places))?;
        let each = |row: usize, terms: &mut Vec<(usize, f64)>| {
            let (channel, at) = (row / places, [row % places / wide, row % wide]);
            let first = channel / (out / groups) * own_channels;
            for c in 0..own_channels {
                let kernel = &weights.values[channel * patch + c * height * width..];
                windows.under(at, |[dy, dx], source| {
                    let weight = kernel[dy * width + dx];
                    if let (Some([y, x]), true) = (source, weight != 0.0) {
                        terms.push((((first + c) * rows + y) * columns + x, weight));
                    }
                });
            }
            biases[channel]
        };
        let dims = vec![out, high, wide];
        let work = out.saturating_mul(places).saturating_mul(patch);
        let (before, given) = self.weighted(&data, dims, work, each)?;
        Ok(looking(&before, given, &windows))
    }

    fn normalised(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        op.only("training_mode", 0)?;
        let data = op.data(0)?;
        let channels = data.dims.first().copied().unwrap_or(0);
        let row = |index: usize| -> Result<&[f64], Reason> {
            let constant = op.needed(index)?;
            match constant.values.len() == channels {
                true => Ok(&constant.values),
                false => Err(format!(
                    "it has {} numbers for {channels} channels; export the model again",
                    constant.values.len()
                )),
            }
        };
        let (scales, shifts, means, variances) = (row(1)?, row(2)?, row(3)?, row(4)?);
        let epsilon = op.number("epsilon", 1e-5);
        let lines: Vec<(f64, f64)> = (0..channels)
            .map(|c| {
                let factor = scales[c] / (variances[c] + epsilon).sqrt();
                (factor, shifts[c] - factor * means[c])
            })
            .collect();
        if lines.iter().any(|(a, b)| !a.is_finite() || !b.is_finite()) {
            return Err(
                "one of its variances is negative or no number; train the model again".into(),
            );
        }
        let data = self.linear(data)?;
        let places: usize = data.dims[1..].iter().product();
        let map = data.map.scaled(|row| lines[row / places.max(1)]);
        self.made(data.base, map, data.dims)
    }

    fn average(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        let data = op.data(0)?;
        let windows = pooling(op, data)?;
        self.pooled(data, &windows, op.integer("count_include_pad", 0) != 0)
    }

    /// The mean of every window.
    fn pooled(
        &mut self,
        data: &Data,
        windows: &Windows,
        with_padding: bool,
    ) -> Result<Data, Reason> {
        let [channels, rows, columns] = data.image()?;
        let data = self.linear(data)?;
        let [high, wide] = windows.output;
        let places = high * wide;
        let count = channels.saturating_mul(places);
        let patch = windows.kernel[0].saturating_mul(windows.kernel[1]);
        let row = data.map.terms() / data.map.outputs().max(1) + 1;
        self.spend(0, count.saturating_mul(patch).saturating_mul(row))?;
        let map = data.map.mixed(count, |row, terms| {
            let (channel, at) = (row / places, [row % places / wide, row % wide]);
            let mut counted = 0usize;
            windows.under(at, |_, source| {
                counted += usize::from(with_padding || source.is_some());
                if let Some([y, x]) = source {
                    terms.push(((channel * rows + y) * columns + x, 1.0));
                }
            });
            let share = 1.0 / counted.max(1) as f64;
            terms.iter_mut().for_each(|(_, weight)| *weight = share);
            0.0
        });
        let given = self.made(data.base, map, vec![channels, high, wide])?;
        Ok(looking(&data, given, windows))
    }

    /// The mean instead of the largest value, where that may be.
    fn largest_of_windows(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        if !self.fits {
            return Err(
                "the largest of several values is no polynomial; train with AveragePool, or let --fit-activations take the average instead"
                    .into(),
            );
        }
        let data = op.data(0)?;
        let windows = if op.node.op_type == "GlobalMaxPool" {
            let [_, height, width] = data.image()?;
            Windows {
                kernel: [height, width],
                stride: [1, 1],
                dilation: [1, 1],
                pads: [0; 4],
                input: [height, width],
                output: [1, 1],
            }
        } else {
            pooling(op, data)?
        };
        self.notes.push(format!(
            "{} of node {} takes the average instead of the largest",
            printable(&op.node.op_type),
            printable(super::graph::node_name(op.node))
        ));
        self.pooled(data, &windows, false)
    }

    fn reduced(&mut self, op: &Operator<'_>) -> Result<Data, Reason> {
        let data = op.data(0)?;
        let rank = data.dims.len() + 1;
        let mut gone = vec![false; data.dims.len()];
        let axes = op.listed("axes", 1)?.unwrap_or_default();
        for &given in &axes {
            match axis(given, rank)? {
                0 => return Err("it sums over the batch; name the axes behind it".into()),
                at => gone[at - 1] = true,
            }
        }
        if axes.is_empty() {
            return Err("it sums over the batch; name the axes behind it".into());
        }
        let mean = op.node.op_type == "ReduceMean";
        let keep = op.integer("keepdims", 1) != 0;
        let short: Vec<usize> = data
            .dims
            .iter()
            .zip(&gone)
            .map(|(&dim, &gone)| if gone { 1 } else { dim })
            .collect();
        let data = self.linear(data)?;
        let total: usize = short.iter().product();
        let of_each = data.map.outputs() / total.max(1);
        let mut members = vec![Vec::new(); total];
        for index in 0..data.map.outputs() {
            let mut at = place(&data.dims, index);
            at.iter_mut()
                .zip(&gone)
                .filter(|(_, gone)| **gone)
                .for_each(|(at, _)| *at = 0);
            members[number(&short, &at)].push(index);
        }
        self.spend(0, data.map.terms())?;
        let share = if mean {
            1.0 / of_each.max(1) as f64
        } else {
            1.0
        };
        let map = data.map.mixed(total, |row, terms| {
            terms.extend(members[row].iter().map(|&of| (of, share)));
            0.0
        });
        let dims = short.iter().zip(&gone);
        let dims = dims
            .filter(|(_, gone)| keep || !**gone)
            .map(|(&dim, _)| dim);
        self.made(data.base, map, dims.collect())
    }
}

fn pooling(op: &Operator<'_>, data: &Data) -> Result<Windows, Reason> {
    let [_, rows, columns] = data.image()?;
    let kernel = op.integers("kernel_shape");
    let side = |x: i64| {
        usize::try_from(x)
            .ok()
            .filter(|&x| (1..1 << 16).contains(&x))
    };
    match *kernel {
        [y, x] => match side(y).zip(side(x)) {
            Some((y, x)) => Windows::of(op, [y, x], [rows, columns]),
            None => Err(format!(
                "its kernel_shape is {kernel:?}; both must be positive"
            )),
        },
        _ => Err(format!(
            "its kernel_shape is {kernel:?}; only two-dimensional pooling can be imported"
        )),
    }
}

/// Says that data was made through windows over other data.
fn looking(before: &Data, given: Data, windows: &Windows) -> Data {
    let output = <[usize; 3]>::try_from(&given.dims[..]).unwrap_or_default();
    let claimed = before
        .map
        .window
        .filter(|window| window.output[..] == before.dims);
    let mut map: Affine = (*given.map).clone();
    map = match claimed {
        Some(_) => before.map.looked_through(
            map,
            windows.reach(),
            windows.stride,
            windows.before(),
            output,
        ),
        None => map,
    };
    Data {
        map: map.into(),
        ..given
    }
}

/// Biases of so many outputs.
fn row_of(biases: Option<&Constant>, outputs: usize) -> Result<Vec<f64>, Reason> {
    let Some(biases) = biases else {
        return Ok(vec![0.0; outputs]);
    };
    match (biases.values.len(), biases.values.first()) {
        (1, Some(&bias)) => Ok(vec![bias; outputs]),
        (count, _) if count == outputs => Ok(biases.values.clone()),
        (count, _) => Err(format!("it has {count} biases for {outputs} outputs")),
    }
}
