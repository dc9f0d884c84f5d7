//! Operators that move values and leave them as they are.

use super::Reason;
use super::affine::Affine;
use super::graph::{Data, Operator, Stages, Value};
use super::tensor::{Constant, axis, count, number, place};
use crate::model::MAX_VALUES;

/// Most values of data that is padded.
const MAX_PADDED: usize = 4 * MAX_VALUES;

impl Stages {
    pub(super) fn laid_out(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        match op.node.op_type.as_str() {
            "Flatten" => match op.input(0)? {
                Value::Data(data) if op.integer("axis", 1) == 1 => Ok(Value::Data(Data {
                    dims: vec![data.dims.iter().product()],
                    ..data.clone()
                })),
                Value::Decision(data) => Ok(Value::Decision(data.clone())),
                _ => Err("it must flatten everything behind the batch; use axis 1".into()),
            },
            "Reshape" => match op.input(0)? {
                // Of labels: their order is that of the batch.
                decision @ Value::Decision(_) => Ok(decision.clone()),
                value => reshape(value, op.needed(1)?),
            },
            "Squeeze" | "Unsqueeze" => squeezed(op),
            "Shape" => match op.input(0)? {
                Value::Data(data) => Ok(Value::Constant(Constant::row(
                    // A batch of one, as samples come one at a time.
                    [1.0]
                        .into_iter()
                        .chain(data.dims.iter().map(|&d| d as f64))
                        .collect(),
                ))),
                Value::Constant(constant) => Ok(Value::Constant(Constant::row(
                    constant.dims.iter().map(|&d| d as f64).collect(),
                ))),
                _ => Err("the shape of labels is not known; export up to the logits".into()),
            },
            "Transpose" => match op.input(0)? {
                Value::Constant(constant) => transposed(op, constant).map(Value::Constant),
                _ => self.transposed_data(op),
            },
            "Concat" => self.joined_end_to_end(op),
            "Slice" => self.cut(op),
            "Gather" => self.gathered(op),
            _ => self.padded(op),
        }
    }

    /// Values of data in another order, which need no weights.
    fn reordered(
        &mut self,
        data: &Data,
        dims: Vec<usize>,
        from: impl Fn(&[usize]) -> Vec<usize>,
    ) -> Result<Value, Reason> {
        // An activation stays where it is: its results are moved.
        let data = match data.function.line() {
            Some(_) => data.clone(),
            None => self.stage(data)?,
        };
        let total = count(&dims)
            .filter(|&n| n <= MAX_PADDED)
            .ok_or("it gives too many values")?;
        let order: Vec<(usize, usize)> = (0..total)
            .map(|index| (0, number(&data.dims, &from(&place(&dims, index)))))
            .collect();
        let map = Affine::chosen(&[&data.map], &order, false).recognised(&dims);
        let function = data.function.clone();
        let made = self.made(data.base, map, dims)?;
        Ok(Value::Data(made.with(function)))
    }

    fn transposed_data(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let data = op.data(0)?;
        let order = order(op, data.dims.len() + 1)?;
        if order.first() != Some(&0) {
            return Err("it moves the batch; let it stay in front".into());
        }
        let order: Vec<usize> = order[1..].iter().map(|axis| axis - 1).collect();
        let dims = order.iter().map(|&axis| data.dims[axis]).collect();
        self.reordered(data, dims, |at| {
            let mut source = vec![0; at.len()];
            order
                .iter()
                .zip(at)
                .for_each(|(&axis, &i)| source[axis] = i);
            source
        })
    }

