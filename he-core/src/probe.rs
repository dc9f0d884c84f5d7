//! A way to watch an operation pass from one kind of work to the next.
//!
//! The operations that a device times from inside take a [`Probe`] and name
//! each kind of [`Work`] as they begin it. They know nothing of clocks; with
//! `()`, the probe that watches nothing, no instruction of it is left.

/// Kinds of work inside the operations of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Carrying encoded coefficients over to a prime.
    Encode,
    /// One number-theoretic transform, either way.
    Ntt,
    /// Products and sums of limbs outside of key switching.
    Multiply,
    /// Preparing a digit of the polynomial that is switched, transforms apart.
    Digit,
    /// Multiplying a digit by a part of the key.
    KeyProduct,
    /// Dividing a product with a key by the special prime and adding the
    /// result, transforms apart.
    ModDown,
    /// Dividing by the last prime of the modulus, transforms apart.
    Rescale,
}

/// Is told what work begins.
pub trait Probe {
    /// The work from here to the next call is of this kind.
    fn begin(&mut self, work: Work);
}

/// Watches nothing.
impl Probe for () {
    #[inline(always)]
    fn begin(&mut self, _: Work) {}
}
