//! `lint`: what is wrong with manifests, and what is probably unmeant, without a cluster.

use crate::Ending;
use crate::arguments::{Denied, Form, LintOptions};
use crate::output::{count, json};
use anyhow::{Context, Result, bail, ensure};
use owo_colors::{AnsiColors, OwoColorize};
use serde::Serialize;
use sluice_policy::lint::{Report, Warning, WarningKind, lint};
use sluice_policy::load::{FILE_BYTES_MAX, Loaded, ManifestError, ObjectId, load_with_sources, read_paths};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How standard input is called in messages.
const STDIN: &str = "<stdin>";

pub(crate) fn run(options: &LintOptions, form: Form, out: &mut dyn Write) -> Result<Ending> {
    if let Some(kind) = &options.explain {
        return explain(*kind, form, out).map(|()| Ending::Ok);
    }
    let files = read(&options.manifests)?;
    let (count, unreadable) = (files.len(), files.iter().filter(|(_, bytes)| bytes.is_err()).count());
    let (loaded, sources) = load_with_sources(files);
    let mut report = lint(&loaded, &sources);
    let found = report.warnings.len();
    report.warnings.retain(|warning| !options.allow.contains(&warning.kind));
    let allowed = found - report.warnings.len();
    let summary = Summary {
        files: count,
        objects: loaded.origins.len(),
        skipped: loaded.skipped.len(),
        errors: loaded.errors.len(),
        warnings: report.warnings.len(),
        allowed,
    };
    match form {
        Form::Json => json(out, &Output::new(&loaded, &report, &summary))?,
        Form::Table => print(&loaded, &report, &summary, out)?,
    }
    // Last, so that what could be read has been judged.
    ensure!(unreadable == 0, "{} could not be read", crate::output::count(unreadable as u64, "path", "paths"));
    let denied = |warning: &Warning| options.deny.iter().any(|denied| denied.names(warning.kind));
    let clean = loaded.errors.is_empty() && !report.warnings.iter().any(denied);
    Ok(if clean { Ending::Ok } else { Ending::No })
}

impl Denied {
    fn names(self, kind: WarningKind) -> bool {
        match self {
            Self::Warnings => true,
            Self::Kind(denied) => denied == kind,
        }
    }
}

type Files = Vec<(PathBuf, io::Result<Vec<u8>>)>;

/// Refuses to find nothing wrong with nothing: a mistyped directory must not look clean in CI.
fn read(paths: &[PathBuf]) -> Result<Files> {
    let (stdin, paths): (Vec<PathBuf>, Vec<PathBuf>) = paths.iter().cloned().partition(|path| path == Path::new("-"));
    let mut files = Vec::new();
    for path in &paths {
        let found = read_paths(std::slice::from_ref(path));
        if found.is_empty() {
            bail!("{} holds no manifest (*.yaml, *.yml, *.json)", path.display());
        }
        files.extend(found.into_iter().filter(|(path, _)| !files.iter().any(|(known, _)| known == path)).collect::<Vec<_>>());
    }
    if !stdin.is_empty() {
        let mut bytes = Vec::new();
        io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).context("standard input")?;
        files.push((STDIN.into(), Ok(bytes)));
    }
    Ok(files)
}

fn print(loaded: &Loaded, report: &Report, summary: &Summary, out: &mut dyn Write) -> Result<()> {
    for error in &loaded.errors {
        finding(&error.to_string(), AnsiColors::Red, out)?;
    }
    for warning in &report.warnings {
        finding(&warning.to_string(), AnsiColors::Yellow, out)?;
    }
    for kind in &report.incomplete {
        writeln!(out, "{} there is too much to compare; some warnings of {kind} may be missing\n", "note:".bold())?;
    }
    writeln!(out, "{summary}")?;
    Ok(())
}

/// The text as it is, with its parts told apart where there is colour: the place, the caret, the hint.
fn finding(text: &str, color: AnsiColors, out: &mut dyn Write) -> Result<()> {
    for (index, line) in text.lines().enumerate() {
        let caret = line.strip_suffix('^').filter(|before| before.trim_start().starts_with('|'));
        match (index, line.split_once(": "), caret, line.strip_prefix("hint:")) {
            (0, Some((place, rest)), ..) => writeln!(out, "{}: {rest}", place.color(color).bold())?,
            (_, _, Some(before), _) => writeln!(out, "{before}{}", "^".color(color).bold())?,
            (_, _, _, Some(hint)) => writeln!(out, "{}{hint}", "hint:".cyan())?,
            _ => writeln!(out, "{line}")?,
        }
    }
    writeln!(out)?;
    Ok(())
}

