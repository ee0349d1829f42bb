//! A record of the bench of the control process.

use super::record::{Record, number, string};
use super::text::{digits, escape};
use std::fmt::Write;

/// What the API server held, and how long changes took to be seen; promises stand in their own table.
pub(super) fn section(record: &Record) -> String {
    let value = |at: &str| number(&record.value, at).map_or("–".to_owned(), digits);
    let mut html = format!(
        "<p>{}: {} pods, {} services and {} policies at the API server; {} pods attached here.</p>\n<div class=\"wide\"><table>\n",
        escape(string(&record.value, "/workload")),
        value("/objects/pods"),
        value("/objects/services"),
        value("/objects/policies"),
        value("/objects/local"),
    );
    for (what, at, unit) in [
        ("CPU time of the start", "/startCpuS", "s"),
        ("Changes", "/changes", ""),
        ("Tables that they came to", "/tables", ""),
        ("Change to adopted, median", "/delayMs/p50", "ms"),
        ("Change to adopted, p90", "/delayMs/p90", "ms"),
        ("Change to adopted, p99", "/delayMs/p99", "ms"),
        ("Change to adopted, longest", "/delayMs/max", "ms"),
        ("A pod attached here to the table that knows it, median", "/startMs/p50", "ms"),
        ("A pod attached here to the table that knows it, p99", "/startMs/p99", "ms"),
        ("ADD of the plugin through a real dataplane, median", "/addMs/p50", "ms"),
        ("ADD of the plugin through a real dataplane, p99", "/addMs/p99", "ms"),
        ("Memory after the changes", "/afterMb", "MB"),
        ("The reporter, one in a cluster: idle", "/reporter/idleCpuPercent", "% of a core"),
        ("The reporter while pods change", "/reporter/stormCpuPercent", "% of a core"),
        ("The reporter's memory, peak", "/reporter/peakMb", "MB"),
        ("A table", "/imageBytes", "bytes"),
    ] {
        let _ = writeln!(html, "<tr><td>{what}</td><td class=\"n\">{} {unit}</td></tr>", value(at));
    }
    html + "</table></div>\n"
}
