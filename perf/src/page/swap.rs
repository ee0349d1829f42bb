//! A record of the bench of swaps.

use super::bars::{Bar, bars};
use super::curves::{Curve, curves};
use super::draw::{CLOCK, grid};
use super::record::{Record, curve, list, number, string};
use super::text::{count, escape, ms, ns};
use serde_json::Value;
use std::fmt::Write;

/// Curves of all states, what was checked, what was published.
pub(super) fn section(record: &Record) -> String {
    let value = &record.value;
    let phases = list(value, "/phases");
    let at = |at: &str| number(value, at).unwrap_or(0.0);
    let mut html = format!(
        "<p>{}, {} pods, {} policies. <strong>{} lookups checked</strong> in {} bursts over {} swaps: \
         <strong class=\"{}\">{} mixed two tables</strong>.</p>\n",
        escape(string(value, "/workload")).to_uppercase(),
        count(at("/census/pods")),
        count(at("/census/policies")),
        count(at("/counts/lookups")),
        count(at("/counts/bursts")),
        at("/adopted"),
        if at("/counts/mixed") == 0.0 { "met" } else { "missed" },
        at("/counts/mixed")
    );
    let chart = |title: &str, part: &str, note: &str| {
        let mut all: Vec<Curve> = phases.iter().enumerate().map(|(colour, phase)| of(phase, part, colour)).collect();
        if let Some(phase) = phases.first() {
            all.push(Curve { name: "empty bracket of the clock".to_owned(), colour: CLOCK, ..of(phase, "/emptyBracket", CLOCK) });
        }
        curves(title, &all, note)
    };
    let swapping: Vec<Curve> = phases.iter().enumerate().map(|(colour, phase)| of(phase, "/adoption", colour)).collect();
    let slowest = |title: &str, part: &str| {
        let bar = |(colour, phase): (usize, &Value)| {
            let value = number(phase, &format!("{part}/p999"))?;
            Some(Bar { name: string(phase, "/title").to_owned(), value, spread: None, colour })
        };
        bars(
            title,
            &phases.iter().enumerate().filter_map(bar).collect::<Vec<_>>(),
            ns,
            "Of all rounds together; the clock's own cost is in it.",
        )
    };
    html += &grid(&[
        slowest("p99.9 of one lookup", "/lookup"),
        slowest("p99.9 of a boundary and 32 lookups", "/burst"),
        chart("One lookup", "/lookup", "The clock's own cost is in it; the largest values are others' use of the core."),
        chart("The boundary between bursts, and 32 lookups at once", "/burst", "A new table is taken at a boundary."),
        curves("A boundary that takes a new table", &swapping, "What the first packet of that burst waits."),
    ]);
    html + &published(value)
}

fn of(phase: &Value, part: &str, colour: usize) -> Curve {
    let points = phase.pointer(part).map(curve).unwrap_or_default();
    Curve { name: string(phase, "/title").to_owned(), points, colour }
}

fn published(value: &Value) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table>\n<tr><th>Rate</th><th>Images</th><th class=\"n\">Adopted, per s</th><th class=\"n\">Write, seal, read, validate</th>\
         <th class=\"n\">Until adopted</th><th class=\"n\">p99.9 of a lookup</th><th class=\"n\">p99.9 of a burst</th></tr>\n",
    );
    for rate in list(value, "/rates") {
        let per_second = number(rate, "/perSecond").unwrap_or(0.0);
        let is_meant = |phase: &&Value| number(phase, "/perSecond") == Some(per_second) && phase.get("swaps") == Some(&Value::Bool(true));
        let Some(phase) = list(value, "/phases").iter().find(is_meant) else { continue };
        let made = number(rate, "/makeMs").map_or(String::new(), ms);
        let how = match super::record::is(rate, "/live") {
            true => format!("compiled when due, {made} each"),
            false => format!("{} made and proved before: compiling one takes {made}", number(rate, "/ring").unwrap_or(0.0)),
        };
        let show = |at: &str, unit: &dyn Fn(f64) -> String| number(phase, at).map_or("–".to_owned(), unit);
        let ratio = |at: &str| number(rate, at).map_or("–".to_owned(), |ratio| format!("{ratio:.2}×"));
        let _ = writeln!(
            html,
            "<tr><td>{per_second} swaps/s</td><td>{how}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            show("/adoptedPerSecond", &|per_second| format!("{per_second:.1}")),
            show("/published/loadMs/median", &ms),
            show("/published/adoptUs/median", &|us| ns(us * 1e3)),
            ratio("/ratioLookup/median"),
            ratio("/ratioBurst/median")
        );
    }
    html + "</table></div>\n<p class=\"note\">Ratios: with swaps to the same work without them, less the empty bracket, median over the rounds.</p>\n"
}
