//! A worker's evaluators: each a thread with engines of its own. One item is with one of
//! them at a time, and a panic in it ends the item, not the worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use he_nn::model::Model;
use he_nn::program::Program;
use tokio::sync::oneshot;

use super::item::Evaluation;
use crate::engine::{Engine, Times, latency};
use crate::planning;

/// Engines that a thread keeps: of the clients that came last.
const ENGINES: usize = 4;

/// Bytes of an engine at most: ten times that of the largest bundled network.
const MAX_ENGINE: usize = 1 << 32;

/// What evaluates an item, as bytes.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The program.
    pub program: Arc<Vec<u8>>,
    /// Switching keys.
    pub keys: Arc<Vec<u8>>,
    /// The model, where weights are plain.
    pub model: Option<Arc<Vec<u8>>>,
    /// Encrypted weights, where they are not.
    pub weights: Option<Arc<Vec<u8>>>,
}

/// A result and what it took, or why there is none.
pub type Evaluated = Result<(Vec<u8>, Times), String>;

/// Something to evaluate.
struct Job {
    evaluation: Evaluation,
    objects: Objects,
    input: Vec<u8>,
    reply: oneshot::Sender<Evaluated>,
}

/// Threads that evaluate.
#[derive(Debug)]
pub struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts so many.
    #[must_use]
    pub fn start(count: usize) -> Self {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..count).map(|_| {
            let receiver = Arc::clone(&receiver);
            thread::spawn(move || work(&receiver))
        });
        Self {
            threads: threads.collect(),
            jobs: Some(jobs),
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Has an input evaluated by the next that is free.
    ///
    /// # Errors
    /// Why there is no result, in a sentence.
    pub async fn evaluate(
        &self,
        evaluation: Evaluation,
        objects: Objects,
        input: Vec<u8>,
    ) -> Evaluated {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            evaluation,
            objects,
            input,
            reply,
        };
        let is_sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        match (is_sent, answer.await) {
            (true, Ok(evaluated)) => evaluated,
            _ => Err("no evaluator is left".to_owned()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // What a panic said is on standard error.
            let _ = thread.join();
        }
    }
}

/// One thread.
fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut engines: Vec<(Evaluation, Engine)> = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job {
            evaluation,
            objects,
            input,
            reply,
        }) = job
        else {
            return;
        };
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            evaluate(&mut engines, evaluation, &objects, &input)
        }));
        let evaluated = evaluated.unwrap_or_else(|_| {
            engines.clear();
            Err("the evaluator panicked: this is a defect, see the worker's log".to_owned())
        });
        // Who asked may be gone.
        let _ = reply.send(evaluated);
    }
}

fn evaluate(
    engines: &mut Vec<(Evaluation, Engine)>,
    evaluation: Evaluation,
    objects: &Objects,
    input: &[u8],
) -> Evaluated {
    let known = engines.iter().position(|(of, _)| *of == evaluation);
    let engine = match known {
        Some(at) => engines.remove(at).1,
        None => {
            engines.truncate(ENGINES - 1);
            engine(evaluation, objects)?
        }
    };
    // What was used last comes first.
    engines.insert(0, (evaluation, engine));
    let Some((_, engine)) = engines.first_mut() else {
        return Err("no engine".to_owned());
    };
    engine.evaluate(input).map_err(|error| error.to_string())
}

/// The engine of a program, with its keys and weights.
fn engine(evaluation: Evaluation, objects: &Objects) -> Result<Engine, String> {
    let unknown = "the program is none of this version's: use the same version on both sides";
    let params = planning::set_of(evaluation.params).ok_or(unknown)?;
    let program = Program::parse(params, objects.program.to_vec()).ok_or(unknown)?;
    let is_plain = !program.is_encrypted();
    if program.fingerprint() != evaluation.fingerprint
        || is_plain != objects.model.is_some()
        || is_plain == objects.weights.is_some()
    {
        return Err(unknown.to_owned());
    }
    let bytes = latency::memory(&program);
    if bytes > MAX_ENGINE {
        return Err(format!(
            "it takes {bytes} bytes of memory and {MAX_ENGINE} are allowed"
        ));
    }
    let model = match &objects.model {
        Some(bytes) => Some(Model::parse(bytes).map_err(|error| error.to_string())?),
        None => None,
    };
    if let Some(model) = &model
        && model.crc() != program.model_crc()
    {
        return Err("the model is not the one that its program was made for".to_owned());
    }
    let weights = objects.weights.as_deref().map_or(&[][..], |bytes| bytes);
    let engine = Engine::new(program, model.as_ref(), &objects.keys, weights);
    engine.map_err(|error| error.to_string())
}
