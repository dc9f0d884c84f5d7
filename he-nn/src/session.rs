//! The evaluator: a state machine that turns requests into replies, the same
//! on a board, in a process and in tests.
//!
//! Everything streams. An input chunk is multiplied by its weights and added
//! as it arrives; a chunk of a switching key is consumed by the running key
//! switch. The arena holds one ciphertext and one key switch's workspace
//! ([`crate::plan::arena_words`]); weights are read from the model (in flash
//! on a board) as 8-bit integers and encoded here.
//!
//! Whatever is wrong with a request is answered by [`Reply::Refused`], which
//! drops the running inference; the next [`Request::Begin`] works.

use crate::message::{
    CHUNK_COEFFS, Card, Item, MAX_CHUNK_BYTES, Memory, PROTOCOL_VERSION, Refusal, Reply, Request,
    SEED_BYTES, Stage, StageKind, Stages, TimeUnit,
};
use crate::model::{Model, TwoLayer};
use crate::packing;
use crate::plan::{BIAS_SHIFT, Cursor, Plan, PlanError, Step};
use crate::trace::{Off, Place, SpanKind, Tracer};
use core::mem::size_of;
use he_core::ckks::Ciphertext;
use he_core::ckks::encode::encode_in_place;
use he_core::ckks::evaluator::{
    Due, Switching, Workspace, add_encoded, multiply_encoded, rescale_probed, transform_encoded,
};
use he_core::error::Error;
use he_core::probe::{Probe, Work};
use he_core::ring::kernel;
use he_core::ring::sample::{Domain, Uniform, stream};
use he_core::wire::{pack, packed_len, unpack};

/// What a session asks of the machine that it runs on.
pub trait Platform {
    /// Name of the board.
    fn board(&self) -> &'static str;
    /// What [`Self::now`] counts.
    fn unit(&self) -> TimeUnit;
    /// A monotonic count.
    fn now(&mut self) -> u64;
    /// How much of the time since the last call went by in waiting for bytes.
    /// Only a tracing session asks.
    fn waited(&mut self) -> u64 {
        0
    }
    /// Memory figures up to now.
    fn memory(&mut self) -> Memory;
    /// Chunks that it can take before the first is acknowledged.
    fn window(&self) -> u8;
}

/// What an evaluator holds, as its card names it.
pub(crate) struct Held<'a> {
    pub(crate) model: &'a str,
    pub(crate) model_crc: u32,
    pub(crate) params: u32,
    pub(crate) plan: u32,
}

impl<'a> Held<'a> {
    /// The card that answers the greeting of a client of the same protocol.
    #[inline(always)]
    pub(crate) fn greet(self, client: u16, platform: &impl Platform) -> Result<Card<'a>, Refusal> {
        if client != PROTOCOL_VERSION {
            return Err(Refusal::Version {
                evaluator: PROTOCOL_VERSION,
                client,
            });
        }
        Ok(Card {
            version: PROTOCOL_VERSION,
            board: platform.board(),
            model: self.model,
            model_crc: self.model_crc,
            params: self.params,
            plan: self.plan,
            window: platform.window(),
            unit: platform.unit(),
        })
    }
}

/// An inference is of the plan that the evaluator has.
#[inline(always)]
pub(crate) const fn check_plan(evaluator: u32, client: u32) -> Result<(), Refusal> {
    if client == evaluator {
        return Ok(());
    }
    Err(Refusal::Plan { evaluator, client })
}

/// A running inference.
#[derive(Debug)]
struct Run {
    cursor: Cursor,
    /// Expands the uniform half of the item group in progress.
    seed: [u8; SEED_BYTES],
    /// Expands the limb in progress.
    uniform: Option<Uniform>,
    switching: Option<Switching>,
    stages: Stages,
}

/// The evaluator. Holds the model, the plan and the arena; no secret ever
/// comes here. `T` keeps the trace of an inference whose client asked for one.
#[derive(Debug)]
pub struct Session<'a, T = Off> {
    model: TwoLayer<'a>,
    plan: Plan,
    /// The one ciphertext: accumulator, then operand of every key switch.
    ct: Ciphertext<&'a mut [u32]>,
    /// Workspace of key switches, scratch of everything else.
    work: &'a mut [u32],
    run: Option<Run>,
    trace: Trace<T>,
}

