//! Every promise of every record, and what became of it.

use super::record::{Record, is, list, number, string};
use super::text::{digits, escape};
use serde_json::Value;
use std::fmt::Write;

/// How many are kept, in a line.
pub(super) fn summary(records: &[Record]) -> String {
    let musts: Vec<&Value> = records.iter().flat_map(|record| record.list("/musts")).collect();
    let count = |at: &str| musts.iter().filter(|must| is(must, at)).count();
    let quick = records.iter().filter(|record| is(&record.value, "/quick")).count();
    let mut line =
        format!("<p class=\"summary\"><strong>{} of {}</strong> musts met, {} aims.", count("/mustMet"), musts.len(), count("/aimMet"));
    if quick > 0 {
        let _ = write!(line, " <strong class=\"missed\">Quick runs among the records: {quick}. Their figures mean little.</strong>");
    }
    line + "</p>"
}

/// The table.
pub(super) fn section(records: &[Record]) -> String {
    let mut html = String::from(
        "<section id=\"promises\">\n<h2>Promises</h2>\n<div class=\"wide\"><table class=\"promises\">\n\
         <tr class=\"head\"><th>Bench</th><th>Promise</th><th class=\"n\">Must</th><th class=\"n\">Aim</th><th class=\"n\">Measured</th><th>Result</th></tr>\n",
    );
    for record in records {
        for must in record.list("/musts") {
            html += &row(record, must);
        }
        if list(&record.value, "/musts").is_empty() {
            let _ = writeln!(
                html,
                "<tr><td>{}</td><td colspan=\"5\">{}: no promise is about what was measured</td></tr>",
                record.bench.name(),
                escape(&record.file)
            );
        }
    }
    html + "</table></div>\n</section>\n"
}

fn row(record: &Record, must: &Value) -> String {
    let sign = if string(must, "/bound") == "atLeast" { '≥' } else { '≤' };
    let bound = |at: &str| number(must, at).map_or("–".to_owned(), |limit| format!("{sign} {}", digits(limit)));
    let (class, result) = match (is(must, "/mustMet"), is(must, "/aimMet")) {
        (true, true) => ("met", "✓ must and aim met"),
        (true, false) => ("nearly", "✓ must met, aim missed"),
        _ if is(must, "/notMeasurable") => ("nearly", "? not measurable here"),
        (false, _) if number(must, "/measured").is_none() => ("missed", "✗ not measured"),
        (false, _) => ("missed", "✗ must missed"),
    };
    let measured = number(must, "/measured").map_or("–".to_owned(), digits);
    format!(
        "<tr class=\"{class}\"><td>{}</td><td>{}</td><td class=\"n\" data-head=\"Must\">{}</td>\
         <td class=\"n\" data-head=\"Aim\">{}</td><td class=\"n\" data-head=\"Measured\">{measured}</td>\
         <td class=\"result\">{result}</td></tr>\n",
        record.bench.name(),
        escape(string(must, "/name")),
        bound("/must"),
        bound("/aim")
    )
}
