//! QEMU with a firmware image in it: the link on its first serial port, the log
//! on its second.
//!
//! QEMU hands a serial port one byte at a time and needs 20 to 40 microseconds
//! for each, so the bytes to the board go through a mailbox instead, which is
//! memory of the board that this side has mapped as a file; the serial port
//! carries the replies, and wakes the board. [`Emulator::start_serial`] does
//! without the mailbox.
//!
//! Both ports are local sockets in a directory that only this user can enter.
//! This side listens before QEMU starts, so nothing is said too early, and both
//! are read all the time, so the board never waits for a reader.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use he_nn::mailbox;

use super::log::{self, LogSink};
use super::stream::Stream;
use super::{DeviceError, Transport};
use crate::client::printable;
use he_nn::boards;

const PROGRAM: &str = "qemu-system-arm";
const PACKAGE: &str = "qemu-system-arm";

/// How long QEMU may take to start.
const START: Duration = Duration::from_secs(20);

/// What the serial port carries once the mailbox holds something. Any byte will do.
const WAKE: [u8; 1] = [0];

/// Longest path of a local socket: 108 bytes with the end, 104 on some systems.
const LONGEST_PATH: usize = 103;

/// Longest pause between two looks at a full mailbox. The board has other slots full then,
/// so it does not wait for this.
const FULL_PAUSE: Duration = Duration::from_micros(500);

/// How long the board may leave the mailbox full.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running emulator. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Emulator {
    // Dropped in this order: QEMU first, then what it holds open.
    process: Process,
    link: Stream<UnixStream>,
    mailbox: Option<Mailbox>,
    /// Bytes that came while the mailbox was full.
    early: VecDeque<u8>,
    log: Option<JoinHandle<()>>,
    board: String,
    directory: Directory,
}

impl Emulator {
    /// Starts QEMU with an image for `board`.
    ///
    /// # Errors
    /// [`DeviceError::UnknownBoard`], [`DeviceError::Image`],
    /// [`DeviceError::EmulatorMissing`] or [`DeviceError::EmulatorEnded`].
    pub fn start(board: &str, image: &Path, sink: LogSink) -> Result<Self, DeviceError> {
        Self::launch(board, image, sink, true)
    }

    /// As [`Self::start`], with every byte of the link on the serial port, as
    /// on a real board. Slow.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_serial(board: &str, image: &Path, sink: LogSink) -> Result<Self, DeviceError> {
        Self::launch(board, image, sink, false)
    }

    fn launch(
        board: &str,
        image: &Path,
        sink: LogSink,
        with_mailbox: bool,
    ) -> Result<Self, DeviceError> {
        let known = boards::find(board).ok().and_then(|known| known.machine);
        let Some(machine) = known else {
            return Err(DeviceError::UnknownBoard {
                board: board.into(),
            });
        };
        let table = log::table(image)?;

        let name = format!("qemu:{board}");
        let failed = |source| DeviceError::Absent {
            device: name.clone(),
            source,
        };
        let directory = Directory::new().map_err(failed)?;
        let longest = directory.0.join("memory");
        if longest.as_os_str().len() > LONGEST_PATH {
            return Err(DeviceError::TemporaryPath { path: longest });
        }
        // Before QEMU, so that no moment leaves anything behind.
        let watch = Watch::start(&directory.0);
        let ports = Ports {
            link: directory.0.join("link"),
            log: directory.0.join("log"),
            memory: with_mailbox.then(|| (directory.0.join("memory"), machine.memory_bytes)),
        };
        let link = UnixListener::bind(&ports.link).map_err(failed)?;
        let log_port = UnixListener::bind(&ports.log).map_err(failed)?;
        let mailbox = match &ports.memory {
            Some((path, bytes)) => Some(Mailbox::create(path, *bytes).map_err(failed)?),
            None => None,
        };

        let mut process = Process::start(machine.name, image, &ports, watch)?;
        let ended = |reason| DeviceError::EmulatorEnded {
            board: board.into(),
            reason,
        };
        let link = process.accept(&link).map_err(ended)?;
        let log_port = process.accept(&log_port).map_err(ended)?;
        let log = thread::spawn(move || log::decode(&table, log_port, sink));
        let link = Stream::new(link, name)?;
        Ok(Self {
            process,
            link,
            mailbox,
            early: VecDeque::new(),
            log: Some(log),
            board: board.into(),
            directory,
        })
    }

    /// The emulated board.
    pub fn board(&self) -> &str {
        &self.board
    }

    fn explain(&self, error: DeviceError) -> DeviceError {
        match error {
            DeviceError::Closed { device, .. } => DeviceError::Closed {
                device,
                detail: format!(" ({})", self.process.last_words()),
            },
            other => other,
        }
    }
}

