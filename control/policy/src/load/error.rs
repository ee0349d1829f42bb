//! What is wrong with a manifest, said so that its author can act on it.
//!
//! ```text
//! web.yaml:9:15: NetworkPolicy shop/web: spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.1.2.3/8": must not …
//!   9 |         cidr: 10.1.2.3/8
//!     |               ^
//! hint: write `10.0.0.0/8`
//! ```
//!
//! The message is the API server's own where the server has one, so that a search finds the same answers; the hint is
//! ours.

use super::node::Path as Field;
use super::object::ObjectId;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

/// Longest line that is shown under a message, in characters. JSON on one line would bury the message.
const SOURCE_LINE_CHARS_MAX: usize = 160;

/// Longest message, field or hint, in characters: a value may be megabytes long, and messages end up in logs.
const TEXT_CHARS_MAX: usize = 1000;

/// Problems listed for one file; the rest are counted in one last error.
pub(super) const ERRORS_PER_FILE_MAX: usize = 1000;

/// One reason why a file or an object of it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file, as it was named to the loader.
    pub file: PathBuf,
    /// 1-based; 0 when the problem has no place in the file (it could not be read).
    pub line: u32,
    /// 1-based, in characters; 0 like `line`.
    pub column: u32,
    /// The object, as far as its kind and name are known.
    pub object: Option<ObjectId>,
    /// The field, as the API server would print it (`spec.ingress[0].from[1]`); empty for a whole file or object.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// The right form, where it can be guessed.
    pub hint: Option<String>,
    /// The text of `line`; `None` without a line, or when it is too long to help.
    pub source_line: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Printable(f);
        write!(out, "{}", self.file.display())?;
        if self.line > 0 {
            write!(out, ":{}:{}", self.line, self.column)?;
        }
        if let Some(object) = &self.object {
            write!(out, ": {object}")?;
        }
        if !self.field.is_empty() {
            write!(out, ": {}", self.field)?;
        }
        write!(out, ": {}", self.message)?;
        write_source(&mut out, self.line, self.column, self.source_line.as_deref())?;
        if let Some(hint) = &self.hint {
            write!(out, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Shows each control character of names, keys and lines as one U+FFFD: a manifest must not drive the terminal of who
/// reads its errors.
pub(crate) struct Printable<'a, 'b>(pub(crate) &'a mut fmt::Formatter<'b>);

impl Write for Printable<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_hidden = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        for (index, shown) in text.split(is_hidden).enumerate() {
            if index > 0 {
                self.0.write_char(char::REPLACEMENT_CHARACTER)?;
            }
            self.0.write_str(shown)?;
        }
        Ok(())
    }
}

/// The line with a caret under its column, if there is a line to show.
pub(crate) fn write_source(out: &mut impl Write, line: u32, column: u32, source: Option<&str>) -> fmt::Result {
    let Some(source) = source else { return Ok(()) };
    let number = line.to_string();
    // Tabs before the caret are repeated, so that it stands under its column at any tab width.
    let before = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
    let pad: String = source.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    write!(out, "\n  {number} | {source}\n  {:width$} | {pad}^", "", width = number.len())
}

/// The line to show for a 1-based line number, if it is short enough to be of use.
pub(super) fn source_line(lines: &[&str], line: u32) -> Option<String> {
    let index = usize::try_from(line.checked_sub(1)?).ok()?;
    shown(lines.get(index)?)
}

/// A line of a file, if it is short enough to be of use.
pub(super) fn shown(line: &str) -> Option<String> {
    // asked for each object: a line of many megabytes is not counted to its end
    line.chars().nth(SOURCE_LINE_CHARS_MAX).is_none().then(|| line.to_owned())
}

/// The text, or its beginning if it is too long to be read anyway.
pub(crate) fn clip(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl ManifestError {
    /// About a file as a whole.
    pub(super) fn whole_file(file: &Path, message: String) -> Self {
        Self {
            file: file.to_path_buf(),
            line: 0,
            column: 0,
            object: None,
            field: String::new(),
            message: clip(message),
            hint: None,
            source_line: None,
        }
    }
}

/// A finding inside one object, before it is known where the object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) path: Field,
    /// Deeper than `path` where the server's field is coarser than what we can point at.
    pub(super) spot: Option<Field>,
    /// The name of the field is wrong, not its value.
    pub(super) on_key: bool,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Collects findings; an object is valid when there are none.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// Adds a finding. The result takes hints: `problems.add(..).hint("..")`.
    pub(super) fn add(&mut self, path: &Field, message: impl Into<String>) -> &mut Problem {
        self.0.push(Problem { path: path.clone(), spot: None, on_key: false, message: message.into(), hint: None });
        self.0.last_mut().expect("just pushed")
    }

    /// `Invalid value`, as the API server words it.
    pub(super) fn invalid(&mut self, path: &Field, value: impl fmt::Debug, why: &str) -> &mut Problem {
        self.add(path, format!("Invalid value: {value:?}: {why}"))
    }

    /// `Required value`, as the API server words it.
    pub(super) fn required(&mut self, path: &Field, why: &str) -> &mut Problem {
        self.add(path, if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") })
    }

    /// `Unsupported value`, as the API server words it.
    pub(super) fn unsupported(&mut self, path: &Field, value: &str, supported: &[&str]) -> &mut Problem {
        let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let problem = self.add(path, format!("Unsupported value: {value:?}: supported values: {}", list.join(", ")));
        if let Some(right) = supported.iter().find(|one| one.eq_ignore_ascii_case(value)) {
            problem.hint(format!("write `{right}`; case matters"));
        }
        problem
    }
}

impl Problem {
    /// Adds the right form.
    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Points at the key.
    pub(super) fn on_key(&mut self) -> &mut Self {
        self.on_key = true;
        self
    }

    /// Points deeper than the field that is named.
    pub(super) fn at(&mut self, spot: Field) -> &mut Self {
        self.spot = Some(spot);
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::load::load_str;

    #[test]
    fn a_manifest_cannot_drive_the_terminal() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"\\e[2Jred\"}\nspec: {containers: [{name: c}]}\n";
        let loaded = load_str("\u{1b}]0;title\u{7}.yaml", text);
        let shown: String = loaded.errors.iter().map(|error| format!("{error}\n")).collect();
        assert!(shown.starts_with("\u{fffd}]0;title\u{fffd}.yaml:3:18: Pod default/\u{fffd}[2Jred"), "{shown:?}");
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
}
