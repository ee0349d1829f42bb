//! The right form, guessed from the wrong one. The traps come from manifests that people copy: indentation lost on the
//! way through a web page, `app=web` from a command line, an `apiVersion` left out, a field one level off.

use super::decode::Form;
use super::document::{Keep, read};
use super::error::{Problem, Problems};
use super::node::{Body, Node, Path};
use super::object::Kind;
use super::reindent::reindent;

const METADATA_FIELDS: [&str; 4] = ["name", "namespace", "labels", "annotations"];
const SPEC_FIELDS: [&str; 4] = ["podSelector", "policyTypes", "ingress", "egress"];

/// For a value of the wrong type.
pub(super) fn wrong_type(found: &Node, expected: &Form, path: &Path) -> Option<String> {
    let place = &holder(path);
    match (expected, &found.body) {
        (Form::Text, Body::Number(number)) => Some(format!("put it in quotes: \"{number}\"")),
        (Form::Text, Body::Bool(_)) => Some("put it in quotes; unquoted true, false, yes, no, on, off, y and n are booleans".to_owned()),
        (Form::Map, Body::Text(text)) => text_for_map(place, text),
        (Form::Map, Body::Number(number)) if place == "ports" => Some(format!("write `- port: {number}`")),
        (Form::List, Body::Text(text)) => Some(format!("begin each item of the list with `- `\n    {place}:\n    - {text}")),
        (Form::List, Body::Number(number)) if place == "ports" => Some(format!("write\n    ports:\n    - port: {number}")),
        (Form::List, Body::Map(_)) => Some("begin each item of the list with `- `".to_owned()),
        (Form::Text, Body::List(items)) if path.parent().last_key() == Some("matchLabels") => {
            let values: Vec<&str> = items.iter().filter_map(Node::text).collect();
            let expression = format!("- {{key: {place}, operator: In, values: [{}]}}", values.join(", "));
            Some(format!("several values need an expression\n    matchExpressions:\n    {expression}"))
        }
        (Form::Text, Body::List(_)) if place == "protocol" => {
            Some("give each protocol an entry of its own, with its own `- port: ...`".to_owned())
        }
        (Form::Text, Body::List(_)) if place == "cidr" => Some("give each block a peer of its own: `- ipBlock: ...`".to_owned()),
        (Form::Map, Body::List(_)) => Some("this is one map, not a list: remove the `- `".to_owned()),
        (Form::Number | Form::PortOrName, Body::Text(text)) if text.parse::<i32>().is_ok() => Some("remove the quotes".to_owned()),
        _ => None,
    }
}

/// The field that holds a value, or the list that holds it as an item.
fn holder(path: &Path) -> String {
    path.last_key().map_or_else(|| path.parent().last_key().unwrap_or_default().to_owned(), str::to_owned)
}

