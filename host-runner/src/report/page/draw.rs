//! Pictures of a page: curves as SVG inside it, images as PNG in a `data:` address.
//!
//! plotters draws axes and curves, as it does the timeline, without fonts or C
//! libraries; charming is a JavaScript engine's worth of code in the page or in the
//! program. Its colour of ink is exchanged for `currentColor`, so that a curve is
//! readable on light and on dark ground.

use std::error::Error;

use attacks::record::Picture;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Size of curves: small, so that letters stay readable on a telephone. Their names
/// stand below, on a line each.
const SIZE: (u32, u32) = (480, 280);
const LINE: i32 = 18;

/// Axes and letters: a colour that nothing else has, replaced in the picture.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_IN_SVG: &str = "#010203";

/// Colours of curves: of middle brightness, and told apart by most eyes (Okabe, Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
];

/// Curves beyond so many are left out; the caption must say so.
pub const MOST_CURVES: usize = COLOURS.len();

/// Least value on a logarithmic axis.
const LEAST: f64 = 1e-4;

type Drawn = Result<(), Box<dyn Error>>;

/// Something to look at, ready to stand in a page.
pub enum Look {
    /// The inside of an `svg` element with its tag.
    Svg(String),
    /// A PNG, with its width and height in pixels.
    Png {
        /// The file.
        file: Vec<u8>,
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
}

/// The `data:` address of a PNG.
#[must_use]
pub fn address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// Draws a picture; what is wrong with it, in words, where it cannot be drawn.
///
/// # Errors
/// A sentence.
pub fn draw(picture: &Picture) -> Result<Look, String> {
    match picture {
        Picture::Images {
            width,
            columns,
            images,
        } => grid(*width, columns.len(), images),
        Picture::Curves {
            x,
            y,
            logarithmic,
            curves,
        } => svg(x, y, *logarithmic, curves)
            .map(Look::Svg)
            .map_err(|error| error.to_string()),
    }
}

/// Pixels between images.
const GAP: usize = 2;

fn grid(width: usize, columns: usize, images: &[Vec<f32>]) -> Result<Look, String> {
    let pixels = images.first().map_or(0, Vec::len);
    if width == 0 || columns == 0 || pixels == 0 || images.iter().any(|i| i.len() != pixels) {
        return Err("its images are of different sizes, or there is none".into());
    }
    let height = pixels.div_ceil(width);
    let rows = images.len().div_ceil(columns);
    let (wide, high) = (columns * (width + GAP), rows * (height + GAP));
    // A grey that is part of neither ground.
    let mut out = vec![128u8; wide * high];
    for (at, image) in images.iter().enumerate() {
        let (left, top) = (
            at % columns * (width + GAP) + GAP / 2,
            at / columns * (height + GAP) + GAP / 2,
        );
        for (pixel, value) in image.iter().enumerate() {
            let (x, y) = (left + pixel % width, top + pixel / width);
            out[y * wide + x] = (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    }
    let size = |n: usize| u32::try_from(n).map_err(|_| "it is too large".to_owned());
    let (width, height) = (size(wide)?, size(high)?);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&out));
    written.map_err(|error| error.to_string())?;
    Ok(Look::Png {
        file,
        width,
        height,
    })
}

type Curve = (String, Vec<(f64, f64)>);

fn svg(x: &str, y: &str, logarithmic: bool, curves: &[Curve]) -> Result<String, Box<dyn Error>> {
    let curves: Vec<Curve> = curves
        .iter()
        .take(MOST_CURVES)
        .map(|(name, points)| {
            let finite = points
                .iter()
                .filter(|(x, y)| x.is_finite() && y.is_finite());
            let floor = |v: f64| if logarithmic { v.max(LEAST) } else { v };
            (
                name.clone(),
                finite.map(|&(x, y)| (floor(x), floor(y))).collect(),
            )
        })
        .collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    if all().next().is_none() {
        return Err("there is no point in it".into());
    }
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| {
            (low.min(v), high.max(v))
        });
        let span = (high - low).max(1e-6);
        (low, high, span)
    };
    let (left, right, _) = range(|p| p.0);
    let (low, high, span) = range(|p| p.1);
    let mut text = String::new();
    let height = SIZE.1 + LINE as u32 * curves.len() as u32 + 4;
    let area = SVGBackend::with_string(&mut text, (SIZE.0, height)).into_drawing_area();
    if logarithmic {
        let across = (left..right.max(left * 1.01)).log_scale();
        let up = (low..high.max(low * 1.01)).log_scale();
        plot(&area, across, up, (x, y), &curves)?;
    } else {
        // Shares stand on an axis from 0 to 1, so that pictures compare.
        let share = low >= 0.0 && high <= 1.0;
        let up = if share {
            0.0..1.0
        } else {
            low - 0.05 * span..high + 0.05 * span
        };
        plot(&area, left..right.max(left + 1e-6), up, (x, y), &curves)?;
    }
    area.present()?;
    drop(area);
    let begin = text.find("<svg").ok_or("no picture was drawn")?;
    let attributes = text[begin..].find('>').ok_or("no picture was drawn")? + begin + 1;
    Ok(format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\">{}",
        SIZE.0,
        height,
        text[attributes..].replace(INK_IN_SVG, "currentColor")
    ))
}

