//! An object as it came over the wire: enough of its metadata to file it, and its text.
//!
//! The text is read by whoever files it, so that an object that cannot be read is that object's problem and not the end
//! of a stream, and so that of a pod only what is kept is ever made.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sluice_flow::ObjectName;
use std::borrow::Cow;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Name, namespace and resourceVersion; nothing else.
    metadata: ObjectMeta,
    text: Box<RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let Envelope { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let text_of = |text: Cow<'_, str>| Some(text.into_owned()).filter(|text| !text.is_empty());
        let metadata = ObjectMeta {
            name: text_of(metadata.name),
            namespace: text_of(metadata.namespace),
            resource_version: text_of(metadata.resource_version),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, text })
    }
}

impl Received {
    /// A namespace has an empty `namespace` in it.
    pub(crate) fn name(&self) -> ObjectName {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        ObjectName::new(namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    }

    /// Empty where it has none.
    pub(crate) fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &str {
        self.text.get()
    }
}

impl Resource for Received {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::WatchEvent;

    #[test]
    fn an_object_keeps_its_name_its_version_and_its_text() {
        let text = r#"{"metadata":{"name":"a","namespace":"x\u002dy","resourceVersion":"17","labels":{"k":"v"}},"spec":[1]}"#;
        let received: Received = serde_json::from_str(text).unwrap();
        assert_eq!((received.name(), received.resource_version(), received.text()), (ObjectName::new("x-y", "a"), "17", text));
        let event: WatchEvent<Received> = serde_json::from_str(&format!(r#"{{"type":"DELETED","object":{text}}}"#)).unwrap();
        assert!(matches!(event, WatchEvent::Deleted(object) if object.text() == text));
    }

    #[test]
    fn what_has_no_name_is_no_object() {
        for text in ["{}", r#"{"metadata":{}}"#, r#"{"metadata":{"name":7}}"#, "[]", "null"] {
            assert!(serde_json::from_str::<Received>(text).is_err(), "{text}");
        }
    }
}
