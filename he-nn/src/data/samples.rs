//! Labelled samples of any shape, from whatever a path holds.
//!
//! [`Samples::open`] looks into a directory, a tar or a file and reads what it finds: IDX
//! files, tables, arrays, images in folders by class, or CIFAR's binary files. The model
//! says what it takes ([`Form`]), the data what was found, and what does not fit is one
//! sentence with both.

use std::path::{Path, PathBuf};

use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;

use super::table::{SPLIT_SEED, shuffle};
use super::{DataError, Dataset, Form, MAX_CLASSES, SIDE, Split, arrays, idx, pictures, records};
use crate::model::{Sample, Shape};

/// What to look for where a path leaves a choice.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The column of a table that holds the labels, by its name or its number from 1; one
    /// that is called so, or the last one, if left out.
    pub label: Option<String>,
}

/// Values of samples, one after the other.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    Pixels(Vec<u8>),
    Features(Vec<f32>),
}

/// Samples of one form with their labels, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    form: Form,
    values: Values,
    labels: Vec<u8>,
    /// What the labels stand for; empty where they are numbers from 0.
    classes: Vec<String>,
}

impl Samples {
    /// Images of a shape, all channels of one after the other, row by row.
    pub(super) const fn of_pixels(
        shape: Shape,
        pixels: Vec<u8>,
        labels: Vec<u8>,
        classes: Vec<String>,
    ) -> Self {
        Self {
            form: Form::Image(shape),
            values: Values::Pixels(pixels),
            labels,
            classes,
        }
    }

    /// Rows of features.
    pub(super) const fn of_features(
        count: usize,
        features: Vec<f32>,
        labels: Vec<u8>,
        classes: Vec<String>,
    ) -> Self {
        Self {
            form: Form::Features(count),
            values: Values::Features(features),
            labels,
            classes,
        }
    }

    /// Reads one split of what a path holds: a directory, a tar or a file. What has no
    /// splits of its own is split by [`SPLIT_SEED`], seven tenths for training.
    ///
    /// # Errors
    ///
    /// [`DataError`], with the file that is missing or wrong.
    pub fn open(path: &Path, split: Split, choice: &Choice) -> Result<Self, DataError> {
        if path.is_file() {
            return Self::of_file(path, split, choice);
        }
        check_directory(path)?;
        if let Some((images, labels)) = idx::files(path, split)? {
            return idx::read(&images, &labels);
        }
        if let Some(samples) = records::in_directory(path, split, choice)? {
            return Ok(samples);
        }
        if let Some(samples) = arrays::in_directory(path, split)? {
            return Ok(samples);
        }
        if let Some(samples) = pictures::in_directory(path, split)? {
            return Ok(samples);
        }
        match single(path, &["tar", "tar.gz", "tgz"])? {
            Some(tar) => Self::of_file(&tar, split, choice),
            None => Err(DataError::Nothing {
                directory: path.into(),
                split,
            }),
        }
    }

    fn of_file(file: &Path, split: Split, choice: &Choice) -> Result<Self, DataError> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".csv", ".csv.gz", ".tsv", ".data"]) {
            records::read(&[(file.into(), None)], split, choice)
        } else if ends(&[".npz"]) {
            arrays::of_archive(file, split)
        } else if ends(&[".tar", ".tar.gz", ".tgz"]) {
            pictures::of_tar(file, split)
        } else if ends(&[".parquet"]) {
            Err(unusable(
                file,
                "Parquet is not read, as its reader would be larger than all others together: write it as CSV, with pandas read_parquet and to_csv",
            ))
        } else {
            Err(unusable(
                file,
                "its name ends with none of .csv, .csv.gz, .npz, .tar and .tar.gz: name one of these, or a directory",
            ))
        }
    }

    /// The form of every sample.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }

    /// What the labels stand for; empty where they are numbers from 0.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How many samples there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none, which there never are.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The same samples, if they are what a model takes.
    ///
    /// # Errors
    /// [`DataError::Form`], with both forms.
    pub fn fitting(self, wanted: Form, path: &Path) -> Result<Self, DataError> {
        if self.form == wanted {
            return Ok(self);
        }
        Err(DataError::Form {
            path: path.into(),
            found: self.form,
            wanted,
        })
    }

    /// The samples with their labels.
    #[must_use]
    pub fn all(&self) -> Vec<(Sample<'_>, u8)> {
        let labels = self.labels.iter().copied();
        let size = self.form.values().max(1);
        match &self.values {
            Values::Pixels(pixels) => {
                let samples = pixels.chunks_exact(size).map(Sample::Pixels);
                samples.zip(labels).collect()
            }
            Values::Features(features) => {
                let samples = features.chunks_exact(size).map(Sample::Features);
                samples.zip(labels).collect()
            }
        }
    }

    /// Mean and standard deviation of every value (features, or pixels); the deviation of
    /// one that does not vary counts as 1.
    #[must_use]
    pub fn standard(&self) -> (Vec<f32>, Vec<f32>) {
        let size = self.form.values();
        let count = self.len().max(1) as f64;
        let mut sums = vec![0.0f64; size];
        self.each(|feature, x| sums[feature] += x);
        let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let mut squares = vec![0.0f64; size];
        self.each(|feature, x| squares[feature] += (x - means[feature]).powi(2));
        let deviation = |sum: &f64| {
            let deviation = (sum / count).sqrt() as f32;
            if deviation > 0.0 { deviation } else { 1.0 }
        };
        let means = means.iter().map(|&mean| mean as f32).collect();
        (means, squares.iter().map(deviation).collect())
    }

    fn each(&self, mut f: impl FnMut(usize, f64)) {
        let size = self.form.values().max(1);
        match &self.values {
            Values::Pixels(pixels) => {
                (0..)
                    .zip(pixels)
                    .for_each(|(i, &p)| f(i % size, f64::from(p)));
            }
            Values::Features(features) => {
                (0..)
                    .zip(features)
                    .for_each(|(i, &x)| f(i % size, f64::from(x)));
            }
        }
    }

    /// One part of samples that have no splits of their own.
    pub(super) fn part(&self, split: Split) -> Self {
        let order = part_of(self.len(), split);
        let size = self.form.values();
        let values = match &self.values {
            Values::Pixels(all) => Values::Pixels(
                order
                    .iter()
                    .flat_map(|i| &all[i * size..][..size])
                    .copied()
                    .collect(),
            ),
            Values::Features(all) => Values::Features(
                order
                    .iter()
                    .flat_map(|i| &all[i * size..][..size])
                    .copied()
                    .collect(),
            ),
        };
        Self {
            form: self.form,
            values,
            labels: order.iter().map(|&i| self.labels[i]).collect(),
            classes: self.classes.clone(),
        }
    }
}

