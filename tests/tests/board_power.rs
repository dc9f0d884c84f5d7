//! What the emulated board writes to its registers while a sensor multiplies by its key:
//! word for word what the model of `attacks::power` says, for every instruction of the
//! products of whole limbs; and that model's analysis, mounted on the recorded words with
//! **simulated** noise: it finds an open sensor's key, and nothing of one under masks.
//!
//! QEMU carries out one instruction at a time and logs the registers before each that lies
//! in the loop, a window of some 42,000 instructions per product of a limb. Encryptions are
//! recorded once per sensor; runs draw noise, words and encryptions anew. The model is given
//! nothing that was recorded, only what a host computes from the same entropy.
//!
//! By default runs look for a word each. In the long form (HE_EDGE_LONG) the whole limb is
//! looked for, where the noise is as large as the signal.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use attacks::power::cpa::{self, Draw};
use attacks::power::kernel::{self, COEFFICIENTS, Leakage, Operands, PROGRAM, Registers};
use attacks::power::sensor::{Product, Recording, Traces};
use attacks::random;
use chacha20::{ChaCha8Rng, ChaCha20Rng};
use he_core::arith::Modulus;
use he_core::ring::ntt;
use he_core::ring::sample::{self, Domain, SEED_LEN, Uniform};
use he_core::rlwe::expand_c1;
use he_core::wire::unpack;
use he_nn::sensor::{ENTROPY_BYTES, absorb};
use host_runner::commands::sense::{HOST_ENTROPY, MASKED_KEY, PROGRAM as SENSOR};
use host_runner::device::Connection;
use host_runner::device::firmware_build::{Options, build_program};
use host_runner::device::stream::Stream;
use host_runner::planning::DEFAULT_SET;
use host_runner::sensor::{Line, Measurement};
use object::{Object, ObjectSymbol};
use rand_core::{Rng, SeedableRng};

const BOARD: &str = "mps2-an386";
const MACHINE: &str = "mps2-an386";
const ENTROPY: [u8; ENTROPY_BYTES] = [42; ENTROPY_BYTES];
const SCALE: f64 = 2_097_152.0;

/// The loop's function, in the symbols of an image.
const LOOP: &str = "subtract_eights";

/// Instructions before its first round, and after the coefficients of each.
const BEFORE: usize = 4;
const ROUND_END: usize = 2;

/// Pairs of coefficients in a round, and coefficients of a call.
const PAIRS: usize = 4;
const CALL: usize = 64;

/// Runs of the analysis on what was recorded, and how many have to find an open sensor's
/// word.
const RUNS: u64 = 100;
const LEAST_FOUND: usize = 95;

const PATIENCE: Duration = Duration::from_secs(120);

/// r0 to r15.
type State = [u32; 16];

/// Where the loop lies in an image.
fn addresses(image: &Path) -> Range<u64> {
    let bytes = std::fs::read(image).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let mut found = elf
        .symbols()
        .filter(|symbol| symbol.name().is_ok_and(|name| name.contains(LOOP)));
    let symbol = found.next().expect("the image has the loop");
    assert!(found.next().is_none(), "there is one {LOOP}");
    // The lowest bit says that it is Thumb code.
    let start = symbol.address() & !1;
    assert!(symbol.size() > 0);
    start..start + symbol.size()
}

