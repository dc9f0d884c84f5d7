//! The loop of the sensor's firmware that subtracts the product of the uniform half and the
//! key's transform from a limb, instruction by instruction: which word each writes to which
//! register.
//!
//! It is `subtract_eights` of he-core's kernels for Cortex-M, two coefficients at a time,
//! written down from the assembly and compared with what an emulated board writes
//! (`tests/tests/board_power.rs`). Registers of addresses and counts are left out: they are
//! the same for all keys.

use he_core::arith::Modulus;

/// r0 to r12. The first three hold addresses and are left out: zero.
pub type Registers = [u32; 13];

/// Coefficients that one round of [`PROGRAM`] treats.
pub const COEFFICIENTS: usize = 2;

/// What an instruction does; numbers are those of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ldrd`: two words of an operand.
    Load {
        /// Where they go.
        to: [usize; 2],
        /// Which operand.
        of: Operand,
    },
    /// `rsb to, to, #0`.
    Negate {
        /// What is negated.
        to: usize,
    },
    /// `smlal low, high, a, b`: a product added to 64 bits.
    MultiplyLong {
        /// The sum's lower word.
        low: usize,
        /// Its upper word.
        high: usize,
        /// A factor.
        a: usize,
        /// The other.
        b: usize,
    },
    /// `mul to, a, b`: the lower word of a product.
    Multiply {
        /// Where it goes.
        to: usize,
        /// A factor.
        a: usize,
        /// The other.
        b: usize,
    },
    /// `smmulr to, a, b`: the upper word, rounded.
    MultiplyUpper {
        /// Where it goes.
        to: usize,
        /// A factor.
        a: usize,
        /// The other.
        b: usize,
    },
    /// `mls to, a, b, to`.
    MultiplySubtract {
        /// From what the product is subtracted.
        to: usize,
        /// A factor.
        a: usize,
        /// The other.
        b: usize,
    },
    /// `and to, a, of, asr #31`: `a` where `of` is negative.
    WhereNegative {
        /// Where it goes.
        to: usize,
        /// What is kept or not.
        a: usize,
        /// Whose sign decides.
        of: usize,
    },
    /// `add to, to, b`.
    Add {
        /// What is added to.
        to: usize,
        /// What is added.
        b: usize,
    },
    /// `strd`: writes no register.
    Store,
}

/// An operand of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The key's transform, in Montgomery form.
    Key,
    /// The uniform half.
    Uniform,
    /// The limb.
    Limb,
}

/// Two coefficients. r3 holds q, r4 `-q^-1 mod 2^32`, r5 Barrett's constant; r12 is zero
/// before and after.
pub const PROGRAM: [Instruction; 20] = {
    use Instruction::{
        Add, Load, Multiply, MultiplyLong, MultiplySubtract, MultiplyUpper, Negate, Store,
        WhereNegative,
    };
    [
        Load {
            to: [6, 7],
            of: Operand::Key,
        },
        Load {
            to: [8, 9],
            of: Operand::Uniform,
        },
        Load {
            to: [10, 11],
            of: Operand::Limb,
        },
        Negate { to: 8 },
        Negate { to: 9 },
        MultiplyLong {
            low: 12,
            high: 10,
            a: 8,
            b: 6,
        },
        Multiply { to: 6, a: 12, b: 4 },
        MultiplyLong {
            low: 12,
            high: 10,
            a: 6,
            b: 3,
        },
        MultiplyLong {
            low: 12,
            high: 11,
            a: 9,
            b: 7,
        },
        Multiply { to: 7, a: 12, b: 4 },
        MultiplyLong {
            low: 12,
            high: 11,
            a: 7,
            b: 3,
        },
        MultiplyUpper { to: 6, a: 10, b: 5 },
        MultiplyUpper { to: 7, a: 11, b: 5 },
        MultiplySubtract { to: 10, a: 6, b: 3 },
        MultiplySubtract { to: 11, a: 7, b: 3 },
        WhereNegative {
            to: 6,
            a: 3,
            of: 10,
        },
        WhereNegative {
            to: 7,
            a: 3,
            of: 11,
        },
        Add { to: 10, b: 6 },
        Add { to: 11, b: 7 },
        Store,
    ]
};

/// What an analysis looks at, of either coefficient: the instructions that write the lower
/// word of the product, Montgomery's multiple, and the product that is reduced.
pub const POINTS: [[usize; 3]; COEFFICIENTS] = [[5, 6, 7], [8, 9, 10]];

/// Words of the two coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operands {
    /// The key's transform, in Montgomery form.
    pub key: [u32; COEFFICIENTS],
    /// The uniform half.
    pub uniform: [u32; COEFFICIENTS],
    /// The limb.
    pub limb: [u32; COEFFICIENTS],
}

impl Operands {
    const fn of(&self, operand: Operand) -> [u32; COEFFICIENTS] {
        match operand {
            Operand::Key => self.key,
            Operand::Uniform => self.uniform,
            Operand::Limb => self.limb,
        }
    }
}

/// Registers as the loop has them at its start.
#[must_use]
pub const fn start(m: &Modulus) -> Registers {
    let mut registers = [0; 13];
    registers[3] = m.value();
    registers[4] = m.neg_inv() as u32;
    registers[5] = m.r().wrapping_mul(m.neg_inv()) as u32;
    registers
}

