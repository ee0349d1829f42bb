//! The upstream specs as files: a manifest that can be applied as it stands, headed by the matrix that it should bring about.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// One row of upstream's suite.
#[derive(Debug, Clone)]
pub struct Case {
    /// Of the file, without `.yaml`.
    pub name: String,
    /// `Upstream row N: ...`
    pub title: String,
    /// The policies, with the head.
    pub yaml: String,
    /// Every question with its answer.
    pub cells: Vec<Expected>,
}

/// From one pod to another: reached or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// `x/a`
    pub from: String,
    /// `x/b`
    pub to: String,
    /// What should be.
    pub reached: bool,
}

/// `tests/cases/upstream`.
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/upstream")
}

/// All rows, in order.
///
/// # Errors
/// A file that is not of this form, by name.
pub fn cases() -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(dir())?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|path| !path.ends_with("cluster.yaml")).collect();
    files.sort();
    files.iter().map(|file| read(file).with_context(|| format!("in {}", file.display()))).collect()
}

fn read(path: &Path) -> Result<Case> {
    let yaml = std::fs::read_to_string(path)?;
    let name = path.file_stem().context("no file name")?.to_string_lossy().into_owned();
    let head: Vec<&str> = yaml.lines().map_while(|line| line.strip_prefix("# ")).collect();
    let [title, columns, rows @ ..] = head.as_slice() else { bail!("no head: a title, then the matrix") };
    let columns = columns.strip_prefix("from \\ to").context("the second line is `# from \\ to  xa xb ...`")?;
    let columns: Vec<String> = columns.split_whitespace().map_while(pod).collect();
    let mut cells = Vec::new();
    for row in rows {
        let mut words = row.split_whitespace();
        let from = words.next().and_then(pod).with_context(|| format!("{row:?}: which pod?"))?;
        let marks: Vec<&str> = words.collect();
        if marks.len() != columns.len() {
            bail!("{row:?}: {} columns, {} marks", columns.len(), marks.len());
        }
        for (to, mark) in columns.iter().zip(marks) {
            match (mark, *to == from) {
                ("-", true) => {}
                ("." | "X", false) => cells.push(Expected { from: from.clone(), to: to.clone(), reached: mark == "." }),
                _ => bail!("{row:?}: {mark:?} for {to}"),
            }
        }
    }
    if cells.len() != columns.len() * columns.len().saturating_sub(1) || cells.is_empty() {
        bail!("{} cells for {} pods", cells.len(), columns.len());
    }
    Ok(Case { name, title: (*title).into(), yaml, cells })
}

/// `xa` is pod a of namespace x.
fn pod(word: &str) -> Option<String> {
    let (namespace, name) = word.split_at_checked(1)?;
    let known = matches!(namespace, "x" | "y" | "z") && matches!(name, "a" | "b" | "c");
    known.then(|| format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_reads_and_the_rows_are_the_first_thirteen() {
        let cases = cases().unwrap();
        let rows: Vec<String> = cases.iter().map(|case| case.title.split_once(':').unwrap().0.to_owned()).collect();
        assert_eq!(rows, (1..=13).map(|row| format!("Upstream row {row}")).collect::<Vec<_>>());
        let denied = |case: &Case| case.cells.iter().filter(|cell| !cell.reached).count();
        assert_eq!(cases.iter().map(denied).collect::<Vec<_>>(), [6, 6, 2, 2, 0, 2, 1, 2, 1, 2, 2, 1, 3]);
    }
}
