//! The lives of pods: unscheduled → bound → running with addresses → ended, or deleted with grace and finalizers.

use super::addresses::of_node;
use super::objects::{APPS, PodShape, TIERS, pod, ready_condition, running_status};
use super::{Script, topology};
use crate::store::{DeleteOptions, Object, Part};
use serde_json::{Value, json};
use std::sync::Arc;

impl Script {
    pub(super) fn start_or_delete_pod(&mut self) -> String {
        let crowded = self.count("pods") > self.size.pods * 3 / 2;
        if crowded { self.delete_some_pod() } else { self.start_pod() }
    }

    pub(super) fn start_pod(&mut self) -> String {
        let Some(namespace) = self.pick_namespace() else { return "no namespace for a pod".to_owned() };
        let shape =
            PodShape { app: self.one_of(&APPS), tier: self.one_of(&TIERS), host_network: self.chance(5), finalizer: self.chance(8) };
        // A few names are used again and again, as a StatefulSet does.
        let name = if self.chance(20) { format!("{}-{}", shape.app, self.random.u32(..4)) } else { format!("pod-{}", self.number()) };
        let taken = self.store.place("pods", &namespace, &name).and_then(|place| self.store.get(place)).is_ok();
        if taken {
            return format!("pod {namespace}/{name} is there");
        }
        self.create("pods", pod(&namespace, &name, &shape))
    }

    pub(super) fn advance_some_pod(&mut self) -> String {
        match self.pick("pods") {
            Some(pod) => self.advance_pod(&pod),
            None => "no pod".to_owned(),
        }
    }

    /// Moves a pod one stage on.
    pub(super) fn advance_pod(&mut self, object: &Arc<Object>) -> String {
        let pod = object.value();
        if pod["metadata"].get("deletionTimestamp").is_some() {
            return self.finish_pod(object, &pod);
        }
        match (object.node_name(), object.phase()) {
            ("", _) => self.bind_pod(object),
            (_, "Pending") => self.run_pod(object, &pod),
            (_, "Running") => self.flap_or_end_pod(object, &pod),
            _ => self.delete("pods", object, &DeleteOptions::now()),
        }
    }

    fn bind_pod(&mut self, object: &Object) -> String {
        match self.pick("nodes") {
            Some(node) => self.patch("pods", object, Part::Main, &json!({"spec": {"nodeName": node.name()}})),
            None => "no node to bind to".to_owned(),
        }
    }

    fn run_pod(&mut self, object: &Object, pod: &Value) -> String {
        let Some(node) = topology::node_number(object.node_name()) else { return format!("{} runs elsewhere", object.key()) };
        let host = of_node(node);
        let leased = if pod["spec"]["hostNetwork"] == true { Some(host.clone()) } else { self.lease(object, node) };
        let Some(ips) = leased else { return format!("no address left for {}", object.key()) };
        let ready = self.chance(80);
        self.patch("pods", object, Part::Status, &running_status(&host, &ips, ready))
    }

    /// Addresses for a pod. Those of pods that have ended are free, even while the pods are still listed.
    fn lease(&mut self, pod: &Object, node: usize) -> Option<[String; 2]> {
        let store = &self.store;
        let is_live = |key: &str| {
            let place = key.split_once('/').and_then(|(namespace, name)| store.place("pods", namespace, name).ok());
            let holder = place.and_then(|place| store.get(place).ok());
            holder.is_some_and(|holder| holder.node_name() == pod.node_name() && !matches!(holder.phase(), "Succeeded" | "Failed"))
        };
        self.addresses.lease(pod.key(), node, is_live)
    }

    fn flap_or_end_pod(&mut self, object: &Object, pod: &Value) -> String {
        let ready = pod["status"]["conditions"][0]["status"] == "True";
        let end = if self.chance(50) { "Succeeded" } else { "Failed" };
        let status = match self.random.u32(..100) {
            0..25 => json!({"status": {"phase": end, "conditions": ready_condition(false)}}),
            _ => json!({"status": {"conditions": ready_condition(!ready)}}),
        };
        self.patch("pods", object, Part::Status, &status)
    }

    /// What the kubelet and the holder of the finalizer do.
    fn finish_pod(&mut self, object: &Object, pod: &Value) -> String {
        let held = pod["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        if held && self.chance(50) {
            return self.patch("pods", object, Part::Main, &json!({"metadata": {"finalizers": null}}));
        }
        self.delete("pods", object, &DeleteOptions::now())
    }

    pub(super) fn delete_some_pod(&mut self) -> String {
        let Some(pod) = self.pick("pods") else { return "no pod".to_owned() };
        let options = if self.chance(20) { DeleteOptions::now() } else { DeleteOptions::default() };
        self.delete("pods", &pod, &options)
    }

    pub(super) fn relabel_some_pod(&mut self) -> String {
        let Some(pod) = self.pick("pods") else { return "no pod".to_owned() };
        let labels = match self.random.u32(..3) {
            0 => json!({"app": self.one_of(&APPS)}),
            1 => json!({"tier": self.one_of(&TIERS)}),
            _ if pod.label("tier").is_some() => json!({"tier": null}),
            _ => json!({"tier": "gold"}),
        };
        self.patch("pods", &pod, Part::Main, &json!({"metadata": {"labels": labels}}))
    }
}
