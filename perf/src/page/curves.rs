//! Latency against the share of lookups that were no slower: the further right, the rarer.

use super::draw::{BOTTOM, LEFT, Scale, TOP, WIDTH, figure, over_ns};
use std::fmt::Write;

/// Room for the largest value, which has no percentile.
const MAX_ROOM: f64 = 0.6;
const MAX_LABEL: f64 = 44.0;
const TICKS: [(f64, &str); 7] =
    [(0.0, "0"), (50.0, "50"), (90.0, "90"), (99.0, "99"), (99.9, "99.9"), (99.99, "99.99"), (99.999, "99.999")];

/// Percentiles and nanoseconds of something.
#[derive(Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<[f64; 2]>,
    pub(super) colour: usize,
}

/// How many nines: 90 is 1, 99 is 2.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// A chart of curves; nothing where there is none.
pub(super) fn curves(title: &str, curves: &[Curve], note: &str) -> String {
    let curves: Vec<&Curve> = curves.iter().filter(|curve| curve.points.len() > 1).collect();
    let values = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point[1]));
    let Some(scale) = Scale::around(values, BOTTOM, TOP) else { return String::new() };
    let told = curves.iter().flat_map(|curve| &curve.points).map(|point| point[0]).filter(|percent| *percent < 100.0);
    let last = nines(told.fold(90.0, f64::max));
    let x = |percent: f64| {
        let at = if percent >= 100.0 { last + MAX_ROOM } else { nines(percent) };
        LEFT + at / (last + MAX_ROOM) * (WIDTH - LEFT - 6.0)
    };
    let mut svg = over_ns(title, scale, "percent no slower");
    let ticks = TICKS.iter().filter(|(percent, _)| nines(*percent) <= last + 1e-9).map(|(percent, name)| (x(*percent), *name));
    // the word at the end needs its room
    let ticks = ticks.filter(|(at, _)| *at < WIDTH - MAX_LABEL);
    for (x, name) in ticks.chain([(x(100.0), "max")]) {
        let anchor = if name == "max" { "end" } else { "middle" };
        let _ = writeln!(
            svg,
            "<line class=\"tick\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
             <text class=\"axis {anchor}\" x=\"{:.1}\" y=\"{}\">{name}</text>",
            if name == "max" { WIDTH } else { x },
            BOTTOM + 14.0
        );
    }
    for Curve { points, colour, .. } in &curves {
        let points: Vec<String> = points.iter().map(|[percent, ns]| format!("{:.1},{:.1}", x(*percent), scale.at(*ns))).collect();
        let _ = writeln!(svg, "<polyline class=\"s{}\" points=\"{}\"/>", super::draw::colour(*colour), points.join(" "));
    }
    let legend: Vec<_> = curves.iter().map(|curve| (curve.name.clone(), curve.colour)).collect();
    figure(title, &(svg + "</svg>\n"), &legend, note)
}
