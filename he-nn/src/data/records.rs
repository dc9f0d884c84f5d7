//! Tables: CSV with a header or without, one column of labels and the rest features.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::samples::{Choice, Samples, listed, numbered, single, unusable};
use super::{DataError, MAX_SAMPLES, Split};
use crate::files;

/// Bytes of a table, decompressed.
const MAX_BYTES: u64 = 1 << 30;

/// Names that a column of labels has, the likeliest first.
const LABELS: [&str; 7] = [
    "label", "labels", "class", "target", "outcome", "y", "species",
];

/// What stands for a value that is not there.
const MISSING: [&str; 8] = ["", "na", "n/a", "nan", "null", "none", "?", "-"];

/// What was read of one file.
#[derive(Default)]
pub(super) struct Rows {
    features: Vec<f32>,
    labels: Vec<String>,
}

/// The table of a directory: `train.csv` and `test.csv`, or one file.
pub(super) fn in_directory(
    directory: &Path,
    split: Split,
    choice: &Choice,
) -> Result<Option<Samples>, DataError> {
    let paths = listed(directory)?;
    let named = |name: &str| {
        let fits = |path: &&PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_file()
                && [".csv", ".csv.gz"]
                    .iter()
                    .any(|end| file == format!("{name}{end}"))
        };
        paths.iter().find(fits).cloned()
    };
    match (named("train"), named("test")) {
        (Some(train), Some(test)) => {
            let files = [(train, Some(Split::Train)), (test, Some(Split::Test))];
            read(&files, split, choice).map(Some)
        }
        _ => match single(directory, &["csv", "csv.gz"])? {
            Some(file) => read(&[(file, None)], split, choice).map(Some),
            None => Ok(None),
        },
    }
}

/// Reads files, each of a split or of both; classes are those of all.
pub(super) fn read(
    files: &[(PathBuf, Option<Split>)],
    split: Split,
    choice: &Choice,
) -> Result<Samples, DataError> {
    let mut all = Vec::new();
    let mut chosen = None;
    let mut width = None;
    for (file, of) in files {
        let rows = rows(file, choice, MAX_BYTES)?;
        let count = rows.features.len() / rows.labels.len().max(1);
        if let Some(expected) = width.filter(|&width| width != count) {
            return Err(unusable(
                file,
                &format!("it has {count} features where the other split has {expected}"),
            ));
        }
        width = Some(count);
        all.extend(rows.labels.iter().cloned());
        if of.is_none_or(|of| of == split) {
            chosen = Some((file, rows));
        }
    }
    let Some((file, rows)) = chosen else {
        return Err(DataError::Nothing {
            directory: files
                .first()
                .map_or_else(PathBuf::new, |(file, _)| file.clone()),
            split,
        });
    };
    let (labels, classes) = numbered(file, &rows.labels, &all)?;
    let samples = Samples::of_features(width.unwrap_or(0), rows.features, labels, classes);
    let whole = files.iter().all(|(_, of)| of.is_none());
    match (whole, samples.len()) {
        (true, count @ ..10) => Err(unusable(
            file,
            &format!("it has {count} rows, and ten are the least that can be split"),
        )),
        (true, _) => Ok(samples.part(split)),
        (false, _) => Ok(samples),
    }
}

/// Rows of a table of at most `most` bytes, decompressed.
pub(super) fn rows(file: &Path, choice: &Choice, most: u64) -> Result<Rows, DataError> {
    if let Some(rows) = rows_below(file, choice, most, true)? {
        return Ok(rows);
    }
    let rows = rows_below(file, choice, most, false)?;
    rows.ok_or_else(|| unusable(file, "it has no rows"))
}

/// A reader that fails where there is more, instead of ending there.
struct Bounded<R> {
    reader: R,
    left: u64,
    most: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        let Some(left) = self.left.checked_sub(got as u64) else {
            return Err(io::Error::other(format!(
                "it has more than {} bytes when decompressed: use fewer rows",
                self.most
            )));
        };
        self.left = left;
        Ok(got)
    }
}

