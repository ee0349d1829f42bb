//! The questions: every line that some object draws, touched on both sides.

use crate::oracle::{Oracle, Rule};
use crate::snapshot::Snapshot;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Protocol};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of the documentation ranges (RFC 5737, RFC 3849): outside of every cluster.
const OUTSIDE: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xc8)),
];

/// Remote addresses, and what to ask of each.
pub(super) struct Probes {
    remotes: Vec<IpAddr>,
    /// The last one stands for all protocols without ports.
    ports: Vec<(Option<Protocol>, u16)>,
}

impl Probes {
    pub(super) fn of(oracle: &Oracle<'_>, snapshot: &Snapshot) -> Self {
        let mut remotes: BTreeSet<IpAddr> = oracle.addresses().chain(OUTSIDE).collect();
        // also those that no longer count: of ended pods, and of endpoints whose pod is not known yet
        remotes.extend(snapshot.pods.keys().flat_map(|pod| oracle.stated_addresses_of(pod)));
        remotes.extend(snapshot.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().map(IpAddr::to_canonical)));
        let mut numbers = BTreeSet::from([0, 1, u16::MAX]);
        let mut names = BTreeSet::new();
        for (name, policy) in &snapshot.policies {
            for rule in Direction::BOTH.into_iter().flat_map(|direction| crate::oracle::rules(name, policy, direction)) {
                add_blocks(&rule, &mut remotes);
                add_ports(&rule, &mut numbers, &mut names);
            }
        }
        for (pod, name) in snapshot.pods.keys().flat_map(|pod| names.iter().map(move |name| (pod, *name))) {
            for protocol in Protocol::WITH_PORTS {
                oracle.named_ports(pod, name, protocol).into_iter().for_each(|number| add_number(number, &mut numbers));
            }
        }
        let with_ports = Protocol::WITH_PORTS.into_iter();
        let mut ports: Vec<_> = with_ports.flat_map(|protocol| numbers.iter().map(move |&number| (Some(protocol), number))).collect();
        ports.push((None, 0));
        Self { remotes: remotes.into_iter().collect(), ports }
    }

    /// Questions for one endpoint in one direction.
    pub(super) fn len(&self) -> u64 {
        self.remotes.len() as u64 * self.ports.len() as u64
    }

    /// Remotes that there are.
    pub(super) fn remotes_len(&self) -> u64 {
        self.remotes.len() as u64
    }

    /// The remotes to ask about, at most `max` of them.
    pub(super) fn remotes(&self, max: u64, seed: u64) -> impl Iterator<Item = IpAddr> {
        sample(self.remotes.len(), max, seed).map(|index| self.remotes[index])
    }

    /// What to ask about `remote`, at most `max` questions.
    pub(super) fn ports(&self, remote: IpAddr, max: u64, seed: u64) -> impl Iterator<Item = (Protocol, u16)> {
        let icmp = if remote.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        sample(self.ports.len(), max, seed).map(move |index| {
            let (protocol, port) = self.ports[index];
            (protocol.unwrap_or(icmp), port)
        })
    }
}

/// The numbers below `len`, or `max` of them: one out of each of as many equal stretches, where the seed decides.
fn sample(len: usize, max: u64, seed: u64) -> impl Iterator<Item = usize> {
    let len = len as u64;
    let count = max.min(len);
    (0..count).map(move |k| {
        let start = |k: u64| k * len / count;
        let (first, width) = (start(k), start(k + 1) - start(k));
        (first + mix(seed << 32 ^ k) % width) as usize
    })
}

/// SplitMix64's finaliser: neighbouring numbers become unrelated ones. Source: Steele, Lea, Flood, OOPSLA 2014.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn add_blocks(rule: &Rule<'_>, remotes: &mut BTreeSet<IpAddr>) {
    let blocks = rule.peers().iter().filter_map(|peer| peer.ip_block.as_ref());
    let texts = blocks.flat_map(|block| block.except.iter().flatten().chain([&block.cidr]));
    for net in texts.filter_map(|text| text.parse::<IpNet>().ok()) {
        let (first, last) = (net.network(), net.broadcast());
        remotes.extend([Some(first), Some(last), before(first), after(last)].into_iter().flatten().filter(on_the_wire));
    }
}

/// IPv4 in the disguise of IPv6 never gets past the parser.
fn on_the_wire(address: &IpAddr) -> bool {
    address.to_canonical() == *address
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_sub(1).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(v6) => u128::from(v6).checked_sub(1).map(|n| Ipv6Addr::from(n).into()),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|n| Ipv6Addr::from(n).into()),
    }
}

fn add_ports<'a>(rule: &Rule<'a>, numbers: &mut BTreeSet<u16>, names: &mut BTreeSet<&'a str>) {
    for entry in rule.ports() {
        match &entry.port {
            Some(IntOrString::Int(first)) => {
                add_number(*first, numbers);
                add_number(entry.end_port.unwrap_or(*first), numbers);
            }
            Some(IntOrString::String(name)) => {
                names.insert(name);
            }
            None => {}
        }
    }
}

/// The number and its neighbours.
fn add_number(number: i32, numbers: &mut BTreeSet<u16>) {
    let around = [number.saturating_sub(1), number, number.saturating_add(1)];
    numbers.extend(around.into_iter().filter_map(|number| u16::try_from(number).ok()));
}
