//! IDX files of any shape: bytes in three dimensions (images, rows, columns) or in four
//! (with channels, in front or behind).

use std::path::{Path, PathBuf};

use super::samples::Samples;
use super::{
    BLOCK, DataError, IMAGES_MAGIC, LABELS_MAGIC, MAX_CLASSES, MAX_SAMPLES, Source, Split, find,
};
use crate::model::{MAX_VALUES, Shape};

/// First word of an IDX file with bytes in four dimensions.
const CHANNELS_MAGIC: u32 = 0x0804;

/// Bytes of the images of a file.
const MAX_BYTES: u64 = 1 << 31;

/// The files of images and labels of a split; `None` where a directory has no images.
pub(super) fn files(
    directory: &Path,
    split: Split,
) -> Result<Option<(PathBuf, PathBuf)>, DataError> {
    let found = |idx| find(directory, split, "images", idx).ok();
    match found("idx3").or_else(|| found("idx4")) {
        Some(images) => Ok(Some((images, find(directory, split, "labels", "idx1")?))),
        None => Ok(None),
    }
}

/// Reads both.
pub(super) fn read(images: &Path, labels: &Path) -> Result<Samples, DataError> {
    let (shape, pixels) = read_images(Source::open(images)?)?;
    let count = pixels.len() / shape.values();
    let mut source = Source::open(labels)?;
    source.magic(LABELS_MAGIC, 8)?;
    let got = source.word(8)?;
    if got as usize != count {
        return Err(DataError::Counts {
            images_file: images.into(),
            images: count,
            labels_file: labels.into(),
            labels: got as usize,
        });
    }
    let labels = source.rest(8, u64::from(got))?;
    debug_assert!(labels.iter().all(|&label| usize::from(label) < MAX_CLASSES));
    Ok(Samples::of_pixels(shape, pixels, labels, Vec::new()))
}

fn read_images(mut source: Source<'_>) -> Result<(Shape, Vec<u8>), DataError> {
    let magic = source.word(4)?;
    let axes = match magic {
        IMAGES_MAGIC => 2,
        CHANNELS_MAGIC => 3,
        got => {
            return Err(DataError::Magic {
                file: source.file.into(),
                expected: IMAGES_MAGIC,
                got,
            });
        }
    };
    let header = 8 + 4 * axes;
    let count = source.word(header)?;
    let dims: Vec<u32> = (0..axes)
        .map(|_| source.word(header))
        .collect::<Result<_, _>>()?;
    let (shape, last) = match dims[..] {
        [height, width] => ([1, height, width], false),
        [height, width, channels @ (1 | 3)] if height > 4 => ([channels, height, width], true),
        [channels, height, width] => ([channels, height, width], false),
        _ => ([0; 3], false),
    };
    let values = shape
        .iter()
        .try_fold(1usize, |n, &dim| n.checked_mul(dim as usize));
    let values = values.filter(|values| (1..=MAX_VALUES).contains(values));
    let Some(values) = values else {
        return Err(DataError::Unusable {
            file: source.file.into(),
            reason: format!(
                "its images are of {dims:?}; a network takes 1 to {MAX_VALUES} values: make them smaller"
            ),
        });
    };
    if count > MAX_SAMPLES {
        return Err(DataError::Many {
            file: source.file.into(),
            got: count,
            most: MAX_SAMPLES,
        });
    }
    if count == 0 {
        return Err(DataError::Empty {
            file: source.file.into(),
        });
    }
    let bytes = u64::from(count) * values as u64;
    if bytes > MAX_BYTES {
        return Err(DataError::Unusable {
            file: source.file.into(),
            reason: format!(
                "its {count} images of {dims:?} have {bytes} bytes; at most {MAX_BYTES} are read: use fewer"
            ),
        });
    }
    let expected = header + bytes;
    let mut pixels = Vec::new();
    let mut left = count as usize;
    while left > 0 {
        let some = left.min(BLOCK);
        pixels.extend(source.read((some * values) as u64, expected)?);
        left -= some;
    }
    source.rest(expected, 0)?;
    let [channels, height, width] = shape.map(|dim| dim as u16);
    let shape = Shape {
        channels,
        height,
        width,
    };
    if last {
        channels_first(&mut pixels, shape);
    }
    Ok((shape, pixels))
}

/// Brings images whose channels lie behind each other at every place into the order of
/// models: channel by channel.
pub(super) fn channels_first(pixels: &mut [u8], shape: Shape) {
    let channels = usize::from(shape.channels);
    let places = shape.values() / channels.max(1);
    for image in pixels.chunks_exact_mut(shape.values().max(1)) {
        let source = image.to_vec();
        for (at, pixel) in source.into_iter().enumerate() {
            image[at % channels * places + at / channels] = pixel;
        }
    }
}
