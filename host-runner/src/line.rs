//! What a serial line makes of an inference: its frames go over a line of a given rate and
//! latency to an evaluator of a given speed, in virtual time. What is computed here is
//! exact and the same on every machine; a test compares it with the client's conversation
//! over such a line.
//!
//! The line carries ten bits per byte, each way independent of the other, and holds every
//! byte for its latency. The evaluator takes frames one after the other while the next ones
//! come in, and acknowledges each by a blocking write, as boards do. Its computing is the
//! plan's estimate, at the board's instructions per cycle.

use std::collections::VecDeque;
use std::time::Duration;

use he_core::Params;
use he_core::rlwe::SwitchTarget;
use he_core::wire::packed_len;
use he_nn::boards::Board;
use he_nn::kept::{KEY_ID_BYTES, KeyId, KeyShape, Writer};
use he_nn::link::{self, MAX_FRAME};
use he_nn::message::{
    CHUNK_COEFFS, Card, Held, Item, Memory, PROTOCOL_VERSION, Reply, Request, SEED_BYTES, Stage,
    Stages, TimeUnit,
};
use he_nn::plan::{Op, Operand, Plan, Prices, Target, WeightMode};
use he_nn::program::Program;
use he_nn::schedule::{Cursor, Upload};
use serde::Serialize;

use crate::client::{Padding, Window, padded};
use crate::engine::{EngineError, failed};

/// Bits on the wire per byte: start, eight of data, stop.
pub const BITS: u64 = 10;

/// What many USB bridges hold bytes for.
pub const LATENCY: Duration = Duration::from_millis(8);

/// Instructions that reading a kept key and checking it take per byte: 8 per word. That
/// words of a uniform half take less than expanding them from the seed is not counted.
const CHECK: usize = 2;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is called.
    pub name: &'static str,
    /// Bits per second, ten of them a byte.
    pub baud: u32,
    /// How long a byte is on its way, each way.
    pub latency: Duration,
}

/// Lines of boards: serial ports at their usual rates, and USB at full speed, which carries
/// some 1 MB/s.
pub const LINES: [Line; 5] = [
    Line::serial("115200 baud", 115_200),
    Line::serial("921600 baud", 921_600),
    Line::serial("1 Mbaud", 1_000_000),
    Line::serial("3 Mbaud", 3_000_000),
    Line::serial("USB, 1 MB/s", 10_000_000),
];

/// Those that a board's link can be, slowest first.
pub fn lines_of(board: &Board) -> impl Iterator<Item = Line> {
    LINES
        .into_iter()
        .filter(|line| board.bauds.contains(&line.baud))
}

impl Line {
    /// A line of a rate.
    #[must_use]
    pub fn of(baud: u32) -> Self {
        let known = LINES.into_iter().find(|line| line.baud == baud);
        known.unwrap_or(Self::serial("the line", baud))
    }

    const fn serial(name: &'static str, baud: u32) -> Self {
        Self {
            name,
            baud,
            latency: LATENCY,
        }
    }

    /// Seconds that so many bytes take.
    #[must_use]
    pub fn takes(&self, bytes: usize) -> f64 {
        (bytes as u64 * BITS) as f64 / f64::from(self.baud)
    }
}

/// A frame to the evaluator, and what it has to do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes on the wire.
    pub bytes: usize,
    /// Instructions.
    pub work: u64,
    /// Bytes of its acknowledgement.
    pub answer: usize,
    /// Whether it is sent when all before it are acknowledged.
    pub waits: bool,
    /// Whether it stands for a key that the evaluator keeps.
    pub is_kept: bool,
    /// Bytes of a key that the evaluator reads from its store for it, or writes there.
    pub stored: usize,
}

/// All that goes over the link for one image.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// A greeting and the begin, each with its answer, in bytes.
    opening: [(usize, usize); 2],
    /// The upload.
    frames: Vec<Frame>,
    /// Bytes of the result and its end.
    result: usize,
}