/// The rows, if what was taken for a header is one: with `guess`, also a first line with
/// numbers and the name of a column of labels may be.
fn rows_below(
    file: &Path,
    choice: &Choice,
    most: u64,
    guess: bool,
) -> Result<Option<Rows>, DataError> {
    let read_error = |source| DataError::Read {
        file: file.into(),
        source,
    };
    let opened = files::open(file, most).map_err(read_error)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let reader: Box<dyn Read> = match name.ends_with(".gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(opened)),
        false => Box::new(opened),
    };
    let reader = Bounded {
        reader,
        left: most,
        most,
    };
    let delimiter = if name.contains(".tsv") { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(reader);
    let mut header: Option<csv::StringRecord> = None;
    let mut guessed = false;
    let mut columns: Option<(usize, usize)> = None;
    let mut rows = Rows::default();
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|source| match source.is_io_error() {
            true => read_error(source.into()),
            false => unusable(file, &format!("it is no CSV ({source}): write it again")),
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        // Column names, if there are any.
        if index == 0 {
            let kind = headed(&record, choice);
            guessed = guess && kind == Headed::Mixed;
            if guessed || kind == Headed::Names {
                header = Some(record);
                continue;
            }
        }
        if rows.labels.len() == MAX_SAMPLES as usize {
            return Err(DataError::Many {
                file: file.into(),
                got: MAX_SAMPLES + 1,
                most: MAX_SAMPLES,
            });
        }
        let (label, width) = match columns {
            Some(columns) => columns,
            None => {
                let label = label_column(file, choice, header.as_ref(), record.len())?;
                *columns.insert((
                    label,
                    header.as_ref().map_or(record.len(), csv::StringRecord::len),
                ))
            }
        };
        if record.len() != width {
            return Err(unusable(
                file,
                &format!(
                    "line {line} has {} fields where others have {width}",
                    record.len()
                ),
            ));
        }
        // A header whose name is also a class, such as `y` of `y` and `n`, is a sample.
        let name = header.as_ref().and_then(|header| header.get(label));
        if guessed && name == record.get(label) && choice.label.as_deref() != name {
            return Ok(None);
        }
        cells(file, &record, label, header.as_ref(), &mut rows)?;
    }
    if rows.labels.is_empty() {
        return Err(unusable(file, "it has no rows"));
    }
    match header {
        Some(_) => Ok(Some(rows)),
        None => checked(file, rows).map(Some),
    }
}

/// The features and the label of a line.
fn cells(
    file: &Path,
    record: &csv::StringRecord,
    label: usize,
    header: Option<&csv::StringRecord>,
    rows: &mut Rows,
) -> Result<(), DataError> {
    let line = record.position().map_or(0, csv::Position::line);
    for (column, text) in record.iter().enumerate() {
        let named = || match header.and_then(|header| header.get(column)) {
            Some(name) => format!("{} ({name})", column + 1),
            None => (column + 1).to_string(),
        };
        if MISSING.contains(&text.to_lowercase().as_str()) {
            return Err(DataError::MissingValue {
                file: file.into(),
                line,
                column: named(),
            });
        }
        if column == label {
            rows.labels.push(text.to_owned());
            continue;
        }
        match text.parse::<f32>() {
            Ok(number) if number.is_finite() => rows.features.push(number),
            _ => {
                return Err(DataError::Cell {
                    file: file.into(),
                    line,
                    column: named(),
                    text: text.chars().take(40).collect(),
                });
            }
        }
    }
    Ok(())
}

/// What the first line of a table is.
#[derive(Clone, Copy, PartialEq)]
enum Headed {
    /// A header: none of its fields is a number.
    Names,
    /// Likely a header: numbers, and the name of a column of labels.
    Mixed,
    /// A sample.
    Sample,
}

fn headed(line: &csv::StringRecord, choice: &Choice) -> Headed {
    let mut names = line.iter().filter(|field| field.parse::<f32>().is_err());
    if names.clone().count() == line.len() {
        return Headed::Names;
    }
    let known = |name: &str| {
        LABELS.contains(&name.to_lowercase().as_str()) || choice.label.as_deref() == Some(name)
    };
    match names.any(known) {
        true => Headed::Mixed,
        false => Headed::Sample,
    }
}

/// Rows without a header, if the first label does not look like the name of a column.
fn checked(file: &Path, rows: Rows) -> Result<Rows, DataError> {
    let number = |text: &String| text.parse::<f32>().is_ok();
    match rows.labels.split_first() {
        Some((first, others))
            if !others.is_empty() && !number(first) && others.iter().all(number) =>
        {
            Err(unusable(
                file,
                &format!(
                    "its first line has the label {:?} where all others have numbers: if it is the name of a column, give it with --label",
                    first.chars().take(40).collect::<String>()
                ),
            ))
        }
        _ => Ok(rows),
    }
}

/// The column of the labels.
fn label_column(
    file: &Path,
    choice: &Choice,
    header: Option<&csv::StringRecord>,
    width: usize,
) -> Result<usize, DataError> {
    if width < 2 {
        return Err(unusable(
            file,
            "its rows have one field; a row has features and a label",
        ));
    }
    let names = || header.into_iter().flat_map(csv::StringRecord::iter);
    let Some(wanted) = &choice.label else {
        let known = LABELS
            .iter()
            .find_map(|known| names().position(|name| name.to_lowercase() == *known));
        return Ok(known.unwrap_or(width - 1));
    };
    if let Some(named) = names().position(|name| name == wanted) {
        return Ok(named);
    }
    let numbered = wanted.parse::<usize>().ok();
    let numbered = numbered.filter(|number| (1..=width).contains(number));
    numbered.map(|number| number - 1).ok_or_else(|| {
        let known: Vec<&str> = names().take(40).collect();
        DataError::LabelColumn {
            file: file.into(),
            wanted: wanted.clone(),
            known: match known.is_empty() {
                true => format!("numbers from 1 to {width}, as it has no header"),
                false => known.join(", "),
            },
        }
    })
}
