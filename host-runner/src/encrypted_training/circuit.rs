//! What both sides know of the computation: parameters, layout, levels, scales,
//! and which keys it takes.
//!
//! # Layout
//!
//! A row of the table takes eight slots, and slots are complex: slot `j < 4` of a
//! row has the features `2 j` and `2 j + 1`, slot 4 what belongs to the bias.
//! Features are multiplied by the label, 1 or -1: `z = y (x, 1)`.
//!
//! | ciphertext | slot `j < 4` | slot 4 | others |
//! |---|---|---|---|
//! | weights | `w_2j + i w_2j+1` | bias | 0 |
//! | bias | bias in slot 0 | | not read |
//! | forward | `(z_2j - i z_2j+1) / 2` | 0 | 0 |
//! | labels | `y / 2` in slot 0 | 0 | 0 |
//! | gradient | `(z_2j + i z_2j+1) 0.004 / m` | `y 0.004 / m` | 0 |
//!
//! Weights and bias are the same in every row. A row of `weights forward + bias
//! labels` is summed over the window of slots from 4 before to 3 after; as four
//! slots are zero between rows, all five slots that `gradient` reads get the sum of
//! their own row. With its complex conjugate that is the real number `u = w z`. A
//! sum over all rows is a sum over a subgroup of the rotations, so it leaves the
//! same in every row, without a mask: the weights come out as they went in. The
//! bias has a ciphertext of its own because five slots of eight would be one too
//! many for such a window.
//!
//! # Levels and scales
//!
//! With the label in the rows the step of an epoch is
//!
//! `w <- (1 - decay) w + sum z (0.5 - 0.197 u + 0.004 u^3) / m
//!    = (1 - decay) w + sum (0.004 z / m) (125 + u (u^2 - 49.25))`,
//!
//! and `u z` and `u^2` are formed side by side, so it takes three levels: `u`, then
//! those two, then their product. Sums of rows come before the last rescaling,
//! where the scale is doubled.
//!
//! Values of a row need few bits, as the sum over the rows averages their noise; the
//! scale of `u` makes the errors of `u z` and of `u^2` count the same
//! ([`Circuit::new`]). A scale would drift with its
//! third power from epoch to epoch, so the gradient's rows are multiplied by the
//! integer that brings the weights back to `SCALE`, within about a sixty-fourth; which scale
//! they have then is known exactly.
//!
//! # Choices
//!
//! The sum has degree seven in data and weights, so three levels are the fewest, and five
//! epochs are fifteen, which N = 16384 has at 128 bits. The usual layout masks one of the
//! two sums, over features and over rows, for a level; here none is masked. Values of a
//! row need about five bits, so primes are 20 to 22 bits wide. Keys are switched at the
//! doubled scale alone, so the special primes are narrow: 78 bits where a digit has up to
//! 91, which lets four primes be one digit. Hoisting the sum over the rows by four terms was
//! measured at N = 16384: 75 to 94 ms against 80 to 99, with half as many keys again; it is
//! not used.

use he_core::parameter_set;
use he_core::params::{N4096_DEPTH3, Params, Security};
use he_core::ring::automorphism;
use he_core::rlwe::SwitchTarget;
use he_core::rlwe::keys::{self, conjugation};

use super::{Error, Mode};
use he_nn::data::table::FEATURES;

/// The sigmoid, `0.5 + 0.197 x - 0.004 x^3` (Chen and Song 2021; Kim et al. 2018,
/// ePrint 2018/074, have the same on -5 .. 5).
pub const SIGMOID: [f64; 4] = [0.5, 0.197, 0.0, -0.004];

/// What an epoch takes off the weights, not off the bias: the learning rate, which
/// is 1, times the weight of the regularisation.
pub const DECAY: f64 = 0.05;

/// Levels that an epoch takes.
pub const EPOCH_LEVELS: usize = 3;

/// Most epochs with refresh, where no level limits them: what a slip of the hand may
/// cost.
const MOST_REFRESHED: usize = 1000;

/// Slots of a row.
pub(super) const STRIDE: usize = 8;

/// Slots of a row that have features, two each.
pub(super) const PAIRS: usize = FEATURES / 2;

/// The slot of a row that has the bias.
pub(super) const BIAS: usize = PAIRS;

/// Rotations of the window, each followed by an addition.
pub(super) const WINDOW: [i32; 3] = [-(PAIRS as i32), 1, 2];

/// The rotation that brings the bias from slot 4 of the row before to slot 0.
pub(super) const TO_BIAS: i32 = WINDOW[0];

