//! YAML text → trees. The scanner's events are folded on a stack, so depth costs heap and never the call stack.
//!
//! Refused, each with its place: duplicate keys, aliases that expand without bound, nesting past [`DEPTH_MAX`], tags
//! that JSON has no form for, keys that are not scalars.

use super::node::{Body, DEPTH_MAX, Entry, Node, Place};
use super::scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use std::collections::{HashMap, HashSet};

/// Nodes that all anchors and aliases of one file may copy together. A laugh, not a billion.
const ALIAS_NODES_MAX: usize = 100_000;

/// Why a text is not a tree, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct SyntaxError {
    pub(super) at: Place,
    pub(super) message: String,
}

impl SyntaxError {
    pub(super) fn new(at: Place, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// All documents of a file; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let hint = if error.info().contains("tab") { " (YAML is indented with spaces)" } else { "" };
            SyntaxError::new(place(error.marker()), format!("not valid YAML: {}{hint}", error.info()))
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

fn place(marker: &Marker) -> Place {
    Place::new(marker.line(), marker.col() + 1)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    alias_nodes: usize,
}

/// A node that aliases may repeat, with its size so that the bound is checked before anything is copied.
struct Anchor {
    node: Node,
    nodes: usize,
}

/// A list or map whose end has not come yet.
struct Frame {
    at: Place,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, key: Option<Key>, merged: Vec<Entry> },
}

enum Key {
    Named(String, Place),
    /// `<<`: the value's entries become this map's, unless it has them itself.
    Merge,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let at = place(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                let body = scalar_body(&text, style, tag.as_deref(), at)?;
                self.finish(Node { at, body }, anchor, merge)
            }
            Event::Alias(anchor) => {
                let Some(&Anchor { nodes, .. }) = self.anchors.get(&anchor) else {
                    return Err(SyntaxError::new(at, "an alias inside the very thing it stands for"));
                };
                self.alias_nodes += nodes;
                self.bound_aliases(at)?;
                let node = self.anchors[&anchor].node.clone();
                // Deeper than written: the alias stands below what is open here.
                if self.open.len() + depth(&node) > DEPTH_MAX {
                    return Err(too_deep(at));
                }
                self.finish(node, 0, false)
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", at)?;
                self.begin(Frame { at, anchor, inside: Inside::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "map", at)?;
                let inside = Inside::Map { entries: Vec::new(), seen: HashSet::new(), key: None, merged: Vec::new() };
                self.begin(Frame { at, anchor, inside })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let frame = self.open.pop().expect("the parser balances its events");
                let body = match frame.inside {
                    Inside::List(items) => Body::List(items),
                    Inside::Map { mut entries, mut seen, merged, .. } => {
                        entries.extend(merged.into_iter().filter(|entry| seen.insert(entry.key.clone())));
                        Body::Map(entries)
                    }
                };
                self.finish(Node { at: frame.at, body }, frame.anchor, false)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn bound_aliases(&self, at: Place) -> Result<(), SyntaxError> {
        if self.alias_nodes > ALIAS_NODES_MAX {
            return Err(SyntaxError::new(at, format!("anchors and aliases expand to more than {ALIAS_NODES_MAX} values")));
        }
        Ok(())
    }

    fn begin(&mut self, frame: Frame) -> Result<(), SyntaxError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(frame.at));
        }
        self.open.push(frame);
        Ok(())
    }

    /// Puts a complete node where it belongs: into the document list, a list, or a map as key or value.
    fn finish(&mut self, node: Node, anchor: usize, merge: bool) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // Anchors inside anchors are copied once for each level, so the copies count like those of aliases.
            let nodes = count(&node);
            self.alias_nodes += nodes;
            self.bound_aliases(node.at)?;
            self.anchors.insert(anchor, Anchor { nodes, node: node.clone() });
        }
        match self.open.last_mut().map(|frame| &mut frame.inside) {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, seen, key, merged }) => match key.take() {
                None if merge => *key = Some(Key::Merge),
                None => {
                    let (name, at) = (key_name(&node)?, node.at);
                    if !seen.insert(name.clone()) {
                        return Err(duplicate(&name, at, entries));
                    }
                    *key = Some(Key::Named(name, at));
                }
                Some(Key::Named(name, at)) => entries.push(Entry { key: name, at, value: node }),
                Some(Key::Merge) => merge_into(merged, node)?,
            },
        }
        Ok(())
    }
}

/// The value of a scalar under its tag, or under go-yaml's rules without one.
fn scalar_body(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Result<Body, SyntaxError> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { scalar::resolve(text) } else { Body::Text(text.to_owned()) });
    };
    let core = tag.is_yaml_core_schema().then_some(tag.suffix.as_str());
    let wrong = |what: &str| SyntaxError::new(at, format!("cannot read {text:?} as {what}"));
    match (core, scalar::resolve(text)) {
        (Some("str"), _) => Ok(Body::Text(text.to_owned())),
        (Some("int" | "float"), Body::Number(number)) => Ok(Body::Number(number)),
        (Some("bool"), Body::Bool(value)) => Ok(Body::Bool(value)),
        (Some("null"), Body::Null) => Ok(Body::Null),
        (Some(name @ ("int" | "float" | "bool" | "null")), _) => Err(wrong(&format!("!!{name}"))),
        // `! text` is how YAML says "text, whatever it looks like".
        (None, _) if tag.handle.is_empty() && tag.suffix == "!" => Ok(Body::Text(text.to_owned())),
        _ => Err(SyntaxError::new(at, format!("the tag {tag} has no meaning in a Kubernetes object"))),
    }
}

