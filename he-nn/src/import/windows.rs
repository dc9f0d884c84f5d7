//! Windows of convolutions and pooling, as attributes describe them.

use super::Reason;
use super::graph::{Data, Operator, printable};
use crate::model::{Padding, Shape};

/// Windows along rows and columns.
pub(super) struct Windows {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    /// Above, to the left, below, to the right.
    pub(super) pads: [usize; 4],
    /// Rows and columns that it takes, and that it gives.
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
}

impl Windows {
    /// As the attributes have them.
    pub(super) fn of(
        op: &Operator<'_>,
        kernel: [usize; 2],
        input: [usize; 2],
    ) -> Result<Self, Reason> {
        let pair = |name: &str| -> Result<[usize; 2], Reason> {
            let given = op.integers(name);
            let positive = |x: i64| {
                usize::try_from(x)
                    .ok()
                    .filter(|&x| (1..1 << 16).contains(&x))
            };
            match *given {
                [] => Ok([1, 1]),
                [y, x] => positive(y).zip(positive(x)).map(|(y, x)| [y, x]).ok_or(()),
                _ => Err(()),
            }
            .map_err(|()| format!("its {name} are {given:?}; they must be two, and positive"))
        };
        let (stride, dilation) = (pair("strides")?, pair("dilations")?);
        let reach = [0, 1].map(|axis| {
            let reach = kernel[axis]
                .saturating_sub(1)
                .saturating_mul(dilation[axis]);
            reach.saturating_add(1)
        });
        let pads = pads(op, reach, stride, input)?;
        let ceil = op.integer("ceil_mode", 0) != 0;
        let along = |axis: usize| {
            let side = input[axis] + pads[axis] + pads[axis + 2];
            let room = side.checked_sub(reach[axis])?;
            let places = match ceil {
                false => room / stride[axis] + 1,
                // The last window begins within the data or the padding in front.
                true => {
                    let places = room.div_ceil(stride[axis]) + 1;
                    let begins = (places - 1) * stride[axis];
                    places - usize::from(begins >= input[axis] + pads[axis])
                }
            };
            Some(places)
        };
        let output = along(0)
            .zip(along(1))
            .filter(|_| kernel.iter().all(|&k| k > 0));
        let Some((height, width)) = output else {
            return Err(format!(
                "its kernels of {}x{} places do not fit data of {}x{}",
                reach[0], reach[1], input[0], input[1]
            ));
        };
        Ok(Self {
            kernel,
            stride,
            dilation,
            pads,
            input,
            output: [height, width],
        })
    }

    /// Calls `each` with the places of a kernel and of the input under it, of the window
    /// at `at`; `None` in the padding.
    pub(super) fn under(
        &self,
        at: [usize; 2],
        mut each: impl FnMut([usize; 2], Option<[usize; 2]>),
    ) {
        for dy in 0..self.kernel[0] {
            for dx in 0..self.kernel[1] {
                let along = |axis: usize, offset: usize| {
                    let place = at[axis] * self.stride[axis] + offset * self.dilation[axis];
                    let inside = place.checked_sub(self.pads[axis])?;
                    (inside < self.input[axis]).then_some(inside)
                };
                let source = along(0, dy).zip(along(1, dx)).map(|(y, x)| [y, x]);
                each([dy, dx], source);
            }
        }
    }

    /// Places of a kernel in the data and its padding, of the window at `at`: `ceil_mode`
    /// lets the last windows reach beyond both, where nothing is counted.
    pub(super) fn padded(&self, at: [usize; 2]) -> usize {
        let along = |axis: usize| {
            let end = self.input[axis] + self.pads[axis] + self.pads[axis + 2];
            let place = |offset| at[axis] * self.stride[axis] + offset * self.dilation[axis];
            (0..self.kernel[axis])
                .filter(|&offset| place(offset) < end)
                .count()
        };
        along(0) * along(1)
    }

    /// Places along each axis from a kernel's first to its last.
    pub(super) fn reach(&self) -> [usize; 2] {
        [0, 1].map(|axis| (self.kernel[axis] - 1) * self.dilation[axis] + 1)
    }

    /// Places of padding in front.
    pub(super) fn before(&self) -> [usize; 2] {
        [self.pads[0], self.pads[1]]
    }
}

/// The padding of windows: `auto_pad`, or `pads` from the starts of the axes to their ends.
fn pads(
    op: &Operator<'_>,
    reach: [usize; 2],
    stride: [usize; 2],
    input: [usize; 2],
) -> Result<[usize; 4], Reason> {
    let given = op.integers("pads");
    let automatic = op.text("auto_pad");
    let short = |x: usize| u16::try_from(x).unwrap_or(u16::MAX);
    let same = |axis: usize| {
        let shape = Shape {
            channels: 1,
            height: short(input[0]),
            width: short(input[1]),
        };
        let (height, width) = (short(reach[0]), short(reach[1]));
        Padding::same(shape, height, width, short(stride[axis]))
    };
    let padding = |lower: bool| {
        let (rows, columns) = (same(0), same(1));
        let side = |padding: Padding| if lower { padding.mirrored() } else { padding };
        let (rows, columns) = (side(rows), side(columns));
        [rows.top, columns.left, rows.bottom, columns.right].map(usize::from)
    };
    let found = match automatic {
        b"" | b"NOTSET" => {
            let sides = match *given {
                [] => Some([0; 4]),
                [a, b, c, d] => {
                    let side = |x: i64| usize::try_from(x).ok();
                    side(a)
                        .zip(side(b))
                        .zip(side(c).zip(side(d)))
                        .map(|((a, b), (c, d))| [a, b, c, d])
                }
                _ => None,
            };
            let fits = |&[top, left, bottom, right]: &[usize; 4]| {
                top.max(bottom) < reach[0] && left.max(right) < reach[1]
            };
            return sides.filter(fits).ok_or_else(|| {
                format!(
                    "its pads are {given:?}; they must be four, none negative, and less than the kernel's {} rows and {} columns",
                    reach[0], reach[1]
                )
            });
        }
        b"VALID" => [0; 4],
        b"SAME_UPPER" => padding(false),
        b"SAME_LOWER" => padding(true),
        other => {
            return Err(format!(
                "its auto_pad is \"{}\"; use NOTSET, VALID, SAME_UPPER or SAME_LOWER",
                printable(&String::from_utf8_lossy(other))
            ));
        }
    };
    if given.iter().any(|&pad| pad != 0) {
        return Err(format!(
            "it has an auto_pad and pads of {given:?}; leave one out"
        ));
    }
    Ok(found)
}

/// Windows of pooling.
pub(super) fn pooling(op: &Operator<'_>, data: &Data) -> Result<Windows, Reason> {
    let [_, rows, columns] = data.image()?;
    let kernel = op.integers("kernel_shape");
    let side = |x: i64| {
        usize::try_from(x)
            .ok()
            .filter(|&x| (1..1 << 16).contains(&x))
    };
    match *kernel {
        [y, x] => match side(y).zip(side(x)) {
            Some((y, x)) => Windows::of(op, [y, x], [rows, columns]),
            None => Err(format!(
                "its kernel_shape is {kernel:?}; both must be positive"
            )),
        },
        _ => Err(format!(
            "its kernel_shape is {kernel:?}; only two-dimensional pooling can be imported"
        )),
    }
}
