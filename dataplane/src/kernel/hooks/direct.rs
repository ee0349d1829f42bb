//! direct.h: UDP and TCP between two pods of this node, brought from one's device to the other's.

use super::parse::{Brought, ETHERNET_BYTES, Parsed, Piece};
use super::{Action, Skb};
use crate::kernel::{Kernel, MemoryKernel};
use sluice_bpf::abi::{CACHE_ALLOW, COUNT_DIRECT, COUNT_HIT, CacheValue, Key, MARK_DIRECT, MARK_MASK, PORTS_MAX, Port};
use sluice_flow::{Direction, Protocol, TcpFlags};

const DIRECT_NS: u64 = 5_000_000_000;
const SHOW_NS: u64 = 250_000_000;
const DIRECT_TCP_NS: u64 = 100_000_000;
const SHOW_TCP_NS: u64 = 20_000_000;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;

impl MemoryKernel {
    /// After a hit: what the kernel brought here shows its sender's entry the way; one that was shown is made ready for that
    /// device. `None`: it goes on by the kernel.
    pub(super) fn take_shortcut(&self, port: &Port, p: &Parsed, value: &CacheValue, skb: &Skb<'_>, now_ns: u64) -> Option<(u32, Vec<u8>)> {
        let is_tcp = p.key.protocol == Protocol::TCP.0;
        let in_mid_connection = is_tcp && self.direct_tcp.get() && p.tcp_flags & (TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST) == 0;
        let may_be_brought = p.key.protocol == Protocol::UDP.0 || in_mid_connection;
        if !may_be_brought || port.direct_mtu == 0 || p.direct != Brought::ByKernel || p.fragment != Piece::Whole {
            return None;
        }
        let shown = value.direct_until_ns > now_ns;
        if p.key.direction == Direction::Ingress as u8 && !shown {
            if let Some(own) = self.cache.borrow_mut().get_mut(&p.key) {
                own.direct_until_ns = now_ns + if is_tcp { SHOW_TCP_NS } else { SHOW_NS };
            }
            self.show_way(p, skb, now_ns);
        }
        let leaves = p.key.direction == Direction::Egress as u8;
        if leaves && shown && value.verdict == CACHE_ALLOW { self.make_ready(p, value.out_port, skb) } else { None }
    }

    fn show_way(&self, p: &Parsed, skb: &Skb<'_>, now_ns: u64) {
        let Some((index, from)) = self.port_of(skb.ingress_ifindex).filter(|(_, from)| from.direct_mtu != 0) else { return };
        let key = Key { port: index, incarnation: from.incarnation, direction: Direction::Egress as u8, ..p.key };
        if let Some(value) = self.cache.borrow_mut().get_mut(&key) {
            value.out_port = p.key.port;
            value.direct_until_ns = now_ns + if p.key.protocol == Protocol::TCP.0 { DIRECT_TCP_NS } else { DIRECT_NS };
        }
    }

    fn make_ready(&self, p: &Parsed, index: u16, skb: &Skb<'_>) -> Option<(u32, Vec<u8>)> {
        let to = (usize::from(index) < PORTS_MAX).then(|| self.port(usize::from(index)))?;
        if skb.frame.len() - ETHERNET_BYTES > usize::from(to.direct_mtu) {
            return None;
        }
        let mut frame = skb.frame.to_vec();
        let hops = match p.l4_offset - ETHERNET_BYTES {
            V4_BYTES => ETHERNET_BYTES + 8,
            V6_BYTES => ETHERNET_BYTES + 7,
            _ => return None,
        };
        if frame[hops] <= 1 {
            return None;
        }
        frame[hops] -= 1;
        if p.l4_offset == ETHERNET_BYTES + V4_BYTES {
            // RFC 1624
            let check = &mut frame[ETHERNET_BYTES + 10..ETHERNET_BYTES + 12];
            let sum = u32::from(u16::from_ne_bytes([check[0], check[1]])) + u32::from(0x0100_u16.to_be());
            check.copy_from_slice(&((sum + u32::from(sum >= 0xffff)) as u16).to_ne_bytes());
        }
        frame[..6].copy_from_slice(&to.mac);
        frame[6..12].copy_from_slice(&to.gateway_mac);
        Some((to.ifindex, frame))
    }

    /// To the other pod's device at once.
    pub(super) fn bring(&self, ifindex: u32, frame: Vec<u8>, mark: u32) -> Action {
        self.count(COUNT_HIT);
        self.count(COUNT_DIRECT);
        Action::Direct { ifindex, mark: mark & !MARK_MASK | MARK_DIRECT, frame }
    }
}
