//! How the node routes, filters and translates.

use super::finding::Finding;
use super::tree::Tree;
use sluice_flow::limits::POD_MTU_MAX;

pub(super) fn forwarding(tree: &Tree) -> Vec<Finding> {
    let four = match tree.number("/proc/sys/net/ipv4/ip_forward") {
        Some(1) => Finding::fine("ip_forward", "on"),
        other => Finding::missing(
            "ip_forward",
            if other.is_some() { "off: the node does not route its pods' packets" } else { "no IPv4 here" },
            "sysctl -w net.ipv4.ip_forward=1, and in /etc/sysctl.d for good",
        ),
    };
    let six = match tree.number("/proc/sys/net/ipv6/conf/all/forwarding") {
        Some(1) => Finding::fine("ip6_forward", "on"),
        Some(_) => Finding::advice("ip6_forward", "off", "if pods have IPv6 addresses: sysctl -w net.ipv6.conf.all.forwarding=1"),
        None => Finding::fine("ip6_forward", "no IPv6 here"),
    };
    vec![four, six]
}

/// Strict filtering drops what arrives by another way than its answer would leave; the trunks are such a way for the kernel.
pub(super) fn reverse_path(tree: &Tree) -> Vec<Finding> {
    let names = ["all", "default"];
    let strict = |name: &&str| tree.number(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")) == Some(1);
    let strict: Vec<&str> = names.into_iter().filter(strict).collect();
    vec![match strict.as_slice() {
        [] => Finding::fine("rp_filter", "not strict"),
        strict => Finding::advice(
            "rp_filter",
            format!("strict for {}: packets that take another way back are dropped by the kernel, unseen", strict.join(" and ")),
            "if nodes are reached by several ways: sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
    }]
}

/// Devices with their other end elsewhere, which is what the host's ends of pods are.
pub(super) fn pod_mtu(tree: &Tree) -> Vec<Finding> {
    let class = std::path::Path::new("/sys/class/net");
    let attribute = |name: &str, attribute: &str| tree.number(class.join(name).join(attribute));
    let is_pair = |name: &String| {
        let index = attribute(name, "ifindex");
        let ours = name.starts_with("sluice-");
        !ours && index.is_some() && attribute(name, "iflink") != index && !tree.path(class.join(name).join("device")).exists()
    };
    let pairs: Vec<String> = tree.names(class).into_iter().filter(is_pair).collect();
    let large: Vec<String> = pairs
        .iter()
        .filter_map(|name| attribute(name, "mtu").map(|mtu| (name, mtu)))
        .filter(|(_, mtu)| *mtu > i64::from(POD_MTU_MAX))
        .map(|(name, mtu)| format!("{name} ({mtu})"))
        .collect();
    vec![match large.as_slice() {
        [] => Finding::fine("pod_mtu", format!("{} pairs, none above {POD_MTU_MAX}", pairs.len())),
        large => Finding::advice(
            "pod_mtu",
            format!("above {POD_MTU_MAX}: {}", large.join(", ")),
            format!("ADD refuses such pods: set mtu to {POD_MTU_MAX} or less in the cluster's CNI configuration"),
        ),
    }]
}

/// Without it nothing keeps a packet to a service from leaving by a device where nobody judges it; and what the kernel does not
/// tell of translations cannot be judged by.
pub(super) fn netfilter(tree: &Tree) -> Vec<Finding> {
    // without type information there is nothing to read, which another check tells
    if !tree.path("/sys/kernel/btf/vmlinux").exists() {
        return Vec::new();
    }
    let knows = |name: &str| ["vmlinux", "nf_conntrack"].iter().any(|module| tree.has_bytes(format!("/sys/kernel/btf/{module}"), name));
    let link = match knows("bpf_nf_link_attach") {
        true => Finding::fine("netfilter", "takes programs"),
        false => Finding::missing(
            "netfilter",
            "the kernel's type information shows no programs in netfilter",
            "boot a kernel with CONFIG_NETFILTER_BPF_LINK=y",
        ),
    };
    let conntrack = match knows("bpf_skb_ct_lookup") {
        true => Finding::fine("conntrack", "programs can ask it"),
        false => Finding::advice(
            "conntrack",
            "programs cannot ask it: what the node masqueraded (NodePorts from outside) is judged by the node's address",
            "if services are reached from outside: modprobe nf_conntrack before the dataplane starts, on a kernel with its type information",
        ),
    };
    vec![link, conntrack]
}
