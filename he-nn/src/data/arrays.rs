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

/// The names of a split and of the other one.
const fn named(split: Split) -> (&'static str, &'static str) {
    match split {
        Split::Train => ("train", "test"),
        Split::Test => ("test", "train"),
    }
}

/// The arrays of a directory: `x_train.npy` and so on, or one NPZ archive, or one per
/// split.
pub(super) fn in_directory(directory: &Path, split: Split) -> Result<Option<Samples>, DataError> {
    let (of_split, of_other) = named(split);
    for prefix in ["x", "X"] {
        let [x, y] = [prefix, "y"].map(|name| directory.join(format!("{name}_{of_split}.npy")));
        if x.is_file() && y.is_file() {
            let others = directory.join(format!("y_{of_other}.npy"));
            let others = match others.is_file() {
                true => labels(&others, &array_file(&others)?)?,
                false => Vec::new(),
            };
            let samples = samples(&x, &array_file(&x)?, &array_file(&y)?, others)?;
            return Ok(Some(samples));
        }
    }
    let [own, other] = [of_split, of_other].map(|name| directory.join(format!("{name}.npz")));
    if own.is_file() {
        let others = match other.is_file() {
            true => members(&other, &PAIRS.map(|(_, y)| vec![y.into()]))?,
            false => None,
        };
        let others = match others.as_deref() {
            Some([y]) => labels(&other, y)?,
            _ => Vec::new(),
        };
        let found = members(&own, &PAIRS.map(|(x, y)| vec![x.into(), y.into()]))?;
        return match found.as_deref() {
            Some([x, y]) => samples(&own, x, y, others).map(Some),
            _ => Err(unusable(&own, "it holds no arrays x and y: name them so")),
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
    let (of_split, of_other) = named(split);
    let own = ["x", "X"].map(|x| vec![format!("{x}_{of_split}"), format!("y_{of_split}")]);
    let both = own.clone().map(|mut names| {
        names.push(format!("y_{of_other}"));
        names
    });
    let whole = PAIRS.map(|(x, y)| vec![x.into(), y.into()]);
    match members(file, &[&both[..], &own].concat())?.as_deref() {
        Some([x, y, other]) => return samples(file, x, y, labels(file, other)?),
        Some([x, y]) => return samples(file, x, y, Vec::new()),
        _ => {}
    }
    match members(file, &whole)?.as_deref() {
        Some([x, y]) => Ok(samples(file, x, y, Vec::new())?.part(split)),
        _ => Err(unusable(
            file,
            "it holds neither x_train, y_train, x_test and y_test nor x and y: name its arrays so",
        )),
    }
}

/// The arrays of the first of these lists of names that are all there.
fn members(file: &Path, lists: &[Vec<String>]) -> Result<Option<Vec<Array>>, DataError> {
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
    for names in lists {
        let names: Vec<String> = names.iter().map(|name| format!("{name}.npy")).collect();
        if !names
            .iter()
            .all(|name| archive.index_for_name(name).is_some())
        {
            continue;
        }
        let mut arrays = Vec::new();
        for name in &names {
            let member = archive.by_name(name).map_err(broken)?;
            let place = file.join(name);
            arrays.push(array(&place, member.take(MAX_BYTES))?);
        }
        return Ok(Some(arrays));
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
    // Pixels are kept as they are, and all else as numbers of eight bytes.
    let pixels = dims.len() > 2 && (kind.type_char(), kind.size_field()) == (TypeChar::Uint, 1);
    let most = if pixels { MAX_BYTES } else { MAX_BYTES / 8 };
    let many = dims.first().is_none_or(|&dim| dim > MAX_SAMPLES as usize);
    if many || count.is_none_or(|n| n as u64 > most) {
        return Err(unusable(
            file,
            &format!(
                "its shape is {dims:?}; at least one axis, at most {MAX_SAMPLES} samples and at most {most} numbers are read"
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

/// Labels as text, one per sample.
fn labels(file: &Path, y: &Array) -> Result<Vec<String>, DataError> {
    if y.dims.iter().skip(1).any(|&dim| dim != 1) {
        return Err(unusable(
            file,
            &format!("it has labels of {:?}: one label per sample", y.dims),
        ));
    }
    Ok(match &y.numbers {
        Numbers::Bytes(bytes) => bytes.iter().map(u8::to_string).collect(),
        Numbers::Floats(floats) => floats.iter().map(f64::to_string).collect(),
    })
}

/// Samples of an array and its labels. Classes are those of `others` too, the labels of
/// the other split: a label has the same number in both.
fn samples(file: &Path, x: &Array, y: &Array, others: Vec<String>) -> Result<Samples, DataError> {
    let (Some((&count, rest)), true) = (x.dims.split_first(), !x.dims.contains(&0)) else {
        return Err(DataError::Empty { file: file.into() });
    };
    let labels = labels(file, y)?;
    if labels.len() != count {
        return Err(unusable(
            file,
            &format!(
                "it has samples of the shape {:?} and labels of {:?}: one label per sample",
                x.dims, y.dims
            ),
        ));
    }
    let all = [&labels[..], &others].concat();
    let (labels, classes) = numbered(file, &labels, &all)?;
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
