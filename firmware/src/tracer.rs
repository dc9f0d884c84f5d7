//! The tracer of this image: a ring in RAM with the feature `trace`, otherwise
//! nothing.

#[cfg(feature = "trace")]
mod selected {
    use he_nn::trace::Ring;

    use crate::board::TRACE_SPANS;

    pub(crate) type Tracer = &'static mut Ring<TRACE_SPANS>;

    pub(crate) fn tracer() -> Option<Tracer> {
        cortex_m::singleton!(: Ring<TRACE_SPANS> = Ring::new())
    }
}

#[cfg(not(feature = "trace"))]
mod selected {
    use he_nn::trace::Off;

    pub(crate) type Tracer = Off;

    pub(crate) const fn tracer() -> Option<Tracer> {
        Some(Off)
    }
}

pub(crate) use selected::*;
