//! What is kept of a pod: the fields that verdicts, questions and messages depend on, under the API's names.
//!
//! A node follows every pod of its cluster, so a pod must be small: what the pods of one owner have in common, labels and
//! containers, is one object that all of them hold ([`Pool`]).

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::{Deserialize, Serialize};
use sluice_flow::ObjectName;
use smallvec::SmallVec;
use smol_str::SmolStr;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// Keys and values.
pub type Labels = BTreeMap<String, String>;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Of the object.
    pub metadata: PodMeta,
    /// As asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodSpec>,
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodStatus>,
}

/// Of the object. Its name is what it is filed under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMeta {
    /// Tells two pods of one name apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Box<str>>,
    /// What selectors match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<Labels>>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_references: Option<Arc<[Owner]>>,
}

/// Who made a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// `ReplicaSet` and so on.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// At most one of them is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
}

/// As asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Whether it shares its node's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<SmolStr>,
    /// At least one.
    pub containers: Arc<[Container]>,
    /// Those that run before, or beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_containers: Option<Arc<[Container]>>,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Of the container.
    pub name: String,
    /// What it declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<ContainerPort>>,
    /// `Always` makes an init container one that runs beside the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
}

/// A declared port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Its number.
    pub container_port: i32,
    /// At the node, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_port: Option<i32>,
    /// What policies may call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// As it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Succeeded` and `Failed` are the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<SmolStr>,
    /// The first of [`Self::pod_ips`].
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<SmolStr>,
    /// One of each family.
    #[serde(rename = "podIPs", skip_serializing_if = "Option::is_none")]
    pub pod_ips: Option<PodIps>,
    /// The first of [`Self::host_ips`].
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<SmolStr>,
    /// Its node's.
    #[serde(rename = "hostIPs", skip_serializing_if = "Option::is_none")]
    pub host_ips: Option<Arc<[HostIp]>>,
}

/// Mostly one of each family, beside the pod in memory.
pub type PodIps = SmallVec<[PodIp; 2]>;

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// As text.
    pub ip: SmolStr,
}

/// An address of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct HostIp {
    /// As text.
    pub ip: SmolStr,
}

impl Pod {
    /// None is as good as empty.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.metadata.labels.as_deref().unwrap_or(&NONE)
    }

    /// Those that run as long as the pod.
    pub fn containers(&self) -> &[Container] {
        self.spec.as_ref().map_or(&[], |spec| &spec.containers)
    }

    /// Those that run before the others, or beside them.
    pub fn init_containers(&self) -> &[Container] {
        self.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
    }

    /// A document that the loader reads back as this pod under this name.
    pub fn manifest(&self, name: &ObjectName) -> serde_json::Value {
        let mut document = serde_json::json!(self);
        document["apiVersion"] = "v1".into();
        document["kind"] = "Pod".into();
        document["metadata"]["name"] = name.name.as_str().into();
        document["metadata"]["namespace"] = name.namespace.as_str().into();
        document
    }
}

/// Parts that pods have in common, each kept once. What nobody else holds any more goes with [`Pool::shrink`].
#[derive(Debug, Default)]
pub struct Pool {
    labels: HashSet<Arc<Labels>>,
    owners: HashSet<Arc<[Owner]>>,
    containers: HashSet<Arc<[Container]>>,
    /// Longer than what a [`SmolStr`] holds in place.
    texts: HashSet<Arc<str>>,
    host_ips: HashSet<Arc<[HostIp]>>,
}

fn shared<T: ?Sized + Eq + Hash>(known: &mut HashSet<Arc<T>>, part: &Arc<T>) -> Arc<T> {
    match known.get(part) {
        Some(known) => Arc::clone(known),
        None => {
            known.insert(Arc::clone(part));
            Arc::clone(part)
        }
    }
}

fn reuse<T: ?Sized + Eq + Hash>(known: &mut HashSet<Arc<T>>, part: &mut Option<Arc<T>>) {
    if let Some(part) = part {
        *part = shared(known, part);
    }
}

impl Pool {
    /// The same pod, made of parts that others have.
    pub fn share(&mut self, mut pod: Pod) -> Pod {
        reuse(&mut self.labels, &mut pod.metadata.labels);
        reuse(&mut self.owners, &mut pod.metadata.owner_references);
        if let Some(spec) = &mut pod.spec {
            spec.containers = shared(&mut self.containers, &spec.containers);
            reuse(&mut self.containers, &mut spec.init_containers);
            self.reuse_text(&mut spec.node_name);
        }
        if let Some(status) = &mut pod.status {
            reuse(&mut self.host_ips, &mut status.host_ips);
            self.reuse_text(&mut status.host_ip);
        }
        pod
    }