/// A program that ends the emulator by itself, by semihosting.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its image.
    pub image: &'a Path,
    /// Time of an instruction in the emulator's nanoseconds, as a power of two.
    pub instruction_ns_log2: u8,
    /// What it is handed over. None holds a comma.
    pub arguments: &'a [String],
}

/// Runs a program that ends the emulator by itself, at one nanosecond an instruction, and
/// gives what it said on UART0.
///
/// # Errors
/// As [`run_program`].
pub fn run_to_end(board: &str, image: &Path) -> Result<String, DeviceError> {
    let program = Program {
        image,
        instruction_ns_log2: 0,
        arguments: &[],
    };
    run_program(board, &program)
}

/// Runs a program and gives what it said on UART0.
///
/// # Errors
/// [`DeviceError::UnknownBoard`], [`DeviceError::EmulatorMissing`] or
/// [`DeviceError::EmulatorEnded`].
pub fn run_program(board: &str, program: &Program<'_>) -> Result<String, DeviceError> {
    let known = boards::find(board).ok().and_then(|known| known.machine);
    let machine = known.ok_or_else(|| DeviceError::UnknownBoard {
        board: board.into(),
    })?;
    let ended = |reason| DeviceError::EmulatorEnded {
        board: board.into(),
        reason,
    };
    let mut semihosting = "enable=on".to_owned();
    for argument in program.arguments {
        semihosting.push_str(",arg=");
        semihosting.push_str(argument);
    }
    let output = Command::new(PROGRAM)
        .args(["-M", machine.name, "-display", "none", "-monitor", "none"])
        .args(["-nodefaults", "-serial", "stdio", "-semihosting-config"])
        .arg(semihosting)
        .arg("-icount")
        .arg(format!(
            "shift={},align=off,sleep=off",
            program.instruction_ns_log2
        ))
        .arg("-kernel")
        .arg(program.image)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => DeviceError::EmulatorMissing {
                program: PROGRAM,
                package: PACKAGE,
            },
            _ => ended(error.to_string()),
        })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.is_empty() {
        let words = String::from_utf8_lossy(&output.stderr);
        let line = words.lines().rev().find(|line| !line.trim().is_empty());
        return Err(ended(line.unwrap_or("it said nothing").trim().into()));
    }
    Ok(said)
}

/// What the emulator says of its version, `None` where it is not installed.
#[must_use]
pub fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().next().map(|line| line.trim().to_owned())
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.process.end();
        if let Some(log) = self.log.take() {
            // Ends by itself once QEMU's end of the log is closed; what it
            // panicked with, if it did, is on standard error already.
            let _ = log.join();
        }
        self.directory.remove();
    }
}

impl Transport for Emulator {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        let sent = match &mut self.mailbox {
            None => self.link.send(bytes),
            Some(mailbox) => bytes.chunks(mailbox::SLOT_BYTES).try_for_each(|part| {
                let begin = Instant::now();
                while !mailbox
                    .post(part)
                    .map_err(|source| self.link.failed(source, PATIENCE))?
                {
                    if self.process.has_ended() {
                        return Err(self.link.closed());
                    }
                    if begin.elapsed() > PATIENCE {
                        return Err(self.link.failed(ErrorKind::TimedOut.into(), PATIENCE));
                    }
                    // A board whose replies nobody takes stops at the next, and takes no
                    // more from the mailbox: its port holds a few hundred bytes.
                    let mut come = [0; 256];
                    match self.link.receive(&mut come, Some(FULL_PAUSE)) {
                        Ok(count) => self.early.extend(come.iter().take(count)),
                        Err(DeviceError::Timeout { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                self.link.send(&WAKE)
            }),
        };
        sent.map_err(|error| self.explain(error))
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.len());
            for (slot, byte) in buffer.iter_mut().zip(self.early.drain(..count)) {
                *slot = byte;
            }
            return Ok(count);
        }
        self.link
            .receive(buffer, timeout)
            .map_err(|error| self.explain(error))
    }