/// A sensor that is stepped through its products.
struct Stepped {
    qemu: Child,
    line: Line<Stream<UnixStream>>,
    /// Registers before each instruction of a call.
    calls: Receiver<Vec<State>>,
    _directory: tempfile::TempDir,
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Registers out of a log, call by call.
fn read(log: impl BufRead, mut call: impl FnMut(Vec<State>)) {
    let (mut state, mut states) = (State::default(), Vec::<State>::new());
    let mut last = None;
    for line in log.lines() {
        let Ok(line) = line else { return };
        for word in line.split(' ') {
            let register = word.strip_prefix('R').and_then(|word| word.split_once('='));
            let Some((number, value)) = register else {
                continue;
            };
            let number: usize = number.parse().unwrap();
            state[number] = u32::from_str_radix(value, 16).unwrap();
            if number < 15 {
                continue;
            }
            // An instruction that QEMU begins, breaks off for its own sake and begins
            // again, which may be the last of a call. None of these jumps to itself.
            if last.replace(state[15]) == Some(state[15]) {
                continue;
            }
            states.push(state);
            if states.len() == length() {
                call(std::mem::take(&mut states));
            }
        }
    }
}

/// Instructions of a call.
const fn length() -> usize {
    let rounds = CALL / (COEFFICIENTS * PAIRS);
    BEFORE + rounds * (PAIRS * PROGRAM.len() + ROUND_END) + 1
}

impl Stepped {
    fn start(features: &[&str]) -> Self {
        let options = Options {
            board: BOARD,
            model: None,
            params: DEFAULT_SET,
            features: &[&[HOST_ENTROPY], features].concat(),
            inputs: None,
        };
        let image = build_program(&options, SENSOR).unwrap();
        let range = addresses(&image);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("link");
        let listener = UnixListener::bind(&path).unwrap();
        let mut qemu = Command::new("qemu-system-arm")
            .args(["-M", MACHINE, "-display", "none", "-monitor", "none"])
            .args(["-nodefaults", "-chardev"])
            .arg(format!("socket,id=link,path={}", path.display()))
            .args(["-serial", "chardev:link", "-serial", "null"])
            .args(["-singlestep", "-d", "cpu,nochain", "-D", "/dev/stdout"])
            .arg("-dfilter")
            .arg(format!("{:#x}+{:#x}", range.start, range.end - range.start))
            .arg("-kernel")
            .arg(&image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU can be started: tests/setup installs it");
        let log = BufReader::with_capacity(1 << 20, qemu.stdout.take().unwrap());
        let (sender, calls) = channel();
        thread::spawn(move || {
            // Nobody listens any more at the end.
            read(log, |call| drop(sender.send(call)));
        });
        let (socket, _) = listener.accept().unwrap();
        let stream = Stream::new(socket, BOARD.into()).unwrap();
        let line = Line::open(Connection::new(stream)).unwrap();
        Self {
            qemu,
            line,
            calls,
            _directory: directory,
        }
    }

    /// An encryption, and the calls of its products.
    fn encrypt(&mut self, level: usize, products: usize) -> (Measurement, Vec<Vec<State>>) {
        let values: Vec<f32> = (0..DEFAULT_SET.n())
            .map(|i| (i as f32 * 0.37).sin())
            .collect();
        self.line.measure(0, &values).unwrap();
        let measured = self.line.encrypt(level, SCALE).unwrap();
        let calls = (level + 1) * products * DEFAULT_SET.n() / CALL;
        let recorded = (0..calls).map(|_| self.calls.recv_timeout(PATIENCE).unwrap());
        (measured, recorded.collect())
    }
}

/// Of a call the registers that the model has, pair by pair.
fn pairs(call: &[State]) -> Vec<Recording> {
    let rounds = call[BEFORE..].chunks_exact(PAIRS * PROGRAM.len() + ROUND_END);
    assert_eq!(rounds.remainder().len(), 1);
    let of_model = |state: &State| -> Registers { state[..13].try_into().unwrap() };
    let pair = |states: &[State]| -> Recording { std::array::from_fn(|i| of_model(&states[i])) };
    rounds
        .flat_map(|round| (0..PAIRS).map(move |at| &round[at * PROGRAM.len()..]))
        .map(|states| pair(&states[..=PROGRAM.len()]))
        .collect()
}

/// Compares all words that a call writes with the model's.
fn compare(call: &[Recording], m: &Modulus, key: &[u32], uniform: &[u32], limb: &[u32]) {
    let mut registers = kernel::start(m);
    // It is entered with the same constants.
    assert_eq!(call[0][0][3..6], registers[3..6]);
    assert_eq!(call[0][0][12], 0);
    let operands = key.as_chunks().0.iter().zip(uniform.as_chunks().0);
    let operands = operands.zip(limb.as_chunks().0);
    assert_eq!(operands.len(), call.len());
    for (pair, (recorded, ((&key, &uniform), &limb))) in call.iter().zip(operands).enumerate() {
        let operands = Operands { key, uniform, limb };
        kernel::run(&mut registers, &operands, |number, _, after| {
            for register in PROGRAM[number].written().into_iter().flatten() {
                assert_eq!(
                    recorded[number + 1][register],
                    after[register],
                    "pair {pair}, {:?}",
                    PROGRAM[number]
                );
            }
        });
    }
}

/// What a host knows of the sensor's secrets, from the same entropy.
struct Host {
    rng: ChaCha20Rng,
    key: Vec<i32>,
    masked: bool,
}

fn draw_seed(rng: &mut impl Rng) -> [u8; SEED_LEN] {
    let mut seed = [0; SEED_LEN];
    rng.fill_bytes(&mut seed);
    seed
}

/// `x + a s`.
fn plus(m: &Modulus, x: &[u32], a: &[u32], s: &[u32]) -> Vec<u32> {
    let all = x.iter().zip(a).zip(s);
    all.map(|((&x, &a), &s)| m.add(x, m.canon(m.mont(a as i32, s as i32))))
        .collect()
}

impl Host {
    fn new(masked: bool) -> Self {
        let mut rng = absorb(None, ENTROPY);
        let n = DEFAULT_SET.n();
        let key = (0..n).map(|_| sample::ternary(&mut rng)).collect();
        if masked {
            for _ in 0..DEFAULT_SET.data_limbs() {
                draw_seed(&mut rng);
            }
        }
        Self { rng, key, masked }
    }

