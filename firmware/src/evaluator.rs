//! A stand-in for the session: acknowledges everything and computes nothing.

use he_nn::message::{
    Card, MAX_STAGES, Memory, PROTOCOL_VERSION, Refusal, Reply, Request, Stage, StageKind, TimeUnit,
};

/// What a session asks of the machine that it runs on.
pub(crate) trait Platform {
    fn board(&self) -> &'static str;
    fn unit(&self) -> TimeUnit;
    fn now(&mut self) -> u64;
    fn memory(&mut self) -> Memory;
    fn window(&self) -> u8;
}

pub(crate) struct Evaluator {
    chunks: u32,
    bytes: u32,
}

impl Evaluator {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: 0,
            bytes: 0,
        }
    }

    pub(crate) fn handle<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        match request {
            Request::Hello { version } if version != PROTOCOL_VERSION => {
                let evaluator = PROTOCOL_VERSION;
                reply(Reply::Refused(Refusal::Version {
                    evaluator,
                    client: version,
                }));
            }
            Request::Hello { .. } => reply(Reply::Hello(Card {
                version: PROTOCOL_VERSION,
                board: platform.board(),
                model: "",
                model_crc: 0,
                params: 0,
                plan: 0,
                window: platform.window(),
                unit: platform.unit(),
            })),
            Request::Begin { .. } => {
                *self = Self::new();
                reply(Reply::Ready);
            }
            Request::Seed { .. } => reply(Reply::Ack),
            Request::Data { bytes, .. } => {
                self.chunks += 1;
                self.bytes = self.bytes.wrapping_add(bytes.len() as u32);
                reply(Reply::Ack);
            }
            Request::Abort => {
                // The counts come back where a test can read them.
                let memory = platform.memory();
                let scale_bits = u64::from(self.chunks) << 32 | u64::from(self.bytes);
                let mut stages = [None; MAX_STAGES];
                stages[0] = Some(Stage {
                    kind: StageKind::Layer1,
                    time: platform.now(),
                });
                reply(Reply::Done {
                    scale_bits,
                    memory,
                    stages,
                });
                reply(Reply::Aborted);
            }
        }
    }

    pub(crate) fn refuse_frame(&mut self, received: u32, reply: &mut impl FnMut(Reply<'_>)) {
        *self = Self::new();
        reply(Reply::Refused(Refusal::Frame { received }));
    }
}