#[derive(Debug)]
struct Trace<T> {
    tracer: T,
    /// The running inference is traced.
    on: bool,
}

impl<T: Tracer> Trace<T> {
    #[inline(always)]
    const fn is_on(&self) -> bool {
        T::ON && self.on
    }

    #[inline(always)]
    const fn watch<'w, P>(&'w mut self, platform: &'w mut P) -> Watch<'w, T, P> {
        Watch {
            trace: self,
            platform,
        }
    }
}

/// Clock and tracer, as the work sees them.
struct Watch<'w, T, P> {
    trace: &'w mut Trace<T>,
    platform: &'w mut P,
}

impl<T: Tracer, P: Platform> Watch<'_, T, P> {
    /// The work from here on is of this kind.
    #[inline(always)]
    fn mark(&mut self, kind: SpanKind) {
        if self.trace.is_on() {
            self.note(kind);
        }
    }

    #[inline(never)]
    fn note(&mut self, kind: SpanKind) {
        let tracer = &mut self.trace.tracer;
        if !tracer.again(kind) {
            tracer.mark(kind, self.platform.now());
        }
    }
}

impl<T: Tracer, P: Platform> Probe for Watch<'_, T, P> {
    #[inline(always)]
    fn begin(&mut self, work: Work) {
        self.mark(work.into());
    }
}

impl<'a> Session<'a> {
    /// Prepares an evaluator over `arena`.
    ///
    /// # Errors
    /// [`PlanError::Memory`] if the arena is shorter than
    /// [`Plan::arena_words`], [`PlanError::Architecture`] for a model that no
    /// plan was made for.
    pub fn new(plan: Plan, model: Model<'a>, arena: &'a mut [u32]) -> Result<Self, PlanError> {
        Session::traced(plan, model, arena, Off)
    }
}

