//! What the kernel says about the pod's interface: its MAC, and which link is the other end of its veth pair.
//!
//! ```text
//!   pod's namespace:  eth0   index 2, IFLA_LINK 17 ─────────┐   proven in both directions, and the namespace id
//!   this namespace:   veth1  index 17, IFLA_LINK 2, NETNSID n ┘   n must be the pod's namespace
//! ```
//!
//! `prevResult` is not enough: the bridge plugin lists the bridge beside the veth, Calico lists no container end, and
//! a wrong index would put one pod's policy on another pod's device. Indices repeat in every namespace, so an index
//! that merely fits proves nothing; the namespace id does.

use crate::error::{CniError, Code};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// The two ends of a pod's veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VethPair {
    pub(crate) mac: [u8; 6],
    /// In this process's network namespace.
    pub(crate) host_ifindex: u32,
    pub(crate) host_ifname: String,
}

/// One link's attributes, as far as they matter here.
#[derive(Debug, Default)]
struct Link {
    index: u32,
    name: String,
    mac: Vec<u8>,
    is_veth: bool,
    is_bridge_port: bool,
    peer_index: Option<u32>,
    peer_netns_id: Option<i32>,
}

/// Finds `ifname` inside `netns` and its peer in this process's namespace.
///
/// # Errors
/// I/O when the namespace cannot be opened or entered; an unsupported attachment when the interface is no veth, its
/// other end is elsewhere, or that end is a port of a bridge (frames between two pods of one bridge never pass the
/// kernel's routing that the datapath stands on).
pub(crate) fn find_pair(netns: &Path, ifname: &str) -> Result<VethPair, CniError> {
    let file = File::open(netns).map_err(|e| CniError::io(format!("cannot open CNI_NETNS {}", netns.display()), e))?;
    let pod_end = link_inside(&file, netns, ifname)?;
    let unsupported = |details: String| CniError::new(Code::UnsupportedAttachment, "unsupported attachment", details);
    let shown = netns.display();
    let (Some(peer_index), true) = (pod_end.peer_index, pod_end.is_veth) else {
        return Err(unsupported(format!("{ifname} in {shown} is not one end of a veth pair")));
    };
    let elsewhere = || unsupported(format!("the other end of {ifname} in {shown} is not in this network namespace"));
    if pod_end.peer_netns_id.is_none() {
        return Err(elsewhere());
    }
    let failed = |e: io::Error| CniError::io("cannot ask the kernel for links", e);
    let mut netlink = Netlink::open().map_err(failed)?;
    let pod_netns_id = netlink.netns_id(&file).map_err(failed)?;
    let host_end = match netlink.link_by_index(peer_index) {
        Ok(link) => link,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => return Err(elsewhere()),
        Err(error) => return Err(failed(error)),
    };
    let mutual =
        host_end.is_veth && host_end.peer_index == Some(pod_end.index) && host_end.peer_netns_id.is_some_and(|id| Some(id) == pod_netns_id);
    if !mutual {
        return Err(elsewhere());
    }
    if host_end.is_bridge_port {
        let details = format!("{} is a port of a bridge; pods must be routed by the kernel (ptp and alike)", host_end.name);
        return Err(unsupported(details));
    }
    let mac = pod_end.mac.as_slice().try_into().map_err(|_| unsupported(format!("{ifname} has no Ethernet address")))?;
    Ok(VethPair { mac, host_ifindex: host_end.index, host_ifname: host_end.name })
}

/// Asks from inside the namespace, on a thread of its own: the namespace of a thread cannot leak into the others.
fn link_inside(file: &File, netns: &Path, ifname: &str) -> Result<Link, CniError> {
    let asked = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| CniError::io(format!("{} is not a network namespace that can be entered", netns.display()), e))?;
            let found = Netlink::open().and_then(|mut netlink| netlink.link_by_name(ifname));
            found.map_err(|e| CniError::io(format!("cannot find {ifname} in {}", netns.display()), e))
        });
        thread.join()
    });
    asked.unwrap_or_else(|_| Err(CniError::io("cannot ask the kernel for links", "the thread in the namespace panicked")))
}

/// A netlink socket of the namespace in which it was opened.
struct Netlink {
    socket: Socket,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    fn link_by_name(&mut self, name: &str) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(message)
    }

    fn link_by_index(&mut self, index: u32) -> io::Result<Link> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.link(message)
    }

    fn link(&mut self, question: LinkMessage) -> io::Result<Link> {
        match self.ask(RouteNetlinkMessage::GetLink(question))? {
            RouteNetlinkMessage::NewLink(message) => Ok(Link::from(message)),
            _ => Err(io::Error::other("the kernel answered with something else than a link")),
        }
    }

    /// The id by which links of this namespace refer to `netns`; none was given yet when nothing refers to it.
    fn netns_id(&mut self, netns: &File) -> io::Result<Option<i32>> {
        let mut question = NsidMessage::default();
        let fd = u32::try_from(netns.as_raw_fd()).expect("an open descriptor is not negative");
        question.attributes.push(NsidAttribute::Fd(fd));
        let RouteNetlinkMessage::NewNsId(answer) = self.ask(RouteNetlinkMessage::GetNsId(question))? else {
            return Err(io::Error::other("the kernel answered with something else than a namespace id"));
        };
        Ok(answer.attributes.iter().find_map(|a| match a {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        }))
    }

    fn ask(&mut self, question: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(question));
        request.header.flags = NLM_F_REQUEST;
        request.header.sequence_number = 1;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => Ok(message),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::Error::other("the kernel gave no answer")),
        }
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Link(index) => link.peer_index = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns_id = Some(id),
                LinkAttribute::LinkInfo(infos) => {
                    link.is_veth |= infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                    link.is_bridge_port |= infos.contains(&LinkInfo::PortKind(InfoPortKind::Bridge));
                }
                _ => {}
            }
        }
        link
    }
}
