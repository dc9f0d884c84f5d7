//! What the kernels of this processor execute over secrets, step by step: the addresses of
//! all instructions and of all memory that they touch are the same for fixed and random
//! secrets. So no branch and no address depends on one, AVX-512's included, which valgrind
//! does not know.
//!
//! `traced` stops before and after an operation; between, it is single-stepped (ptrace),
//! and per step the address of the instruction and those of its operands in memory, from
//! registers and the decoded instruction, go into a digest. Gathers and scatters take their
//! addresses from vectors, which are not read: there must be none. What depends on the
//! secrets without showing in these draws is not seen: valgrind follows all values at
//! once, this compares three.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpKind,
    Register, UsedMemory,
};
use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_traced");

/// Longest instruction of the architecture.
const LONGEST: usize = 15;

/// Draws of `traced`: fixed, random, fixed.
const DRAWS: usize = 3;

/// One step: where the instruction lies, and a digest of the memory it touches.
type Step = (u64, u64);

/// A process that is stepped through. Dropping it ends it.
struct Traced {
    child: Child,
    memory: fs::File,
    known: HashMap<u64, (Instruction, Vec<UsedMemory>)>,
    factory: InstructionInfoFactory,
    /// Instructions whose addresses are not known.
    unknown: Vec<String>,
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What decoding asks for.
fn value(registers: &user_regs_struct, register: Register) -> Option<u64> {
    let r = registers;
    let wide = match register.full_register() {
        Register::RAX => r.rax,
        Register::RBX => r.rbx,
        Register::RCX => r.rcx,
        Register::RDX => r.rdx,
        Register::RSI => r.rsi,
        Register::RDI => r.rdi,
        Register::RBP => r.rbp,
        Register::RSP => r.rsp,
        Register::R8 => r.r8,
        Register::R9 => r.r9,
        Register::R10 => r.r10,
        Register::R11 => r.r11,
        Register::R12 => r.r12,
        Register::R13 => r.r13,
        Register::R14 => r.r14,
        Register::R15 => r.r15,
        // Flat, as they are in 64 bits.
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        Register::FS => r.fs_base,
        Register::GS => r.gs_base,
        _ => return None,
    };
    match register.size() {
        4 if register.is_gpr() => Some(wide & 0xffff_ffff),
        _ => Some(wide),
    }
}

const fn mix(digest: u64, word: u64) -> u64 {
    (digest ^ word)
        .wrapping_mul(0x0000_0100_0000_01b3)
        .rotate_left(23)
}

impl Traced {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(PROGRAM)
            .args(arguments)
            .stdout(Stdio::inherit())
            .spawn()
            .unwrap();
        let memory = fs::File::open(format!("/proc/{}/mem", child.id())).unwrap();
        Self {
            child,
            memory,
            known: HashMap::new(),
            factory: InstructionInfoFactory::new(),
            unknown: Vec::new(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// It was the kernels of AVX-512 that were stepped through.
    fn stepped_through_vectors(&self, subject: &str) {
        let wide = |(instruction, _): &&(Instruction, Vec<UsedMemory>)| {
            (0..instruction.op_count()).any(|i| {
                instruction.op_kind(i) == OpKind::Register && instruction.op_register(i).is_zmm()
            })
        };
        let branches = |(instruction, _): &&(Instruction, Vec<UsedMemory>)| {
            instruction.flow_control() == FlowControl::ConditionalBranch
        };
        let vectors = self.known.values().filter(wide).count();
        let branches = self.known.values().filter(branches).count();
        assert!(
            vectors > 30 && branches > 10,
            "{subject}: {vectors} {branches}"
        );
    }

    /// Runs to the next stop that it makes itself; `false` where it has ended.
    fn advance(&mut self, is_first: bool) -> bool {
        if !is_first {
            ptrace::cont(self.pid(), None).unwrap();
        }
        match waitpid(self.pid(), None).unwrap() {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => true,
            WaitStatus::Exited(_, 0) => false,
            other => panic!("{other:?}"),
        }
    }

    /// Steps to the next stop that it makes itself.
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            ptrace::step(self.pid(), None).unwrap();
            match waitpid(self.pid(), None).unwrap() {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                WaitStatus::Stopped(_, Signal::SIGSTOP) => return steps,
                other => panic!("{other:?}"),
            }
            let registers = ptrace::getregs(self.pid()).unwrap();
            let digest = self.digest(&registers);
            steps.push((registers.rip, digest));
        }
    }

