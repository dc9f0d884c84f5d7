//! A process that answers thousands of samples takes no more memory than after its first
//! ones, on the client's side and on the evaluator's: in this process, behind TCP, and in
//! the emulator.
//!
//! With HE_EDGE_LONG 5,000 inferences in process and 200 emulated ones.

#![cfg(target_os = "linux")]

use std::fs;
use std::sync::{Mutex, PoisonError};

use he_nn::model::{Input, Model, Sample};
use he_nn::plan::{Packing, WeightMode};
use host_runner::device::{Device, Opening};
use host_runner::service::{self, Limits, Request, Service};

/// The smallest network: what does not depend on its size shows soonest.
const SMALLEST: &str = "pima-logreg";

/// That of the image that other tests build.
#[cfg(feature = "emulator")]
const ON_BOARDS: &str = "mnist-mlp64";

/// What an allocator may keep back, in KiB.
const SLACK: u64 = 1024;

/// Memory is the process's, and with it that of every test in it.
static ALONE: Mutex<()> = Mutex::new(());

fn is_long() -> bool {
    std::env::var_os("HE_EDGE_LONG").is_some()
}

fn model(name: &str) -> Model<'static> {
    Model::parse(he_nn::bundled::model(name).unwrap()).unwrap()
}

/// Memory of a process, in KiB.
fn resident(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

fn open(name: &str, device: &str) -> Box<dyn Service> {
    let request = Request {
        device: &device.parse::<Device>().unwrap(),
        params: None,
        terms: WeightMode::Plain.into(),
        by_time: false,
        packing: Packing::Latency,
        trace: false,
        audit: 0.0,
        key: None,
        publish: None,
        receipts: None,
        limits: Limits::default(),
        padding: None,
        opening: Opening {
            model: None,
            log: || Box::new(|_| ()),
            line_rate: None,
            progress: &mut (),
        },
    };
    service::open(model(name), request).unwrap()
}

/// Has the same sample classified `count` times, each with its answer.
fn infer(service: &mut dyn Service, name: &str, count: usize) {
    let model = model(name);
    // Values that the plan has room for: the means of the data, or a digit.
    let digits = he_nn::bundled::digits().unwrap();
    let means: Vec<f32> = match model.input() {
        Input::Features { means, .. } => means.iter().collect(),
        Input::Image(_) => Vec::new(),
    };
    let sample = match model.input() {
        Input::Features { .. } => Sample::Features(&means),
        Input::Image(_) => Sample::from(&digits.images[0]),
    };
    for _ in 0..count {
        let answers = service.infer(&[sample], &mut ()).unwrap();
        for answer in answers {
            answer.unwrap();
        }
    }
}

/// Memory of processes after the first few inferences, and after many.
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn grows_no_more(
    name: &str,
    device: &str,
    processes: &[String],
    count: usize,
    service: &mut dyn Service,
) {
    infer(service, name, count / 4);
    let of_all = || -> Vec<u64> { processes.iter().map(|process| resident(process)).collect() };
    let before = of_all();
    infer(service, name, count);
    let after = of_all();
    println!("{count} inferences on {device}: from {before:?} to {after:?} KiB");
    for (before, after) in before.iter().zip(&after) {
        assert!(
            *after <= before + SLACK,
            "{device}: {before} KiB became {after} KiB in {count} inferences"
        );
    }
}

#[test]
fn memory_is_flat_over_inferences_in_process() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if is_long() { 5_000 } else { 200 };
    let mut service = open(SMALLEST, "inproc");
    grows_no_more(SMALLEST, "inproc", &["self".into()], count, &mut *service);
}

#[cfg(feature = "emulator")]
#[test]
fn memory_is_flat_over_inferences_in_the_emulator() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if is_long() { 200 } else { 4 };
    let before = children();
    let mut service = open(ON_BOARDS, "qemu");
    infer(&mut *service, ON_BOARDS, 1);
    // The other is the shell that outlives this process to remove it.
    let new = children()
        .into_iter()
        .filter(|child| !before.contains(child));
    let emulator = new.max_by_key(|child| resident(child));
    let processes = ["self".into(), emulator.unwrap()];
    grows_no_more(ON_BOARDS, "qemu", &processes, count, &mut *service);
}

/// This process's children.
#[cfg(feature = "emulator")]
fn children() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let of_threads = threads.map(|thread| {
        let path = thread.unwrap().path().join("children");
        // A thread may have ended meanwhile.
        fs::read_to_string(path).unwrap_or_default()
    });
    let all: Vec<String> = of_threads.collect();
    all.iter()
        .flat_map(|line| line.split_whitespace())
        .map(ToOwned::to_owned)
        .collect()
}
