//! Timing traces as files: trace-event JSON for Perfetto and chrome://tracing,
//! and a picture.
//!
//! The JSON format is Google's "Trace Event Format". Its times are in
//! microseconds; one nanosecond there is one instruction, one cycle or one
//! nanosecond, whatever the evaluator counts, and `otherData` says which. A
//! process stands for an image, a thread for a kind of work. A span's name is its kind, its
//! category the step of the plan; its length is from the first begin to the last end of
//! that kind of work for one limb, of which `args.busy` belonged to it, begun
//! `args.count` times.

use std::ops::Range;

use he_nn::message::{Item, TimeUnit};
use he_nn::program::Program;
use he_nn::trace::{Place, Span, SpanKind};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

use crate::client::Trace;
use crate::service::Deployment;

/// Name of a kind of work in files and pictures.
#[must_use]
pub const fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Wait => "wait",
        SpanKind::Receive => "receive",
        SpanKind::Decode => "decode",
        SpanKind::Expand => "expand",
        SpanKind::Encode => "encode",
        SpanKind::Ntt => "ntt",
        SpanKind::MultiplyAccumulate => "multiply-accumulate",
        SpanKind::Digit => "digit",
        SpanKind::KeyProduct => "key product",
        SpanKind::ModDown => "mod-down",
        SpanKind::Rescale => "rescale",
        SpanKind::Send => "send",
        SpanKind::Keep => "keep",
    }
}

/// What a unit is called in files.
const fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::None => "none",
        TimeUnit::Instructions => "instructions",
        TimeUnit::Cycles => "cycles",
        TimeUnit::Nanoseconds => "nanoseconds",
    }
}

/// The trace of one image.
#[derive(Clone, Debug)]
pub struct TracedImage {
    /// Index of the image in its split.
    pub index: usize,
    /// Its trace.
    pub trace: Trace,
}

/// The traces of a run.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The program that was executed.
    program: Option<Program<Vec<u8>>>,
    /// The names of its steps.
    steps: Vec<String>,
    /// The evaluator's board.
    pub board: String,
    /// What it counts.
    pub unit: TimeUnit,
    /// In the order of the run.
    pub images: Vec<TracedImage>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            program: None,
            steps: Vec::new(),
            board: String::new(),
            unit: TimeUnit::None,
            images: Vec::new(),
        }
    }
}

/// The file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    trace_events: Vec<Event<'a>>,
    display_time_unit: &'static str,
    other_data: Other<'a>,
}

#[derive(Serialize)]
struct Other<'a> {
    board: &'a str,
    unit: &'static str,
    /// What one microsecond of the events is in `unit`.
    units_per_microsecond: u32,
    /// Spans that the evaluator had no room for, over all images.
    dropped: u64,
    /// What its tracer took for itself, in `unit`, over all images.
    tracer: u64,
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'a str>,
    ph: &'static str,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: usize,
    tid: usize,
    args: Details,
}

#[derive(Default, Serialize)]
struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limb: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digit: Option<u8>,
}

/// Units of the evaluator's clock in a microsecond of the file.
const UNITS_PER_MICROSECOND: u32 = 1000;

fn microseconds(units: u64) -> f64 {
    units as f64 / f64::from(UNITS_PER_MICROSECOND)
}

impl Timeline {
    /// Takes the program and the names of its steps.
    pub fn of(&mut self, deployment: &Deployment) {
        self.program.clone_from(&deployment.program);
        let names = deployment.steps.iter().map(|step| step.name.clone());
        self.steps = names.collect();
    }

    /// The step that a place belongs to; `None` for an item that the program has not.
    #[must_use]
    pub fn step(&self, place: Place) -> Option<u8> {
        match place {
            Place::Step(step) => Some(step),
            Place::Item(item) => self.program.as_ref()?.step_of(item),
        }
    }

    fn step_name(&self, step: u8) -> Option<&str> {
        self.steps.get(usize::from(step)).map(String::as_str)
    }

