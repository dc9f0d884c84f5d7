//! Tables: CSV with a header or without, one column of labels and the rest features.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::samples::{Choice, Samples, listed, numbered, single, unusable};
use super::{DataError, Split};
use crate::files;

/// Bytes of a table, decompressed.
const MAX_BYTES: u64 = 1 << 30;

/// Names that a column of labels has.
const LABELS: [&str; 7] = [
    "label", "labels", "class", "target", "outcome", "y", "species",
];

/// What stands for a value that is not there.
const MISSING: [&str; 8] = ["", "na", "n/a", "nan", "null", "none", "?", "-"];

/// What was read of one file.
struct Rows {
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
        let rows = rows(file, choice)?;
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

fn rows(file: &Path, choice: &Choice) -> Result<Rows, DataError> {
    let read_error = |source| DataError::Read {
        file: file.into(),
        source,
    };
    let opened = files::open(file, MAX_BYTES).map_err(read_error)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let reader: Box<dyn Read> = match name.ends_with(".gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(opened).take(MAX_BYTES)),
        false => Box::new(opened),
    };
    let delimiter = if name.contains(".tsv") { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(reader);
    let mut header: Option<csv::StringRecord> = None;
    let mut columns: Option<(usize, usize)> = None;
    let mut rows = Rows {
        features: Vec::new(),
        labels: Vec::new(),
    };
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|source| {
            unusable(file, &format!("it is no CSV ({source}): write it again"))
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        // Column names, if there are any.
        if index == 0 && record.iter().all(|field| field.parse::<f32>().is_err()) {
            header = Some(record);
            continue;
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
        for (column, text) in record.iter().enumerate() {
            let named = || match header.as_ref().and_then(|header| header.get(column)) {
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
    }
    match rows.labels.is_empty() {
        true => Err(unusable(file, "it has no rows")),
        false => Ok(rows),
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
        let known = names().position(|name| LABELS.contains(&name.to_lowercase().as_str()));
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
