//! Functions of one number: what an activation does to every value.
//!
//! What is built of sums, products and powers is a polynomial, with its coefficients.
//! Anything else is kept as an expression: CKKS evaluates none, and
//! [`super::fit`] replaces it by a polynomial.

use std::rc::Rc;

use crate::model::MAX_DEGREE;

use super::Reason;

/// Most parts of an expression.
const MAX_PARTS: usize = 64;

/// A function that is no polynomial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Curve {
    Relu,
    LeakyRelu(f64),
    Elu(f64),
    Sigmoid,
    HardSigmoid(f64, f64),
    Tanh,
    Erf,
    Exp,
    Softplus,
    Softsign,
    Gelu,
    GeluByTanh,
    Abs,
    /// Between two bounds.
    Clip(f64, f64),
}

impl Curve {
    fn at(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Self::Relu => x.max(0.0),
            Self::LeakyRelu(slope) => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Self::Elu(alpha) => {
                if x < 0.0 {
                    alpha * x.exp_m1()
                } else {
                    x
                }
            }
            Self::Sigmoid => sigmoid(x),
            Self::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Self::Tanh => x.tanh(),
            Self::Erf => libm::erf(x),
            Self::Exp => x.exp(),
            Self::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
            Self::GeluByTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
            Self::Abs => x.abs(),
            Self::Clip(low, high) => x.max(low).min(high),
        }
    }
}

/// A function of one number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Function {
    /// From the constant up.
    Polynomial(Vec<f64>),
    /// Anything else.
    Other(Rc<Expression>),
}

/// What is no polynomial.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expression {
    form: Form,
    parts: usize,
    /// The operator that made it one, and its node.
    pub(super) origin: (String, String),
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Curve(Curve, Function),
    Sum(Function, Function),
    Product(Function, Function),
}

impl Function {
    /// What changes nothing.
    pub(super) fn identity() -> Self {
        Self::Polynomial(vec![0.0, 1.0])
    }

    /// A constant and a slope, if it is a line.
    pub(super) fn line(&self) -> Option<(f64, f64)> {
        match self {
            Self::Polynomial(coefficients) => match coefficients[..] {
                [c] => Some((c, 0.0)),
                [c, s] => Some((c, s)),
                _ => None,
            },
            Self::Other(_) => None,
        }
    }

    /// Its value.
    pub(super) fn at(&self, x: f64) -> f64 {
        match self {
            Self::Polynomial(coefficients) => {
                coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
            }
            Self::Other(expression) => match &expression.form {
                Form::Curve(curve, inner) => curve.at(inner.at(x)),
                Form::Sum(a, b) => a.at(x) + b.at(x),
                Form::Product(a, b) => a.at(x) * b.at(x),
            },
        }
    }

    fn parts(&self) -> usize {
        match self {
            Self::Polynomial(_) => 1,
            Self::Other(expression) => expression.parts,
        }
    }

    fn joined(form: Form, parts: usize, origin: &(String, String)) -> Result<Self, Reason> {
        if parts > MAX_PARTS {
            return Err(format!(
                "it makes an activation of {parts} parts; at most {MAX_PARTS} are taken: use a simpler activation"
            ));
        }
        let origin = origin.clone();
        Ok(Self::Other(Rc::new(Expression {
            form,
            parts,
            origin,
        })))
    }

    /// A curve of it, as the operator and node say.
    pub(super) fn curved(&self, curve: Curve, operator: &str, node: &str) -> Result<Self, Reason> {
        let form = Form::Curve(curve, self.clone());
        Self::joined(form, self.parts() + 1, &(operator.into(), node.into()))
    }

    /// The operator that made one of both no polynomial.
    fn origin<'f>(&'f self, other: &'f Self) -> Option<&'f (String, String)> {
        [self, other]
            .into_iter()
            .find_map(|function| match function {
                Self::Polynomial(_) => None,
                Self::Other(expression) => Some(&expression.origin),
            })
    }

    /// The sum of two.
    pub(super) fn plus(&self, other: &Self) -> Result<Self, Reason> {
        match (self, other, self.origin(other)) {
            (Self::Polynomial(a), Self::Polynomial(b), _) => Ok(Self::Polynomial(sum(a, b))),
            (a, b, Some(origin)) => {
                let form = Form::Sum(a.clone(), b.clone());
                Self::joined(form, a.parts() + b.parts() + 1, origin)
            }
            _ => Err("it has no operands".into()),
        }
    }

    /// The product of two.
    pub(super) fn times(&self, other: &Self) -> Result<Self, Reason> {
        match (self, other, self.origin(other)) {
            (Self::Polynomial(a), Self::Polynomial(b), _) => product(a, b).map(Self::Polynomial),
            (a, b, Some(origin)) => {
                let form = Form::Product(a.clone(), b.clone());
                Self::joined(form, a.parts() + b.parts() + 1, origin)
            }
            _ => Err("it has no operands".into()),
        }
    }

    /// Whether it grows, as far as logits go: it leaves the largest of them the largest.
    pub(super) fn grows(&self) -> bool {
        const REACH: f64 = 30.0;
        let at = |step: u32| self.at(f64::from(step) / 8.0 - REACH);
        let steps = (2.0 * REACH * 8.0) as u32;
        (0..steps).all(|step| at(step) <= at(step + 1)) && self.at(-1.0) < self.at(1.0)
    }
}

fn product(a: &[f64], b: &[f64]) -> Result<Vec<f64>, Reason> {
    let degree = a.len() + b.len() - 2;
    if degree > MAX_DEGREE {
        return Err(format!(
            "it makes an activation of degree {degree}; it may have {MAX_DEGREE}"
        ));
    }
    let mut sum = vec![0.0; degree + 1];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            sum[i + j] += a * b;
        }
    }
    Ok(trimmed(sum))
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    let at = |p: &[f64], i: usize| p.get(i).copied().unwrap_or(0.0);
    trimmed(
        (0..a.len().max(b.len()))
            .map(|i| at(a, i) + at(b, i))
            .collect(),
    )
}

/// Without leading zeros, but for a line.
fn trimmed(mut polynomial: Vec<f64>) -> Vec<f64> {
    while polynomial.len() > 2 && polynomial.last() == Some(&0.0) {
        polynomial.pop();
    }
    polynomial
}
