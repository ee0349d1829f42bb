//! ipBlocks that hold more, or less, than addresses outside the cluster.

use super::cluster::Cluster;
use super::{Findings, RuleView, WarningKind, rules_in_force};
use crate::load::Field;
use crate::oracle::selector_text;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sluice_flow::{Direction, ObjectName};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Pods that a message names.
const NAMED_MAX: usize = 3;

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    let services = service_addresses(cluster);
    for (name, policy) in &cluster.snapshot.policies {
        for rule in rules_in_force(name, policy) {
            // Who admits every pod on purpose does not mind that a block holds some.
            let all_pods = rule.peers.iter().any(is_all_pods);
            for (index, block) in rule.peers.iter().enumerate().filter_map(|(index, peer)| Some((index, peer.ip_block.as_ref()?))) {
                let field = rule.peers_field().index(index).key("ipBlock").key("cidr");
                if !all_pods {
                    covers_pods(cluster, name, &rule, &field, block, found);
                }
                if rule.direction == Direction::Egress {
                    service_address(&services, name, &field, block, found);
                }
            }
        }
    }
}

fn is_all_pods(peer: &NetworkPolicyPeer) -> bool {
    let everything = LabelSelector::default();
    peer.namespace_selector.as_ref() == Some(&everything) && peer.pod_selector.as_ref().is_none_or(|selector| *selector == everything)
}

fn covers_pods(cluster: &Cluster<'_>, name: &ObjectName, rule: &RuleView<'_>, field: &Field, block: &IPBlock, found: &mut Findings<'_>) {
    let kind = WarningKind::IpBlockCoversPods;
    let pods: Vec<&ObjectName> = cluster.block_pods(block).take(NAMED_MAX + 1).collect();
    if pods.is_empty() {
        return;
    }
    let named: Vec<String> = pods.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if pods.len() > NAMED_MAX { " and others" } else { "" };
    let translated = match rule.direction {
        Direction::Ingress => "; a source that a node or load balancer has translated is matched by its translated address",
        Direction::Egress => "",
    };
    let message = format!(
        "contains the addresses of pods ({}{more}), so it matches them too, whatever their labels and namespace{translated}",
        named.join(", ")
    );
    let single = block.cidr.parse::<IpNet>().is_ok_and(|net| net.prefix_len() == net.max_prefix_len());
    let hint = match single {
        true => "a pod's address changes when the pod is made anew: select it by its labels",
        false => "to mean only what lies outside the cluster, add the pods' network to `except`; to mean pods, select them by labels",
    };
    found.add(kind, name, field, message, Some(hint.to_owned()));
}

fn service_addresses<'a>(cluster: &Cluster<'a>) -> HashMap<IpAddr, (&'a ObjectName, &'a Arc<Service>)> {
    let services = cluster.snapshot.services.iter();
    services
        .flat_map(|(name, service)| {
            let spec = service.spec.as_ref();
            let texts = spec.into_iter().flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
            texts.filter_map(move |text| Some((text.parse().ok()?, (name, service))))
        })
        .collect()
}

fn service_address(
    services: &HashMap<IpAddr, (&ObjectName, &Arc<Service>)>,
    name: &ObjectName,
    field: &Field,
    block: &IPBlock,
    found: &mut Findings<'_>,
) {
    let net = block.cidr.parse::<IpNet>().ok().filter(|net| net.prefix_len() == net.max_prefix_len());
    let Some((service_name, service)) = net.and_then(|net| services.get(&net.addr())) else { return };
    let message = format!("is the address of service {service_name}: policies judge the backend that it picks, so this opens no way to it");
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).map(|labels| {
        let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        format!("select the pods behind it: {} in namespace {}", selector_text(&selector), service_name.namespace)
    });
    found.add(WarningKind::ServiceAddress, name, field, message, selector);
}
