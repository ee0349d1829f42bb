//! Which of the node's devices are the host's ends of pods' veths: told from what the kernel says of links and routes.
//!
//! ```text
//!   a veth ── whose other half is in another network namespace
//!          ── that belongs to no bridge or bond
//!          ── with routes to single addresses over it, and to nothing wider: so ptp, kindnet, Calico and cloud plugins leave it
//! ```
//!
//! Everything else is somebody else's: links between machines of a lab lead to a subnet, VPNs and routers lead on to
//! others, container bridges take their devices as ports, trunks have no routes. Addresses come from those routes. The
//! pod's MAC address comes from its own end.

use crate::netlink::{Link, Netlink, Route};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// A device that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodVeth {
    /// The host's end.
    pub link: Link,
    /// Of the pod, from the routes, in order.
    pub addresses: Vec<IpAddr>,
}

/// The other half of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEnd {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its name inside the pod, where the kernel tells.
    pub ifname: Option<String>,
}

/// What tells one veth from another that got its index. Names say nothing, and some plugins give every host's end the same
/// Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The host's end.
    pub host_mac: [u8; 6],
    /// The pod's end, as numbered in its namespace; unknown of ports that an earlier version registered.
    pub peer_index: Option<u32>,
}

impl Fingerprint {
    /// Of a device; `None` where it has no Ethernet address.
    pub fn of(link: &Link) -> Option<Self> {
        Some(Self { host_mac: link.mac?, peer_index: link.peer_index })
    }

    /// Whether the device that has the index now can be this one. One that is proves nothing yet: see [`is_same`].
    pub fn fits(&self, link: &Link) -> bool {
        link.is_veth && (self.peer_index.is_none() || self.peer_index == link.peer_index)
    }
}

/// Whether `link` is still the device with that fingerprint whose pod's end has `pod_mac`.
///
/// # Errors
/// The kernel's.
pub fn is_same(netlink: &mut Netlink, fingerprint: &Fingerprint, pod_mac: [u8; 6], link: &Link) -> io::Result<bool> {
    if !fingerprint.fits(link) {
        return Ok(false);
    }
    match far_half(netlink, link) {
        Ok(far) => Ok(far.is_some_and(|far| far.mac == Some(pod_mac))),
        // the near half must do
        Err(error) if is_hidden(&error) => Ok(link.mac == Some(fingerprint.host_mac)),
        Err(error) => Err(error),
    }
}

/// The devices that lead to pods. `not_pods` are known to lead elsewhere, `own` are the node's addresses, to which the kernel
/// itself makes routes over the devices that carry them.
pub fn pod_veths(links: &[Link], routes: &[Route], own: &BTreeSet<IpAddr>, not_pods: &BTreeSet<u32>) -> Vec<PodVeth> {
    let mut over: BTreeMap<u32, Vec<&Route>> = BTreeMap::new();
    for route in routes {
        over.entry(route.device).or_default().push(route);
    }
    let candidates = links.iter().filter(|link| is_candidate(link) && !not_pods.contains(&link.index));
    let led_to = |link: &Link| addresses_over(over.get(&link.index)?, own);
    candidates.filter_map(|link| Some(PodVeth { addresses: led_to(link)?, link: link.clone() })).collect()
}

/// Whether a link alone looks like the host's end of a pod's veth; its routes must tell the rest.
pub fn is_candidate(link: &Link) -> bool {
    link.is_veth && link.peer_netns_id.is_some() && link.peer_index.is_some() && link.controller.is_none()
}

/// The single addresses that are led to, `None` where it is none, or anything wider.
fn addresses_over(routes: &[&Route], own: &BTreeSet<IpAddr>) -> Option<Vec<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for route in routes {
        let whole = if route.destination.is_ipv4() { 32 } else { 128 };
        let stays_on_link = match route.destination {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
        };
        if stays_on_link {
            continue;
        }
        if route.has_gateway || route.prefix_len != whole {
            return None;
        }
        if !route.is_kernels && !own.contains(&route.destination) {
            addresses.insert(route.destination);
        }
    }
    (!addresses.is_empty()).then(|| addresses.into_iter().collect())
}

/// The other half, `None` where it is gone or belongs to another pair.
fn far_half(netlink: &mut Netlink, link: &Link) -> io::Result<Option<Link>> {
    let (Some(netns_id), Some(index)) = (link.peer_netns_id, link.peer_index) else { return Ok(None) };
    let far = netlink.link_in(netns_id, index)?;
    Ok(far.filter(|far| far.is_veth && far.peer_index == Some(link.index)))
}

/// Whether the kernel does not show us into that namespace.
fn is_hidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EOPNOTSUPP))
}

