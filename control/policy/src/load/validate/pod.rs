//! Pods: only what a verdict may depend on. Images, volumes and resources are the kubelet's business.
//!
//! Source: k8s.io/kubernetes `pkg/apis/core/validation/validation.go`, `validateContainerPorts`, `validatePodIPs`.

use super::super::error::Problems;
use super::super::node::Path;
use super::{address, protocol, syntax};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use std::collections::HashSet;

pub(super) fn pod(pod: &Pod, problems: &mut Problems) {
    let path = Path::of("spec");
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    if containers.is_empty() {
        problems.required(&path.key("containers"), "").hint("a pod has at least one container");
    }
    for (index, container) in containers.iter().enumerate() {
        ports(container, &path.key("containers").index(index), problems);
    }
    let init_containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    for (index, container) in init_containers.iter().enumerate() {
        ports(container, &path.key("initContainers").index(index), problems);
    }
    if let Some(node_name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
        for why in syntax::dns_subdomain(node_name) {
            problems.invalid(&path.key("nodeName"), node_name, &why);
        }
    }
    if let Some(status) = &pod.status {
        addresses(status, problems);
    }
}

fn ports(container: &Container, path: &Path, problems: &mut Problems) {
    let mut names = HashSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = path.key("ports").index(index);
        if let Some(name) = &port.name {
            for why in syntax::port_name(name) {
                problems.invalid(&path.key("name"), name, &why);
            }
            if !names.insert(name) {
                problems.add(&path.key("name"), format!("Duplicate value: {name:?}"));
            }
        }
        match port.container_port {
            0 => {
                problems.required(&path.key("containerPort"), "");
            }
            number => {
                if let Some(why) = syntax::port_number(number) {
                    problems.invalid(&path.key("containerPort"), number, why);
                }
            }
        }
        if let Some(number) = port.host_port.filter(|&number| number != 0 && number != port.container_port)
            && let Some(why) = syntax::port_number(number)
        {
            problems.invalid(&path.key("hostPort"), number, why);
        }
        protocol(port.protocol.as_deref(), &path.key("protocol"), problems);
    }
}

/// At most one address of each family. Defaulting has made `podIP` the first of `podIPs`.
fn addresses(status: &PodStatus, problems: &mut Problems) {
    let path = Path::of("status.podIPs");
    let mut families = HashSet::new();
    for (index, pod_ip) in status.pod_ips.iter().flatten().enumerate() {
        let path = path.index(index).key("ip");
        match address::ip(&pod_ip.ip) {
            Err(refusal) => {
                let problem = problems.invalid(&path, &pod_ip.ip, refusal.why);
                problem.hint = refusal.right_form.map(|right| format!("write `{right}`"));
                if index == 0 {
                    problem.spot = Some(Path::of("status.podIP"));
                }
            }
            Ok(ip) if !families.insert(ip.is_ipv4()) => {
                problems.invalid(&path, &pod_ip.ip, "may specify no more than one IP for each IP family");
            }
            Ok(_) => {}
        }
    }
}