    /// The trace-event JSON.
    ///
    /// # Errors
    /// Of the serialiser.
    pub fn json(&self) -> serde_json::Result<String> {
        let mut trace_events = Vec::new();
        for (i, image) in self.images.iter().enumerate() {
            let pid = i + 1;
            let about = |name, tid, args| Event {
                name,
                cat: None,
                ph: "M",
                ts: 0.0,
                dur: None,
                pid,
                tid,
                args,
            };
            let name = |name| Details {
                name: Some(name),
                ..Details::default()
            };
            let process = format!("image {} on {}", image.index, self.board);
            trace_events.push(about("process_name", 0, name(process)));
            for kind in SpanKind::ALL {
                let tid = thread(kind);
                let sort = Details {
                    sort_index: Some(tid),
                    ..Details::default()
                };
                let title = name(kind_name(kind).to_owned());
                trace_events.push(about("thread_name", tid, title));
                trace_events.push(about("thread_sort_index", tid, sort));
            }
            trace_events.extend(image.trace.spans.iter().map(|span| self.event(span, pid)));
        }
        let dropped = |image: &TracedImage| u64::from(image.trace.dropped);
        let own = self.images.iter().map(|image| image.trace.own);
        serde_json::to_string(&File {
            trace_events,
            display_time_unit: "ns",
            other_data: Other {
                board: &self.board,
                unit: unit_name(self.unit),
                units_per_microsecond: UNITS_PER_MICROSECOND,
                dropped: self.images.iter().map(dropped).sum(),
                tracer: own.fold(0, u64::saturating_add),
            },
        })
    }

