//! What works coefficient by coefficient: products, sums and lifts.

use super::{CASES, Difference, Kernels, Memory, PATTERNS, Pair, canonical, fill, next};
use crate::arith::Modulus;
use crate::ring::kernel::integers;

/// A kernel over three operands, on trial or of the reference.
type Run<'r> = &'r dyn Fn(&mut [u32], &mut [u32], &mut [u32], bool);

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// Everything that works coefficient by coefficient. `from` is the modulus
    /// that is lifted from.
    pub(super) fn pointwise(
        &self,
        m: &Modulus,
        from: &Modulus,
        length: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let mut compared = 0;
        for case in 0..CASES {
            compared += self.pointwise_case(m, from, length, case, memory)?;
        }
        for case in 0..PATTERNS {
            compared += self.lift_sums(m, from, length, case, memory)?;
            compared += self.dot_products(m, length, case, memory)?;
        }
        Ok(compared)
    }

    fn pointwise_case(
        &self,
        m: &Modulus,
        from: &Modulus,
        length: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let [a, b, c, x, y, z] = &mut memory.limbs;
        let mut operands = [a, b, c, x, y, z].map(|limb| {
            // Off the alignment of vectors.
            limb.get_mut(1..=length).unwrap_or_default()
        });
        let (Some(integers), Some(wide), Some(floats)) = (
            memory.integers.get_mut(..length),
            memory.wide.get_mut(..length),
            memory.floats.get_mut(..length),
        ) else {
            return Ok(0);
        };
        narrow_numbers(integers, floats, case);
        wide_integers(wide, case);
        let factor = match case & 3 {
            0 => m.r2(),
            1 => (q >> 1) as i32,
            2 => -((q >> 1) as i32),
            _ => m.r(),
        };
        let mut operands = Operands {
            limbs: &mut operands,
            modulus: m,
            from,
            case,
            compared: 0,
        };
        let mut compare = |kernel, run: Run<'_>, lifted| operands.compare(kernel, run, lifted);
        /// The kernel of either side.
        macro_rules! on {
            ($trial:expr, $name:ident($($arg:expr),*)) => {
                if $trial {
                    self.kernels.$name($($arg),*);
                } else {
                    self.reference.$name($($arg),*);
                }
            };
        }
        compare("mul_acc", &|a, b, c, t| on!(t, mul_acc(a, b, c, m)), false)?;
        compare(
            "mul_acc_two",
            &|a, b, c, t| {
                let (a0, a1) = halves_mut(a);
                let (b0, b1) = halves_mut(b);
                on!(t, mul_acc_two(a0, a1, b0, b1, c, m));
            },
            false,
        )?;
        compare("mul_sub", &|a, b, c, t| on!(t, mul_sub(a, b, c, m)), false)?;
        compare("mul", &|a, _, c, t| on!(t, mul(a, c, m)), false)?;
        compare("scale", &|a, _, _, t| on!(t, scale(a, factor, m)), false)?;
        compare("add", &|a, b, _, t| on!(t, add(a, b, m)), false)?;
        compare(
            "sub_scale",
            &|a, b, _, t| on!(t, sub_scale(a, b, factor, m)),
            false,
        )?;
        // Only hosts have one.
        if cfg!(target_arch = "x86_64") {
            let run: Run<'_> = &|a, b, c, t| {
                let (a0, a1) = halves_mut(a);
                let (b0, b1) = halves_mut(b);
                let (a2, _) = halves_mut(c);
                let lanes = self.kernels.lanes();
                // Whole vectors are due.
                let due = lanes > 1 && a0.len() & (lanes - 1) == 0;
                let done = t && self.kernels.tensor(a0, a1, a2, b0, b1, m);
                if !(done || t && due) {
                    self.reference.tensor(a0, a1, a2, b0, b1, m);
                }
            };
            compare("tensor", run, false)?;
        }
        // The third is written to only.
        compare("square", &|a, b, c, t| on!(t, square(a, b, c, m)), false)?;
        compare(
            "lift",
            &|a, b, _, t| on!(t, lift(a, from, b, factor, m)),
            true,
        )?;
        compare(
            "lift_i32",
            &|_, b, _, t| on!(t, lift_i32(integers, b, factor, m)),
            true,
        )?;
        compare(
            "lift_i64",
            &|_, b, _, t| on!(t, lift_i64(wide, b, factor, m)),
            false,
        )?;
        compare(
            "lift_f32",
            &|_, b, _, t| on!(t, lift_f32(floats, b, factor, m)),
            true,
        )?;
        Ok(operands.compared)
    }
}

