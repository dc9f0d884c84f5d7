//! A seed of each chip's own generator, for a sensor. An emulated board has none: its host
//! stands for it.

use he_nn::sensor::ENTROPY_BYTES as BYTES;

/// A seed, if the chip has a source and that finds itself in order.
#[cfg(board = "nrf52840-dk")]
pub(crate) fn draw() -> Option<[u8; BYTES]> {
    use embassy_nrf::peripherals::RNG;
    use embassy_nrf::rng::Rng;

    // SAFETY: nothing else of this program uses the generator.
    let mut source = Rng::new_blocking(unsafe { RNG::steal() });
    // Its bytes may be biased without.
    source.set_bias_correction(true);
    let mut seed = [0; BYTES];
    source.blocking_fill_bytes(&mut seed);
    Some(seed)
}

/// A seed, if the chip has a source and that finds itself in order: RM0433, chapter RNG,
/// "RNG operation". By registers, as the abstraction layer starts over without end where
/// the source fails.
#[cfg(board = "nucleo-h743zi")]
pub(crate) fn draw() -> Option<[u8; BYTES]> {
    use embassy_stm32::pac::{RCC, RNG};

    // It is clocked by HSI48 unless told otherwise.
    RCC.cr().modify(|w| w.set_hsi48on(true));
    while !RCC.cr().read().hsi48rdy() {}
    RCC.ahb2enr().modify(|w| w.set_rngen(true));
    RNG.cr().modify(|w| w.set_rngen(true));
    let mut seed = [0; BYTES];
    let mut last = None;
    // The first word is not used but to tell a source that repeats itself.
    for index in 0..=BYTES / 4 {
        let word = loop {
            let state = RNG.sr().read();
            if state.seis() || state.ceis() {
                return None;
            }
            if state.drdy() {
                break RNG.dr().read();
            }
        };
        if word == 0 || last.replace(word) == Some(word) {
            return None;
        }
        if let Some(place) = index.checked_sub(1) {
            seed.chunks_exact_mut(4)
                .nth(place)?
                .copy_from_slice(&word.to_ne_bytes());
        }
    }
    RNG.cr().modify(|w| w.set_rngen(false));
    Some(seed)
}

/// A seed, if the chip has a source and that finds itself in order: blocks that pass the
/// generator's own tests, with its von Neumann balancer.
#[cfg(board = "pico2")]
pub(crate) fn draw() -> Option<[u8; BYTES]> {
    use embassy_rp::bind_interrupts;
    use embassy_rp::peripherals::TRNG;
    use embassy_rp::trng::{Config, InterruptHandler, Trng};

    bind_interrupts!(struct Interrupts {
        TRNG_IRQ => InterruptHandler<TRNG>;
    });

    // SAFETY: nothing else of this program uses the generator.
    let mut source = Trng::new(unsafe { TRNG::steal() }, Interrupts, Config::default());
    let mut seed = [0; BYTES];
    source.blocking_fill_bytes(&mut seed);
    Some(seed)
}

/// None.
#[cfg(not(any(board = "nrf52840-dk", board = "nucleo-h743zi", board = "pico2")))]
pub(crate) fn draw() -> Option<[u8; BYTES]> {
    None
}
