//! One file's bytes → its objects, each decoded, defaulted and validated, or the reasons why not.
//!
//! ```text
//!   bytes ─▶ trees ─▶ lists taken apart ─▶ kind, identity ─▶ decode ─▶ default ─▶ validate
//! ```
//!
//! A text that does not parse gives nothing at all: which objects it would have held is unknown. A document that
//! parses but is wrong is refused alone, under its identity where it has one.

use super::decode::{Unknown, decode};
use super::defaults;
use super::error::{ERRORS_PER_FILE_MAX, ManifestError, Problem, Problems, clip, source_line};
use super::files::FILE_BYTES_MAX;
use super::node::{Body, Node, Path as Field, Place};
use super::object::{Kind, Object, ObjectId};
use super::sources::Text;
use super::template::{Pods, TemplatePods, pods};
use super::{Skipped, hints, json, validate, yaml};
use std::path::{Path, PathBuf};

/// What one file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// In the file's order.
    pub(super) claims: Vec<Claim>,
    pub(super) errors: Vec<ManifestError>,
    /// Problems beyond `ERRORS_PER_FILE_MAX`.
    pub(super) unlisted: usize,
    pub(super) skipped: Vec<Skipped>,
    /// What only [`Keep::Sources`] asks for.
    pub(super) text: Option<Text>,
    pub(super) workloads: Vec<TemplatePods>,
    /// Namespaces of workloads whose pods cannot be told.
    pub(super) opaque: Vec<String>,
}

/// What to remember beside objects and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing: for enforcement.
    Objects,
    /// Trees of policies, texts and pod templates: for people.
    Sources,
}

/// A document that is, or should have been, an object.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) place: Place,
    /// `None` when nobody can tell which object it was meant to be.
    pub(super) id: Option<ObjectId>,
    /// `None` when it was refused; the errors say why.
    pub(super) object: Option<Object>,
    /// The text of the line where it begins, for later complaints.
    pub(super) source_line: Option<String>,
    /// The policy as it was written, under [`Keep::Sources`].
    pub(super) tree: Option<Node>,
}

/// Kind and version that the items of a `PodList` do not repeat.
type Inherited = Option<Kind>;

