//! What stands in a port's slot: how an attachment is written into it, and how it is cleared.

use bytemuck::Zeroable;
use sluice_bpf::abi::Port;
use sluice_flow::{Addr, LocalEndpoint};

/// A pod's attachment, as far as the hooks care.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// Index, incarnation, addresses.
    pub endpoint: &'a LocalEndpoint,
    /// Host's end.
    pub host_ifindex: u32,
    /// The pod's.
    pub mac: [u8; 6],
    /// The host's end's.
    pub gateway_mac: [u8; 6],
    /// The owner.
    pub worker: u16,
    /// The near end of the owner's trunk.
    pub trunk_ifindex: u32,
}

impl Attachment<'_> {
    /// Its slot as the hooks see it; closed. Whatever an earlier use of the slot left in the caches is void, by incarnation
    /// and by epoch.
    pub fn slot(&self, previous: &Port) -> Port {
        let mut slot = Port {
            ifindex: self.host_ifindex,
            incarnation: self.endpoint.incarnation.0,
            epoch: previous.epoch.wrapping_add(1),
            deny_epoch: previous.deny_epoch.wrapping_add(1),
            state: 0,
            trunk_ifindex: self.trunk_ifindex,
            worker: self.worker,
            mac: self.mac,
            ip4: [0; 4],
            has_ip6: 0,
            ip6: [0; 16],
            gateway_mac: self.gateway_mac,
            ..Zeroable::zeroed()
        };
        for &address in &self.endpoint.addresses {
            let address = Addr::from(address);
            match address.to_v4() {
                Some(v4) => slot.ip4 = v4.to_be_bytes(),
                None => (slot.has_ip6, slot.ip6) = (1, address.0),
            }
        }
        slot
    }
}

/// A slot set free: nothing in the cache matches it any more.
pub fn cleared(slot: &Port) -> Port {
    Port { ifindex: 0, state: 0, direct_mtu: 0, epoch: slot.epoch.wrapping_add(1), ..*slot }
}