fn collection_tag(tag: Option<&Tag>, expected: &str, at: Place) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => {
            Err(SyntaxError::new(at, format!("the tag {tag} has no meaning in a Kubernetes object")))
        }
        _ => Ok(()),
    }
}

/// Keys are text in JSON; numbers and booleans are written out, as `sigs.k8s.io/yaml` does.
fn key_name(node: &Node) -> Result<String, SyntaxError> {
    match &node.body {
        Body::Text(text) => Ok(text.clone()),
        Body::Bool(value) => Ok(value.to_string()),
        Body::Number(value) => Ok(value.to_string()),
        Body::Null => Err(SyntaxError::new(node.at, "a key is missing before the colon")),
        Body::List(_) | Body::Map(_) => Err(SyntaxError::new(node.at, "a key must be text, not a list or a map")),
    }
}

fn duplicate(name: &str, at: Place, entries: &[Entry]) -> SyntaxError {
    let first = entries.iter().find(|entry| entry.key == name).map_or(0, |entry| entry.at.line);
    SyntaxError::new(at, format!("the key {name:?} stands twice in the same map, first in line {first}"))
}

/// Earlier merges win over later ones; the map's own keys win over all, which the map's end takes care of.
fn merge_into(merged: &mut Vec<Entry>, node: Node) -> Result<(), SyntaxError> {
    match node.body {
        Body::Map(entries) => merged.extend(entries),
        Body::List(items) => {
            for item in items {
                match item.body {
                    Body::Map(entries) => merged.extend(entries),
                    _ => return Err(SyntaxError::new(item.at, "`<<` merges maps only")),
                }
            }
        }
        _ => return Err(SyntaxError::new(node.at, "`<<` merges maps only")),
    }
    Ok(())
}

fn too_deep(at: Place) -> SyntaxError {
    SyntaxError::new(at, format!("more than {DEPTH_MAX} levels of lists and maps"))
}

/// Values in a tree. Recursion is bounded by `DEPTH_MAX`.
fn count(node: &Node) -> usize {
    1 + match &node.body {
        Body::List(items) => items.iter().map(count).sum(),
        Body::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        _ => 0,
    }
}

fn depth(node: &Node) -> usize {
    match &node.body {
        Body::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Body::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::node::Path;
    use serde_json::json;

    fn error(text: &str) -> (u32, u32, String) {
        let error = parse(text).expect_err(text);
        (error.at.line, error.at.column, error.message)
    }

    #[test]
    fn documents_become_the_json_they_stand_for() {
        for (text, expected) in [
            ("a: 1\n---\n---\n# nothing\n---\nb: [x, 'yes', yes]\n", json!([{"a": 1}, {"b": ["x", "yes", true]}])),
            ("x: &x {p: 1, q: 2}\nz: {<<: *x, q: 3}\n", json!([{"x": {"p": 1, "q": 2}, "z": {"q": 3, "p": 1}}])),
            ("y: 1\nno: 2\n", json!([{"true": 1, "false": 2}])),
            ("port : 53\n", json!([{"port": 53}])),
            ("a: !!str 5\nb: |\n  x\n  y\n1: c\n", json!([{"a": "5", "b": "x\ny\n", "1": "c"}])),
            ("- to:\n  ports:\n  - port: 53\n", json!([[{"ports": [{"port": 53}]}]])),
            ("", json!([])),
        ] {
            let values: Vec<_> = parse(text).unwrap().iter().map(Node::to_value).collect();
            assert_eq!(json!(values), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_exactly_is_refused_with_its_place() {
        for (text, line, column, part) in [
            ("a: 1\nb: 2\na: 3\n", 3, 1, "\"a\" stands twice in the same map, first in line 1"),
            ("a: *a\n", 1, 4, "unknown anchor"),
            ("a: &a [*a]\n", 1, 8, "inside the very thing"),
            ("a: !foo x\n", 1, 4, "!foo"),
            ("? [a]\n: b\n", 1, 3, "must be text"),
            ("a: {<<: 5}\n", 1, 9, "merges maps only"),
            ("a: [1, 2\n", 2, 1, "not valid YAML"),
        ] {
            let (l, c, message) = error(text);
            assert!((l, c) == (line, column) && message.contains(part), "{text:?} -> {l}:{c} {message}");
        }
        assert!(error("a:\n\tb: 1\n").2.contains("spaces"));
    }

    #[test]
    fn aliases_and_nesting_are_bounded() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
        }
        assert!(error(&laughs).2.contains("expand to more than"));
        assert!(error(&"- ".repeat(DEPTH_MAX + 1)).2.contains("levels"));
    }

    #[test]
    fn places_point_at_values_and_at_keys_of_empty_ones() {
        let text = "spec:\n  to:\n  from:\n  - cidr: 10.0.0.0/8\n    é: bad\n";
        let node = parse(text).unwrap().remove(0);
        for (path, line, column) in [
            (Path::of("spec"), 1, 1),
            (Path::of("spec.to"), 2, 3),
            (Path::of("spec.from").index(0), 4, 5),
            (Path::of("spec.from").index(0).key("cidr"), 4, 11),
            (Path::of("spec.from").index(0).key("é"), 5, 8),
            (Path::of("spec.from").index(0).key("missing"), 4, 5),
        ] {
            assert_eq!(node.locate(&path), Place { line, column }, "{path}");
        }
    }
}
