//! The matrix for a terminal: a grid while it fits, else a line for each pair.

use super::report::Matrix;
use crate::analysis::{Openness, listed, ports_text, title};
use crate::output::{Columns, count};
use anyhow::Result;
use owo_colors::OwoColorize;
use sluice_flow::Direction;
use sluice_policy::reach::{DeclaredPort, EndKind, Pair, Ports, Way};
use std::io::{IsTerminal, Write};

/// Columns of a terminal whose width is not known, and of a pipe.
const WIDTH: usize = 160;

/// Longest list of ports in a cell.
const CELL_MAX: usize = 20;

/// Longest grid: below so many rows one can still see which column is which.
const ROWS_MAX: usize = 40;

pub(super) fn print(matrix: &Matrix<'_>, list: bool, all: bool, out: &mut dyn Write) -> Result<()> {
    let grid = if list { None } else { grid(matrix) };
    let is_grid = grid.is_some();
    match grid {
        Some(lines) => print_grid(&lines, out)?,
        None => print_list(matrix, all, out)?,
    }
    writeln!(out, "\n{}", summary(matrix))?;
    if is_grid {
        writeln!(out, "-  no port    =  itself, always allowed    --list names the rules, --html FILE makes a page to look at")?;
    } else if !all {
        writeln!(out, "closed pairs are left out: --all lists them, --html FILE makes a page to look at")?;
    }
    for note in &matrix.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn summary(matrix: &Matrix<'_>) -> String {
    let how_many = |wanted| matrix.reach.pairs.iter().filter(|pair| matrix.openness(**pair) == wanted).count();
    format!(
        "{}: {} open on all ports, {} on some, {} closed",
        count(matrix.reach.pairs.len() as u64, "pair", "pairs"),
        how_many(Openness::Open),
        how_many(Openness::Some),
        how_many(Openness::Closed)
    )
}

/// Rows of cells, headers first; `None` when it would not fit. Columns are headed by numbers where names are too wide.
fn grid(matrix: &Matrix<'_>) -> Option<Vec<Vec<String>>> {
    let ends = &matrix.survey.ends;
    if ends.len() > ROWS_MAX {
        return None;
    }
    let cells: Vec<Vec<String>> = (0..ends.len()).map(|from| (0..ends.len()).map(|to| cell(matrix, from, to)).collect()).collect();
    let fits = |rows: &Vec<Vec<String>>| widths(rows).iter().sum::<usize>() <= terminal_width();
    let build = |corner: &str, row_title: &dyn Fn(usize) -> String, column_title: &dyn Fn(usize) -> String| {
        let mut rows = vec![std::iter::once(corner.to_owned()).chain((0..ends.len()).map(column_title)).collect::<Vec<_>>()];
        rows.extend(cells.iter().enumerate().map(|(from, cells)| std::iter::once(row_title(from)).chain(cells.iter().cloned()).collect()));
        rows
    };
    let name = |index: usize| title(&ends[index]);
    let number_width = ends.len().to_string().len();
    let named = build("FROM \\ TO", &name, &name);
    let numbered = || {
        let row = |index: usize| format!("{:>number_width$} {}", index + 1, name(index));
        build("FROM \\ TO", &row, &|index| (index + 1).to_string())
    };
    Some(named).filter(fits).or_else(|| Some(numbered()).filter(fits))
}

fn cell(matrix: &Matrix<'_>, from: usize, to: usize) -> String {
    let is_single = matches!(matrix.survey.ends[from].kind, EndKind::Pods { is_single: true, .. });
    match matrix.reach.pair(from, to) {
        Some(pair) => brief(matrix, pair),
        None if from == to && is_single => "=".to_owned(),
        None => String::new(),
    }
}

fn terminal_width() -> usize {
    let stated = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let measured = || std::io::stdout().is_terminal().then(|| comfy_table::Table::new().width()).flatten().map(usize::from);
    stated.or_else(measured).unwrap_or(WIDTH)
}

/// Of each column, with the gap behind it.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 2).collect()
}

