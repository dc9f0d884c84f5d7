//! Peers behind Python, each a process of its own (`worker.py`) that answers one
//! line of JSON with another, so that its runs lie between those of the others.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::chains::Chain;
use crate::peer::{Operation, Peer};

/// A Python process that answers a line of JSON with another.
pub struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a script of this package with an interpreter.
    pub fn new(interpreter: &Path, script: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(interpreter)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
            .args(arguments)
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", interpreter.display()))?;
        let requests = child.stdin.take().context("the worker has no input")?;
        let answers = child.stdout.take().context("the worker has no output")?;
        Ok(Self {
            child,
            requests,
            answers: BufReader::new(answers),
        })
    }

    /// Its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        writeln!(self.requests, "{request}").context("the worker has ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the worker has ended without an answer: its message is above");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends at the end of its input; one that hangs is not waited for.
        if self.child.kill().is_ok() {
            // Its status says only that it was ended.
            let _status = self.child.wait();
        }
    }
}

/// A library behind Python, under one chain.
pub struct Python {
    name: String,
    log_qp: f64,
    operations: Vec<String>,
    worker: Worker,
}

#[derive(Deserialize)]
struct Start {
    name: String,
    log_qp: f64,
    operations: Vec<String>,
}

impl Python {
    /// Starts the worker for `library` with the interpreter that has it.
    pub fn new(interpreter: &Path, library: &str, chain: &Chain) -> Result<Self> {
        let mut worker = Worker::new(interpreter, "worker.py", &[library])?;
        let start: Start = worker.ask(&json!({
            "n": chain.params.n(),
            "bits": chain.bits,
            "scale": chain.scale,
            "levels": chain.drops.len(),
            "values": [chain.values(1), chain.values(2)],
        }))?;
        Ok(Self {
            name: start.name,
            log_qp: start.log_qp,
            operations: start.operations,
            worker,
        })
    }
}

impl Peer for Python {
    fn name(&self) -> &str {
        &self.name
    }

    fn log_qp(&self) -> f64 {
        self.log_qp
    }

    fn time(&mut self, operation: Operation, runs: usize) -> Result<Option<Vec<Duration>>> {
        let name = serde_json::to_value(operation)?;
        if !self.operations.iter().any(|known| *known == name) {
            return Ok(None);
        }
        let request = json!({ "time": name, "runs": runs });
        let times: Vec<u64> = self.worker.ask(&request)?;
        Ok(Some(times.into_iter().map(Duration::from_nanos).collect()))
    }

    fn circuit(&mut self) -> Result<Vec<f64>> {
        self.worker.ask(&json!({ "circuit": true }))
    }
}
