//! The cases: small files, each a story with its promise, played on the oracle, the compiled table, the whole worker and,
//! where it makes sense, on real pods.
//!
//! ```text
//!   cases/*/*.case ─text─▶ steps ─run─▶ State (loader, merger, compiler) ─┬─▶ oracle   what the objects say
//!                                                                         ├─▶ table    what the lookup says
//!                                                                         ├─▶ worker   what becomes of frames
//!                                                                         └─▶ loader   what is stored, what refused
//!   rows.md ────────rows──▶ every promise has a case, or the reason why not
//! ```
//!
//! | file | job |
//! |---|---|
//! | text, flow, lines, objects, frame | the language of the files |
//! | state | the cluster at one step, through the real loader, merger and compiler |
//! | question, engines, worker, loader, images | what is asked, and who answers |
//! | run, report | one case, step by step; what came of it |
//! | rows | promises and what holds them |
//! | live | the flows of cases on real pods |

mod engines;
mod flow;
mod frame;
mod images;
mod lines;
mod live;
mod loader;
mod objects;
mod question;
mod report;
pub mod rows;
mod run;
mod state;
mod text;
mod worker;

pub use live::{LiveCase, LiveFlow, LiveFrame, LiveStep, live_cases};
pub use report::{Engine, Failure, Played};
pub use run::{play, play_all};
pub use text::{Case, CaseError};

use std::path::{Path, PathBuf};

/// `tests/cases`.
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// All cases below a directory, by file and line; `clusters` lies in it.
///
/// # Errors
/// The first file that cannot be used, by name and line.
pub fn read_all(dir: &Path, filter: &str) -> Result<Vec<Case>, CaseError> {
    let mut files = Vec::new();
    find(dir, &mut files).map_err(|why| CaseError { file: dir.to_owned(), line: 0, problem: why.to_string() })?;
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let shown = file.strip_prefix(dir).unwrap_or(&file);
        if shown.to_string_lossy().contains(filter) {
            cases.extend(read_file(&file, &dir.join("clusters"))?);
        }
    }
    Ok(cases)
}

/// The cases of one file.
///
/// # Errors
/// What is wrong with it, by line.
pub fn read_file(file: &Path, clusters: &Path) -> Result<Vec<Case>, CaseError> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|why| CaseError { file: file.to_owned(), line: 0, problem: format!("cannot be read: {why}") })?;
    // as a person in the repository would open it
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(""));
    text::read(file.strip_prefix(root).unwrap_or(file), &text, clusters)
}

fn find(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "case") {
            files.push(path);
        }
    }
    Ok(())
}
