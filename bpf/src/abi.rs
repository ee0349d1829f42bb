//! The layouts of `src/c/abi.h`. Field by field the same, which a test reads from the compiled programs' type information.
//!
//! Feature `abi-next` puts the layouts of `src/c/abi_next.h` in their place: the version that nobody ships, with which
//! upgrades are tested in both directions.

use bytemuck::{Pod, Zeroable};

#[cfg(any(not(feature = "abi-next"), feature = "load"))]
mod current;
#[cfg(any(feature = "abi-next", feature = "load"))]
mod next;

#[cfg(not(feature = "abi-next"))]
pub use current::{CacheValue, Denial, Generation, Key, Port};
#[cfg(feature = "abi-next")]
pub use next::{CacheValue, Denial, Generation, Key, Port};

/// The layouts of the version that this build is not, for tests.
#[cfg(feature = "load")]
pub(crate) mod other {
    #[cfg(feature = "abi-next")]
    pub use super::current::{CacheValue, Denial, Generation, Key, Port};
    #[cfg(not(feature = "abi-next"))]
    pub use super::next::{CacheValue, Denial, Generation, Key, Port};
}

/// See `SLUICE_TRUNK_MAGIC`.
pub const TRUNK_MAGIC: u16 = 0x5c1e;
/// Length of [`TrunkHeader`] on the wire.
pub const TRUNK_BYTES: usize = 56;
/// A hook asks.
pub const KIND_PUNT: u8 = 1;
/// A worker lets it pass.
pub const KIND_VERDICT: u8 = 2;
/// Flag: judged again where it departs.
pub const TRUNK_DEFERRED: u8 = 1;
/// Flag of a punt: the cache knows it, and a worker judges it all the same.
pub const TRUNK_HIT: u8 = 2;
/// Flag of both: made ready for another pod's device.
pub const TRUNK_DIRECT: u8 = 4;
/// Flag of a verdict: that pod's ingress has been judged, too.
pub const TRUNK_ENTERED: u8 = 8;
/// Flag of a punt, TCP without its SYN: as the kernel tracks it, of whoever opened the connection.
pub const TRUNK_ONWARD: u8 = 16;
/// The same, of the other end.
pub const TRUNK_BACK: u8 = 32;
/// An adopted table knows the pod.
pub const PORT_OPEN: u32 = 1;
/// Isolated for traffic entering it.
pub const PORT_ISOLATED_INGRESS: u32 = 2;
/// Isolated for traffic leaving it.
pub const PORT_ISOLATED_EGRESS: u32 = 4;
/// Every bit of a port's state there is.
pub const PORT_BITS: u32 = PORT_OPEN | PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS;
/// Where the incarnation begins in the state word.
pub const PORT_STATE_SHIFT: u32 = 8;
/// The bits of a packet's mark that are ours.
pub const MARK_MASK: u32 = 0xf000_0000;
/// Mark, one-shot: a worker let it enter its pod.
pub const MARK_JUDGED_INGRESS: u32 = 0x1000_0000;
/// Mark, one-shot: a worker let it leave its pod.
pub const MARK_JUDGED_EGRESS: u32 = 0x2000_0000;
/// Mark: delivered to this node, or judged where it departs.
pub const MARK_DEFERRED: u32 = 0x4000_0000;
/// Mark, one-shot: brought there by another pod's hook.
pub const MARK_DIRECT: u32 = 0x8000_0000;
/// Cached verdict: pass.
pub const CACHE_ALLOW: u8 = 1;
/// Cached verdict: pass, to this node or to be judged where it departs.
pub const CACHE_ALLOW_DEFERRED: u8 = 2;
/// Cached verdict: drop.
pub const CACHE_DENY: u8 = 3;
/// Every verdict there is.
pub const CACHE_VERDICTS: [u8; 3] = [CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_DENY];
/// Flag: made for answers.
pub const CACHE_REPLY: u8 = 1;
/// Flag: picked up in mid-flow, allowed only as long as it is so both ways.
pub const CACHE_BOTH_WAYS: u8 = 2;
/// Flag: judged by the source before the node translated it; another opener may come from elsewhere.
pub const CACHE_TRANSLATED: u8 = 4;
/// Every flag there is.
pub const CACHE_FLAGS: u8 = CACHE_REPLY | CACHE_BOTH_WAYS | CACHE_TRANSLATED;
/// A key's and a trunk header's direction where a packet departs; see `FlowKey::way`.
pub const DEPARTURE: u8 = 3;
/// Slots of the map of exits.
pub const EXITS_MAX: usize = 4096;
/// Slots of the port array.
pub const PORTS_MAX: usize = 256;
/// Slots of the socket map.
pub const WORKERS_MAX: usize = 16;
/// Slots of the counter array.
pub const COUNTERS: usize = 80;
/// Packets judged by the cache.
pub const COUNT_HIT: usize = 64;
/// Packets sent to a worker.
pub const COUNT_PUNT: usize = 65;
/// Packets of pods that no policy isolates.
pub const COUNT_NOT_ISOLATED: usize = 66;
/// Packets made by this node.
pub const COUNT_NODE: usize = 67;
/// Packets that came back with a verdict.
pub const COUNT_REINJECTED: usize = 68;
/// Punts that found no worker.
pub const COUNT_BOUNCED: usize = 69;
/// Entries that were there but void.
pub const COUNT_STALE: usize = 70;
/// Neighbour discovery and listener reports.
pub const COUNT_NEIGHBOUR: usize = 71;
/// Connections that the programs admitted by an allowance.
pub const COUNT_ADMITTED: usize = 72;
/// Packets brought straight to another pod's device; each is a hit too.
pub const COUNT_DIRECT: usize = 73;
/// Packets dropped on a NIC by a denial; each is a dropped packet too.
pub const COUNT_UPLINK: usize = 74;
/// Of a denial with protocol 0: it covers every protocol and port.
pub const EVERY_PORT: u16 = 65535;
/// Of an [`Opening`]: both entries of a connection were written.
pub const OPENING_ADMITTED: u8 = 1;
/// Of an [`Opening`]: one of TCP ended.
pub const OPENING_CLOSED: u8 = 2;
/// Room of a worker's ring.
pub const OPENINGS_BYTES: usize = 1 << 20;

