//! The network between the nodes of a cluster, in a namespace of its own, and the API server there.
//!
//! ```text
//!   sluice-LAB-underlay    bridge nodes ── 172.30.0.1, fd30::1: sluice-apiserver, port 6443
//!        to-node1 │   │ to-node2
//!   sluice-LAB-node1: uplink      sluice-LAB-node2: uplink
//!        172.30.0.11                   172.30.0.12
//!        10.88.2.0/24 via 172.30.0.12  10.88.1.0/24 via 172.30.0.11
//! ```
//!
//! It leads nowhere else. Every node knows where the others' pods are, as a routed cluster network does; or sends what is for
//! them through a VXLAN tunnel, device `tunnel`, whose other ends it knows, as flannel does.

use crate::config::Paths;
use crate::layout::Layout;
use crate::netns::{NetNs, bridge, ip};
use crate::nodes::{UNDERLAY_PREFIXES, api_addresses};
use crate::process::{ProcessId, log_tail, spawn_detached};
use crate::state::NodeState;
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub(crate) const API_SERVER: &str = "sluice-apiserver";
const PORT: u16 = 6443;
const BRIDGE: &str = "nodes";
/// A node's device on the underlay.
const UPLINK: &str = "uplink";
/// And the one to the other nodes' pods, where there is a tunnel.
const TUNNEL: &str = "tunnel";
/// A VXLAN header and those around it take fifty bytes.
const TUNNEL_MTU: &str = "1450";
const SWITCH_MAX: Duration = Duration::from_secs(5);

/// No duplicate address detection: nobody else gives addresses here.
const SYSCTLS: [(&str, &str); 2] = [("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")];

/// Makes the namespace and its bridge.
pub(crate) fn create(layout: &Layout) -> Result<()> {
    let netns = NetNs::named(layout.underlay_netns());
    netns.create()?;
    netns.set_sysctls(&SYSCTLS)?;
    let name = netns.name();
    ip(&["-n", name, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])?;
    ip(&["-n", name, "link", "set", BRIDGE, "up"])?;
    give_addresses(name, BRIDGE, &api_addresses().map(|address| address.to_string()))
}

/// Connects a node, whose namespace is there and whose settings are made, and tells it where the others' pods are.
pub(crate) fn connect(layout: &Layout, node: &str, nodes: &BTreeMap<String, NodeState>, paths: Paths) -> Result<()> {
    let (underlay, netns, port) = (layout.underlay_netns(), layout.at(node).node_netns(), format!("to-{node}"));
    let own = nodes.get(node).with_context(|| format!("no node {node}"))?;
    // That of a node that went down with its namespace goes a moment after it.
    if ip(&["-n", &underlay, "link", "show", &port]).is_ok() {
        let _ = ip(&["-n", &underlay, "link", "del", &port]);
    }
    // A rebooted node has its old Ethernet address, by which the others know it.
    let mac = format!("02:00:ac:1e:00:{:02x}", own.number);
    ip(&["-n", &underlay, "link", "add", &port, "type", "veth", "peer", "name", UPLINK, "address", &mac, "netns", &netns])?;
    ip(&["-n", &underlay, "link", "set", &port, "master", BRIDGE, "up"])?;
    ip(&["-n", &netns, "link", "set", UPLINK, "up"])?;
    give_addresses(&netns, UPLINK, &own.addresses().map(|address| address.to_string()))?;
    let others = nodes.iter().filter(|(name, _)| *name != node).map(|(_, other)| other);
    if paths == Paths::Vxlan {
        dig_tunnel(&netns, own, others.clone())?;
    }
    for other in others.filter(|_| paths == Paths::Routed) {
        for (network, via) in other.pod_networks().iter().zip(other.addresses()) {
            ip(&["-n", &netns, "route", "replace", network, "via", &via.to_string(), "dev", UPLINK])?;
        }
    }
    // The API server's side too, so that it is an address outside of the cluster that pods reach.
    for (network, via) in own.pod_networks().iter().zip(own.addresses()) {
        ip(&["-n", &underlay, "route", "replace", network, "via", &via.to_string(), "dev", BRIDGE])?;
    }
    Ok(())
}

