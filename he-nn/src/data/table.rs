//! The Pima diabetes table: one row per person, eight features and an outcome, as
//! CSV without a header, or with one.
//!
//! Zeros that stand for missing values (in glucose, blood pressure, skin
//! thickness, insulin and body mass) are left as they are: the paper whose
//! figures are compared with says nothing of replacing them (Chen and Song
//! 2021).

use std::path::{Path, PathBuf};

use crate::files;
use crate::model::Sample;
use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Features of a row.
pub const FEATURES: usize = 8;

/// The seed of the split that every command takes: what a network was trained on
/// stays apart from what it is tested on.
pub const SPLIT_SEED: u64 = 1;

/// Rows and their outcomes, 0 or 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The features.
    pub rows: Vec<[f32; FEATURES]>,
    /// The outcomes.
    pub labels: Vec<u8>,
}

/// Why a table could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no such file in the directory.
    #[error("{} holds no pima-indians-diabetes.csv; put the file there", directory.display())]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The file cannot be read as CSV.
    #[error("{} is not a table of nine numbers per row ({source}); download it again", file.display())]
    Csv {
        /// Which file.
        file: PathBuf,
        /// What the reader found.
        source: csv::Error,
    },
    /// A row has another number of fields.
    #[error("line {line} of {} has {got} fields; a row has eight features and an outcome", file.display())]
    Fields {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// How many there are.
        got: usize,
    },
    /// A field is not a finite number.
    #[error("field {field} in line {line} of {} is {text:?}; it must be a number", file.display())]
    Number {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// Which field, from 1.
        field: usize,
        /// What it says.
        text: String,
    },
    /// An outcome is neither 0 nor 1.
    #[error("the outcome in line {line} of {} is {got}; it must be 0 or 1", file.display())]
    Outcome {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What it is.
        got: f32,
    },
    /// Too few rows to split.
    #[error("{} has {got} rows; ten are the least that can be split", file.display())]
    Rows {
        /// Which file.
        file: PathBuf,
        /// How many there are.
        got: usize,
    },
}

/// Bytes of a table, a million rows of them.
const MAX_BYTES: u64 = 1 << 27;

impl Table {
    /// Loads the table in a directory.
    ///
    /// # Errors
    /// [`TableError`], with the file and line that is wrong.
    pub fn load(directory: &Path) -> Result<Self, TableError> {
        let names = ["pima-indians-diabetes.csv", "diabetes.csv"];
        let files = names.map(|name| directory.join(name));
        let Some(file) = files.into_iter().find(|file| file.is_file()) else {
            return Err(TableError::Missing {
                directory: directory.into(),
            });
        };
        let csv_error = |source| TableError::Csv {
            file: file.clone(),
            source,
        };
        let opened = files::open(&file, MAX_BYTES).map_err(|error| csv_error(error.into()))?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(opened);
        let mut table = Self {
            rows: Vec::new(),
            labels: Vec::new(),
        };
        for (index, record) in reader.records().enumerate() {
            let record = record.map_err(csv_error)?;
            let line = record.position().map_or(0, csv::Position::line);
            // Column names, if there are any.
            if index == 0 && record.iter().all(|field| field.parse::<f32>().is_err()) {
                continue;
            }
            table.push(&file, line, &record)?;
        }
        let got = table.rows.len();
        if got < 10 {
            return Err(TableError::Rows { file, got });
        }
        Ok(table)
    }

    fn push(
        &mut self,
        file: &Path,
        line: u64,
        record: &csv::StringRecord,
    ) -> Result<(), TableError> {
        let mut values = [0.0f32; FEATURES + 1];
        if record.len() != values.len() {
            return Err(TableError::Fields {
                file: file.into(),
                line,
                got: record.len(),
            });
        }
        for (field, (value, text)) in values.iter_mut().zip(record).enumerate() {
            match text.parse::<f32>() {
                Ok(number) if number.is_finite() => *value = number,
                _ => {
                    return Err(TableError::Number {
                        file: file.into(),
                        line,
                        field: field + 1,
                        text: text.into(),
                    });
                }
            }
        }
        let [features @ .., outcome] = values;
        if outcome != 0.0 && outcome != 1.0 {
            return Err(TableError::Outcome {
                file: file.into(),
                line,
                got: outcome,
            });
        }
        self.rows.push(features);
        self.labels.push(u8::from(outcome == 1.0));
        Ok(())
    }

