//! The figures of SECURITY.md are those that the code has. (Those of the oracles are
//! compared where they are measured, `he-core/tests/oracles.rs`.)

use std::fs;
use std::path::Path;

use he_edge_tests::Reference;
use he_nn::bundled;
use he_nn::message::SEED_BYTES;
use he_nn::model::Model;
use he_nn::plan::{Target, WeightMode};
use host_runner::planning;

fn document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn the_mask_costs_what_is_said() {
    let text = document("SECURITY.md");
    let plan = Reference::new().plan;
    let (params, limbs) = (plan.params(), 0..=plan.output_level());
    let bits: Vec<u32> = limbs
        .map(|limb| params.prime(limb).unwrap().modulus().bits())
        .collect();
    // Of the seed alone.
    let bytes = SEED_BYTES;
    let payload = plan.payload();
    let all = payload.inputs + payload.factors + payload.keys;
    let share = 100.0 * bytes as f64 / all as f64;
    let cell = format!("| {} ({share:.1} %) |", grouped(bytes as u64));
    assert!(text.contains(&cell), "{cell}");
    // Two halves, expanded and added, by the committed counts of kernels.
    let counts = document("firmware/benches/counts-mps2-an386.csv");
    let count = |kernel: String| -> u64 {
        let start = format!("{kernel},{},", params.n());
        let line = counts.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap().parse().unwrap()
    };
    let of_limb = |bits: &u32| {
        let of = |kernel: &str| count(format!("{kernel}-{bits}"));
        2 * of("uniform") + 2 * of("add")
    };
    let instructions: u64 = bits.iter().map(of_limb).sum();
    let inference = document("firmware/benches/inference.csv");
    let line = "mps2-an386,mnist-mlp64,plain,";
    let line = inference
        .lines()
        .find_map(|l| l.strip_prefix(line))
        .unwrap();
    let all: u64 = line.split(',').nth(1).unwrap().parse().unwrap();
    let cell = format!(
        "| {:.2} million in its kernels ({:.1} %) |",
        instructions as f64 / 1e6,
        100.0 * instructions as f64 / all as f64
    );
    assert!(text.contains(&cell), "{cell}");
}

#[test]
fn spot_checks_buy_what_is_said() {
    let text = document("SECURITY.md");
    for share in [0.01f64, 0.1, 0.5, 1.0] {
        let found = [1, 10, 100, 1000].map(|forged| {
            let percent = 100.0 * (1.0 - (1.0 - share).powi(forged));
            format!("{percent:.1} %")
        });
        let row = format!("| {share} | {} |", found.join(" | "));
        assert!(text.contains(&row), "{row}");
    }
}

#[test]
fn the_worst_case_is_what_is_said() {
    let text = document("SECURITY.md");
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let plan = planning::plan(None, model, WeightMode::Plain, Target::Host).unwrap();
    let error = plan.logit_error();
    let sentence = format!(
        "{:.0} is the worst case of a logit of\n`mnist-mlp64` on a host, where six standard deviations are {:.2}.",
        error.worst_case, error.six_sigma
    );
    assert!(text.contains(&sentence), "{sentence}");
}

#[test]
fn masks_cost_what_is_said() {
    let joined = document("SECURITY.md");
    let text: Vec<&str> = joined.split_whitespace().collect();
    let text = text.join(" ");
    let [open, masked] = ["sensor-", "sensor-masked-key-"].map(|name| {
        let counts = document(&format!("firmware/benches/{name}mps2-an386.csv"));
        ["all,", "ram-static-bytes,"].map(|item| -> u64 {
            let count = counts.lines().find_map(|line| line.strip_prefix(item));
            count.unwrap().parse().unwrap()
        })
    });
    let [instructions, ram] = [0, 1].map(|i| masked[i] - open[i]);
    let sentence = format!(
        "{:.2} million instructions more per encryption of four limbs ({:.1} %) and {} bytes \
         more of static RAM",
        instructions as f64 / 1e6,
        100.0 * instructions as f64 / open[0] as f64,
        grouped(ram)
    );
    assert!(text.contains(&sentence), "{sentence}");
}
