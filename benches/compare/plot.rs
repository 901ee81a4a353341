//! Plots as SVG: panels side by side, each with lines on logarithmic or linear axes. Readable on light and dark pages.

use std::fmt::Write;

/// One panel.
pub struct Panel {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

pub struct Axis {
    pub label: &'static str,
    pub is_log: bool,
}

pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 44.0;
const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}.t{font-weight:bold}.g{stroke:#d0d7de}.l0{stroke:#0969da}.l1{stroke:#bc4c00}\
.l2{stroke:#6e7781;stroke-dasharray:4 3}.f0{fill:#0969da}.f1{fill:#bc4c00}.f2{fill:#6e7781}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#3d444d}.l0{stroke:#4493f8}.l1{stroke:#f0883e}.f0{fill:#4493f8}.f1{fill:#f0883e}}";

/// The whole image.
pub fn svg(panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\">\n<style>{STYLE}</style>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({} 0)\">", WIDTH * number as f64);
        draw(panel, &mut svg);
        svg.push_str("</g>\n");
    }
    svg + "</svg>\n"
}

fn draw(panel: &Panel, svg: &mut String) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let x = Scale::new(&panel.x, points().map(|point| point.0), (LEFT, WIDTH - RIGHT));
    let y = Scale::new(&panel.y, points().map(|point| point.1), (HEIGHT - BOTTOM, TOP));
    let _ = writeln!(svg, "<text class=\"t\" x=\"{LEFT}\" y=\"16\">{}</text>", panel.title);
    for tick in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(svg, "<path class=\"g\" d=\"M{at:.1} {TOP}V{}\"/>", HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<text text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            HEIGHT - BOTTOM + 16.0,
            short(tick)
        );
    }
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(svg, "<path class=\"g\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<text text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<text text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 8.0,
        panel.x.label
    );
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"34\">{}:", panel.y.label);
    for (number, line) in panel.lines.iter().enumerate() {
        let _ = writeln!(svg, "<tspan class=\"f{number}\" dx=\"6\">● {}</tspan>", line.name);
    }
    svg.push_str("</text>\n");
    for (number, line) in panel.lines.iter().enumerate() {
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1} {:.1}", x.place(point.0), y.place(point.1))).collect();
        let _ = writeln!(svg, "<path class=\"l{number}\" fill=\"none\" stroke-width=\"2\" d=\"M{}\"/>", path.join("L"));
        for point in &line.points {
            let _ = writeln!(
                svg,
                "<circle class=\"f{number}\" r=\"3\" cx=\"{:.1}\" cy=\"{:.1}\"/>",
                x.place(point.0),
                y.place(point.1)
            );
        }
    }
}

/// Maps values to coordinates.
struct Scale {
    is_log: bool,
    values: (f64, f64),
    places: (f64, f64),
}

impl Scale {
    /// Covers all of `values`; a linear scale begins at 0.
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, places: (f64, f64)) -> Scale {
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        let values = if axis.is_log {
            (10_f64.powf(least.max(1e-3).log10().floor()), 10_f64.powf(most.max(1e-3).log10().ceil()).max(least * 10.0))
        } else {
            (0.0, most.max(f64::MIN_POSITIVE) * 1.05)
        };
        Scale { is_log: axis.is_log, values, places }
    }

    fn place(&self, value: f64) -> f64 {
        let (least, most) = self.values;
        let part = if self.is_log {
            (value.max(least) / least).ln() / (most / least).ln()
        } else {
            (value - least) / (most - least)
        };
        self.places.0 + part * (self.places.1 - self.places.0)
    }

    fn ticks(&self) -> Vec<f64> {
        let (least, most) = self.values;
        if self.is_log {
            return std::iter::successors(Some(least), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= most * 1.001)
                .collect();
        }
        let rough = most / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(rough);
        (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= most).collect()
    }
}

/// 1200000 as 1.2M.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = if scaled >= 10.0 || scaled.fract() == 0.0 {
        0
    } else if scaled >= 0.1 {
        1
    } else {
        3
    };
    format!("{scaled:.digits$}{unit}")
}
