//! Constant tensors of a graph, and what is computed of them before anything else.

use super::Reason;
use super::schema::{BOOL, DOUBLE, FLOAT, INT32, INT64, TensorProto};

/// Most numbers of a constant that is larger than those it is computed of.
const MAX_NUMBERS: usize = 1 << 22;

/// Constant numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// Reads a tensor.
pub(super) fn constant(tensor: &TensorProto) -> Result<Constant, Reason> {
    if tensor.data_location == 1 {
        return Err("its numbers are in another file, and there is none beside bytes in memory; export the model with them inside".into());
    }
    let dims: Option<Vec<usize>> = tensor
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).ok())
        .collect();
    let dims = dims.ok_or("a dimension is negative")?;
    let values = numbers(tensor)?;
    if count(&dims) != Some(values.len()) {
        return Err(format!(
            "its shape is {dims:?} and it holds {} numbers; export the model again",
            values.len()
        ));
    }
    // What overflows single precision is of no use either; integers say "to the end" by
    // their largest.
    let of_floats = matches!(tensor.data_type, FLOAT | DOUBLE);
    if let Some(index) = values
        .iter()
        .position(|&x| of_floats && !(x as f32).is_finite())
    {
        let number = values[index];
        return Err(format!(
            "number {index} of it is {number}; train the model again"
        ));
    }
    Ok(Constant { dims, values })
}

fn numbers(tensor: &TensorProto) -> Result<Vec<f64>, Reason> {
    let raw = &tensor.raw_data;
    let four = || raw.as_chunks::<4>().0.iter();
    let eight = || raw.as_chunks::<8>().0.iter();
    Ok(match (tensor.data_type, raw.is_empty()) {
        (FLOAT, true) => tensor.float_data.iter().map(|&x| f64::from(x)).collect(),
        (FLOAT, false) => four().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        (DOUBLE, true) => tensor.double_data.clone(),
        (DOUBLE, false) => eight().map(|&b| f64::from_le_bytes(b)).collect(),
        (INT64, true) => tensor.int64_data.iter().map(|&x| x as f64).collect(),
        (INT64, false) => eight().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        (INT32 | BOOL, true) => tensor.int32_data.iter().map(|&x| f64::from(x)).collect(),
        (INT32, false) => four().map(|&b| f64::from(i32::from_le_bytes(b))).collect(),
        (BOOL, false) => raw.iter().map(|&b| f64::from(b)).collect(),
        (other, _) => return Err(format!("its data type is number {other}; use float32")),
    })
}

/// Numbers of a tensor of these dimensions, if they can be counted.
pub(super) fn count(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))
}

/// The index of every element along each axis of a row-major tensor, from its number.
pub(super) fn place(dims: &[usize], mut number: usize) -> Vec<usize> {
    let mut at = vec![0; dims.len()];
    for (axis, &dim) in dims.iter().enumerate().rev() {
        at[axis] = number % dim.max(1);
        number /= dim.max(1);
    }
    at
}

/// The number of an element.
pub(super) fn number(dims: &[usize], at: &[usize]) -> usize {
    dims.iter().zip(at).fold(0, |n, (&dim, &i)| n * dim + i)
}

/// An axis from the front, negative ones counted from the end.
pub(super) fn axis(axis: f64, rank: usize) -> Result<usize, Reason> {
    let counted = if axis < 0.0 { axis + rank as f64 } else { axis };
    match counted >= 0.0 && counted < rank as f64 && counted.fract() == 0.0 {
        true => Ok(counted as usize),
        false => Err(format!(
            "its axis is {axis} of {rank}; export the model again"
        )),
    }
}

impl Constant {
    /// A row of numbers.
    pub(super) fn row(values: Vec<f64>) -> Self {
        Self {
            dims: vec![values.len()],
            values,
        }
    }

    /// One number.
    pub(super) fn single(value: f64) -> Self {
        Self {
            dims: Vec::new(),
            values: vec![value],
        }
    }

    /// The number, if all are the same.
    pub(super) fn scalar(&self) -> Option<f64> {
        let (&first, rest) = self.values.split_first()?;
        rest.iter().all(|&x| x == first).then_some(first)
    }

    /// A function of every number.
    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            dims: self.dims.clone(),
            values: self.values.iter().map(|&x| f(x)).collect(),
        }
    }

    /// One number for each of the values of these dimensions behind the batch.
    pub(super) fn spread(&self, dims: &[usize]) -> Result<Vec<f64>, Reason> {
        let leading = self.dims.len().saturating_sub(dims.len());
        let (batch, own) = self.dims.split_at(leading);
        let skipped = dims.len() - own.len();
        let behind = &dims[skipped..];
        let fits = |(&own, &dim): (&usize, &usize)| own == dim || own == 1;
        if batch.iter().any(|&dim| dim != 1) || !own.iter().zip(behind).all(fits) {
            return Err(format!(
                "its constant of shape {:?} is neither one number nor one per channel or value of {dims:?}",
                self.dims
            ));
        }
        let total = count(dims).ok_or("its data is too large")?;
        let of = |index: usize| {
            let at = place(dims, index);
            let at: Vec<usize> = at[skipped..]
                .iter()
                .zip(own)
                .map(|(&i, &dim)| if dim == 1 { 0 } else { i })
                .collect();
            self.values[number(own, &at)]
        };
        Ok((0..total).map(of).collect())
    }

    /// Combines the numbers of two tensors that are stretched to one shape.
    pub(super) fn with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Result<Self, Reason> {
        let rank = self.dims.len().max(other.dims.len());
        let full = |dims: &[usize]| [vec![1; rank - dims.len()], dims.to_vec()].concat();
        let (a, b) = (full(&self.dims), full(&other.dims));
        let dims: Option<Vec<usize>> = a
            .iter()
            .zip(&b)
            .map(|(&a, &b)| match (a, b) {
                _ if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect();
        let most = self.values.len().max(other.values.len()).max(MAX_NUMBERS);
        let dims = dims.filter(|dims| count(dims).is_some_and(|n| n <= most));
        let Some(dims) = dims else {
            return Err(format!(
                "constants of the shapes {:?} and {:?} do not go together",
                self.dims, other.dims
            ));
        };
        let total = count(&dims).unwrap_or(0);
        let of = |constant: &Self, shape: &[usize], at: &[usize]| {
            let at: Vec<usize> = at
                .iter()
                .zip(shape)
                .map(|(&i, &dim)| if dim == 1 { 0 } else { i })
                .collect();
            constant.values[number(shape, &at)]
        };
        let values = (0..total).map(|index| {
            let at = place(&dims, index);
            f(of(self, &a, &at), of(other, &b, &at))
        });
        Ok(Self {
            values: values.collect(),
            dims: dims.clone(),
        })
    }

    /// With rows and columns exchanged.
    pub(super) fn transposed(&self) -> Result<Self, Reason> {
        let &[rows, columns] = &self.dims[..] else {
            return Err(format!(
                "its weights have the shape {:?}; they must be a matrix",
                self.dims
            ));
        };
        let at = |i: usize| self.values[i % rows * columns + i / rows];
        Ok(Self {
            dims: vec![columns, rows],
            values: (0..rows * columns).map(at).collect(),
        })
    }
}
