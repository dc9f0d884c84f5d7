//! Decoders of host-runner.

use crate::script::{PLAIN, frame, play};
use crc::{CRC_32_ISO_HDLC, Crc};
use he_core::ckks::publish::{Allowance, Budget, KeyId};
use he_core::wire::packed_len;
use he_edge_tests::assert_one_sentence;
use he_nn::bundled;
use he_nn::data;
use he_nn::import::{self, InputKind};
use he_nn::message::{Reply, SEED_BYTES, TimeUnit};
use he_nn::model::{Model, Sample};
use he_nn::network::NetworkInput;
use he_nn::plan::{Packing, Target, WeightMode};
use he_nn::program::Program;
use he_nn::trace::Span;
use host_runner::budget::FileBudget;
use host_runner::client::{Client, ClientError, Encrypted, Keys, PackedCiphertext, Trace};
use host_runner::device::{Connection, DeviceError, Transport};
use host_runner::engine::Engine;
use host_runner::files::{self, Cost, Passphrase, Planned, SealedKey};
use host_runner::image::Image;
use host_runner::planning;
use host_runner::report::steps;
use host_runner::report::timeline::{Timeline, TracedImage};
use host_runner::service::{Deployment, ServiceError};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// An evaluator that has said everything beforehand, and hangs up.
struct Said {
    bytes: Vec<u8>,
    at: usize,
}

impl Transport for Said {
    fn send(&mut self, _: &[u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8], _: Option<Duration>) -> Result<usize, DeviceError> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        if count == 0 {
            return Err(DeviceError::Closed {
                device: self.name(),
                detail: String::new(),
            });
        }
        buffer[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }

    fn name(&self) -> String {
        "the fuzzer".into()
    }
}

/// The client against any evaluator: a changed recording of a good one.
pub(crate) fn client(script: &[u8]) {
    static CLIENT: LazyLock<Mutex<(Client<'static>, PackedCiphertext)>> = LazyLock::new(|| {
        let plan = &PLAIN.plan;
        let params = plan.params();
        let limbs = (0..=plan.input_level())
            .filter_map(|i| params.prime(i).ok())
            .map(|prime| vec![0; packed_len(params.n(), prime.modulus().bits())]);
        let sealed = PackedCiphertext {
            seed: [9; SEED_BYTES],
            limbs: limbs.collect(),
        };
        Mutex::new((tracing_client(), sealed))
    });
    let mut bytes = Vec::new();
    play(&PLAIN.down, script, |message| {
        if let Ok(frame) = frame(message) {
            bytes.extend(frame);
        }
        true
    });
    let mut guard = CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    let (client, sealed) = &mut *guard;
    let mut link = Connection::new(Said { bytes, at: 0 });
    let seal = |_: &mut Client<'_>, _| Ok::<_, ClientError>(sealed.clone());
    match client.infer_packed(&mut link, seal, &mut ()) {
        Ok(inference) => assert!(inference.logits.iter().all(|x| x.is_finite())),
        Err(error) => {
            assert_one_sentence("an evaluator's lie", &error);
            if let ClientError::Result { .. } | ClientError::Wrapped { .. } = error {
                // A key is done with once a result was refused under it.
                *client = tracing_client();
            }
        }
    }
}

fn tracing_client() -> Client<'static> {
    let mut client = PLAIN.client();
    client.set_tracing(true);
    client
}

/// Two IDX files, of images and of labels: the first two bytes say where the
/// second begins.
pub(crate) fn idx(bytes: &[u8]) {
    let &[low, high, ref rest @ ..] = bytes else {
        return;
    };
    let at = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (images, labels) = rest.split_at(at);
    let names = [Path::new("images"), Path::new("labels")];
    match data::parse((names[0], images), (names[1], labels)) {
        Ok(data) => {
            assert_eq!(data.images.len(), data.labels.len());
            assert!(data.images.len() * 784 < images.len());
        }
        Err(error) => assert_one_sentence("data", &error),
    }
}

