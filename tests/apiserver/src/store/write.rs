//! Creating and changing objects, under the rules that clients see: conflicts, status apart from the rest, no-ops.

use super::{Object, Place, State, Store, defaults, patch};
use crate::clock::rfc3339;
use crate::resource::{Resource, ResourceId};
use crate::status::ApiError;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Which half of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status, where the resource has a status subresource.
    Main,
    /// The status alone.
    Status,
}

/// Fields of metadata that only the server writes.
const SERVER_METADATA: [&str; 7] =
    ["name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

impl Store {
    /// Creates an object as a client does: its status begins anew, its namespace must exist.
    ///
    /// Errors: 400 for a wrong namespace, 403 for one that is terminating, 404 for an absent one, 409 if the name is
    /// taken, 422 without a name.
    pub fn create(&self, resource: ResourceId, namespace: Option<&str>, mut object: Value) -> Result<Arc<Object>, ApiError> {
        let spec = self.spec(resource);
        check_shape(spec, &object)?;
        if let Some(namespace) = namespace {
            let found = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
            if found != namespace {
                return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
            }
            object["metadata"]["namespace"] = namespace.into();
        }
        defaults::reset_status(spec, &mut object);
        let mut state = self.lock();
        name_object(&mut state, spec, &mut object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(namespace) = namespace {
            self.check_namespace(&state, spec, namespace, &name)?;
        }
        if state.current(&self.registry, Place { resource, namespace, name: &name }).is_ok() {
            return Err(ApiError::already_exists(spec, &name));
        }
        self.stamp(&mut state, spec, &mut object);
        Ok(self.commit(&mut state, resource, object))
    }

    /// Replaces an object, or its status. An object that is equal already is left as it is, version and all.
    ///
    /// Errors: 404; 409 if the object names a version that is not the current one.
    pub fn update(&self, place: Place<'_>, part: Part, object: Value) -> Result<Arc<Object>, ApiError> {
        check_shape(self.spec(place.resource), &object)?;
        let mut state = self.lock();
        self.replace(&mut state, place, part, object)
    }

    /// Merges a patch into an object, or into its status.
    ///
    /// Errors: as [`Store::update`].
    pub fn patch(&self, place: Place<'_>, part: Part, patch: &Value) -> Result<Arc<Object>, ApiError> {
        let mut state = self.lock();
        let mut object = state.current(&self.registry, place)?.value();
        patch::merge(&mut object, patch);
        check_shape(self.spec(place.resource), &object)?;
        self.replace(&mut state, place, part, object)
    }

    /// Server-side apply, as far as one owner of all fields goes: creates, or merges. The flag says which.
    ///
    /// Errors: as [`Store::create`] and [`Store::update`].
    pub fn apply(&self, place: Place<'_>, part: Part, mut object: Value) -> Result<(Arc<Object>, bool), ApiError> {
        let exists = self.lock().current(&self.registry, place).is_ok();
        if exists || part == Part::Status {
            return Ok((self.patch(place, part, &object)?, false));
        }
        check_shape(self.spec(place.resource), &object)?;
        object["metadata"]["name"] = place.name.into();
        Ok((self.create(place.resource, place.namespace, object)?, true))
    }

    fn replace(&self, state: &mut State, place: Place<'_>, part: Part, mut object: Value) -> Result<Arc<Object>, ApiError> {
        let spec = self.spec(place.resource);
        let current = state.current(&self.registry, place)?.clone();
        let old = current.value();
        check_preconditions(spec, &current, &old, &object["metadata"])?;
        if part == Part::Status {
            let status = object["status"].take();
            object = old.clone();
            object["status"] = status;
        }
        keep_server_fields(spec, part, &old, &mut object);
        defaults::apply(spec, &mut object);
        if same_content(&old, &object) {
            return Ok(current);
        }
        if spec.has_generation && part == Part::Main && content(&old) != content(&object) {
            object["metadata"]["generation"] = (old["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
        }
        if super::delete::is_released(&object) {
            return Ok(self.remove_now(state, place.resource, object));
        }
        Ok(self.commit(state, place.resource, object))
    }

    /// Gives a new object what the server gives it.
    pub(super) fn stamp(&self, state: &mut State, spec: &Resource, object: &mut Value) {
        defaults::apply(spec, object);
        let metadata = &mut object["metadata"];
        metadata["uid"] = state.uid().into();
        metadata["creationTimestamp"] = rfc3339(self.clock.now_s()).into();
        if spec.has_generation {
            metadata["generation"] = 1.into();
        }
    }

    fn check_namespace(&self, state: &State, spec: &Resource, namespace: &str, name: &str) -> Result<(), ApiError> {
        let Some(namespaces) = self.registry.by_path("", "v1", "namespaces") else { return Ok(()) };
        let found = state.current(&self.registry, Place { resource: namespaces, namespace: None, name: namespace })?;
        if found.phase() == "Terminating" {
            return Err(ApiError::namespace_terminating(spec, name, namespace));
        }
        Ok(())
    }
}

/// Refuses what the store could not hold: no object, another kind's object, metadata of another shape.
pub(super) fn check_shape(spec: &Resource, object: &Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    let agrees = |field: &str, expected: &str| object.get(field).and_then(Value::as_str).is_none_or(|found| found == expected);
    if !agrees("kind", &spec.kind) || !agrees("apiVersion", &spec.api_version()) {
        let message = format!("the object provided is not of {}, Kind={}", spec.api_version(), spec.kind);
        return Err(ApiError::bad_request(message));
    }
    match object.get("metadata") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(ApiError::bad_request("metadata must be an object")),
    }
}

fn name_object(state: &mut State, spec: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let metadata = &mut object["metadata"];
    if metadata["name"].as_str().is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    let Some(prefix) = metadata["generateName"].as_str().filter(|prefix| !prefix.is_empty()) else {
        return Err(ApiError::invalid_object(spec, "", "metadata.name", "Required value: name or generateName is required"));
    };
    metadata["name"] = format!("{prefix}{}", state.name_suffix()).into();
    Ok(())
}

fn check_preconditions(spec: &Resource, current: &Object, old: &Value, wanted: &Value) -> Result<(), ApiError> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let stale = text(&wanted["resourceVersion"]).is_some_and(|version| version != current.version().to_string());
    let other = text(&wanted["uid"]).is_some_and(|uid| old["metadata"]["uid"] != uid.as_str());
    if stale || other { Err(ApiError::conflict(spec, current.name())) } else { Ok(()) }
}

fn keep_server_fields(spec: &Resource, part: Part, old: &Value, object: &mut Value) {
    for field in SERVER_METADATA {
        match old["metadata"].get(field) {
            Some(value) => object["metadata"][field] = value.clone(),
            None => {
                object["metadata"].as_object_mut().and_then(|metadata| metadata.shift_remove(field));
            }
        }
    }
    if spec.has_status && part == Part::Main {
        match old.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => {
                object.as_object_mut().and_then(|fields| fields.shift_remove("status"));
            }
        }
    }
}

fn same_content(old: &Value, new: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|name, _| name != "kind" && name != "apiVersion");
        }
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.shift_remove("resourceVersion");
        }
        value
    };
    strip(old) == strip(new)
}

/// What `metadata.generation` counts: everything but type, metadata and status.
fn content(object: &Value) -> Map<String, Value> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !["kind", "apiVersion", "metadata", "status"].contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