/// What became of an exchange on a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passage {
    /// From the greeting to the end of the result.
    pub seconds: f64,
    /// Of that, the share in which the line carried the upload or the result.
    pub share: f64,
    /// Most bytes that had arrived and were not taken yet.
    pub waiting: usize,
}

/// What an exchange comes to where it is padded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaddedExchange {
    /// Cells.
    pub cells: usize,
    /// Bytes to the evaluator.
    pub up: usize,
    /// Bytes from the evaluator.
    pub down: usize,
    /// Most instructions that a cell asks for: they must not take longer than from one cell
    /// to the next.
    pub most_work: u64,
    /// From the first cell to the time of the next inference's.
    pub seconds: f64,
}

/// Bytes of a message's frame. All that is asked for here fit.
fn size(message: &impl Serialize) -> usize {
    link::encode(message, &mut [0; MAX_FRAME]).map_or(MAX_FRAME, <[u8]>::len)
}

/// Bits of a coefficient of a limb.
fn bits_of(params: &Params, limb: usize) -> Result<u32, EngineError> {
    let prime = params.prime(limb).map_err(failed("sizing a line"))?;
    Ok(prime.modulus().bits())
}

/// Bytes that stand for ciphertexts: zeros are as rare as in these.
fn filler() -> [u8; MAX_FRAME] {
    let mut state = 1u32;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}

impl Exchange {
    /// Of a plan for a stream. The evaluator keeps the keys of the targets in `kept`, since
    /// an image before.
    ///
    /// # Errors
    /// [`EngineError`] where the plan has no program.
    pub fn of(plan: &Plan<'_>, kept: &[SwitchTarget]) -> Result<Self, EngineError> {
        Self::with(plan, kept, &[])
    }

