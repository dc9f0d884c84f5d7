//! Opens a device: connects to it, or builds its firmware and starts it.

use std::path::PathBuf;
use std::time::Duration;

use he_core::Params;
use he_nn::boards;
use he_nn::plan::{Target, WeightMode};
use he_nn::progress::Progress;

use super::log::LogSink;
use super::serial::Serial;
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
    /// Takes the board's log.
    pub log: LogSink,
    /// Is told that firmware is being built.
    pub progress: &'a mut dyn Progress,
}

/// A link to an evaluator.
pub type Link = Connection<Box<dyn Transport>>;

impl Opening<'_> {
    /// What a plan for the device is made for, and the link to one that runs already.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn begin(&self, device: &Device) -> Result<(Target, Option<Link>), ServiceError> {
        let transport: Box<dyn Transport> = match device {
            Device::InProcess => return Ok((Target::STREAM, None)),
            Device::Emulator { board } => {
                let known = emulated(board)?;
                return Ok((known.target(), None));
            }
            Device::Tcp { address } => Box::new(stream::connect(address)?),
            Device::Serial { path, baud } => Box::new(Serial::open(path, *baud)?),
        };
        let mut link = Connection::new(transport);
        if !matches!(device, Device::Serial { .. }) {
            return Ok((Target::STREAM, Some(link)));
        }
        // A board is planned for by its memory; what it does not say is found later.
        let board = link.hello(GREETING, |card| {
            card.map_or_else(|_| String::new(), |card| printable(card.board))
        })?;
        let target = boards::find(&board).map_or(Target::STREAM, boards::Board::target);
        Ok((target, Some(link)))
    }

    /// Builds the firmware for an emulated board and starts it.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn start(
        self,
        device: &Device,
        params: &'static Params,
        weights: WeightMode,
        trace: bool,
    ) -> Result<Link, ServiceError> {
        let Device::Emulator { board } = device else {
            return Err(DeviceError::UnknownBoard {
                board: device.to_string(),
            }
            .into());
        };
        let mut features = Vec::new();
        if weights == WeightMode::Encrypted {
            features.push("encrypted-weights");
        }
        if trace {
            features.push("trace");
        }
        let options = firmware_build::Options {
            board,
            model: self.model.as_deref(),
            params,
            features: &features,
        };
        self.progress.note("building the firmware");
        let image = firmware_build::build(&options)?;
        self.progress.finish();
        let transport: Box<dyn Transport> = Box::new(Emulator::start(board, &image, self.log)?);
        Ok(Connection::new(transport))
    }
}

/// A board that an emulator has; refused before an image is built for another.
///
/// # Errors
/// [`ServiceError::Board`], [`ServiceError::Device`].
pub fn emulated(board: &str) -> Result<&'static boards::Board, ServiceError> {
    let known = boards::find(board)?;
    match known.machine {
        Some(_) => Ok(known),
        None => Err(DeviceError::UnknownBoard {
            board: board.into(),
        }
        .into()),
    }
}
