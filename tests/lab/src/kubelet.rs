//! The parts of a cluster that only exist where there is an API server: nodes as objects, a scheduler, and of a kubelet
//! what it says about its pods.

use crate::api::{ApiClient, Place};
use crate::cluster;
use crate::state::{NodeState, PodState, State};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Says how pods are.
pub(crate) struct Kubelet<'a> {
    /// To whom.
    pub(crate) api: &'a ApiClient,
    /// How long it takes to say it.
    pub(crate) status_delay: Duration,
}

impl Kubelet<'_> {
    /// A pod that was attached runs at these addresses.
    pub(crate) fn runs(&self, pod: &PodState, node: &NodeState) -> Result<()> {
        std::thread::sleep(self.status_delay);
        let status = status("Running", &pod.addresses, node);
        self.api.patch_status(&Place::pod(&pod.pod), &status).map(|_| ())
    }

    /// Pods on their nodes' network run at the nodes' addresses.
    pub(crate) fn run_on_host(&self, snapshot: &Snapshot, nodes: &BTreeMap<String, NodeState>) -> Result<()> {
        for (name, pod) in snapshot.pods.iter().filter(|(_, pod)| cluster::is_on_host(pod) && cluster::phase(pod) == Some("Pending")) {
            let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let Some(node) = bound.and_then(|node| nodes.get(node)) else { continue };
            self.api.patch_status(&Place::pod(name), &status("Running", &node.addresses(), node))?;
        }
        Ok(())
    }
}

fn status(phase: &str, addresses: &[IpAddr], node: &NodeState) -> Value {
    let list = |addresses: &[IpAddr]| addresses.iter().map(|address| json!({ "ip": address })).collect::<Vec<_>>();
    let host = node.addresses();
    json!({
        "phase": phase, "podIP": addresses.first(), "podIPs": list(addresses),
        "hostIP": host[0], "hostIPs": list(&host),
    })
}

/// Writes a Node for each node.
pub(crate) fn register(api: &ApiClient, nodes: &BTreeMap<String, NodeState>) -> Result<()> {
    for (name, node) in nodes {
        let networks = node.pod_networks();
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "spec": { "podCIDR": networks[0], "podCIDRs": networks },
        });
        api.put(&Place::node(name), object)?;
        let internal = |address: &IpAddr| json!({ "type": "InternalIP", "address": address });
        let addresses: Vec<Value> = node.addresses().iter().map(internal).collect();
        let ready = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady" });
        api.patch_status(&Place::node(name), &json!({ "addresses": addresses, "conditions": [ready] }))?;
    }
    Ok(())
}

/// Binds every pod without a node to the one with the fewest pods, in the order of their names. True when there was one.
pub(crate) fn schedule(api: &ApiClient, snapshot: &Snapshot, state: &State) -> Result<bool> {
    let mut pods: BTreeMap<&str, usize> = state.nodes.keys().map(|node| (node.as_str(), 0)).collect();
    let node_of = |pod: &sluice_policy::pod::Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    for node in snapshot.pods.values().filter_map(|pod| node_of(pod)) {
        if let Some(count) = pods.get_mut(node.as_str()) {
            *count += 1;
        }
    }
    let waiting: Vec<&ObjectName> =
        snapshot.pods.iter().filter(|(_, pod)| pod.spec.is_some() && node_of(pod).is_none()).map(|(name, _)| name).collect();
    for name in &waiting {
        let (node, count) = pods.iter_mut().min_by_key(|(_, count)| **count).context("a cluster has nodes")?;
        api.patch(&Place::pod(name), json!({ "spec": { "nodeName": node } }))?;
        *count += 1;
    }
    Ok(!waiting.is_empty())
}
