//! The ciphertext that everything happens to.

use core::mem;

use he_core::ckks::Ciphertext;
use he_core::params::Params;

use super::internal;
use crate::message::Refusal;

/// In two parts or three, all of them in the arena.
#[derive(Debug)]
pub(super) enum Accumulator<'a> {
    /// And the third part, of no words where weights are in plain.
    Two(Ciphertext<&'a mut [u32]>, &'a mut [u32]),
    /// While it is relinearised.
    Three(Ciphertext<&'a mut [u32], 3>),
    /// Between the two.
    Nothing,
}

impl<'a> Accumulator<'a> {
    fn parts(self) -> Option<[&'a mut [u32]; 3]> {
        match self {
            Self::Two(ct, third) => {
                let [c0, c1] = ct.into_parts();
                Some([c0, c1, third])
            }
            Self::Three(ct) => Some(ct.into_parts()),
            Self::Nothing => None,
        }
    }

    /// Both of the two parts, and the third.
    pub(super) const fn two(
        &mut self,
    ) -> Result<(&mut Ciphertext<&'a mut [u32]>, &mut [u32]), Refusal> {
        match self {
            Self::Two(ct, third) => Ok((ct, third)),
            Self::Three(_) | Self::Nothing => Err(Refusal::Model),
        }
    }

    /// Becomes zero in two parts.
    pub(super) fn clear(
        &mut self,
        params: &Params,
        level: usize,
        scale: f64,
    ) -> Result<(), Refusal> {
        let [c0, c1, third] = mem::replace(self, Self::Nothing)
            .parts()
            .ok_or(Refusal::Model)?;
        third.fill(0);
        let ct = Ciphertext::zero(params, level, scale, c0, c1).map_err(internal)?;
        *self = Self::Two(ct, third);
        Ok(())
    }

    /// Takes the third part in.
    pub(super) fn widen(
        &mut self,
        params: &Params,
        level: usize,
        scale: f64,
    ) -> Result<(), Refusal> {
        let parts = mem::replace(self, Self::Nothing).parts();
        let parts = parts.ok_or(Refusal::Model)?;
        let ct = Ciphertext::from_parts(params, level, scale, parts).map_err(internal)?;
        *self = Self::Three(ct);
        Ok(())
    }

    /// Gives the third part back, which a relinearisation has left zero.
    pub(super) fn narrow(&mut self) -> Result<(), Refusal> {
        match mem::replace(self, Self::Nothing) {
            Self::Three(ct) => {
                let (ct, third) = ct.into_two_parts().map_err(internal)?;
                *self = Self::Two(ct, third);
                Ok(())
            }
            Self::Two(..) | Self::Nothing => Err(Refusal::Model),
        }
    }
}