fn explain(kind: Option<WarningKind>, form: Form, out: &mut dyn Write) -> Result<()> {
    let kinds: Vec<WarningKind> = kind.map_or(WarningKind::ALL.to_vec(), |kind| vec![kind]);
    match (form, kind) {
        (Form::Json, _) => json(out, &kinds.into_iter().map(Explanation::of).collect::<Vec<_>>())?,
        (Form::Table, Some(kind)) => {
            writeln!(out, "{}: {}\n\n{}\n\nExample:\n", kind.id().bold(), kind.summary(), kind.explanation())?;
            kind.example().lines().try_for_each(|line| writeln!(out, "    {line}"))?;
        }
        (Form::Table, None) => {
            let width = kinds.iter().map(|kind| kind.id().len()).max().unwrap_or(0);
            kinds.into_iter().try_for_each(|kind| writeln!(out, "{:width$}  {}", kind.id(), kind.summary()))?;
        }
    }
    Ok(())
}

/// What the last line says.
#[derive(Debug, Serialize)]
struct Summary {
    files: usize,
    objects: usize,
    /// Documents of kinds that say nothing about policy.
    skipped: usize,
    errors: usize,
    warnings: usize,
    /// Warnings that `--allow` silenced.
    allowed: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: usize, one, many| count(number as u64, one, many);
        write!(f, "{}, {}", number(self.files, "file", "files"), number(self.objects, "object", "objects"))?;
        if self.skipped > 0 {
            write!(f, ", {} of other kinds", self.skipped)?;
        }
        write!(f, ": {}, {}", number(self.errors, "error", "errors"), number(self.warnings, "warning", "warnings"))?;
        if self.allowed > 0 {
            write!(f, " ({} allowed)", self.allowed)?;
        }
        Ok(())
    }
}

/// `-o json`; the field names are stable.
#[derive(Serialize)]
struct Output<'a> {
    errors: Vec<Finding<'a>>,
    warnings: Vec<Finding<'a>>,
    /// Kinds of which some warnings may be missing.
    incomplete: Vec<&'static str>,
    summary: &'a Summary,
}

#[derive(Serialize)]
struct Finding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'static str>,
    file: String,
    line: u32,
    column: u32,
    object: Option<Object<'a>>,
    field: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
    source_line: Option<&'a str>,
}

#[derive(Serialize)]
struct Object<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Output<'a> {
    fn new(loaded: &'a Loaded, report: &'a Report, summary: &'a Summary) -> Self {
        Self {
            errors: loaded.errors.iter().map(Finding::error).collect(),
            warnings: report.warnings.iter().map(Finding::warning).collect(),
            incomplete: report.incomplete.iter().map(|kind| kind.id()).collect(),
            summary,
        }
    }
}

impl<'a> Finding<'a> {
    fn error(error: &'a ManifestError) -> Self {
        Self {
            id: None,
            file: error.file.display().to_string(),
            line: error.line,
            column: error.column,
            object: error.object.as_ref().map(Object::of),
            field: &error.field,
            message: &error.message,
            hint: error.hint.as_deref(),
            source_line: error.source_line.as_deref(),
        }
    }

    fn warning(warning: &'a Warning) -> Self {
        Self {
            id: Some(warning.kind.id()),
            file: warning.file.display().to_string(),
            line: warning.line,
            column: warning.column,
            object: Some(Object::of(&warning.object)),
            field: &warning.field,
            message: &warning.message,
            hint: warning.hint.as_deref(),
            source_line: warning.source_line.as_deref(),
        }
    }
}

impl<'a> Object<'a> {
    fn of(id: &'a ObjectId) -> Self {
        Self { kind: id.kind.name(), namespace: &id.namespace, name: &id.name }
    }
}

#[derive(Serialize)]
struct Explanation {
    id: &'static str,
    summary: &'static str,
    explanation: &'static str,
    example: &'static str,
}

impl Explanation {
    fn of(kind: WarningKind) -> Self {
        Self { id: kind.id(), summary: kind.summary(), explanation: kind.explanation(), example: kind.example() }
    }
}