/// What stands before a frame on the trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TrunkHeader {
    /// Fixed.
    pub dst: [u8; 6],
    /// Fixed.
    pub src: [u8; 6],
    /// The inner frame's, in network order.
    pub ethertype: [u8; 2],
    /// [`TRUNK_MAGIC`].
    pub magic: u16,
    /// [`crate::ABI_VERSION`].
    pub version: u8,
    /// [`KIND_PUNT`] or [`KIND_VERDICT`].
    pub kind: u8,
    /// 0 ingress, 1 egress, [`DEPARTURE`].
    pub direction: u8,
    /// [`TRUNK_DEFERRED`], [`TRUNK_HIT`], [`TRUNK_DIRECT`], [`TRUNK_ENTERED`], [`TRUNK_ONWARD`], [`TRUNK_BACK`].
    pub flags: u8,
    /// Port index.
    pub port: u16,
    /// The owner.
    pub worker: u16,
    /// The port's.
    pub incarnation: u32,
    /// The port's, read before judging.
    pub epoch: u32,
    /// The packet's own mark.
    pub mark: u32,
    /// Of a departure: by which device; of what goes directly: to which.
    pub exit_ifindex: u32,
    /// The source before the node translated it, 0 where it did not.
    pub origin: [u8; 16],
}

impl Port {
    /// The state word that opens this incarnation of a port with these bits.
    pub fn state_word(incarnation: u32, bits: u32) -> u32 {
        incarnation << PORT_STATE_SHIFT | bits
    }

    /// The state bits, none where they were set for another incarnation.
    pub fn state_bits(&self) -> u32 {
        let current = self.state >> PORT_STATE_SHIFT == self.incarnation & (u32::MAX >> PORT_STATE_SHIFT);
        if current { self.state & ((1 << PORT_STATE_SHIFT) - 1) } else { 0 }
    }
}

/// A port's share of workers, and its room for connections that the programs admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ration {
    /// Its new flows have been paid for until then.
    pub until_ns: u64,
    /// Packets beyond it.
    pub refused: u64,
    /// Connections that the programs ever admitted; wraps.
    pub made: u32,
    /// Those that its workers have heard of; wraps.
    pub learned: u32,
    /// None is admitted beyond; wraps.
    pub may: u32,
    /// 0.
    pub pad: u32,
    /// As `until_ns`, of what its worker was asked about.
    pub asked_until_ns: u64,
    /// Its worker found no room for more connections, and may look again then; 0 where it has plenty.
    pub full_until_ns: u64,
}