    fn name(&self) -> String {
        self.link.name()
    }
}

/// This side of the mailbox: the file that is the board's memory.
#[derive(Debug)]
struct Mailbox {
    memory: File,
    /// Slots filled so far, modulo 256.
    pushed: u8,
}

impl Mailbox {
    fn create(path: &Path, bytes: u64) -> std::io::Result<Self> {
        let memory = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        memory.set_len(bytes)?;
        memory.write_all_at(&mailbox::MAGIC, 0)?;
        Ok(Self { memory, pushed: 0 })
    }

    /// Fills a slot; `false` if none is free.
    fn post(&mut self, bytes: &[u8]) -> std::io::Result<bool> {
        let mut drained = [0];
        self.memory
            .read_exact_at(&mut drained, mailbox::DRAINED as u64)?;
        if self.pushed.wrapping_sub(drained[0]) >= mailbox::SLOTS {
            return Ok(false);
        }
        let slot = mailbox::slot(self.pushed) as u64;
        let length = bytes.len() as u16;
        self.memory
            .write_all_at(bytes, slot + mailbox::LENGTH_BYTES as u64)?;
        self.memory.write_all_at(&length.to_le_bytes(), slot)?;
        // The slot is complete before it counts.
        self.pushed = self.pushed.wrapping_add(1);
        self.memory
            .write_all_at(&[self.pushed], mailbox::PUSHED as u64)?;
        Ok(true)
    }
}

/// What QEMU is to open.
struct Ports {
    link: PathBuf,
    log: PathBuf,
    /// The main memory's file and size.
    memory: Option<(PathBuf, u64)>,
}

/// A directory for two sockets and the board's memory.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("he-edge-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a process that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && count < 1000 => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn remove(&self) {
        // A directory that stays behind in the temporary ones does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The QEMU process and what it wrote to standard error.
#[derive(Debug)]
struct Process {
    /// Ends QEMU when this process ends without doing so. Dropped first.
    watch: Option<Watch>,
    child: Child,
    words: Arc<Mutex<Words>>,
}

/// The end of what QEMU wrote to standard error: one that complains without end must not
/// fill this process's memory.
#[derive(Debug, Default)]
struct Words(Vec<u8>);

impl Words {
    /// Bytes that are kept at least, once there were as many.
    const KEPT: usize = 4096;

    fn push(&mut self, said: &[u8]) {
        self.0.extend_from_slice(said);
        if self.0.len() > 2 * Self::KEPT {
            self.0.drain(..self.0.len() - Self::KEPT);
        }
    }

