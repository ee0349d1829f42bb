//! Bars on a scale of powers of ten: each with its name and value above it, so that neither runs into anything.

use super::draw::{Scale, WIDTH, figure, open};
use super::text::escape;
use std::fmt::Write;

const ROW: f64 = 32.0;
const TOP: f64 = 6.0;

/// One bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    /// From and to: quartiles, or the least and the p99.
    pub(super) spread: Option<[f64; 2]>,
    pub(super) colour: usize,
}

/// A chart of bars on a scale of its own; nothing where there is no value.
pub(super) fn bars(title: &str, bars: &[Bar], unit: fn(f64) -> String, note: &str) -> String {
    bars_beside(title, bars, bars, unit, note)
}

/// A chart of bars on the scale of `all`, so that several charts can be compared.
pub(super) fn bars_beside(title: &str, bars: &[Bar], all: &[Bar], unit: fn(f64) -> String, note: &str) -> String {
    let values = all.iter().flat_map(|bar| [bar.value].into_iter().chain(bar.spread.into_iter().flatten()));
    let Some(scale) = Scale::around(values, 0.0, WIDTH - 2.0).filter(|_| !bars.is_empty()) else { return String::new() };
    let bottom = TOP + bars.len() as f64 * ROW;
    let mut svg = open(title, bottom + 18.0);
    let ticks: Vec<f64> = scale.ticks().collect();
    for (index, tick) in ticks.iter().enumerate() {
        let (x, anchor) = (scale.at(*tick), anchor(index, ticks.len()));
        let _ = writeln!(
            svg,
            "<line class=\"tick\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"axis {anchor}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 13.0,
            unit(*tick)
        );
    }
    for (row, Bar { name, value, spread, colour }) in bars.iter().enumerate() {
        let y = TOP + row as f64 * ROW;
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"0\" y=\"{:.1}\">{}</text><text class=\"value end\" x=\"{WIDTH}\" y=\"{:.1}\">{}</text>\
             <rect class=\"f{}\" x=\"0\" y=\"{:.1}\" width=\"{:.1}\" height=\"9\" rx=\"2\"/>",
            y + 13.0,
            escape(name),
            y + 13.0,
            unit(*value),
            super::draw::colour(*colour),
            y + 18.0,
            scale.at(*value).max(2.0)
        );
        if let Some([from, to]) = spread {
            let (from, to, y) = (scale.at(*from), scale.at(*to), y + 22.5);
            let _ = writeln!(svg, "<line class=\"spread\" x1=\"{from:.1}\" y1=\"{y:.1}\" x2=\"{to:.1}\" y2=\"{y:.1}\"/>");
        }
    }
    figure(title, &(svg + "</svg>\n"), &[], note)
}

/// The outermost labels lie inside.
pub(super) fn anchor(index: usize, count: usize) -> &'static str {
    match index {
        0 => "start",
        _ if index + 1 == count => "end",
        _ => "middle",
    }
}