/// Scale of the weights. More would leave less for the rows, whose scale times this
/// is what the first rescaling brings to the scale of `u`; in both sets weights up to
/// 8 leave half of the last modulus free.
const SCALE: f64 = (1u64 << 22) as f64;

/// The integer that the gradient's rows are multiplied by at the highest level.
const FACTOR: f64 = 32.0;

/// Root mean square of a rescaling's rounding in a slot, over the root of the ring
/// degree squared: `sqrt(N / 12) sqrt(2 N / 3)`.
const ROUNDING: f64 = 0.2357;

parameter_set! {
    /// N = 16384, five epochs without a refresh. Digits of four primes, four of them
    /// at the highest level. Every epoch has three primes, in the order in which
    /// they are dropped: the first rescales `u`, the next `u z` and `u^2`, the third
    /// the weights.
    ///
    /// | primes | bits | for |
    /// |---|---|---|
    /// | 185 597 953 | 27.47 | base: weights, scale 2^22 and 2^4.5 of headroom on either side |
    /// | 2 424 833, 2 654 209, 2 752 513 | 21.21, 21.34, 21.39 | fifth epoch |
    /// | 1 769 473, 3 604 481, 3 735 553 | 20.75, 21.78, 21.83 | fourth epoch |
    /// | 1 376 257, 4 620 289, 4 816 897 | 20.39, 22.14, 22.20 | third epoch |
    /// | 1 179 649, 5 308 417, 4 423 681 | 20.17, 22.34, 22.08 | second epoch |
    /// | 1 146 881, 5 767 169, 4 882 433 | 20.13, 22.46, 22.22 | first epoch |
    /// | 163 841, 557 057, 786 433, 5 865 473 | 17.32, 19.09, 19.58, 22.48 | special: narrower than a digit by 13 bits, as keys are switched where the scale is doubled |
    ///
    /// `q^3 q'^2 q''` over the three primes of an epoch is the same within 2^0.4, so
    /// that scales hardly drift. log2(QP) = 428.3, and the row of ePrint 2024/463
    /// is 430.
    pub static N16384_FIVE_EPOCHS = {
        n: 16384, security: Security::Classical128,
        data: [
            185_597_953,
            2_752_513, 2_654_209, 2_424_833,
            3_735_553, 3_604_481, 1_769_473,
            4_816_897, 4_620_289, 1_376_257,
            4_423_681, 5_308_417, 1_179_649,
            4_882_433, 5_767_169, 1_146_881,
        ],
        special: [163_841, 557_057, 786_433, 5_865_473]
    };
}

/// Level and scale of a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Shape {
    /// Level.
    pub level: usize,
    /// Scale.
    pub scale: f64,
}

/// One epoch: what it takes and what it leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The weights before.
    pub input: Shape,
    /// The integer that the gradient's rows are multiplied by.
    pub factor: f64,
    /// The weights afterwards.
    pub output: Shape,
}

/// The computation for a number of rows.
#[derive(Clone, Copy, Debug)]
pub struct Circuit {
    params: &'static Params,
    mode: Mode,
    rows: usize,
    forward: f64,
    gradient: f64,
}

