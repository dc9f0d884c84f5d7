//! Images as files: PNG and JPEG in folders by class, and CIFAR-10's binary files, in a
//! directory or a tar.
//!
//! The class of an image is the folder that it lies in, and its split the folder `train`
//! or `test` somewhere above; without these, samples are split as a table is. Samples of
//! a split come in an order drawn by a seed, so that the first ones are of all classes.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use chacha20::ChaCha8Rng;
use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, Limits};
use rand_core::SeedableRng;

use super::samples::{Samples, listed, numbered, unusable};
use super::table::{SPLIT_SEED, shuffle};
use super::{DataError, MAX_SAMPLES, Split};
use crate::files;
use crate::model::{MAX_VALUES, Shape};

/// Bytes of a file of one image, and of everything that is read.
const MAX_IMAGE_BYTES: u64 = 1 << 24;
const MAX_BYTES: u64 = 1 << 31;

/// Folders in folders that are looked into.
const MAX_DEPTH: usize = 6;

/// CIFAR-10: a label and three channels of 32x32.
const CIFAR: Shape = Shape {
    channels: 3,
    height: 32,
    width: 32,
};
const CIFAR_RECORD: usize = 1 + 3 * 32 * 32;

/// A file, and what is read of it: nothing yet, or its bytes.
struct Entry {
    /// Within the directory or the tar.
    path: PathBuf,
    bytes: Option<Vec<u8>>,
}

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Image,
    Cifar,
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    if [".png", ".jpg", ".jpeg"]
        .iter()
        .any(|end| name.ends_with(end))
        && !name.starts_with('.')
    {
        return Some(Kind::Image);
    }
    let batch = name.starts_with("data_batch_") || name.starts_with("test_batch");
    (batch && name.ends_with(".bin")).then_some(Kind::Cifar)
}

/// The split that a path says it is of.
fn split_of(path: &Path) -> Option<Split> {
    if kind(path) == Some(Kind::Cifar) {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        return Some(if name.starts_with("test") {
            Split::Test
        } else {
            Split::Train
        });
    }
    path.parent()?.components().rev().skip(1).find_map(|part| {
        match part.as_os_str().to_string_lossy().to_lowercase().as_str() {
            "train" | "training" => Some(Split::Train),
            "test" | "testing" | "val" | "validation" => Some(Split::Test),
            _ => None,
        }
    })
}

/// The images of a directory; `None` where there are none.
pub(super) fn in_directory(directory: &Path, split: Split) -> Result<Option<Samples>, DataError> {
    let mut entries = Vec::new();
    walk(directory, Path::new(""), 0, &mut entries)?;
    if entries.is_empty() {
        return Ok(None);
    }
    let read = |entry: &Entry| {
        let file = directory.join(&entry.path);
        let most = match kind(&entry.path) {
            Some(Kind::Cifar) => MAX_BYTES,
            _ => MAX_IMAGE_BYTES,
        };
        files::read(&file, most).map_err(|source| DataError::Read { file, source })
    };
    samples(directory, entries, split, read).map(Some)
}

fn walk(
    root: &Path,
    below: &Path,
    depth: usize,
    entries: &mut Vec<Entry>,
) -> Result<(), DataError> {
    for path in listed(&root.join(below))? {
        let relative = below.join(path.file_name().unwrap_or_default());
        if path.is_dir() && depth < MAX_DEPTH {
            walk(root, &relative, depth + 1, entries)?;
        } else if kind(&relative).is_some() && path.is_file() {
            entries.push(Entry {
                path: relative,
                bytes: None,
            });
        }
        if entries.len() > MAX_SAMPLES as usize {
            return Err(too_many(root));
        }
    }
    Ok(())
}

fn too_many(root: &Path) -> DataError {
    DataError::Many {
        file: root.into(),
        got: MAX_SAMPLES + 1,
        most: MAX_SAMPLES,
    }
}

