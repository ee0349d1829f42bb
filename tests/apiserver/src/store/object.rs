//! One version of one object: its JSON, held once, and the few fields that selectors and lists look at.
//!
//! The JSON stands without `kind` and `apiVersion`, as in the items of a list; whoever writes a watch event or a
//! single object puts them in front. The place of the resourceVersion's digits is kept, because an object that
//! leaves a selection is announced with its old content and a new version.

use crate::resource::Resource;
use serde_json::{Map, Value};
use std::ops::Range;
use std::sync::Arc;

/// How the server orders the fields of metadata.
const METADATA_ORDER: [&str; 14] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// A stored version of an object; immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    key: Arc<str>,
    namespace_len: usize,
    version: u64,
    labels: Box<[(Box<str>, Box<str>)]>,
    node_name: Box<str>,
    phase: Box<str>,
    version_digits: Range<usize>,
    json: Box<[u8]>,
}

impl Object {
    /// Takes an object whose metadata is complete but for the resourceVersion.
    ///
    /// Panics: if `value` is no object with metadata, which the store makes sure of.
    pub(crate) fn from_value(resource: &Resource, mut value: Value, version: u64) -> Self {
        let fields = value.as_object_mut().expect("a stored object is a JSON object");
        fields.shift_remove("kind");
        fields.shift_remove("apiVersion");
        let metadata = fields.shift_remove("metadata").and_then(into_map).expect("a stored object has metadata");
        let metadata = ordered(metadata, version);

        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let field = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
        let (name, namespace) = (field("name"), field("namespace"));
        let labels = metadata.get("labels").and_then(Value::as_object).map(|labels| {
            labels.iter().filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect::<Box<[_]>>()
        });
        let (node_name, phase) = (text("/spec/nodeName").into(), text("/status/phase").into());
        let (key, namespace_len) = (key(resource.namespaced.then_some(namespace), name), namespace.len());

        let json = write_json(&metadata, &value);
        let version_digits = find_version(&json);
        Self { key, namespace_len, version, labels: labels.unwrap_or_default(), node_name, phase, version_digits, json: json.into() }
    }

    /// `namespace/name`, or the name alone if the object is cluster-scoped. The store's order is that of the keys.
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn shared_key(&self) -> Arc<str> {
        self.key.clone()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        if self.namespace_len == 0 { &self.key } else { &self.key[self.namespace_len + 1..] }
    }

    /// `metadata.namespace`; empty if the object is cluster-scoped.
    pub fn namespace(&self) -> &str {
        &self.key[..self.namespace_len]
    }

    /// `metadata.resourceVersion`.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| &**known == key).map(|(_, value)| &**value)
    }

    /// `spec.nodeName`; empty if absent.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// `status.phase`; empty if absent.
    pub fn phase(&self) -> &str {
        &self.phase
    }

    /// The JSON without kind and apiVersion.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The object without kind and apiVersion, decoded.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("the store wrote this JSON")
    }

    /// The whole object, decoded.
    pub fn typed_value(&self, resource: &Resource) -> Value {
        let mut json = Vec::with_capacity(self.json.len() + 64);
        self.write_typed(resource, &mut json);
        serde_json::from_slice(&json).expect("the store wrote this JSON")
    }

    /// Appends the object with kind and apiVersion.
    pub(crate) fn write_typed(&self, resource: &Resource, out: &mut Vec<u8>) {
        write_type(resource, out);
        out.extend_from_slice(&self.json[1..]);
    }

    /// Appends the object with kind and apiVersion and another resourceVersion.
    pub(crate) fn write_typed_at(&self, resource: &Resource, version: u64, out: &mut Vec<u8>) {
        write_type(resource, out);
        out.extend_from_slice(&self.json[1..self.version_digits.start]);
        out.extend_from_slice(version.to_string().as_bytes());
        out.extend_from_slice(&self.json[self.version_digits.end..]);
    }
}

/// The store's key of an object.
pub(crate) fn key(namespace: Option<&str>, name: &str) -> Arc<str> {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.into(),
    }
}

/// Appends the opening brace, kind and apiVersion, and the comma behind them.
pub(crate) fn write_type(resource: &Resource, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version()).as_bytes());
}

fn into_map(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn ordered(mut metadata: Map<String, Value>, version: u64) -> Map<String, Value> {
    metadata.insert("resourceVersion".into(), version.to_string().into());
    let mut ordered = Map::with_capacity(metadata.len());
    for name in METADATA_ORDER {
        if let Some((name, value)) = metadata.remove_entry(name) {
            ordered.insert(name, value);
        }
    }
    ordered.extend(metadata);
    ordered
}

fn write_json(metadata: &Map<String, Value>, rest: &Value) -> Vec<u8> {
    let mut json = br#"{"metadata":"#.to_vec();
    serde_json::to_writer(&mut json, metadata).expect("maps with string keys serialise into memory");
    let mut tail = Vec::new();
    serde_json::to_writer(&mut tail, rest).expect("values serialise into memory");
    if tail.len() > 2 {
        json.push(b',');
    }
    json.extend_from_slice(&tail[1..]);
    json
}

/// The digits behind the first unescaped `"resourceVersion":"`: everything before it in metadata is a plain name.
fn find_version(json: &[u8]) -> Range<usize> {
    const MARK: &[u8] = br#""resourceVersion":""#;
    let start = json.windows(MARK.len()).position(|window| window == MARK).expect("the version was written") + MARK.len();
    let len = json[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    start..start + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registry;
    use serde_json::json;

    #[test]
    fn an_object_is_written_in_the_servers_order_and_under_other_versions() {
        let registry = Registry::default();
        let pods = registry.get(registry.by_name("pods").unwrap());
        let object = Object::from_value(
            pods,
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n"}, "metadata": {"labels": {"a": "b"}, "namespace": "x", "name": "p"}}),
            41,
        );
        let json = br#"{"metadata":{"name":"p","namespace":"x","resourceVersion":"41","labels":{"a":"b"}},"spec":{"nodeName":"n"}}"#;
        assert_eq!(object.json(), json);
        assert_eq!((object.key(), object.name(), object.namespace()), ("x/p", "p", "x"));
        let mut out = Vec::new();
        object.write_typed_at(pods, 1000, &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["kind"], &value["metadata"]["resourceVersion"]), (&json!("Pod"), &json!("1000")));
        assert_eq!(value["spec"], json!({"nodeName": "n"}));
    }
}
