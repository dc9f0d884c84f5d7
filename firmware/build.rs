//! Chooses the board's memory map and hands over the model.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use he_core::Params;
use he_core::params::{N4096_DEPTH3, N8192_DEPTH5};
use he_nn::boards;
use he_nn::model::Model;
use he_nn::plan::{Plan, Sums, Terms, WeightMode};
use he_nn::program::Program;
use he_nn::session;

const DEFAULT_BOARD: &str = "mps2-an386";
const DEFAULT_PARAMS: &str = "n4096-depth3";
const DEFAULT_MODEL: &str = "../he-nn/assets/models/mnist-mlp64.hemodel";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=HE_EDGE_BOARD");
    println!("cargo:rerun-if-env-changed=HE_EDGE_MODEL");
    println!("cargo:rerun-if-env-changed=HE_EDGE_PARAMS");
    println!("cargo:rerun-if-env-changed=HE_EDGE_INPUTS");
    println!("cargo:rustc-check-cfg=cfg(params, values(any()))");
    println!("cargo:rustc-check-cfg=cfg(board, values(any()))");
    // On a host there is nothing to link and no model to hold.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }

    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));

    let board = env::var("HE_EDGE_BOARD").unwrap_or_else(|_| DEFAULT_BOARD.into());
    let memory = root
        .join("src/board")
        .join(board.replace('-', "_"))
        .with_extension("x");
    println!("cargo:rerun-if-changed={}", memory.display());
    let Ok(map) = fs::read(&memory) else {
        panic!(
            "the board {board} is not known: it would need the memory map {}",
            memory.display()
        );
    };
    fs::write(out.join("memory.x"), map).expect("the build directory is writable");
    if let Some(flash) = boards::find(&board).ok().and_then(|board| board.flash) {
        let (pages, records) = (flash.pages, flash.records);
        let lines = format!(
            "pub(super) const PAGES: usize = {pages};\npub(super) const RECORDS: usize = {records};\n"
        );
        fs::write(out.join("kept.rs"), lines).expect("the build directory is writable");
    }
    // The names of interrupt handlers come with a board's abstraction layer; a
    // board without one has them in its vector table.
    let layer = format!("CARGO_FEATURE_{}", board.replace('-', "_").to_uppercase());
    if env::var_os(layer).is_none() {
        fs::write(out.join("device.x"), "").expect("the build directory is writable");
    }
    println!("cargo:rustc-check-cfg=cfg(armv8m)");
    if env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv8m")) {
        println!("cargo:rustc-cfg=armv8m");
    }
    println!("cargo:rustc-cfg=board=\"{board}\"");
    println!("cargo:rustc-env=HE_EDGE_BOARD={board}");
    let params = env::var("HE_EDGE_PARAMS").unwrap_or_else(|_| DEFAULT_PARAMS.into());
    // As `src/evaluator.rs` chooses.
    let set = match params.as_str() {
        DEFAULT_PARAMS => &N4096_DEPTH3,
        "n8192-depth5" => &N8192_DEPTH5,
        _ => {
            panic!("the parameter set {params} is not known: use {DEFAULT_PARAMS} or n8192-depth5")
        }
    };
    println!("cargo:rustc-cfg=params=\"{params}\"");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");

    // defmt filters while compiling; without this it keeps errors only.
    println!("cargo:rerun-if-env-changed=DEFMT_LOG");
    if env::var_os("DEFMT_LOG").is_none() {
        println!("cargo:rustc-env=DEFMT_LOG=info");
    }

    // Instruction counts belong to a compiler.
    println!("cargo:rustc-env=HE_EDGE_COMPILER={}", compiler());

    let model =
        env::var_os("HE_EDGE_MODEL").map_or_else(|| root.join(DEFAULT_MODEL), PathBuf::from);
    println!("cargo:rerun-if-changed={}", model.display());
    println!("cargo:rustc-check-cfg=cfg(merged, polynomials, prepared)");
    let has = |feature| env::var_os(feature).is_some();
    let terms = Terms {
        weights: match has("CARGO_FEATURE_ENCRYPTED_WEIGHTS") {
            true => WeightMode::Encrypted,
            false => WeightMode::Plain,
        },
        sums: match has("CARGO_FEATURE_EVALUATOR_SUMS") {
            true => Sums::Evaluator,
            false => Sums::Client,
        },
        inputs: env::var("HE_EDGE_INPUTS").ok().map(|most| {
            let number = most.parse().ok();
            number.unwrap_or_else(|| panic!("HE_EDGE_INPUTS is a number, and not {most}"))
        }),
    };
    match program(&board, set, &model, terms) {
        Ok(Built {
            program,
            prepared,
            owed_words,
        }) => {
            // What the network does not need is not in the image.
            if program.has_polynomials() {
                println!("cargo:rustc-cfg=polynomials");
            }
            if program.is_merged() {
                println!("cargo:rustc-cfg=merged");
            }
            if let Some(words) = prepared {
                println!("cargo:rustc-cfg=prepared");
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                fs::write(out.join("weights.bin"), bytes).expect("the build directory is writable");
            }
            write_program(&out, &program, owed_words);
        }
        Err(reason) => println!("cargo::error={reason}"),
    }
    println!(
        "cargo:rustc-env=HE_EDGE_MODEL={}",
        absolute(&model).display()
    );
}

/// The version of the compiler, such as `1.96.0`.
fn compiler() -> String {
    let rustc = env::var_os("RUSTC").expect("set by cargo");
    let output = Command::new(rustc).arg("--version").output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    let version = String::from_utf8_lossy(&text);
    let number = version.split_whitespace().nth(1);
    number.unwrap_or("unknown").to_owned()
}

/// What a board's image is built with.
struct Built {
    program: Program<Vec<u8>>,
    /// Weights as they are multiplied.
    prepared: Option<Vec<u32>>,
    /// Words behind the arena.
    owed_words: usize,
}

/// The program of the network on the board, its weights as they are multiplied if there is
/// flash for that, and the words behind its arena; refuses here what the board could only
/// refuse at run time.
fn program(board: &str, set: &'static Params, path: &Path, terms: Terms) -> Result<Built, String> {
    let failed = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let target = boards::find(board).map_err(|e| failed(&e))?.target();
    let bytes = fs::read(path).map_err(|e| failed(&e))?;
    let model = Model::parse(&bytes).map_err(|e| failed(&e))?;
    let mut row = vec![0.0; Plan::buffer_len(&model)];
    let mut scratch = row.clone();
    let plan = Plan::new(set, model, terms, target, &mut row, &mut scratch);
    let plan = plan.map_err(|e| failed(&e))?;
    let program = Program::of(&plan).map_err(|e| failed(&e))?;
    let prepared = plan.is_prepared();
    let prepared = prepared.then(|| session::prepare(&program, &model));
    let prepared = prepared
        .transpose()
        .map_err(|e| failed(&format_args!("its weights cannot be encoded: {e:?}")))?;
    Ok(Built {
        program,
        prepared,
        owed_words: plan.owed_words(),
    })
}

/// The program as the image holds it, and the size of its arena with the words behind it.
fn write_program(out: &Path, program: &Program<Vec<u8>>, owed_words: usize) {
    fs::write(out.join("program.bin"), program.bytes()).expect("the build directory is writable");
    let words = program.arena_words() + owed_words;
    let line = format!("const ARENA_WORDS: usize = {words};\n");
    fs::write(out.join("arena.rs"), line).expect("the build directory is writable");
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