impl<'a, T: Tracer> Session<'a, T> {
    /// As [`Session::new`], with a tracer.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn traced(
        plan: Plan,
        model: Model<'a>,
        arena: &'a mut [u32],
        tracer: T,
    ) -> Result<Self, PlanError> {
        let needed = plan.arena_words();
        let short = PlanError::Memory {
            needed: needed * size_of::<u32>(),
            available: size_of_val(arena),
        };
        let params = plan.params();
        let half = (plan.input_level() + 1) * params.n();
        let arena = arena.get_mut(..needed).ok_or(short)?;
        let (c0, rest) = arena.split_at_mut_checked(half).ok_or(short)?;
        let (c1, work) = rest.split_at_mut_checked(half).ok_or(short)?;
        let ct = Ciphertext::zero(params, plan.input_level(), plan.scales().sums1(), c0, c1)
            .map_err(|_| short)?;
        Ok(Self {
            model: model.two_layer().ok_or(PlanError::Architecture)?,
            plan,
            ct,
            work,
            run: None,
            trace: Trace { tracer, on: false },
        })
    }

    /// The plan it executes.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Answers one request.
    pub fn handle<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        if self.trace.is_on() {
            self.heard(&request, platform);
        }
        if let Err(refusal) = self.answer(request, platform, reply) {
            self.run = None;
            reply(Reply::Refused(refusal));
        }
        if self.trace.is_on() {
            let now = platform.now();
            if self.run.is_some() {
                self.trace.tracer.pause(now);
            } else {
                self.trace.tracer.end(now);
                self.trace.on = false;
            }
        }
    }

    /// Tells the tracer that a request came, and what it is for.
    fn heard<P: Platform>(&mut self, request: &Request<'_>, platform: &mut P) {
        let next = match (request, &self.run) {
            (Request::Seed { .. }, Some(run)) => {
                let mut cursor = run.cursor;
                cursor.advance(&self.plan);
                cursor.step(&self.plan)
            }
            (Request::Data { item, offset, .. }, _) => {
                Some(Step::Chunk(*item, usize::from(*offset)))
            }
            _ => None,
        };
        let tracer = &mut self.trace.tracer;
        if let Some(Step::Chunk(item, 0)) = next {
            tracer.group(Place::Item(item), platform.now());
        }
        let now = platform.now();
        tracer.resume(platform.waited(), now);
        tracer.mark(SpanKind::Decode, now);
    }

    /// Answers a frame that was not decodable: whatever it carried is lost, so
    /// a running inference is dropped.
    pub fn refuse_frame(&mut self, received: u32, reply: &mut impl FnMut(Reply<'_>)) {
        self.run = None;
        reply(Reply::Refused(Refusal::Frame { received }));
    }

    fn answer<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        match request {
            Request::Hello { version } => {
                let held = Held {
                    model: self.model.name(),
                    model_crc: self.model.crc(),
                    params: self.plan.params().fingerprint(),
                    plan: self.plan.fingerprint(),
                };
                reply(Reply::Hello(held.greet(version, platform)?));
            }
            Request::Begin { plan, trace } => {
                check_plan(self.plan.fingerprint(), plan)?;
                if trace && !T::ON {
                    return Err(Refusal::NoTracer);
                }
                self.ct
                    .reset(
                        self.plan.params(),
                        self.plan.input_level(),
                        self.plan.scales().sums1(),
                    )
                    .map_err(internal)?;
                self.run = Some(Run {
                    cursor: Cursor::start(),
                    seed: [0; SEED_BYTES],
                    uniform: None,
                    switching: None,
                    stages: Stages::new(),
                });
                if T::ON {
                    platform.waited();
                    self.trace.tracer.begin(platform.now());
                    self.trace.on = trace;
                }
                reply(Reply::Ready);
            }
            Request::Seed { seed } => self.take_seed(&seed, platform, reply)?,
            Request::Data {
                item,
                offset,
                bytes,
            } => {
                self.take_chunk(item, offset, bytes, platform, reply)?;
            }
            Request::Abort => {
                self.run = None;
                reply(Reply::Aborted);
            }
            Request::Trace => {
                if !T::ON {
                    return Err(Refusal::NoTracer);
                }
                if self.run.is_some() {
                    return Err(Refusal::NotExpected);
                }
                for span in self.trace.tracer.spans() {
                    reply(Reply::Span(span));
                }
                reply(Reply::Traced {
                    dropped: self.trace.tracer.dropped(),
                    own: self.trace.tracer.own(),
                });
            }
        }
        Ok(())
    }

    fn take_seed<P: Platform>(
        &mut self,
        seed: &[u8; SEED_BYTES],
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        let start = platform.now();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let kind = match run.cursor.step(&self.plan) {
            Some(Step::InputSeed(index)) => {
                self.trace.watch(platform).mark(SpanKind::Encode);
                encode_slots(
                    &self.plan,
                    self.plan.scales().weights1,
                    self.work,
                    |re, im| packing::weight1_slots(&self.plan, &self.model, index, re, im),
                )?;
                StageKind::Layer1
            }
            Some(Step::KeySeed(key)) => {
                self.trace.watch(platform).mark(SpanKind::Digit);
                let used = self.plan.key_use(key).ok_or(Refusal::NotExpected)?;
                let switching = Switching::start(self.plan.params(), used.op, &mut self.ct);
                run.switching = Some(switching.map_err(internal)?);
                self.between_key_limbs(key as u8, used.level, platform)?;
                used.stage
            }
            _ => return Err(Refusal::NotExpected),
        };
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.seed = *seed;
        run.cursor.advance(&self.plan);
        run.account(kind, platform.now().saturating_sub(start));
        self.trace.watch(platform).mark(SpanKind::Send);
        reply(Reply::Ack);
        Ok(())
    }

    fn take_chunk<P: Platform>(
        &mut self,
        item: Item,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        let start = platform.now();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let Some(Step::Chunk(expected, expected_offset)) = run.cursor.step(&self.plan) else {
            return Err(Refusal::NotExpected);
        };
        if (item, usize::from(offset)) != (expected, expected_offset) {
            return Err(Refusal::Order {
                expected,
                expected_offset: expected_offset as u16,
                got: item,
                got_offset: offset,
            });
        }
        let kind = self.consume(item, offset, bytes, platform)?;
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.cursor.advance(&self.plan);
        let after = run.cursor.step(&self.plan);
        run.account(kind, platform.now().saturating_sub(start));
        let ended = match (item, after) {
            (Item::Input { .. }, Some(Step::KeySeed(_))) => Some(StageKind::Layer1),
            (Item::Key { key, .. }, None | Some(Step::KeySeed(_)))
                if self.plan.ends_stage(usize::from(key)) =>
            {
                Some(kind)
            }
            _ => None,
        };
        if let Some(stage) = ended {
            self.between_stages(stage, platform)?;
        }
        self.trace.watch(platform).mark(SpanKind::Send);
        reply(Reply::Ack);
        if after.is_none() {
            self.send_result(platform, reply)
        } else {
            Ok(())
        }
    }

    /// Takes what a chunk carries, and does what can be done before the next.
    fn consume<P: Platform>(
        &mut self,
        item: Item,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
    ) -> Result<StageKind, Refusal> {
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let (limb, digit, domain) = match item {
            Item::Input { limb, .. } => (usize::from(limb), 0, Domain::Ciphertext),
            Item::Key { key, limb, digit } => {
                let used = self.plan.key_use(usize::from(key)).ok_or(Refusal::Model)?;
                let domain = used.op.target().domain();
                (usize::from(limb), usize::from(digit), domain)
            }
            // Of circuits; no schedule of two layers has one.
            Item::Weight { .. } => return Err(Refusal::NotExpected),
        };
        let params = self.plan.params();
        let modulus = params.prime(limb).map_err(internal)?.modulus();
        let length = packed_len(CHUNK_COEFFS, modulus.bits());
        if bytes.len() != length {
            let got = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            return Err(Refusal::ChunkLength {
                expected: length as u16,
                got,
            });
        }
        if offset == 0 {
            run.uniform = Some(Uniform::new(
                &run.seed,
                stream(domain, digit, limb),
                modulus,
            ));
        }
        match item {
            Item::Input { .. } => {
                if offset == 0 {
                    let (buffer, weights) = two_limbs(self.work, params.n())?;
                    let coefficients = bytemuck::cast_slice(buffer);
                    let mut watch = self.trace.watch(platform);
                    transform_encoded(params, limb, coefficients, weights, &mut watch)
                        .map_err(internal)?;
                }
                self.multiply(item, offset, bytes, platform)?;
                Ok(StageKind::Layer1)
            }
            Item::Key { key, .. } => {
                let used = self.plan.key_use(usize::from(key)).ok_or(Refusal::Model)?;
                self.multiply(item, offset, bytes, platform)?;
                self.between_key_limbs(key, used.level, platform)?;
                Ok(used.stage)
            }
            Item::Weight { .. } => Err(Refusal::NotExpected),
        }
    }

    /// What the running key switch does before it can take more of its key:
    /// the next digit, or after the last limb the division.
    fn between_key_limbs<P: Platform>(
        &mut self,
        key: u8,
        level: usize,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let params = self.plan.params();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let switching = run.switching.as_mut().ok_or(Refusal::NotExpected)?;
        let mut work = Workspace::new(params, level, self.work).map_err(internal)?;
        let ct = &mut self.ct;
        match switching.due() {
            Some(Due::Digit(at)) => {
                let (limb, digit) = (at.target as u8, at.digit as u8);
                if self.trace.is_on() {
                    let place = Place::Item(Item::Key { key, limb, digit });
                    self.trace.tracer.group(place, platform.now());
                    self.trace.tracer.mark(SpanKind::Digit, platform.now());
                }
                let mut watch = self.trace.watch(platform);
                switching.digit(params, ct, &mut work, &mut watch)
            }
            Some(Due::Division) => {
                let mut watch = self.trace.watch(platform);
                switching.divide(params, ct, &mut work, &mut watch)
            }
            Some(Due::Key(_)) | None => Ok(()),
        }
        .map_err(internal)
    }

    /// Unpacks and expands a chunk, multiplies and adds. Apart, so that its
    /// buffers are on the stack only as long as that takes.
    #[inline(never)]
    fn multiply<P: Platform>(
        &mut self,
        item: Item,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let mut watch = self.trace.watch(platform);
        watch.mark(SpanKind::Decode);
        let (Item::Input { limb, .. } | Item::Key { limb, .. } | Item::Weight { limb, .. }) = item;
        let limb = usize::from(limb);
        let params = self.plan.params();
        let modulus = params.prime(limb).map_err(internal)?.modulus();
        let (mut sent, mut expanded) = ([0; CHUNK_COEFFS], [0; CHUNK_COEFFS]);
        unpack(bytes, modulus, &mut sent).map_err(|e| match e {
            Error::Residue { index, .. } => Refusal::Residue {
                item,
                index: offset.saturating_add(index as u16),
            },
            _ => Refusal::Model,
        })?;
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let uniform = run.uniform.as_mut().ok_or(Refusal::NotExpected)?;
        watch.mark(SpanKind::Expand);
        uniform.fill(&mut expanded);
        match item {
            Item::Input { .. } => {
                watch.mark(SpanKind::MultiplyAccumulate);
                let n = params.n();
                let (_, weights) = two_limbs(self.work, n)?;
                let first = usize::from(offset);
                let range = first..first + CHUNK_COEFFS;
                let weights = weights.get(range).ok_or(Refusal::Model)?;
                let first = limb * n + first;
                let (c0, c1) = self.ct.halves_mut();
                let [acc0, acc1] = [c0, c1].map(|half| half.get_mut(first..first + CHUNK_COEFFS));
                let (Some(acc0), Some(acc1)) = (acc0, acc1) else {
                    return Err(Refusal::Model);
                };
                kernel::mul_acc_two(acc0, acc1, &sent, &expanded, weights, modulus);
                Ok(())
            }
            Item::Key { key, .. } => {
                watch.mark(SpanKind::KeyProduct);
                let key = self.plan.key_use(usize::from(key)).ok_or(Refusal::Model)?;
                let switching = run.switching.as_mut().ok_or(Refusal::NotExpected)?;
                let mut work = Workspace::new(params, key.level, self.work).map_err(internal)?;
                switching
                    .absorb(params, &mut self.ct, &mut work, &sent, &expanded)
                    .map_err(internal)
            }
            Item::Weight { .. } => Err(Refusal::NotExpected),
        }
    }

    /// The work that needs no upload, after the stage `ended`.
    fn between_stages<P: Platform>(
        &mut self,
        ended: StageKind,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        use StageKind as S;
        match ended {
            S::Layer1 => self.stage(
                S::Layer1,
                SpanKind::Encode,
                platform,
                |session, platform| session.add_bias(packing::bias1_slots, platform),
            ),
            S::Sum1 => self.stage(S::Rescale1, SpanKind::Rescale, platform, Self::rescale),
            S::Activation => {
                self.stage(S::Rescale2, SpanKind::Rescale, platform, Self::rescale)?;
                self.stage(S::Layer2, SpanKind::Encode, platform, Self::layer2)
            }
            S::Sum2 => self.stage(S::Rescale3, SpanKind::Rescale, platform, Self::rescale),
            S::Rescale1 | S::Rescale2 | S::Layer2 | S::Rescale3 | S::Step(_) => Ok(()),
        }
    }

    /// Does the work of a stage, or the end of it, which begins with `first`,
    /// and accounts for its time.
    fn stage<P: Platform>(
        &mut self,
        kind: StageKind,
        first: SpanKind,
        platform: &mut P,
        work: impl FnOnce(&mut Self, &mut P) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let start = platform.now();
        if self.trace.is_on() {
            self.trace.tracer.group(Place::Stage(kind), start);
            self.trace.tracer.mark(first, platform.now());
        }
        work(self, platform)?;
        if let Some(run) = &mut self.run {
            run.account(kind, platform.now().saturating_sub(start));
        }
        Ok(())
    }

    /// Adds the constants that `fill` writes into the slots.
    fn add_bias<P: Platform>(
        &mut self,
        fill: fn(&Plan, &TwoLayer<'_>, &mut [f32]),
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let mut watch = self.trace.watch(platform);
        watch.mark(SpanKind::Encode);
        let scale = self.ct.scale() / f64::from(1u32 << BIAS_SHIFT);
        let (coefficients, scratch) = encode_slots(&self.plan, scale, self.work, |re, _| {
            fill(&self.plan, &self.model, re);
        })?;
        let params = self.plan.params();
        let ct = &mut self.ct;
        add_encoded(params, ct, coefficients, BIAS_SHIFT, scratch, &mut watch).map_err(internal)
    }

    fn rescale<P: Platform>(&mut self, platform: &mut P) -> Result<(), Refusal> {
        let params = self.plan.params();
        let scratch = self.work.get_mut(..params.n()).ok_or(Refusal::Model)?;
        let mut watch = self.trace.watch(platform);
        rescale_probed(params, &mut self.ct, scratch, &mut watch).map_err(internal)
    }

    fn layer2<P: Platform>(&mut self, platform: &mut P) -> Result<(), Refusal> {
        let mut watch = self.trace.watch(platform);
        watch.mark(SpanKind::Encode);
        let scale = self.plan.scales().weights2;
        let (coefficients, scratch) = encode_slots(&self.plan, scale, self.work, |re, _| {
            packing::weight2_slots(&self.plan, &self.model, re);
        })?;
        let params = self.plan.params();
        let ct = &mut self.ct;
        multiply_encoded(params, ct, coefficients, scale, scratch, &mut watch).map_err(internal)?;
        self.add_bias(packing::bias2_slots, platform)
    }

    /// Apart for the same reason as [`Self::consume`].
    #[inline(never)]
    fn send_result<P: Platform>(
        &mut self,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        let params = self.plan.params();
        let mut packed = [0; MAX_CHUNK_BYTES];
        let (c0, c1) = self.ct.halves();
        for (part, half) in (0..).zip([c0, c1]) {
            for (limb, words) in half.chunks_exact(params.n()).enumerate() {
                let modulus = params.prime(limb).map_err(internal)?.modulus();
                let length = packed_len(CHUNK_COEFFS, modulus.bits());
                let bytes = packed.get_mut(..length).ok_or(Refusal::Model)?;
                for (i, chunk) in words.chunks_exact(CHUNK_COEFFS).enumerate() {
                    pack(chunk, modulus, bytes).map_err(internal)?;
                    let offset = (i * CHUNK_COEFFS) as u16;
                    reply(Reply::Result {
                        part,
                        limb: limb as u8,
                        offset,
                        bytes,
                    });
                }
            }
        }
        let stages = self.run.take().map_or_else(Stages::new, |run| run.stages);
        let scale_bits = self.ct.scale().to_bits();
        reply(Reply::Done {
            scale_bits,
            memory: platform.memory(),
            stages,
        });
        Ok(())
    }
}

