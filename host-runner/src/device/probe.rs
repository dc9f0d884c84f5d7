//! A board behind a debug probe: puts an image on it and reads its log.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use probe_rs::flashing::{ElfLoader, ElfOptions, download_file};
use probe_rs::probe::list::Lister;
use probe_rs::probe::{DebugProbeInfo, DebugProbeSelector};
use probe_rs::rtt::{Rtt, find_rtt_control_block_in_raw_file};
use probe_rs::{Core, Permissions, Session};

use super::DeviceError;
use super::log::{self, LogSink};

/// How long a board may take to set its log up.
const START: Duration = Duration::from_secs(5);

/// Pause between two looks at an empty log.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a probe did not do it. One sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No probe is attached, or none that was meant.
    #[error("no debug probe {}is attached: connect the board's USB port or a probe to its debug pins, and see that you may use it (udev rules of probe-rs)", wanted.as_ref().map(|wanted| format!("{wanted} ")).unwrap_or_default())]
    Absent {
        /// What was asked for.
        wanted: Option<String>,
    },
    /// Which one is meant?
    #[error("there are several debug probes: name one of {names} with --probe")]
    Several {
        /// All of them.
        names: String,
    },
    /// Not the form of a name.
    #[error("`{0}` is no debug probe: use VID:PID or VID:PID:SERIAL")]
    Name(String),
    /// The probe or the board behind it failed.
    #[error(
        "{probe} failed to {what} ({reason}): check its cable and the board's power, and try again"
    )]
    Failed {
        /// The probe.
        probe: String,
        /// What it was to do.
        what: &'static str,
        /// What probe-rs said.
        reason: String,
    },
    /// The image has no log.
    #[error(transparent)]
    Log(#[from] DeviceError),
}

/// A debug probe.
#[derive(Debug)]
pub struct Probe {
    info: DebugProbeInfo,
    name: String,
}

impl Probe {
    /// The probe of this name (`VID:PID` or `VID:PID:SERIAL`), or the only one.
    ///
    /// # Errors
    /// [`ProbeError::Name`], [`ProbeError::Absent`] or [`ProbeError::Several`].
    pub fn find(name: Option<&str>) -> Result<Self, ProbeError> {
        let selector = name
            .map(|name| {
                name.parse::<DebugProbeSelector>()
                    .map_err(|_| ProbeError::Name(name.to_owned()))
            })
            .transpose()?;
        let mut found = Lister::new().list(selector.as_ref());
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(ProbeError::Absent {
                wanted: name.map(str::to_owned),
            }),
            (Some(info), true) => Ok(Self {
                name: describe(&info),
                info,
            }),
            (Some(last), false) => {
                found.push(last);
                let names: Vec<_> = found.iter().map(describe).collect();
                Err(ProbeError::Several {
                    names: names.join(", "),
                })
            }
        }
    }

    /// Writes an image to the flash of a chip and starts it.
    ///
    /// # Errors
    /// [`ProbeError::Failed`].
    pub fn flash(&self, chip: &str, image: &Path) -> Result<Board, ProbeError> {
        let attached = self.info.open().map_err(|e| self.failed("open", &e))?;
        let mut session = attached
            .attach(chip, Permissions::default())
            .map_err(|e| self.failed("reach the board", &e))?;
        download_file(&mut session, image, ElfLoader(ElfOptions::default()))
            .map_err(|e| self.failed("write the image", &e))?;
        session
            .core(0)
            .and_then(|mut core| core.reset())
            .map_err(|e| self.failed("start the board", &e))?;
        Ok(Board {
            session,
            probe: self.name.clone(),
        })
    }

    fn failed(&self, what: &'static str, error: &dyn Error) -> ProbeError {
        failed(&self.name, what, error)
    }
}

fn failed(probe: &str, what: &'static str, error: &dyn Error) -> ProbeError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    ProbeError::Failed {
        probe: probe.to_owned(),
        what,
        // Some of probe-rs's reasons have several lines.
        reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

fn describe(info: &DebugProbeInfo) -> String {
    let id = format!("{:04x}:{:04x}", info.vendor_id, info.product_id);
    let serial = info.serial_number.as_deref().unwrap_or_default();
    match serial {
        "" => id,
        serial => format!("{id}:{serial}"),
    }
}

/// A board that runs an image.
pub struct Board {
    session: Session,
    probe: String,
}

impl Board {
    /// Reads the log until the connection to the board ends.
    ///
    /// # Errors
    /// [`ProbeError::Log`] if the image has no log, [`ProbeError::Failed`] when
    /// the connection ends.
    pub fn read_log(mut self, image: &Path, sink: LogSink) -> Result<(), ProbeError> {
        let table = log::table(image)?;
        let wrong = |reason: String| DeviceError::Image {
            path: image.to_owned(),
            reason,
        };
        let elf = std::fs::read(image).map_err(|e| wrong(e.to_string()))?;
        let block = find_rtt_control_block_in_raw_file(&elf)
            .map_err(|e| wrong(e.to_string()))?
            .ok_or_else(|| wrong("it has no RTT channel".into()))?;
        let mut core = self
            .session
            .core(0)
            .map_err(|e| failed(&self.probe, "reach the board", &e))?;
        let mut ended = None;
        let begin = Instant::now();
        let rtt = loop {
            match Rtt::attach_at(&mut core, block) {
                Ok(rtt) => break rtt,
                // The program has not come to set it up yet.
                Err(_) if begin.elapsed() < START => thread::sleep(PAUSE),
                Err(error) => return Err(failed(&self.probe, "find the log", &error)),
            }
        };
        let port = Port {
            core,
            rtt,
            ended: &mut ended,
        };
        log::decode(&table, port, sink);
        ended.map_or(Ok(()), |error| {
            Err(failed(&self.probe, "read the log", &error))
        })
    }
}

/// The log's channel, as a stream.
struct Port<'a> {
    core: Core<'a>,
    rtt: Rtt,
    /// Why it ended.
    ended: &'a mut Option<probe_rs::rtt::Error>,
}

impl Read for Port<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(channel) = self.rtt.up_channel(0) else {
                return Ok(0);
            };
            match channel.read(&mut self.core, buffer) {
                Ok(0) => thread::sleep(PAUSE),
                Ok(count) => return Ok(count),
                Err(error) => {
                    *self.ended = Some(error);
                    return Ok(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_is_none_is_one_sentence() {
        let error = Probe::find(Some("st-link")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`st-link` is no debug probe: use VID:PID or VID:PID:SERIAL"
        );
        // No such vendor exists.
        let error = Probe::find(Some("0000:0000")).unwrap_err().to_string();
        assert!(
            error.starts_with("no debug probe 0000:0000 is attached: "),
            "{error}"
        );
    }

    #[test]
    fn reasons_are_one_line() {
        let inner = io::Error::other("first\n  second");
        let error = failed(
            "1:2",
            "open",
            &ProbeError::Log(DeviceError::Absent {
                device: "x".into(),
                source: inner,
            }),
        );
        let text = error.to_string();
        assert!(
            text.starts_with("1:2 failed to open (x cannot be opened (first second)"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }
}
