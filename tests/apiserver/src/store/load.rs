//! Objects that come from elsewhere: manifests, generators, recordings. No client's rules apply to them.

use super::{Object, Place, Store, write};
use crate::resource::ResourceId;
use crate::status::ApiError;
use serde_json::Value;
use std::sync::Arc;

impl Store {
    /// Creates or replaces objects as they stand, status and all. Each names its kind and apiVersion; a missing uid,
    /// creationTimestamp or default is filled in. Returns how many there were.
    ///
    /// Cost: one serialisation each; 150,000 pods take a few seconds in a debug build.
    ///
    /// Errors: an object of an unknown kind or without a name; those before it are loaded.
    pub fn load(&self, objects: impl IntoIterator<Item = Value>) -> Result<usize, ApiError> {
        let mut count = 0;
        for object in objects {
            self.put(object)?;
            count += 1;
        }
        Ok(count)
    }

    /// Creates or replaces one object as it stands; see [`Store::load`].
    ///
    /// Errors: an unknown kind, no name.
    pub fn put(&self, mut object: Value) -> Result<Arc<Object>, ApiError> {
        let resource = self.resource_of(&object)?;
        let spec = self.spec(resource);
        write::check_shape(spec, &object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(ApiError::invalid_object(spec, "", "metadata.name", "Required value: name is required"));
        }
        if spec.namespaced && object["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
            object["metadata"]["namespace"] = "default".into();
        }
        let given = object["metadata"].clone();
        let namespace = spec.namespaced.then(|| given["namespace"].as_str().unwrap_or_default());
        let mut state = self.lock();
        let kept = match state.current(&self.registry, Place { resource, namespace, name: &name }) {
            Ok(current) => current.value()["metadata"].take(),
            Err(_) => Value::Null,
        };
        self.stamp(&mut state, spec, &mut object);
        for field in ["uid", "creationTimestamp", "generation"] {
            if let Some(value) = given.get(field).or_else(|| kept.get(field)) {
                object["metadata"][field] = value.clone();
            }
        }
        Ok(self.commit(&mut state, resource, object))
    }

    /// Stores a recorded version of an object under its own resourceVersion, or removes the object.
    ///
    /// Errors: an unknown kind; a version that is missing, or not above the resource's last one.
    pub fn replay(&self, object: Value, deleted: bool) -> Result<Arc<Object>, ApiError> {
        let resource = self.resource_of(&object)?;
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
        let version = version.ok_or_else(|| ApiError::bad_request("a recorded object needs its resourceVersion"))?;
        let mut state = self.lock();
        let object = Arc::new(Object::from_value(self.spec(resource), object, version));
        let table = &mut state.tables[resource.0];
        if !table.admits(version) {
            return Err(ApiError::bad_request(format!("resourceVersion {version} of {} is not new", object.key())));
        }
        if deleted {
            table.remove(object.clone())
        } else {
            table.put(object.clone())
        }
        state.version = state.version.max(version);
        self.changes[resource.0].send_replace(version);
        Ok(object)
    }

    /// Fills a resource with a recorded list; the watch history begins at the list's version.
    ///
    /// Errors: an unknown resource, an item without a version.
    pub fn replay_list(&self, resource: &str, list: &Value) -> Result<(), ApiError> {
        let resource = self.resource(resource)?;
        let version_of = |value: &Value| value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
        let listed = version_of(list).ok_or_else(|| ApiError::bad_request("a recorded list needs its resourceVersion"))?;
        let mut items: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
        items.sort_by_key(|item| version_of(item));
        let mut state = self.lock();
        for item in items {
            let version = version_of(item).ok_or_else(|| ApiError::bad_request("a recorded item needs its resourceVersion"))?;
            let object = Object::from_value(self.spec(resource), item.clone(), version);
            state.tables[resource.0].put(Arc::new(object));
        }
        state.version = state.version.max(listed);
        state.tables[resource.0].compact(listed);
        self.changes[resource.0].send_replace(listed);
        Ok(())
    }

    fn resource_of(&self, object: &Value) -> Result<ResourceId, ApiError> {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        self.registry
            .by_kind(api_version, kind)
            .ok_or_else(|| ApiError::bad_request(format!("no matches for kind \"{kind}\" in version \"{api_version}\"")))
    }
}
