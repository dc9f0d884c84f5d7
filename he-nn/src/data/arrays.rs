//! Arrays of NumPy: NPY files, and NPZ archives of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use npyz::{DType, NpyFile, TypeChar};

use super::idx::channels_first;
use super::samples::{Samples, numbered, single, unusable};
use super::{DataError, MAX_SAMPLES, Split};
use crate::files;
use crate::model::{MAX_VALUES, Shape};

/// Bytes of an array.
const MAX_BYTES: u64 = 1 << 30;

/// Names of an array of samples and its labels, without splits.
const PAIRS: [(&str, &str); 5] = [
    ("x", "y"),
    ("X", "y"),
    ("data", "target"),
    ("images", "labels"),
    ("features", "labels"),
];

/// An array, its numbers as `f32` or bytes.
struct Array {
    dims: Vec<usize>,
    numbers: Numbers,
}

enum Numbers {
    Bytes(Vec<u8>),
    Floats(Vec<f64>),
}

/// The arrays of a directory: `x_train.npy` and so on, or one NPZ archive, or one per
/// split.
pub(super) fn in_directory(directory: &Path, split: Split) -> Result<Option<Samples>, DataError> {
    let of_split = match split {
        Split::Train => "train",
        Split::Test => "test",
    };
    for prefix in ["x", "X"] {
        let [x, y] = [prefix, "y"].map(|name| directory.join(format!("{name}_{of_split}.npy")));
        if x.is_file() && y.is_file() {
            let samples = samples(&x, &array_file(&x)?, array_file(&y)?)?;
            return Ok(Some(samples));
        }
    }
    let own = directory.join(format!("{of_split}.npz"));
    if own.is_file() {
        let found = pair(&own, &PAIRS.map(|(x, y)| (x.into(), y.into())))?;
        return match found {
            Some((x, y)) => samples(&own, &x, y).map(Some),
            None => Err(unusable(&own, "it holds no arrays x and y: name them so")),
        };
    }
    match single(directory, &["npz"])? {
        Some(file) => of_archive(&file, split).map(Some),
        None => Ok(None),
    }
}

/// The split of an archive: its arrays `x_train`, `y_train`, `x_test` and `y_test`, or a
/// part of `x` and `y`.
pub(super) fn of_archive(file: &Path, split: Split) -> Result<Samples, DataError> {
    let of_split = match split {
        Split::Train => "train",
        Split::Test => "test",
    };
    let splits = ["x", "X"].map(|x| (format!("{x}_{of_split}"), format!("y_{of_split}")));
    if let Some((x, y)) = pair(file, &splits)? {
        return samples(file, &x, y);
    }
    match pair(file, &PAIRS.map(|(x, y)| (x.into(), y.into())))? {
        Some((x, y)) => Ok(samples(file, &x, y)?.part(split)),
        None => Err(unusable(
            file,
            "it holds neither x_train, y_train, x_test and y_test nor x and y: name its arrays so",
        )),
    }
}

/// The first pair of arrays of these names.
fn pair(file: &Path, names: &[(String, String)]) -> Result<Option<(Array, Array)>, DataError> {
    let read_error = |source| DataError::Read {
        file: file.into(),
        source,
    };
    let broken = |error: zip::result::ZipError| {
        unusable(
            file,
            &format!("it is no sound NPZ archive ({error}): write it again"),
        )
    };
    let bytes = files::read(file, MAX_BYTES).map_err(read_error)?;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(broken)?;
    for (x, y) in names {
        let members = [x, y].map(|name| format!("{name}.npy"));
        if !members
            .iter()
            .all(|name| archive.index_for_name(name).is_some())
        {
            continue;
        }
        let mut arrays = Vec::new();
        for name in &members {
            let member = archive.by_name(name).map_err(broken)?;
            let place = file.join(name);
            arrays.push(array(&place, member.take(MAX_BYTES))?);
        }
        if let (Some(y), Some(x)) = (arrays.pop(), arrays.pop()) {
            return Ok(Some((x, y)));
        }
    }
    Ok(None)
}

fn array_file(file: &PathBuf) -> Result<Array, DataError> {
    let opened = files::open(file, MAX_BYTES).map_err(|source| DataError::Read {
        file: file.into(),
        source,
    })?;
    array(file, opened)
}

