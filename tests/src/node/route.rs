//! The node's own part of a packet's way: where it goes after it has left its pod.

use super::Node;
use sluice_flow::{Addr, PortIndex};

/// Where the node sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To a pod attached here.
    Pod(PortIndex),
    /// To the node itself.
    Node,
    /// Over the uplink.
    Uplink,
}

/// The destination of an IP packet, whatever stands behind its first header.
pub fn destination(frame: &[u8]) -> Option<Addr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => frame.get(30..34)?.first_chunk().map(|v4| Addr::v4(*v4)),
        [0x86, 0xdd] => frame.get(38..54)?.first_chunk().map(|v6| Addr(*v6)),
        _ => None,
    }
}

impl Node {
    /// Where a packet goes that has left its pod.
    pub fn route(&self, frame: &[u8]) -> Route {
        let Some(address) = destination(frame) else { return Route::Uplink };
        if self.kernel.node_addresses.borrow().contains(&address) {
            return Route::Node;
        }
        let here = self.attached.iter().find(|(_, at)| at.endpoint.addresses.iter().any(|own| Addr::from(*own) == address));
        match here {
            Some((port, _)) => Route::Pod(*port),
            None => Route::Uplink,
        }
    }

    /// The frame as the node's stack sends it to a pod: with new Ethernet addresses.
    pub fn addressed_to(&self, port: PortIndex, mut frame: Vec<u8>) -> Vec<u8> {
        if let (Some(at), Some(addresses)) = (self.attached.get(&port), frame.get_mut(..12)) {
            addresses[..6].copy_from_slice(&at.mac);
            addresses[6..].copy_from_slice(&super::GATEWAY_MAC);
        }
        frame
    }

    /// A packet's whole way from a pod: its leaving hook, the node's routing, and the entering hook of a pod attached here or
    /// the uplink's.
    pub fn carry(&mut self, from: PortIndex, frame: &[u8], now_ns: u64) -> Journey {
        let left = self.leaves(from, frame, now_ns);
        let (frame, deferred) = match &left {
            super::Fate::Passed(frame) => (frame.clone(), false),
            super::Fate::Deferred(frame) => (frame.clone(), true),
            super::Fate::Dropped(_) => return Journey { left, route: None, departed: None },
        };
        let route = self.route(&frame);
        let origin = super::Origin::Pod { port: from, deferred };
        let departed = match route {
            Route::Pod(to) => {
                let frame = self.addressed_to(to, frame);
                Some(self.enters(to, &frame, origin, now_ns))
            }
            Route::Uplink => Some(self.exits(&frame, origin, now_ns)),
            Route::Node => None,
        };
        Journey { left, route: Some(route), departed }
    }
}

/// What became of a packet at each stage of its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journey {
    /// At the hook of the pod that sent it.
    pub left: super::Fate,
    /// Where the node sent it, if it left.
    pub route: Option<Route>,
    /// At the hook of the pod it is for, or of the uplink.
    pub departed: Option<super::Fate>,
}

impl Journey {
    /// Whether it arrived: at a pod, at the node, or on the uplink.
    pub fn arrived(&self) -> bool {
        match self.route {
            Some(Route::Pod(_) | Route::Uplink) => matches!(self.departed, Some(super::Fate::Passed(_))),
            Some(Route::Node) => true,
            None => false,
        }
    }
}
