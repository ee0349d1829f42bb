//! Deleting: at once, gracefully, held by finalizers, and namespaces that take their content along.
//!
//! The part of the namespace controller is played here, in the same breath as the deletion: a namespace is marked
//! Terminating, its content is deleted without grace, and it goes when the last object is gone.

use super::{Object, Place, State, Store};
use crate::clock::rfc3339;
use crate::resource::{Resource, ResourceId};
use crate::status::ApiError;
use serde_json::Value;
use std::sync::Arc;

/// Grace of a pod that names none.
const POD_GRACE_S: u64 = 30;

/// What a DELETE asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds of grace; `None` for the object's own. Zero is what a kubelet sends when the pod is gone.
    pub grace_s: Option<u64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version.
    pub version: Option<String>,
}

impl DeleteOptions {
    /// Without grace.
    pub fn now() -> Self {
        Self { grace_s: Some(0), ..Self::default() }
    }
}

/// How far a deletion went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// The object stays for its grace period or its finalizers, marked with a deletionTimestamp.
    Terminating(Arc<Object>),
}

impl Store {
    /// Deletes an object.
    ///
    /// Errors: 404; 409 if a precondition does not hold.
    pub fn delete(&self, place: Place<'_>, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let spec = self.spec(place.resource);
        let mut state = self.lock();
        let current = state.current(&self.registry, place)?.clone();
        let object = current.value();
        let differs = |wanted: &Option<String>, found: &Value| wanted.as_ref().is_some_and(|wanted| found != wanted.as_str());
        if differs(&options.uid, &object["metadata"]["uid"]) || differs(&options.version, &object["metadata"]["resourceVersion"]) {
            return Err(ApiError::conflict(spec, place.name));
        }
        if spec.group.is_empty() && spec.plural == "namespaces" {
            return Ok(self.delete_namespace(&mut state, place, current, object));
        }
        let grace_s = grace_s(spec, &object, options.grace_s);
        Ok(self.end(&mut state, place.resource, current, object, grace_s))
    }

    /// Begins or finishes the end of one object.
    fn end(&self, state: &mut State, resource: ResourceId, current: Arc<Object>, mut object: Value, grace_s: u64) -> Deleted {
        let metadata = &mut object["metadata"];
        let marked_s = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_u64);
        let held = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        if grace_s == 0 && !held {
            return Deleted::Gone(self.remove_now(state, resource, object));
        }
        if marked_s.is_some_and(|marked_s| marked_s <= grace_s) {
            return Deleted::Terminating(current);
        }
        metadata["deletionTimestamp"] = rfc3339(self.clock.now_s() + grace_s as i64).into();
        metadata["deletionGracePeriodSeconds"] = grace_s.into();
        if let Some(generation) = metadata.get("generation").and_then(Value::as_u64) {
            metadata["generation"] = (generation + 1).into();
        }
        Deleted::Terminating(self.commit(state, resource, object))
    }

    /// Removes an object, and its namespace if that waited for it alone.
    pub(super) fn remove_now(&self, state: &mut State, resource: ResourceId, object: Value) -> Arc<Object> {
        let last = self.commit_removal(state, resource, object);
        if !last.namespace().is_empty() {
            self.finish_namespace(state, last.namespace());
        }
        last
    }

    fn delete_namespace(&self, state: &mut State, place: Place<'_>, current: Arc<Object>, mut namespace: Value) -> Deleted {
        let mut marked = current;
        if marked.phase() != "Terminating" {
            namespace["metadata"]["deletionTimestamp"] = rfc3339(self.clock.now_s()).into();
            namespace["status"]["phase"] = "Terminating".into();
            marked = self.commit(state, place.resource, namespace);
        }
        for (resource, _) in self.registry.iter() {
            let content: Vec<_> = state.tables[resource.0].namespace(place.name).cloned().collect();
            for object in content {
                let value = object.value();
                // The last one takes the namespace along, by way of `remove_now`.
                self.end(state, resource, object, value, 0);
            }
        }
        self.finish_namespace(state, place.name);
        let left = state.current(&self.registry, place).is_ok();
        if left { Deleted::Terminating(marked) } else { Deleted::Gone(marked) }
    }

    /// Removes a namespace that is terminating and empty.
    fn finish_namespace(&self, state: &mut State, name: &str) {
        let Some(resource) = self.registry.by_path("", "v1", "namespaces") else { return };
        let Ok(namespace) = state.current(&self.registry, Place { resource, namespace: None, name }) else { return };
        let waiting = namespace.phase() == "Terminating";
        let value = namespace.value();
        if waiting && state.tables.iter().all(|table| table.namespace(name).next().is_none()) {
            self.commit_removal(state, resource, value);
        }
    }
}

/// Whether an object was only waiting for its finalizers.
pub(super) fn is_released(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata.get("deletionTimestamp").is_some()
        && metadata["deletionGracePeriodSeconds"] == 0
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// Only pods have grace, and only those that a node may still run.
fn grace_s(spec: &Resource, object: &Value, asked_s: Option<u64>) -> u64 {
    if !(spec.group.is_empty() && spec.plural == "pods") {
        return 0;
    }
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || object["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return 0;
    }
    asked_s.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(POD_GRACE_S)
}
