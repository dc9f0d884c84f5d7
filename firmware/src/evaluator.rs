//! The session of this board: its model, its parameters and its arena.

use he_core::params::N4096_DEPTH3;
use he_nn::message::{Refusal, Reply, Request};
use he_nn::model::Model;
use he_nn::plan::{Plan, arena_words};
pub(crate) use he_nn::session::Platform;
use he_nn::session::Session;

/// The model file, as the build was told.
static MODEL: &[u8] = include_bytes!(env!("HE_EDGE_MODEL"));

/// Everything that an inference keeps, in static memory.
const ARENA_WORDS: usize = arena_words(&N4096_DEPTH3);

/// The session, or nothing where the model in the image is unusable.
pub(crate) struct Evaluator(Option<Session<'static>>);

impl Evaluator {
    /// To be called once; a second evaluator would find no arena.
    pub(crate) fn new() -> Self {
        let session = Self::session();
        if session.is_none() {
            defmt::error!("the model in this image cannot be evaluated on this board");
        }
        Self(session)
    }

    fn session() -> Option<Session<'static>> {
        let arena = cortex_m::singleton!(: [u32; ARENA_WORDS] = [0; ARENA_WORDS])?;
        let model = Model::parse(MODEL).ok()?;
        let plan = Plan::new(&N4096_DEPTH3, &model).ok()?;
        Session::new(plan, model, arena).ok()
    }

    pub(crate) fn handle(
        &mut self,
        request: Request<'_>,
        platform: &mut impl Platform,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        match &mut self.0 {
            Some(session) => session.handle(request, platform, reply),
            None => reply(Reply::Refused(Refusal::Model)),
        }
    }

    pub(crate) fn refuse_frame(&mut self, received: u32, reply: &mut impl FnMut(Reply<'_>)) {
        match &mut self.0 {
            Some(session) => session.refuse_frame(received, reply),
            None => reply(Reply::Refused(Refusal::Frame { received })),
        }
    }
}
