//! Cost against size, both on scales of powers of ten: what does not grow is a level line.

use super::draw::{BOTTOM, LEFT, Scale, TOP, WIDTH, figure, over_ns};
use super::text::count;
use std::fmt::Write;

/// Sizes and nanoseconds of something.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<[f64; 2]>,
    pub(super) colour: usize,
}

/// A chart of lines over `axis`; nothing where none has two points.
pub(super) fn lines(title: &str, lines: &[Line], axis: &str, note: &str) -> String {
    let lines: Vec<&Line> = lines.iter().filter(|line| line.points.len() > 1).collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let (Some(down), Some(across)) =
        (Scale::around(points().map(|point| point[1]), BOTTOM, TOP), Scale::around(points().map(|point| point[0]), LEFT, WIDTH - 12.0))
    else {
        return String::new();
    };
    let mut svg = over_ns(title, down, axis);
    for tick in across.ticks() {
        let x = across.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"tick\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
             <text class=\"axis middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
            BOTTOM + 14.0,
            count(tick)
        );
    }
    for Line { points, colour, .. } in &lines {
        let places: Vec<[f64; 2]> = points.iter().map(|[size, ns]| [across.at(*size), down.at(*ns)]).collect();
        let list: Vec<String> = places.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<polyline class=\"s{}\" points=\"{}\"/>", super::draw::colour(*colour), list.join(" "));
        for [x, y] in places {
            let _ = writeln!(svg, "<circle class=\"f{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>", super::draw::colour(*colour));
        }
    }
    let legend: Vec<_> = lines.iter().map(|line| (line.name.clone(), line.colour)).collect();
    figure(title, &(svg + "</svg>\n"), &legend, note)
}