impl Instruction {
    /// The registers that it writes; `None` for fewer than two.
    #[must_use]
    pub const fn written(self) -> [Option<usize>; 2] {
        match self {
            Self::Load { to: [a, b], .. }
            | Self::MultiplyLong {
                low: a, high: b, ..
            } => [Some(a), Some(b)],
            Self::Negate { to }
            | Self::Multiply { to, .. }
            | Self::MultiplyUpper { to, .. }
            | Self::MultiplySubtract { to, .. }
            | Self::WhereNegative { to, .. }
            | Self::Add { to, .. } => [Some(to), None],
            Self::Store => [None, None],
        }
    }

    fn execute(self, r: &mut Registers, operands: &Operands) {
        let wide = |a: u32, b: u32| i64::from(a as i32) * i64::from(b as i32);
        match self {
            Self::Load { to: [a, b], of } => [r[a], r[b]] = operands.of(of),
            Self::Negate { to } => r[to] = r[to].wrapping_neg(),
            Self::MultiplyLong { low, high, a, b } => {
                let before = (u64::from(r[high]) << 32 | u64::from(r[low])) as i64;
                let sum = before.wrapping_add(wide(r[a], r[b])) as u64;
                (r[low], r[high]) = (sum as u32, (sum >> 32) as u32);
            }
            Self::Multiply { to, a, b } => r[to] = r[a].wrapping_mul(r[b]),
            Self::MultiplyUpper { to, a, b } => {
                r[to] = (wide(r[a], r[b]).wrapping_add(1 << 31) >> 32) as u32;
            }
            Self::MultiplySubtract { to, a, b } => {
                r[to] = r[to].wrapping_sub(r[a].wrapping_mul(r[b]));
            }
            Self::WhereNegative { to, a, of } => r[to] = r[a] & (r[of] as i32 >> 31) as u32,
            Self::Add { to, b } => r[to] = r[to].wrapping_add(r[b]),
            Self::Store => {}
        }
    }
}

/// Carries out the loop for two coefficients; `each` is given every instruction's number,
/// and the registers before and after it.
pub fn run(
    registers: &mut Registers,
    operands: &Operands,
    mut each: impl FnMut(usize, &Registers, &Registers),
) {
    for (number, instruction) in PROGRAM.iter().enumerate() {
        let before = *registers;
        instruction.execute(registers, operands);
        each(number, &before, registers);
    }
}

/// How a processor's power is taken to depend on what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leakage {
    /// Ones in the words that an instruction writes to registers.
    Weight,
    /// Bits of registers that it changes.
    Distance,
}

impl Leakage {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Weight, Self::Distance];

    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weight => "Hamming weight",
            Self::Distance => "Hamming distance",
        }
    }

    /// What an instruction leaks, in bits: at most 64.
    #[must_use]
    pub fn of(self, number: usize, before: &Registers, after: &Registers) -> u8 {
        let written = PROGRAM[number].written().into_iter().flatten();
        let bits = written.map(|register| match self {
            Self::Weight => after[register].count_ones(),
            Self::Distance => (before[register] ^ after[register]).count_ones(),
        });
        bits.sum::<u32>() as u8
    }
}

/// What the instructions of [`POINTS`] leak of one coefficient: of the words of the key, the
/// uniform half and the limb.
#[must_use]
pub fn leak(m: &Modulus, leakage: Leakage, [key, uniform, limb]: [u32; 3]) -> [u8; 3] {
    let [key, uniform, limb] = [key, uniform, limb].map(|word| [word, 0]);
    let operands = Operands { key, uniform, limb };
    let mut leaks = [0; 3];
    run(&mut start(m), &operands, |number, before, after| {
        if let Some(point) = POINTS[0].iter().position(|&at| at == number) {
            leaks[point] = leakage.of(number, before, after);
        }
    });
    leaks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the loop computes, by the definition of it.
    #[test]
    fn the_loop_subtracts_a_product() {
        for q in [12_289, 1_032_193, 134_176_769, 1_073_643_521] {
            let m = Modulus::new(q).unwrap();
            let mut registers = start(&m);
            for k in 0..500u32 {
                let word =
                    |salt: u32| (k.wrapping_mul(2_654_435_761) ^ salt).wrapping_mul(salt) % q;
                let operands = Operands {
                    key: [word(3), q - 1 - word(5)],
                    uniform: [word(7), word(11)],
                    limb: [word(13), 0],
                };
                run(&mut registers, &operands, |_, _, _| {});
                for (i, register) in [10, 11].into_iter().enumerate() {
                    let factor = m.canon(m.mont(operands.key[i] as i32, 1));
                    let product = m.mul(operands.uniform[i], factor);
                    assert_eq!(registers[register], m.sub(operands.limb[i], product));
                }
                assert_eq!(registers[12], 0);
            }
        }
    }

    #[test]
    fn leakage_counts_what_is_written() {
        let (mut before, mut after) = ([0; 13], [0; 13]);
        (before[6], after[6], after[10]) = (0b1111, 0b0101, u32::MAX);
        // `mul r6`, and `smlal r12, r10`.
        assert_eq!(Leakage::Weight.of(6, &before, &after), 2);
        assert_eq!(Leakage::Distance.of(6, &before, &after), 2);
        assert_eq!(Leakage::Weight.of(5, &before, &after), 32);
        before[12] = u32::MAX;
        assert_eq!(Leakage::Distance.of(5, &before, &after), 64);
        assert_eq!(Leakage::Weight.of(19, &before, &after), 0);
    }
}
