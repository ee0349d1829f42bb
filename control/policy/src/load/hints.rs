//! The right form, guessed from the wrong one. The traps come from manifests that people copy: indentation lost on the
//! way through a web page, `app=web` from a command line, an `apiVersion` left out, a field one level off.

use super::decode::Form;
use super::error::{Problem, Problems};
use super::node::{Body, Node, Path};
use super::object::Kind;

const METADATA_FIELDS: [&str; 4] = ["name", "namespace", "labels", "annotations"];
const SPEC_FIELDS: [&str; 4] = ["podSelector", "policyTypes", "ingress", "egress"];

/// For a value of the wrong type.
pub(super) fn wrong_type(found: &Node, expected: &Form) -> Option<String> {
    match (expected, &found.body) {
        (Form::Text, Body::Number(number)) => Some(format!("put it in quotes: \"{number}\"")),
        (Form::Text, Body::Bool(_)) => Some("put it in quotes; unquoted true, false, yes, no, on, off, y and n are booleans".to_owned()),
        (Form::Map, Body::Text(text)) => {
            let (key, value) = text.split_once(['=', ':'])?;
            Some(format!("write `{}: {}`", key.trim(), value.trim()))
        }
        (Form::List, Body::Map(_) | Body::Text(_)) => Some("begin each item of the list with `- `".to_owned()),
        (Form::Map, Body::List(_)) => Some("this is one map, not a list: remove the `- `".to_owned()),
        (Form::Number | Form::PortOrName, Body::Text(text)) if text.parse::<i32>().is_ok() => Some("remove the quotes".to_owned()),
        _ => None,
    }
}

/// For a field that its place does not have.
pub(super) fn unknown_field(object: &Node, path: &Path) -> String {
    let name = path.last_key().unwrap_or_default();
    let place = enclosing(path);
    let known = known_fields(&place);
    if place.is_empty() && name == "status" {
        return "NetworkPolicy has no status since Kubernetes 1.28; remove it".to_owned();
    }
    if let Some(right) = nearest(name, known) {
        return format!("did you mean `{right}`?");
    }
    match (place.as_str(), name) {
        ("podSelector" | "namespaceSelector", _) => {
            let value = object.find(path).and_then(Node::text).unwrap_or("...");
            format!("labels stand under `matchLabels:`\n    {place}:\n      matchLabels:\n        {name}: {value}")
        }
        ("ingress", "to") => "an ingress rule has `from`; `to` belongs to an egress rule".to_owned(),
        ("egress", "from") => "an egress rule has `to`; `from` belongs to an ingress rule".to_owned(),
        ("from" | "to", "ports" | "port" | "protocol" | "endPort") => {
            format!("`ports` stands beside `{place}`, not inside one of its peers")
        }
        ("ingress" | "egress", "port" | "protocol" | "endPort") => {
            format!("ports are a list of their own\n    ports:\n    - {name}: ...")
        }
        _ if known.is_empty() => "remove it, or check its indentation".to_owned(),
        _ => format!("known here: {}", known.join(", ")),
    }
}

/// The field whose value (or list item) holds the last step of the path.
fn enclosing(path: &Path) -> String {
    let parent = path.parent();
    let holder = if parent.last_key().is_some() { parent } else { parent.parent() };
    holder.last_key().unwrap_or_default().to_owned()
}

fn known_fields(place: &str) -> &'static [&'static str] {
    match place {
        "" => &["apiVersion", "kind", "metadata", "spec"],
        "metadata" => &METADATA_FIELDS,
        "spec" => &SPEC_FIELDS,
        "ingress" => &["from", "ports"],
        "egress" => &["to", "ports"],
        "from" | "to" => &["podSelector", "namespaceSelector", "ipBlock"],
        "podSelector" | "namespaceSelector" => &["matchLabels", "matchExpressions"],
        "matchExpressions" => &["key", "operator", "values"],
        "ipBlock" => &["cidr", "except"],
        "ports" => &["port", "endPort", "protocol"],
        _ => &[],
    }
}

/// The known word that is a slip of the finger away, if any.
pub(crate) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let lower = word.to_lowercase();
    let allowed = if word.len() > 5 { 2 } else { 1 };
    known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's, on characters. Long words are not slips.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// For an `apiVersion` that does not go with the kind.
pub(super) fn api_version(kind: Kind, found: &str) -> String {
    let right = format!("write `apiVersion: {}`", kind.api_version());
    match found {
        "extensions/v1beta1" => format!("{right}; extensions/v1beta1 was removed in Kubernetes 1.16"),
        "" => right,
        other if other.contains("calico") => {
            format!("Calico's own policies are not enforced here; rewrite it as {}", kind.api_version())
        }
        _ => right,
    }
}

/// Fields of `metadata` or `spec` at the top level while the block that should hold them is empty.
///
/// Reported as one problem: what the decoder would say about each of the fields only hides the cause.
pub(super) fn lost_indentation(object: &Node) -> Option<Problem> {
    let stray = |block: &str, fields: &[&'static str]| {
        let empty = object.get(block).is_none_or(Node::is_null);
        fields.iter().copied().find(|field| empty && object.get(field).is_some())
    };
    let (block, field) = stray("metadata", &METADATA_FIELDS)
        .map(|field| ("metadata", field))
        .or_else(|| stray("spec", &SPEC_FIELDS).map(|field| ("spec", field)))?;
    let mut problems = Problems::default();
    let value = object.get(field).and_then(Node::text);
    problems
        .add(&Path::of(field), format!("unknown field at the top level, while `{block}` is empty"))
        .on_key()
        .hint(indentation_hint(block, field, value));
    problems.0.pop()
}

fn indentation_hint(block: &str, field: &str, value: Option<&str>) -> String {
    let value = value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("the indentation was lost; the right form is\n    {block}:\n      {field}:{value}")
}

/// The same for a text that no longer parses: lost indentation makes duplicate keys and stray list items of what was
/// nested. Looks at the lines up to the error, nearest first.
pub(super) fn lost_indentation_in_text(lines: &[&str], line: u32) -> Option<String> {
    let lines = &lines[..lines.len().min(usize::try_from(line).unwrap_or(usize::MAX))];
    let content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let indent = |line: &str| line.len() - line.trim_start().len();
    for (index, head) in lines.iter().enumerate().rev() {
        let (block, fields) = match head.trim() {
            "---" if index + 1 < lines.len() => return None,
            "metadata:" => ("metadata", METADATA_FIELDS),
            "spec:" => ("spec", SPEC_FIELDS),
            _ => continue,
        };
        let Some(next) = lines[index + 1..].iter().find(|line| content(line)) else { continue };
        let Some((field, value)) = next.trim().split_once(':') else { continue };
        if indent(next) == indent(head) && fields.contains(&field.trim()) {
            let value = Some(value.trim()).filter(|value| !value.is_empty());
            return Some(indentation_hint(block, field.trim(), value));
        }
    }
    None
}
