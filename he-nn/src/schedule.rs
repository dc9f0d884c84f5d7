//! What a client sends when: both sides walk through the tasks of a program.

use crate::message::{CHUNK_COEFFS, Item};
use crate::plan::{Streams, Task};
use crate::program::Program;
use he_core::rlwe::KeyLimb;

/// What the client sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// The seed of input ciphertext `0`, `1`, ..
    InputSeed(usize),
    /// The seed of encrypted factor `0`, `1`, ..
    FactorSeed(usize),
    /// The seed of key use `0`, `1`, ..
    KeySeed(usize),
    /// A chunk.
    Chunk(Item, usize),
}

/// Walks through the upload of one sample; both sides hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The task that waits.
    task: usize,
    place: Place,
    /// Of a ciphertext, only the target counts.
    limb: KeyLimb,
    offset: usize,
    /// Inputs, factors and keys that are complete.
    inputs: usize,
    factors: usize,
    keys: usize,
}

/// Of the current task's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The seed of the input or key.
    Seed,
    FactorSeed,
    /// A chunk of the input or key.
    Chunk,
    FactorChunk,
}

impl Cursor {
    /// At the first message.
    #[must_use]
    pub fn start<B: AsRef<[u8]>>(program: &Program<B>) -> Self {
        let mut cursor = Self {
            task: 0,
            place: Place::Seed,
            limb: KeyLimb::FIRST,
            offset: 0,
            inputs: 0,
            factors: 0,
            keys: 0,
        };
        cursor.settle(program);
        cursor
    }

    /// The task that waits for something; as many as there are at the end.
    #[must_use]
    pub const fn task(&self) -> usize {
        self.task
    }

    fn current<B: AsRef<[u8]>>(&self, program: &Program<B>) -> Option<(Task, Streams)> {
        let task = program.task(self.task)?;
        Some((task, program.streams(task.op)))
    }

    /// Goes on to the next task that waits for anything.
    fn settle<B: AsRef<[u8]>>(&mut self, program: &Program<B>) {
        while let Some((_, streams)) = self.current(program) {
            if streams.any() {
                self.place = if streams.input || streams.key {
                    Place::Seed
                } else {
                    Place::FactorSeed
                };
                self.limb = KeyLimb::FIRST;
                self.offset = 0;
                return;
            }
            self.task += 1;
        }
    }

    /// What comes next, `None` at the end.
    #[must_use]
    pub fn upload<B: AsRef<[u8]>>(&self, program: &Program<B>) -> Option<Upload> {
        self.due(program).map(|(_, upload)| upload)
    }

    /// All that a client sends for one sample, in order.
    pub fn uploads<B: AsRef<[u8]>>(program: &Program<B>) -> impl Iterator<Item = Upload> {
        let mut cursor = Self::start(program);
        core::iter::from_fn(move || {
            let upload = cursor.upload(program)?;
            cursor.advance(program);
            Some(upload)
        })
    }

    /// The task that waits, and what comes next for it; `None` at the end.
    pub(crate) fn due<B: AsRef<[u8]>>(&self, program: &Program<B>) -> Option<(Task, Upload)> {
        let (task, streams) = self.current(program)?;
        let (limb, digit) = (self.limb.target as u8, self.limb.digit as u8);
        let item = match self.place {
            Place::Seed if streams.key => return Some((task, Upload::KeySeed(self.keys))),
            Place::Seed => return Some((task, Upload::InputSeed(self.inputs))),
            Place::FactorSeed => return Some((task, Upload::FactorSeed(self.factors))),
            Place::Chunk if streams.key => Item::Key {
                key: self.keys as u16,
                limb,
                digit,
            },
            Place::Chunk => Item::Input {
                ciphertext: self.inputs as u16,
                limb,
            },
            Place::FactorChunk => Item::Weight {
                factor: self.factors as u16,
                limb,
            },
        };
        Some((task, Upload::Chunk(item, self.offset)))
    }

    /// Moves past it.
    pub fn advance<B: AsRef<[u8]>>(&mut self, program: &Program<B>) {
        let Some((task, streams)) = self.current(program) else {
            return;
        };
        let chunk = if streams.input || streams.key {
            Place::Chunk
        } else {
            Place::FactorChunk
        };
        match self.place {
            Place::Seed if streams.seed_alone => self.next_task(program, streams),
            Place::Seed if streams.factor => self.place = Place::FactorSeed,
            Place::Seed | Place::FactorSeed => self.place = chunk,
            // The factor's chunk of the same coefficients.
            Place::Chunk if streams.factor => self.place = Place::FactorChunk,
            Place::Chunk | Place::FactorChunk => {
                self.place = chunk;
                self.next_chunk(program, task, streams);
            }
        }
    }

    /// Moves past a whole key whose seed is due: it is not streamed.
    pub fn pass_key<B: AsRef<[u8]>>(&mut self, program: &Program<B>) {
        if let Some(Upload::KeySeed(_)) = self.upload(program) {
            self.keys += 1;
            self.task += 1;
            self.settle(program);
        }
    }

    fn next_task<B: AsRef<[u8]>>(&mut self, program: &Program<B>, streams: Streams) {
        self.inputs += usize::from(streams.input);
        self.factors += usize::from(streams.factor);
        self.keys += usize::from(streams.key);
        self.task += 1;
        self.settle(program);
    }

    fn next_chunk<B: AsRef<[u8]>>(&mut self, program: &Program<B>, task: Task, streams: Streams) {
        self.offset += CHUNK_COEFFS;
        if self.offset < program.params().n() {
            return;
        }
        self.offset = 0;
        let level = usize::from(task.level);
        let next = if streams.key {
            self.limb.next(program.params(), level)
        } else if self.limb.target < level {
            Some(KeyLimb {
                target: self.limb.target + 1,
                ..self.limb
            })
        } else {
            None
        };
        if let Some(next) = next {
            self.limb = next;
            return;
        }
        self.next_task(program, streams);
    }
}