/// A text where a map belongs: `app=web` from a command line, `app:web` without the space, a block without its field.
fn text_for_map(place: &str, text: &str) -> Option<String> {
    if place == "ipBlock" {
        return Some(format!("write\n    ipBlock:\n      cidr: {text}"));
    }
    let pairs: Option<Vec<_>> = text.split([',', ' ']).filter(|part| !part.is_empty()).map(|part| part.split_once(['=', ':'])).collect();
    let pairs: Vec<String> =
        pairs?.into_iter().map(|(key, value)| format!("{}: {}", key.trim(), value.trim_start_matches('=').trim())).collect();
    match (place, pairs.as_slice()) {
        ("podSelector" | "namespaceSelector", pairs) => {
            let lines: String = pairs.iter().map(|pair| format!("\n        {pair}")).collect();
            Some(format!("labels stand under `matchLabels:`\n    {place}:\n      matchLabels:{lines}"))
        }
        (_, [pair]) => Some(format!("write `{pair}`")),
        (_, pairs) => Some(format!("write each on a line of its own\n    {}", pairs.join("\n    "))),
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
        ("from" | "to", "namespace") => {
            let value = object.find(path).and_then(Node::text).unwrap_or("...");
            format!(
                "a namespace is selected by its name's label\n    namespaceSelector:\n      matchLabels:\n        kubernetes.io/metadata.name: {value}"
            )
        }
        ("spec" | "ingress" | "egress", "action" | "deny" | "allow") => {
            "a NetworkPolicy only allows: what no rule of any policy allows to a selected pod is denied; remove it".to_owned()
        }
        ("spec" | "from" | "to", "matchLabels" | "matchExpressions") => {
            format!("it stands inside a selector: indent it further\n    podSelector:\n      {name}: ...")
        }
        ("spec", "from" | "to" | "ports") => {
            let list = if name == "to" { "egress" } else { "ingress" };
            format!("it stands inside a rule, which is an item of a list\n    {list}:\n    - {name}: ...")
        }
        ("spec", "types") => "did you mean `policyTypes`?".to_owned(),
        ("spec", "selector") => "did you mean `podSelector`, with `matchLabels`?".to_owned(),
        ("from" | "to", "cidr" | "except") => "it stands inside `ipBlock`\n    - ipBlock:\n        cidr: ...".to_owned(),
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
    // Any two short words are near each other.
    let allowed = match word.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Slips between two words, on characters: one put in, left out, taken for another, or swapped with its neighbour. Long
/// words are not slips.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(above[j - 1] + 1);
            }
            next.push(least);
        }
        above = std::mem::replace(&mut row, next);
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
pub(super) fn lost_indentation(object: &Node, lines: &[&str]) -> Option<Problem> {
    let strays = |block: &str, fields: &[&'static str]| {
        let empty = object.get(block).is_none_or(Node::is_null);
        fields.iter().copied().find(|field| empty && object.get(field).is_some())
    };
    let (block, field) = strays("metadata", &METADATA_FIELDS)
        .map(|field| ("metadata", field))
        .or_else(|| strays("spec", &SPEC_FIELDS).map(|field| ("spec", field)))?;
    let mut problems = Problems::default();
    let value = object.get(field).and_then(Node::text);
    let start = usize::try_from(object.at.line).unwrap_or(0).saturating_sub(1);
    let flattened = flattened(lines, start).map(|flattened| flattened.hint);
    problems.add(&Path::of(field), stray(block)).on_key().hint(flattened.unwrap_or_else(|| indentation_hint(block, field, value)));
    problems.0.pop()
}

fn indentation_hint(block: &str, field: &str, value: Option<&str>) -> String {
    let value = value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("{INDENTATION_LOST}\n    {block}:\n      {field}:{value}")
}

const INDENTATION_LOST: &str = "the indentation was lost; the right form is";

/// Longest repaired policy that is shown whole; longer ones are shown by their first step only.
const REPAIRED_CHARS_MAX: usize = 900;

/// A document that lost its indentation, seen in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flattened {
    /// 1-based: the first line that stands too far left.
    pub(super) line: u32,
    /// 1-based.
    pub(super) column: u32,
    /// The field that stands there.
    pub(super) field: &'static str,
    pub(super) message: String,
    pub(super) hint: String,
}

/// Looks for lost indentation in the text around an error: it makes duplicate keys and stray list items of what was
/// nested, so that the text often stops being YAML far below the line that is to blame.
pub(super) fn flattened_around(lines: &[&str], line: u32) -> Option<Flattened> {
    flattened(lines, document_start(lines, usize::try_from(line).ok()?))
}

/// The same for a document whose beginning is known, zero-based.
fn flattened(lines: &[&str], start: usize) -> Option<Flattened> {
    let below = lines.get(start..)?;
    let document = &below[..below.len().min(DOCUMENT_LINES_MAX)];
    let document = &document[..document.iter().position(|line| is_separator(line)).unwrap_or(document.len())];
    let content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let indent = |line: &str| line.len() - line.trim_start().len();
    document.iter().enumerate().find_map(|(index, head)| {
        let (block, fields) = match head.trim() {
            "metadata:" => ("metadata", METADATA_FIELDS),
            "spec:" => ("spec", SPEC_FIELDS),
            _ => return None,
        };
        let (below, next) = document[index + 1..].iter().enumerate().find(|(_, line)| content(line))?;
        let (key, value) = next.trim().split_once(':')?;
        let field = fields.into_iter().find(|field| indent(next) == indent(head) && *field == key.trim())?;
        let value = Some(value.trim()).filter(|value| !value.is_empty());
        Some(Flattened {
            line: u32::try_from(start + index + below + 2).ok()?,
            column: u32::try_from(indent(next) + 1).ok()?,
            field,
            message: stray(block),
            hint: repaired(document).unwrap_or_else(|| indentation_hint(block, field, value)),
        })
    })
}

/// Lines of a document that are searched. Files may hold thousands of objects that lost their indentation.
const DOCUMENT_LINES_MAX: usize = 500;

/// Where the document that a 1-based line belongs to begins, zero-based and without its `---`.
fn document_start(lines: &[&str], line: usize) -> usize {
    lines[..line.min(lines.len())].iter().rposition(|line| is_separator(line)).map_or(0, |at| at + 1)
}

