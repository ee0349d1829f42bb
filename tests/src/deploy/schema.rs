//! Schemas that a real API server published, and a check of values against them that lets nothing unknown pass.
//!
//! Of OpenAPI only the words that these schemas use: references, allOf around one, oneOf, types, enums, required fields. An
//! unknown field is an error here, as with `kubectl apply --validate=strict`; JSON Schema would let it pass.

use serde_json::{Map, Value};
use sluice_apiserver::Recording;

/// The schemas of one API group and version.
#[derive(Debug)]
pub struct Schemas(Map<String, Value>);

impl Schemas {
    /// `v1`, as recorded of kube-apiserver 1.36.
    ///
    /// # Panics
    /// The recording that comes with the repository lacks it.
    pub fn core() -> Self {
        let capture = "scenario3-validation/discovery_openapi_v3_api_v1";
        let mut document = Recording::bundled().capture(capture).and_then(|capture| capture.json()).expect("core/v1 was recorded");
        match document["components"]["schemas"].take() {
            Value::Object(schemas) => Self(schemas),
            other => panic!("{capture} holds no schemas: {other}"),
        }
    }

    /// What a value breaks of the schema of this name, such as `io.k8s.api.core.v1.PodTemplateSpec`; each with its place.
    ///
    /// # Panics
    /// There is no such schema.
    pub fn violations(&self, name: &str, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.check(self.named(name), value, "", &mut found);
        found
    }

    fn named(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or_else(|| panic!("no schema {name} was recorded"))
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.check(self.named(name), value, place, found);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.check(part, value, place, found);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fits = |choice: &Value| {
                let mut against = Vec::new();
                self.check(choice, value, place, &mut against);
                against.is_empty()
            };
            if !choices.iter().any(fits) {
                found.push(format!("{place}: {value} is none of {choices:?}"));
            }
        }
        if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
            found.push(format!("{place}: {value} is none of {allowed:?}"));
        }
        match (schema["type"].as_str(), value) {
            (Some("object"), Value::Object(fields)) => self.fields(schema, fields, place, found),
            (Some("array"), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(&schema["items"], item, &format!("{place}[{index}]"), found);
                }
            }
            (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) | (Some("number"), Value::Number(_)) | (None, _) => {}
            (Some("integer"), Value::Number(number)) if number.is_i64() => {}
            (Some(wanted), _) => found.push(format!("{place}: {value} is no {wanted}")),
        }
    }

    fn fields(&self, schema: &Value, fields: &Map<String, Value>, place: &str, found: &mut Vec<String>) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                found.push(format!("{place}: {name} is missing"));
            }
        }
        let (known, others) = (schema["properties"].as_object(), &schema["additionalProperties"]);
        for (name, value) in fields {
            let place = format!("{place}.{name}");
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.check(schema, value, &place, found),
                None if others.is_object() => self.check(others, value, &place, found),
                // an object of any shape
                None if known.is_none() => {}
                None => found.push(format!("{place}: no such field")),
            }
        }
    }
}
