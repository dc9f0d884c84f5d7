//! Where the evaluator runs, and the bytes to and from it.
//!
//! | module | holds |
//! |---|---|
//! | here | [`Device`]: what `--device` names; [`Transport`]: bytes with time limits |
//! | [`connection`] | [`Connection`]: requests and replies over a transport |
//! | [`server`] | the evaluator's end of a transport on a host |
//! | [`mod@duplex`] | a transport within the process |
//! | [`stream`] | sockets |
//! | [`shaped`] | a transport held to the rate of a serial line |
//! | [`serial`] | serial ports and pseudo terminals |
//! | [`emulator`] | QEMU with the firmware in it |
//! | [`log`] | what a board says on the side |
//! | [`firmware_build`] | builds the image for a board |
//! | [`opening`] | connects to a device, or builds its firmware and starts it |
//! | `probe` | puts it on the board by a debug probe (feature `flash`) |

pub mod connection;
pub mod duplex;
#[cfg(unix)]
pub mod emulator;
pub mod firmware_build;
pub mod log;
pub mod opening;
#[cfg(feature = "flash")]
pub mod probe;
pub mod serial;
pub mod server;
pub mod shaped;
pub mod stream;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use he_nn::link::LinkError;

pub use connection::{Connection, Direction, Traffic};
pub use duplex::{Duplex, duplex};
pub use he_nn::boards::DEFAULT_BOARD;
pub use opening::{Begun, Link, Opening, Reach};
pub use server::serve;

/// Rate of a serial port where none is given.
pub const DEFAULT_BAUD: u32 = 115_200;

/// Where an evaluator runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// In this process.
    InProcess,
    /// In an emulator that is built for and started.
    Emulator {
        /// The board to emulate.
        board: String,
    },
    /// Behind a TCP connection.
    Tcp {
        /// Host and port.
        address: String,
    },
    /// The evaluators of a fleet, behind a NATS server.
    Nats {
        /// Its address, `nats://HOST:PORT` or `HOST:PORT`.
        url: String,
    },
    /// At the end of a serial line or a pseudo terminal.
    Serial {
        /// The port's path, or its name on Windows.
        path: String,
        /// Bits per second.
        baud: u32,
    },
}

/// A device name that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a device: use inproc, qemu, qemu:BOARD, tcp:HOST:PORT, nats:HOST:PORT or the path of a serial port \
     (with its rate as PATH@BAUD if that is not 115200)"
)]
pub struct DeviceNameError(String);

impl FromStr for Device {
    type Err = DeviceNameError;

    fn from_str(name: &str) -> Result<Self, DeviceNameError> {
        let wrong = || DeviceNameError(name.into());
        if name == "inproc" {
            return Ok(Self::InProcess);
        }
        if name == "qemu" {
            return Ok(Self::Emulator {
                board: DEFAULT_BOARD.into(),
            });
        }
        if let Some(board) = name.strip_prefix("qemu:") {
            let known = |c: char| c.is_ascii_alphanumeric() || c == '-';
            return match !board.is_empty() && board.chars().all(known) {
                true => Ok(Self::Emulator {
                    board: board.into(),
                }),
                false => Err(wrong()),
            };
        }
        if let Some(address) = name.strip_prefix("tcp:") {
            let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
            return match !host.is_empty() && port.parse::<u16>().is_ok() {
                true => Ok(Self::Tcp {
                    address: address.into(),
                }),
                false => Err(wrong()),
            };
        }
        if let Some(url) = name.strip_prefix("nats:") {
            // `nats://HOST:PORT` is a name, too.
            let url = match url.starts_with("//") {
                true => name,
                false => url,
            };
            return match is_nats_url(url) {
                true => Ok(Self::Nats { url: url.into() }),
                false => Err(wrong()),
            };
        }
        if name.contains('/') || name.starts_with("COM") {
            let (path, baud) = match name.rsplit_once('@') {
                Some((path, baud)) => (path, baud.parse().map_err(|_| wrong())?),
                None => (name, DEFAULT_BAUD),
            };
            return match baud {
                0 => Err(wrong()),
                _ => Ok(Self::Serial {
                    path: path.into(),
                    baud,
                }),
            };
        }
        Err(wrong())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProcess => f.write_str("inproc"),
            Self::Emulator { board } => write!(f, "qemu:{board}"),
            Self::Tcp { address } => write!(f, "tcp:{address}"),
            Self::Nats { url } => write!(f, "nats:{url}"),
            Self::Serial {
                path,
                baud: DEFAULT_BAUD,
            } => f.write_str(path),
            Self::Serial { path, baud } => write!(f, "{path}@{baud}"),
        }
    }
}