fn is_separator(line: &str) -> bool {
    line.starts_with("---") || line.starts_with("...")
}

/// The whole document in its right form, if that is short enough to read and loads without an error.
fn repaired(document: &[&str]) -> Option<String> {
    let text = reindent(document).filter(|text| text.chars().count() <= REPAIRED_CHARS_MAX)?;
    let content = read(std::path::Path::new("repaired.yaml"), text.as_bytes(), Keep::Objects).ok()?;
    let whole = content.errors.is_empty() && content.claims.len() == 1;
    let shown: String = text.lines().map(|line| format!("\n    {line}")).collect();
    whole.then(|| format!("{INDENTATION_LOST}{shown}"))
}

fn stray(block: &str) -> String {
    format!("unknown field at the top level, while `{block}` is empty")
}

/// For a text that does not parse, from the look of the line and the one above it: the parser often gives up only there.
pub(super) fn syntax(lines: &[&str], line: u32) -> Option<String> {
    let near = [line, line.saturating_sub(1)];
    let text = |line: u32| lines.get(usize::try_from(line.checked_sub(1)?).ok()?).copied();
    if near.into_iter().filter_map(text).any(|line| line.contains("{{")) {
        return Some(
            "this is a template, not yet a manifest; render it first, for instance `helm template . | sluicectl lint -f -`".to_owned(),
        );
    }
    let here = text(line).unwrap_or_default();
    let keys = here.matches(": ").count() + usize::from(here.trim_end().ends_with(':'));
    let crowded = keys > 1 && !here.contains(['{', '"', '\'']);
    near.into_iter()
        .find_map(|line| characters(lines, line))
        .or_else(|| crowded.then(|| "give each field a line of its own".to_owned()))
        .or_else(|| ragged(lines, usize::try_from(line).ok()?.checked_sub(1)?))
}

/// A line that begins where nothing above it does.
fn ragged(lines: &[&str], index: usize) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(lines.get(index).filter(|line| !line.trim().is_empty())?);
    let mut open: Vec<usize> = Vec::new();
    for line in lines[..index].iter().rev().take_while(|line| !is_separator(line)).take(DOCUMENT_LINES_MAX) {
        let (column, content) = (indent(line), line.trim_start());
        if content.is_empty() || content.starts_with('#') || open.last().is_some_and(|last| column >= *last) {
            continue;
        }
        let dashes = content.len() - content.trim_start_matches(['-', ' ']).len();
        let inner = (content.starts_with("- ") && open.last().is_none_or(|last| column + dashes < *last)).then_some(column + dashes);
        open.extend(inner);
        open.push(column);
    }
    open.reverse();
    let columns: Vec<String> = open.iter().map(usize::to_string).collect();
    (!open.contains(&own) && own > 0).then(|| {
        format!("it is indented by {own}, and no line above that it could belong to is; those are indented by {}", columns.join(", "))
    })
}

/// Characters that look like YAML's own and are not, as web pages and word processors put them.
pub(super) fn characters(lines: &[&str], line: u32) -> Option<String> {
    let text = lines.get(usize::try_from(line.checked_sub(1)?).ok()?)?;
    let code = text.split(" #").next().unwrap_or_default();
    code.chars().find_map(|c| {
        let number = u32::from(c);
        Some(match c {
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => {
                format!("there is a blank that YAML does not know (U+{number:04X}); replace it by an ordinary space")
            }
            '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => format!("there is an invisible character (U+{number:04X}); remove it"),
            '\u{201c}'..='\u{201f}' | '\u{2018}'..='\u{201b}' => format!("{c} is a typographic quote; write \" or '"),
            '\u{2010}'..='\u{2015}' | '\u{2212}' => format!("{c} is a typographic dash (U+{number:04X}); write -"),
            '\u{ff1a}' => format!("{c} is a full-width colon; write : and a space"),
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_near_and_other_words_are_not() {
        for (word, known, right) in [
            ("wbe", &["web", "api"][..], Some("web")),
            ("podselector", &SPEC_FIELDS[..], Some("podSelector")),
            ("policyType", &SPEC_FIELDS[..], Some("policyTypes")),
            ("egres", &SPEC_FIELDS[..], Some("egress")),
            ("form", &["from", "ports"][..], Some("from")),
            ("IN", &["In", "NotIn"][..], Some("In")),
            ("a", &["b"][..], None),
            ("db", &["web", "api"][..], None),
            ("backend", &["frontend"][..], None),
        ] {
            assert_eq!(nearest(word, known), right, "{word}");
        }
    }
}
