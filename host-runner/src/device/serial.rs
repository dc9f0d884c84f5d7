//! Serial ports and pseudo terminals as transports.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use serialport::{ClearBuffer, FlowControl, SerialPort};

use super::{DeviceError, Transport};

/// How long a write may wait for the line.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands in for waiting without a limit.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// An open serial port, 8N1 without hardware flow control: the credit window is
/// the flow control.
pub struct Serial {
    port: Box<dyn SerialPort>,
    path: String,
    limit: Duration,
}

impl std::fmt::Debug for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serial")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Serial {
    /// Opens the port and drops what it had received before.
    ///
    /// # Errors
    /// [`DeviceError::Absent`].
    pub fn open(path: &str, baud: u32) -> Result<Self, DeviceError> {
        let opened = serialport::new(path, baud)
            .flow_control(FlowControl::None)
            .timeout(PATIENCE)
            .open()
            .and_then(|port| port.clear(ClearBuffer::Input).map(|()| port));
        match opened {
            Ok(port) => Ok(Self {
                port,
                path: path.into(),
                limit: PATIENCE,
            }),
            Err(error) => Err(DeviceError::Absent {
                device: path.into(),
                source: error.into(),
            }),
        }
    }

    fn set_limit(&mut self, limit: Duration) -> Result<(), DeviceError> {
        if self.limit != limit {
            let set = self.port.set_timeout(limit);
            set.map_err(|error| self.failed(error.into(), limit))?;
            self.limit = limit;
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error, timeout: Duration) -> DeviceError {
        let device = self.path.clone();
        match source.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => DeviceError::Timeout { device, timeout },
            // A port that was unplugged.
            ErrorKind::BrokenPipe | ErrorKind::NotConnected => DeviceError::Closed {
                device,
                detail: String::new(),
            },
            _ => DeviceError::Transfer { device, source },
        }
    }
}

impl Transport for Serial {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.set_limit(PATIENCE)?;
        self.port
            .write_all(bytes)
            .map_err(|error| self.failed(error, PATIENCE))
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let limit = timeout.unwrap_or(FOREVER).max(Duration::from_millis(1));
        self.set_limit(limit)?;
        loop {
            match self.port.read(buffer) {
                Ok(0) => {
                    let detail = String::new();
                    return Err(DeviceError::Closed {
                        device: self.path.clone(),
                        detail,
                    });
                }
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error, limit)),
            }
        }
    }

    fn name(&self) -> String {
        self.path.clone()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::thread;

    use he_nn::message::{Reply, Request};
    use serialport::TTYPort;

    use super::super::{Connection, serve};
    use super::*;

    #[test]
    fn a_pseudo_terminal_is_a_serial_port() {
        let (mut board, slave) = TTYPort::pair().unwrap();
        let path = slave.name().unwrap();
        board.set_timeout(PATIENCE).unwrap();
        // The client opens the slave by its path, as a user would.
        drop(slave);
        let mut connection = Connection::new(Serial::open(&path, 115_200).unwrap());
        let port = Serial {
            port: Box::new(board),
            path: "board".into(),
            limit: PATIENCE,
        };
        let board = thread::spawn(move || {
            let mut port = port;
            // Ends when the client's end is closed, however the system says so.
            let _ = serve(&mut port, |_, reply| reply(Reply::Ack));
        });
        let chunk: Vec<u8> = (0..1920).map(|i| i as u8).collect();
        let item = he_nn::message::Item::Input {
            ciphertext: 0,
            limb: 0,
        };
        for _ in 0..20 {
            connection
                .send(&Request::Data {
                    item,
                    offset: 0,
                    bytes: &chunk,
                })
                .unwrap();
            assert!(
                connection
                    .receive(PATIENCE, |reply| reply == Reply::Ack)
                    .unwrap()
            );
        }
        drop(connection);
        board.join().unwrap();
    }

    #[test]
    fn an_absent_port_is_one_sentence() {
        let error = Serial::open("/dev/no-such-port", 115_200).unwrap_err();
        assert!(matches!(error, DeviceError::Absent { .. }));
        assert!(
            error
                .to_string()
                .starts_with("/dev/no-such-port cannot be opened ("),
            "{error}"
        );
    }
}
