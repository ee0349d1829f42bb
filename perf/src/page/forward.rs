//! A record of the forwarding bench.

use super::draw::{WIDTH, colour, figure, grid, open};
use super::record::{Record, list, number, string};
use super::text::escape;
use std::fmt::Write;

/// A chart for each kind of traffic, and the ratios as a table: they lie too close together for a scale of powers of ten.
pub(super) fn section(record: &Record) -> String {
    let policies = number(&record.value, "/policies").unwrap_or(0.0);
    let mut html = format!(
        "<p>Medians of interleaved rounds, {policies} policies, both pods isolated in both directions. Ratios are to the first line \
         of each kind, round by round.</p>\n<div class=\"wide\"><table>\n<tr><th>Traffic</th><th>State</th><th class=\"n\">Median</th>\
         <th class=\"n\">Ratio</th><th class=\"n\">95 % interval</th><th class=\"n\">Rounds</th><th class=\"n\">p50, p99, p99.9 µs</th></tr>\n"
    );
    for section in record.list("/sections") {
        let (unit, scale) = (string(section, "/unit"), number(section, "/scale").unwrap_or(1.0));
        for state in list(section, "/states") {
            let ratio = |at: &str| number(state, at).map_or("–".to_owned(), |value| format!("{value:.3}"));
            let latency = |at: &str| number(state, at).map(|value| format!("{value:.1}"));
            let latencies: Vec<String> = ["/latency/p50Us", "/latency/p99Us", "/latency/p999Us"].into_iter().filter_map(latency).collect();
            let _ = writeln!(
                html,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.2} {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(string(section, "/title")),
                escape(string(state, "/title")),
                number(state, "/value/median").unwrap_or(0.0) / scale,
                escape(unit),
                ratio("/ratio/median"),
                interval(state),
                number(state, "/value/count").unwrap_or(0.0),
                latencies.join(", "),
            );
        }
    }
    let charts: Vec<String> = record.list("/sections").iter().map(chart).collect();
    html + "</table></div>\n" + &grid(&charts)
}

fn interval(state: &serde_json::Value) -> String {
    let ends = number(state, "/ratio/low95").zip(number(state, "/ratio/high95"));
    ends.map_or("–".to_owned(), |(low, high)| format!("{low:.3}–{high:.3}"))
}

const ROW: f64 = 32.0;
const TOP: f64 = 6.0;

/// Each state's ratio to the first, from nothing on: ratios are compared by length.
fn chart(section: &serde_json::Value) -> String {
    let states: Vec<_> = list(section, "/states").iter().collect();
    let most = states.iter().filter_map(|state| number(state, "/ratio/high95")).fold(1.0, f64::max);
    let at = |ratio: f64| ratio / most * (WIDTH - 2.0);
    let title = match string(section, "/unit") {
        "µs" => format!("{}, of the first (less is better)", string(section, "/title")),
        _ => format!("{}, of the first", string(section, "/title")),
    };
    let bottom = TOP + states.len() as f64 * ROW;
    let mut svg = open(&title, bottom + 18.0);
    let one = at(1.0);
    let anchor = if one > WIDTH - 30.0 { "end" } else { "middle" };
    let _ = writeln!(
        svg,
        "<line class=\"tick\" x1=\"{one:.1}\" y1=\"{TOP}\" x2=\"{one:.1}\" y2=\"{bottom}\"/>\
         <text class=\"axis start\" x=\"0\" y=\"{0:.1}\">0</text><text class=\"axis {anchor}\" x=\"{one:.1}\" y=\"{0:.1}\">1.0</text>",
        bottom + 13.0
    );
    for (row, state) in states.iter().enumerate() {
        let (y, ratio) = (TOP + row as f64 * ROW, number(state, "/ratio/median").unwrap_or(1.0));
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"0\" y=\"{0:.1}\">{1}</text><text class=\"value end\" x=\"{WIDTH}\" y=\"{0:.1}\">{ratio:.2}</text>\
             <rect class=\"f{2}\" x=\"0\" y=\"{3:.1}\" width=\"{4:.1}\" height=\"9\" rx=\"2\"/>",
            y + 13.0,
            escape(string(state, "/title")),
            colour(row),
            y + 18.0,
            at(ratio)
        );
        if let Some((low, high)) = number(state, "/ratio/low95").zip(number(state, "/ratio/high95")) {
            let (from, to, y) = (at(low), at(high), y + 22.5);
            let _ = writeln!(svg, "<line class=\"spread\" x1=\"{from:.1}\" y1=\"{y:.1}\" x2=\"{to:.1}\" y2=\"{y:.1}\"/>");
        }
    }
    figure(&title, &(svg + "</svg>\n"), &[], string(section, "/stopped"))
}
