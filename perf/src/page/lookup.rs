//! A record of the lookup bench.

use super::bars::{Bar, bars};
use super::curves::{Curve, curves};
use super::draw::{CLOCK, grid};
use super::lines::{Line, lines};
use super::record::{Record, curve, list, number, string};
use super::text::{bytes, count, escape, ns};
use serde_json::Value;

/// The two ways to ask that promises are about: trace, metric, in words.
const WAYS: [(&str, &str, &str); 2] = [("bursts", "burst32", "bursts of 32"), ("zipf", "serial", "one after another")];
/// Workloads of one kind that differ in size.
const GROWING: [&str; 3] = ["s1", "s2", "s3"];

/// Peers, curves, growth, cold caches, memory.
pub(super) fn section(record: &Record) -> String {
    let sections = record.list("/sections");
    let backends = backends(sections);
    let colour = |name: &str| backends.iter().position(|known| known == name).unwrap_or(0);
    let mut html = String::new();
    let growth = WAYS.map(|(trace, metric, words)| growth(sections, &backends, trace, metric, words));
    html += &grid(&growth);
    for section in sections {
        let at = |at: &str| number(section, at).unwrap_or(0.0);
        let (pods, policies, image) = (count(at("/census/pods")), count(at("/census/policies")), bytes(at("/table/imageBytes")));
        let name = string(section, "/workload").to_uppercase();
        html += &format!("<h3>{}: {pods} pods, {policies} policies, table of {image}</h3>\n", escape(&name));
        let mut charts = Vec::new();
        charts.extend(WAYS.map(|(trace, metric, words)| peers(section, trace, metric, words, &backends)));
        charts.extend(WAYS.map(|(trace, metric, words)| tails(record, section, trace, metric, words, &colour)));
        charts.push(cold(section, &colour));
        html += &grid(&charts);
        for skipped in list(section, "/skipped") {
            let (backend, reason) = (escape(string(skipped, "/backend")), escape(string(skipped, "/reason")));
            html += &format!("<p class=\"note\">Skipped: {backend}: {reason}</p>\n");
        }
    }
    html + &grid(&[memory(sections)])
}

/// All backends in the order they appear, so that each has one colour throughout.
fn backends(sections: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for figure in sections.iter().flat_map(|section| list(section, "/figures")) {
        let name = string(figure, "/backend");
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn figures<'v>(section: &'v Value, trace: &'v str, state: &'v str, metric: &'v str) -> impl Iterator<Item = &'v Value> {
    list(section, "/figures").iter().filter(move |figure| {
        string(figure, "/trace") == trace && string(figure, "/state") == state && (metric.is_empty() || string(figure, "/metric") == metric)
    })
}

fn bar(figure: &Value, name: String, colour: usize) -> Option<Bar> {
    let spread = Some([number(figure, "/ns/q1")?, number(figure, "/ns/q3")?]);
    Some(Bar { name, value: number(figure, "/ns/median")?, spread, colour })
}

/// The figure of a backend; of one that cannot be asked so, that of many at once, which flatters it.
fn figure_of<'v>(section: &'v Value, backend: &str, trace: &'v str, metric: &'v str) -> Option<(&'v Value, bool)> {
    let of = |metric| figures(section, trace, "warm", metric).find(|figure| string(figure, "/backend") == backend);
    // the table can be asked in every way; a way in which it was not is none that it needs
    let other = || of("throughput").filter(|_| !backend.starts_with("table")).map(|figure| (figure, true));
    of(metric).map(|figure| (figure, false)).or_else(other)
}

fn peers(section: &Value, trace: &str, metric: &str, words: &str, backends: &[String]) -> String {
    let named = |(colour, backend): (usize, &String)| {
        let (figure, is_other) = figure_of(section, backend, trace, metric)?;
        bar(figure, format!("{backend}{}", if is_other { " *" } else { "" }), colour)
    };
    let mut all: Vec<Bar> = backends.iter().enumerate().filter_map(named).collect();
    all.sort_by(|one, other| one.value.total_cmp(&other.value));
    let note = if all.iter().any(|bar| bar.name.ends_with('*')) { " * many at once, as it can only be asked so." } else { "" };
    let note = format!("Median and quartiles over the rounds; powers of ten.{note}");
    bars(&format!("A lookup, {words}, warm"), &all, ns, &note)
}

fn tails(record: &Record, section: &Value, trace: &str, metric: &str, words: &str, colour: &impl Fn(&str) -> usize) -> String {
    let of = |figure: &Value| {
        let name = string(figure, "/backend").to_owned();
        Curve { colour: colour(&name), points: figure.get("tail").map(curve).unwrap_or_default(), name }
    };
    let mut all: Vec<Curve> = figures(section, trace, "warm", metric).map(of).collect();
    if all.iter().all(|curve| curve.points.is_empty()) {
        return String::new();
    }
    let empty = record.value.get("emptyBracket").map(curve).unwrap_or_default();
    all.push(Curve { name: "empty bracket of the clock".to_owned(), points: empty, colour: CLOCK });
    let note = match metric {
        "serial" => "Each lookup in a bracket of the clock, whose own cost is in it.",
        _ => "Each burst of 32 as a whole in a bracket of the clock.",
    };
    curves(&format!("Tail: {words}"), &all, note)
}

fn cold(section: &Value, colour: &impl Fn(&str) -> usize) -> String {
    let mut all = Vec::new();
    for (state, words) in [("warm", "warm"), ("l2Evicted", "L2 evicted"), ("flushed", "caches flushed"), ("swapped", "just swapped")] {
        for figure in figures(section, "bursts", state, "burst32").filter(|figure| string(figure, "/backend").starts_with("table")) {
            let name = string(figure, "/backend");
            all.extend(bar(figure, format!("{name}: {words}"), colour(name)));
        }
    }
    let is_cold = figures(section, "bursts", "flushed", "").next().is_some();
    if is_cold { bars("Cold caches, of the first burst of 32, each lookup", &all, ns, "Median and quartiles.") } else { String::new() }
}

fn growth(sections: &[Value], backends: &[String], trace: &str, metric: &str, words: &str) -> String {
    let of = |(colour, backend): (usize, &String)| {
        let point = |&workload: &&str| {
            let section = sections.iter().find(|section| string(section, "/workload") == workload)?;
            let (figure, _) = figure_of(section, backend, trace, metric)?;
            Some([number(section, "/census/policies")?, number(figure, "/ns/median")?])
        };
        Line { name: backend.clone(), points: GROWING.iter().filter_map(point).collect(), colour }
    };
    let all: Vec<Line> = backends.iter().enumerate().map(of).collect();
    lines(&format!("Cost against policies, {words}"), &all, "policies", "S1 to S3; pods grow too, from 1k to 100k.")
}

fn memory(sections: &[Value]) -> String {
    let mut all = Vec::new();
    for (colour, section) in sections.iter().enumerate() {
        let name = string(section, "/workload").to_uppercase();
        for (at, what) in [("/table/hotBytes", "table, what lookups read"), ("/table/imageBytes", "table with its names")] {
            all.extend(number(section, at).map(|value| Bar { name: format!("{name}: {what}"), value, spread: None, colour }));
        }
        let built = list(section, "/built").iter().filter_map(|built| Some((string(built, "/backend"), number(built, "/bytes")?)));
        all.extend(built.map(|(backend, value)| Bar { name: format!("{name}: {backend}"), value, spread: None, colour }));
    }
    bars("Memory", &all, bytes, "")
}
