//! Labelled data: `Samples` of any shape and from any format for what runs networks, and
//! here 28x28 images from IDX files, the format of MNIST and its kin, for training and
//! attacks.
//!
//! A data set is a directory with the four files under their usual names:
//! `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
//! `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, each plain or with
//! `.gz`, and also in the spelling with a dot (`train-images.idx3-ubyte`).
//! The files may hold anything: whatever they disagree with is an error that
//! names the file, never a panic, and memory grows with what was read, not
//! with what a header claims.

#[cfg(feature = "data")]
mod arrays;
mod form;
#[cfg(feature = "data")]
mod idx;
#[cfg(feature = "data")]
mod pictures;
#[cfg(feature = "data")]
mod records;
#[cfg(feature = "data")]
mod samples;
pub mod table;

pub use form::{Form, MAX_CLASSES};
#[cfg(feature = "data")]
pub use samples::{Choice, Samples};

use std::{
    fmt, io,
    io::Read,
    path::{Path, PathBuf},
};

use crate::files;
use crate::model::Sample;

use self::table::TableError;

/// Rows and columns of an image.
pub const SIDE: usize = 28;

/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// Labels are 0 to 9.
pub const CLASSES: usize = 10;

/// First word of an IDX file with bytes in three dimensions.
const IMAGES_MAGIC: u32 = 0x0803;

/// First word of an IDX file with bytes in one dimension.
const LABELS_MAGIC: u32 = 0x0801;

/// One image, row by row, 0 for background.
pub type Image = [u8; PIXELS];

/// A data set that a network of this project is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    /// Handwritten digits, see [`load`].
    Mnist,
    /// Pictures of clothing in the same format.
    FashionMnist,
    /// The table of [`table::Table`].
    Pima,
}

impl DataSet {
    /// Its directory among several in `root`, under one of its usual names, or
    /// `root` itself where there is none.
    #[must_use]
    pub fn locate(self, root: &Path) -> PathBuf {
        let names: &[&str] = match self {
            Self::Mnist => &["mnist", "MNIST/raw", "MNIST"],
            Self::FashionMnist => &["fashion-mnist", "FashionMNIST/raw", "FashionMNIST"],
            Self::Pima => &["pima-diabetes", "pima"],
        };
        let mut directories = names.iter().map(|name| root.join(name));
        directories
            .find(|directory| directory.is_dir())
            .unwrap_or_else(|| root.into())
    }
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// For testing.
    Test,
}

impl Split {
    /// What its files' names start with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "t10k",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// As many labels as images, at least one, every label below [`CLASSES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The images.
    pub images: Vec<Image>,
    /// Their labels.
    pub labels: Vec<u8>,
}

impl Dataset {
    /// The images with their labels.
    pub fn samples(&self) -> impl Iterator<Item = (Sample<'_>, u8)> {
        let images = self.images.iter().map(Sample::from);
        images.zip(self.labels.iter().copied())
    }
}