pub(crate) fn idx_files() -> Vec<Vec<u8>> {
    let file = |head: &[u32], content: &[u8]| {
        let words = head.iter().flat_map(|word| word.to_be_bytes());
        words.chain(content.iter().copied()).collect::<Vec<u8>>()
    };
    let images = file(&[2051, 1, 28, 28], &[128; 784]);
    let labels = file(&[2049, 1], &[7]);
    let both = [&(images.len() as u16).to_le_bytes()[..], &images, &labels].concat();
    let none = [&16u16.to_le_bytes()[..], &images[..16], &labels].concat();
    vec![both, none]
}

/// An ONNX file: whatever is imported is a model or is refused in a sentence.
pub(crate) fn onnx(bytes: &[u8]) {
    for kind in [InputKind::Pixels, InputKind::Features] {
        match import::network(bytes, "fuzz", kind) {
            Ok(mut network) => {
                if let NetworkInput::Features { means, .. } = &network.input {
                    let (means, deviations) = (vec![120.0; means.len()], vec![30.0; means.len()]);
                    assert!(network.standardise(&means, &deviations).is_ok());
                }
                match network.quantized().draft() {
                    Ok(file) => assert!(Model::parse(&file).is_ok()),
                    Err(error) => assert_one_sentence("model", &error),
                }
            }
            Err(error) => assert_one_sentence("import", &error),
        }
    }
}

pub(crate) fn onnx_files() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../vectors/onnx/conv.onnx").to_vec(),
        include_bytes!("../../vectors/onnx/dense.onnx").to_vec(),
    ]
}

/// A firmware image.
pub(crate) fn image(bytes: &[u8]) {
    if let Ok(image) = Image::parse(bytes) {
        assert!(image.unwanted.len() <= 16 * bytes.len());
        assert!(image.sizes.flash() >= image.sizes.model.min(image.sizes.tables));
    }
}

/// A little-endian ELF32 for Arm with sections of each sort and one symbol.
pub(crate) fn images() -> Vec<Vec<u8>> {
    let names = b"\0.text\0.data\0.bss\0.symtab\0.strtab\0.shstrtab\0.comment\0";
    let name = |text: &[u8]| {
        let at = names.windows(text.len()).position(|part| part == text);
        at.unwrap_or_default() as u32
    };
    let mut symbols = vec![0; 16];
    symbols.extend([1u32, 0x1000, 4].iter().flat_map(|word| word.to_le_bytes()));
    symbols.extend([0x12, 0, 1, 0]);
    // Name, data; type, flags, size of an entry, link.
    type Section<'a> = (&'a [u8], &'a [u8], [u32; 4]);
    let sections: [Section<'_>; 7] = [
        (
            b".text",
            b"core::panicking \x70\x47 src/lib.rs",
            [1, 6, 0, 0],
        ),
        (b".data", b"1234", [1, 3, 0, 0]),
        (b".bss", b"", [8, 3, 0, 0]),
        (b".symtab", &symbols, [2, 0, 16, 5]),
        (b".strtab", b"\0rust_begin_unwind\0", [3, 0, 0, 0]),
        (b".shstrtab", names, [3, 0, 0, 0]),
        (b".comment", b"rustc version 1.95.0 (x)\0", [1, 0, 0, 0]),
    ];
    let mut body = Vec::new();
    let mut headers = vec![0; 40];
    for (text, data, [kind, flags, entry, link]) in sections {
        let offset = 52 + body.len() as u32;
        let size = if kind == 8 { 64 } else { data.len() as u32 };
        let fields = [
            name(text),
            kind,
            flags,
            0x1000,
            offset,
            size,
            link,
            0,
            1,
            entry,
        ];
        headers.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        body.extend_from_slice(data);
    }
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x28\0\x01\0\0\0".to_vec();
    let headers_at = 52 + body.len() as u32;
    let words = [0x1000, 0, headers_at, 0x0500_0200];
    elf.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    let halves = [52, 0, 0, 40, 8, 6];
    elf.extend(halves.iter().flat_map(|half: &u16| half.to_le_bytes()));
    elf.extend(body);
    elf.extend(headers);
    vec![elf]
}

