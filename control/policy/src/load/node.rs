//! A parsed document that still knows where each part stood.
//!
//! YAML and JSON both become this tree; everything after it (decoding, validation, hints) speaks in [`Path`]s and asks
//! the tree for a [`Place`] only when there is something to complain about. Keeping places in the tree, not in a map
//! beside it, means that a list can be taken apart into its items without rewriting a single path.

use serde_json::Value;
use std::fmt;

/// Levels of lists and maps inside each other. Kubernetes objects stay below 30.
pub(super) const DEPTH_MAX: usize = 100;

/// A position in a file, both 1-based; columns count characters. Zero means unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    /// From zero-based counters of a scanner; positions beyond `u32` do not occur below the size limit of a file.
    pub(super) fn new(line: usize, column: usize) -> Self {
        Self { line: u32::try_from(line).unwrap_or(0), column: u32::try_from(column).unwrap_or(0) }
    }
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) body: Body,
}

/// The JSON data model, with positions inside.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) value: Node,
}

impl Node {
    /// The value under a key of a map; `None` for other values too.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.body {
            Body::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.body, Body::Null)
    }

    /// The node at a path, if all of the path exists.
    pub(super) fn find(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| match (step, &node.body) {
            (Step::Key(key), Body::Map(_)) => node.get(key),
            (Step::Index(index), Body::List(items)) => items.get(*index),
            _ => None,
        })
    }

    /// Where to point for a path: at a scalar itself, at the key of anything larger or empty, and at the nearest
    /// enclosing thing when the path does not exist (a required field that is missing).
    pub(super) fn locate(&self, path: &Path) -> Place {
        let (mut node, mut place) = (self, self.at);
        for step in &path.0 {
            let next = match (step, &node.body) {
                (Step::Key(key), Body::Map(_)) => node.entry(key).map(|entry| (&entry.value, entry.at)),
                (Step::Index(index), Body::List(items)) => items.get(*index).map(|item| (item, item.at)),
                _ => None,
            };
            let Some((value, key_at)) = next else { return place };
            place = match value.body {
                Body::Bool(_) | Body::Number(_) | Body::Text(_) => value.at,
                Body::Null | Body::List(_) | Body::Map(_) => key_at,
            };
            node = value;
        }
        place
    }

    /// Where to point when the field's name is what is wrong.
    pub(super) fn locate_key(&self, path: &Path) -> Place {
        let key_at = |key| self.find(&path.parent())?.entry(key).map(|entry| entry.at);
        path.last_key().and_then(key_at).unwrap_or_else(|| self.locate(path))
    }

    /// What a person would call this value.
    pub(super) fn describe(&self) -> String {
        match &self.body {
            Body::Null => "nothing".to_owned(),
            Body::Bool(value) => format!("the boolean {value}"),
            Body::Number(value) => format!("the number {value}"),
            Body::Text(value) => format!("the text {value:?}"),
            Body::List(_) => "a list".to_owned(),
            Body::Map(_) => "a map".to_owned(),
        }
    }

    /// The plain JSON value, with `null` meaning what Go's decoder makes of it: an absent field, and the zero value
    /// inside a list or a map of strings. So `ingress: [null]` holds one empty rule, as in the API server.
    pub(super) fn to_value(&self) -> Value {
        self.value_under("")
    }

    fn value_under(&self, name: &str) -> Value {
        match &self.body {
            Body::Null => Value::Null,
            Body::Bool(value) => Value::Bool(*value),
            Body::Number(value) if is_quantity_map(name) => Value::String(value.to_string()),
            Body::Number(value) => Value::Number(value.clone()),
            Body::Text(value) => Value::String(value.clone()),
            Body::List(items) => {
                Value::Array(items.iter().map(|item| if item.is_null() { zero_item(name) } else { item.value_under("") }).collect())
            }
            Body::Map(entries) => Value::Object(entries.iter().filter_map(|entry| map_member(name, entry)).collect()),
        }
    }
}

/// One member of the map called `name`, or nothing for a null field.
fn map_member(name: &str, entry: &Entry) -> Option<(String, Value)> {
    let free_keys = is_string_map(name) || is_quantity_map(name);
    let value = match entry.value.body {
        Body::Null if free_keys => Value::String(String::new()),
        Body::Null => return None,
        // A field that happens to be called like a map of strings counts only where such a map can stand.
        _ if free_keys => entry.value.value_under(if is_quantity_map(name) { name } else { "" }),
        _ => entry.value.value_under(&entry.key),
    };
    Some((entry.key.clone(), value))
}

fn is_string_map(name: &str) -> bool {
    matches!(name, "matchLabels" | "labels" | "annotations" | "selector" | "nodeSelector")
}

/// Quantities may be written as numbers (`cpu: 2`); the typed form is text.
fn is_quantity_map(name: &str) -> bool {
    matches!(name, "limits" | "requests" | "overhead" | "sizeLimit" | "divisor" | "allocatedResources" | "capacity")
}

/// What a null inside the list called `name` decodes to.
fn zero_item(name: &str) -> Value {
    const STRING_LISTS: [&str; 8] = ["policyTypes", "except", "values", "finalizers", "args", "command", "externalIPs", "clusterIPs"];
    if STRING_LISTS.contains(&name) { Value::String(String::new()) } else { Value::Object(serde_json::Map::new()) }
}

/// A field inside an object, printed as the API server prints it: `spec.ingress[0].from[1]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// The object itself.
    pub(crate) fn root() -> Self {
        Self::default()
    }

    /// Fields separated by dots, without indices: `Path::of("metadata.name")`.
    pub(crate) fn of(fields: &str) -> Self {
        fields.split('.').fold(Self::root(), |path, field| path.key(field))
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The last field's name, or nothing if the path ends in an index.
    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }

    pub(super) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if key.contains(['.', '/', '[', ' ']) => write!(f, "[{key}]")?,
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}
