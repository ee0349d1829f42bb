//! A record of the forwarding bench.

use super::record::{Record, number, string};
use super::text::escape;
use std::fmt::Write;

/// Ratios, as a table: they lie too close together for a scale of powers of ten.
pub(super) fn section(record: &Record) -> String {
    let mut html = String::from(
        "<div class=\"wide\"><table>\n<tr><th>Traffic</th><th class=\"n\">Hooks on / off</th><th class=\"n\">95 % interval</th>\
         <th class=\"n\">Rounds</th><th class=\"n\">Noise</th><th>Stopped</th></tr>\n",
    );
    for section in record.list("/sections") {
        let ratio = |at: &str| number(section, at).map_or("–".to_owned(), |value| format!("{value:.3}"));
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}–{}</td><td class=\"n\">{}</td><td class=\"n\">{}–{}</td><td>{}</td></tr>",
            escape(string(section, "/title")),
            ratio("/ratio/median"),
            ratio("/ratio/low95"),
            ratio("/ratio/high95"),
            number(section, "/ratio/count").unwrap_or(0.0),
            ratio("/noise/q1"),
            ratio("/noise/q3"),
            escape(string(section, "/stopped"))
        );
    }
    html + "</table></div>\n"
}
