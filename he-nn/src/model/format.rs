//! Reading and writing `.hemodel` files, see [the module above](super).

use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Deserialize, Serialize};

use super::check;
use super::error::ModelError;
use super::layer::{Input, Layer};
use super::{FILE_VERSION, MAGIC, MAX_LAYERS, Model};

/// Bytes before the body: magic, version, body length.
pub const HEADER_BYTES: usize = 16;

/// Bytes after the body.
pub const CRC_BYTES: usize = 4;

pub(super) static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// What the body begins with; the layers follow.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) name: &'a [u8],
    pub(super) input: Input<'a>,
    pub(super) layers: u8,
}

/// What a model is made of, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelParts<'a> {
    /// Name, UTF-8, 1 to [`super::MAX_NAME_BYTES`] bytes.
    pub name: &'a [u8],
    /// What it takes.
    pub input: Input<'a>,
    /// Layers, 1 to [`MAX_LAYERS`].
    pub layers: &'a [Layer<'a>],
}

impl ModelParts<'_> {
    /// Length of the file.
    ///
    /// # Errors
    ///
    /// [`ModelError::LayerCount`] for more layers than the format can count.
    pub fn file_len(&self) -> Result<usize, ModelError> {
        let mut body = encoded_len(&self.head()?)?;
        for layer in self.layers {
            body = body.saturating_add(encoded_len(layer)?);
        }
        Ok(body.saturating_add(const { HEADER_BYTES + CRC_BYTES }))
    }

    /// Writes the file to the start of `out`, and reads it back: what comes
    /// back was checked.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutputLength`] where `out` is shorter than
    /// [`Self::file_len`], and then `out` is not touched; otherwise what
    /// [`Model::parse`] finds wrong, and `out` holds nothing of use.
    pub fn write<'o>(&self, out: &'o mut [u8]) -> Result<Model<'o>, ModelError> {
        let needed = self.file_len()?;
        let short = ModelError::OutputLength {
            needed,
            got: out.len(),
        };
        let file = out.get_mut(..needed).ok_or(short)?;
        let (content, tail) = file.split_last_chunk_mut::<CRC_BYTES>().ok_or(short)?;
        let (head, body) = content.split_first_chunk_mut().ok_or(short)?;
        *head = header(body.len())?;
        let mut rest = append(&self.head()?, body)?;
        for layer in self.layers {
            rest = append(layer, rest)?;
        }
        *tail = CRC.checksum(content).to_le_bytes();
        Model::parse(file)
    }

    fn head(&self) -> Result<Head<'_>, ModelError> {
        let got = self.layers.len();
        let layers = u8::try_from(got).map_err(|_| ModelError::LayerCount {
            got,
            max: MAX_LAYERS,
        })?;
        Ok(Head {
            name: self.name,
            input: self.input,
            layers,
        })
    }
}

impl<'a> Model<'a> {
    /// Reads a `.hemodel` file.
    ///
    /// # Errors
    ///
    /// What disagrees first: the frame of the file, its checksum, then the
    /// network in it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ModelError> {
        let (body, crc) = unframe(bytes)?;
        let (head, layers) = take::<Head<'a>>(body)?;
        let name = check::name(head.name)?;
        let mut shape = check::input(&head.input)?;
        let mut largest = shape.values();
        let count = usize::from(head.layers);
        if !(1..=MAX_LAYERS).contains(&count) {
            return Err(ModelError::LayerCount {
                got: count,
                max: MAX_LAYERS,
            });
        }
        let mut rest = layers;
        let mut behind_linear = false;
        for index in 0..count {
            let (layer, after) = take::<Layer<'a>>(rest)?;
            let last = index.saturating_add(1) == count;
            shape = check::layer(index, &layer, shape, behind_linear, last)?;
            largest = largest.max(shape.values());
            behind_linear = layer.linear().is_some();
            rest = after;
        }
        if !rest.is_empty() {
            return Err(ModelError::TrailingBytes { extra: rest.len() });
        }
        Ok(Self {
            file: bytes,
            name,
            input: head.input,
            layers,
            count,
            outputs: shape.values(),
            largest,
            crc,
        })
    }
}

/// The body of a file and its checksum.
fn unframe(bytes: &[u8]) -> Result<(&[u8], u32), ModelError> {
    let cut_short = |needed| ModelError::CutShort {
        needed,
        got: bytes.len(),
    };
    let minimum = const { HEADER_BYTES + CRC_BYTES };

    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(cut_short(minimum))?;
    if *magic != MAGIC {
        return Err(ModelError::Magic { got: *magic });
    }
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(cut_short(minimum))?;
    let version = u32::from_le_bytes(*version);
    if version != FILE_VERSION {
        return Err(ModelError::Version { got: version });
    }
    let (body_bytes, rest) = rest.split_first_chunk::<4>().ok_or(cut_short(minimum))?;
    let body_bytes = u32::from_le_bytes(*body_bytes) as usize;
    let needed = body_bytes.saturating_add(minimum);
    let (body, rest) = rest.split_at_checked(body_bytes).ok_or(cut_short(needed))?;
    let (stored, extra) = rest.split_first_chunk::<4>().ok_or(cut_short(needed))?;
    if !extra.is_empty() {
        return Err(ModelError::TrailingBytes { extra: extra.len() });
    }
    let stored = u32::from_le_bytes(*stored);
    let mut digest = CRC.digest();
    digest.update(&header(body_bytes)?);
    digest.update(body);
    let computed = digest.finalize();
    if stored != computed {
        return Err(ModelError::Crc { stored, computed });
    }
    Ok((body, stored))
}

/// The next item of a body. Lengths and dimensions are all that has more than
/// one encoding, and every other one than postcard's own is longer.
fn take<'a, T: Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), ModelError> {
    let (item, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| ModelError::Encoding)?;
    if encoded_len(&item)?.checked_add(rest.len()) != Some(bytes.len()) {
        return Err(ModelError::Encoding);
    }
    Ok((item, rest))
}

/// The next layer of a body that was checked.
pub(super) fn next_layer<'a>(bytes: &mut &'a [u8]) -> Option<Layer<'a>> {
    let (layer, rest) = postcard::take_from_bytes::<Layer<'a>>(bytes).ok()?;
    *bytes = rest;
    Some(layer)
}

/// Writes an item and gives what is behind it.
fn append<'o>(item: &impl Serialize, out: &'o mut [u8]) -> Result<&'o mut [u8], ModelError> {
    let written = postcard::to_slice(item, out)
        .map_err(|_| ModelError::Encoding)?
        .len();
    out.get_mut(written..).ok_or(ModelError::Encoding)
}

fn encoded_len(item: &impl Serialize) -> Result<usize, ModelError> {
    postcard::serialize_with_flavor(item, postcard::ser_flavors::Size::default())
        .map_err(|_| ModelError::Encoding)
}

/// The first [`HEADER_BYTES`] of a file.
pub(super) fn header(body_bytes: usize) -> Result<[u8; HEADER_BYTES], ModelError> {
    let body_bytes = u32::try_from(body_bytes).map_err(|_| ModelError::Encoding)?;
    let mut header = [0; HEADER_BYTES];
    let fields = MAGIC
        .into_iter()
        .chain(FILE_VERSION.to_le_bytes())
        .chain(body_bytes.to_le_bytes());
    for (byte, field) in header.iter_mut().zip(fields) {
        *byte = field;
    }
    Ok(header)
}
