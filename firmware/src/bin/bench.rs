//! Instruction counts of the inner loops on the emulated board, and their
//! equality with the portable kernels.
//!
//! Lines on UART0: `count NAME ITEMS INSTRUCTIONS`, `equal NAME`, `differs
//! NAME`, and `done` at the end; the emulator then exits. `he-edge
//! bench` shows them, and `tests/tests/board_counts.rs` compares the counts with
//! `firmware/benches/counts-mps2-an386.csv`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[expect(dead_code, reason = "other programs have a command line")]
#[path = "../emulated.rs"]
mod emulated;

#[cfg(target_os = "none")]
mod board {
    use core::convert::Infallible;
    use core::hint::black_box;

    use chacha20::ChaCha8Rng;
    use cortex_m::peripheral::syst::SystClkSource;
    use cortex_m::peripheral::{Peripherals, SYST};
    use cortex_m_rt::entry;
    use he_core::arith::Modulus;
    use he_core::benchmarks::{self, Operation, Operations};
    use he_core::ckks::encode::encode_in_place;
    use he_core::params::{N4096_DEPTH3, Params};
    use he_core::ring::kernel;
    use he_core::ring::kernel::conformance::{self, Current, Difference, Pair, Portable};
    use he_core::ring::sample::{self, Uniform};
    use he_core::ring::{automorphism, ntt};
    use he_core::wire;
    use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

    use crate::emulated::{self, PSRAM, psram, say};

    /// The emulator executes this many instructions in a tick of SysTick.
    const INSTRUCTIONS_PER_TICK: u32 = if cfg!(board = "mps2-an505") { 50 } else { 40 };
    const RELOAD: u32 = 0x00FF_FFFF;

    /// Instructions of `f`, counted in steps of that: `rounds` runs are counted
    /// together.
    fn count(name: &str, items: u32, rounds: u32, mut f: impl FnMut()) {
        let start = SYST::get_current();
        for _ in 0..rounds {
            f();
        }
        let ticks = start.wrapping_sub(SYST::get_current()) & RELOAD;
        say!(
            "count {name} {items} {}",
            ticks * INSTRUCTIONS_PER_TICK / rounds
        );
    }

    fn equal(name: &str, detail: u32, same: bool) {
        if same {
            say!("equal {name} {detail}");
        } else {
            say!("differs {name} {detail}");
        }
    }

    /// Words below `q` from a linear congruential generator.
    fn random(out: &mut [u32], q: u32, seed: u64) {
        let mut x = seed;
        for o in out {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *o = (((x >> 32) * u64::from(q)) >> 32) as u32;
        }
    }

    /// Words that cost next to nothing, in place of a generator.
    struct Counter(u32);

