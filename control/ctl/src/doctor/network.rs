//! How the node routes, and its packet filter.

use super::finding::Finding;
use super::tree::Tree;
use nix::sched::{CloneFlags, unshare};
use sluice_flow::limits::POD_MTU_MAX;
use std::io::Write;
use std::process::{Command, Stdio};

/// Of the form of the dataplane's own rule, in a table that nobody else has.
const RULES: &str = "table inet sluice_doctor {
    chain deferred {
        type filter hook postrouting priority 300; policy accept;
        meta mark & 0x40000000 != 0 oifname != \"lo\" counter drop
    }
}
";

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

/// Tries the dataplane's rule, without keeping it, in a network namespace that ends with the try.
pub(super) fn nftables() -> Option<Finding> {
    const CHECK: &str = "nftables";
    if !rustix::process::geteuid().is_root() {
        return Some(Finding::unknown(CHECK, "cannot be tried by this user", "run as root"));
    }
    let tried = std::thread::spawn(|| -> Result<(), String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace to try it in: {error}"))?;
        let mut nft = Command::new("nft");
        nft.args(["--check", "--file", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = nft.spawn().map_err(|error| format!("nft cannot be run: {error}"))?;
        let written = child.stdin.take().map(|mut input| input.write_all(RULES.as_bytes()));
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        match output.status.success() && matches!(written, Some(Ok(()))) {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("nft failed").to_owned()),
        }
    });
    Some(match tried.join().unwrap_or_else(|_| Err("the try panicked".to_owned())) {
        Ok(()) => Finding::fine(CHECK, "the node's rule would be taken"),
        Err(error) => Finding::missing(CHECK, error, "install the package nftables; the kernel needs nf_tables and its inet family"),
    })
}