/// The operands of one comparison: three on trial, three of the reference.
struct Operands<'o, 'm> {
    limbs: &'o mut [&'m mut [u32]; 6],
    modulus: &'o Modulus,
    /// What is lifted is a residue of this one.
    from: &'o Modulus,
    case: u32,
    compared: u32,
}

impl Operands<'_, '_> {
    /// Fills the operands, runs both kernels and compares what they leave.
    fn compare(
        &mut self,
        kernel: &'static str,
        run: Run<'_>,
        lifted: bool,
    ) -> Result<(), Difference> {
        self.compared += 1;
        let (m, case) = (self.modulus, self.case);
        let [a, b, c, x, y, z] = self.limbs.each_mut();
        for (limb, operand) in [(&mut **a, 0), (&mut **b, 1), (&mut **c, 2)] {
            fill(limb, m.value(), case, operand);
        }
        if lifted {
            fill(a, self.from.value(), case, 0);
        } else if case & 1 == 1 {
            // A factor in centred Montgomery form.
            for c in c.iter_mut() {
                *c = m.centred(*c) as u32;
            }
        }
        for (copy, of) in [(&mut **x, &**a), (&mut **y, &**b), (&mut **z, &**c)] {
            crate::ring::copy(copy, of);
        }
        run(a, b, c, true);
        run(x, y, z, false);
        if lifted {
            for limb in [&mut **b, &mut **y] {
                canonical(limb, m);
            }
        }
        if **a == **x && **b == **y && **c == **z {
            Ok(())
        } else {
            Err(Difference {
                kernel,
                modulus: m.value(),
                length: a.len(),
                case,
            })
        }
    }
}

/// Integers of 32 bits, and integers of 24 bits in floats of any size below 2^31.
fn narrow_numbers(integers: &mut [i32], floats: &mut [f32], case: u32) {
    let mut state = case;
    for (i, (int, float)) in integers.iter_mut().zip(floats.iter_mut()).enumerate() {
        state = state.wrapping_mul(0x9E37_79B9).wrapping_add(i as u32 | 1);
        *int = match (case.wrapping_add(i as u32)) & 7 {
            0 => i32::MIN,
            1 => i32::MAX,
            2 => 0,
            3 => -1,
            _ => state as i32,
        };
        *float = ((*int >> 8) << (state & 7)) as f32;
    }
}

/// Integers up to the limit of what is carried over.
fn wide_integers(wide: &mut [i64], case: u32) {
    const LIMIT: i64 = 1 << integers::LIMIT_LOG2;
    let edges = [
        LIMIT,
        -LIMIT,
        0,
        -1,
        LIMIT - 1,
        1 << 31,
        -(1 << 31),
        (1 << 31) - 1,
        1 << 32,
        i64::from(i32::MIN) - 1,
    ];
    let mut state = u64::from(case);
    for (i, x) in wide.iter_mut().enumerate() {
        let (high, low) = (next(&mut state), next(&mut state));
        // Of every magnitude.
        let random = (i64::from(high as i32) << 30 ^ i64::from(low)) >> (low & 31);
        let at = i.wrapping_add(case as usize) & 15;
        *x = edges.get(at).copied().unwrap_or(random);
    }
}

/// Two of equal length.
fn halves_mut(x: &mut [u32]) -> (&mut [u32], &mut [u32]) {
    let half = x.len() >> 1;
    let (first, rest) = x.split_at_mut(half);
    (first, rest.get_mut(..half).unwrap_or_default())
}