    fn joined_end_to_end(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let values: Vec<&Value> = (0..op.node.input.len())
            .map(|index| op.input(index))
            .collect::<Result<_, _>>()?;
        let constants: Option<Vec<&Constant>> = values
            .iter()
            .map(|value| match value {
                Value::Constant(constant) => Some(constant),
                _ => None,
            })
            .collect();
        if let Some(constants) = constants {
            return concatenated(&constants).map(Value::Constant);
        }
        let parts: Vec<&Data> = (0..values.len())
            .map(|index| op.data(index))
            .collect::<Result<_, _>>()?;
        let first = parts[0];
        let along = axis(op.integer("axis", 1) as f64, first.dims.len() + 1)?;
        let Some(along) = along.checked_sub(1) else {
            return Err("it joins samples; let it join along an axis behind the batch".into());
        };
        // Probabilities of two classes, from one logit.
        let of_one = first.map.outputs() == 1 && parts.iter().all(|part| part.alike(first));
        if of_one && parts.iter().any(|part| part.function.line().is_none()) {
            let functions: Vec<_> = parts.iter().map(|part| part.function.clone()).collect();
            return super::operators::of_one_logit(first, &functions);
        }
        let fits = parts.iter().all(|part| {
            let others = |dims: &[usize]| [&dims[..along], &dims[along + 1..]].concat();
            part.dims.len() == first.dims.len() && others(&part.dims) == others(&first.dims)
        });
        if !fits {
            let shapes: Vec<&[usize]> = parts.iter().map(|part| &part.dims[..]).collect();
            return Err(format!(
                "it joins data of the shapes {shapes:?} behind the batch; they may differ along one axis"
            ));
        }
        self.stacked(&parts, along)
    }

    fn stacked(&mut self, parts: &[&Data], along: usize) -> Result<Value, Reason> {
        // One function of all is kept; otherwise each is part of a map.
        let first = parts[0].clone();
        let kept = parts
            .iter()
            .all(|part| part.function == first.function && part.base == first.base);
        let parts: Vec<Data> = match kept {
            true => parts.iter().map(|&part| part.clone()).collect(),
            false => {
                let mut common = self.linear(&first)?;
                for part in &parts[1..] {
                    common = self.joined(&common, part)?.0;
                }
                let parts = parts.iter();
                parts
                    .map(|part| Ok(self.joined(part, &common)?.0))
                    .collect::<Result<_, Reason>>()?
            }
        };
        let mut dims = parts[0].dims.clone();
        dims[along] = parts.iter().map(|part| part.dims[along]).sum();
        let total = count(&dims)
            .filter(|&n| n <= MAX_PADDED)
            .ok_or("it gives too many values")?;
        let ends: Vec<usize> = parts
            .iter()
            .scan(0, |end, part| {
                *end += part.dims[along];
                Some(*end)
            })
            .collect();
        let order: Vec<(usize, usize)> = (0..total)
            .map(|index| {
                let mut at = place(&dims, index);
                let part = ends.partition_point(|&end| end <= at[along]);
                at[along] -= ends[part] - parts[part].dims[along];
                (part, number(&parts[part].dims, &at))
            })
            .collect();
        let maps: Vec<&Affine> = parts.iter().map(|part| &*part.map).collect();
        self.spend(0, maps.iter().map(|map| map.terms()).sum())?;
        let map = Affine::chosen(&maps, &order, along == 0 && dims.len() == 3);
        let function = match kept {
            true => first.function.clone(),
            false => super::function::Function::identity(),
        };
        let made = self.made(parts[0].base, map, dims)?;
        Ok(Value::Data(made.with(function)))
    }

