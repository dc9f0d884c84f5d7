//! A board's log: defmt frames, whose strings are in its image.

use std::io::Read;
use std::path::Path;

use defmt_decoder::{DecodeError, Table};

use super::DeviceError;

/// One line of a board's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// `error`, `warn`, `info`, `debug`, `trace`, or nothing.
    pub level: String,
    /// The board's time, in its unit.
    pub time: String,
    /// What it says.
    pub message: String,
}

/// Takes log lines as they come, in a thread of its own.
pub type LogSink = Box<dyn FnMut(LogLine) + Send>;

/// The format strings of an image's log.
pub(super) fn table(image: &Path) -> Result<Table, DeviceError> {
    let wrong = |reason: String| DeviceError::Image {
        path: image.into(),
        reason,
    };
    let elf = std::fs::read(image).map_err(|error| wrong(error.to_string()))?;
    match Table::parse(&elf) {
        Ok(Some(table)) => Ok(table),
        Ok(None) => Err(wrong("it has no log table".into())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Decodes a log until it ends.
pub(super) fn decode(table: &Table, mut port: impl Read, mut sink: LogSink) {
    let mut decoder = table.new_stream_decoder();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = port.read(&mut buffer) {
        decoder.received(buffer.get(..count).unwrap_or_default());
        loop {
            match decoder.decode() {
                Ok(frame) => sink(LogLine {
                    level: frame
                        .level()
                        .map(|level| level.as_str().into())
                        .unwrap_or_default(),
                    time: frame
                        .display_timestamp()
                        .map(|t| t.to_string())
                        .unwrap_or_default(),
                    message: frame.display_message().to_string(),
                }),
                Err(DecodeError::UnexpectedEof) => break,
                // A frame that a reset cut off; the next one is whole again.
                Err(DecodeError::Malformed) => {}
            }
        }
    }
}
