//! A record of the forwarding bench.

use super::bars::{Bar, bars};
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
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.2} {}</td><td class=\"n\">{}</td><td class=\"n\">{}–{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(string(section, "/title")),
                escape(string(state, "/title")),
                number(state, "/value/median").unwrap_or(0.0) / scale,
                escape(unit),
                ratio("/ratio/median"),
                ratio("/ratio/low95"),
                ratio("/ratio/high95"),
                number(state, "/value/count").unwrap_or(0.0),
                latencies.join(", "),
            );
        }
    }
    html += "</table></div>\n<div class=\"charts\">\n";
    for section in record.list("/sections") {
        html += &chart(section);
    }
    html + "</div>\n"
}

/// Each state as its ratio to the first, in percent.
fn chart(section: &serde_json::Value) -> String {
    let percent = |state: &serde_json::Value, at: &str| number(state, at).map(|ratio| ratio * 100.0);
    let states: Vec<Bar> = list(section, "/states")
        .iter()
        .enumerate()
        .map(|(colour, state)| Bar {
            name: string(state, "/title").to_owned(),
            value: percent(state, "/ratio/median").unwrap_or(100.0),
            spread: percent(state, "/ratio/low95").zip(percent(state, "/ratio/high95")).map(|(low, high)| [low, high]),
            colour,
        })
        .collect();
    let lower_is_better = if string(section, "/unit") == "µs" { "; less is better" } else { "" };
    bars(
        &format!("{}, % of the first{lower_is_better}", string(section, "/title")),
        &states,
        |value| format!("{value:.0} %"),
        string(section, "/stopped"),
    )
}