/// Why a data set could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is no such file in the directory, under any of its names.
    #[error(
        "{} holds no {name} of the {split} split; put the file there, plain or as {name}.gz",
        directory.display()
    )]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
        /// Of which split.
        split: Split,
        /// Its usual name.
        name: String,
    },
    /// There is no such directory, or it is not to be looked into.
    #[error("the directory {} cannot be looked into ({source}); name one that is there and that you may read", directory.display())]
    Directory {
        /// Which directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("{} cannot be read ({source}); check that it is a readable file", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The compressed stream is damaged.
    #[error("{} is not a sound gzip file ({source}); download it again", file.display())]
    Gzip {
        /// Which file.
        file: PathBuf,
        /// What the decoder found.
        source: io::Error,
    },
    /// The file ends before its content does.
    #[error(
        "{} is cut short: its header asks for {expected} bytes and it has {got}; download it again",
        file.display()
    )]
    CutShort {
        /// Which file.
        file: PathBuf,
        /// Bytes that it should have (decompressed).
        expected: u64,
        /// Bytes that it has.
        got: u64,
    },
    /// The file goes on after its content.
    #[error(
        "{} goes on after the {expected} bytes that its header asks for; download it again",
        file.display()
    )]
    Trailing {
        /// Which file.
        file: PathBuf,
        /// Bytes that it should have (decompressed).
        expected: u64,
    },
    /// Not the IDX file that was expected.
    #[error(
        "{} starts with {got:#010x} instead of {expected:#010x}; give an IDX file of {}",
        file.display(),
        if *expected == IMAGES_MAGIC { "images" } else { "labels" }
    )]
    Magic {
        /// Which file.
        file: PathBuf,
        /// The magic number of its kind.
        expected: u32,
        /// Its first four bytes.
        got: u32,
    },
    /// Images of another size.
    #[error("{} has images of {rows}x{columns} pixels; give images of 28x28", file.display())]
    Size {
        /// Which file.
        file: PathBuf,
        /// Their rows.
        rows: u32,
        /// Their columns.
        columns: u32,
    },
    /// The two files do not belong together.
    #[error(
        "{} has {images} images and {} has {labels} labels; give two files of the same data set",
        images_file.display(),
        labels_file.display()
    )]
    Counts {
        /// The images.
        images_file: PathBuf,
        /// How many.
        images: usize,
        /// The labels.
        labels_file: PathBuf,
        /// How many.
        labels: usize,
    },
    /// A label that is no class.
    #[error(
        "label {index} of {} is {label}; give a data set with the labels 0 to 9",
        file.display()
    )]
    Label {
        /// Which file.
        file: PathBuf,
        /// Which label.
        index: usize,
        /// Its value.
        label: u8,
    },
    /// More than are read.
    #[error(
        "the header of {} asks for {got} samples and at most {most} are read; give a smaller data set",
        file.display()
    )]
    Many {
        /// Which file.
        file: PathBuf,
        /// As its header says.
        got: u32,
        /// How many there may be.
        most: u32,
    },
    /// No images.
    #[error("{} holds no images; give a data set with at least one", file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
    },
    /// Nothing that is read, or nothing of the split.
    #[error(
        "{} holds no {}-images-idx3-ubyte, table (.csv), arrays (.npz, .npy), PNG or JPEG images in folders by class, data_batch_1.bin or tar of the {split} split: put the data there, or name its file",
        directory.display(), split.prefix()
    )]
    Nothing {
        /// Where it was looked for.
        directory: PathBuf,
        /// Of which split.
        split: Split,
    },
    /// Samples of another form than the model takes.
    #[error("{} holds {found}, and {wanted} are taken: name other data, or another model", path.display())]
    Form {
        /// Where the samples are.
        path: PathBuf,
        /// What they are.
        found: Form,
        /// What the model takes, or what other samples are.
        wanted: Form,
    },
    /// A file that is not what its name says, or that is outside of what is read.
    #[error("{} cannot be used: {reason}", file.display())]
    Unusable {
        /// Which file.
        file: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A value that is not there.
    #[error("the value in line {line}, column {column} of {} is missing: fill it in or leave the row out", file.display())]
    MissingValue {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// Which column, from 1, with its name.
        column: String,
    },
    /// A feature that is no number.
    #[error("the value in line {line}, column {column} of {} is {text:?}; a feature must be a number: encode it, or leave the column out", file.display())]
    Cell {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// Which column, from 1, with its name.
        column: String,
        /// What it says.
        text: String,
    },
    /// No such column of labels.
    #[error("{} has no column {wanted:?} for the labels; its columns are {known}", file.display())]
    LabelColumn {
        /// Which file.
        file: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// More classes than labels can tell apart.
    #[error(
        "the labels of {} have {got} different values, and at most {MAX_CLASSES} are classes: name another column with --label",
        file.display()
    )]
    Classes {
        /// Which file.
        file: PathBuf,
        /// How many there are.
        got: usize,
    },
    /// The table could not be loaded.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Loads one split of the data set in a directory.
///
/// # Errors
///
/// [`DataError`], with the file that is missing or wrong.
pub fn load(directory: &Path, split: Split) -> Result<Dataset, DataError> {
    let images = find(directory, split, "images", "idx3")?;
    let labels = find(directory, split, "labels", "idx1")?;
    load_files(&images, &labels)
}

/// Loads a file of images and its file of labels; `.gz` is decompressed.
///
/// # Errors
///
/// [`DataError`], with the file that is wrong.
pub fn load_files(images: &Path, labels: &Path) -> Result<Dataset, DataError> {
    assemble(Source::open(images)?, Source::open(labels)?)
}