impl Ration {
    /// How many more the programs may admit; negative where a worker took room back.
    pub fn left(&self) -> i32 {
        self.may.wrapping_sub(self.made) as i32
    }
}

/// What a worker said of one new connection, for others that differ from it in the source port alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Allowance {
    /// Its own, without source port; of one that holds for a range of destination ports also without that.
    pub key: Key,
    /// The port's; every new table voids it.
    pub deny_epoch: u32,
    /// Of `generation`.
    pub rule: u32,
    /// Low bits of the generation that judged it.
    pub generation: u32,
    /// Of the entries to be made.
    pub timeout_ns: u64,
    /// [`CACHE_ALLOW`] or [`CACHE_ALLOW_DEFERRED`].
    pub verdict: u8,
    /// 0.
    pub pad: u8,
    /// Where the key has no destination port: from here.
    pub first_port: u16,
    /// To here.
    pub last_port: u16,
    /// 0.
    pub pad_end: [u8; 2],
}

/// A connection that closed, for the program `end` to take out of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ending {
    /// Of its first packet.
    pub key: Key,
    /// Not 0: another one has begun on its ports, and was left alone.
    pub again: u32,
    /// Both ways, as its entries counted at last.
    pub packets: u64,
    /// As packets.
    pub bytes: u64,
}

/// Of one worker in one run of the program `end`.
pub const ENDINGS_MAX: usize = 64;

/// What the programs tell a port's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Opening {
    /// Of the connection's first packet, or of the one that ended it.
    pub key: Key,
    /// [`OPENING_ADMITTED`] or [`OPENING_CLOSED`].
    pub kind: u8,
    /// By which it was admitted.
    pub verdict: u8,
    /// 0.
    pub pad: u16,
    /// CLOCK_MONOTONIC, coarse.
    pub at_ns: u64,
    /// Both ways, of the connection that had the same ports before and is over.
    pub packets: u64,
    /// As packets.
    pub bytes: u64,
}

/// Which packet in pieces; not where it stands among caches, since later pieces have no ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// The port's.
    pub incarnation: u32,
    /// Port index.
    pub port: u16,
    /// As in [`Key`].
    pub direction: u8,
    /// IPv6: 0, since later fragments do not tell.
    pub protocol: u8,
    /// IPv4 mapped.
    pub src: [u8; 16],
    /// IPv4 mapped.
    pub dst: [u8; 16],
    /// Host order.
    pub id: u32,
}

/// What the first fragment of a packet said that the cache let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Fragment {
    /// Host order.
    pub sport: u16,
    /// Host order.
    pub dport: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 0.
    pub pad: [u8; 3],
}

/// The one configuration record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// Not 0: packets pass while no worker serves.
    pub fail_open: u32,
    /// A port's share of workers: one new flow in so many nanoseconds on average; 0: as many as there are.
    pub new_flow_ns: u32,
    /// Not 0: also what the cache knows goes to workers.
    pub every_packet: u32,
    /// Not 0: TCP too goes straight from one pod's device to another's.
    pub direct_tcp: u32,
    /// Not 0: the kernel tracks connections here, and knows who opened those of TCP.
    pub tracked: u32,
    /// 0.
    pub reserved: [u32; 2],
}

