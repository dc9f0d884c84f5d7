//! Sockets as transports.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{DeviceError, Transport};

/// How long a connection may take to open, and a full send buffer to move.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a socket has to offer to be a [`Stream`].
pub trait Socket: Read + Write + Send {
    /// Limits how long a read waits.
    ///
    /// # Errors
    /// What the system says.
    fn limit_read(&self, timeout: Option<Duration>) -> std::io::Result<()>;
    /// Limits how long a write waits.
    ///
    /// # Errors
    /// What the system says.
    fn limit_write(&self, timeout: Option<Duration>) -> std::io::Result<()>;
}

impl Socket for TcpStream {
    fn limit_read(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.set_read_timeout(timeout)
    }

    fn limit_write(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.set_write_timeout(timeout)
    }
}

#[cfg(unix)]
impl Socket for UnixStream {
    fn limit_read(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.set_read_timeout(timeout)
    }

    fn limit_write(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.set_write_timeout(timeout)
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Stream<S> {
    socket: S,
    name: String,
}

impl<S: Socket> Stream<S> {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// [`DeviceError::Transfer`] if it cannot be set up.
    pub fn new(socket: S, name: String) -> Result<Self, DeviceError> {
        match socket.limit_write(Some(PATIENCE)) {
            Ok(()) => Ok(Self { socket, name }),
            Err(source) => Err(DeviceError::Transfer {
                device: name,
                source,
            }),
        }
    }

    pub(super) fn closed(&self) -> DeviceError {
        DeviceError::Closed {
            device: self.name.clone(),
            detail: String::new(),
        }
    }

    pub(super) fn failed(&self, source: std::io::Error, timeout: Duration) -> DeviceError {
        let device = self.name.clone();
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => DeviceError::Timeout { device, timeout },
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                self.closed()
            }
            _ => DeviceError::Transfer { device, source },
        }
    }
}

/// Connects to `HOST:PORT`.
///
/// # Errors
/// [`DeviceError::Absent`] where nothing listens there.
pub fn connect(address: &str) -> Result<Stream<TcpStream>, DeviceError> {
    let absent = |source| DeviceError::Absent {
        device: format!("tcp:{address}"),
        source,
    };
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs().map_err(absent)? {
        match TcpStream::connect_timeout(&candidate, PATIENCE) {
            Ok(socket) => {
                // Small frames wait for each other's acknowledgement otherwise.
                socket.set_nodelay(true).map_err(absent)?;
                return Stream::new(socket, format!("tcp:{address}"));
            }
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        ErrorKind::ConnectionRefused => DeviceError::NobodyListens {
            address: address.to_owned(),
        },
        _ => absent(last),
    })
}

impl<S: Socket> Transport for Stream<S> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        // The system's limit is for one write, which may take a single byte.
        let end = Instant::now() + PATIENCE;
        let mut left = bytes;
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error, PATIENCE)),
            }
            if !left.is_empty() && Instant::now() > end {
                return Err(self.failed(ErrorKind::TimedOut.into(), PATIENCE));
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let waited = timeout.unwrap_or_default();
        // The system takes zero for no limit.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        loop {
            let result = self
                .socket
                .limit_read(timeout)
                .and_then(|()| self.socket.read(buffer));
            match result {
                Ok(0) => return Err(self.closed()),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error, waited)),
            }
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use he_nn::message::{Reply, Request};

    use super::super::{Connection, serve};
    use super::*;

    #[test]
    fn tcp_carries_a_conversation() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut transport = Stream::new(socket, "the client".into()).unwrap();
            serve(&mut transport, |_, reply| reply(Reply::Aborted))
        });
        let mut connection = Connection::new(connect(&address).unwrap());
        connection.send(&Request::Abort).unwrap();
        let reply = connection.receive(PATIENCE, |reply| reply == Reply::Aborted);
        assert!(reply.unwrap());
        let nothing = connection
            .receive(Duration::from_millis(5), |_| ())
            .unwrap_err();
        assert!(matches!(nothing, DeviceError::Timeout { .. }), "{nothing}");
        drop(connection);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_there_is_one_sentence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = connect(&address).unwrap_err();
        assert!(matches!(error, DeviceError::NobodyListens { .. }));
        assert_eq!(
            error.to_string(),
            format!(
                "nobody listens at tcp:{address}: start an evaluator there, with `he-edge serve --listen {address}`"
            )
        );
    }
}
