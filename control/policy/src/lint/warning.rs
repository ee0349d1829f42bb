//! One warning, in the form of the loader's errors.

use super::WarningKind;
use crate::load::{ObjectId, Printable, write_source};
use std::fmt::{self, Write};
use std::path::PathBuf;

/// Something legal but probably unmeant in one policy.
///
/// ```text
/// np.yaml:8:12: warning[selects-nothing]: NetworkPolicy shop/web: spec.podSelector: matches no pod of namespace shop …
///   8 |       app: wbe
///     |            ^
/// hint: did you mean `app: web`?
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which kind.
    pub kind: WarningKind,
    /// The file, as it was named to the loader.
    pub file: PathBuf,
    /// 1-based.
    pub line: u32,
    /// 1-based, in characters.
    pub column: u32,
    /// The policy.
    pub object: ObjectId,
    /// The field, as the API server would print it; empty for the whole policy.
    pub field: String,
    /// What it means in effect.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
    /// The text of `line`; `None` when it is too long to help.
    pub source_line: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, file, line, column, object, field, message, hint, source_line } = self;
        let mut out = Printable(f);
        write!(out, "{}:{line}:{column}: warning[{kind}]: {object}", file.display())?;
        if !field.is_empty() {
            write!(out, ": {field}")?;
        }
        write!(out, ": {message}")?;
        write_source(&mut out, *line, *column, source_line.as_deref())?;
        if let Some(hint) = hint {
            write!(out, "\nhint: {hint}")?;
        }
        Ok(())
    }
}
