//! The failures that the tests provoke; a release image has none of it.

use core::hint::black_box;

use he_nn::message::Request;

/// Fails if this request asks for it.
pub(crate) fn inject(request: &Request<'_>) {
    const PANIC: u32 = 0xFA17_0001;
    const UNDEFINED: u32 = 0xFA17_0002;
    const OVERFLOW: u32 = 0xFA17_0003;
    const OUT_OF_BOUNDS: u32 = 0xFA17_0004;

    #[expect(
        unconditional_recursion,
        reason = "overflowing the stack is its purpose"
    )]
    fn recurse(depth: u32) -> u32 {
        let frame = black_box([depth; 64]);
        let below = recurse(depth.wrapping_add(1));
        black_box(&frame)
            .iter()
            .fold(below, |sum, &word| sum.wrapping_add(word))
    }

    match request {
        Request::Begin { plan: PANIC, .. } => panic!("on request"),
        Request::Begin {
            plan: UNDEFINED, ..
        } => cortex_m::asm::udf(),
        Request::Begin { plan: OVERFLOW, .. } => {
            black_box(recurse(0));
        }
        Request::Begin {
            plan: OUT_OF_BOUNDS,
            ..
        } => {
            let table = [1u8, 2, 3];
            black_box(table[black_box(3)]);
        }
        _ => {}
    }
}