    impl TryRng for Counter {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.0 = self.0.wrapping_add(0x9E37_79B9);
            Ok(self.0)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let low = self.try_next_u32()?;
            Ok(u64::from(low) << 32 | u64::from(!low))
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            bytes.fill(self.try_next_u32()? as u8);
            Ok(())
        }
    }

    impl TryCryptoRng for Counter {}

    /// FNV-1a over the integers.
    fn checksum(values: &[f32]) -> u32 {
        values.iter().fold(0x811c_9dc5, |h, &x| {
            (h ^ x as i32 as u32).wrapping_mul(0x0100_0193)
        })
    }

    const MAX_N: usize = 8192;
    const N: usize = 4096;

    struct Memory {
        a: [u32; MAX_N],
        b: [u32; MAX_N],
        c: [u32; MAX_N],
        d: [u32; MAX_N],
        e: [u32; MAX_N],
        f: [u32; MAX_N],
        z: [i32; MAX_N],
        wide: [i64; 256],
    }

    fn counts(mem: &mut Memory, params: &Params) {
        for (name, limb) in [("27", 0), ("20", 1)] {
            prime_counts(mem, params, name, limb);
        }
        let Memory { a, b, .. } = mem;
        let [a, b] = [a, b].map(|x| &mut x[..N]);
        count("automorphism-ntt", N as u32, 4, || {
            automorphism::ntt(a, b, 25).unwrap()
        });
        sampler_counts(a);
        encoder_counts(mem, params);
    }

    /// What is done modulo one prime; `name` is its width.
    fn prime_counts(mem: &mut Memory, params: &Params, name: &str, limb: usize) {
        let Memory { a, b, c, d, e, .. } = mem;
        let [a, b, c, d, e] = [a, b, c, d, e].map(|x| &mut x[..N]);
        let p = params.prime(limb).unwrap();
        let m = p.modulus();
        random(a, m.value(), 1);
        let mut name_of = [0u8; 32];
        let mut named = |what: &str, items: u32, f: &mut dyn FnMut()| {
            let text = {
                let bytes = what.bytes().chain("-".bytes()).chain(name.bytes());
                let mut len = 0;
                for (o, b) in name_of.iter_mut().zip(bytes) {
                    *o = b;
                    len += 1;
                }
                core::str::from_utf8(&name_of[..len]).unwrap()
            };
            count(text, items, 4, f);
        };
        named("ntt-forward", 6 * N as u32, &mut || {
            ntt::forward(a, p).unwrap()
        });
        named("ntt-inverse", 6 * N as u32, &mut || {
            ntt::inverse(a, p).unwrap()
        });
        random(b, m.value(), 2);
        random(c, m.value(), 3);
        named("mul-acc", N as u32, &mut || kernel::mul_acc(a, b, c, m));
        named("mul-acc-two", 2 * N as u32, &mut || {
            kernel::mul_acc_two(a, b, c, d, e, m)
        });
        named("mul-sub", N as u32, &mut || kernel::mul_sub(a, b, c, m));
        named("mul", N as u32, &mut || kernel::mul(a, b, m));
        named("sub-scale", N as u32, &mut || {
            kernel::sub_scale(a, b, m.r2(), m)
        });
        named("add", N as u32, &mut || kernel::add(a, b, m));
        named("square", N as u32, &mut || kernel::square(a, b, c, m));
        let from = params.prime(if limb == 0 { 1 } else { 0 }).unwrap();
        random(a, from.modulus().value(), 4);
        named("lift", N as u32, &mut || {
            kernel::lift(a, from.modulus(), b, m.r2(), m)
        });
        let mut uniform = Uniform::new(&[7; 32], 3, m);
        named("uniform", N as u32, &mut || {
            for chunk in d.chunks_exact_mut(256) {
                uniform.fill(chunk);
            }
        });
        named("scale", N as u32, &mut || kernel::scale(b, m.r2(), m));
        named("automorphism-coeff", N as u32, &mut || {
            automorphism::coeff(d, e, 25, m).unwrap()
        });
        let bytes = wire::packed_len(N, m.bits());
        let packed: &mut [u8] = bytemuck::cast_slice_mut(c);
        let packed = &mut packed[..bytes];
        named("pack", N as u32, &mut || wire::pack(d, m, packed).unwrap());
        named("unpack", N as u32, &mut || {
            wire::unpack(packed, m, e).unwrap()
        });
        equal("pack", limb as u32, d == e);
    }

    fn sampler_counts(a: &mut [u32]) {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        count("error", N as u32, 4, || {
            for x in a.iter_mut() {
                *x = sample::error(&mut rng) as u32;
            }
        });
        // Without the cost of a generator.
        let mut words = Counter(1);
        count("error-coins", N as u32, 4, || {
            for x in a.iter_mut() {
                *x = sample::error(&mut words) as u32;
            }
        });
    }

    fn encoder_counts(mem: &mut Memory, params: &Params) {
        let Memory { a, b, c, .. } = mem;
        let [a, b, c] = [a, b, c].map(|x| &mut x[..N]);
        let buffer: &mut [f32] = bytemuck::cast_slice_mut(a);
        for (i, x) in buffer.iter_mut().enumerate() {
            *x = if i < N / 2 {
                ((i * 37) & 255) as f32 / 128.0 - 1.0
            } else {
                0.0
            };
        }
        count("encode-slots", 11 * N as u32 / 4, 1, || {
            encode_in_place(buffer, 1e6).unwrap()
        });
        // The same sum that `the_board_and_the_host_encode_alike` finds.
        say!("sum encode {:08x}", checksum(buffer));
        let m = params.prime(0).unwrap().modulus();
        count("lift-f32", N as u32, 4, || {
            kernel::lift_f32(buffer, b, m.r2(), m)
        });
        count("lift-i32", N as u32, 4, || {
            kernel::lift_i32(bytemuck::cast_slice(c), b, m.r2(), m)
        });
    }

    /// Whole operations of he-core, as `he-edge bench` measures them on a host.
    fn operations(params: &'static Params) {
        let (n, mut at) = (params.n(), PSRAM);
        let memory = benchmarks::Memory {
            words: psram(&mut at, benchmarks::Memory::words(params)),
            integers: psram(&mut at, 4 * n),
            floats: psram(&mut at, 2 * n),
            doubles: psram(&mut at, n),
        };
        let mut operations = Operations::new(params, memory).unwrap();
        for operation in Operation::ALL {
            operations.prepare(operation).unwrap();
            let items = (operation.limbs(params) * n) as u32;
            count(operation.name(), items, 1, || {
                operations.run(operation).unwrap();
            });
        }
    }

    /// Every kernel against the portable one (`he_core::ring::kernel::conformance`),
    /// for the primes of the set and those at the edges of what kernels tell apart.
    fn comparisons(mem: &mut Memory, params: &Params) {
        for i in 0..=params.special() {
            conform(mem, params.prime(i).unwrap().modulus().value());
        }
        for q in conformance::MODULI {
            conform(mem, q);
        }
    }

    fn conform(mem: &mut Memory, q: u32) {
        let Memory {
            a,
            b,
            c,
            d,
            e,
            f,
            z,
            wide,
        } = mem;
        // Numbers to be lifted lie where no operand of theirs is.
        let [a, b, c, d, e, f] = [a, b, c, d, e, f].map(|x| &mut x[..]);
        let (integers, f) = f.split_at_mut(MAX_N / 2);
        let (floats, e) = e.split_at_mut(MAX_N / 2);
        let (bytes, integers) = integers.split_at_mut(128);
        let (halves, integers) = integers.split_at_mut(512);
        let pair = Pair {
            kernels: &Current,
            reference: &Portable,
        };
        let memory = &mut conformance::Memory {
            limbs: [a, b, c, d, e, f],
            table: z,
            integers: bytemuck::cast_slice_mut(integers),
            wide,
            floats: bytemuck::cast_slice_mut(floats),
            // The kernels that need them are a host's.
            numbers: Default::default(),
            bytes: bytemuck::cast_slice_mut(bytes),
            halves: bytemuck::cast_slice_mut(halves),
        };
        match pair.all(&[q], memory) {
            Ok(compared) => say!("equal kernels-{q} {compared}"),
            Err(Difference {
                kernel,
                length,
                case,
                ..
            }) => say!("differs {kernel}-{q}-{case} {length}"),
        }
        uniform(mem, q);
    }

    fn uniform(mem: &mut Memory, q: u32) {
        let Memory { d, e, .. } = mem;
        let [d, e] = [d, e].map(|x| &mut x[..N]);
        let m = Modulus::new(q).unwrap();
        // The uniform stream against the generator that specifies it.
        let stream = u64::from(q) << 8 | 1;
        Uniform::new(&[9; 32], stream, &m).fill(d);
        let mut pieces = Uniform::new(&[9; 32], stream, &m);
        for (i, chunk) in e.chunks_mut(37).enumerate() {
            if i & 1 == 0 {
                pieces.fill(chunk);
            } else {
                for x in chunk {
                    *x = pieces.next_residue();
                }
            }
        }
        let mut rng = ChaCha8Rng::from_seed([9; 32]);
        rng.set_stream(stream);
        let mut same = d == e;
        for x in e.iter() {
            let wide = loop {
                let wide = u64::from(rng.next_u32()) * u64::from(q);
                if wide & 0xffff_ffff >= (1u64 << 32) % u64::from(q) {
                    break wide;
                }
            };
            same &= u64::from(*x) == wide >> 32;
        }
        equal("uniform", q, same);
    }

    #[entry]
    fn main() -> ! {
        if let Some(mut core) = Peripherals::take() {
            core.SYST.set_clock_source(SystClkSource::Core);
            core.SYST.set_reload(RELOAD);
            core.SYST.clear_current();
            core.SYST.enable_counter();
        }
        emulated::start();
        let memory = cortex_m::singleton!(: Memory = Memory {
            a: [0; MAX_N],
            b: [0; MAX_N],
            c: [0; MAX_N],
            d: [0; MAX_N],
            e: [0; MAX_N],
            f: [0; MAX_N],
            z: [0; MAX_N],
            wide: [0; 256],
        });
        if let Some(memory) = memory {
            counts(black_box(memory), &N4096_DEPTH3);
            operations(&N4096_DEPTH3);
            comparisons(black_box(memory), &N4096_DEPTH3);
        }
        say!("compiler {}", env!("HE_EDGE_COMPILER"));
        say!("done");
        emulated::exit()
    }
}

#[cfg(not(target_os = "none"))]
#[expect(
    clippy::print_stderr,
    reason = "the one sentence that this program has to say"
)]
fn main() -> std::process::ExitCode {
    eprintln!(
        "This program runs on an emulated board: start it with `he-edge bench --device qemu`."
    );
    std::process::ExitCode::FAILURE
}
