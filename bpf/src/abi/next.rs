//! The layouts of `src/c/abi_next.h`: the version that nobody ships. What the fields mean stands in `current.rs`.
#![allow(missing_docs)]

use bytemuck::{Pod, Zeroable};

pub type Generation = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    pub mac: [u8; 6],
    pub worker: u16,
    pub trunk_ifindex: u32,
    pub state: u32,
    pub deny_epoch: u32,
    pub epoch: u32,
    pub incarnation: u32,
    pub ifindex: u32,
    pub has_ip6: u32,
    pub ip6: [u8; 16],
    pub ip4: [u8; 4],
    pub spare_ns: u64,
    pub spare: u32,
    pub direct_mtu: u16,
    pub gateway_mac: [u8; 6],
    pub pad: [u8; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Key {
    pub dst: [u8; 16],
    pub src: [u8; 16],
    pub dport: u16,
    pub sport: u16,
    pub protocol: u8,
    pub direction: u8,
    pub port: u16,
    pub incarnation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CacheValue {
    pub spare_ns: u64,
    pub generation: Generation,
    pub last_seen_ns: u64,
    pub bytes: u64,
    pub packets: u64,
    pub timeout_ns: u64,
    pub origin: [u8; 16],
    pub rule: u32,
    pub epoch: u32,
    pub tcp_flags: u8,
    pub flags: u8,
    pub verdict: u8,
    pub pad: [u8; 3],
    pub out_port: u16,
    pub direct_until_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Denial {
    pub last_seen_ns: u64,
    pub packets: u64,
    pub pad: u32,
    pub deny_epoch: u32,
}
