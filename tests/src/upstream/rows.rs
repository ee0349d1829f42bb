//! The rows as files: manifests that can be applied, headed by the matrices that they should bring about.
//!
//! ```text
//!   # Upstream row N: TITLE
//!   # from \ to  xa xb    on 81/TCP      a matrix; without `on` 80/TCP
//!   # xa         -  X
//!   # xb         .  -
//!   kind: NetworkPolicy ...              $xb4 and $xb6 stand for the addresses of x/b
//!   # then                               the next stage
//!   # from \ to ...
//!   # delete networkpolicy x/deny-all    what goes, where something does
//! ```

use anyhow::{Context, Result, bail};
use sluice_flow::Protocol;
use sluice_lab::{Kind, ObjectRef};
use std::path::{Path, PathBuf};

/// One row of upstream's suite.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number there.
    pub number: u32,
    /// Of the file, without `.yaml`.
    pub name: String,
    /// Upstream's own.
    pub title: String,
    /// In order; each goes on from the one before.
    pub stages: Vec<Stage>,
}

/// A change, and what holds then.
#[derive(Debug, Clone, Default)]
pub struct Stage {
    /// To apply.
    pub yaml: String,
    /// To delete.
    pub deleted: Vec<ObjectRef>,
    /// Who reaches whom.
    pub matrices: Vec<Matrix>,
}

/// Every question about one port.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Of the services, and of the pods.
    pub port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Every pair.
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
pub fn rows() -> Result<Vec<Row>> {
    let entries = std::fs::read_dir(dir())?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|path| !path.ends_with("cluster.yaml")).collect();
    files.sort();
    files.iter().map(|file| read(file).with_context(|| format!("in {}", file.display()))).collect()
}

fn read(path: &Path) -> Result<Row> {
    let text = std::fs::read_to_string(path)?;
    let name = path.file_stem().context("no file name")?.to_string_lossy().into_owned();
    let (head, rest) = text.split_once('\n').context("an empty file")?;
    let (number, title) =
        head.strip_prefix("# Upstream row ").and_then(|head| head.split_once(": ")).context("no `# Upstream row N: TITLE`")?;
    let mut stages = vec![Stage::default()];
    let mut lines = rest.lines().peekable();
    while let Some(line) = lines.next() {
        let stage = stages.last_mut().expect("never empty");
        let Some(comment) = line.strip_prefix("# ") else {
            stage.yaml.push_str(line);
            stage.yaml.push('\n');
            continue;
        };
        if comment == "then" {
            stages.push(Stage::default());
        } else if let Some(object) = comment.strip_prefix("delete ") {
            let (kind, name) = object.split_once(' ').context("`# delete KIND NAMESPACE/NAME`")?;
            stage.deleted.push(ObjectRef::new(kind.parse::<Kind>()?, name));
        } else if let Some(columns) = comment.strip_prefix("from \\ to") {
            let mut cells = Vec::new();
            while let Some(row) = lines.next_if(|line| line.strip_prefix("# ").is_some_and(is_row)) {
                cells.push(&row[2..]);
            }
            stage.matrices.push(matrix(columns, &cells)?);
        } else {
            bail!("{comment:?}: a matrix, `then` or `delete KIND NAME`");
        }
    }
    let row = Row { number: number.parse()?, name, title: title.to_owned(), stages };
    if row.stages.iter().any(|stage| stage.matrices.is_empty() || (stage.yaml.trim().is_empty() && stage.deleted.is_empty())) {
        bail!("a stage changes nothing or asks nothing");
    }
    Ok(row)
}

fn is_row(line: &str) -> bool {
    line.split_whitespace().next().and_then(pod).is_some()
}

fn matrix(columns: &str, rows: &[&str]) -> Result<Matrix> {
    let mut words = columns.split_whitespace().peekable();
    let mut pods = Vec::new();
    while let Some(pod) = words.next_if(|word| pod(word).is_some()).and_then(pod) {
        pods.push(pod);
    }
    let (port, protocol) = match words.next() {
        Some("on") => {
            let on = words.next().and_then(|on| on.split_once('/')).context("`on PORT/PROTOCOL`")?;
            (on.0.parse()?, Protocol::from_name(on.1).filter(|protocol| protocol.has_ports()).context("TCP, UDP or SCTP")?)
        }
        // what follows otherwise explains the signs
        _ => (80, Protocol::TCP),
    };
    let mut cells = Vec::new();
    for row in rows {
        let mut words = row.split_whitespace();
        let from = words.next().and_then(pod).with_context(|| format!("{row:?}: which pod?"))?;
        let marks: Vec<&str> = words.collect();
        if marks.len() != pods.len() {
            bail!("{row:?}: {} columns, {} marks", pods.len(), marks.len());
        }
        for (to, mark) in pods.iter().zip(marks) {
            match (mark, *to == from) {
                ("-", true) => {}
                ("." | "X", false) => cells.push(Expected { from: from.clone(), to: to.clone(), reached: mark == "." }),
                _ => bail!("{row:?}: {mark:?} for {to}"),
            }
        }
    }
    if cells.len() != pods.len() * pods.len().saturating_sub(1) || cells.is_empty() {
        bail!("{} cells for {} pods", cells.len(), pods.len());
    }
    Ok(Matrix { port, protocol, cells })
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
    fn every_row_of_traffic_is_there() {
        let rows = rows().unwrap();
        assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (1..=48).collect::<Vec<_>>());
        let protocols = |protocol| {
            rows.iter().filter(|row| row.stages.iter().flat_map(|stage| &stage.matrices).any(|m| m.protocol == protocol)).count()
        };
        assert!(protocols(Protocol::UDP) >= 3 && protocols(Protocol::SCTP) >= 3 && protocols(Protocol::TCP) >= 42);
        let denied = |row: &Row| {
            row.stages.iter().flat_map(|stage| &stage.matrices).flat_map(|matrix| &matrix.cells).filter(|cell| !cell.reached).count()
        };
        assert_eq!(rows[..13].iter().map(denied).collect::<Vec<_>>(), [6, 6, 2, 2, 0, 2, 1, 2, 1, 2, 2, 1, 3]);
        // all but the two that allow everything deny something
        assert!(rows.iter().filter(|row| denied(row) == 0).count() <= 2);
    }

    #[test]
    fn what_is_no_row_says_why() {
        for (columns, rows, why) in [
            ("  xa xb", &["xa - ."][..], "2 pods"),
            ("  xa xb", &["xa - .", "xb . ."], "for x/b"),
            ("  xa xb", &["xa -", "xb . -"], "2 columns, 1 marks"),
            ("  xa xb on 80/ICMP", &["xa - .", "xb . -"], "TCP, UDP or SCTP"),
        ] {
            let said = format!("{:#}", matrix(columns, rows).unwrap_err());
            assert!(said.contains(why), "{said}");
        }
    }
}