    fn reuse_text(&mut self, text: &mut Option<SmolStr>) {
        if let Some(text) = text.as_mut().filter(|text| text.is_heap_allocated()) {
            *text = shared(&mut self.texts, &Arc::from(text.as_str())).into();
        }
    }

    /// Forgets what only the pool holds.
    pub fn shrink(&mut self) {
        self.labels.retain(|part| Arc::strong_count(part) > 1);
        self.owners.retain(|part| Arc::strong_count(part) > 1);
        self.containers.retain(|part| Arc::strong_count(part) > 1);
        self.texts.retain(|part| Arc::strong_count(part) > 1);
        self.host_ips.retain(|part| Arc::strong_count(part) > 1);
    }
}

impl From<api::Pod> for Pod {
    fn from(pod: api::Pod) -> Self {
        let api::Pod { metadata, spec, status } = pod;
        let owner = |owner: OwnerReference| Owner { kind: owner.kind, name: owner.name, controller: owner.controller };
        let metadata = PodMeta {
            uid: metadata.uid.map(Into::into),
            labels: metadata.labels.map(Arc::new),
            owner_references: metadata.owner_references.map(|owners| owners.into_iter().map(owner).collect()),
        };
        let spec = spec.map(|spec| PodSpec {
            host_network: spec.host_network,
            node_name: spec.node_name.map(Into::into),
            containers: containers(spec.containers),
            init_containers: spec.init_containers.map(containers),
        });
        let status = status.map(|status| PodStatus {
            phase: status.phase.map(Into::into),
            pod_ip: status.pod_ip.map(Into::into),
            pod_ips: status.pod_ips.map(|ips| ips.into_iter().map(|ip| PodIp { ip: ip.ip.into() }).collect()),
            host_ip: status.host_ip.map(Into::into),
            host_ips: status.host_ips.map(|ips| ips.into_iter().map(|ip| HostIp { ip: ip.ip.into() }).collect()),
        });
        Self { metadata, spec, status }
    }
}

fn containers(containers: Vec<api::Container>) -> Arc<[Container]> {
    let port = |port: api::ContainerPort| ContainerPort {
        container_port: port.container_port,
        host_port: port.host_port,
        name: port.name,
        protocol: port.protocol,
    };
    let container = |container: api::Container| Container {
        name: container.name,
        ports: container.ports.map(|ports| ports.into_iter().map(port).collect()),
        restart_policy: container.restart_policy,
    };
    containers.into_iter().map(container).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn api_pod(name: &str, ip: &str) -> api::Pod {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "x", "uid": format!("uid of {name}"), "labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {
                "nodeName": "a-node-whose-name-is-longer-than-what-is-held-in-place",
                "containers": [{"name": "c", "image": "web:1", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}],
                "initContainers": [{"name": "i", "restartPolicy": "Always"}],
            },
            "status": {
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}, {"ip": "fd00::1"}],
                "hostIP": "10.0.0.9",
                "hostIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}],
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_the_object_says_and_can_be_written_down() {
        let pod = Pod::from(api_pod("web", "10.0.0.1"));
        let document = pod.manifest(&ObjectName::new("x", "web"));
        let stated = serde_json::to_value(api_pod("web", "10.0.0.1")).unwrap();
        for pointer in
            ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/labels", "/spec/nodeName"]
        {
            assert_eq!(document.pointer(pointer), stated.pointer(pointer), "{pointer}");
        }
        for pointer in ["/spec/containers/0/ports", "/spec/initContainers", "/status"] {
            assert_eq!(document.pointer(pointer), stated.pointer(pointer), "{pointer}");
        }
        assert_eq!(document.pointer("/metadata/annotations"), None);
        assert_eq!(serde_json::from_value::<Pod>(document).unwrap(), pod);
    }

    #[test]
    fn pods_of_one_owner_hold_the_same_parts_as_long_as_somebody_does() {
        let mut pool = Pool::default();
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|ip| pool.share(api_pod(ip, ip).into()));
        assert!(Arc::ptr_eq(one.metadata.labels.as_ref().unwrap(), other.metadata.labels.as_ref().unwrap()));
        assert!(std::ptr::eq(one.containers(), other.containers()) && std::ptr::eq(one.init_containers(), other.init_containers()));
        let node = |pod: &Pod| pod.spec.as_ref().unwrap().node_name.as_ref().unwrap().as_ptr();
        assert_eq!(node(&one), node(&other));
        assert_ne!(one, other);
        drop(one);
        pool.shrink();
        let third = pool.share(api_pod("third", "10.0.0.3").into());
        assert!(Arc::ptr_eq(third.metadata.labels.as_ref().unwrap(), other.metadata.labels.as_ref().unwrap()));
        drop((other, third));
        pool.shrink();
        assert!(pool.labels.is_empty() && pool.containers.is_empty() && pool.texts.is_empty() && pool.host_ips.is_empty());
    }
}
