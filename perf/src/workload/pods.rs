//! Pods of deployments, their Services, and those pods that are attached to this node.
//!
//! A pod's number says where it runs: the first `local` of them here, the next on another node, and so on. Its namespace
//! and app are drawn, so that each node holds pods of many namespaces.

use super::{APPS, Scale, TIERS, namespace_name};
use crate::random::SplitMix;
use k8s_openapi::api::core::v1::{Container, ContainerPort, HostIP, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_policy::pod::Pool;
use sluice_policy::{ObjectName, Snapshot};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// One DNS server for so many pods.
const PODS_OF_DNS: usize = 2500;

/// The addresses of a node's slot; slot 0 is the node itself.
pub(crate) fn addresses(node: usize, slot: usize) -> [IpAddr; 2] {
    let number = 0x0a40_0000 | (node as u32) << 8 | (slot as u32 + 1);
    [Ipv4Addr::from(number).into(), Ipv6Addr::new(0xfd00, 0x64, 0, node as u16, 0, 0, 0, slot as u16 + 1).into()]
}

/// A template of pods.
#[derive(Debug, Clone)]
struct Deployment {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    ports: Vec<ContainerPort>,
}

impl Deployment {
    fn of_app(scale: Scale, namespace: usize, app: usize, random: &mut SplitMix) -> Self {
        let namespace = namespace_name(scale, namespace);
        let (name, tier) = (APPS[app].to_owned(), TIERS[app % 3].to_owned());
        let hash = format!("{:010x}", random.next() >> 24);
        let labels = [
            ("app", name.clone()),
            ("tier", tier),
            ("app.kubernetes.io/instance", format!("{namespace}-{name}")),
            ("pod-template-hash", hash),
        ];
        let mut ports = vec![
            port("http", "TCP", *random.pick(&[80, 3000, 8000, 8080])),
            port("metrics", "TCP", *random.pick(&[9090, 9100, 9102])),
            port("grpc", "TCP", *random.pick(&[9000, 50_051])),
        ];
        ports.truncate(*random.pick(&[0, 1, 2, 2, 3, 3]));
        Self { namespace, name, labels: owned(labels), ports }
    }

    fn dns() -> Self {
        let labels = [("k8s-app", "kube-dns".to_owned()), ("pod-template-hash", "668d6bf9bc".to_owned())];
        let ports = vec![port("dns", "UDP", 53), port("dns-tcp", "TCP", 53), port("metrics", "TCP", 9153)];
        Self { namespace: "kube-system".to_owned(), name: "coredns".to_owned(), labels: owned(labels), ports }
    }

    /// One in twenty is a canary.
    fn pod(&self, index: usize, scale: Scale, random: &mut SplitMix) -> Pod {
        let (node, slot) = (index / scale.local, index % scale.local + 1);
        let local = node == 0;
        let (host_network, ended) = (!local && index % 100 == 98, !local && index % 100 == 99);
        let ips = addresses(node, if host_network { 0 } else { slot });
        let mut labels = self.labels.clone();
        labels.insert("track".to_owned(), if random.chance(5) { "canary" } else { "stable" }.to_owned());
        let container = Container {
            name: self.name.clone(),
            image: Some(format!("registry.example/{}/{}:1.{}", self.namespace, self.name, node % 7)),
            ports: Some(self.ports.clone()),
            ..Container::default()
        };
        let text = |ip: IpAddr| ip.to_string();
        let host = addresses(node, 0);
        Pod {
            metadata: ObjectMeta {
                name: Some(format!("{}-{}-{index:05x}", self.name, self.labels["pod-template-hash"])),
                namespace: Some(self.namespace.clone()),
                uid: Some(format!("{:016x}-{index:08x}", random.next())),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: Some(format!("node-{node:05}")),
                host_network: host_network.then_some(true),
                containers: vec![container],
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: Some(if ended { "Succeeded" } else { "Running" }.to_owned()),
                host_ip: Some(text(host[0])),
                host_ips: Some(host.map(|ip| HostIP { ip: text(ip) }).to_vec()),
                pod_ip: Some(text(ips[0])),
                pod_ips: Some(ips.map(|ip| PodIP { ip: text(ip) }).to_vec()),
                ..PodStatus::default()
            }),
        }
    }
}

fn owned<const N: usize>(labels: [(&str, String); N]) -> BTreeMap<String, String> {
    labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn port(name: &str, protocol: &str, number: i32) -> ContainerPort {
    let (name, protocol) = (Some(name.to_owned()), Some(protocol.to_owned()));
    ContainerPort { name, protocol, container_port: number, ..ContainerPort::default() }
}

/// Adds every pod, a Service for each deployment, and this node's endpoints.
pub(super) fn add(snapshot: &mut Snapshot, scale: Scale, random: &mut SplitMix) {
    let mut deployments = Vec::with_capacity(scale.namespaces * scale.apps + 1);
    for namespace in 0..scale.namespaces {
        deployments.extend((0..scale.apps).map(|app| Deployment::of_app(scale, namespace, app, random)));
    }
    let (dns, mut pool) = (Deployment::dns(), Pool::default());
    for index in 0..scale.pods {
        let deployment = match index % PODS_OF_DNS {
            500 => &dns,
            _ => &deployments[random.skewed(scale.namespaces) * scale.apps + random.skewed(scale.apps)],
        };
        let pod = deployment.pod(index, scale, random);
        let name = ObjectName::new(&deployment.namespace, pod.metadata.name.as_deref().unwrap_or_default());
        if index < scale.local {
            snapshot.endpoints.push(LocalEndpoint {
                port: PortIndex(index as u16),
                incarnation: Incarnation(1),
                pod: name.clone(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                addresses: addresses(0, index + 1).to_vec(),
            });
        }
        snapshot.pods.insert(name, Arc::new(pool.share(pod.into())));
    }
    for (index, deployment) in deployments.iter().chain([&dns]).enumerate() {
        add_service(snapshot, index, deployment);
    }
}

fn add_service(snapshot: &mut Snapshot, index: usize, deployment: &Deployment) {
    let ips = [Ipv4Addr::from(0x0a60_0001 + index as u32).to_string(), format!("fd00:96::{:x}", index + 1)];
    let selector: BTreeMap<_, _> = deployment.labels.iter().filter(|(key, _)| key.ends_with("app")).collect();
    let ports: Vec<_> = deployment
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.container_port, "targetPort": port.name}))
        .collect();
    let object = json!({
        "metadata": {"namespace": deployment.namespace, "name": deployment.name},
        "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "selector": selector, "ports": ports},
    });
    let object = serde_json::from_value(object).expect("a service");
    snapshot.services.insert(ObjectName::new(&deployment.namespace, &deployment.name), Arc::new(object));
}