    fn products(&self) -> usize {
        1 + usize::from(self.masked)
    }

    fn transform(&self, limb: usize) -> Vec<u32> {
        let prime = DEFAULT_SET.prime(limb).unwrap();
        let m = prime.modulus();
        let mont = self.key.iter().map(|&s| m.canon(m.mont(s, m.r2())));
        let mut transform: Vec<u32> = mont.collect();
        ntt::forward(&mut transform, prime).unwrap();
        transform
    }

    /// Computes the words of every product of an encryption and compares them with those
    /// that were recorded. Gives both halves of limb 0 and what its products leak, of the
    /// recorded words.
    fn compare(
        &mut self,
        measured: &Measurement,
        calls: &[Vec<State>],
    ) -> ([Vec<u32>; 2], Vec<Product>) {
        let n = DEFAULT_SET.n();
        let seed = draw_seed(&mut self.rng);
        assert_eq!(seed, measured.sealed.seed);
        for _ in 0..n {
            sample::error(&mut self.rng);
        }
        let limbs = measured.level + 1;
        let mut uniform = vec![0; limbs * n];
        expand_c1(DEFAULT_SET, &seed, &mut uniform).unwrap();
        let products = self.products();
        let of_limb = calls.chunks_exact(products * n / CALL);
        assert_eq!(of_limb.len(), limbs);
        let mut first = None;
        for (i, (calls, uniform)) in of_limb.zip(uniform.chunks_exact(n)).enumerate() {
            let m = DEFAULT_SET.prime(i).unwrap().modulus();
            let transform = self.transform(i);
            let mut c0 = vec![0; n];
            unpack(&measured.sealed.limbs[i], m, &mut c0).unwrap();
            let factors = match self.masked {
                false => vec![transform],
                true => {
                    let seed = draw_seed(&mut self.rng);
                    let mut mask = vec![0; n];
                    let stream = sample::stream(Domain::KeyMask, 0, i);
                    Uniform::new(&seed, stream, m).fill(&mut mask);
                    let pairs = transform.iter().zip(&mask);
                    vec![pairs.map(|(&s, &r)| m.sub(s, r)).collect(), mask]
                }
            };
            // Backwards from the ciphertext: what each product is subtracted from.
            let mut before = vec![c0.clone()];
            for factor in factors.iter().rev() {
                before.push(plus(m, &before[before.len() - 1], uniform, factor));
            }
            before.reverse();
            let mut recorded = vec![Vec::new(); products];
            for (block, calls) in calls.chunks_exact(products).enumerate() {
                let at = block * CALL..(block + 1) * CALL;
                let each = calls.iter().zip(&factors).zip(&before).zip(&mut recorded);
                for (((call, factor), before), recorded) in each {
                    let of = |words: &[u32]| words[at.clone()].to_vec();
                    let call = pairs(call);
                    compare(&call, m, &of(factor), &of(uniform), &of(before));
                    recorded.extend(call);
                }
            }
            let leaks: Vec<Product> = recorded.iter().map(Product::recorded).collect();
            let model = factors.iter().zip(&before);
            let model = model.map(|(factor, before)| Product::of(m, factor, uniform, before));
            assert!(model.eq(leaks.iter().cloned()), "limb {i}");
            first.get_or_insert(([uniform.to_vec(), c0], leaks));
        }
        first.unwrap()
    }
}

/// An encryption of all limbs that is compared, and so many of one that are kept as well.
fn record(features: &[&str], encryptions: usize) -> (Host, Traces) {
    let mut stepped = Stepped::start(features);
    stepped.line.entropy(ENTROPY).unwrap();
    stepped.line.new_key().unwrap();
    let mut host = Host::new(features.contains(&MASKED_KEY));
    let products = host.products();
    let (measured, calls) = stepped.encrypt(DEFAULT_SET.max_level(), products);
    host.compare(&measured, &calls);
    let mut traces = Traces::new(DEFAULT_SET, 0).unwrap();
    for _ in 0..encryptions {
        let (measured, calls) = stepped.encrypt(0, products);
        let ([uniform, ciphertext], leaks) = host.compare(&measured, &calls);
        traces.push(&uniform, &ciphertext, leaks).unwrap();
    }
    assert_eq!(traces.products(), products);
    (host, traces)
}

/// How much is recorded and looked at.
struct Form {
    recorded: usize,
    /// Encryptions of a run.
    used: usize,
    snr: f64,
}

fn is_long() -> bool {
    std::env::var_os("HE_EDGE_LONG").is_some()
}

fn form() -> Form {
    match is_long() {
        true => Form {
            recorded: 500,
            used: 400,
            snr: 1.0,
        },
        false => Form {
            recorded: 64,
            used: 48,
            snr: 10.0,
        },
    }
}

/// How many of [`RUNS`] find a word in what was recorded, by any product: noise, word and
/// encryptions are drawn anew.
fn runs_that_find(traces: &Traces, transform: &[u32], form: &Form) -> usize {
    let finds = |run: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(run);
        let mut order: Vec<usize> = (0..traces.len()).collect();
        random::shuffle(&mut order, &mut rng);
        let index = random::below(&mut rng, traces.words());
        let draw = Draw {
            leakage: Leakage::ALL[run as usize % 2],
            snr: form.snr,
            encryptions: &order[..form.used],
            seed: run,
        };
        let find = |product| cpa::recover(traces, product, &[index], draw) == [transform[index]];
        (0..traces.products()).any(find)
    };
    (0..RUNS).filter(|&run| finds(run)).count()
}

#[test]
fn board_writes_the_words_of_the_model_and_they_tell_the_key() {
    let form = form();
    let (host, traces) = record(&[], form.recorded);
    let transform = host.transform(0);
    let found = runs_that_find(&traces, &transform, &form);
    assert!(found >= LEAST_FOUND, "{found} of {RUNS}");
    // Uniform halves of other encryptions tell nothing.
    let others = runs_that_find(&traces.clone().shuffled(), &transform, &form);
    assert_eq!(others, 0);
    let key: Vec<i8> = host.key.iter().map(|&s| s as i8).collect();
    assert!(traces.key_of(&transform).unwrap().as_ref() == Some(&key));
    if is_long() {
        let draw = Draw {
            leakage: Leakage::Weight,
            snr: form.snr,
            encryptions: &(0..traces.len()).collect::<Vec<_>>(),
            seed: 1,
        };
        let all: Vec<usize> = (0..traces.words()).collect();
        let words = cpa::recover(&traces, 0, &all, draw);
        assert!(traces.key_of(&words).unwrap() == Some(key));
    }
}

#[test]
fn board_under_masks_writes_the_words_of_the_model_and_they_tell_nothing() {
    let form = form();
    let (host, traces) = record(&[MASKED_KEY], form.recorded);
    assert_eq!(runs_that_find(&traces, &host.transform(0), &form), 0);
}
