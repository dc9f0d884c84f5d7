//! No branch and no address depends on a secret, by valgrind's memcheck. A
//! missing valgrind is a failure.

use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_taint");

/// What memcheck says of a run, and what the program said.
fn run(arguments: &[&str]) -> (Output, String) {
    let output = Command::new("valgrind")
        .args(["--quiet", "--error-limit=no", PROGRAM])
        .args(arguments)
        .output()
        .expect("valgrind can be started: tests/setup installs it");
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (output, said)
}

fn names<'a>(said: &'a str, verdict: &str) -> Vec<&'a str> {
    let lines = said.lines().filter_map(|line| line.strip_prefix(verdict));
    lines
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

const OPERATIONS: [&str; 24] = [
    "sample-ternary",
    "sample-error",
    "secret-key",
    "secret-key-of-coefficients",
    "encode",
    "encode-complex",
    "encode-single-precision",
    "encode-out-of-range",
    "encode-not-finite",
    "decode-slots",
    "encrypt",
    "encrypt-out-of-range",
    "compact",
    "masked",
    "public-key",
    "encrypt-public",
    "switching-key-square",
    "switching-key-galois",
    "switching-key-in-memory",
    "decrypt",
    "decrypt-three-parts",
    "publish-label",
    "publish-values",
    "erasure",
];

fn clean(backend: &str, set: &str) {
    let (output, said) = run(&[backend, set]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    assert_eq!(names(&said, "clean "), OPERATIONS, "{said}");
    assert_eq!(names(&said, "unmarked "), [""; 0], "{said}");
}

#[test]
fn portable_kernels_keep_secrets() {
    clean("portable", "narrow");
}

#[test]
fn portable_kernels_keep_wide_secrets() {
    clean("portable", "wide");
}

/// Valgrind knows AVX2, and no AVX-512: these kernels are the same source over
/// vectors twice as long.
#[cfg(target_arch = "x86_64")]
#[test]
fn vector_kernels_keep_secrets() {
    if std::arch::is_x86_feature_detected!("avx2") {
        clean("avx2", "narrow");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vector_kernels_keep_wide_secrets() {
    if std::arch::is_x86_feature_detected!("avx2") {
        clean("avx2", "wide");
    }
}

/// The check would find something if there were something.
#[test]
fn what_leaks_is_reported() {
    let (output, said) = run(&["leaks"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let leaks = [
        "leak-branch",
        "leak-address",
        "leak-early-exit",
        "leak-behind-kernels",
        "leak-of-a-place",
    ];
    assert_eq!(names(&said, "reported "), leaks, "{said}");
    assert_eq!(names(&said, "unmarked "), ["unmarked"], "{said}");
}

#[test]
fn without_valgrind_nothing_passes() {
    let output = Command::new(PROGRAM)
        .args(["portable", "narrow"])
        .output()
        .unwrap();
    assert!(!output.status.success());
}

/// Where he-core divides: functions, how many divisions each has, and of what. A
/// division of integers is two instructions, as the compiler puts a narrow one
/// beside the wide one. These are functions after inlining: what divides by N is
/// `chunks_exact`, wherever it comes to lie. Where a compiler inlines otherwise a
/// row moves, and has to be looked at again.
#[cfg(target_arch = "x86_64")]
const DIVISIONS: [(&str, usize, &str); 17] = [
    ("PublicKey<S>::generate", 2, "words of a key by N"),
    ("PublicKey<S>::multiply", 2, "words of a key by N"),
    ("keys::switching_key", 2, "words of a key by N"),
    ("NoiseKey::id", 2, "words of a key by N"),
    ("publish::publish_values", 2, "words of a ciphertext by N"),
    ("rlwe::encrypt_with_seed", 2, "words of a ciphertext by N"),
    ("rlwe::decrypt", 2, "words of a ciphertext by N"),
    ("portable::forward", 4, "N by the length of a block"),
    ("portable::inverse", 4, "N by the length of a block"),
    ("encode::encode_below", 1, "the scale by N / 2"),
    ("encode::decode_in_place", 1, "1 by the scale"),
    ("decrypt::decode", 1, "2 by the modulus"),
    ("decrypt::decrypt", 1, "1 by the scale"),
    ("fft_inverse_on::eight", 2, "slots by the length of a block"),
    (
        "fft_inverse_on::sixteen",
        4,
        "slots by the length of a block",
    ),
    ("publish::plan", 8, "bounds and scales, roots included"),
    ("Noise::error", 3, "N and a variance, roots included"),
];

/// What valgrind does not see is divisions, which take their time by their
/// operands: there are none in he-core but those of public numbers.
#[cfg(target_arch = "x86_64")]
#[test]
fn divisions_are_of_public_numbers() {
    let output = Command::new("objdump")
        .args(["--disassemble", "--demangle", "--no-show-raw-insn", PROGRAM])
        .output()
        .expect("objdump can be started: tests/setup installs it");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut function, mut count, mut functions, mut divisions) = ("", 0, 0, 0);
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(">:") {
            function = name.split_once('<').map_or(name, |(_, name)| name);
            count = 0;
            functions += usize::from(function.starts_with("he_core::"));
        }
        let instruction = line.split('\t').nth(1).unwrap_or_default().trim();
        let name = instruction.trim_start_matches(['v', 'i']);
        if function.starts_with("he_core::")
            && (name.starts_with("div") || name.starts_with("sqrt"))
        {
            count += 1;
            divisions += 1;
            let allowed = DIVISIONS
                .iter()
                .find(|(name, ..)| function.ends_with(name))
                .map_or(0, |&(_, most, _)| most);
            assert!(count <= allowed, "{function}: {line}");
        }
    }
    // It was he-core's code that was read, and divisions are recognised.
    assert!(functions > 30 && divisions > 20, "{functions} {divisions}");
}
