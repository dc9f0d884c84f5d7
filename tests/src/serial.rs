//! A board at the end of a serial line: the other end of a pseudo terminal.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use host_runner::device::{DeviceError, Transport};
use serialport::TTYPort;

/// The board's end.
#[derive(Debug)]
pub struct Port(pub TTYPort);

impl Port {
    fn failed(&self, source: std::io::Error) -> DeviceError {
        DeviceError::Transfer {
            device: self.name(),
            source,
        }
    }
}

impl Transport for Port {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.0.write_all(bytes).map_err(|error| self.failed(error))
    }

    fn receive(&mut self, buffer: &mut [u8], _: Option<Duration>) -> Result<usize, DeviceError> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| self.failed(error)),
            }
        }
    }

    fn name(&self) -> String {
        "the client".to_owned()
    }
}
