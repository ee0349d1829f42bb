//! The programs `far` and `near` at the two ends of a worker's trunk.

use super::parse::{ETHERNET_BYTES, load};
use crate::kernel::{Kernel, MemoryKernel};
use sluice_bpf::abi::{
    COUNT_BOUNCED, DEPARTURE, KIND_PUNT, KIND_VERDICT, MARK_DEFERRED, MARK_DIRECT, MARK_JUDGED_EGRESS, MARK_JUDGED_INGRESS, MARK_MASK,
    PORTS_MAX, Port, TRUNK_BYTES, TRUNK_DEFERRED, TRUNK_DIRECT, TRUNK_ENTERED, TRUNK_MAGIC, TrunkHeader,
};
use sluice_flow::{Direction, DropReason};

/// What the far end of a trunk does with a punt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// Into the worker's socket.
    Worker,
    /// Back to the near end: nobody serves.
    Bounced,
    /// It ends here; it has been counted.
    Drop(DropReason),
}

/// What the near end of a trunk does with what comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Near {
    /// To the hook it came from.
    Redirect {
        /// The pod's device, or the one by which it departs.
        ifindex: u32,
        /// Which of its hooks.
        direction: Direction,
        /// With this mark.
        mark: u32,
        /// Without the trunk header.
        frame: Vec<u8>,
    },
    /// It ends here; it has been counted.
    Drop(DropReason),
}

impl MemoryKernel {
    /// The program `far` on the trunk of `worker`.
    pub fn far(&self, worker: u32, frame: &[u8]) -> Far {
        let drop = |reason| {
            self.count(reason as usize);
            Far::Drop(reason)
        };
        match header_of(frame) {
            Some(header) if header.kind == KIND_PUNT => match u32::from(header.worker) == worker {
                false => drop(DropReason::WrongWorker),
                true if self.sockets.borrow().contains(&worker) => Far::Worker,
                true => Far::Bounced,
            },
            _ => drop(DropReason::TrunkHeader),
        }
    }

    /// The program `near` on the trunk whose host end is `ifindex`.
    pub fn near(&self, ifindex: u32, frame: &[u8]) -> Near {
        let drop = |reason| {
            self.count(reason as usize);
            Near::Drop(reason)
        };
        let inner = frame.get(TRUNK_BYTES..).filter(|inner| inner.len() >= ETHERNET_BYTES);
        let (Some(header), Some(inner)) = (header_of(frame), inner) else { return drop(DropReason::TrunkHeader) };
        match header.kind {
            KIND_PUNT => {
                // nobody judged it
                self.count(COUNT_BOUNCED);
                if !self.fail_open.get() {
                    return drop(DropReason::NoWorker);
                }
            }
            KIND_VERDICT => {}
            _ => return drop(DropReason::TrunkHeader),
        }
        let port = (usize::from(header.port) < PORTS_MAX).then(|| self.port(usize::from(header.port)));
        let same = |port: &Port| port.ifindex != 0 && port.incarnation == header.incarnation && port.trunk_ifindex == ifindex;
        let Some(port) = port.filter(same) else { return drop(DropReason::StalePort) };
        if header.direction == DEPARTURE {
            return match self.is_known(header.exit_ifindex) {
                // where it was about to go
                true => Near::Redirect {
                    ifindex: header.exit_ifindex,
                    direction: Direction::Ingress,
                    mark: header.mark & !MARK_MASK,
                    frame: inner.to_vec(),
                },
                false => drop(DropReason::StalePort),
            };
        }
        if header.flags & TRUNK_DIRECT != 0 {
            if !self.port_of_ifindex.borrow().contains_key(&header.exit_ifindex) {
                return drop(DropReason::StalePort);
            }
            let entered = if header.flags & TRUNK_ENTERED != 0 { MARK_JUDGED_INGRESS } else { 0 };
            let mark = header.mark & !MARK_MASK | MARK_DIRECT | entered;
            return Near::Redirect { ifindex: header.exit_ifindex, direction: Direction::Ingress, mark, frame: inner.to_vec() };
        }
        let deferred = if header.flags & TRUNK_DEFERRED != 0 { MARK_DEFERRED } else { 0 };
        let (direction, judged) = match header.direction == Direction::Egress as u8 {
            true => (Direction::Egress, MARK_JUDGED_EGRESS),
            false => (Direction::Ingress, MARK_JUDGED_INGRESS),
        };
        let mark = header.mark & !MARK_MASK | deferred | judged;
        Near::Redirect { ifindex: port.ifindex, direction, mark, frame: inner.to_vec() }
    }
}

/// A trunk header of this ABI.
fn header_of(frame: &[u8]) -> Option<TrunkHeader> {
    let header: TrunkHeader = bytemuck::pod_read_unaligned(&load::<TRUNK_BYTES>(frame, 0)?);
    (header.magic == TRUNK_MAGIC && u32::from(header.version) == sluice_bpf::ABI_VERSION).then_some(header)
}
