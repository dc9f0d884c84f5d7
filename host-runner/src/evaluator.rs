//! The evaluator on a host: the session of the firmware, in a thread or
//! behind TCP.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use he_core::Params;
use he_core::params::N4096_DEPTH3;
use he_nn::message::{Memory, TimeUnit};
use he_nn::model::{Model, ModelError};
use he_nn::plan::{Plan, PlanError};
use he_nn::session::{Platform, Session};

use crate::device::stream::Stream;
use crate::device::{DeviceError, Duplex, Transport, duplex, serve};

/// The parameter set of the two-layer networks.
pub static PARAMS: &Params = &N4096_DEPTH3;

/// Pause after a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Chunks in flight; a host has room for more than a board.
const WINDOW: u8 = 16;

/// Why an evaluator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    /// The model file is unusable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The link failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The address cannot be listened at.
    #[error("{address} cannot be listened at ({source}): name a free address of this machine")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A host has no instruction counter; its memory is the arena's.
struct Host {
    arena_bytes: u32,
}

impl Platform for Host {
    fn board(&self) -> &'static str {
        "inproc"
    }
    fn unit(&self) -> TimeUnit {
        TimeUnit::None
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn memory(&mut self) -> Memory {
        Memory {
            static_bytes: self.arena_bytes,
            stack_peak_bytes: 0,
        }
    }
    fn window(&self) -> u8 {
        WINDOW
    }
}

/// Evaluates `model` for the client behind `transport` until it closes.
///
/// # Errors
/// [`EvaluatorError`].
pub fn evaluate<T: Transport>(model: &[u8], transport: &mut T) -> Result<(), EvaluatorError> {
    let model = Model::parse(model)?;
    let plan = Plan::new(PARAMS, &model)?;
    let mut arena = vec![0; plan.arena_words()];
    let mut host = Host {
        arena_bytes: size_of_val(arena.as_slice()) as u32,
    };
    let mut session = Session::new(plan, model, &mut arena)?;
    serve(transport, |request, mut reply| match request {
        Ok(request) => session.handle(request, &mut host, &mut reply),
        Err(error) => session.refuse_frame(error.received(), &mut reply),
    })?;
    Ok(())
}

/// Starts an evaluator in a thread and gives the client's end of its link. The
/// thread ends when that end is dropped.
///
/// # Errors
/// [`EvaluatorError`] if the model is unusable.
pub fn in_process(model: &[u8]) -> Result<Duplex, EvaluatorError> {
    Plan::new(PARAMS, &Model::parse(model)?)?;
    let (client, mut end) = duplex();
    let model = model.to_vec();
    // The model was checked above; should the thread fail all the same, its
    // end closes and the client is told.
    thread::spawn(move || evaluate(&model, &mut end));
    Ok(client)
}

/// Listens at `address` and evaluates for one client after the other, each in
/// a session of its own. `listening` is told the address bound (with port 0,
/// the system chooses the port); `ended` how each session ended. Never returns
/// but with an error.
///
/// # Errors
/// [`EvaluatorError`] if the model is unusable or the address is not free.
pub fn listen(
    address: &str,
    model: &[u8],
    listening: impl FnOnce(std::net::SocketAddr),
    mut ended: impl FnMut(Result<(), EvaluatorError>),
) -> Result<std::convert::Infallible, EvaluatorError> {
    Plan::new(PARAMS, &Model::parse(model)?)?;
    let failed = |source| EvaluatorError::Listen {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?);
    loop {
        let (socket, peer) = match listener.accept() {
            Ok(connection) => connection,
            Err(source) => {
                // A client that is gone again, or a passing shortage.
                ended(Err(failed(source)));
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let session = Stream::new(socket, format!("tcp:{peer}"));
        ended(
            session
                .map_err(Into::into)
                .and_then(|mut s| evaluate(model, &mut s)),
        );
    }
}