    /// Of the first image: the evaluator keeps the keys of the targets in `stored` once they
    /// have come whole.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn first(plan: &Plan<'_>, stored: &[SwitchTarget]) -> Result<Self, EngineError> {
        Self::with(plan, &[], stored)
    }

    fn with(
        plan: &Plan<'_>,
        kept: &[SwitchTarget],
        stored: &[SwitchTarget],
    ) -> Result<Self, EngineError> {
        let program = Program::of(plan)?;
        let frames = uploads(plan, &program, kept, stored)?;
        let held = vec![[0xA5; KEY_ID_BYTES]; kept.len()];
        let filler = filler();
        let chunks = 2 * plan.params().n() / CHUNK_COEFFS;
        let mut result = 0;
        for limb in 0..=plan.output_level() {
            let chunk = packed_len(CHUNK_COEFFS, bits_of(plan.params(), limb)?);
            let reply = Reply::Result {
                part: 1,
                limb: limb as u8,
                offset: CHUNK_COEFFS as u16,
                bytes: filler.get(..chunk).unwrap_or_default(),
            };
            result += chunks * size(&reply);
        }
        let stage = |step| Stage {
            step,
            time: 1 << 24,
        };
        let done = Reply::Done {
            scale_bits: 1.5f64.to_bits(),
            memory: Memory {
                static_bytes: 1 << 18,
                stack_peak_bytes: 1 << 12,
            },
            stages: (0..program.steps() as u8).map(stage).collect::<Stages>(),
            busy: 1 << 27,
        };
        let card = Reply::Hello(Card {
            version: PROTOCOL_VERSION,
            board: "mps2-an386",
            model: program.name(),
            model_crc: u32::MAX,
            params: u32::MAX,
            plan: u32::MAX,
            window: 8064,
            unit: TimeUnit::Instructions,
        });
        let hello = Request::Hello {
            version: PROTOCOL_VERSION,
        };
        let begin = Request::Begin {
            plan: u32::MAX,
            trace: false,
        };
        let ready = Reply::Ready {
            held: Held::new(&held),
        };
        Ok(Self {
            // A delimiter precedes the greeting.
            opening: [
                (1 + size(&hello), size(&card)),
                (size(&begin), size(&ready)),
            ],
            frames,
            result: result + size(&done),
        })
    }

    /// Bytes to the evaluator.
    #[must_use]
    pub fn up(&self) -> usize {
        let opening: usize = self.opening.iter().map(|(up, _)| up).sum();
        opening + self.frames.iter().map(|frame| frame.bytes).sum::<usize>()
    }

    /// Bytes from the evaluator.
    #[must_use]
    pub fn down(&self) -> usize {
        let opening: usize = self.opening.iter().map(|(_, down)| down).sum();
        let answers: usize = self.frames.iter().map(|frame| frame.answer).sum();
        opening + answers + self.result
    }

    /// What it comes to over a padded link to an evaluator with a window of so many bytes,
    /// whose plan this is of.
    #[must_use]
    pub fn padded(&self, plan: &Plan<'_>, window: u32, padding: &Padding) -> PaddedExchange {
        let cell = padded::cell_bytes(window);
        let tick = size(&Request::Tick {
            fill: padded::FILL as u32,
            result: false,
        });
        // As the client fills them.
        let mut cells = 0usize;
        let (mut used, mut work, mut most_work) = (tick, 0, 0);
        let mut close = |used: &mut usize, work: &mut u64| {
            cells += 1;
            most_work = most_work.max(std::mem::take(work));
            *used = tick;
        };
        for frame in &self.frames {
            if frame.waits {
                // What is kept is known when the cell behind the one before is answered.
                (0..2).for_each(|_| close(&mut used, &mut work));
            }
            if used + frame.bytes > cell {
                close(&mut used, &mut work);
            }
            used += frame.bytes;
            work += frame.work;
            if frame.is_kept {
                close(&mut used, &mut work);
            }
        }
        close(&mut used, &mut work);
        let upload = cells.next_multiple_of(padding.class(cell));
        let result = padding.result_fill(padded::result_bytes(plan.params(), plan.output_level()));
        let cells = padded::GREETING_CELLS + upload + 1;
        let greeting = padded::GREETING_CELLS * padded::GREETING_CELL;
        PaddedExchange {
            cells,
            up: greeting + (upload + 1) * cell,
            down: 3 * padded::GREETING_FILL + (upload + 1) * padded::FILL + result,
            most_work,
            seconds: cells as f64 * padding.every.as_secs_f64(),
        }
    }

    /// The same to a board that keeps keys in a flash, if it does: it waits for what that
    /// writes and reads as it computes.
    #[must_use]
    pub fn with_flash(mut self, board: &Board, room: usize) -> Self {
        let Some(flash) = board.flash else {
            return self;
        };
        let speed = board.instructions_per_second();
        let mut writer = None;
        for frame in &mut self.frames {
            let seconds = match (frame.stored, frame.is_kept) {
                (0, _) => {
                    // The next key has a seed before its chunks.
                    writer = None;
                    0.0
                }
                (bytes, true) => bytes as f64 / f64::from(flash.read_per_second),
                (bytes, false) => {
                    let mut seconds = 0.0;
                    let writer = writer.get_or_insert_with(|| {
                        let mut writer = Writer::new(flash.page_bytes(room), flash.program_bytes);
                        seconds = flash.seconds(room, writer.append(SEED_BYTES));
                        writer
                    });
                    seconds + flash.seconds(room, writer.append(bytes))
                }
            };
            frame.work += (seconds * speed) as u64;
        }
        self
    }

    /// The frames of the upload.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Sends it over a line to an evaluator with a window of so many bytes that carries out
    /// so many instructions per second; infinitely many are computing that takes no time.
    #[must_use]
    pub fn over(&self, line: Line, window: u32, per_second: f64) -> Passage {
        let latency = line.latency.as_secs_f64();
        // When the client knows of all before, when the evaluator is free.
        let (mut client, mut evaluator) = (0.0, 0.0);
        for &(up, down) in &self.opening {
            client += line.takes(up) + line.takes(down) + 2.0 * latency;
            evaluator = client - latency;
        }
        let mut in_flight = Window::new(window);
        let mut acknowledgements = VecDeque::new();
        let mut arrived = VecDeque::<(f64, usize)>::new();
        let mut waiting = 0;
        let mut carried = 0.0;
        for frame in &self.frames {
            while (frame.waits && !in_flight.is_empty()) || !in_flight.has_room(frame.bytes) {
                let Some(heard) = acknowledgements.pop_front() else {
                    break;
                };
                client = f64::max(client, heard);
                in_flight.acknowledged();
            }
            client += line.takes(frame.bytes);
            carried += line.takes(frame.bytes);
            in_flight.sent(frame.bytes);
            let whole = client + latency;
            let begin = f64::max(whole, evaluator);
            // Those whose turn came before this one was there wait no more.
            while arrived.front().is_some_and(|&(taken, _)| taken <= whole) {
                arrived.pop_front();
            }
            if begin > whole {
                arrived.push_back((begin, frame.bytes));
            }
            waiting = waiting.max(arrived.iter().map(|(_, bytes)| bytes).sum());
            evaluator = begin + frame.work as f64 / per_second + line.takes(frame.answer);
            acknowledgements.push_back(evaluator + latency);
        }
        carried += line.takes(self.result);
        let seconds = evaluator + line.takes(self.result) + latency;
        Passage {
            seconds,
            share: carried / seconds,
            waiting,
        }
    }
}

