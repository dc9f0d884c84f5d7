//! A sensor on a Cortex-M board: encodes and encrypts under a key that is made
//! here and never leaves (`he_nn::sensor`).
//!
//! Board, faults, log and stack are the evaluator's; what differs is `device`.
//! On a host this is a program that says where the real one is built.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", not(target_abi = "eabihf")))]
compile_error!(
    "a sensor computes on secrets in f32, and without an FPU the time of that depends on them: \
     build it for a board with a single-precision FPU"
);

#[cfg(target_os = "none")]
#[cfg_attr(
    feature = "trace",
    expect(dead_code, reason = "a sensor keeps no traces")
)]
#[path = "../board/mod.rs"]
mod board;
#[cfg(target_os = "none")]
mod device {
    //! The sensor as a program of the board.

    use cortex_m_rt::entry;
    use he_core::params::N4096_DEPTH3;
    use he_nn::message::{Memory, TimeUnit};
    #[cfg(not(feature = "masked-key"))]
    use he_nn::sensor::arena_words;
    #[cfg(feature = "masked-key")]
    use he_nn::sensor::masked_arena_words as arena_words;
    use he_nn::sensor::{ENTROPY_BYTES, Platform, Reply, Request};

    use crate::board;
    use crate::entropy;
    use crate::restart::restart;
    use crate::serve::{self, Program};
    use crate::start::start;

    /// Statics that do not fit the RAM are a link error.
    const ARENA_WORDS: usize = arena_words(&N4096_DEPTH3);

    type Sensor<'a> = he_nn::sensor::Sensor<'a, { cfg!(feature = "masked-key") }>;

    /// What the sensor asks of the board that it runs on.
    struct Device;

    impl Platform for Device {
        fn board(&self) -> &'static str {
            board::NAME
        }

        fn unit(&self) -> TimeUnit {
            board::TIME_UNIT
        }

        fn now(&mut self) -> u64 {
            board::now()
        }

        fn memory(&mut self) -> Memory {
            serve::memory()
        }

        fn host_supplies(&self) -> bool {
            // A real board's entropy must not come from whoever is at the other end of its
            // line, and the FPGA board cannot be told from the emulator: an image for that
            // is built with the feature.
            cfg!(feature = "host-entropy") && matches!(board::TIME_UNIT, TimeUnit::Instructions)
        }

        fn entropy(&mut self) -> Option<[u8; ENTROPY_BYTES]> {
            entropy::draw()
        }
    }

    impl Program for Sensor<'_> {
        type Request<'a> = Request<'a>;
        type Reply<'a> = Reply<'a>;

        const RECEIVES_SECRETS: bool = true;

        fn handle(&mut self, request: Request<'_>, reply: &mut impl for<'r> FnMut(Reply<'r>)) {
            Sensor::handle(self, request, &mut Device, reply);
        }

        fn refuse_frame(&mut self, received: u32, reply: &mut impl for<'r> FnMut(Reply<'r>)) {
            Sensor::refuse_frame(self, received, reply);
        }
    }

    /// A sensor in the arena, once.
    fn sensor() -> Option<Sensor<'static>> {
        let arena = cortex_m::singleton!(: [u32; ARENA_WORDS] = [0; ARENA_WORDS])?;
        #[cfg(feature = "masked-key")]
        let sensor = Sensor::masked(&N4096_DEPTH3, arena);
        #[cfg(not(feature = "masked-key"))]
        let sensor = Sensor::new(&N4096_DEPTH3, arena);
        sensor.ok()
    }

    #[entry]
    fn main() -> ! {
        start("a sensor", || match sensor() {
            Some(sensor) => sensor,
            // Only a second call gets here: the arena has the length that a sensor
            // asks for.
            None => restart(),
        })
    }
}
#[cfg(target_os = "none")]
mod protocol {
    //! As `../protocol.rs`, of the sensor.

    pub(crate) use he_nn::sensor::Reply;

    /// As many bytes as the largest frame has, or more.
    pub(crate) const BUFFER_BYTES: usize = he_nn::link::MAX_FRAME.next_power_of_two();

    /// One request is answered before the next is sent.
    pub(crate) const WINDOW: u32 = he_nn::link::MAX_FRAME as u32;
}
#[cfg(target_os = "none")]
#[path = "../entropy.rs"]
mod entropy;
#[cfg(target_os = "none")]
#[path = "../fault.rs"]
mod fault;
#[cfg(target_os = "none")]
#[path = "../log.rs"]
mod log;
#[cfg(target_os = "none")]
#[path = "../restart.rs"]
mod restart;
#[cfg(target_os = "none")]
#[path = "../serve.rs"]
mod serve;
#[cfg(target_os = "none")]
#[path = "../stack.rs"]
mod stack;
#[cfg(target_os = "none")]
#[path = "../start.rs"]
mod start;

#[cfg(not(target_os = "none"))]
#[expect(
    clippy::print_stderr,
    reason = "the one sentence that this program has to say"
)]
fn main() -> std::process::ExitCode {
    eprintln!(
        "The sensor runs on a board: start it in an emulator with `he-edge sense --device qemu`, \
         or build it by hand as firmware/README.md says."
    );
    std::process::ExitCode::FAILURE
}
