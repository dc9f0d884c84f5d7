//! The main job, `he-edge` without arguments: the bundled digits, encrypted,
//! through the in-process evaluator.

use he_nn::bundled;
use he_nn::data::SIDE;
use he_nn::plan::{Target, WeightMode};

use super::output::{self, Bar};
use super::{Failure, ModelFile};
use crate::planning;
use crate::report::infer::ImageReport;
use crate::report::text::{self, bytes};
use crate::report::timeline::Timeline;
use crate::run::{self, Work};
use crate::service::InMemory;

/// Digits side by side.
const PER_ROW: usize = 5;

/// Runs the main job.
///
/// # Errors
/// [`Failure`].
pub fn run() -> Result<(), Failure> {
    let file = ModelFile::open("mnist-mlp64")?;
    let model = file.parse()?;
    let digits = bundled::digits()?;
    let count = digits.images.len();
    let plan = planning::plan(None, model, WeightMode::Plain, Target::Host);
    let plan = plan.map_err(|source| file.failed()(source.into()))?;
    let mut service = InMemory::new(plan).map_err(file.failed())?;
    let samples: Vec<_> = digits.samples().collect();
    let report = run::classify(
        &mut service,
        Work::of(file.name(), &samples, "inproc"),
        &mut Bar::default(),
        &mut Timeline::default(),
    )
    .map_err(file.failed_in_run())?;

    let mut out = String::from(
        "Each digit was encrypted; the evaluator saw ciphertexts only and returned one.\n\n",
    );
    let pictures = digits
        .images
        .chunks(PER_ROW)
        .zip(report.images.chunks(PER_ROW));
    for (images, reports) in pictures {
        out.push_str(&row(images, reports));
    }
    let (params, e) = (&report.params, &report.evaluator);
    let is_right = |image: &&ImageReport| {
        let predicted = image.classified().map(|image| image.predicted);
        predicted == Some(usize::from(image.label))
    };
    let right = report.images.iter().filter(is_right).count();
    out.push_str(&text::facts(&[
        (
            "right",
            format!(
                "{right} of {count}, {} labels changed by encryption",
                report.label_flips
            ),
        ),
        (
            "time",
            format!(
                "{:.1} ms per image by the clock, encryption included",
                1e3 * report.wall_seconds
            ),
        ),
        (
            "link",
            format!(
                "{} up ({} of it switching keys, sent once), {} down per image",
                bytes(report.bytes_up),
                bytes(report.key_bytes_up),
                bytes(report.bytes_down)
            ),
        ),
        ("evaluator memory", bytes(e.ram_static_bytes.into())),
        (
            "security",
            format!(
                "{} bit (N = {}, log2(QP) = {:.1})",
                params.security_bits, params.n, params.log_qp
            ),
        ),
    ]));
    output::print(&out)
}

/// Digits side by side with their predictions.
fn row(images: &[[u8; SIDE * SIDE]], reports: &[ImageReport]) -> String {
    let pictures: Vec<Vec<String>> = images.iter().map(braille).collect();
    let mut out = String::new();
    for line in 0..pictures.first().map_or(0, Vec::len) {
        let cells = pictures
            .iter()
            .filter_map(|p| p.get(line))
            .map(String::as_str);
        out.push_str(cells.collect::<Vec<_>>().join(" ").trim_end());
        out.push('\n');
    }
    for report in reports {
        let text = match report.classified().map(|image| image.predicted) {
            Some(digit) if digit == usize::from(report.label) => format!("{digit} right"),
            Some(digit) => format!("{digit} wrong"),
            None => "refused".to_owned(),
        };
        out.push_str(&format!("{text:^width$} ", width = SIDE / 2));
    }
    out.push_str("\n\n");
    out
}

/// An image in braille characters, 2 x 4 pixels each.
fn braille(image: &[u8; SIDE * SIDE]) -> Vec<String> {
    const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let ink = |x: usize, y: usize| image.get(y * SIDE + x).is_some_and(|&p| p > 100);
    (0..SIDE)
        .step_by(4)
        .map(|y| {
            (0..SIDE)
                .step_by(2)
                .map(|x| {
                    let mut bits = 0;
                    for (dy, row) in DOTS.iter().enumerate() {
                        for (dx, bit) in row.iter().enumerate() {
                            bits |= if ink(x + dx, y + dy) { *bit } else { 0 };
                        }
                    }
                    char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' ')
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_the_pixels() {
        let mut image = [0; SIDE * SIDE];
        image[0] = 255;
        image[3 * SIDE + 3] = 255;
        let lines = braille(&image);
        assert_eq!(lines.len(), 7);
        assert!(lines.iter().all(|l| l.chars().count() == 14));
        assert!(
            lines
                .first()
                .is_some_and(|l| l.starts_with("\u{2801}\u{2880}\u{2800}"))
        );
    }
}
