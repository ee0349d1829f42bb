//! YAML documents as plain values, and the questions that tests ask of them.

use super::RenderError;
use serde_json::Value;
use std::collections::BTreeSet;

/// The objects of one render, in order.
#[derive(Debug, Clone)]
pub struct Documents(pub Vec<Value>);

impl Documents {
    /// Reads a stream of documents; empty ones are left out, as kubectl does.
    ///
    /// # Errors
    /// It is not YAML.
    pub fn parse(yaml: &str) -> Result<Self, RenderError> {
        let documents = serde_saphyr::from_multiple::<Value>(yaml).map_err(|error| RenderError(error.to_string()))?;
        Ok(Self(documents.into_iter().filter(|document| !document.is_null()).collect()))
    }

    /// All of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |document| document["kind"] == kind)
    }

    /// The one of a kind.
    ///
    /// # Panics
    /// There is none, or more than one.
    pub fn only(&self, kind: &str) -> &Value {
        let mut found = self.0.iter().filter(|document| document["kind"] == kind);
        match (found.next(), found.next()) {
            (Some(only), None) => only,
            (first, _) => panic!("{} of kind {kind}", if first.is_some() { "several documents" } else { "no document" }),
        }
    }

    /// A container of the DaemonSet, also an init container.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn container(&self, name: &str) -> &Value {
        let pod = &self.only("DaemonSet")["spec"]["template"]["spec"];
        let containers = ["initContainers", "containers"].into_iter().filter_map(|list| pod[list].as_array()).flatten();
        containers.into_iter().find(|container| container["name"] == name).unwrap_or_else(|| panic!("no container {name}"))
    }

    /// `kind namespace/name` of each object.
    pub fn names(&self) -> Vec<String> {
        let name = |document: &Value| {
            let meta = &document["metadata"];
            format!("{} {}/{}", text(&document["kind"]), meta["namespace"].as_str().unwrap_or(""), text(&meta["name"]))
        };
        self.0.iter().map(name).collect()
    }
}

/// A string.
///
/// # Panics
/// It is something else.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}"))
}

/// The texts of a list; of anything else, none.
pub fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|item| text(item).to_owned()).collect()
}
