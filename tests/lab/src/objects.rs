//! Where the lab's objects are: files that sluice-control watches, or an API server that it follows.
//!
//! Behind either, an object that is written is there for the agents at once, and a snapshot is what they read.

use crate::api::{ApiClient, Place};
use crate::services;
use crate::store::{Document, Kind, ObjectRef, Store};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_policy::pod::Pod;
use sluice_wire::ControlStatus;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a pod that is deleted in an orderly way is given to end.
const GRACE_S: u32 = 30;

/// See the module.
pub(crate) enum Objects<'a> {
    /// One file for each.
    Directory(Store),
    /// Over the API.
    Server(&'a ApiClient),
}

impl Objects<'_> {
    /// Creates or replaces objects. On a server, namespaces that nobody described are created first, as the loader adds
    /// them to a directory, and a status in a manifest is written as the kubelet would.
    pub(crate) fn put(&self, documents: &[Document]) -> Result<()> {
        let documents = &self.with_addresses(documents)?[..];
        match self {
            Self::Directory(store) => documents.iter().try_for_each(|document| store.put(document).map(|_| ())),
            Self::Server(api) => {
                let mut known: Vec<String> = api.list(Kind::Namespace)?.iter().map(|namespace| name_of(namespace).name).collect();
                let (namespaces, others): (Vec<_>, Vec<_>) = documents.iter().partition(|document| document.object.kind == Kind::Namespace);
                for document in namespaces {
                    put_on_server(api, document)?;
                    known.push(document.object.name.name.clone());
                }
                for document in others {
                    let namespace = &document.object.name.namespace;
                    if !known.contains(namespace) {
                        let place = Place::from(&ObjectRef::new(Kind::Namespace, namespace));
                        api.put(&place, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))?;
                        known.push(namespace.clone());
                    }
                    put_on_server(api, document)?;
                }
                Ok(())
            }
        }
    }

    /// Services get the addresses and node ports that they do not bring, as from an API server: those they had, or new ones.
    fn with_addresses(&self, documents: &[Document]) -> Result<Vec<Document>> {
        if !documents.iter().any(|document| document.object.kind == Kind::Service) {
            return Ok(documents.to_vec());
        }
        let mut known = self.snapshot()?.services;
        let mut addressed = Vec::with_capacity(documents.len());
        for document in documents {
            let mut document = document.clone();
            if document.object.kind == Kind::Service {
                let service = services::addressed(&document.object.name, &document.text, &known)?;
                document.text = serde_json::to_string_pretty(&service).context("a service as JSON")?;
                let object = Service::deserialize(&service).with_context(|| format!("{} cannot be read", document.object))?;
                known.insert(document.object.name.clone(), Arc::new(object));
            }
            addressed.push(document);
        }
        Ok(addressed)
    }

    /// Marks a pod as going: its sandbox still has to be taken away. Nothing in a directory says so.
    pub(crate) fn begin_removal(&self, pod: &ObjectName) -> Result<()> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Server(api) => api.delete(&Place::pod(pod), GRACE_S).map(|_| ()),
        }
    }

    /// Removes an object; a pod at once.
    pub(crate) fn remove(&self, object: &ObjectRef) -> Result<()> {
        match self {
            Self::Directory(store) => store.remove(object).map(|_| ()),
            Self::Server(api) => api.delete(&Place::from(object), 0).map(|_| ()),
        }
    }

    /// All objects, as the agents read them.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        match self {
            Self::Directory(store) => Ok(store.snapshot()),
            Self::Server(api) => Lists::read(api)?.snapshot(),
        }
    }
}

fn put_on_server(api: &ApiClient, document: &Document) -> Result<()> {
    let object = &document.object;
    let mut value: Value = serde_saphyr::from_str(&document.text).with_context(|| format!("{object}: not YAML"))?;
    ensure!(value["metadata"].is_object(), "{object}: its metadata is missing");
    if object.kind != Kind::Namespace {
        value["metadata"]["namespace"] = object.name.namespace.as_str().into();
    }
    let place = Place::from(object);
    if object.kind == Kind::Pod && value["spec"]["nodeName"].is_null() {
        // Where it runs already is not for a manifest to undo.
        let bound = api.get(&place)?.map(|pod| pod["spec"]["nodeName"].clone()).filter(Value::is_string);
        if let (Some(node), true) = (bound, value["spec"].is_object()) {
            value["spec"]["nodeName"] = node;
        }
    }
    let status = value.as_object_mut().and_then(|fields| fields.shift_remove("status")).filter(Value::is_object);
    api.put(&place, value)?;
    match status {
        Some(status) if object.kind == Kind::Pod => api.patch_status(&place, &status).map(|_| ()),
        _ => Ok(()),
    }
}

