//! What a real kernel says of pods' veths: found, and nothing else; the pod's end from its own namespace and from the
//! neighbour table. Needs root; skipped aloud without it, and never where CI is set.
#![cfg(feature = "kernel")]

use sluice_dataplane::netlink::{LinkEvents, Netlink, inside};
use sluice_dataplane::veth::{Fingerprint, PodVeth, is_same, pod_end, pod_veths};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;

/// A node and a pod; both go with it.
struct Pair {
    node: String,
    pod: String,
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("ip {arguments}: {error}"));
    if !output.status.success() {
        eprintln!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

impl Pair {
    fn make(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let reason = "SKIPPED: needs root (network namespaces)";
            assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{reason}");
            println!("{reason}");
            return None;
        }
        let id = std::process::id();
        let pair = Self { node: format!("vethtest{id}{test}n"), pod: format!("vethtest{id}{test}p") };
        let Self { node, pod } = &pair;
        assert!(ip(&format!("netns add {node}")) && ip(&format!("netns add {pod}")));
        pair.add_pod("veth0");
        Some(pair)
    }

    /// A pod's veth, as ptp leaves it.
    fn add_pod(&self, name: &str) {
        let Self { node, pod } = self;
        for command in [
            format!("-n {node} link add {name} type veth peer name eth0 netns {pod}"),
            format!("-n {pod} link set eth0 up"),
            format!("-n {pod} addr add 10.88.0.2/24 dev eth0"),
            format!("-n {node} link set {name} up"),
            format!("-n {node} addr add 10.88.0.1/32 dev {name}"),
            format!("-n {node} addr add fd88::1/128 dev {name} nodad"),
            format!("-n {node} route add 10.88.0.2/32 dev {name}"),
            format!("-n {node} route add fd88::2/128 dev {name}"),
        ] {
            assert!(ip(&command));
        }
    }

    fn inside<T: Send>(&self, run: impl FnOnce() -> std::io::Result<T> + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.node)).unwrap();
        inside(file.as_fd(), run).unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.pod));
        ip(&format!("netns del {}", self.node));
    }
}

fn found(netlink: &mut Netlink) -> Vec<PodVeth> {
    let own: BTreeSet<IpAddr> = netlink.addresses().unwrap().into_iter().collect();
    pod_veths(&netlink.links().unwrap(), &netlink.routes().unwrap(), &own, &BTreeSet::new())
}

#[test]
fn the_kernel_tells_of_pods_and_of_both_their_ends() {
    let Some(pair) = Pair::make("a") else { return };
    let (node, pod) = (&pair.node, &pair.pod);
    let events = pair.inside(LinkEvents::open);
    let mut netlink = pair.inside(Netlink::open);
    let [veth] = &found(&mut netlink)[..] else { panic!("{:?}", found(&mut netlink)) };
    assert_eq!(veth.addresses, ["10.88.0.2".parse::<IpAddr>().unwrap(), "fd88::2".parse().unwrap()]);
    let end = pod_end(&mut netlink, veth).unwrap().expect("the kernel shows root into the pod");
    assert_eq!(end.ifname.as_deref(), Some("eth0"));
    // what the node learns of its neighbour is the same
    assert_eq!(netlink.neighbour_mac(veth.link.index, veth.addresses[0]).unwrap(), None, "nothing learnt yet");
    let mac = end.mac.map(|byte| format!("{byte:02x}")).join(":");
    assert!(ip(&format!("-n {node} neigh replace 10.88.0.2 lladdr {mac} dev veth0 nud reachable")));
    assert_eq!(netlink.neighbour_mac(veth.link.index, veth.addresses[0]).unwrap(), Some(end.mac));

    // the same device under another name, and with another MAC at the host's end; then another one under its index
    let fingerprint = Fingerprint::of(&veth.link).unwrap();
    let index = veth.link.index;
    let now = |netlink: &mut Netlink| netlink.link_by_index(index).unwrap().unwrap();
    let _ = events.take();
    assert!(ip(&format!("-n {node} link set veth0 name renamed0 address 02:00:00:00:00:07")));
    assert!(events.take(), "a change of a link is heard");
    let link = now(&mut netlink);
    assert!(is_same(&mut netlink, &fingerprint, end.mac, &link).unwrap());
    assert!(ip(&format!("-n {node} link del renamed0")));
    assert!(ip(&format!("-n {node} link add other0 index {index} type veth peer name eth0 netns {pod}")));
    let link = now(&mut netlink);
    assert!(!is_same(&mut netlink, &fingerprint, end.mac, &link).unwrap());

    // its pod's end has the index that the first one had: the MAC tells
    let twin = Fingerprint { peer_index: link.peer_index, ..fingerprint };
    assert!(!is_same(&mut netlink, &twin, end.mac, &link).unwrap());
}

#[test]
fn a_namespace_that_went_is_no_error() {
    let Some(pair) = Pair::make("b") else { return };
    let mut netlink = pair.inside(Netlink::open);
    let veth = found(&mut netlink).remove(0);
    assert!(ip(&format!("-n {} link del eth0", pair.pod)));
    assert_eq!(pod_end(&mut netlink, &veth).unwrap(), None);
    assert_eq!(netlink.link_in(4711, 1).unwrap(), None, "no such namespace");
}