/// The instructions that an evaluator carries out as it takes a program's tasks, placed at
/// the messages that they wait for: what a coefficient takes at its chunk, encoding weights
/// at the seed before the product, and the rest of a task, with those after it that wait
/// for nothing, at its last chunk.
struct Placed {
    costs: Vec<u64>,
    per_chunk: u64,
    frames: Vec<Frame>,
    /// Tasks whose instructions are placed.
    placed: usize,
}

impl Placed {
    /// Instructions of the tasks before `task` that are not placed go to the last frame.
    fn settle(&mut self, task: usize) {
        let due = self.costs.get(self.placed..task).unwrap_or_default();
        let due: u64 = due.iter().sum();
        self.placed = self.placed.max(task);
        if let Some(last) = self.frames.last_mut() {
            last.work += due;
        }
    }

    /// Takes instructions off a task's.
    fn take(&mut self, task: usize, most: u64) -> u64 {
        match self.costs.get_mut(task) {
            Some(cost) => {
                let taken = most.min(*cost);
                *cost -= taken;
                taken
            }
            None => 0,
        }
    }
}

/// The upload of one image: the keys in `kept` are kept already, those in `stored` once they
/// have come whole.
fn uploads(
    plan: &Plan<'_>,
    program: &Program<Vec<u8>>,
    kept: &[SwitchTarget],
    stored: &[SwitchTarget],
) -> Result<Vec<Frame>, EngineError> {
    let params = plan.params();
    let filler = filler();
    let prices = match plan.target() {
        Target::Stream { prices, .. } => prices,
        Target::Host => Prices::ARMV7E_M,
    };
    let mut costs = Vec::new();
    plan.costs(|_, cost| costs.push(cost as u64));
    let mut placed = Placed {
        costs,
        per_chunk: (CHUNK_COEFFS * prices.coefficient) as u64,
        frames: Vec::new(),
        placed: 0,
    };
    let targets: Vec<Option<SwitchTarget>> = program.key_uses().map(|task| task.op.key()).collect();
    let plain = plan.weights() == WeightMode::Plain;
    let seed = Request::Seed {
        seed: [0xA5; SEED_BYTES],
    };
    let seed = size(&seed);
    let answer = size(&Reply::Ack);
    let key = KeyId([0xA5; KEY_ID_BYTES]);
    let (mut kept, mut sent) = (kept.to_vec(), Vec::new());
    // As the client: what was sent and is due again may have been kept.
    let mut keeps = true;
    // The use whose key is written to the store.
    let mut writing = None;
    let mut waits = false;
    let mut cursor = Cursor::start(program);
    while let Some(upload) = cursor.upload(program) {
        let at = cursor.task();
        placed.settle(at);
        let task = program.task(at);
        let mut chunk_bytes = 0;
        let (bytes, work) = match upload {
            Upload::KeySeed(index) => match targets.get(index).copied().flatten() {
                Some(target) if kept.contains(&target) => {
                    let level = task.map_or(0, |task| usize::from(task.level));
                    // It is known of after a wait.
                    let is_new = sent.iter().position(|&of| of == target);
                    if let Some(at) = is_new {
                        sent.swap_remove(at);
                    }
                    let bytes = KeyShape::new(params, level, false).size().bytes;
                    cursor.pass_key(program);
                    placed.frames.push(Frame {
                        bytes: size(&Request::Kept { key }),
                        work: (CHECK * bytes) as u64,
                        answer,
                        waits: is_new.is_some(),
                        is_kept: true,
                        stored: bytes,
                    });
                    continue;
                }
                Some(target) => {
                    if sent.contains(&target) {
                        waits = core::mem::take(&mut keeps);
                    } else {
                        sent.push(target);
                    }
                    let widest = program.widest_use(target).map(|(widest, _)| widest);
                    if widest == Some(index) && stored.contains(&target) {
                        kept.push(target);
                        writing = Some(index);
                    }
                    (seed, 0)
                }
                None => (seed, 0),
            },
            Upload::InputSeed(_) => {
                let encodes = task.is_some_and(|task| {
                    let operand = Operand::Input;
                    matches!(task.op, Op::Product { operand: of, .. } if of == operand)
                });
                let streamed = task.map_or(0, |task| {
                    let chunks = (usize::from(task.level) + 1) * params.n() / CHUNK_COEFFS;
                    chunks as u64 * placed.per_chunk
                });
                let all = placed.costs.get(at).copied().unwrap_or_default();
                let work = match plain && encodes {
                    true => placed.take(at, all.saturating_sub(streamed)),
                    false => 0,
                };
                (seed, work)
            }
            Upload::FactorSeed(_) => (seed, 0),
            Upload::Chunk(item, offset) => {
                let limb = match item {
                    Item::Input { limb, .. }
                    | Item::Key { limb, .. }
                    | Item::Weight { limb, .. } => limb,
                };
                let chunk = packed_len(CHUNK_COEFFS, bits_of(params, limb.into())?);
                chunk_bytes = chunk;
                let request = Request::Data {
                    item,
                    offset: offset as u16,
                    bytes: filler.get(..chunk).unwrap_or_default(),
                };
                (size(&request), placed.take(at, placed.per_chunk))
            }
        };
        cursor.advance(program);
        let is_last = match upload {
            Upload::Chunk(Item::Key { key, .. }, _) => !matches!(
                cursor.upload(program),
                Some(Upload::Chunk(Item::Key { key: next, .. }, _)) if next == key
            ),
            _ => false,
        };
        let target = task.and_then(|task| task.op.key());
        let is_stored = is_last && target.is_some_and(|target| kept.contains(&target));
        placed.frames.push(Frame {
            bytes,
            work,
            answer: match is_stored {
                true => size(&Reply::Stored { key }),
                false => answer,
            },
            waits: core::mem::take(&mut waits),
            is_kept: false,
            stored: match upload {
                Upload::Chunk(Item::Key { key, .. }, _) if writing == Some(usize::from(key)) => {
                    chunk_bytes
                }
                _ => 0,
            },
        });
    }
    placed.settle(placed.costs.len());
    Ok(placed.frames)
}