fn plot<X, Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    across: X,
    up: Y,
    (x, y): (&str, &str),
    curves: &[Curve],
) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let (chart_area, legend_area) = area.split_vertically(SIZE.1 as i32);
    let mut chart = ChartBuilder::on(&chart_area)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .x_desc(x)
        .y_desc(y)
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK)
        .draw()?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line = PathElement::new(points.clone(), colour.stroke_width(2));
        chart.draw_series(std::iter::once(line))?;
        let dots = points.iter().filter(|_| points.len() <= 20);
        chart.draw_series(dots.map(|&point| Circle::new(point, 3, colour.filled())))?;
        let line = LINE * index as i32 + 8;
        legend_area.draw(&PathElement::new(
            [(48, line), (72, line)],
            colour.stroke_width(3),
        ))?;
        legend_area.draw(&Text::new(
            name.clone(),
            (80, line - 7),
            ("sans-serif", 13).into_font().color(&INK),
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_curves_are_text() {
        let picture = Picture::Curves {
            x: "a < b".into(),
            y: "y".into(),
            logarithmic: false,
            curves: vec![("<script>x</script>".into(), vec![(0.0, 0.5), (1.0, 0.9)])],
        };
        let Look::Svg(svg) = draw(&picture).unwrap() else {
            panic!();
        };
        assert!(
            !svg.contains("<script") && svg.contains("&lt;script&gt;"),
            "{svg}"
        );
        assert!(svg.contains("currentColor") && !svg.contains(INK_IN_SVG));
        assert!(!svg.contains("http"));
    }

    #[test]
    fn what_cannot_be_drawn_says_so() {
        let picture = Picture::Curves {
            x: String::new(),
            y: String::new(),
            logarithmic: true,
            curves: vec![("nothing".into(), vec![(f64::NAN, 1.0)])],
        };
        assert!(draw(&picture).is_err());
        let images = |images| Picture::Images {
            width: 2,
            columns: vec!["1".into()],
            images,
        };
        assert!(draw(&images(vec![vec![0.0; 4], vec![0.0; 5]])).is_err());
        assert!(draw(&images(Vec::new())).is_err());
        let Look::Png { width, height, .. } = draw(&images(vec![vec![0.5; 4]])).unwrap() else {
            panic!();
        };
        assert_eq!((width, height), (4, 4));
    }

    #[test]
    fn rates_of_zero_stand_at_the_edge_of_a_logarithmic_axis() {
        let picture = Picture::Curves {
            x: "false positives".into(),
            y: "true positives".into(),
            logarithmic: true,
            curves: vec![("roc".into(), vec![(0.0, 0.0), (0.01, 0.1), (1.0, 1.0)])],
        };
        assert!(matches!(draw(&picture), Ok(Look::Svg(_))));
    }
}