    fn event(&self, span: &Span, pid: usize) -> Event<'_> {
        let mut args = Details {
            count: Some(span.count),
            busy: Some(span.busy),
            ..Details::default()
        };
        match span.place {
            Place::Step(_) => {}
            Place::Item(Item::Weight { factor, limb }) => {
                args.factor = Some(factor);
                args.limb = Some(limb);
            }
            Place::Item(Item::Input { ciphertext, limb }) => {
                args.input = Some(ciphertext);
                args.limb = Some(limb);
            }
            Place::Item(Item::Key { key, limb, digit }) => {
                args.key = Some(key);
                args.limb = Some(limb);
                args.digit = Some(digit);
            }
        }
        Event {
            name: kind_name(span.kind),
            cat: self.step(span.place).and_then(|step| self.step_name(step)),
            ph: "X",
            ts: microseconds(span.start),
            dur: Some(microseconds(span.length.into())),
            pid,
            tid: thread(span.kind),
            args,
        }
    }

    /// A picture of the first image's trace, as SVG: one row per kind of work, whose
    /// height at a point is that kind's share of the time there; the stages
    /// above. `None` if nothing was traced.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn picture(&self) -> Result<Option<String>, String> {
        let Some(TracedImage { trace, .. }) = self.images.first() else {
            return Ok(None);
        };
        let (Some(first), Some(end)) =
            (trace.spans.first(), trace.spans.iter().map(Span::end).max())
        else {
            return Ok(None);
        };
        let start = if trace.dropped == 0 { 0 } else { first.start };
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        self.draw(&area, &trace.spans, start..end.max(start + 1))
            .map_err(|e| e.to_string())?;
        drop(area);
        Ok(Some(svg))
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        spans: &[Span],
        times: Range<u64>,
    ) -> Drawn {
        let rows = SpanKind::ALL.len();
        let bottom = TOP + ROW * rows as i32;
        let (name, short) = match self.unit {
            TimeUnit::Nanoseconds => ("milliseconds", "ms"),
            TimeUnit::Cycles => ("million cycles", "M"),
            TimeUnit::Instructions | TimeUnit::None => ("million instructions", "M"),
        };
        area.fill(&WHITE)?;
        let shown = [times.start, times.end].map(|t| t as f64 / STEP);
        let mut chart = ChartBuilder::on(area)
            .margin_left(LEFT)
            .margin_right(WIDTH as i32 - RIGHT)
            .margin_top(TOP - STAGES)
            .margin_bottom(HEIGHT as i32 - bottom - X_LABELS)
            .x_label_area_size(X_LABELS)
            .build_cartesian_2d(shown[0]..shown[1], 0..rows)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(12)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .x_desc(name)
            .label_style((FONT, 13))
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.12))
            .axis_style(INK)
            .draw()?;

        let band = TOP - (STAGES + 8) / 2;
        area.draw(&label(LEFT - 8, band, HPos::Right, self.board.clone()))?;
        area.draw(&label(RIGHT + 62, band, HPos::Right, short.to_owned()))?;
        area.draw(&label(RIGHT + 122, band, HPos::Right, "share".to_owned()))?;
        let at = |time: u64| column(&times, time);
        self.draw_stages(area, spans, at)?;
        let elapsed = (times.end - times.start) as f64;
        for (row, kind) in SpanKind::ALL.into_iter().enumerate() {
            let base = TOP + ROW * (row as i32 + 1);
            let own: Vec<_> = spans.iter().filter(|s| s.kind == kind).collect();
            let busy = own.iter().map(|s| u64::from(s.busy)).sum::<u64>() as f64;
            area.draw(&PathElement::new(
                [(LEFT, base), (RIGHT, base)],
                INK.mix(0.25),
            ))?;
            area.draw(&Polygon::new(
                outline(&shares(&own, &times), base),
                colour(kind).filled(),
            ))?;
            let middle = base - ROW / 2;
            let text = |x, anchor, text: String| label(x, middle, anchor, text);
            area.draw(&text(LEFT - 8, HPos::Right, kind_name(kind).to_owned()))?;
            let share = format!("{:.1}", busy / STEP);
            area.draw(&text(RIGHT + 62, HPos::Right, share))?;
            let share = format!("{:.1} %", 100.0 * busy / elapsed);
            area.draw(&text(RIGHT + 122, HPos::Right, share))?;
        }
        area.present()?;
        Ok(())
    }

    /// The band of stages.
    fn draw_stages(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        spans: &[Span],
        at: impl Fn(u64) -> i32,
    ) -> Drawn {
        let mut stages: Vec<(u8, Range<u64>)> = Vec::new();
        for span in spans {
            let Some(stage) = self.step(span.place) else {
                continue;
            };
            match stages.last_mut() {
                Some((last, times)) if *last == stage => times.end = times.end.max(span.end()),
                _ => stages.push((stage, span.start..span.end())),
            }
        }
        for (i, (stage, times)) in stages.into_iter().enumerate() {
            let (left, right) = (at(times.start), at(times.end));
            let shade = if i % 2 == 0 { 0.16 } else { 0.30 };
            area.draw(&Rectangle::new(
                [(left, TOP - STAGES), (right, TOP - 8)],
                INK.mix(shade).filled(),
            ))?;
            let name = self.step_name(stage).unwrap_or_default().to_owned();
            // About 7 pixels a letter.
            if right - left > 7 * name.len() as i32 {
                let (x, y) = (left.midpoint(right), TOP - (STAGES + 8) / 2);
                area.draw(&label(x, y, HPos::Center, name))?;
            }
        }
        Ok(())
    }
}

type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

/// Units of the evaluator's clock in one of the axis.
const STEP: f64 = 1e6;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);

// Pixels.
const WIDTH: u32 = 1200;
const HEIGHT: u32 = 470;
const LEFT: i32 = 150;
const RIGHT: i32 = 1070;
const TOP: i32 = 46;
const STAGES: i32 = 30;
const ROW: i32 = 30;
const X_LABELS: i32 = 44;
/// What a row's height is at a share of 1.
const FULL: i32 = ROW - 5;
/// Columns that shares are computed for.
const COLUMNS: usize = (RIGHT - LEFT) as usize / 2;

/// A thread of the file; Perfetto reserves 0.
const fn thread(kind: SpanKind) -> usize {
    kind as usize + 1
}

/// Pixel of a moment.
fn column(times: &Range<u64>, time: u64) -> i32 {
    let part = time.saturating_sub(times.start) as f64 / (times.end - times.start) as f64;
    LEFT + (part.min(1.0) * f64::from(RIGHT - LEFT)) as i32
}