    /// A digest of the addresses that the next instruction touches.
    fn digest(&mut self, registers: &user_regs_struct) -> u64 {
        let ip = registers.rip;
        let (instruction, used) = self.known.entry(ip).or_insert_with(|| {
            let mut bytes = [0; LONGEST];
            let read = self.memory.read_at(&mut bytes, ip).unwrap();
            let mut decoder = Decoder::with_ip(64, &bytes[..read], ip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            let info = self.factory.info(&instruction);
            (instruction, info.used_memory().to_vec())
        });
        let mut digest = 0xcbf2_9ce4_8422_2325;
        for memory in used.iter() {
            let address = memory.virtual_address(0, |register, _, _| value(registers, register));
            match address {
                Some(address) => digest = mix(digest, address),
                None => self
                    .unknown
                    .push(format!("{:?} at {ip:x}", instruction.code())),
            }
        }
        if instruction.code() == Code::INVALID {
            self.unknown.push(format!("what is at {ip:x}"));
        }
        digest
    }
}

/// Traces of all draws of an operation.
fn traces(backend: &str, subject: &str, what: &str) -> (Vec<Vec<Step>>, Traced) {
    let mut traced = Traced::start(&[backend, subject, what]);
    let mut all = Vec::new();
    let mut is_first = true;
    while traced.advance(is_first) {
        is_first = false;
        let steps = traced.steps();
        all.push(steps);
    }
    (all, traced)
}

/// Where traces first differ from the first of them.
fn difference(all: &[Vec<Step>]) -> Option<String> {
    let [first, others @ ..] = all else {
        return Some("there is no trace".into());
    };
    others.iter().enumerate().find_map(|(draw, other)| {
        let at = first.iter().zip(other).position(|(a, b)| a != b);
        let at = at.or((first.len() != other.len()).then_some(first.len().min(other.len())))?;
        Some(format!(
            "draw {} leaves the first at step {at}: {:x?} for {:x?}",
            draw + 1,
            other.get(at),
            first.get(at)
        ))
    })
}

fn compare(backend: &str, subjects: &[&str]) {
    for subject in subjects {
        let (all, traced) = traces(backend, subject, "operation");
        assert_eq!(all.len(), DRAWS, "{subject}");
        assert_eq!(
            traced.unknown, [""; 0],
            "{subject}: addresses that are not known"
        );
        assert!(all[0].len() > 1000, "{subject}: {} steps", all[0].len());
        assert_eq!(difference(&all), None, "{subject}");
        traced.stepped_through_vectors(subject);
    }
}

/// Encoding and encryption, decryption and decoding.
const QUICK: [&str; 2] = ["encrypt_secret", "decrypt_decode"];
const ALL: [&str; 12] = [
    "encode",
    "encrypt_secret",
    "encrypt_compact",
    "encrypt_public",
    "decrypt",
    "decrypt_decode",
    "keygen_secret",
    "keygen_public",
    "keygen_relin",
    "keygen_rotation",
    "publish_label",
    "publish_values",
];

fn subjects() -> &'static [&'static str] {
    match std::env::var_os("HE_EDGE_LONG") {
        Some(_) => &ALL,
        None => &QUICK,
    }
}

#[test]
fn avx512_kernels_take_one_path() {
    if std::arch::is_x86_feature_detected!("avx512ifma") {
        compare("avx512", subjects());
    }
}

/// It would be seen if there were something: a pass over the secret that leaves zeros out.
#[test]
fn what_leaks_takes_another_path() {
    let (all, _) = traces("portable", "encrypt_secret", "leak");
    let found = difference(&all).expect("the leak is seen");
    // Of the fixed class both draws have the same zeros.
    assert!(all[0] == all[2], "{found}");
}