/// Reads an array of numbers, in the order of C.
fn array(file: &Path, reader: impl Read) -> Result<Array, DataError> {
    let broken = |error: std::io::Error| {
        unusable(
            file,
            &format!("it is no sound NPY array ({error}): write it again"),
        )
    };
    let npy = NpyFile::new(reader).map_err(broken)?;
    if npy.order() != npyz::Order::C {
        return Err(unusable(
            file,
            "it lies in Fortran's order: write it with np.ascontiguousarray",
        ));
    }
    let dims: Option<Vec<usize>> = npy
        .shape()
        .iter()
        .map(|&dim| usize::try_from(dim).ok())
        .collect();
    let dims = dims.unwrap_or_default();
    let count = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let dtype = npy.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(unusable(
            file,
            "it holds records: write an array of numbers",
        ));
    };
    let wide = kind.size_field().max(1);
    if dims.is_empty() || count.is_none_or(|n| n as u64 > MAX_BYTES / wide) {
        return Err(unusable(
            file,
            &format!(
                "its shape is {dims:?}; at least one axis and at most {MAX_BYTES} bytes are read"
            ),
        ));
    }
    macro_rules! floats {
        ($kind:ty) => {{
            let numbers = npy.into_vec::<$kind>().map_err(broken)?;
            Numbers::Floats(numbers.into_iter().map(|x| x as f64).collect())
        }};
    }
    let numbers = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Uint, 1) => Numbers::Bytes(npy.into_vec::<u8>().map_err(broken)?),
        (TypeChar::Uint, 2) => floats!(u16),
        (TypeChar::Uint, 4) => floats!(u32),
        (TypeChar::Uint, 8) => floats!(u64),
        (TypeChar::Int, 1) => floats!(i8),
        (TypeChar::Int, 2) => floats!(i16),
        (TypeChar::Int, 4) => floats!(i32),
        (TypeChar::Int, 8) => floats!(i64),
        (TypeChar::Float, 4) => floats!(f32),
        (TypeChar::Float, 8) => floats!(f64),
        _ => {
            return Err(unusable(
                file,
                &format!(
                    "its type is {}: write uint8 for pixels, float32 for features, integers for labels",
                    dtype.descr()
                ),
            ));
        }
    };
    let read = match &numbers {
        Numbers::Bytes(bytes) => bytes.len(),
        Numbers::Floats(floats) => floats.len(),
    };
    match count == Some(read) {
        true => Ok(Array { dims, numbers }),
        false => Err(unusable(
            file,
            &format!("its shape is {dims:?} and it holds {read} numbers: write it again"),
        )),
    }
}

/// Samples of an array and its labels.
fn samples(file: &Path, x: &Array, y: Array) -> Result<Samples, DataError> {
    let (Some((&count, rest)), true) = (x.dims.split_first(), !x.dims.contains(&0)) else {
        return Err(DataError::Empty { file: file.into() });
    };
    let labels: Vec<String> = match y.numbers {
        Numbers::Bytes(bytes) => bytes.iter().map(u8::to_string).collect(),
        Numbers::Floats(floats) => floats.iter().map(f64::to_string).collect(),
    };
    let flat = y.dims.iter().product::<usize>() == y.dims[0];
    if labels.len() != count || !flat || count > MAX_SAMPLES as usize {
        return Err(unusable(
            file,
            &format!(
                "it has samples of the shape {:?} and labels of {:?}: one label per sample, and at most {MAX_SAMPLES} samples",
                x.dims, y.dims
            ),
        ));
    }
    let (labels, classes) = numbered(file, &labels, &labels)?;
    let values: usize = rest.iter().product();
    if values > MAX_VALUES {
        return Err(unusable(
            file,
            &format!("its samples are of {rest:?}; a network takes at most {MAX_VALUES} values"),
        ));
    }
    match (&x.numbers, rest) {
        (Numbers::Floats(floats), &[features]) => {
            let single: Vec<f32> = floats.iter().map(|&x| x as f32).collect();
            if let Some(at) = single.iter().position(|x| !x.is_finite()) {
                return Err(DataError::MissingValue {
                    file: file.into(),
                    line: (at / features + 1) as u64,
                    column: (at % features + 1).to_string(),
                });
            }
            Ok(Samples::of_features(features, single, labels, classes))
        }
        (Numbers::Bytes(bytes), rest @ ([_, _] | [_, _, _])) => {
            let (shape, last) = match *rest {
                [height, width] => ([1, height, width], false),
                [height, width, channels @ (1 | 3)] if height > 4 => {
                    ([channels, height, width], true)
                }
                _ => ([rest[0], rest[1], rest[2]], false),
            };
            let [channels, height, width] = shape.map(|dim| dim as u16);
            let shape = Shape {
                channels,
                height,
                width,
            };
            let mut pixels = bytes.clone();
            if last {
                channels_first(&mut pixels, shape);
            }
            Ok(Samples::of_pixels(shape, pixels, labels, classes))
        }
        (Numbers::Bytes(bytes), &[features]) => {
            let features_of = bytes.iter().map(|&x| f32::from(x)).collect();
            Ok(Samples::of_features(features, features_of, labels, classes))
        }
        _ => Err(unusable(
            file,
            &format!(
                "its samples are numbers of the shape {rest:?}: images must be uint8, and features one axis"
            ),
        )),
    }
}