/// A budget file; and one with these numbers and the right checksum.
pub(crate) fn budget(bytes: &[u8]) {
    // Its folder is removed with the process's others.
    static FOLDER: LazyLock<Option<tempfile::TempDir>> = LazyLock::new(|| tempfile::tempdir().ok());
    let Some(folder) = &*FOLDER else {
        panic!("no folder for temporary files");
    };
    let path: PathBuf = folder.path().join(format!("{}.json", std::process::id()));
    open(&path, bytes);
    if let Some((numbers, key)) = bytes.split_first_chunk::<16>() {
        let number = |at: usize| {
            let four = numbers.get(at..at + 4).and_then(|b| b.first_chunk());
            u32::from_le_bytes(four.copied().unwrap_or_default())
        };
        let key: String = key.iter().take(16).map(|b| format!("{b:02x}")).collect();
        let count = format!(
            r#"{{"version":{},"key":"{key}","queries":{},"statistical_bits":{},"spent":{}}}"#,
            number(0),
            number(4),
            number(8),
            number(12)
        );
        let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(count.as_bytes());
        let file = format!(r#"{{"budget":{count},"crc32":{crc}}}"#);
        open(&path, file.as_bytes());
    }
}

fn open(path: &Path, bytes: &[u8]) {
    if let Err(error) = fs::write(path, bytes) {
        panic!("{error}");
    }
    let mut budget = match FileBudget::open(path) {
        Ok(budget) => budget,
        Err(error) => {
            assert_one_sentence("a budget", &error);
            return;
        }
    };
    let (before, queries) = (budget.spent(), budget.allowance().queries());
    assert!(before <= queries);
    match budget.spend(&KeyId([0xab; 16])) {
        Ok(()) => assert!(budget.spent() == before + 1 && before < queries),
        Err(error) => {
            assert_one_sentence("a budget", &error);
            assert_eq!(budget.spent(), before);
        }
    }
}

pub(crate) fn budgets() -> Vec<Vec<u8>> {
    let seeds = || -> Option<Vec<Vec<u8>>> {
        let folder = tempfile::tempdir().ok()?;
        let path = folder.path().join("budget.json");
        let allowance = Allowance::new(3, 30).ok()?;
        drop(FileBudget::create(&path, &KeyId([0xab; 16]), allowance).ok()?);
        let file = fs::read(&path).ok()?;
        let numbers: Vec<u8> = [1u32, 3, 2, 1].map(u32::to_le_bytes).concat();
        Some(vec![file, [&numbers[..], &[0xab; 16]].concat()])
    };
    seeds().unwrap_or_default()
}

/// A file of keys, requests or results, or a model; and the same with the right hash.
pub(crate) fn file(bytes: &[u8]) {
    describe(bytes.to_vec());
    if let Some((content, _)) = bytes.split_last_chunk::<32>() {
        describe([content, &Sha256::digest(content)].concat());
    }
}

fn describe(bytes: Vec<u8>) {
    match files::shown(bytes) {
        Ok(shown) => {
            let values = shown.facts.iter().map(|fact| &fact.value);
            assert!(
                !values
                    .chain([&shown.kind])
                    .any(|v| v.contains(char::is_control))
            );
        }
        Err(problem) => assert_one_sentence("a file", &problem),
    }
}

pub(crate) fn files_of_steps() -> Vec<Vec<u8>> {
    let made = || -> Option<Vec<Vec<u8>>> {
        let folder = tempfile::tempdir().ok()?;
        let model = bundled::model("pima-logreg")?;
        let planned = Planned::new(None, Model::parse(model).ok()?, Packing::Latency).ok()?;
        let allowance = Allowance::new(3, 30).ok()?;
        let passphrase = Passphrase::new(b"x".to_vec()).ok()?;
        let made = files::keygen(folder.path(), &planned, allowance, &passphrase, Cost::LEAST);
        let made = made.ok()?;
        let key = SealedKey::open(&made.secret, &passphrase).ok()?;
        let request = folder.path().join("request");
        let sample = [(0, Sample::Features(&[1.0; 8]), 0)];
        files::encrypt(&key, &planned, &sample, &request, &mut ()).ok()?;
        let read = |path: &PathBuf| fs::read(path).ok();
        Some(vec![
            read(&made.secret)?,
            read(&made.evaluation)?,
            read(&request)?,
            model.to_vec(),
        ])
    };
    made().unwrap_or_default()
}

/// What was recorded, as a service says it.
static DEPLOYMENT: LazyLock<Deployment> = LazyLock::new(|| {
    let plan = &PLAIN.plan;
    match steps::of_plan(plan) {
        Ok(steps) => Deployment {
            params: plan.params(),
            level: plan.input_level(),
            weights: plan.weights(),
            sums: plan.sums(),
            packing: Packing::Latency,
            logit_error: plan.logit_error(),
            steps,
            program: Some(PLAIN.program.clone()),
        },
        Err(error) => panic!("{error}"),
    }
});

/// The spans of a trace, one after the other, as an evaluator sends them.
pub(crate) fn timeline(bytes: &[u8]) {
    let (mut rest, mut spans) = (bytes, Vec::new());
    while let Ok((span, tail)) = postcard::take_from_bytes::<Span>(rest) {
        spans.push(span);
        rest = tail;
    }
    let trace = Trace {
        spans,
        dropped: 1,
        own: u64::MAX,
    };
    let mut timeline = Timeline::default();
    timeline.of(&DEPLOYMENT);
    timeline.board = String::from_utf8_lossy(rest).into();
    timeline.unit = TimeUnit::Nanoseconds;
    timeline.images.push(TracedImage { index: 0, trace });
    assert!(timeline.json().is_ok());
    // A picture of nonsense may be refused.
    let _ = timeline.picture();
}

pub(crate) fn spans() -> Vec<Vec<u8>> {
    let mut spans = Vec::new();
    for message in &PLAIN.down {
        if let Ok((Reply::Span(span), [])) = postcard::take_from_bytes(message) {
            spans.extend(postcard::to_stdvec(&span));
        }
    }
    assert!(spans.len() > 100);
    vec![
        spans[..1].concat(),
        spans[..20].concat(),
        spans[spans.len() - 40..].concat(),
    ]
}

/// A host's network with encrypted weights, and what its sides say to each other.
struct Sides {
    client: Client<'static>,
    engine: Engine,
    /// What the result answers.
    request: Encrypted,
    /// Keys, weights, an input, its result.
    said: [Vec<u8>; 4],
}

static SIDES: LazyLock<Mutex<Sides>> = LazyLock::new(|| {
    let file = bundled::model("pima-logreg").unwrap_or_default();
    let make = || -> Result<Sides, ServiceError> {
        let model = Model::parse(file).map_err(ClientError::from)?;
        let plan = planning::plan(None, model, WeightMode::Encrypted, Target::Host)?;
        let keys = Keys::from_seed(plan.params(), &[5; 32])?;
        let mut client = Client::with_keys(plan, keys)?;
        let (keys, weights) = (client.switching_keys()?, client.weights()?);
        let program = client.program().clone();
        let mut engine = Engine::new(program, None, &keys, &weights)?;
        let features = [1.0f32; 8];
        let request = client.encrypt(&features[..])?;
        let input = request.bytes(client.plan().params())?;
        let (result, _) = engine.evaluate(&input)?;
        Ok(Sides {
            client,
            engine,
            request,
            said: [keys, weights, input, result],
        })
    };
    match make() {
        Ok(sides) => Mutex::new(sides),
        Err(error) => panic!("{error}"),
    }
});

/// What a host's evaluator and its client read: the first byte says which of
/// [`Sides::said`] the rest stands for.
pub(crate) fn engine(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    let mut guard = SIDES.lock().unwrap_or_else(PoisonError::into_inner);
    let sides = &mut *guard;
    let [keys, weights, ..] = &sides.said;
    let program = || -> Program<Vec<u8>> { sides.client.program().clone() };
    let refusal = match kind % 4 {
        0 => Engine::new(program(), None, bytes, weights).err().map(text),
        1 => Engine::new(program(), None, keys, bytes).err().map(text),
        2 => sides.engine.evaluate(bytes).err().map(text),
        _ => sides.client.decrypt(&sides.request, bytes).err().map(text),
    };
    if let Some(refusal) = refusal {
        assert_one_sentence("engine", &refusal);
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// All that was said.
pub(crate) fn engine_objects() -> Vec<Vec<u8>> {
    let guard = SIDES.lock().unwrap_or_else(PoisonError::into_inner);
    let said = (0..).zip(&guard.said);
    said.map(|(kind, bytes)| [&[kind], &bytes[..]].concat())
        .collect()
}
