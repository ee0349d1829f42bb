//! Records of the benches that go through stages: from a change to an image, and the proof.

use super::bars::{Bar, bars, bars_beside};
use super::draw::grid;
use super::record::{Record, is, list, number, string};
use super::text::{bytes, count, escape, ms};
use serde_json::Value;

/// The stages of the compile bench: place in the record, name.
const STAGES: [(&str, &str); 4] = [("/compile", "compile"), ("/write", "write, seal"), ("/adopt", "validate, load"), ("/prove", "prove")];
const SORTS: [(&str, &str); 5] = [
    ("address", "Pod with known labels"),
    ("labels", "Labels never seen"),
    ("class", "Labels mixed anew"),
    ("policyPorts", "Policy: a port more"),
    ("policyPeers", "Policy: another selector"),
];

/// A chart for each sort of change, and memory.
pub(super) fn compile(record: &Record) -> String {
    let mut html = String::new();
    let mut memory = Vec::new();
    for (place, section) in record.list("/sections").iter().enumerate() {
        let name = string(section, "/workload").to_uppercase();
        let at = |at: &str| number(section, at).unwrap_or(0.0);
        let (pods, policies, image) = (count(at("/census/pods")), count(at("/census/policies")), bytes(at("/imageBytes")));
        html += &format!("<h3>{}: {pods} pods, {policies} policies, image of {image}</h3>\n", escape(&name));
        let build = [("From scratch", section.get("build").map(stages).unwrap_or_default())];
        let changed = SORTS.map(|(kind, title)| {
            let changed = list(section, "/changes").iter().find(|changed| string(changed, "/kind") == kind);
            (title, changed.map(stages).unwrap_or_default())
        });
        let sorts: Vec<_> = build.into_iter().chain(changed).collect();
        let all: Vec<Bar> = sorts.iter().flat_map(|(_, (bars, _))| bars.clone()).collect();
        let chart = |(title, (bars, samples)): &(&str, (Vec<Bar>, f64))| {
            let note = format!("CPU time: median of {samples}; the line goes from the least to the p99.");
            bars_beside(title, bars, &all, ms, &note)
        };
        let charts: Vec<String> = sorts.iter().map(chart).collect();
        html += &grid(&charts);
        if is(section, "/buildCut") || is(section, "/changesCut") {
            html += "<p class=\"note\">Stopped early: fewer rounds or changes than asked for.</p>\n";
        }
        for (part, what) in [
            ("/memory/peakBeyondObjects", "peak beyond the objects"),
            ("/memory/retained", "kept by the compiler"),
            ("/imageBytes", "image"),
        ] {
            memory.extend(number(section, part).map(|value| Bar { name: format!("{name}: {what}"), value, spread: None, colour: place }));
        }
    }
    let title = "Memory of a build from scratch";
    html + &grid(&[bars(title, &memory, bytes, "Resident memory of the process; powers of ten.")])
}

/// Of each stage a bar, and how often it was measured.
fn stages(of: &Value) -> (Vec<Bar>, f64) {
    let bar = |(colour, (at, name)): (usize, &(&str, &str))| {
        let stage = of.pointer(at)?.get("cpu")?;
        let spread = Some([number(stage, "/min")?, number(stage, "/p99")?]);
        Some(Bar { name: (*name).to_owned(), value: number(stage, "/median")?, spread, colour })
    };
    let samples = of.pointer("/compile/cpu").and_then(|cpu| number(cpu, "/count")).unwrap_or(0.0);
    (STAGES.iter().enumerate().filter_map(bar).collect(), samples)
}

/// Proofs from scratch and after each kind of change.
pub(super) fn proof(record: &Record) -> String {
    let charts = record.list("/sections").iter().map(|section| {
        let bar = |name: &str, of: &Value, colour| {
            let prove = of.get("prove")?;
            let spread = Some([number(prove, "/min")?, number(prove, "/p99")?]);
            Some(Bar { name: name.to_owned(), value: number(prove, "/median")?, spread, colour })
        };
        let mut all = Vec::new();
        all.extend(section.get("fromScratch").and_then(|of| bar("from scratch", of, 0)));
        for changed in list(section, "/changes") {
            let kind = string(changed, "/kind");
            let name = match kind {
                "address" => "an address appears or goes",
                "labels" => "labels never seen",
                "class" => "labels that need a class",
                "endpoint" => "a local pod is replaced",
                other => other,
            };
            all.extend(bar(name, changed, 1));
        }
        let at = |at: &str| number(section, at).unwrap_or(0.0);
        let title = format!("{} pods, {} policies", count(at("/scale/pods")), count(at("/scale/policies")));
        let comparisons = count(at("/comparisons"));
        bars(&title, &all, ms, &format!("CPU time of the proof, median, least to p99; {comparisons} comparisons from scratch."))
    });
    grid(&charts.collect::<Vec<_>>())
}