/// Reads the bytes of (uncompressed) IDX files. The paths stand in errors.
///
/// # Errors
///
/// [`DataError`], with the path whose bytes are wrong.
pub fn parse(
    (images_file, images): (&Path, &[u8]),
    (labels_file, labels): (&Path, &[u8]),
) -> Result<Dataset, DataError> {
    assemble(
        Source::bytes(images_file, images),
        Source::bytes(labels_file, labels),
    )
}

/// The path of one of the four files.
fn find(directory: &Path, split: Split, kind: &str, idx: &str) -> Result<PathBuf, DataError> {
    let prefix = split.prefix();
    let name = format!("{prefix}-{kind}-{idx}-ubyte");
    let dotted = format!("{prefix}-{kind}.{idx}-ubyte");
    for name in [&name, &dotted] {
        for ending in ["", ".gz"] {
            let path = directory.join(format!("{name}{ending}"));
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    Err(DataError::Missing {
        directory: directory.into(),
        split,
        name,
    })
}

fn assemble(images: Source<'_>, labels: Source<'_>) -> Result<Dataset, DataError> {
    let (images_file, labels_file) = (images.file, labels.file);
    let images = read_images(images)?;
    if images.is_empty() {
        return Err(DataError::Empty {
            file: images_file.into(),
        });
    }
    // Of which as many are read as there are images, whatever their header says.
    let labels = read_labels(labels, images.len(), |labels| DataError::Counts {
        images_file: images_file.into(),
        images: images.len(),
        labels_file: labels_file.into(),
        labels,
    })?;
    Ok(Dataset { images, labels })
}

fn read_images(mut source: Source<'_>) -> Result<Vec<Image>, DataError> {
    source.magic(IMAGES_MAGIC, 16)?;
    let count = source.word(16)?;
    let (rows, columns) = (source.word(16)?, source.word(16)?);
    if (rows as usize, columns as usize) != (SIDE, SIDE) {
        return Err(DataError::Size {
            file: source.file.into(),
            rows,
            columns,
        });
    }
    // A few bytes of gzip are a thousand of these.
    if count > MAX_SAMPLES {
        return Err(DataError::Many {
            file: source.file.into(),
            got: count,
            most: MAX_SAMPLES,
        });
    }
    let expected = 16 + u64::from(count) * PIXELS as u64;
    let mut images = Vec::new();
    let mut left = count as usize;
    while left > 0 {
        let some = left.min(BLOCK);
        let pixels = source.read((some * PIXELS) as u64, expected)?;
        images.extend_from_slice(pixels.as_chunks::<PIXELS>().0);
        left -= some;
    }
    source.rest(expected, 0)?;
    Ok(images)
}

fn read_labels(
    mut source: Source<'_>,
    images: usize,
    disagreement: impl FnOnce(usize) -> DataError,
) -> Result<Vec<u8>, DataError> {
    source.magic(LABELS_MAGIC, 8)?;
    let count = source.word(8)?;
    if count as usize != images {
        return Err(disagreement(count as usize));
    }
    let labels = source.rest(8, u64::from(count))?;
    match labels
        .iter()
        .position(|&label| usize::from(label) >= CLASSES)
    {
        Some(index) => Err(DataError::Label {
            file: source.file.into(),
            index,
            label: labels[index],
        }),
        None => Ok(labels),
    }
}

/// Samples that a data set never has: 822 MB of images.
const MAX_SAMPLES: u32 = 1 << 20;

/// Bytes of a file of so many.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Images that are read at a time.
const BLOCK: usize = 1 << 12;

/// A file being read, compressed or not.
struct Source<'a> {
    file: &'a Path,
    reader: Box<dyn Read + 'a>,
    gzip: bool,
    consumed: u64,
}

impl<'a> Source<'a> {
    fn open(file: &'a Path) -> Result<Self, DataError> {
        let opened = files::open(file, MAX_FILE_BYTES).map_err(|source| DataError::Read {
            file: file.into(),
            source,
        })?;
        let gzip = file.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn Read> = if gzip {
            Box::new(flate2::read::MultiGzDecoder::new(opened))
        } else {
            Box::new(opened)
        };
        Ok(Self {
            file,
            reader,
            gzip,
            consumed: 0,
        })
    }

    fn bytes(file: &'a Path, bytes: &'a [u8]) -> Self {
        Self {
            file,
            reader: Box::new(bytes),
            gzip: false,
            consumed: 0,
        }
    }

    /// Exactly `length` bytes; a file that ends in them should have had
    /// `expected` in all.
    fn read(&mut self, length: u64, expected: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let result = self.reader.by_ref().take(length).read_to_end(&mut bytes);
        self.consumed += bytes.len() as u64;
        let file = self.file.into();
        match result {
            Ok(_) if (bytes.len() as u64) < length => Err(DataError::CutShort {
                file,
                expected,
                got: self.consumed,
            }),
            Ok(_) => Ok(bytes),
            Err(source) if self.gzip => Err(DataError::Gzip { file, source }),
            Err(source) => Err(DataError::Read { file, source }),
        }
    }

    /// The next big-endian word of a header that takes `header` bytes.
    fn word(&mut self, header: u64) -> Result<u32, DataError> {
        let bytes = self.read(4, header)?;
        Ok(bytes
            .iter()
            .fold(0, |word, &byte| word << 8 | u32::from(byte)))
    }

    fn magic(&mut self, expected: u32, header: u64) -> Result<(), DataError> {
        let got = self.word(header)?;
        if got != expected {
            return Err(DataError::Magic {
                file: self.file.into(),
                expected,
                got,
            });
        }
        Ok(())
    }

    /// The content after the header, which must end the file.
    fn rest(&mut self, header: u64, length: u64) -> Result<Vec<u8>, DataError> {
        let expected = header + length;
        let bytes = self.read(length, expected)?;
        // One byte more must not exist; reading on also lets gzip compare its
        // own checksum.
        match self.read(1, expected) {
            Err(DataError::CutShort { .. }) => Ok(bytes),
            Ok(_) => Err(DataError::Trailing {
                file: self.file.into(),
                expected,
            }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    /// A directory of its own for each test, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("he-edge-data-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.0.join(name), bytes).unwrap();
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn images(count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [IMAGES_MAGIC, count, 28, 28] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend((0..count as usize * PIXELS).map(|i| (i % 251) as u8));
        bytes
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [LABELS_MAGIC, labels.len() as u32] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(labels);
        bytes
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn parse_bytes(images: &[u8], labels: &[u8]) -> Result<Dataset, DataError> {
        parse((Path::new("I"), images), (Path::new("L"), labels))
    }

    #[test]
    fn every_spelling_loads_the_same() {
        let expected = parse_bytes(&images(3), &labels(&[0, 9, 4])).unwrap();
        assert_eq!(expected.labels, [0, 9, 4]);
        assert_eq!(expected.images.len(), 3);
        assert_eq!(expected.images[1][0], (PIXELS % 251) as u8);
        for separator in ['-', '.'] {
            for compressed in [false, true] {
                let directory = Directory::new(&format!("spelling{separator}{compressed}"));
                let put = |kind: &str, idx: &str, bytes: Vec<u8>| {
                    let name = format!("t10k-{kind}{separator}{idx}-ubyte");
                    if compressed {
                        directory.write(&format!("{name}.gz"), &gz(&bytes));
                    } else {
                        directory.write(&name, &bytes);
                    }
                };
                put("images", "idx3", images(3));
                put("labels", "idx1", labels(&[0, 9, 4]));
                assert_eq!(load(&directory.0, Split::Test).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_data_set_is_found_among_others() {
        let directory = Directory::new("locate");
        let root = &directory.0;
        assert_eq!(DataSet::Mnist.locate(root), *root);
        for name in ["mnist", "FashionMNIST/raw", "pima"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        assert_eq!(DataSet::Mnist.locate(root), root.join("mnist"));
        assert_eq!(
            DataSet::FashionMnist.locate(root),
            root.join("FashionMNIST/raw")
        );
        assert_eq!(DataSet::Pima.locate(root), root.join("pima"));
    }

    #[test]
    fn missing_files_are_named() {
        let directory = Directory::new("missing");
        let error = load(&directory.0, Split::Train).unwrap_err();
        assert!(
            error.to_string().contains("train-images-idx3-ubyte"),
            "{error}"
        );
        directory.write("train-images-idx3-ubyte", &images(1));
        let error = load(&directory.0, Split::Train).unwrap_err();
        assert!(matches!(
            error,
            DataError::Missing {
                split: Split::Train,
                ..
            }
        ));
        assert!(
            error.to_string().contains("train-labels-idx1-ubyte"),
            "{error}"
        );
        let nowhere = directory.0.join("nowhere");
        assert!(matches!(
            load_files(&nowhere, &nowhere),
            Err(DataError::Read { .. })
        ));
    }

    #[test]
    fn every_cut_is_refused() {
        let (images, labels) = (images(1), labels(&[7]));
        for len in 0..images.len() {
            let expected_bytes = if len < 16 { 16 } else { images.len() as u64 };
            match parse_bytes(&images[..len], &labels).unwrap_err() {
                DataError::CutShort { expected, got, .. } => {
                    assert_eq!((expected, got), (expected_bytes, len as u64));
                }
                error => panic!("{error}"),
            }
        }
        for len in 0..labels.len() {
            assert!(matches!(
                parse_bytes(&images, &labels[..len]),
                Err(DataError::CutShort { .. })
            ));
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_only_cut_short() {
        let claiming = |count: u32| {
            let mut bytes = images(1);
            bytes[4..8].copy_from_slice(&count.to_be_bytes());
            parse_bytes(&bytes, &labels(&[0])).unwrap_err()
        };
        let most = claiming(MAX_SAMPLES);
        assert!(
            matches!(most, DataError::CutShort { got: 800, .. }),
            "{most}"
        );
        for count in [MAX_SAMPLES + 1, u32::MAX] {
            let error = claiming(count);
            assert!(
                matches!(error, DataError::Many { got, .. } if got == count),
                "{error}"
            );
        }
    }

    #[test]
    fn disagreements() {
        let (good, label) = (images(1), labels(&[0]));
        // Swapped files.
        assert!(matches!(
            parse_bytes(&label, &good).unwrap_err(),
            DataError::Magic {
                expected: IMAGES_MAGIC,
                got: LABELS_MAGIC,
                ..
            }
        ));
        assert!(matches!(
            parse_bytes(&good, &good).unwrap_err(),
            DataError::Magic {
                expected: LABELS_MAGIC,
                got: IMAGES_MAGIC,
                ..
            }
        ));
        let mut wide = good.clone();
        wide[15] = 32;
        assert!(matches!(
            parse_bytes(&wide, &label).unwrap_err(),
            DataError::Size {
                rows: 28,
                columns: 32,
                ..
            }
        ));
        assert!(matches!(
            parse_bytes(&good, &labels(&[0, 1])).unwrap_err(),
            DataError::Counts {
                images: 1,
                labels: 2,
                ..
            }
        ));
        assert!(matches!(
            parse_bytes(&images(2), &labels(&[3, 10])).unwrap_err(),
            DataError::Label {
                index: 1,
                label: 10,
                ..
            }
        ));
        assert!(matches!(
            parse_bytes(&images(0), &labels(&[])).unwrap_err(),
            DataError::Empty { .. }
        ));
        let mut long = good.clone();
        long.push(0);
        assert!(matches!(
            parse_bytes(&long, &label).unwrap_err(),
            DataError::Trailing { expected: 800, .. }
        ));
    }

    #[test]
    fn damaged_gzip_never_panics_and_never_loads_other_pixels() {
        let directory = Directory::new("gzip");
        directory.write("t10k-labels-idx1-ubyte", &labels(&[5]));
        let plain = images(1);
        let expected = parse_bytes(&plain, &labels(&[5])).unwrap();
        let compressed = gz(&plain);
        let name = "t10k-images-idx3-ubyte.gz";
        for len in 0..compressed.len() {
            directory.write(name, &compressed[..len]);
            let error = load(&directory.0, Split::Test).unwrap_err();
            assert!(
                matches!(error, DataError::Gzip { .. } | DataError::CutShort { .. }),
                "{len}: {error}"
            );
        }
        for index in 0..compressed.len() {
            let mut damaged = compressed.clone();
            damaged[index] ^= 0x55;
            directory.write(name, &damaged);
            match load(&directory.0, Split::Test) {
                // Time stamp and the like.
                Ok(loaded) => assert_eq!(loaded, expected, "byte {index}"),
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
            }
        }
    }

    #[test]
    fn every_flipped_header_byte_is_an_error() {
        let (good, label) = (images(2), labels(&[1, 2]));
        for index in 0..16 {
            let mut damaged = good.clone();
            damaged[index] ^= 0x11;
            parse_bytes(&damaged, &label).unwrap_err();
        }
        for index in 0..8 {
            let mut damaged = label.clone();
            damaged[index] ^= 0x11;
            parse_bytes(&good, &damaged).unwrap_err();
        }
    }
}
