//! Questions about everything at once: all links, all routes, and the far half of a veth pair in its own namespace.

use super::{Link, Netlink};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A unicast route over one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The device.
    pub device: u32,
    /// Where it leads; the unspecified address for a default route.
    pub destination: IpAddr,
    /// How much of `destination` counts.
    pub prefix_len: u8,
    /// Made by the kernel itself, from an address of the device.
    pub is_kernels: bool,
    /// Leads to a router behind the device, or is one of several ways.
    pub has_gateway: bool,
}

impl Netlink {
    /// All links of this namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.call(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Devices of this namespace with filters of the older kind at their ingress, or room for some: a queueing discipline
    /// `ingress` or `clsact`.
    pub fn filtered(&mut self) -> io::Result<BTreeSet<u32>> {
        let answers = self.call(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP)?;
        let filters = |message: &TcMessage| {
            message.attributes.iter().any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "ingress" || kind == "clsact"))
        };
        let devices = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message) if filters(&message) => u32::try_from(message.header.index).ok(),
            _ => None,
        });
        Ok(devices.collect())
    }

    /// All unicast routes of this namespace, of every table.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            for answer in self.call(RouteNetlinkMessage::GetRoute(question), NLM_F_DUMP)? {
                if let RouteNetlinkMessage::NewRoute(message) = answer {
                    read_route(&message, &mut found);
                }
            }
        }
        Ok(found)
    }

    /// A link of another namespace, as this one calls that; `None` where there is no such link or namespace. Needs
    /// `CAP_NET_ADMIN` over that namespace. Source: `IFLA_TARGET_NETNSID`, rtnetlink(7).
    pub fn link_in(&mut self, netns_id: i32, index: u32) -> io::Result<Option<Link>> {
        let mut question = LinkMessage::default();
        question.header.index = index;
        question.attributes.push(LinkAttribute::IfNetnsId(netns_id));
        match self.link(question) {
            // the namespace went between two questions
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            other => other,
        }
    }

    /// The Ethernet address that this namespace has learnt for a neighbour on a device.
    pub fn neighbour_mac(&mut self, device: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
        let mut question = NeighbourMessage::default();
        question.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let answers = self.call(RouteNetlinkMessage::GetNeighbour(question), NLM_F_DUMP)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == device => learnt_mac(&message, address),
            _ => None,
        }))
    }
}

fn learnt_mac(message: &NeighbourMessage, address: IpAddr) -> Option<[u8; 6]> {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    let is_valid = matches!(message.header.state, Reachable | Stale | Delay | Probe | Permanent);
    let is_it = message.attributes.iter().any(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => IpAddr::from(*found) == address,
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => IpAddr::from(*found) == address,
        _ => false,
    });
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    });
    mac.filter(|_| is_valid && is_it)
}

fn read_route(message: &RouteMessage, found: &mut Vec<Route>) {
    if message.header.kind != RouteType::Unicast {
        return;
    }
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let (mut devices, mut has_gateway) = (Vec::new(), false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = (*address).into(),
            RouteAttribute::Oif(device) => devices.push(*device),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
            RouteAttribute::MultiPath(hops) => {
                has_gateway = true;
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    let (prefix_len, is_kernels) = (message.header.destination_prefix_length, message.header.protocol == RouteProtocol::Kernel);
    found.extend(devices.into_iter().map(|device| Route { device, destination, prefix_len, is_kernels, has_gateway }));
}
