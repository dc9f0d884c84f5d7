//! A fleet on this machine, for trying: `nats-server` with JetStream, and workers.
//!
//! What is started lives as long as its input is open. So it ends with this process however
//! that ends, and workers finish what they have. It is out of reach of a terminal's Ctrl-C,
//! which would end the server before its workers have answered.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::FleetError;

/// The server's program.
pub const PROGRAM: &str = "nats-server";

/// How long the server may take to listen.
const UP: Duration = Duration::from_secs(20);

/// How long workers may take to finish what they have.
const LEAVE: Duration = Duration::from_secs(60);

/// Pause between two looks at processes.
const LOOK: Duration = Duration::from_millis(50);

/// Pause before a worker that ended is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes of a message: room for an input of all bundled networks, so that the bucket is for
/// what is sent once.
const MAX_PAYLOAD: usize = 8 << 20;

/// What is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of this machine alone.
    pub port: u16,
    /// Where the broker keeps what it has.
    pub store: PathBuf,
    /// Workers.
    pub workers: u16,
    /// Items that each takes at a time.
    pub threads: u16,
}

impl Options {
    /// Where the broker listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A process that ends when its input is closed.
struct Process(Child);

impl Process {
    fn close(&mut self) {
        self.0.stdin = None;
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Whether it ends by then.
    fn ends_by(&mut self, end: Instant) -> bool {
        while !self.has_ended() {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.close();
        if !self.ends_by(Instant::now() + Duration::from_secs(5)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Starts a fleet, keeps it up until it is to end, and has it finish what it has.
///
/// # Errors
/// [`FleetError`].
pub fn up(
    options: &Options,
    is_to_end: &dyn Fn() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<(), FleetError> {
    let mut server = serve(options)?;
    let url = options.address();
    let mut workers: Vec<(String, Process, Instant)> = Vec::new();
    for number in 1..=options.workers {
        let name = format!("worker-{number}");
        let process = worker(options, &name)?;
        workers.push((name, process, Instant::now()));
    }
    say(&format!(
        "a fleet of {} workers is at {url}: he-edge infer --device nats:{url}; Ctrl-C ends it, and what it keeps lies in {}",
        options.workers,
        options.store.display()
    ));
    while !is_to_end() {
        if server.has_ended() {
            return Err(failed(options, "it ended"));
        }
        for (name, process, began) in &mut workers {
            if process.has_ended() && began.elapsed() >= PAUSE {
                say(&format!("{name} ended and is started again"));
                (*process, *began) = (worker(options, name)?, Instant::now());
            }
        }
        thread::sleep(LOOK);
    }
    for (_, process, _) in &mut workers {
        process.close();
    }
    let end = Instant::now() + LEAVE;
    for (name, process, _) in &mut workers {
        if !process.ends_by(end) {
            say(&format!("{name} does not finish what it has and is killed"));
        }
    }
    drop(workers);
    // With its workers gone it loses nothing.
    drop(server);
    Ok(())
}

/// Starts the server and waits until it listens.
fn serve(options: &Options) -> Result<Process, FleetError> {
    let address = options.address();
    // Another server there would be taken for this one.
    if let Err(error) = TcpListener::bind(&address) {
        return Err(failed(options, &error.to_string()));
    }
    let store = &options.store;
    fs::create_dir_all(store).map_err(local("the directory of the broker", "made"))?;
    let (configuration, log) = (store.join("nats-server.conf"), log_of(store));
    fs::write(&configuration, text(options))
        .map_err(local("the broker's configuration", "written"))?;
    let log = fs::File::create(log).map_err(local("the broker's log", "written"))?;
    let again = log
        .try_clone()
        .map_err(local("the broker's log", "written"))?;
    if !is_installed() {
        return Err(FleetError::ServerMissing);
    }
    let mut command = until_closed(&configuration);
    command.stdin(Stdio::piped()).stdout(log).stderr(again);
    let started = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => FleetError::ServerMissing,
        _ => local(PROGRAM, "started")(error),
    });
    let mut server = Process(started?);
    let begin = Instant::now();
    while TcpStream::connect(&address).is_err() {
        if server.has_ended() {
            return Err(failed(options, "it ended at once"));
        }
        if begin.elapsed() > UP {
            return Err(failed(options, "it does not listen"));
        }
        thread::sleep(LOOK);
    }
    Ok(server)
}

/// Whether there is the server's program.
fn is_installed() -> bool {
    let version = Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// The server, which by itself does not look at its input: a shell does, and ends it.
#[cfg(unix)]
fn until_closed(configuration: &Path) -> Command {
    // A shell gives what runs in the background an empty input.
    const SCRIPT: &str = "exec 3<&0; nats-server -c \"$1\" & server=$!; \
        (cat <&3 >/dev/null; kill \"$server\") 2>/dev/null & exec 3<&-; wait \"$server\"";
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(configuration);
    command.process_group(0);
    command
}

#[cfg(not(unix))]
fn until_closed(configuration: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(configuration);
    command
}

/// A worker of this program.
fn worker(options: &Options, name: &str) -> Result<Process, FleetError> {
    let program = std::env::current_exe().map_err(local("this program", "found"))?;
    let mut command = Command::new(program);
    command
        .args(["work", "--nats", &options.address(), "--name", name])
        .args(["--threads", &options.threads.to_string()])
        .arg("--until-input-ends")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    #[cfg(unix)]
    command.process_group(0);
    let started = command.spawn().map_err(local(name, "started"))?;
    Ok(Process(started))
}

/// The broker's configuration: this machine alone, as nobody is asked who he is.
fn text(options: &Options) -> String {
    // JSON's strings are the format's.
    let store = serde_json::Value::from(options.store.to_string_lossy());
    format!(
        "listen: \"{}\"\nmax_payload: {MAX_PAYLOAD}\njetstream {{\n  store_dir: {store}\n}}\n",
        options.address()
    )
}

fn log_of(store: &Path) -> PathBuf {
    store.join("nats-server.log")
}

fn failed(options: &Options, reason: &str) -> FleetError {
    FleetError::Server {
        address: options.address(),
        reason: reason.to_owned(),
        log: log_of(&options.store).display().to_string(),
    }
}

fn local(what: &str, doing: &'static str) -> impl Fn(io::Error) -> FleetError + use<> {
    let what = what.to_owned();
    move |source| FleetError::Local {
        what: what.clone(),
        doing,
        source,
    }
}