/// The pod's end: from its own namespace, else what the node has learnt of its neighbour. `None` where neither tells.
///
/// # Errors
/// The kernel's.
pub fn pod_end(netlink: &mut Netlink, veth: &PodVeth) -> io::Result<Option<PodEnd>> {
    match far_half(netlink, &veth.link) {
        Ok(far) => return Ok(far.and_then(|far| Some(PodEnd { mac: far.mac?, ifname: Some(far.name) }))),
        Err(error) if is_hidden(&error) => {}
        Err(error) => return Err(error),
    }
    for address in &veth.addresses {
        if let Some(mac) = netlink.neighbour_mac(veth.link.index, *address)? {
            return Ok(Some(PodEnd { mac, ifname: None }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veth(index: u32) -> Link {
        Link {
            index,
            name: format!("veth{index}"),
            mac: Some([0xee; 6]),
            mtu: 1500,
            is_ethernet: true,
            is_loopback: false,
            is_veth: true,
            controller: None,
            peer_index: Some(2),
            peer_netns_id: Some(7),
        }
    }

    fn route(text: &str) -> Route {
        let mut words = text.split(' ');
        let (destination, prefix_len) = words.next().unwrap().split_once('/').unwrap();
        let words: Vec<&str> = words.collect();
        Route {
            device: 9,
            destination: destination.parse().unwrap(),
            prefix_len: prefix_len.parse().unwrap(),
            is_kernels: words.contains(&"kernel"),
            has_gateway: words.contains(&"via"),
        }
    }

    fn found(link: Link, routes: &[&str]) -> Option<Vec<String>> {
        let routes: Vec<Route> = routes.iter().copied().map(route).collect();
        let own = ["10.88.0.1", "fd88::1"].map(|address| address.parse().unwrap()).into();
        let veths = pod_veths(&[link], &routes, &own, &BTreeSet::from([5]));
        veths.first().map(|veth| veth.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_plugins_for_routed_pods_leave_is_found_with_its_addresses() {
        for (what, routes, expected) in [
            (
                "ptp and kindnet",
                vec!["10.88.0.2/32", "fd88::1/128 kernel", "fd88::2/128", "fe80::/64 kernel"],
                vec!["10.88.0.2", "fd88::2"],
            ),
            ("Calico", vec!["192.168.3.4/32", "fe80::/64 kernel"], vec!["192.168.3.4"]),
            ("the gateway's own route in another order", vec!["fd88::2/128", "fd88::1/128"], vec!["fd88::2"]),
            ("the same in two tables", vec!["10.88.0.2/32", "10.88.0.2/32"], vec!["10.88.0.2"]),
        ] {
            assert_eq!(found(veth(9), &routes), Some(expected.into_iter().map(String::from).collect()), "{what}");
        }
    }

    #[test]
    fn other_veths_are_left_alone() {
        let one = ["10.88.0.2/32"];
        let bridged = Link { controller: Some(3), ..veth(9) };
        let within = Link { peer_netns_id: None, ..veth(9) };
        let other = Link { is_veth: false, ..veth(9) };
        for (what, link, routes) in [
            ("no routes", veth(9), vec![]),
            ("routes over another device", veth(8), one.to_vec()),
            ("a port of a bridge", bridged, one.to_vec()),
            ("both halves here", within, one.to_vec()),
            ("no veth", other, one.to_vec()),
            ("a trunk", veth(5), one.to_vec()),
            ("a link with a subnet", veth(9), vec!["10.9.0.0/24 kernel", "10.88.0.2/32"]),
            ("a link with a small subnet", veth(9), vec!["10.9.0.0/31 kernel"]),
            ("a link that leads on", veth(9), vec!["10.9.0.1/32", "0.0.0.0/0 via"]),
            ("a way to a router's other networks", veth(9), vec!["10.9.0.1/32", "10.10.0.0/16 via"]),
            ("a peer's address, given to the device", veth(9), vec!["10.9.0.1/32 kernel"]),
            ("its own address only", veth(9), vec!["fd88::1/128 kernel", "fe80::/64 kernel"]),
        ] {
            assert_eq!(found(link, &routes), None, "{what}");
        }
    }

    #[test]
    fn another_device_with_the_same_index_is_not_the_same_one() {
        let fingerprint = Fingerprint::of(&veth(9)).unwrap();
        assert!(fingerprint.fits(&veth(9)));
        assert!(fingerprint.fits(&Link { name: "renamed".into(), ..veth(9) }), "names say nothing");
        assert!(!fingerprint.fits(&Link { peer_index: Some(3), ..veth(9) }));
        assert!(!fingerprint.fits(&Link { is_veth: false, ..veth(9) }));
        assert!(Fingerprint { peer_index: None, ..fingerprint }.fits(&veth(9)), "written down by an earlier version");
    }
}
