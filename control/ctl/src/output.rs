//! Tables as kubectl prints them, JSON for scripts, and numbers for people.

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use serde::Serialize;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints a value as indented JSON.
pub(crate) fn json<T: Serialize>(out: &mut dyn Write, value: &T) -> Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(value)?)?)
}

/// A table without borders. Columns whose header starts with `#` hold numbers and are right-aligned.
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    pub(crate) fn new(headers: &[&str]) -> Self {
        let mut table = Table::new();
        // Lines are never wrapped: output is grepped and piped, and a terminal scrolls.
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headers.iter().map(|header| Cell::new(header.trim_start_matches('#'))));
        for (column, header) in table.column_iter_mut().zip(headers) {
            column.set_padding((0, 3));
            if header.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // An empty cell would shift columns for scripts that split on blanks.
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.table.add_row(cells.map(Cell::new));
    }

    /// Prints it, or `nothing` if there is no row.
    pub(crate) fn print(&self, out: &mut dyn Write, nothing: &str) -> Result<()> {
        if self.table.is_empty() {
            writeln!(out, "{nothing}")?;
            return Ok(());
        }
        for line in self.table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `3s`, `12m`, `5h`, `9d`: the largest unit, as kubectl shows ages.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Since a moment in milliseconds since 1970; 0 where that is to come.
pub(crate) fn seconds_since(moment_ms: u64) -> u64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    now_ms.saturating_sub(moment_ms) / 1000
}

/// `812 µs`, `4.1 ms`, `2.3 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// `3 pods`, `1 pod`.
pub(crate) fn count(number: u64, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_borders_and_no_empty_cells() {
        let mut columns = Columns::new(&["NAME", "#PACKETS"]);
        columns.row(["a/b".into(), "7".into()]);
        columns.row([String::new(), "12345678".into()]);
        let mut out = Vec::new();
        columns.print(&mut out, "nothing").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME    PACKETS\na/b           7\n-      12345678\n");
    }

    #[test]
    fn numbers_are_shown_in_their_largest_unit() {
        assert_eq!((age(5), age(600), age(90_000)), ("5s".into(), "10m".into(), "25h".into()));
        assert_eq!((micros(7), micros(4100), micros(2_300_000)), ("7 µs".into(), "4.1 ms".into(), "2.3 s".into()));
    }
}