impl Circuit {
    /// For a table of `rows`. With the primes `q`, `q'`, `q''` of an epoch and scale
    /// `S` of the weights, `u` has scale `s`, `u^2` then `s^2 / q'`, and `u z` what
    /// makes the product `S q''`. All have the rounding of a rescaling; it counts
    /// 0.004 times `u z` where it is that of `u^2`, 0.197 times where it is that of
    /// `u z`, and the same for both where `s^4 = (0.004 / 0.197) S q'^2 q'' (0.004 /
    /// m)`, if `u z` is about 1.
    ///
    /// # Errors
    /// [`Error::Rows`] without rows, or with so many that the noise of a rescaling
    /// would reach the size of `u`.
    pub fn new(mode: Mode, rows: usize) -> Result<Self, Error> {
        let params: &'static Params = match mode {
            Mode::Refresh => &N4096_DEPTH3,
            Mode::NoRefresh => &N16384_FIVE_EPOCHS,
        };
        let mut circuit = Self {
            params,
            mode,
            rows,
            forward: 0.0,
            gradient: 0.0,
        };
        let top = params.max_level();
        let [qu, qv, qw] = circuit.primes(top)?;
        let ratio = -SIGMOID[3] / SIGMOID[1];
        let u = (ratio * SCALE * qw * qv * qv * circuit.unit()).powf(0.25);
        let noise = ROUNDING * params.n() as f64;
        // So that the rounding in a slot is an eighth at most.
        if rows == 0 || u < 8.0 * noise {
            let most = rows.max(1) as f64 * (u / (8.0 * noise)).powi(4);
            return Err(Error::Rows {
                rows,
                most: most as usize,
            });
        }
        circuit.forward = u * qu / SCALE;
        circuit.gradient = SCALE * qw * qv * qv / (u * u * u * FACTOR);
        Ok(circuit)
    }

    /// The parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// With or without refresh.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Rows of the table.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that a ciphertext has room for.
    #[must_use]
    pub const fn rows_each(&self) -> usize {
        self.params.slots() / STRIDE
    }

    /// Ciphertexts of each kind of data.
    #[must_use]
    pub const fn parts(&self) -> usize {
        self.rows.div_ceil(self.rows_each())
    }

    /// What the gradient's rows are multiplied by.
    pub(super) fn unit(&self) -> f64 {
        -SIGMOID[3] / self.rows.max(1) as f64
    }

    /// Scale of the forward rows, and of the labels.
    pub(super) const fn forward_scale(&self) -> f64 {
        self.forward
    }

    /// Scale of the gradient's rows.
    pub(super) const fn gradient_scale(&self) -> f64 {
        self.gradient
    }

    /// The weights as they are encrypted.
    #[must_use]
    pub const fn fresh(&self) -> Shape {
        Shape {
            level: self.params.max_level(),
            scale: SCALE,
        }
    }

    /// Most epochs from fresh weights to those that are decrypted.
    #[must_use]
    pub const fn epochs_between_refreshes(&self) -> usize {
        self.params.max_level() / EPOCH_LEVELS
    }

    /// The epoch from weights of this shape.
    ///
    /// # Errors
    /// [`Error::Library`] where the levels do not suffice.
    pub fn step(&self, input: Shape) -> Result<Step, Error> {
        let [qu, qv, qw] = self.primes(input.level)?;
        let u = input.scale * self.forward / qu;
        let product = u * self.gradient / qv * (u * u / qv);
        let factor = (SCALE * qw / product).round();
        // Encoded as an integer, and the weights' own factor at about 2^22.
        if !(1.0..=f64::from(1 << 20)).contains(&factor) {
            return Err(Error::Scale {
                got: input.scale,
                expected: SCALE,
            });
        }
        Ok(Step {
            input,
            factor,
            output: Shape {
                level: input.level - EPOCH_LEVELS,
                scale: product * factor / qw,
            },
        })
    }

    /// All epochs.
    ///
    /// # Errors
    /// [`Error::Epochs`] for none, or more than there are levels for, or 1000.
    pub fn steps(&self, epochs: usize) -> Result<Vec<Step>, Error> {
        let most = match self.mode {
            Mode::Refresh => MOST_REFRESHED,
            Mode::NoRefresh => self.epochs_between_refreshes(),
        };
        if epochs == 0 || epochs > most {
            return Err(Error::Epochs { epochs, most });
        }
        let mut shape = self.fresh();
        let mut steps = Vec::new();
        for _ in 0..epochs {
            let step = self.step(shape)?;
            steps.push(step);
            shape = match self.mode {
                Mode::Refresh => self.fresh(),
                Mode::NoRefresh => step.output,
            };
        }
        Ok(steps)
    }

    /// What the keys switch from, each with the highest level it is used at: the
    /// rows are summed two levels lower.
    #[must_use]
    pub fn keys(&self) -> Vec<(SwitchTarget, usize)> {
        let (params, top) = (self.params, self.params.max_level());
        let window =
            WINDOW.map(|steps| SwitchTarget::Galois(automorphism::rotation(params.n(), steps)));
        [SwitchTarget::Square, conjugation(params)]
            .into_iter()
            .chain(window)
            .map(|target| (target, top))
            .chain(
                keys::inner_sum(params, STRIDE as i32, self.rows_each())
                    .map(|target| (target, top + 1 - EPOCH_LEVELS)),
            )
            .collect()
    }

    /// The primes that an epoch from `level` drops, in that order.
    fn primes(&self, level: usize) -> Result<[f64; EPOCH_LEVELS], Error> {
        let mut primes = [0.0; EPOCH_LEVELS];
        for (i, prime) in primes.iter_mut().enumerate() {
            // The base prime is not dropped.
            let at = level.checked_sub(i).filter(|&at| at > 0);
            let at = at.ok_or(he_core::Error::Level {
                operation: "epoch",
                expected: EPOCH_LEVELS,
                got: level,
            })?;
            *prime = f64::from(self.params.prime(at)?.modulus().value());
        }
        Ok(primes)
    }
}
