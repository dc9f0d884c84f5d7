//! `he-edge devices`: what `--device` can name on this machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use he_nn::boards::{self, BOARDS};
use serde::Serialize;
use serialport::{SerialPortInfo, SerialPortType};

use super::output;
use super::{Failure, check_outputs};
use crate::client::printable;
use crate::device::serial::Serial;
use crate::device::{Connection, DEFAULT_BAUD};
use crate::report::text::table;

/// How long a port may take to greet.
const GREETING: Duration = Duration::from_secs(3);

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub struct DevicesArguments {
    /// Open every serial port, at 115,200 baud, and ask for the evaluator's card. Some
    /// boards restart when their port is opened, so it is not done unasked.
    #[arg(long)]
    pub ask: bool,
    /// Write the list as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Something that `--device` can name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What `--device` takes.
    pub device: String,
    /// `process`, `emulator` or `serial`.
    pub kind: &'static str,
    /// The board, as far as it is known.
    pub board: Option<String>,
    /// What else is known of it.
    pub about: String,
}

/// Runs `devices`.
///
/// # Errors
/// [`Failure::Ports`], [`Failure::Write`].
pub fn run(arguments: &DevicesArguments) -> Result<(), Failure> {
    check_outputs(&[arguments.json.as_deref()], &[])?;
    let mut found = vec![Found {
        device: "inproc".into(),
        kind: "process",
        board: None,
        about: "the evaluator in this process".into(),
    }];
    let emulator = emulator().unwrap_or_else(|| "its emulator is not installed".to_owned());
    let emulated = BOARDS.iter().filter(|board| board.machine.is_some());
    found.extend(emulated.map(|board| Found {
        device: format!("qemu:{}", board.name),
        kind: "emulator",
        board: Some(board.name.into()),
        about: format!("{}, {emulator}", board.core),
    }));
    let ports = serialport::available_ports().map_err(Failure::Ports)?;
    found.extend(ports.iter().map(|port| serial(port, arguments.ask)));
    output::present(arguments.json.as_deref(), &found, || {
        let row = |found: &Found| {
            [
                found.device.clone(),
                found.board.clone().unwrap_or_default(),
                found.about.clone(),
            ]
        };
        let rows: Vec<[String; 3]> = found.iter().map(row).collect();
        table(["--device", "board", "is"], &rows)
    })
}

/// The emulator's version, where it is installed and can be used.
fn emulator() -> Option<String> {
    #[cfg(unix)]
    let version = crate::device::emulator::version();
    #[cfg(not(unix))]
    let version = None;
    version
}

/// A port, and the board behind it as far as its USB identity or its own card tells.
fn serial(port: &SerialPortInfo, ask: bool) -> Found {
    let (mut board, mut about) = match &port.port_type {
        SerialPortType::UsbPort(usb) => {
            let said = usb.product.as_deref().map(printable);
            let ids = format!("USB {:04x}:{:04x}", usb.vid, usb.pid);
            let about = match said {
                Some(product) => format!("{product}, {ids}"),
                None => ids,
            };
            (of_probe(usb.vid), about)
        }
        SerialPortType::PciPort => (None, "a serial port on the PCI bus".into()),
        SerialPortType::BluetoothPort => (None, "a serial port over Bluetooth".into()),
        SerialPortType::Unknown => (None, "a serial port".into()),
    };
    if ask {
        match card(&port.port_name) {
            Ok(name) => {
                about.push_str(", runs the evaluator");
                board = Some(name);
            }
            Err(why) => about.push_str(&format!(", {why}")),
        }
    }
    Found {
        device: port.port_name.clone(),
        kind: "serial",
        board,
        about,
    }
}

/// The board whose debug probe this vendor makes: SEGGER's is on Nordic's kits, ST's on
/// the Nucleos, and Raspberry Pi's serves its own.
fn of_probe(vendor: u16) -> Option<String> {
    let name = match vendor {
        0x1366 => "nrf52840-dk",
        0x0483 => "nucleo-h743zi",
        0x2e8a => "pico2",
        _ => return None,
    };
    boards::find(name)
        .ok()
        .map(|board| format!("{}, perhaps", board.name))
}

/// The name on the evaluator's card, or why there is none.
fn card(path: &str) -> Result<String, String> {
    let port = Serial::open(path, DEFAULT_BAUD).map_err(|error| error.to_string())?;
    let mut link = Connection::new(port);
    let board = link.hello(GREETING, |card| {
        card.map_or_else(
            |_| "of another version".to_owned(),
            |card| printable(card.board),
        )
    });
    board.map_err(|_| "does not answer as an evaluator".to_owned())
}
