//! The few questions and orders for the kernel's routing socket: links, veth pairs, addresses. Synchronous, no runtime.

mod events;
mod survey;

pub use events::LinkEvents;
pub use survey::Route;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What matters of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index here.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Its MTU.
    pub mtu: u32,
    /// Its packets begin with an Ethernet header.
    pub is_ethernet: bool,
    /// The node's own.
    pub is_loopback: bool,
    /// Half of a veth pair.
    pub is_veth: bool,
    /// The bridge or bond it belongs to.
    pub controller: Option<u32>,
    /// A veth's other half, as numbered where that is.
    pub peer_index: Option<u32>,
    /// By which this namespace calls the one that the other half is in; none where that is this one.
    pub peer_netns_id: Option<i32>,
}

/// A routing socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A link by its name; `None` where there is none.
    pub fn link_by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.into()));
        self.link(question)
    }

    /// A link by its index; `None` where there is none.
    pub fn link_by_index(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut question = LinkMessage::default();
        question.header.index = index;
        self.link(question)
    }

    fn link(&mut self, question: LinkMessage) -> io::Result<Option<Link>> {
        match self.call(RouteNetlinkMessage::GetLink(question), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a veth pair, the peer in another namespace.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_netns: BorrowedFd<'_>, mtu: u32) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.into()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NetNsFd(peer_netns.as_raw_fd()),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other)))]),
        ];
        self.call(RouteNetlinkMessage::NewLink(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    /// Brings a link up, without ARP.
    pub fn set_up_noarp(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        self.call(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(|_| ())
    }

    /// Removes a link, with its peer where it is a veth.
    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.call(RouteNetlinkMessage::DelLink(message), NLM_F_ACK).map(|_| ())
    }

    /// All addresses of this namespace.
    pub fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let answers = self.call(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let mut found = Vec::new();
        for answer in answers {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                let local = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
                // on a point-to-point device `Address` is the other end
                found.extend(local.or(address));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// One request and everything that answers it.
    fn call(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = &received[..];
            while rest.len() >= 16 {
                let len = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]).next_multiple_of(4).max(16) as usize;
                let answer = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                    Ok(answer) => answer,
                    // one strange route or link among all must not hide the others
                    Err(_) if flags & NLM_F_DUMP == NLM_F_DUMP => {
                        rest = rest.get(len..).unwrap_or_default();
                        continue;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                };
                let ours = answer.header.sequence_number == self.sequence;
                match answer.payload {
                    NetlinkPayload::Error(error) if ours => match error.code {
                        None => return Ok(answers),
                        Some(code) => return Err(io::Error::from_raw_os_error(code.get().abs())),
                    },
                    NetlinkPayload::Done(_) if ours => return Ok(answers),
                    NetlinkPayload::InnerMessage(inner) if ours => {
                        answers.push(inner);
                        // a single answer carries neither acknowledgement nor end
                        if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 {
                            return Ok(answers);
                        }
                    }
                    _ => {}
                }
                rest = rest.get(len..).unwrap_or_default();
            }
        }
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            ..Default::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer_index = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns_id = Some(id),
                LinkAttribute::LinkInfo(infos) => link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
                _ => {}
            }
        }
        link
    }
}

/// Runs something inside another network namespace, on a thread of its own, so that nothing else is moved there.
pub fn inside<T: Send>(netns: BorrowedFd<'_>, run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            run()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