impl Run {
    /// Adds time to a stage. There is room for every kind.
    fn account(&mut self, kind: StageKind, time: u64) {
        match self.stages.iter_mut().find(|stage| stage.kind == kind) {
            Some(stage) => stage.time = stage.time.saturating_add(time),
            None => {
                let _ = self.stages.push(Stage { kind, time });
            }
        }
    }
}

/// Encodes the slots whose real and imaginary parts `fill` writes (the
/// imaginary ones are zero before): their coefficients (integers in `f32`) take
/// the first limb of `work`, the second is scratch.
fn encode_slots<'w>(
    plan: &Plan,
    scale: f64,
    work: &'w mut [u32],
    fill: impl FnOnce(&mut [f32], &mut [f32]),
) -> Result<(&'w [f32], &'w mut [u32]), Refusal> {
    let params = plan.params();
    let (buffer, scratch) = two_limbs(work, params.n())?;
    let coefficients: &mut [f32] = bytemuck::cast_slice_mut(buffer);
    let halves = coefficients.split_at_mut_checked(params.slots());
    let (re, im) = halves.ok_or(Refusal::Model)?;
    im.fill(0.0);
    fill(re, im);
    encode_in_place(coefficients, scale).map_err(internal)?;
    Ok((coefficients, scratch))
}

/// The first two limbs of the workspace.
fn two_limbs(work: &mut [u32], n: usize) -> Result<(&mut [u32], &mut [u32]), Refusal> {
    let (first, rest) = work.split_at_mut_checked(n).ok_or(Refusal::Model)?;
    Ok((first, rest.get_mut(..n).ok_or(Refusal::Model)?))
}

/// Errors that a checked plan and model exclude; reported, not swallowed.
fn internal(_: Error) -> Refusal {
    Refusal::Model
}