    /// The rows with their outcomes.
    pub fn samples(&self) -> impl Iterator<Item = (Sample<'_>, u8)> {
        let rows = self.rows.iter().map(|row| Sample::Features(row));
        rows.zip(self.labels.iter().copied())
    }

    /// The rows in an order drawn from `seed`, seven tenths for training and the
    /// rest for testing.
    #[must_use]
    pub fn split(&self, seed: u64) -> (Self, Self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(seed));
        let train = (self.rows.len() * 7 + 5) / 10;
        let part = |indices: &[usize]| Self {
            rows: indices.iter().map(|&i| self.rows[i]).collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        };
        (part(&order[..train]), part(&order[train..]))
    }

    /// Mean and standard deviation of every feature; the deviation of one that
    /// does not vary counts as 1.
    #[must_use]
    pub fn standard(&self) -> ([f32; FEATURES], [f32; FEATURES]) {
        let count = self.rows.len().max(1) as f64;
        let mean = |feature: usize| {
            let sum: f64 = self.rows.iter().map(|row| f64::from(row[feature])).sum();
            sum / count
        };
        let deviation = |feature: usize| {
            let mean = mean(feature);
            let squares = self
                .rows
                .iter()
                .map(|row| (f64::from(row[feature]) - mean).powi(2));
            let deviation = (squares.sum::<f64>() / count).sqrt() as f32;
            if deviation > 0.0 { deviation } else { 1.0 }
        };
        (
            std::array::from_fn(|feature| mean(feature) as f32),
            std::array::from_fn(deviation),
        )
    }
}

/// Fisher and Yates. The bias of the multiplication is below 2^-15 for any
/// data set that fits in memory.
pub(crate) fn shuffle(order: &mut [usize], rng: &mut ChaCha8Rng) {
    for last in (1..order.len()).rev() {
        let random = u64::from(rng.next_u32());
        order.swap(last, ((random * (last as u64 + 1)) >> 32) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Table, TableError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("diabetes.csv"), text).unwrap();
        Table::load(directory.path())
    }

    fn rows(count: usize) -> String {
        let row = |i: usize| format!("{i},{},72,35,0,33.6,0.627,50,{}\n", 100 + i % 7, i % 2);
        (0..count).map(row).collect()
    }

    #[test]
    fn a_table_with_and_without_a_header() {
        let plain = load(&rows(12)).unwrap();
        assert_eq!(
            plain.rows[3],
            [3.0, 103.0, 72.0, 35.0, 0.0, 33.6, 0.627, 50.0]
        );
        assert_eq!(plain.labels, [0, 1].repeat(6));
        let headed = format!("a,b,c,d,e,f,g,h,outcome\r\n{}", rows(12));
        assert_eq!(load(&headed).unwrap(), plain);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            (rows(9), "9 rows"),
            (String::new(), "0 rows"),
            (rows(12).replace("3,103,", "3,many,"), "line 4"),
            (rows(12).replace("3,103,", "3,NaN,"), "\"NaN\""),
            (rows(12).replace("3,103,", "3,"), "8 fields"),
            (
                rows(12).replace(",50,1\n", ",50,2\n"),
                "is 2; it must be 0 or 1",
            ),
        ] {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let error = Table::load(directory.path()).unwrap_err();
        assert!(matches!(error, TableError::Missing { .. }), "{error}");
    }

    #[test]
    fn the_split_is_of_seven_to_three_and_loses_no_row() {
        let table = load(&rows(768)).unwrap();
        let (train, test) = table.split(1);
        assert_eq!((train.rows.len(), test.rows.len()), (538, 230));
        let mut all: Vec<f32> = train.rows.iter().chain(&test.rows).map(|r| r[0]).collect();
        all.sort_unstable_by(f32::total_cmp);
        assert!(all.into_iter().eq((0..768u16).map(f32::from)));
        assert_eq!(table.split(1), (train.clone(), test));
        assert_ne!(table.split(2).0, train);
        let (means, deviations) = table.standard();
        assert!((means[0] - 383.5).abs() < 1e-3 && (deviations[0] - 221.70).abs() < 0.01);
        assert_eq!(deviations[2], 1.0);
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut order: Vec<usize> = (0..100).collect();
        shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(9));
        assert!(order.iter().enumerate().filter(|&(i, &at)| i == at).count() < 10);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..100));
    }
}