fn print_grid(rows: &[Vec<String>], out: &mut dyn Write) -> Result<()> {
    let widths = widths(rows);
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        let filled = row.iter().rposition(|cell| !cell.is_empty()).map_or(0, |last| last + 1);
        for (column, (cell, width)) in row.iter().zip(&widths).take(filled).enumerate() {
            let gap = if column + 1 < filled { width - cell.chars().count() } else { 0 };
            line += &match (number, column, cell.as_str()) {
                (0, ..) | (_, 0, _) => cell.bold().to_string(),
                (_, _, "-") => cell.red().to_string(),
                (_, _, "all ports") => cell.green().to_string(),
                (_, _, "=" | "") => cell.clone(),
                _ => cell.yellow().to_string(),
            };
            line.extend(std::iter::repeat_n(' ', gap));
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// A pair in a few characters: its ports, or those that the destination declares if there are many.
fn brief(matrix: &Matrix<'_>, pair: Pair) -> String {
    let declared = matrix.ends(pair).1.ports();
    ports_text(&matrix.reach.cell(pair).ways, |ports| brief_ports(ports, declared))
}

fn brief_ports(ports: &Ports, declared: &[DeclaredPort]) -> String {
    let text = ports.to_string();
    if ports.is_empty() {
        return "-".to_owned();
    }
    if text.chars().count() <= CELL_MAX {
        return text;
    }
    let served = declared.iter().filter(|port| ports.contains(port.protocol, port.port));
    let served = served.fold(Ports::default(), |all, port| all.or(&Ports::one(port.protocol, port.port)));
    match (served.is_empty(), ports.without(&served).is_empty()) {
        (true, _) => format!("{}…", text.chars().take(CELL_MAX - 1).collect::<String>()),
        (false, true) => served.to_string(),
        (false, false) => format!("{served} + others"),
    }
}

fn print_list(matrix: &Matrix<'_>, all: bool, out: &mut dyn Write) -> Result<()> {
    let mut columns = Columns::new(&["FROM", "TO", "PORTS", "LEAVING", "ENTERING"]);
    for &pair in matrix.reach.pairs.iter().filter(|pair| all || matrix.openness(**pair) != Openness::Closed) {
        let (from, to) = matrix.ends(pair);
        let ways = &matrix.reach.cell(pair).ways;
        let half = |direction| {
            let mut texts: Vec<String> = ways.iter().map(|way| half_text(matrix, way, direction)).collect();
            texts.dedup();
            texts.join(" / ")
        };
        columns.row([title(from), title(to), ports_text(ways, Ports::to_string), half(Direction::Egress), half(Direction::Ingress)]);
    }
    columns.print(out, "Nobody reaches anybody.")
}

/// Which rules allow at one end, or who isolates it.
fn half_text(matrix: &Matrix<'_>, way: &Way, direction: Direction) -> String {
    let Some(half) = matrix.reach.half(way, direction) else { return String::new() };
    let isolation = matrix.reach.isolation(half);
    if isolation.isolating.is_empty() {
        return "not isolated".to_owned();
    }
    let mut rules: Vec<String> =
        half.spans.iter().filter_map(|span| span.rule).map(|rule| isolation.rules[rule as usize].to_string()).collect();
    rules.sort();
    rules.dedup();
    match rules.is_empty() {
        true => format!("denied, isolated by {}", listed(&isolation.isolating.iter().map(ToString::to_string).collect::<Vec<_>>())),
        false => listed(&rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::Protocol;

    #[test]
    fn many_ports_are_told_by_those_that_the_destination_declares() {
        let declared = [DeclaredPort { protocol: Protocol::TCP, port: 8080, name: Some("http".into()) }];
        let tcp = |ports: &[u16]| ports.iter().fold(Ports::default(), |all, port| all.or(&Ports::one(Protocol::TCP, *port)));
        for (ports, expected) in [
            (Ports::all(), "all ports"),
            (Ports::default(), "-"),
            (tcp(&[8080, 9090]), "8080,9090/TCP"),
            (tcp(&[8080, 9000, 9002, 9004, 9006]), "8080/TCP + others"),
            (tcp(&[9000, 9002, 9004, 9006, 9008]), "9000,9002,9004,9006…"),
        ] {
            assert_eq!(brief_ports(&ports, &declared), expected);
        }
    }
}