/// Reads a whole file; the error is about the file as such.
pub(super) fn read(file: &Path, bytes: &[u8], keep: Keep) -> Result<Content, Box<ManifestError>> {
    let whole = |message: String| Box::new(ManifestError::whole_file(file, message));
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(whole(format!("{} bytes; a manifest may have {FILE_BYTES_MAX}", bytes.len())));
    }
    let text = str::from_utf8(bytes).map_err(|error| whole(format!("not UTF-8 text: {error}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let documents = parse(file, text).map_err(|error| Box::new(unparsed(file, &lines, error)))?;
    let mut reader = Reader { file, lines, keep, content: Content::default() };
    reader.content.text = (keep == Keep::Sources).then(|| Text::new(text));
    for document in &documents {
        reader.document(document, None);
    }
    Ok(reader.content)
}

/// Points at the line that is to blame, where that can be told from the one at which the parser gave up.
fn unparsed(file: &Path, lines: &[&str], error: yaml::SyntaxError) -> ManifestError {
    let Place { line, column } = error.at;
    let at = |line, column, whole| ManifestError { line, column, source_line: source_line(lines, line), ..whole };
    match hints::flattened_around(lines, line) {
        Some(found) => {
            let message = format!("{}; line {line} is then wrong: {}", found.message, error.message);
            let whole =
                ManifestError { field: found.field.to_owned(), hint: Some(clip(found.hint)), ..ManifestError::whole_file(file, message) };
            at(found.line, found.column, whole)
        }
        None => {
            let hint = hints::syntax(lines, line);
            let (line, column) = last_written(lines, line, column);
            at(line, column, ManifestError { hint, ..ManifestError::whole_file(file, error.message) })
        }
    }
}

/// The place itself, or the last line above it that says anything: a text that ends too early ends there for its reader.
fn last_written(lines: &[&str], line: u32, column: u32) -> (u32, u32) {
    let written = |line: u32| line.checked_sub(1).and_then(|index| lines.get(index as usize)).is_some_and(|text| !text.trim().is_empty());
    if written(line) {
        return (line, column);
    }
    let Some(last) = (1..line).rev().find(|line| written(*line)) else { return (line, column) };
    let indent = lines.get((last - 1) as usize).map_or(0, |text| text.chars().take_while(|c| c.is_whitespace()).count());
    (last, u32::try_from(indent + 1).unwrap_or(1))
}

pub(super) fn parse(file: &Path, text: &str) -> Result<Vec<Node>, yaml::SyntaxError> {
    let named_json = file.extension().is_some_and(|extension| extension == "json");
    if named_json || text.trim_start().starts_with(['{', '[']) {
        match json::parse(text) {
            // YAML's flow style looks like JSON and is not.
            Err(_) if !named_json => {}
            result => return result,
        }
    }
    yaml::parse(text)
}

struct Reader<'a> {
    file: &'a Path,
    /// Split once: a file may hold thousands of errors.
    lines: Vec<&'a str>,
    keep: Keep,
    content: Content,
}

impl Reader<'_> {
    /// Takes lists apart; recursion is bounded by the depth of the tree.
    fn document(&mut self, node: &Node, inherited: Inherited) {
        let kind = match node.entry("kind").map(|entry| &entry.value.body) {
            Some(Body::Text(kind)) if !kind.is_empty() => kind.clone(),
            None | Some(Body::Null) if inherited.is_some() && matches!(node.body, Body::Map(_)) => String::new(),
            _ => return self.refuse(node, None, vec![no_kind(node)]),
        };
        let item_kind = kind.strip_suffix("List").and_then(|item| match item {
            "" => Some(None),
            _ => Kind::ALL.into_iter().find(|kind| kind.name() == item).map(Some),
        });
        if let Some(item_kind) = item_kind {
            return self.list(node, item_kind);
        }
        match inherited.filter(|_| kind.is_empty()).or_else(|| Kind::ALL.into_iter().find(|k| k.name() == kind)) {
            Some(kind) if is_another_group(kind, node) => self.skip(node, kind.name()),
            Some(kind) => self.object(node, kind, inherited),
            None => match misspelt(&kind, node) {
                Some(problem) => self.refuse(node, None, vec![problem]),
                None => self.skip(node, &kind),
            },
        }
    }

    fn list(&mut self, node: &Node, item_kind: Inherited) {
        match node.get("items").map(|items| &items.body) {
            None | Some(Body::Null) => {}
            Some(Body::List(items)) => items.iter().for_each(|item| self.document(item, item_kind)),
            Some(_) => {
                let mut problems = Problems::default();
                problems.add(&Field::of("items"), "expected a list").hint("begin each item of the list with `- `");
                self.refuse(node, None, problems.0);
            }
        }
    }

    fn skip(&mut self, node: &Node, kind: &str) {
        let skipped = Skipped { file: self.file.to_path_buf(), line: node.at.line, kind: kind.to_owned() };
        self.content.skipped.push(skipped);
        if self.keep == Keep::Sources {
            match pods(node, &self.lines) {
                Pods::None => {}
                Pods::Of(workload) => self.content.workloads.push(*workload),
                Pods::Opaque(namespace) => self.content.opaque.push(namespace),
            }
        }
    }

    fn object(&mut self, node: &Node, kind: Kind, inherited: Inherited) {
        let id = identity(node, kind);
        let mut problems = Problems::default();
        check_api_version(node, kind, inherited, &mut problems);
        if let Some(problem) = hints::lost_indentation(node, &self.lines) {
            problems.0.push(problem);
        } else if id.is_none() {
            check_has_name(node, &mut problems);
        }
        if !problems.0.is_empty() {
            return self.refuse(node, id, problems.0);
        }
        match typed(node, kind) {
            Ok(object) => {
                assert!(id.is_some(), "an object without a name was decoded");
                self.claim(node, id, Some(object));
            }
            Err(problems) => self.refuse(node, id, problems),
        }
    }

    fn claim(&mut self, node: &Node, id: Option<ObjectId>, object: Option<Object>) {
        let source_line = source_line(&self.lines, node.at.line);
        let wanted = self.keep == Keep::Sources && matches!(object, Some(Object::NetworkPolicy(_)));
        let tree = wanted.then(|| node.clone());
        self.content.claims.push(Claim { place: node.at, id, object, source_line, tree });
    }

    fn refuse(&mut self, node: &Node, id: Option<ObjectId>, problems: Vec<Problem>) {
        assert!(!problems.is_empty(), "refused without a reason");
        for problem in problems {
            if self.content.errors.len() >= ERRORS_PER_FILE_MAX {
                self.content.unlisted += 1;
                continue;
            }
            self.content.errors.push(located(self.file, &self.lines, node, id.clone(), problem));
        }
        self.claim(node, id, None);
    }
}

/// The problem as a person reads it, at its place in the file.
pub(super) fn located(file: &Path, lines: &[&str], node: &Node, object: Option<ObjectId>, problem: Problem) -> ManifestError {
    let spot = problem.spot.as_ref().filter(|spot| node.find(spot).is_some());
    let spot = spot.unwrap_or(&problem.path);
    let at = if problem.on_key { node.locate_key(spot) } else { node.locate(spot) };
    ManifestError {
        file: PathBuf::from(file),
        line: at.line,
        column: at.column,
        object,
        field: clip(problem.path.to_string()),
        message: clip(problem.message),
        hint: hints::characters(lines, at.line).or(problem.hint).map(clip),
        source_line: source_line(lines, at.line),
    }
}