const _: () = assert!(size_of::<TrunkHeader>() == TRUNK_BYTES);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    /// The `#define`s with plain numbers.
    fn defines() -> BTreeMap<&'static str, u64> {
        let number = |text: &str| match text.trim_end_matches('u').strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        include_str!("c/abi.h")
            .lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("#define SLUICE_")?.split_whitespace();
                Some((words.next()?, number(words.next()?)?))
            })
            .collect()
    }

    #[test]
    fn both_languages_agree_on_every_number() {
        let defines = defines();
        for (name, value) in [
            ("ABI_CURRENT", u64::from(crate::ABI_VERSION) - u64::from(cfg!(feature = "abi-next"))),
            ("PORTS_MAX", super::PORTS_MAX as u64),
            ("WORKERS_MAX", super::WORKERS_MAX as u64),
            ("EXTENSION_HEADERS_MAX", sluice_flow::limits::EXTENSION_HEADERS_MAX as u64),
            ("TRUNK_MAGIC", u64::from(super::TRUNK_MAGIC)),
            ("TRUNK_BYTES", super::TRUNK_BYTES as u64),
            ("KIND_PUNT", u64::from(super::KIND_PUNT)),
            ("KIND_VERDICT", u64::from(super::KIND_VERDICT)),
            ("TRUNK_DEFERRED", u64::from(super::TRUNK_DEFERRED)),
            ("TRUNK_HIT", u64::from(super::TRUNK_HIT)),
            ("TRUNK_DIRECT", u64::from(super::TRUNK_DIRECT)),
            ("TRUNK_ENTERED", u64::from(super::TRUNK_ENTERED)),
            ("TRUNK_ONWARD", u64::from(super::TRUNK_ONWARD)),
            ("TRUNK_BACK", u64::from(super::TRUNK_BACK)),
            ("PORT_OPEN", u64::from(super::PORT_OPEN)),
            ("PORT_ISOLATED_INGRESS", u64::from(super::PORT_ISOLATED_INGRESS)),
            ("PORT_ISOLATED_EGRESS", u64::from(super::PORT_ISOLATED_EGRESS)),
            ("PORT_STATE_SHIFT", u64::from(super::PORT_STATE_SHIFT)),
            ("MARK_MASK", u64::from(super::MARK_MASK)),
            ("MARK_JUDGED_INGRESS", u64::from(super::MARK_JUDGED_INGRESS)),
            ("MARK_JUDGED_EGRESS", u64::from(super::MARK_JUDGED_EGRESS)),
            ("MARK_DEFERRED", u64::from(super::MARK_DEFERRED)),
            ("CACHE_ALLOW", u64::from(super::CACHE_ALLOW)),
            ("CACHE_ALLOW_DEFERRED", u64::from(super::CACHE_ALLOW_DEFERRED)),
            ("CACHE_DENY", u64::from(super::CACHE_DENY)),
            ("CACHE_REPLY", u64::from(super::CACHE_REPLY)),
            ("CACHE_BOTH_WAYS", u64::from(super::CACHE_BOTH_WAYS)),
            ("CACHE_TRANSLATED", u64::from(super::CACHE_TRANSLATED)),
            ("DEPARTURE", u64::from(super::DEPARTURE)),
            ("EXITS_MAX", super::EXITS_MAX as u64),
            ("COUNTERS", super::COUNTERS as u64),
            ("COUNT_HIT", super::COUNT_HIT as u64),
            ("COUNT_NEIGHBOUR", super::COUNT_NEIGHBOUR as u64),
            ("MARK_DIRECT", u64::from(super::MARK_DIRECT)),
            ("COUNT_UPLINK", super::COUNT_UPLINK as u64),
            ("COUNT_DIRECT", super::COUNT_DIRECT as u64),
            ("COUNT_ADMITTED", super::COUNT_ADMITTED as u64),
            ("EVERY_PORT", u64::from(super::EVERY_PORT)),
            ("ENDINGS_MAX", super::ENDINGS_MAX as u64),
            ("OPENING_ADMITTED", u64::from(super::OPENING_ADMITTED)),
            ("OPENING_CLOSED", u64::from(super::OPENING_CLOSED)),
            ("ICMP_REQUEST", sluice_flow::IcmpClass::Request as u64),
            ("ICMP_REPLY", sluice_flow::IcmpClass::Reply as u64),
            ("INGRESS", sluice_flow::Direction::Ingress as u64),
            ("EGRESS", sluice_flow::Direction::Egress as u64),
        ] {
            assert_eq!(defines.get(name), Some(&value), "{name}");
        }
        assert_eq!(sluice_flow::FlowKey::of_way(super::DEPARTURE), Some((sluice_flow::Direction::Egress, true)));
        assert_eq!(super::PORTS_MAX, sluice_flow::limits::PORTS_MAX);
        assert_eq!(super::WORKERS_MAX, sluice_flow::limits::WORKERS_MAX);
    }

    #[test]
    fn drop_reasons_have_the_same_numbers() {
        let mut seen = 0;
        for (name, number) in defines() {
            if let Some(reason) = name.strip_prefix("DROP_") {
                let ours = sluice_flow::DropReason::from_number(number as u8).expect(name);
                assert_eq!(ours.name(), reason.to_lowercase());
                seen += 1;
            }
        }
        assert!(seen > 15, "the header was read");
    }
}
