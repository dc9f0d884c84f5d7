//! Draws the twenty bundled digits: two hands, each with the ten digits, as
//! strokes of a round pen, brought to 28x28 the way MNIST was (a box of 20x20
//! with the aspect kept, then placed with its centre of mass in the middle).
//!
//! ```text
//! cargo run -p he-nn --features std --example draw_digits -- he-nn/assets/digits
//! ```
//!
//! Everything is drawn here; no data set takes part.

use std::{env, error::Error, fs, path::PathBuf};

/// Side of the image.
const SIDE: usize = 28;

/// Side of the box that the digit fills.
const BOX: f64 = 20.0;

/// Points between two given ones on a curve.
const STEPS: usize = 16;

/// Samples along each axis of a pixel.
const SAMPLES: usize = 8;

/// x to the right and y down, in any unit: the digit is scaled to the box.
type Point = (f64, f64);

/// A smooth curve through its points; a digit is some of them. Corners are
/// where one ends and the next begins.
type Stroke = &'static [Point];

/// How somebody writes.
struct Hand {
    /// Radius of the pen in pixels.
    pen: f64,
    /// Shift to the right at the top, relative to the height.
    slant: f64,
    digits: [&'static [Stroke]; 10],
}

/// Upright and round, with a broad pen.
const FIRST: Hand = Hand {
    pen: 1.35,
    slant: 0.08,
    digits: [
        &[&[
            (52., 0.),
            (24., 16.),
            (12., 50.),
            (22., 86.),
            (50., 100.),
            (78., 84.),
            (88., 50.),
            (78., 14.),
            (52., 0.),
        ]],
        &[&[(54., 0.), (51., 50.), (49., 100.)]],
        &[
            &[
                (14., 24.),
                (26., 6.),
                (52., 0.),
                (76., 10.),
                (79., 33.),
                (58., 62.),
                (12., 97.),
            ],
            &[(12., 97.), (50., 94.), (92., 97.)],
        ],
        &[
            &[(16., 12.), (44., 0.), (74., 9.), (74., 31.), (40., 47.)],
            &[
                (40., 47.),
                (74., 55.),
                (84., 76.),
                (64., 96.),
                (32., 99.),
                (8., 88.),
            ],
        ],
        &[
            &[(18., 2.), (10., 34.), (18., 53.), (48., 54.), (78., 46.)],
            &[(80., 0.), (77., 46.), (72., 100.)],
        ],
        &[
            &[(84., 2.), (56., 5.), (28., 4.)],
            &[(28., 4.), (25., 22.), (20., 43.)],
            &[
                (20., 43.),
                (48., 36.),
                (78., 48.),
                (82., 76.),
                (56., 97.),
                (10., 92.),
            ],
        ],
        &[&[
            (66., 0.),
            (38., 20.),
            (16., 56.),
            (20., 88.),
            (46., 100.),
            (73., 88.),
            (74., 64.),
            (50., 54.),
            (22., 72.),
        ]],
        &[
            &[(8., 8.), (46., 6.), (86., 4.)],
            &[(86., 4.), (62., 45.), (46., 100.)],
        ],
        &[&[
            (76., 14.),
            (50., 0.),
            (25., 13.),
            (32., 34.),
            (55., 49.),
            (77., 72.),
            (69., 94.),
            (45., 100.),
            (22., 86.),
            (30., 64.),
            (56., 46.),
            (77., 28.),
            (76., 14.),
        ]],
        &[
            &[
                (76., 18.),
                (52., 1.),
                (22., 15.),
                (20., 40.),
                (44., 50.),
                (70., 38.),
                (76., 18.),
            ],
            &[(76., 18.), (74., 58.), (66., 100.)],
        ],
    ],
};

/// Leaning and quick, with a finer pen and other forms.
const SECOND: Hand = Hand {
    pen: 1.15,
    slant: 0.28,
    digits: [
        &[&[
            (62., 6.),
            (40., 2.),
            (20., 26.),
            (14., 60.),
            (24., 94.),
            (46., 99.),
            (68., 78.),
            (76., 42.),
            (66., 10.),
            (46., 0.),
        ]],
        &[
            &[(28., 20.), (40., 11.), (50., 0.)],
            &[(50., 0.), (50., 50.), (50., 100.)],
        ],
        &[&[
            (20., 16.),
            (46., 0.),
            (72., 12.),
            (70., 40.),
            (46., 76.),
            (20., 96.),
            (9., 88.),
            (22., 77.),
            (44., 86.),
            (66., 97.),
            (92., 90.),
        ]],
        &[
            &[(12., 4.), (44., 4.), (76., 1.)],
            &[(76., 1.), (58., 22.), (40., 41.)],
            &[(40., 41.), (72., 50.), (80., 76.), (52., 99.), (12., 92.)],
        ],
        &[
            &[(42., 0.), (26., 32.), (8., 62.)],
            &[(8., 62.), (46., 61.), (88., 58.)],
            &[(62., 34.), (61., 66.), (60., 100.)],
        ],
        &[
            &[(28., 4.), (25., 22.), (22., 42.)],
            &[
                (22., 42.),
                (48., 38.),
                (70., 52.),
                (70., 80.),
                (44., 99.),
                (8., 94.),
            ],
            &[(28., 4.), (56., 5.), (86., 0.)],
        ],
        &[&[
            (44., 0.),
            (26., 30.),
            (17., 66.),
            (26., 95.),
            (50., 99.),
            (70., 82.),
            (66., 62.),
            (44., 60.),
            (22., 80.),
        ]],
        &[
            &[(10., 14.), (14., 4.), (46., 5.), (80., 2.)],
            &[(80., 2.), (62., 46.), (52., 100.)],
            &[(38., 52.), (60., 50.), (82., 48.)],
        ],
        &[
            &[
                (52., 0.),
                (30., 10.),
                (32., 34.),
                (50., 45.),
                (68., 32.),
                (70., 10.),
                (52., 0.),
            ],
            &[
                (50., 45.),
                (24., 62.),
                (22., 88.),
                (46., 100.),
                (72., 88.),
                (74., 62.),
                (50., 45.),
            ],
        ],
        &[&[
            (72., 14.),
            (50., 0.),
            (26., 14.),
            (24., 40.),
            (46., 46.),
            (66., 34.),
            (73., 12.),
            (75., 50.),
            (66., 86.),
            (44., 100.),
            (24., 92.),
        ]],
    ],
};

fn main() -> Result<(), Box<dyn Error>> {
    let out: PathBuf = env::args_os()
        .nth(1)
        .ok_or("give the directory to write the two IDX files into")?
        .into();
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for word in [0x0803, 20, SIDE as u32, SIDE as u32] {
        images.extend(word.to_be_bytes());
    }
    for word in [0x0801u32, 20] {
        labels.extend(word.to_be_bytes());
    }
    for hand in [FIRST, SECOND] {
        for (label, strokes) in (0u8..).zip(hand.digits) {
            images.extend(draw(strokes, hand.pen, hand.slant));
            labels.push(label);
        }
    }
    fs::write(out.join("digits-images-idx3-ubyte"), images)?;
    fs::write(out.join("digits-labels-idx1-ubyte"), labels)?;
    Ok(())
}

/// One digit as pixels, white on black.
fn draw(strokes: &[Stroke], pen: f64, slant: f64) -> [u8; SIDE * SIDE] {
    let mut lines: Vec<Vec<Point>> = strokes.iter().map(|stroke| curve(stroke)).collect();
    for (x, y) in lines.iter_mut().flatten() {
        *x -= slant * *y;
    }
    fit(&mut lines, BOX - 2.0 * pen);

    // Once to find the centre of mass, once in its place. The digit moves by
    // whole pixels, as a finished raster does.
    let middle = SIDE as f64 / 2.0;
    let (x, y) = centre_of_mass(&raster(&lines, pen, (middle, middle)));
    let place = |centre: f64| middle + (middle - centre).round();
    raster(&lines, pen, (place(x), place(y)))
}

/// The Catmull-Rom spline through the points of a stroke, closed where it
/// ends at its beginning.
fn curve(stroke: Stroke) -> Vec<Point> {
    let last = stroke.len() - 1;
    let closed = stroke[0] == stroke[last];
    let before = if closed { stroke[last - 1] } else { stroke[0] };
    let after = if closed { stroke[1] } else { stroke[last] };
    let points: Vec<Point> = [before]
        .into_iter()
        .chain(stroke.iter().copied())
        .chain([after])
        .collect();
    let mut line = Vec::new();
    for four in points.windows(4) {
        for step in 0..=STEPS {
            let t = step as f64 / STEPS as f64;
            let blend = |a: f64, b: f64, c: f64, d: f64| {
                let (linear, square, cube) = (
                    c - a,
                    2.0 * a - 5.0 * b + 4.0 * c - d,
                    d - a + 3.0 * (b - c),
                );
                b + 0.5 * t * (linear + t * (square + t * cube))
            };
            line.push((
                blend(four[0].0, four[1].0, four[2].0, four[3].0),
                blend(four[0].1, four[1].1, four[2].1, four[3].1),
            ));
        }
    }
    line
}

/// Scales the lines so that their longer side has this length, with their
/// middle at the origin.
fn fit(lines: &mut [Vec<Point>], length: f64) {
    let range = |of: fn(&Point) -> f64| {
        let values = lines.iter().flatten().map(of);
        values.fold((f64::MAX, f64::MIN), |(low, high), v| {
            (low.min(v), high.max(v))
        })
    };
    let ((left, right), (top, bottom)) = (range(|point| point.0), range(|point| point.1));
    let scale = length / (right - left).max(bottom - top);
    for (x, y) in lines.iter_mut().flatten() {
        *x = (*x - (left + right) / 2.0) * scale;
        *y = (*y - (top + bottom) / 2.0) * scale;
    }
}

/// The share of each pixel that the pen covered, with the origin of the lines
/// at a point of the image.
fn raster(lines: &[Vec<Point>], pen: f64, origin: Point) -> [u8; SIDE * SIDE] {
    let covered = |x: f64, y: f64| {
        lines
            .iter()
            .flat_map(|line| line.windows(2))
            .any(|segment| {
                let (x, y) = (x - origin.0 - segment[0].0, y - origin.1 - segment[0].1);
                let (dx, dy) = (segment[1].0 - segment[0].0, segment[1].1 - segment[0].1);
                let length = dx * dx + dy * dy;
                let along = if length > 0.0 {
                    ((x * dx + y * dy) / length).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let (x, y) = (x - along * dx, y - along * dy);
                x * x + y * y <= pen * pen
            })
    };
    std::array::from_fn(|pixel| {
        let (row, column) = (pixel / SIDE, pixel % SIDE);
        let sample = |at: usize, i: usize| at as f64 + (i as f64 + 0.5) / SAMPLES as f64;
        let count = (0..SAMPLES * SAMPLES)
            .filter(|i| covered(sample(column, i % SAMPLES), sample(row, i / SAMPLES)))
            .count();
        (count * 255 / (SAMPLES * SAMPLES)) as u8
    })
}

fn centre_of_mass(image: &[u8; SIDE * SIDE]) -> Point {
    let (mut mass, mut x, mut y) = (0.0, 0.0, 0.0);
    for (pixel, &value) in image.iter().enumerate() {
        let value = f64::from(value);
        mass += value;
        x += value * ((pixel % SIDE) as f64 + 0.5);
        y += value * ((pixel / SIDE) as f64 + 0.5);
    }
    (x / mass, y / mass)
}
