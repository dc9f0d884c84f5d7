//! Numbers of tensors in a file beside the ONNX file, as PyTorch exports them
//! unless it is told otherwise (ONNX, "External Data").

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::schema::{GraphProto, TensorProto};
use super::{ImportError, printable};
use crate::files;

/// Most bytes of all numbers and of all files with them together: more than a network of
/// the format has.
const MAX_BYTES: usize = 1 << 30;

/// Bytes of the largest number that there is a type for.
const NUMBER_BYTES: usize = 8;

/// Where the numbers of a tensor are.
struct Place<'t> {
    location: &'t str,
    offset: usize,
    /// To the end of the file where it is left out.
    length: Option<usize>,
}

impl<'t> Place<'t> {
    fn of(tensor: &'t TensorProto) -> Result<Self, String> {
        let entry = |key: &str| {
            let mut entries = tensor.external_data.iter();
            let found = entries.find(|entry| entry.key == key);
            found.map(|entry| entry.value.as_str())
        };
        let number = |key: &str| {
            let value = entry(key).map(|value| {
                value.parse::<usize>().map_err(|_| {
                    format!(
                        "the {key} {} of its numbers is no number of bytes; export the model again",
                        printable(value)
                    )
                })
            });
            value.transpose()
        };
        let location = entry("location").unwrap_or_default();
        // Nothing outside of the directory is read on a file's behalf.
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
        if location.is_empty() || !Path::new(location).components().all(inside) {
            return Err(format!(
                "its numbers are in {:?}, which is not beside the ONNX file; export the model again",
                printable(location)
            ));
        }
        Ok(Self {
            location,
            offset: number("offset")?.unwrap_or(0),
            length: number("length")?,
        })
    }
}

/// Puts numbers that are in other files into the graph.
pub(super) fn inline(graph: &mut GraphProto, directory: &Path) -> Result<(), ImportError> {
    let mut opened: HashMap<PathBuf, Vec<u8>> = HashMap::new();
    // Every tensor may name the same bytes, or a file of its own.
    let mut left = MAX_BYTES;
    let charge = |left: usize, bytes: usize| {
        left.checked_sub(bytes).ok_or_else(|| {
            format!(
                "with it the numbers of the file are more than {MAX_BYTES} bytes; export a smaller network"
            )
        })
    };
    for tensor in &mut graph.initializer {
        if tensor.data_location != 1 {
            continue;
        }
        let unusable = |reason| ImportError::Tensor {
            name: printable(&tensor.name),
            reason,
        };
        let place = Place::of(tensor).map_err(unusable)?;
        let file = directory.join(place.location);
        if !opened.contains_key(&file) {
            let read = files::read(&file, left as u64);
            let bytes = read.map_err(|source| ImportError::External {
                name: printable(&tensor.name),
                file: printable(place.location),
                source,
            })?;
            left = charge(left, bytes.len()).map_err(unusable)?;
            opened.insert(file.clone(), bytes);
        }
        let bytes = opened.get(&file).map_or(&[][..], Vec::as_slice);
        let end = match place.length {
            Some(length) => place.offset.checked_add(length),
            None => Some(bytes.len()),
        };
        let numbers = end.and_then(|end| bytes.get(place.offset..end));
        let numbers = numbers.ok_or_else(|| {
            unusable(format!(
                "its numbers are at byte {} of {:?}, which has {}; export the model again",
                place.offset,
                printable(place.location),
                bytes.len()
            ))
        })?;
        let most = tensor.dims.iter().try_fold(NUMBER_BYTES, |bytes, dim| {
            bytes.checked_mul(usize::try_from(*dim).ok()?)
        });
        if most.is_none_or(|most| numbers.len() > most) {
            return Err(unusable(format!(
                "{} bytes of numbers are more than its shape has; export the model again",
                numbers.len()
            )));
        }
        left = charge(left, numbers.len()).map_err(unusable)?;
        tensor.raw_data = numbers.to_vec();
        tensor.data_location = 0;
    }
    Ok(())
}
