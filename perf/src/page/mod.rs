//! One page of everything that was measured: no script, nothing from elsewhere, drawn from the benches' own JSON.
//!
//! ```text
//!  records ──▶ promises │ lookup, swap, compile, proof, control, forward: charts │ machines ──▶ one HTML file
//! ```
//!
//! A record is read as it is, not as this build would write it: what an older one does not have is left out, so that old and
//! new records go onto one page. Everything in it that is text is escaped.

mod bars;
mod control;
mod curves;
mod draw;
mod forward;
mod lines;
mod lookup;
mod machine;
mod promises;
mod record;
mod stages;
mod swap;
mod text;

use crate::cli::Page as Arguments;
use crate::report::Outcome;
use anyhow::{Context, Result};
use record::{Bench, Record};
use std::fmt::Write;
use std::path::PathBuf;

/// Writes the page.
///
/// # Errors
///
/// A file is no record, or the page cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let records = arguments.files.iter().map(|file| Record::read(file)).collect::<Result<Vec<_>>>()?;
    let named = std::env::var_os("OUT").filter(|value| !value.is_empty()).map(PathBuf::from);
    let out = arguments.out.clone().or(named).unwrap_or_else(|| "report.html".into());
    std::fs::write(&out, render(&records)).with_context(|| format!("cannot write {}", out.display()))?;
    let promises: usize = records.iter().map(|record| record.list("/musts").len()).sum();
    println!("{} records, {promises} promises: written to {}", records.len(), out.display());
    Ok(Outcome::Held)
}

/// The benches in the order of the page.
const SECTIONS: [(Bench, &str, &str); 6] = [
    (Bench::Lookup, "lookup", "Policy lookup"),
    (Bench::Swap, "swap", "Swaps of tables"),
    (Bench::Compile, "compile", "From a change to a published image"),
    (Bench::Proof, "proof", "Proof of a table"),
    (Bench::Control, "control", "The control process before a large cluster"),
    (Bench::Forward, "forward", "Forwarding"),
];

fn render(records: &[Record]) -> String {
    let mut page = String::new();
    let present: Vec<_> = SECTIONS.iter().filter(|(bench, ..)| records.iter().any(|record| record.bench == *bench)).collect();
    let links: String = present.iter().map(|(_, id, title)| format!("<a href=\"#{id}\">{title}</a> ")).collect();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>Sluice, measured</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<header>\n<h1>Sluice, measured</h1>\n{}\n\
         <nav><a href=\"#promises\">Promises</a> {links}<a href=\"#machines\">Machines</a></nav>\n</header>\n<main>\n",
        include_str!("style.css"),
        promises::summary(records)
    );
    page += &promises::section(records);
    for (bench, id, title) in present {
        let _ = write!(page, "<section id=\"{id}\">\n<h2>{title}</h2>\n");
        for record in records.iter().filter(|record| record.bench == *bench) {
            page += &match bench {
                Bench::Lookup => lookup::section(record),
                Bench::Swap => swap::section(record),
                Bench::Compile => stages::compile(record),
                Bench::Proof => stages::proof(record),
                Bench::Control => control::section(record),
                Bench::Forward => forward::section(record),
            };
        }
        page += "</section>\n";
    }
    page += &machine::section(records);
    page += "</main>\n</body>\n</html>\n";
    page
}

#[cfg(test)]
mod tests;