/// The images of a tar, plain or compressed by gzip.
pub(super) fn of_tar(file: &Path, split: Split) -> Result<Samples, DataError> {
    let opened = files::open(file, MAX_BYTES).map_err(|source| DataError::Read {
        file: file.into(),
        source,
    })?;
    let zipped = file.extension().is_none_or(|ending| ending != "tar");
    let reader: Box<dyn Read> = match zipped {
        true => Box::new(flate2::read::MultiGzDecoder::new(opened)),
        false => Box::new(opened),
    };
    let broken = |error: std::io::Error| {
        unusable(
            file,
            &format!("it is no sound tar ({error}): download it again"),
        )
    };
    let mut archive = tar::Archive::new(reader.take(2 * MAX_BYTES));
    let mut entries = Vec::new();
    let mut total = 0u64;
    for member in archive.entries().map_err(broken)? {
        let member = member.map_err(broken)?;
        let path = member.path().map_err(broken)?.into_owned();
        let other = split_of(&path).is_some_and(|of| of != split);
        if !member.header().entry_type().is_file() || kind(&path).is_none() {
            continue;
        }
        // Of the other split only the class is of use.
        let bytes = match other {
            true => Vec::new(),
            false => {
                let mut bytes = Vec::new();
                let size = member.size();
                total = total.saturating_add(size);
                if total > MAX_BYTES {
                    return Err(unusable(
                        file,
                        &format!("it holds more than {MAX_BYTES} bytes of images: use fewer"),
                    ));
                }
                member
                    .take(MAX_BYTES)
                    .read_to_end(&mut bytes)
                    .map_err(broken)?;
                bytes
            }
        };
        entries.push(Entry {
            path,
            bytes: Some(bytes),
        });
        if entries.len() > MAX_SAMPLES as usize {
            return Err(too_many(file));
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    samples(file, entries, split, |entry| {
        Ok(entry.bytes.clone().unwrap_or_default())
    })
}

/// Samples of a split, of all files that were found.
fn samples(
    root: &Path,
    entries: Vec<Entry>,
    split: Split,
    read: impl Fn(&Entry) -> Result<Vec<u8>, DataError>,
) -> Result<Samples, DataError> {
    let cifar = entries
        .iter()
        .any(|entry| kind(&entry.path) == Some(Kind::Cifar));
    let wanted = if cifar { Kind::Cifar } else { Kind::Image };
    let entries: Vec<Entry> = entries
        .into_iter()
        .filter(|entry| kind(&entry.path) == Some(wanted))
        .collect();
    let class = |entry: &Entry| {
        let folder = entry.path.parent().and_then(Path::file_name);
        folder.map(|name| name.to_string_lossy().into_owned())
    };
    let has_splits = entries.iter().any(|entry| split_of(&entry.path).is_some());
    let of_split: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !has_splits || split_of(&entry.path) == Some(split))
        .collect();
    if of_split.is_empty() {
        return Err(DataError::Nothing {
            directory: root.into(),
            split,
        });
    }
    if cifar {
        return batches(root, &of_split, read);
    }
    let Some(classes) = entries.iter().map(class).collect::<Option<Vec<String>>>() else {
        return Err(unusable(
            root,
            "an image lies in no folder: put images into folders by class",
        ));
    };
    let order = match has_splits {
        true => {
            let mut order: Vec<usize> = (0..of_split.len()).collect();
            shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(SPLIT_SEED));
            order
        }
        false => super::samples::part_of(of_split.len(), split),
    };
    let mut found: Option<Shape> = None;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for at in order {
        let entry = of_split[at];
        let file = root.join(&entry.path);
        let (shape, image) = decoded(&file, read(entry)?, found)?;
        if let Some(expected) = found.filter(|&expected| expected != shape) {
            return Err(DataError::Form {
                path: file,
                found: super::Form::Image(shape),
                wanted: super::Form::Image(expected),
            });
        }
        found = Some(shape);
        pixels.extend(image);
        labels.extend(class(entry));
        if pixels.len() as u64 > MAX_BYTES {
            return Err(unusable(
                root,
                &format!("it holds more than {MAX_BYTES} pixels: use fewer images"),
            ));
        }
    }
    let Some(shape) = found else {
        return Err(DataError::Empty { file: root.into() });
    };
    let (labels, classes) = numbered(root, &labels, &classes)?;
    Ok(Samples::of_pixels(shape, pixels, labels, classes))
}

/// The pixels of an image, channel by channel: one, or three where it has colours or
/// others have.
fn decoded(
    file: &Path,
    bytes: Vec<u8>,
    others: Option<Shape>,
) -> Result<(Shape, Vec<u8>), DataError> {
    let broken = |error: image::ImageError| {
        unusable(
            file,
            &format!("it is no sound PNG or JPEG ({error}): write it again"),
        )
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| DataError::Read {
            file: file.into(),
            source,
        })?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_VALUES as u32);
    limits.max_image_height = Some(MAX_VALUES as u32);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let colours = decoder.color_type();
    let grey = matches!(colours, ColorType::L8 | ColorType::L16);
    if colours.has_alpha() {
        return Err(unusable(file, "it has transparency: save it without"));
    }
    let channels = match (grey, others) {
        (true, Some(shape)) => usize::from(shape.channels),
        (true, None) => 1,
        (false, _) => 3,
    };
    let values = (width as usize)
        .saturating_mul(height as usize)
        .saturating_mul(channels);
    if values > MAX_VALUES {
        return Err(unusable(
            file,
            &format!(
                "it is of {channels}x{height}x{width} values; a network takes at most {MAX_VALUES}: make it smaller"
            ),
        ));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let shape = Shape {
        channels: channels as u16,
        height: height as u16,
        width: width as u16,
    };
    let mut pixels = match channels {
        1 => image.into_luma8().into_raw(),
        _ => image.into_rgb8().into_raw(),
    };
    super::idx::channels_first(&mut pixels, shape);
    Ok((shape, pixels))
}

/// CIFAR-10's files, one record after the other.
fn batches(
    root: &Path,
    entries: &[&Entry],
    read: impl Fn(&Entry) -> Result<Vec<u8>, DataError>,
) -> Result<Samples, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for entry in entries {
        let file = root.join(&entry.path);
        let bytes = read(entry)?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(CIFAR_RECORD) {
            return Err(unusable(
                &file,
                &format!(
                    "it has {} bytes, which are no whole records of {CIFAR_RECORD}: download it again",
                    bytes.len()
                ),
            ));
        }
        for record in bytes.chunks_exact(CIFAR_RECORD) {
            let (label, image) = record.split_at(1);
            if label[0] > 9 {
                return Err(DataError::Label {
                    file,
                    index: labels.len(),
                    label: label[0],
                });
            }
            labels.push(label[0]);
            pixels.extend_from_slice(image);
        }
    }
    Ok(Samples::of_pixels(CIFAR, pixels, labels, Vec::new()))
}
