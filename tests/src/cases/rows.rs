//! The promises that cases stand for (tests/cases/rows.md), and how many cases hold each on which engine.

use super::report::{Engine, Played};
use super::text::{Case, CaseError};
use std::collections::BTreeMap;
use std::path::Path;

/// One clause of a row.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Clause {
    /// `Isolation`.
    pub row: String,
    /// `policies add up`.
    pub clause: String,
    /// `yes`; `until FEATURE`: cases hold today's behaviour; `no: REASON`: no case can hold it yet.
    pub built: String,
    /// Cases that stand for it.
    pub cases: u64,
    /// Expectations met, by engine in the order of [`Engine::ALL`].
    pub met: [u64; 4],
    /// Flows that the live test tries on real pods.
    pub live: u64,
}

impl Clause {
    /// As cases name it.
    pub fn name(&self) -> String {
        format!("{}: {}", self.row, self.clause)
    }

    /// Whether a case has to stand for it.
    pub fn needs_case(&self) -> bool {
        !self.built.starts_with("no:")
    }
}

/// Reads the table: `| row | clause | built |`, a blank row meaning the one above.
///
/// # Errors
/// A line that is no such row.
pub fn read(file: &Path) -> Result<Vec<Clause>, CaseError> {
    let error = |line: usize, problem: String| CaseError { file: file.to_owned(), line: line as u32, problem };
    let text = std::fs::read_to_string(file).map_err(|why| error(0, format!("cannot be read: {why}")))?;
    let mut clauses: Vec<Clause> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('|') && !line.starts_with("|--")) {
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [row, clause, built] = columns.as_slice() else { return Err(error(index + 1, "expected | row | clause | built |".to_owned())) };
        if *clause == "Clause" {
            continue;
        }
        let row = match (row.is_empty(), clauses.last()) {
            (false, _) => (*row).to_owned(),
            (true, Some(above)) => above.row.clone(),
            (true, None) => return Err(error(index + 1, "the first clause names its row".to_owned())),
        };
        if *built != "yes" && !built.starts_with("until ") && !built.starts_with("no: ") {
            return Err(error(index + 1, format!("{built:?} is neither yes, nor until FEATURE, nor no: REASON")));
        }
        clauses.push(Clause { row, clause: (*clause).to_owned(), built: (*built).to_owned(), cases: 0, met: [0; 4], live: 0 });
    }
    Ok(clauses)
}

/// Adds what was played to the clauses.
///
/// # Errors
/// A case that names a clause which the table does not hold.
pub fn count(clauses: &mut [Clause], cases: &[Case], played: &[Played]) -> Result<(), CaseError> {
    let index: BTreeMap<String, usize> = clauses.iter().enumerate().map(|(index, clause)| (clause.name(), index)).collect();
    for (case, played) in cases.iter().zip(played) {
        for (line, row) in &case.rows {
            let Some(&at) = index.get(row) else {
                return Err(CaseError { file: case.file.clone(), line: *line, problem: format!("rows.md has no {row:?}") });
            };
            clauses[at].cases += 1;
            clauses[at].live += case.live_flows();
            clauses[at].met.iter_mut().zip(played.met).for_each(|(sum, met)| *sum += met);
        }
    }
    Ok(())
}

/// The table for people: expectations met by each engine, and in brackets what the live test asks of real pods.
pub fn print(clauses: &[Clause]) -> String {
    let width = clauses.iter().map(|clause| clause.clause.chars().count()).max().unwrap_or(0);
    let engines: String = Engine::ALL.iter().map(|engine| format!(" {:>7}", engine.name())).collect();
    let mut text = format!("{:<17} {:<width$} {:>5}{engines} {:>7}\n", "row", "clause", "cases", "(live)");
    let mut last = "";
    for clause in clauses {
        let row = if clause.row == last { "" } else { clause.row.as_str() };
        last = &clause.row;
        text.push_str(&format!("{row:<17} {:<width$} ", clause.clause));
        if clause.needs_case() {
            let number = |met: &u64| if *met == 0 { format!(" {:>7}", "-") } else { format!(" {met:>7}") };
            let met: String = clause.met.iter().chain([&clause.live]).map(number).collect();
            let until = if clause.built == "yes" { String::new() } else { format!("  {}", clause.built) };
            text.push_str(&format!("{:>5}{met}{until}\n", clause.cases));
        } else {
            text.push_str(&format!("not built yet: {}\n", clause.built.trim_start_matches("no: ")));
        }
    }
    text
}