/// Whether it is the address of a NATS server, `nats://HOST:PORT` or `HOST:PORT`. One with
/// a user and a password is none: it would stand in reports and ledgers.
#[must_use]
pub fn is_nats_url(url: &str) -> bool {
    let address = url.strip_prefix("nats://").unwrap_or(url);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    match address.rsplit_once(':') {
        Some((host, port)) => {
            !host.is_empty() && address.chars().all(is_plain) && port.parse::<u16>().is_ok()
        }
        None => false,
    }
}

/// A time for a sentence: seconds, three digits of them at most.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            0.0..0.1 => write!(f, "{} ms", (1e3 * seconds).round()),
            0.1..10.0 => write!(f, "{} s", (10.0 * seconds).round() / 10.0),
            _ => write!(f, "{} s", seconds.round()),
        }
    }
}

/// Why a device could not be used. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The port does not exist or cannot be opened.
    #[error(
        "{device} cannot be opened ({source}): {}",
        advice(source, "check that it is connected and yours to use")
    )]
    Absent {
        /// Its name.
        device: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A port without a server.
    #[error(
        "nobody listens at tcp:{address}: start an evaluator there, with `he-edge serve --listen {address}`"
    )]
    NobodyListens {
        /// Host and port.
        address: String,
    },
    /// Nothing came in time.
    #[error("{device} did not answer within {}: check that it runs the evaluator, or reset it", Seconds(*timeout))]
    Timeout {
        /// Its name.
        device: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The other end is gone.
    #[error("{device} closed the connection{detail}: start it again")]
    Closed {
        /// Its name.
        device: String,
        /// What it said last, in parentheses, or nothing.
        detail: String,
    },
    /// Reading or writing failed.
    #[error("{device} failed while transferring ({source}): check the cable and connect it again")]
    Transfer {
        /// Its name.
        device: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A frame arrived that is none.
    #[error(
        "{device} sent what is no reply, {source}: check the line, and that both sides are of the same version"
    )]
    Link {
        /// Its name.
        device: String,
        /// What is wrong with the frame.
        source: LinkError,
    },
    /// Frames came, and none of them whole.
    #[error(
        "{device} sent {frames} damaged frames within {} and none that was whole: check the line, its rate and the cable",
        Seconds(*timeout)
    )]
    Damaged {
        /// Its name.
        device: String,
        /// How many came.
        frames: u32,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The process is to end.
    #[error("interrupted while {device} was at work: run again")]
    Interrupted {
        /// Its name.
        device: String,
    },
    /// The emulator is not installed.
    #[error(
        "{program} is not installed: install it with `apt install {package}` or your system's equivalent"
    )]
    EmulatorMissing {
        /// The program that was to be started.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The emulator started and ended.
    #[error(
        "the emulator for {board} ended at once ({reason}): check that it is version 6 or later and knows this board"
    )]
    EmulatorEnded {
        /// The emulated board.
        board: String,
        /// Its last words.
        reason: String,
    },
    /// No emulator has this board.
    #[error(
        "no emulator has the board {board}: use one of {}",
        he_nn::boards::emulated()
    )]
    UnknownBoard {
        /// The name that was given.
        board: String,
    },
    /// The directory of temporary files has too long a name.
    #[error(
        "the path {} is too long for a local socket: name a shorter directory in TMPDIR", path.display()
    )]
    TemporaryPath {
        /// The path.
        path: PathBuf,
    },
    /// The image for the log cannot be read.
    #[error("{} cannot be read as a firmware image ({reason}): build it again", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl DeviceError {
    /// Whether the link or the device failed for now: it may work when it is tried again.
    #[must_use]
    pub const fn is_of_link(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Damaged { .. }) || self.is_of_absence()
    }

    /// Whether the device has to be opened again.
    #[must_use]
    pub const fn is_of_absence(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. }
                | Self::NobodyListens { .. }
                | Self::Timeout { .. }
                | Self::Closed { .. }
                | Self::Transfer { .. }
                | Self::EmulatorEnded { .. }
        )
    }
}

