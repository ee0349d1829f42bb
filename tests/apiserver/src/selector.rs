//! Label and field selectors of lists and watches.
//!
//! Source: Kubernetes, "Labels and Selectors" and "Field Selectors". The fields are the ones that the server
//! indexes: `metadata.name` and `metadata.namespace` everywhere, `spec.nodeName` and `status.phase` on pods.

use crate::resource::Resource;
use crate::status::ApiError;
use crate::store::Object;

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelTerm {
    key: String,
    test: LabelTest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelTest {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldTerm {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    NodeName,
    Phase,
}

impl Selector {
    /// Parses both query parameters; the errors are those of the real server.
    pub(crate) fn parse(resource: &Resource, labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self {
            labels: labels.map(parse_labels).transpose()?.unwrap_or_default(),
            fields: fields.map(|text| parse_fields(resource, text)).transpose()?.unwrap_or_default(),
        })
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|term| term.matches(object)) && self.fields.iter().all(|term| term.matches(object))
    }
}

impl LabelTerm {
    fn matches(&self, object: &Object) -> bool {
        let value = object.label(&self.key);
        match &self.test {
            LabelTest::Exists => value.is_some(),
            LabelTest::Absent => value.is_none(),
            LabelTest::In(values) => value.is_some_and(|value| values.iter().any(|known| known == value)),
            LabelTest::NotIn(values) => value.is_none_or(|value| values.iter().all(|known| known != value)),
        }
    }
}

impl FieldTerm {
    fn matches(&self, object: &Object) -> bool {
        let value = match self.field {
            Field::Name => object.name(),
            Field::Namespace => object.namespace(),
            Field::NodeName => object.node_name(),
            Field::Phase => object.phase(),
        };
        (value == self.value) == self.equal
    }
}

fn parse_labels(text: &str) -> Result<Vec<LabelTerm>, ApiError> {
    split_outside_parentheses(text).into_iter().filter(|term| !term.is_empty()).map(parse_label).collect()
}

/// Commas separate terms, except those within the parentheses of a set.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut depth) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                terms.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text[start..].trim());
    terms
}

fn parse_label(term: &str) -> Result<LabelTerm, ApiError> {
    let unreadable = || ApiError::bad_request(format!("unable to parse requirement: found '{term}', expected: identifier or operator"));
    let label = |key: &str, test| {
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(unreadable());
        }
        Ok(LabelTerm { key: key.to_owned(), test })
    };
    if let Some(list) = term.strip_suffix(')') {
        let (head, values) = list.split_once('(').ok_or_else(unreadable)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(unreadable)?;
        return match operator {
            "in" => label(key, LabelTest::In(values)),
            "notin" => label(key, LabelTest::NotIn(values)),
            _ => Err(unreadable()),
        };
    }
    let value = |value: &str| vec![value.trim().to_owned()];
    match term.split_once("!=") {
        Some((key, found)) => return label(key, LabelTest::NotIn(value(found))),
        None if term.starts_with('!') => return label(&term[1..], LabelTest::Absent),
        None => {}
    }
    match term.split_once("==").or_else(|| term.split_once('=')) {
        Some((key, found)) => label(key, LabelTest::In(value(found))),
        None => label(term, LabelTest::Exists),
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<FieldTerm>, ApiError> {
    text.split(',').filter(|term| !term.is_empty()).map(|term| parse_field(resource, term)).collect()
}

fn parse_field(resource: &Resource, term: &str) -> Result<FieldTerm, ApiError> {
    let (name, value, equal) = match term.split_once("!=") {
        Some((name, value)) => (name, value, false),
        None => {
            let (name, value) = term
                .split_once("==")
                .or_else(|| term.split_once('='))
                .ok_or_else(|| ApiError::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")))?;
            (name, value, true)
        }
    };
    let pods = resource.group.is_empty() && resource.plural == "pods";
    let phased = pods || resource.plural == "namespaces";
    let field = match name {
        "metadata.name" => Field::Name,
        "metadata.namespace" if resource.namespaced => Field::Namespace,
        "spec.nodeName" if pods => Field::NodeName,
        "status.phase" if phased => Field::Phase,
        _ => return Err(ApiError::bad_request(format!("field label not supported: {name}"))),
    };
    Ok(FieldTerm { field, value: value.to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registry;
    use serde_json::json;

    fn selects(labels: Option<&str>, fields: Option<&str>) -> Result<bool, ApiError> {
        let registry = Registry::default();
        let pods = registry.get(registry.by_name("pods").unwrap());
        let pod = json!({
            "metadata": {"name": "a", "namespace": "x", "resourceVersion": "7", "labels": {"app": "web", "tier": "gold"}},
            "spec": {"nodeName": "node1"}, "status": {"phase": "Running"},
        });
        Ok(Selector::parse(pods, labels, fields)?.matches(&Object::from_value(pods, pod, 7)))
    }

    #[test]
    fn labels_select_by_equality_and_by_set() {
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app==web,tier=gold", true),
            ("app=web,tier!=gold", false),
            ("none!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web),tier", false),
            ("none notin (a)", true),
        ] {
            assert_eq!(selects(Some(text), None), Ok(expected), "{text:?}");
        }
        assert_eq!(selects(Some("app ~ web"), None).unwrap_err().code, 400);
    }

    #[test]
    fn fields_select_as_indexed() {
        for (text, expected) in [
            ("metadata.name=a", true),
            ("metadata.namespace!=x", false),
            ("spec.nodeName=node1,status.phase!=Failed", true),
            ("spec.nodeName=", false),
        ] {
            assert_eq!(selects(None, Some(text)), Ok(expected), "{text:?}");
        }
        let refused = selects(None, Some("spec.bogus=x")).unwrap_err();
        assert_eq!(refused.to_status()["message"], "field label not supported: spec.bogus");
    }
}