/// Share of the time in each column that `spans` were busy, each taken to be
/// busy evenly.
fn shares(spans: &[&Span], times: &Range<u64>) -> Vec<f64> {
    let width = (times.end - times.start) as f64 / COLUMNS as f64;
    let mut busy = vec![0.0; COLUMNS];
    for span in spans {
        let start = span.start.saturating_sub(times.start) as f64 / width;
        let length = f64::from(span.length.max(1)) / width;
        let density = f64::from(span.busy) / f64::from(span.length.max(1));
        let last = (start + length).ceil() as usize;
        let touched = busy.iter_mut().enumerate();
        for (i, busy) in touched.take(last).skip(start as usize) {
            let overlap = (start + length).min((i + 1) as f64) - start.max(i as f64);
            *busy += density * overlap.max(0.0);
        }
    }
    busy
}

/// The steps of a row, from its base line up; columns of equal height are one.
fn outline(shares: &[f64], base: i32) -> Vec<(i32, i32)> {
    let height = |share: f64| (share.min(1.0) * f64::from(FULL)).round() as i32;
    let mut points = vec![(LEFT, base)];
    let mut before = 0;
    for (i, &share) in shares.iter().enumerate() {
        // What is there at all is seen.
        let height = height(share).max(i32::from(share > 0.0));
        if height != before {
            let x = LEFT + 2 * i as i32;
            points.extend([(x, base - before), (x, base - height)]);
            before = height;
        }
    }
    points.extend([(RIGHT, base - before), (RIGHT, base)]);
    points
}

fn label(x: i32, y: i32, anchor: HPos, text: String) -> Text<'static, (i32, i32), String> {
    let style = TextStyle::from((FONT, 13).into_font())
        .color(&INK)
        .pos(Pos::new(anchor, VPos::Center));
    Text::new(text, (x, y), style)
}

/// The link and keeping keys in greys, arithmetic in colours that the colour-blind tell apart
/// (Wong, Nature Methods 8, 2011).
const fn colour(kind: SpanKind) -> RGBColor {
    match kind {
        SpanKind::Wait => RGBColor(200, 200, 200),
        SpanKind::Receive | SpanKind::Send => RGBColor(140, 140, 140),
        SpanKind::Keep => RGBColor(90, 90, 90),
        SpanKind::Decode => RGBColor(86, 180, 233),
        SpanKind::Expand => RGBColor(0, 114, 178),
        SpanKind::Encode => RGBColor(240, 228, 66),
        SpanKind::Ntt => RGBColor(213, 94, 0),
        SpanKind::MultiplyAccumulate => RGBColor(230, 159, 0),
        SpanKind::Digit => RGBColor(204, 121, 167),
        SpanKind::KeyProduct => RGBColor(0, 158, 115),
        SpanKind::ModDown => RGBColor(204, 121, 167),
        SpanKind::Rescale => RGBColor(86, 180, 233),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kind: SpanKind, start: u64, length: u32, busy: u32) -> Span {
        Span {
            kind,
            place: Place::Item(Item::Input {
                ciphertext: 3,
                limb: 1,
            }),
            count: 8,
            start,
            length,
            busy,
        }
    }

    #[test]
    fn busy_time_is_kept_over_the_columns() {
        let times = 500..500 + 1000 * COLUMNS as u64;
        let spans = [
            span(SpanKind::Ntt, 500, 700, 700),
            span(SpanKind::Ntt, 1200, 100_000, 25_000),
            span(SpanKind::Ntt, times.end - 10, 10, 5),
        ];
        let shares = shares(&spans.iter().collect::<Vec<_>>(), &times);
        assert!((shares.iter().sum::<f64>() * 1000.0 - 25_705.0).abs() < 1e-6);
        assert!(
            (shares[0] - (0.7 + 0.3 * 0.25)).abs() < 1e-9,
            "{}",
            shares[0]
        );
        assert!((shares[50] - 0.25).abs() < 1e-9);
        assert!((shares[COLUMNS - 1] - 0.005).abs() < 1e-9);
        let outline = outline(&shares, 100);
        assert_eq!(outline.first(), Some(&(LEFT, 100)));
        assert_eq!(outline.last(), Some(&(RIGHT, 100)));
        assert!(
            outline
                .iter()
                .all(|&(_, y)| (100 - FULL..=100).contains(&y))
        );
    }
}