    fn cut(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let need = |name, index| {
            let listed = op.listed(name, index)?;
            listed.ok_or_else(|| Reason::from("its bounds must be constant"))
        };
        let (starts, ends) = (need("starts", 1)?, need("ends", 2)?);
        let axes = op.listed("axes", 3)?;
        let axes = axes.unwrap_or_else(|| (0..starts.len()).map(|axis| axis as f64).collect());
        let steps = op.listed("steps", 4)?;
        let steps = steps.unwrap_or_else(|| vec![1.0; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err("its starts, ends, axes and steps are not as many".into());
        }
        let (full, data) = match op.input(0)? {
            Value::Constant(constant) => (constant.dims.clone(), None),
            _ => {
                let data = op.data(0)?;
                ([&[1], &data.dims[..]].concat(), Some(data))
            }
        };
        let mut from = vec![0usize; full.len()];
        let mut dims = full.clone();
        let mut strides = vec![1usize; full.len()];
        for (i, &given) in axes.iter().enumerate() {
            let at = axis(given, full.len())?;
            let dim = full[at] as f64;
            let bound = |x: f64| (if x < 0.0 { x + dim } else { x }).clamp(0.0, dim);
            let (start, end) = (bound(starts[i]), bound(ends[i]));
            if steps[i].is_nan() || steps[i] < 1.0 {
                return Err(format!(
                    "it goes by steps of {}; use positive ones",
                    steps[i]
                ));
            }
            from[at] = start as usize;
            strides[at] = steps[i] as usize;
            dims[at] = ((end - start).max(0.0) as usize).div_ceil(strides[at]);
        }
        let source = |at: &[usize]| -> Vec<usize> {
            let places = at.iter().zip(&from).zip(&strides);
            places
                .map(|((&i, &from), &stride)| from + i * stride)
                .collect()
        };
        if dims.contains(&0) {
            return Err("it cuts out nothing; export the model again".into());
        }
        match (op.input(0)?, data) {
            (Value::Constant(constant), _) => {
                let total = count(&dims).unwrap_or(0);
                let values = (0..total)
                    .map(|index| constant.values[number(&full, &source(&place(&dims, index)))]);
                Ok(Value::Constant(Constant {
                    values: values.collect(),
                    dims,
                }))
            }
            (_, Some(data)) => self.reordered(data, dims[1..].to_vec(), |at| {
                source(&[&[0], at].concat())[1..].to_vec()
            }),
            _ => Err("it must cut data or a constant".into()),
        }
    }

    fn gathered(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let indices = op.needed(1)?;
        let (full, data) = match op.input(0)? {
            Value::Constant(constant) => (constant.dims.clone(), None),
            _ => {
                let data = op.data(0)?;
                ([&[1], &data.dims[..]].concat(), Some(data))
            }
        };
        let along = axis(op.integer("axis", 0) as f64, full.len())?;
        if indices.values.is_empty() || indices.values.len() > MAX_PADDED {
            return Err(format!(
                "it chooses {} values; at least one and at most {MAX_PADDED} are taken",
                indices.values.len()
            ));
        }
        let chosen: Vec<usize> = indices
            .values
            .iter()
            .map(|&index| axis(index, full[along]))
            .collect::<Result<_, _>>()?;
        let dims = [&full[..along], &indices.dims[..], &full[along + 1..]].concat();
        let rank = indices.dims.len();
        let source = |at: &[usize]| -> Vec<usize> {
            let index = chosen[number(&indices.dims, &at[along..along + rank])];
            [&at[..along], &[index], &at[along + rank..]].concat()
        };
        let total = count(&dims)
            .filter(|&n| n <= MAX_PADDED)
            .ok_or("it gives too many values")?;
        match (op.input(0)?, data) {
            (Value::Constant(constant), _) => {
                let values = (0..total)
                    .map(|index| constant.values[number(&full, &source(&place(&dims, index)))]);
                Ok(Value::Constant(Constant {
                    values: values.collect(),
                    dims,
                }))
            }
            (_, Some(data)) if along > 0 => self.reordered(data, dims[1..].to_vec(), |at| {
                source(&[&[0], at].concat())[1..].to_vec()
            }),
            _ => {
                Err("it chooses among samples; let it choose along an axis behind the batch".into())
            }
        }
    }

    fn padded(&mut self, op: &Operator<'_>) -> Result<Value, Reason> {
        let data = op.data(0)?;
        if !matches!(op.text("mode"), b"" | b"constant") {
            return Err("it repeats values at the border; pad with a constant".into());
        }
        let filled = match (op.attribute("value"), op.constant(2)?) {
            (Some(attribute), _) => f64::from(attribute.f),
            (None, Some(constant)) => constant.scalar().ok_or("its value must be one number")?,
            (None, None) => 0.0,
        };
        let pads = op.listed("pads", 1)?.ok_or("its pads must be constant")?;
        let rank = data.dims.len() + 1;
        let mut sides = vec![(0.0, 0.0); rank];
        let axes = op.constant(3)?.map(|axes| axes.values.clone());
        let axes = axes.unwrap_or_else(|| (0..rank).map(|axis| axis as f64).collect());
        if pads.len() != 2 * axes.len() {
            return Err(format!(
                "it has {} pads for {} axes",
                pads.len(),
                axes.len()
            ));
        }
        for (i, &given) in axes.iter().enumerate() {
            sides[axis(given, rank)?] = (pads[i], pads[i + axes.len()]);
        }
        if sides
            .iter()
            .any(|&(a, b)| a < 0.0 || b < 0.0 || sides[0] != (0.0, 0.0))
        {
            return Err(format!(
                "its pads are {pads:?}; none may be negative, nor any of the batch"
            ));
        }
        let sides: Vec<(usize, usize)> = sides[1..]
            .iter()
            .map(|&(a, b)| (a as usize, b as usize))
            .collect();
        let dims: Vec<usize> = data
            .dims
            .iter()
            .zip(&sides)
            .map(|(&dim, &(a, b))| dim.saturating_add(a).saturating_add(b))
            .collect();
        let total = count(&dims)
            .filter(|&n| n <= MAX_PADDED)
            .ok_or("it gives too many values")?;
        let data = self.linear(data)?;
        let map = data.map.mixed(total, |row, terms| {
            let at = place(&dims, row);
            let source: Option<Vec<usize>> = at
                .iter()
                .zip(&sides)
                .zip(&data.dims)
                .map(|((&i, &(before, _)), &dim)| i.checked_sub(before).filter(|&i| i < dim))
                .collect();
            match source {
                Some(source) => terms.push((number(&data.dims, &source), 1.0)),
                None => return filled,
            }
            0.0
        });
        let map = match (&data.map.window, &sides[..], &dims[..]) {
            (Some(window), &[(0, 0), (top, _), (left, _)], &[c, h, w])
                if window.output[..] == data.dims =>
            {
                data.map
                    .looked_through(map, [1, 1], [1, 1], [top, left], [c, h, w])
            }
            _ => map,
        };
        self.made(data.base, map, dims).map(Value::Data)
    }
}

/// The order of the axes of a transposition.
fn order(op: &Operator<'_>, rank: usize) -> Result<Vec<usize>, Reason> {
    let given = op.integers("perm");
    let order: Vec<usize> = match given {
        [] => (0..rank).rev().collect(),
        _ => given
            .iter()
            .map(|&at| axis(at as f64, rank))
            .collect::<Result<_, _>>()?,
    };
    let mut seen = order.clone();
    seen.sort_unstable();
    match seen.into_iter().eq(0..rank) {
        true => Ok(order),
        false => Err(format!(
            "its perm is {given:?} of {rank} axes; export the model again"
        )),
    }
}

fn transposed(op: &Operator<'_>, constant: &Constant) -> Result<Constant, Reason> {
    let order = order(op, constant.dims.len())?;
    let dims: Vec<usize> = order.iter().map(|&axis| constant.dims[axis]).collect();
    let values = (0..constant.values.len()).map(|index| {
        let at = place(&dims, index);
        let mut source = vec![0; at.len()];
        order
            .iter()
            .zip(&at)
            .for_each(|(&axis, &i)| source[axis] = i);
        constant.values[number(&constant.dims, &source)]
    });
    Ok(Constant {
        values: values.collect(),
        dims,
    })
}

/// Rows of numbers behind each other.
fn concatenated(constants: &[&Constant]) -> Result<Constant, Reason> {
    if constants.iter().any(|constant| constant.dims.len() > 1) {
        return Err("it joins constants of several axes; export the model with them folded".into());
    }
    let values = constants
        .iter()
        .flat_map(|constant| constant.values.iter().copied());
    Ok(Constant::row(values.collect()))
}

fn squeezed(op: &Operator<'_>) -> Result<Value, Reason> {
    let adds = op.node.op_type == "Unsqueeze";
    let axes = op.listed("axes", 1)?;
    let change = |dims: &[usize]| -> Result<Vec<usize>, Reason> {
        let Some(axes) = &axes else {
            return Ok(dims.iter().copied().filter(|&dim| dim != 1).collect());
        };
        let rank = if adds {
            dims.len() + axes.len()
        } else {
            dims.len()
        };
        let mut at: Vec<usize> = axes
            .iter()
            .map(|&given| axis(given, rank))
            .collect::<Result<_, _>>()?;
        at.sort_unstable();
        at.dedup();
        let mut changed = dims.to_vec();
        if adds {
            at.iter()
                .for_each(|&at| changed.insert(at.min(changed.len()), 1));
        } else {
            for &at in at.iter().rev() {
                if changed.remove(at) != 1 {
                    return Err(format!("axis {at} of {dims:?} is not of length 1"));
                }
            }
        }
        Ok(changed)
    };
    match op.input(0)? {
        Value::Constant(constant) => Ok(Value::Constant(Constant {
            dims: change(&constant.dims)?,
            values: constant.values.clone(),
        })),
        Value::Decision(data) => Ok(Value::Decision(data.clone())),
        _ => {
            let data = op.data(0)?;
            // The batch is an axis of length 1 that has to stay.
            let full = [&[1], &data.dims[..]].concat();
            let dims = match &axes {
                None => change(&data.dims)?,
                Some(_) => {
                    let changed = change(&full)?;
                    match changed.split_first() {
                        Some((1, rest)) if count(rest) == count(&data.dims) => rest.to_vec(),
                        _ => return Err("it takes the batch away; let it stay in front".into()),
                    }
                }
            };
            Ok(Value::Data(Data {
                dims,
                ..data.clone()
            }))
        }
    }
}

/// Only what leaves the batch alone: the values keep their order.
fn reshape(value: &Value, shape: &Constant) -> Result<Value, Reason> {
    match value {
        Value::Constant(constant) => {
            let known: f64 = shape.values.iter().filter(|&&d| d > 0.0).product();
            let dims: Vec<usize> = shape
                .values
                .iter()
                .map(|&d| {
                    let free = d == -1.0 && known > 0.0;
                    let dim = if free {
                        constant.values.len() as f64 / known
                    } else {
                        d
                    };
                    dim.max(0.0) as usize
                })
                .collect();
            if count(&dims) != Some(constant.values.len()) {
                return Err(format!("a constant does not take the shape {dims:?}"));
            }
            Ok(Value::Constant(Constant {
                dims,
                values: constant.values.clone(),
            }))
        }
        Value::Data(data) => {
            let count: usize = data.dims.iter().product();
            let refused = || {
                format!(
                    "it does not leave the batch alone, or {count} values do not take the shape {:?}",
                    shape.values
                )
            };
            let Some((&batch, rest)) = shape.values.split_first() else {
                return Err(refused());
            };
            let known: f64 = rest.iter().filter(|&&d| d > 0.0).product();
            let dims: Vec<usize> = rest
                .iter()
                .zip(data.dims.iter().map(Some).chain(std::iter::repeat(None)))
                .map(|(&d, same)| match (d, same) {
                    (-1.0, _) => (count as f64 / known).max(0.0) as usize,
                    // As it was.
                    (0.0, Some(&dim)) => dim,
                    _ => d.max(0.0) as usize,
                })
                .collect();
            let product = super::tensor::count(&dims);
            // A batch of 0 is the input's, one of -1 what is left, or one of 1.
            let free = rest.iter().filter(|&&d| d == -1.0).count() + usize::from(batch == -1.0);
            let sound = [-1.0, 0.0, 1.0].contains(&batch) && free <= 1;
            if product != Some(count) || !sound {
                return Err(refused());
            }
            Ok(Value::Data(Data {
                dims,
                ..data.clone()
            }))
        }
        _ => Err("it must shape data or a constant".into()),
    }
}
