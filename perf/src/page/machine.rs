//! On what the figures were measured: a figure without its machine says nothing.

use super::record::{Record, is, list, number, string};
use super::text::{digits, escape, ns};
use std::fmt::Write;

/// A card for each record.
pub(super) fn section(records: &[Record]) -> String {
    let mut html = String::from("<section id=\"machines\">\n<h2>Machines</h2>\n<div class=\"grid\">\n");
    for record in records {
        let _ = write!(html, "<div class=\"card\">\n<h3>{}: {}</h3>\n<dl>\n", record.bench.name(), escape(&record.file));
        for (name, value) in facts(record).into_iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
        }
        html += "</dl>\n</div>\n";
    }
    html + "</div>\n</section>\n"
}

fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let value = &record.value;
    let at = |at: &str| string(value, &format!("/environment/{at}")).to_owned();
    let percent = |at: &str| number(value, &format!("/environment/{at}")).map_or(String::new(), |share| format!("{share:.0} %"));
    let words = |at: &str| list(value, at).iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(" ");
    let text = |at: &str, show: fn(f64) -> String| number(value, at).map_or(String::new(), show);
    let caches = list(value, "/machine/levels").iter().filter_map(|level| {
        let latency = number(level, "/latencyNs")?;
        Some(format!("{} {}", string(level, "/name"), ns(latency)))
    });
    vec![
        ("Commit", at("commit")),
        ("Build", format!("{}{}", at("build"), if is(value, "/quick") { ", quick run: its figures mean little" } else { "" })),
        ("Features", words("/environment/features")),
        ("CPU", at("cpuModel")),
        ("Cores", text("/environment/cores", digits)),
        ("Flags", words("/environment/cpuFlags")),
        ("Kernel", at("kernel")),
        ("Dependent load", caches.collect::<Vec<_>>().join(", ")),
        ("Load before, after", format!("{}; {}", at("loadBefore"), at("loadAfter"))),
        ("Others' CPU time before, after", format!("{}; {}", percent("othersBeforePercent"), percent("othersAfterPercent"))),
        ("Steal", percent("stealPercent")),
        ("iperf3", at("iperf3")),
        ("Seed", text("/seed", digits)),
        ("Took", text("/tookS", |seconds| format!("{seconds:.0} s"))),
    ]
}
