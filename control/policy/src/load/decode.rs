//! Tree → typed object, with every complaint of serde turned back into a field and a form that people know.

use super::error::{Problem, Problems};
use super::hints;
use super::node::{Node, Path};
use serde::de::DeserializeOwned;

/// What to do with fields that the type does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A policy that means less than it says is dangerous: each one is a problem.
    Refuse,
    /// Kinds of which only a part matters here, and which newer servers extend.
    Ignore,
}

/// Decodes an object. Unknown fields are all reported; a wrong type ends the decoding, so there is at most one.
pub(super) fn decode<T: DeserializeOwned>(node: &Node, unknown: Unknown) -> Result<T, Vec<Problem>> {
    let value = node.to_value();
    let mut ignored = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let decoded = {
        let inner = serde_path_to_error::Deserializer::new(&value, &mut track);
        let mut on_ignored = |path: serde_ignored::Path<'_>| ignored.push(ignored_path(&path));
        T::deserialize(serde_ignored::Deserializer::new(inner, &mut on_ignored))
    };
    let mut problems = Problems::default();
    if unknown == Unknown::Refuse {
        for path in ignored {
            let hint = hints::unknown_field(node, &path);
            problems.add(&path, "unknown field").on_key().hint(hint);
        }
    }
    match decoded {
        Ok(object) if problems.0.is_empty() => Ok(object),
        Ok(_) => Err(problems.0),
        Err(error) => {
            let path = error_path(&track.path());
            let (message, hint) = type_message(node, &path, &error.to_string());
            problems.add(&path, message).hint = hint;
            Err(problems.0)
        }
    }
}

/// Serde's `invalid type: …, expected …` in the words of the manifest.
fn type_message(node: &Node, path: &Path, error: &str) -> (String, Option<String>) {
    let (Some((_, expected)), Some(found)) = (error.rsplit_once("expected "), node.find(path)) else {
        return (error.to_owned(), None);
    };
    let form = Form::of(expected);
    (format!("expected {}, found {}", form.words(expected), found.describe()), hints::wrong_type(found, &form, path))
}

/// The forms a field can have, as far as hints care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Number,
    PortOrName,
    List,
    Map,
    Other,
}

impl Form {
    fn of(expected: &str) -> Self {
        match expected {
            "a string" => Self::Text,
            "i32" | "i64" | "a 32-bit integer" => Self::Number,
            "IntOrString" => Self::PortOrName,
            "a sequence" => Self::List,
            "a map" => Self::Map,
            // k8s-openapi names the type it wanted: `NetworkPolicySpec`.
            name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Self::Map,
            _ => Self::Other,
        }
    }

    fn words(self, expected: &str) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Number => "a whole number of 32 bits".to_owned(),
            Self::PortOrName => "a number or a name".to_owned(),
            Self::List => "a list".to_owned(),
            Self::Map if expected == "a map" => expected.to_owned(),
            Self::Map => format!("a map ({expected})"),
            Self::Other => expected.to_owned(),
        }
    }
}

fn error_path(path: &serde_path_to_error::Path) -> Path {
    use serde_path_to_error::Segment;
    path.iter().fold(Path::root(), |path, segment| match segment {
        Segment::Seq { index } => path.index(*index),
        Segment::Map { key } => path.key(key),
        Segment::Enum { .. } | Segment::Unknown => path,
    })
}

fn ignored_path(path: &serde_ignored::Path<'_>) -> Path {
    use serde_ignored::Path as P;
    match path {
        P::Root => Path::root(),
        P::Seq { parent, index } => ignored_path(parent).index(*index),
        P::Map { parent, key } => ignored_path(parent).key(key),
        P::Some { parent } | P::NewtypeStruct { parent } | P::NewtypeVariant { parent } => ignored_path(parent),
    }
}