impl From<Dataset> for Samples {
    fn from(data: Dataset) -> Self {
        let shape = Shape {
            channels: 1,
            height: SIDE as u16,
            width: SIDE as u16,
        };
        let pixels = data.images.as_flattened().to_vec();
        Self::of_pixels(shape, pixels, data.labels, Vec::new())
    }
}

/// The samples of a part, of so many that have no splits: in an order drawn from
/// [`SPLIT_SEED`], seven tenths for training.
pub(super) fn part_of(count: usize, split: Split) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(SPLIT_SEED));
    let train = (count * 7 + 5) / 10;
    match split {
        Split::Train => order[..train].to_vec(),
        Split::Test => order[train..].to_vec(),
    }
}

/// Up to this every whole number has an `f64` of its own.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The number of every label among the different ones, which are in ascending order, as
/// numbers if all are: the order of scikit-learn's classes. Spellings of one number, `1`
/// and `1.0`, are one class.
pub(super) fn numbered(
    file: &Path,
    labels: &[String],
    all: &[String],
) -> Result<(Vec<u8>, Vec<String>), DataError> {
    let number = |text: &String| text.parse::<f64>().ok();
    let numbers: Option<Vec<f64>> = all.iter().map(number).collect();
    if let Some(at) = numbers
        .as_ref()
        .and_then(|numbers| numbers.iter().position(|number| !number.is_finite()))
    {
        return Err(unusable(
            file,
            &format!(
                "its labels are numbers, and one is {:?}: leave out samples without a label",
                all[at].chars().take(40).collect::<String>()
            ),
        ));
    }
    let one_spelling = |text: &String| match number(text) {
        // The sum makes a zero of a negative one.
        Some(number) if numbers.is_some() && number.abs() <= MAX_WHOLE => {
            (number + 0.0).to_string()
        }
        _ => text.clone(),
    };
    let mut classes: Vec<String> = all.iter().map(one_spelling).collect();
    match numbers {
        Some(_) => classes.sort_by(|a, b| {
            let of = |text| number(text).unwrap_or(0.0);
            of(a).total_cmp(&of(b)).then_with(|| a.cmp(b))
        }),
        None => classes.sort_unstable(),
    }
    classes.dedup();
    if classes.len() > MAX_CLASSES {
        return Err(DataError::Classes {
            file: file.into(),
            got: classes.len(),
        });
    }
    let position = |label: &String| {
        let label = one_spelling(label);
        classes.iter().position(|class| *class == label)
    };
    let labels = labels
        .iter()
        .map(|label| position(label).unwrap_or(0) as u8);
    let labels = labels.collect();
    let plain = (0..)
        .zip(&classes)
        .all(|(i, class): (usize, _)| *class == i.to_string());
    Ok((labels, if plain { Vec::new() } else { classes }))
}

/// The one file of a directory with one of these endings; `None` where there is none.
pub(super) fn single(directory: &Path, endings: &[&str]) -> Result<Option<PathBuf>, DataError> {
    let mut found: Vec<PathBuf> = listed(directory)?
        .into_iter()
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            path.is_file()
                && endings
                    .iter()
                    .any(|ending| name.ends_with(&format!(".{ending}")))
        })
        .collect();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        count => Err(unusable(
            directory,
            &format!(
                "it holds {count} files that end with .{}: name the file itself, or call them train and test",
                endings[0]
            ),
        )),
    }
}

/// What a directory holds, by name.
pub(super) fn listed(directory: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Directory {
        directory: directory.into(),
        source,
    };
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(failed)?;
    paths.sort_unstable();
    Ok(paths)
}

fn check_directory(directory: &Path) -> Result<(), DataError> {
    // One that cannot be read does not look empty.
    match std::fs::read_dir(directory) {
        Ok(_) => Ok(()),
        Err(source) => Err(DataError::Directory {
            directory: directory.into(),
            source,
        }),
    }
}

pub(super) fn unusable(file: &Path, reason: &str) -> DataError {
    DataError::Unusable {
        file: file.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
