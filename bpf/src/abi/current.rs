//! The layouts in force.

use bytemuck::{Pod, Zeroable};

/// Of a generation number, as many bits as the cache keeps.
pub type Generation = u32;

/// One port, as the programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// Host's end; 0: the slot is free.
    pub ifindex: u32,
    /// Which use of the slot.
    pub incarnation: u32,
    /// Cache entries with another one are void.
    pub epoch: u32,
    /// Denials with another one are void.
    pub deny_epoch: u32,
    /// [`PORT_OPEN`] and the isolation bits.
    pub state: u32,
    /// The near end of the owner's trunk.
    pub trunk_ifindex: u32,
    /// The owner.
    pub worker: u16,
    /// Longest IP packet that may be brought there from another pod's device; 0: none, nor from there.
    pub direct_mtu: u16,
    /// The pod's MAC.
    pub mac: [u8; 6],
    /// The host's end's MAC.
    pub gateway_mac: [u8; 6],
    /// Network order; 0: none.
    pub ip4: [u8; 4],
    /// 0 or 1.
    pub has_ip6: u32,
    /// Network order.
    pub ip6: [u8; 16],
}

/// Key of cache, denials and origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Key {
    /// The port's.
    pub incarnation: u32,
    /// Port index.
    pub port: u16,
    /// 0 ingress, 1 egress.
    pub direction: u8,
    /// IP protocol.
    pub protocol: u8,
    /// IPv4 mapped.
    pub src: [u8; 16],
    /// IPv4 mapped.
    pub dst: [u8; 16],
    /// Host order.
    pub sport: u16,
    /// Host order.
    pub dport: u16,
}

/// Value of the verdict cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CacheValue {
    /// The port's when it was judged.
    pub epoch: u32,
    /// [`CACHE_ALLOW`], [`CACHE_ALLOW_DEFERRED`] or [`CACHE_DENY`].
    pub verdict: u8,
    /// `CACHE_FLAGS`.
    pub flags: u8,
    /// Seen in the kernel.
    pub tcp_flags: u8,
    /// 0.
    pub pad: u8,
    /// Void when idle for longer.
    pub timeout_ns: u64,
    /// Counted in the kernel.
    pub packets: u64,
    /// Counted in the kernel.
    pub bytes: u64,
    /// CLOCK_MONOTONIC, coarse.
    pub last_seen_ns: u64,
    /// Of `generation`.
    pub rule: u32,
    /// Low bits of the generation that judged it.
    pub generation: u32,
    /// The source before the node translated it, 0 where it did not.
    pub origin: [u8; 16],
    /// Leaving: straight to `out_port` until then; entering: the way is not shown again before.
    pub direct_until_ns: u64,
    /// The other pod's port.
    pub out_port: u16,
    /// 0.
    pub pad_end: [u8; 6],
}

/// Value of the denial cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Denial {
    /// The port's when it was judged.
    pub deny_epoch: u32,
    /// 0.
    pub pad: u32,
    /// Dropped by it.
    pub packets: u64,
    /// CLOCK_MONOTONIC, coarse.
    pub last_seen_ns: u64,
}

const _: () = assert!(size_of::<Port>() == 64);
const _: () = assert!(size_of::<Key>() == 44);
const _: () = assert!(size_of::<CacheValue>() == 80);
