//! What a memory checker is told about secrets, for tests that run under
//! valgrind.
//!
//! Memory that is marked undefined is a secret: memcheck follows it through
//! every computation and reports a branch or an address that depends on it
//! (Langley, `ctgrind`, 2010). It does not report instructions whose time depends
//! on their operands, which are divisions on most processors.
//!
//! These are valgrind's client requests, the sequence of `valgrind.h` for
//! x86-64: rotations that add up to nothing, which only valgrind knows. Without
//! valgrind, and on other machines, nothing happens.

/// `VG_USERREQ__RUNNING_ON_VALGRIND`.
const RUNNING: usize = 0x1001;
/// `VG_USERREQ__COUNT_ERRORS`.
const COUNT_ERRORS: usize = 0x1201;
/// `VG_USERREQ__MAKE_MEM_UNDEFINED` of memcheck.
const UNDEFINED: usize = 0x4d43_0001;
/// `VG_USERREQ__MAKE_MEM_DEFINED` of memcheck.
const DEFINED: usize = 0x4d43_0002;
/// `VG_USERREQ__GET_VBITS` of memcheck.
const GET_BITS: usize = 0x4d43_0008;

#[cfg(target_arch = "x86_64")]
fn request(code: usize, arguments: [usize; 3]) -> usize {
    let [first, second, third] = arguments;
    let arguments = [code, first, second, third, 0, 0];
    let result;
    // SAFETY: the instructions leave every register but the result's as it was;
    // valgrind reads the arguments, and changes what it knows about memory, and
    // of memory only what it is given to write to.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0usize => result,
            options(nostack),
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: usize, _: [usize; 3]) -> usize {
    0
}

fn mark<T>(code: usize, data: &mut [T]) {
    let bytes = size_of_val(data);
    // Exposed, so that the compiler reads anew what it has written.
    request(code, [data.as_mut_ptr().expose_provenance(), bytes, 0]);
}

/// What is in `data` is a secret from here on, and what is computed from it.
pub fn secret<T>(data: &mut [T]) {
    mark(UNDEFINED, data);
}

/// What is in `data` may be known.
pub fn public<T>(data: &mut [T]) {
    mark(DEFINED, data);
}

/// A value that may be known.
pub fn published<T: Copy>(x: T) -> T {
    let mut x = [x];
    public(&mut x);
    let [x] = x;
    x
}

/// Whether every element of `data` is a secret, in one bit of it at least.
#[must_use]
pub fn is_secret<T>(data: &[T]) -> bool {
    data.iter().all(|x| {
        let (mut at, end) = ((&raw const *x).expose_provenance(), size_of::<T>());
        let end = at + end;
        let mut any = 0;
        while at < end {
            let mut bits = [0u8];
            request(GET_BITS, [at, bits.as_mut_ptr().expose_provenance(), 1]);
            let [bits] = bits;
            any |= bits;
            at += 1;
        }
        any != 0
    })
}

/// Whether anybody is watching.
#[must_use]
pub fn watched() -> bool {
    request(RUNNING, [0; 3]) != 0
}

/// Reports so far, repeated ones included.
#[must_use]
pub fn reports() -> usize {
    request(COUNT_ERRORS, [0; 3])
}
