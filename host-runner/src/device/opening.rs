//! Opens a device: connects to it, or builds its firmware and starts it.

use std::path::PathBuf;
use std::time::Duration;

use he_core::Params;
use he_nn::boards::{self, Board};
use he_nn::plan::{Sums, Target, Terms, WeightMode};
use he_nn::progress::Progress;

use super::log::LogSink;
use super::serial::Serial;
use super::shaped::Shaped;
use super::{Connection, Device, DeviceError, Transport, firmware_build, stream};
use crate::client::printable;
use crate::device::emulator::Emulator;
use crate::service::ServiceError;

/// How long a board may take to say which it is.
const GREETING: Duration = Duration::from_secs(10);

/// What opening a device takes.
pub struct Opening<'a> {
    /// The model file that firmware is built with, `None` for the one that it takes by
    /// itself.
    pub model: Option<PathBuf>,
    /// Makes what takes the board's log, each time that it starts.
    pub log: fn() -> LogSink,
    /// Bits per second that an emulated board, or a server, is held to.
    pub line_rate: Option<u32>,
    /// Is told that firmware is being built.
    pub progress: &'a mut dyn Progress,
}

/// What is known of a device before a plan is made for it.
#[derive(Debug)]
pub struct Begun {
    /// What a plan is made for.
    pub target: Target,
    /// The board, where there is one that is known.
    pub board: Option<&'static Board>,
    /// Fingerprint of the plan that it holds already.
    pub plan: Option<u32>,
    /// The link to one that runs already.
    pub link: Option<Link>,
}

/// A link to an evaluator.
pub type Link = Connection<Box<dyn Transport>>;

impl Opening<'_> {
    /// What a plan for the device is made for, and the link to one that runs already.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn begin(&self, device: &Device) -> Result<Begun, ServiceError> {
        let unknown = Begun {
            target: Target::STREAM,
            board: None,
            plan: None,
            link: None,
        };
        match device {
            Device::InProcess | Device::Nats { .. } => return Ok(unknown),
            Device::Emulator { board } => {
                let board = emulated(board)?;
                return Ok(Begun {
                    target: board.target(),
                    board: Some(board),
                    ..unknown
                });
            }
            Device::Tcp { .. } | Device::Serial { .. } => {}
        }
        let mut link = self.reach(device, None).open()?;
        if !matches!(device, Device::Serial { .. }) {
            return Ok(Begun {
                link: Some(link),
                ..unknown
            });
        }
        // A board is planned for by its memory; what it does not say is found later.
        let card = link.hello(GREETING, |card| {
            card.map(|card| (printable(card.board), card.plan)).ok()
        })?;
        let board = card.as_ref().and_then(|(name, _)| boards::find(name).ok());
        Ok(Begun {
            target: board.map_or(Target::STREAM, Board::target),
            board,
            plan: card.map(|(_, plan)| plan),
            link: Some(link),
        })
    }

    /// How a device is reached, an emulated one with an image in it.
    #[must_use]
    pub fn reach(&self, device: &Device, image: Option<PathBuf>) -> Reach {
        Reach {
            device: device.clone(),
            image,
            log: self.log,
            line_rate: self.line_rate,
        }
    }

    /// Builds the firmware for an emulated board, with its tracer, and with padding.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn build(
        &mut self,
        device: &Device,
        params: &'static Params,
        terms: Terms,
        (trace, padded): (bool, bool),
    ) -> Result<PathBuf, ServiceError> {
        let Device::Emulator { board } = device else {
            return Err(DeviceError::UnknownBoard {
                board: device.to_string(),
            }
            .into());
        };
        let mut features = Vec::new();
        if terms.weights == WeightMode::Encrypted {
            features.push("encrypted-weights");
        }
        if terms.sums == Sums::Evaluator {
            features.push("evaluator-sums");
        }
        if trace {
            features.push("trace");
        }
        if padded {
            features.push("padding");
        }
        let options = firmware_build::Options {
            board,
            model: self.model.as_deref(),
            params,
            features: &features,
            inputs: terms.inputs,
        };
        self.progress.note("building the firmware");
        let image = firmware_build::build(&options)?;
        self.progress.finish();
        Ok(image)
    }
}

/// How a device is reached: what opening it again takes.
#[derive(Clone, Debug)]
pub struct Reach {
    device: Device,
    image: Option<PathBuf>,
    log: fn() -> LogSink,
    line_rate: Option<u32>,
}

impl Reach {
    /// Connects to the device, or starts it.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn open(&self) -> Result<Link, DeviceError> {
        let transport: Box<dyn Transport> = match (&self.device, &self.image) {
            (Device::Tcp { address }, _) => Box::new(stream::connect(address)?),
            (Device::Serial { path, baud }, _) => Box::new(Serial::open(path, *baud)?),
            (Device::Emulator { board }, Some(image)) => {
                Box::new(Emulator::start(board, image, (self.log)())?)
            }
            // A fleet has no line.
            (Device::InProcess | Device::Emulator { .. } | Device::Nats { .. }, _) => {
                return Err(DeviceError::UnknownBoard {
                    board: self.device.to_string(),
                });
            }
        };
        Ok(Connection::new(match self.line_rate {
            Some(baud) => Box::new(Shaped::new(transport, baud)),
            None => transport,
        }))
    }
}

/// A board that an emulator has; refused before an image is built for another.
///
/// # Errors
/// [`ServiceError::Board`], [`ServiceError::Device`].
pub fn emulated(board: &str) -> Result<&'static Board, ServiceError> {
    let known = boards::find(board)?;
    match known.machine {
        Some(_) => Ok(known),
        None => Err(DeviceError::UnknownBoard {
            board: board.into(),
        }
        .into()),
    }
}