pub(super) fn typed(node: &Node, kind: Kind) -> Result<Object, Vec<Problem>> {
    let mut object = match kind {
        Kind::Namespace => Object::Namespace(decode(node, Unknown::Refuse)?),
        Kind::Pod => Object::Pod(Box::new(decode(node, Unknown::Ignore)?)),
        Kind::Service => Object::Service(Box::new(decode(node, Unknown::Ignore)?)),
        Kind::NetworkPolicy => Object::NetworkPolicy(Box::new(decode(node, Unknown::Refuse)?)),
    };
    defaults::apply(&mut object);
    let mut problems = Problems::default();
    validate::object(&object, &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    defaults::complete(&mut object);
    Ok(object)
}

fn no_kind(node: &Node) -> Problem {
    let mut problems = Problems::default();
    if matches!(node.body, Body::Map(_)) {
        problems.required(&Field::of("kind"), "").hint("write for instance `kind: NetworkPolicy`");
    } else {
        problems.add(&Field::root(), format!("expected a Kubernetes object (a map), found {}", node.describe()));
    }
    problems.0.remove(0)
}

/// A kind that is nearly one of ours would be skipped, and a policy silently lost.
fn misspelt(kind: &str, node: &Node) -> Option<Problem> {
    let names = Kind::ALL.map(Kind::name);
    let right = hints::nearest(kind, &names)?;
    let ours = Kind::ALL.into_iter().find(|kind| kind.name() == right)?;
    let api_version = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
    if !api_version.is_empty() && api_version != ours.api_version() {
        return None;
    }
    let mut problems = Problems::default();
    problems.add(&Field::of("kind"), format!("unknown kind {kind:?}")).hint(format!("did you mean `{right}`?"));
    problems.0.pop()
}

/// `Service` of `serving.knative.dev/v1` is another kind that shares a name. NetworkPolicy is the exception: someone
/// expects it to be enforced, so another group's is an error.
fn is_another_group(kind: Kind, node: &Node) -> bool {
    let group = node.get("apiVersion").and_then(Node::text).and_then(|version| version.split_once('/'));
    kind != Kind::NetworkPolicy && group.is_some()
}

fn check_api_version(node: &Node, kind: Kind, inherited: Inherited, problems: &mut Problems) {
    let field = Field::of("apiVersion");
    match node.get("apiVersion").map(|version| &version.body) {
        None | Some(Body::Null) if inherited.is_some() => {}
        Some(Body::Text(version)) if version == kind.api_version() => {}
        Some(Body::Text(version)) if !version.is_empty() => {
            let why = format!("{kind} is of {}", kind.api_version());
            problems.invalid(&field, version, &why).hint(hints::api_version(kind, version));
        }
        _ => {
            problems.required(&field, "").hint(hints::api_version(kind, ""));
        }
    }
}

/// Namespace and name as the API server would store them, or `None` if they cannot be told.
pub(super) fn identity(node: &Node, kind: Kind) -> Option<ObjectId> {
    let metadata = node.get("metadata")?;
    let name = metadata.get("name")?.text().filter(|name| !name.is_empty())?.to_owned();
    let namespace = match metadata.get("namespace").map(|namespace| &namespace.body) {
        _ if !kind.is_namespaced() => String::new(),
        None | Some(Body::Null) => "default".to_owned(),
        Some(Body::Text(namespace)) if namespace.is_empty() => "default".to_owned(),
        Some(Body::Text(namespace)) => namespace.clone(),
        Some(_) => return None,
    };
    Some(ObjectId { kind, namespace, name })
}

/// Says why there is no identity; a value of the wrong type is left to the decoder, which says it better.
fn check_has_name(node: &Node, problems: &mut Problems) {
    let metadata = node.get("metadata");
    let named = |field: &str| metadata.and_then(|metadata| metadata.get(field)).filter(|value| !value.is_null());
    let wrong_type = metadata.is_some_and(|metadata| !matches!(metadata.body, Body::Map(_) | Body::Null))
        || named("name").is_some_and(|name| name.text().is_none());
    if wrong_type || named("name").is_some_and(|name| name.text() != Some("")) {
        return;
    }
    let field = Field::of("metadata.name");
    if named("generateName").is_some() {
        problems
            .required(&field, "needs a name: generateName makes a new object each time")
            .hint("write `name:` instead of `generateName:`");
    } else {
        problems.required(&field, "needs a name").hint("    metadata:\n      name: ...");
    }
}