/// What to do about what the system said: usually `otherwise`; where it has no more open
/// files to give, that has nothing to do with what was to be opened.
pub(crate) fn advice(said: &std::io::Error, otherwise: &'static str) -> &'static str {
    /// ENFILE and EMFILE, the same on every Unix.
    const NO_MORE: [i32; 2] = [23, 24];
    match said.raw_os_error() {
        Some(code) if cfg!(unix) && NO_MORE.contains(&code) => {
            "allow this process more open files, with `ulimit -n`"
        }
        _ => otherwise,
    }
}

/// Bytes to and from a device. A transport knows nothing of frames.
pub trait Transport: Send {
    /// Sends all bytes.
    ///
    /// # Errors
    /// [`DeviceError::Closed`], [`DeviceError::Timeout`] or
    /// [`DeviceError::Transfer`].
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Waits for bytes and takes what has come, at least one. `None` waits
    /// without a limit.
    ///
    /// # Errors
    /// [`DeviceError::Closed`], [`DeviceError::Timeout`] or
    /// [`DeviceError::Transfer`].
    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError>;

    /// What to call it in a sentence.
    fn name(&self) -> String;
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        (**self).send(bytes)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        (**self).receive(buffer, timeout)
    }

    fn name(&self) -> String {
        (**self).name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        let board = |name: &str| Device::Emulator { board: name.into() };
        let serial = |path: &str, baud| Device::Serial {
            path: path.into(),
            baud,
        };
        for (name, device) in [
            ("inproc", Device::InProcess),
            ("qemu", board("mps2-an386")),
            ("qemu:mps2-an500", board("mps2-an500")),
            (
                "tcp:localhost:4000",
                Device::Tcp {
                    address: "localhost:4000".into(),
                },
            ),
            (
                "tcp:[::1]:4000",
                Device::Tcp {
                    address: "[::1]:4000".into(),
                },
            ),
            (
                "nats:localhost:4222",
                Device::Nats {
                    url: "localhost:4222".into(),
                },
            ),
            (
                "nats://localhost:4222",
                Device::Nats {
                    url: "nats://localhost:4222".into(),
                },
            ),
            ("/dev/ttyACM0", serial("/dev/ttyACM0", 115_200)),
            ("/dev/ttyACM0@921600", serial("/dev/ttyACM0", 921_600)),
            ("COM3", serial("COM3", 115_200)),
        ] {
            assert_eq!(name.parse::<Device>(), Ok(device.clone()));
            assert_eq!(device.to_string().parse::<Device>(), Ok(device));
        }
        for name in [
            "",
            "qemu:",
            "qemu:a/b",
            "tcp:",
            "tcp::1",
            "tcp:host",
            "tcp:h:99999",
            "nats:",
            "nats:host",
            "nats://user:secret@host:4222",
            "nats:tls://host:4222",
            "ttyACM0",
            "/dev/x@y",
            "/dev/x@0",
        ] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{name}` is not a device: use inproc")),
                "{error}"
            );
        }
    }
}
