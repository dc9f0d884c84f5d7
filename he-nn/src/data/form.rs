//! What samples are: what a model takes, and what data holds.

use std::fmt;

use crate::model::{Input, Model, Shape};

/// Most classes: labels are bytes.
pub const MAX_CLASSES: usize = 256;

/// What a model takes, or data holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Images of 8-bit pixels.
    Image(Shape),
    /// Rows of so many features.
    Features(usize),
}

impl Form {
    /// What a model takes.
    #[must_use]
    pub fn of(model: &Model<'_>) -> Self {
        match model.input() {
            Input::Image(shape) => Self::Image(shape),
            Input::Features { .. } => Self::Features(model.inputs()),
        }
    }

    /// Values of a sample.
    #[must_use]
    pub const fn values(self) -> usize {
        match self {
            Self::Image(shape) => shape.values(),
            Self::Features(count) => count,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(Shape {
                channels,
                height,
                width,
            }) => write!(
                f,
                "images of {channels}x{height}x{width} (channels, rows, columns)"
            ),
            Self::Features(count) => write!(f, "rows of {count} features"),
        }
    }
}
