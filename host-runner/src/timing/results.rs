//! Lines of results in a directory.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use attacks::leakage::Line;

use super::TimingError;

/// The file, one JSON object per line.
pub const FILE: &str = "timing.jsonl";

/// The lines of a directory; none where there is no file.
///
/// # Errors
/// [`TimingError::File`], [`TimingError::Line`].
pub fn read(directory: &Path) -> Result<Vec<Line>, TimingError> {
    let path = directory.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(TimingError::File { path, source }),
    };
    let lines = text.lines().enumerate();
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|source| TimingError::Line {
                path: path.clone(),
                line: at + 1,
                source,
            })
        })
        .collect()
}

/// Adds lines to those of a directory, which is made if it is not there. What was measured
/// before of the same is replaced; the file is exchanged as a whole.
///
/// # Errors
/// As [`read`].
pub fn keep(directory: &Path, new: &[Line]) -> Result<(), TimingError> {
    let path = directory.join(FILE);
    let failed = |source| TimingError::File {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(directory).map_err(failed)?;
    let mut all = read(directory)?;
    all.retain(|old| !new.iter().any(|line| line.is_of(old)));
    all.extend_from_slice(new);
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    for line in &all {
        let text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        writeln!(file, "{text}").map_err(failed)?;
    }
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use attacks::leakage::Verdict;

    use super::*;

    fn line(operation: &str, value: f64) -> Line {
        Line {
            experiment: "host".into(),
            operation: operation.into(),
            target: "inproc".into(),
            statistic: "welch_t".into(),
            value,
            threshold: 4.5,
            samples: 10_000,
            control: false,
            verdict: Verdict::Pass,
            details: [("clock".into(), "rdtsc".into())].into(),
        }
    }

    #[test]
    fn the_last_measurement_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        assert_eq!(read(&path).unwrap(), []);
        keep(&path, &[line("add", 1.0), line("rotate", 2.0)]).unwrap();
        keep(&path, &[line("add", 3.0)]).unwrap();
        assert_eq!(
            read(&path).unwrap(),
            [line("rotate", 2.0), line("add", 3.0)]
        );
        // As outside checks read it.
        let text = fs::read_to_string(path.join(FILE)).unwrap();
        assert!(text.starts_with(
            r#"{"experiment":"host","operation":"rotate","target":"inproc","statistic":"welch_t","value":2.0,"threshold":4.5,"samples":10000,"control":false,"verdict":"pass""#
        ), "{text}");
        fs::write(path.join(FILE), "{}\n").unwrap();
        assert!(matches!(
            read(&path),
            Err(TimingError::Line { line: 1, .. })
        ));
    }
}
