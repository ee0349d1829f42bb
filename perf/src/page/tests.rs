use super::*;
use serde_json::{Value, json};

fn record(file: &str, value: &Value) -> Record {
    Record::parse(file, &value.to_string()).unwrap()
}

fn summary(median: f64) -> Value {
    json!({"count": 3, "median": median, "q1": median, "q3": median, "min": median, "max": median, "p99": median,
           "low95": median, "high95": median})
}

fn tail() -> Value {
    json!({"count": 100, "p50": 20.0, "p999": 90.0, "curve": [[0.0, 10.0], [50.0, 20.0], [99.0, 90.0], [100.0, 28_000_000.0]]})
}

fn must(name: &str, measured: Value, must_met: bool) -> Value {
    json!({"name": name, "bound": "atMost", "must": 6.0, "aim": 3.0, "measured": measured, "mustMet": must_met, "aimMet": false})
}

/// One of each bench, with text that would do harm.
fn all() -> Vec<Record> {
    let evil = "<script>alert('x')</script>&\"";
    let environment = json!({"commit": evil, "cpuModel": evil, "cores": 2, "kernel": "Linux", "build": "release",
                             "cpuFlags": ["avx2", evil], "features": ["bpf"]});
    let figure = |backend: &str, metric: &str, state: &str| {
        let trace = if metric == "serial" { "zipf" } else { "bursts" };
        json!({"backend": backend, "trace": trace, "state": state, "metric": metric, "ns": summary(5.0), "tail": tail()})
    };
    let lookup = |workload: &str, policies: u32| {
        let figures =
            [figure("table, batch", "burst32", "warm"), figure(evil, "serial", "warm"), figure("table, batch", "burst32", "flushed")];
        json!({"workload": workload, "census": {"pods": 1000, "policies": policies}, "table": {"imageBytes": 3e6, "hotBytes": 2e6},
               "figures": figures, "built": [{"backend": evil, "bytes": 1e9}], "skipped": [{"backend": "rte_acl", "reason": evil}]})
    };
    let stage = json!({"cpu": summary(3.0), "wall": summary(4.0)});
    let stages = json!({"compile": stage, "write": stage, "adopt": stage, "prove": stage, "published": stage});
    let mut changed = stages.clone();
    changed["kind"] = json!("policyPorts");
    let phase = |swaps: bool| {
        json!({"title": evil, "swaps": swaps, "perSecond": 10, "lookup": tail(), "burst": tail(), "adoption": tail(),
               "emptyBracket": tail(), "published": {"loadMs": summary(6.0), "adoptUs": summary(15.0)}})
    };
    vec![
        record(
            "a.json",
            &json!({"bench": "lookup", "environment": environment, "emptyBracket": tail(),
            "musts": [must(evil, json!(14.0), false), must("S3 serial: rte_acl / table", Value::Null, false)],
            "sections": [lookup("s1", 50), lookup("s3", 10_000)]}),
        ),
        record(
            "b.json",
            &json!({"bench": "swap", "workload": "s3", "quick": true, "environment": environment,
            "musts": [must("p99.9 of a lookup", json!(1.02), true)], "phases": [phase(false), phase(true)],
            "rates": [{"perSecond": 10, "ring": 16, "live": false, "makeMs": 459.0, "ratioLookup": summary(1.02)}],
            "counts": {"lookups": 1e8, "bursts": 1e6, "mixed": 0}, "adopted": 156}),
        ),
        record(
            "c.json",
            &json!({"bench": "compile", "environment": environment, "musts": [must("S3 full build, ms", json!(415.0), false)],
            "sections": [{"workload": "s3", "census": {"pods": 1, "policies": 1}, "imageBytes": 3e6, "build": stages,
                          "changes": [changed], "memory": {"peakBeyondObjects": 2e8, "retained": 4e7}}]}),
        ),
        record(
            "d.json",
            &json!({"bench": "proof", "environment": environment, "musts": [must("10k pods: from scratch", json!(77.0), true)],
            "sections": [{"scale": {"pods": 10_000, "policies": 1000}, "comparisons": 9e8, "fromScratch": {"prove": summary(77.0)},
                          "changes": [{"kind": "address", "prove": summary(4.8)}]}]}),
        ),
        record(
            "f.json",
            &json!({"bench": "control", "workload": evil, "environment": environment,
            "musts": [must("steady memory, MB", json!(229.0), true)], "changes": 3000,
            "objects": {"pods": 150_000, "services": 10_000, "policies": 1701, "local": 30}, "delayMs": {"p50": 50.2, "p99": 86.1}}),
        ),
        record(
            "e.json",
            &json!({"bench": "forward", "environment": environment, "musts": [],
            "policies": 10_000, "sections": [{"title": evil, "unit": "kpps", "scale": 1e3, "stopped": evil, "states": [
                {"title": evil, "value": summary(2.5e5)},
                {"title": evil, "value": summary(2.4e5), "ratio": summary(0.96), "latency": {"p50Us": 1.0, "p99Us": 2.0, "p999Us": 3.0}}]}]}),
        ),
    ]
}

#[test]
fn every_promise_is_on_the_page_with_what_became_of_it() {
    let page = render(&all());
    for name in ["S3 serial: rte_acl / table", "p99.9 of a lookup", "S3 full build, ms", "10k pods: from scratch"] {
        assert!(page.contains(name), "{name}");
    }
    assert!(page.contains("<strong>3 of 6</strong> musts met"));
    assert_eq!(page.matches("✗ must missed").count(), 2);
    assert_eq!(page.matches("✗ not measured").count(), 1, "what was not measured is not kept");
    assert!(page.contains("Quick runs among the records: 1. Their figures mean little."));
}

#[test]
fn nothing_in_a_record_becomes_markup() {
    let page = render(&all());
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn nothing_comes_from_elsewhere() {
    let page = render(&all());
    for outside in ["http:", "https:", "//", "@import", "url(", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn the_page_is_well_formed_and_every_bench_is_drawn() {
    let page = render(&all());
    well_formed(&page).unwrap();
    for id in ["promises", "lookup", "swap", "compile", "proof", "control", "forward", "machines"] {
        assert!(page.contains(&format!("id=\"{id}\"")) && page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    // lookup: 2 growths, 2 × 5 of the workloads, memory; swap 5; compile 2 and memory; proof 1; forward 1
    assert_eq!(page.matches("<svg").count(), 2 + 2 * 5 + 1 + 5 + 3 + 1 + 1);
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn a_record_that_says_hardly_anything_is_no_panic() {
    for bench in ["lookup", "swap", "compile", "proof", "control", "forward"] {
        let page = render(&[record("x.json", &json!({"bench": bench, "sections": [{}], "phases": [{}], "rates": [{}]}))]);
        well_formed(&page).unwrap();
    }
}

#[test]
fn the_check_of_form_finds_what_is_wrong() {
    for wrong in ["<p><b></p></b>", "<p>", "</p>", "<p a=\"x></p>", "<p>a < b</p>"] {
        assert!(well_formed(wrong).is_err(), "{wrong}");
    }
}

/// Whether every element is closed where it should be.
fn well_formed(page: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.trim_start_matches("<!DOCTYPE html>");
    while let Some(start) = rest.find('<') {
        let end = rest[start..].find('>').ok_or("a tag does not end")? + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if name.is_empty() || !tag.matches('"').count().is_multiple_of(2) || tag.contains('<') {
            return Err(format!("<{tag}>"));
        }
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) if open.pop() != Some(name) => return Err(format!("</{name}> closes something else")),
            (true, _) | (false, true) => {}
            (false, false) => open.push(name),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("not closed: {open:?}")) }
}