/// A tunnel's device, with a static way to each other node's.
fn dig_tunnel<'a>(netns: &str, own: &NodeState, others: impl Iterator<Item = &'a NodeState>) -> Result<()> {
    let local = own.addresses()[0].to_string();
    let kind = ["type", "vxlan", "id", "42", "local", &local, "dev", UPLINK, "dstport", "8472", "nolearning"];
    ip(&[&["-n", netns, "link", "add", TUNNEL, "address", &tunnel_mac(own)][..], &kind].concat())?;
    ip(&["-n", netns, "link", "set", TUNNEL, "mtu", TUNNEL_MTU, "up"])?;
    for other in others {
        let (mac, via) = (tunnel_mac(other), other.addresses()[0].to_string());
        bridge(&["-n", netns, "fdb", "append", &mac, "dev", TUNNEL, "dst", &via])?;
        for network in other.pod_networks() {
            let next_hop = network.split('/').next().unwrap_or_default().to_owned();
            ip(&["-n", netns, "neigh", "replace", &next_hop, "lladdr", &mac, "dev", TUNNEL, "nud", "permanent"])?;
            ip(&["-n", netns, "route", "replace", &network, "via", &next_hop, "dev", TUNNEL, "onlink"])?;
        }
    }
    Ok(())
}

fn tunnel_mac(node: &NodeState) -> String {
    format!("02:00:ac:1e:01:{:02x}", node.number)
}

fn give_addresses(netns: &str, device: &str, addresses: &[String; 2]) -> Result<()> {
    for (address, prefix) in addresses.iter().zip(UNDERLAY_PREFIXES) {
        ip(&["-n", netns, "address", "replace", &format!("{address}/{prefix}"), "dev", device, "nodad"])?;
    }
    Ok(())
}

/// Starts the API server, over TLS and with a token, and waits until it listens.
pub(crate) fn start_api_server(layout: &Layout, bin_dir: &Path) -> Result<ProcessId> {
    let netns = NetNs::named(layout.underlay_netns());
    let (kubeconfig, log) = (layout.kubeconfig(), layout.logs().join("apiserver.log"));
    let dir = kubeconfig.parent().context("a file lies in a directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let token = format!("lab-{}-{:x}", layout.name, since.as_nanos());
    let mut command = Command::new(bin_dir.join(API_SERVER));
    command.args(["--listen", &SocketAddr::new(api_addresses()[0], PORT).to_string(), "--tls", "--token", &token]);
    command.args(["--bookmark-interval", "5", "--kubeconfig"]).arg(&kubeconfig);
    let mut child = netns.run(|| spawn_detached(&mut command, &log, Some(Stdio::piped())))?;
    let process = ProcessId::of(child.id() as i32);
    let mut url = String::new();
    let stdout = child.stdout.take().context("a piped stdout is there")?;
    BufReader::new(stdout).read_line(&mut url).context("cannot hear from the API server")?;
    match process {
        Some(process) if url.starts_with("https://") => Ok(process),
        _ => {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{API_SERVER} did not start:\n{}", log_tail(&log, 5))
        }
    }
}

/// Begins or ends an outage of the API server, and waits until it shows.
pub(crate) fn switch_outage(layout: &Layout, process: ProcessId, on: bool) -> Result<()> {
    let signal = if on { Signal::USR1 } else { Signal::USR2 };
    if !process.signal(signal) {
        bail!("the API server does not run; its log is {}", layout.logs().join("apiserver.log").display());
    }
    let address = SocketAddr::new(api_addresses()[0], PORT);
    NetNs::named(layout.underlay_netns()).run(|| {
        let start = Instant::now();
        while std::net::TcpStream::connect_timeout(&address, SWITCH_MAX).is_ok() == on {
            if start.elapsed() > SWITCH_MAX {
                bail!("the API server is {} after {SWITCH_MAX:?}", if on { "still there" } else { "not back" });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
}
