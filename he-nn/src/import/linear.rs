//! Operators with weights, and those that sum or average: maps upon maps.

use std::rc::Rc;

use super::Reason;
use super::graph::{Data, Operator, Stages, Value, printable};
use super::tensor::{Constant, axis, number, place};
use super::windows::{Windows, pooling};

/// Values that a layer between two activations never has: what is averaged afterwards
/// may be more than a model's layers.
const MAX_PLACES: usize = 1 << 20;

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
        if last != inputs || outputs == 0 {
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
        let places: usize = data.dims.iter().skip(1).product();
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
            windows.under(at, |_, source| {
                if let Some([y, x]) = source {
                    terms.push(((channel * rows + y) * columns + x, 1.0));
                }
            });
            let counted = match with_padding {
                true => windows.padded(at),
                false => terms.len(),
            };
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

/// Says that data was made through windows over other data.
fn looking(before: &Data, given: Data, windows: &Windows) -> Data {
    let output = <[usize; 3]>::try_from(&given.dims[..]).unwrap_or_default();
    let claimed = before.map.window;
    if claimed.is_none_or(|window| window.output[..] != before.dims) {
        return given;
    }
    let map = before.map.looked_through(
        Rc::unwrap_or_clone(given.map),
        windows.reach(),
        windows.stride,
        windows.before(),
        output,
    );
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