    /// The last line that says something.
    fn last(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        printable(line.unwrap_or("it said nothing").trim())
    }
}

impl Process {
    fn start(
        machine: &str,
        image: &Path,
        ports: &Ports,
        mut watch: Option<Watch>,
    ) -> Result<Self, DeviceError> {
        // QEMU ends a value at a comma, and takes two for one.
        let escaped = |path: &Path| path.display().to_string().replace(',', ",,");
        let socket = |id: &str, path: &Path| format!("socket,id={id},path={}", escaped(path));
        let mut command = Command::new(PROGRAM);
        command
            .args(["-M", machine, "-display", "none", "-monitor", "none"])
            .arg("-nodefaults")
            // One instruction in 2^5 ns, so that the board's clock, at 40 ns a
            // tick, counts them; while the board sleeps, so does QEMU.
            .args(["-icount", "shift=5,align=off,sleep=on"])
            .arg("-chardev")
            .arg(socket("link", &ports.link))
            .args(["-serial", "chardev:link", "-chardev"])
            .arg(socket("log", &ports.log))
            .args(["-serial", "chardev:log"]);
        if let Some((path, bytes)) = &ports.memory {
            command.arg("-object").arg(format!(
                "memory-backend-file,id=memory,size={bytes},share=on,mem-path={}",
                escaped(path)
            ));
            command.args(["-machine", "memory-backend=memory"]);
        }
        let spawned = command
            .arg("-kernel")
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which ends QEMU when it is done with it.
            .process_group(0)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(DeviceError::EmulatorMissing {
                    program: PROGRAM,
                    package: PACKAGE,
                });
            }
            Err(source) => {
                return Err(DeviceError::Absent {
                    device: PROGRAM.into(),
                    source,
                });
            }
        };
        let words = Arc::<Mutex<Words>>::default();
        if let Some(mut stderr) = child.stderr.take() {
            let words = words.clone();
            thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                    let said = buffer.get(..count).unwrap_or_default();
                    words
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(said);
                }
            });
        }
        if let Some(watch) = &mut watch {
            watch.also_ends(child.id());
        }
        Ok(Self {
            watch,
            child,
            words,
        })
    }

    /// Waits until QEMU has connected to one of its ports.
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream, String> {
        let accept = |listener: &UnixListener| -> std::io::Result<UnixStream> {
            let (socket, _) = listener.accept()?;
            socket.set_nonblocking(false)?;
            Ok(socket)
        };
        let begin = Instant::now();
        listener
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        loop {
            match accept(listener) {
                Ok(socket) => return Ok(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
            match self.child.try_wait() {
                Ok(None) if begin.elapsed() < START => thread::sleep(Duration::from_millis(5)),
                Ok(None) => return Err("it did not open its serial ports".into()),
                Ok(Some(_)) => {
                    // Its last words may still be on the way to this side.
                    thread::sleep(Duration::from_millis(50));
                    return Err(self.last_words());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn last_words(&self) -> String {
        let words = self.words.lock();
        words.unwrap_or_else(PoisonError::into_inner).last()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn end(&mut self) {
        // First, or it could end another process that gets QEMU's number.
        self.watch = None;
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A shell that waits for the end of this process, however it comes, and then ends QEMU
/// and removes its directory: QEMU itself goes on without anybody at its ports. Not
/// having it is no failure.
#[derive(Debug)]
struct Watch(Child);

impl Watch {
    fn start(directory: &Path) -> Option<Self> {
        // Reads the number of QEMU's process, if it comes to that, and then to the end.
        const SCRIPT: &str =
            "read -r qemu; read -r _; [ -n \"$qemu\" ] && kill -9 \"$qemu\"; rm -rf -- \"$1\"";
        let spawned = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a terminal's Ctrl-C.
            .process_group(0)
            .spawn();
        spawned.ok().map(Self)
    }

    /// Tells it of QEMU.
    fn also_ends(&mut self, process: u32) {
        if let Some(input) = &mut self.0.stdin {
            // A shell that is gone watches nothing.
            let _ = writeln!(input, "{process}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Before its input is closed, which it waits for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_waits_for_the_board() {
        let directory = Directory::new().unwrap();
        let path = directory.0.join("memory");
        let mut mailbox = Mailbox::create(&path, 1 << 16).unwrap();
        let board = File::options().read(true).write(true).open(&path).unwrap();
        let mut read = [0; 8];
        board.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, mailbox::MAGIC);
        // Until both counters have wrapped.
        for taken in 0..=300u32 {
            while mailbox.post(&[mailbox.pushed; 3]).unwrap() {}
            let taken = taken as u8;
            assert_eq!(mailbox.pushed.wrapping_sub(taken), mailbox::SLOTS);
            let mut slot = [0; 5];
            board
                .read_exact_at(&mut slot, mailbox::slot(taken) as u64)
                .unwrap();
            assert_eq!(slot, [3, 0, taken, taken, taken]);
            board
                .write_all_at(&[taken.wrapping_add(1)], mailbox::DRAINED as u64)
                .unwrap();
        }
    }

    #[test]
    fn last_words_are_bounded_and_printable() {
        let mut words = Words::default();
        assert_eq!(words.last(), "it said nothing");
        for number in 0..10_000 {
            words.push(format!("warning {number}\n").as_bytes());
            assert!(words.0.len() <= 2 * Words::KEPT + 32);
        }
        words.push(b"the \x1b[2J end \xff\n\n");
        assert_eq!(words.last(), "the ?[2J end \u{fffd}");
    }

    #[test]
    fn a_process_that_is_gone_leaves_no_directory() {
        let directory = Directory::new().unwrap();
        let mut qemu = Command::new("sleep").arg("60").spawn().unwrap();
        let mut watch = Watch::start(&directory.0).unwrap();
        watch.also_ends(qemu.id());
        assert!(qemu.try_wait().unwrap().is_none());
        // What the system does to a process that is killed.
        drop(watch.0.stdin.take());
        assert!(watch.0.wait().is_ok());
        assert!(!directory.0.exists());
        assert!(!qemu.wait().unwrap().success());
    }

    #[test]
    fn what_cannot_start_is_one_sentence() {
        let sink = || -> LogSink { Box::new(|_| ()) };
        let error = Emulator::start("toaster", Path::new("none"), sink()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no emulator has the board toaster: use one of mps2-an386, mps2-an386-256k, mps2-an500, mps2-an505"
        );
        let error = Emulator::start("mps2-an386", Path::new("none"), sink()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("none cannot be read as a firmware image (")
        );
    }
}