/// The objects of the server, by kind, at about one moment.
pub(crate) struct Lists(BTreeMap<Kind, Vec<Value>>);

impl Lists {
    /// Asks for all of them.
    pub(crate) fn read(api: &ApiClient) -> Result<Self> {
        let kinds = [Kind::Namespace, Kind::Pod, Kind::Service, Kind::NetworkPolicy];
        kinds.into_iter().map(|kind| Ok((kind, api.list(kind)?))).collect::<Result<_>>().map(Self)
    }

    fn of<T: DeserializeOwned>(&self, kind: Kind) -> Result<Vec<(ObjectName, Arc<T>)>> {
        let read = |value: &Value| {
            let name = name_of(value);
            let object = T::deserialize(value).with_context(|| format!("{} {name} cannot be read", kind.name()))?;
            Ok((name, Arc::new(object)))
        };
        self.0.get(&kind).into_iter().flatten().map(read).collect()
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let namespaces = self.of::<Namespace>(Kind::Namespace)?;
        Ok(Snapshot {
            namespaces: namespaces.into_iter().map(|(name, object)| (name.name, object)).collect(),
            pods: self.of::<Pod>(Kind::Pod)?.into_iter().collect(),
            services: self.of::<Service>(Kind::Service)?.into_iter().collect(),
            policies: self.of::<NetworkPolicy>(Kind::NetworkPolicy)?.into_iter().collect(),
            ..Snapshot::default()
        })
    }

    /// What a control process has to have heard of to know these.
    pub(crate) fn mark(&self) -> Mark {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok();
        let of = |(kind, objects): (&Kind, &Vec<Value>)| {
            (kind.resource(), (objects.iter().filter_map(version).max().unwrap_or(0), objects.len() as u64))
        };
        Mark(self.0.iter().map(of).collect())
    }
}

fn name_of(object: &Value) -> ObjectName {
    let part = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    ObjectName::new(part("namespace"), part("name"))
}

/// For each resource the version of its last write that still shows, and how many objects there are.
///
/// A watch that has come to that version knows every object that is there; if it knows no more than there are, it has
/// heard of every deletion too.
#[derive(Debug, Clone, Default)]
pub struct Mark(BTreeMap<&'static str, (u64, u64)>);

impl Mark {
    /// What this control process has not heard of yet; `None` when it has heard of everything.
    pub(crate) fn missing(&self, status: &ControlStatus) -> Option<String> {
        self.0.iter().find_map(|(resource, (version, objects))| {
            let Some(watch) = status.watches.iter().find(|watch| watch.resource == *resource) else {
                return Some(format!("{resource} are not followed"));
            };
            let heard: u64 = watch.version.parse().unwrap_or(0);
            (heard < *version || watch.objects != *objects).then(|| {
                let trouble = watch.trouble.as_ref().map_or(String::new(), |trouble| format!(" ({trouble})"));
                format!("{resource} up to version {heard} of {version}, {} of {objects} objects{trouble}", watch.objects)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::WatchStatus;

    fn status(version: &str, objects: u64) -> ControlStatus {
        let watch = WatchStatus {
            resource: "pods".into(),
            objects,
            listed: true,
            lists: 1,
            version: version.into(),
            heard_s: 0,
            trouble: None,
            trouble_s: 0,
        };
        let mut status: ControlStatus = serde_json::from_value(json!({
            "version": "", "pid": 1, "uptimeS": 0, "source": "", "dataplaneConnected": true, "publishedGeneration": 1,
            "adoptedGeneration": 1, "settled": true, "lastFailure": null, "namespaces": 0, "pods": 0, "policies": 0,
            "endpoints": 0, "compileUs": 0, "proofUs": 0, "comparisons": 0, "comparisonsRequired": 0, "proofPending": false,
            "rollbacks": 0, "imageBytes": 0, "lastChangeToAdoptedUs": null, "watches": [], "problems": [],
        }))
        .unwrap();
        status.watches = vec![watch];
        status
    }

    #[test]
    fn a_mark_is_reached_when_writes_and_deletions_were_heard() {
        let object = |name: &str, version: &str| json!({ "metadata": { "name": name, "namespace": "x", "resourceVersion": version } });
        let lists = Lists(BTreeMap::from([(Kind::Pod, vec![object("a", "7"), object("b", "12")])]));
        let mark = lists.mark();
        assert!(mark.missing(&status("12", 2)).is_none() && mark.missing(&status("30", 2)).is_none());
        assert!(mark.missing(&status("11", 2)).is_some(), "a write is missing");
        assert!(mark.missing(&status("12", 3)).is_some(), "a deletion is missing");
        assert!(mark.missing(&status("", 0)).is_some(), "nothing was listed");
    }
}
