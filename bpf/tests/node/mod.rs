//! A node of one port in a network namespace of its own: its device is the loopback, so what the port's pod would send are
//! datagrams to 127.0.0.1, which a hook judges like any others. The trunk is a real pair of devices; no worker serves.

use bytemuck::Zeroable;
use sluice_bpf::abi::{PORT_ISOLATED_EGRESS, PORT_ISOLATED_INGRESS, PORT_OPEN};
use sluice_bpf::testing::other::{self, Other};
use sluice_bpf::{ABI_VERSION, LoadOptions, Loaded, abi};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const PORT: u32 = 5;
pub(crate) const INCARNATION: u32 = 3;
pub(crate) const EPOCH: u32 = 11;
pub(crate) const DENY_EPOCH: u32 = 4;
pub(crate) const LO: u32 = 1;
const UDP: u8 = 17;
const HOUR_NS: u64 = 3_600_000_000_000;
/// From and to.
pub(crate) const ALLOWED: [u16; 2] = [4000, 5000];
pub(crate) const UNKNOWN: [u16; 2] = [4001, 5001];
pub(crate) const DENIED: [u16; 2] = [4002, 5002];

/// Whether these tests can run; says so where they cannot.
pub(crate) fn root_and_bpffs() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    let mounted = std::fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" /sys/fs/bpf bpf "));
    if !(root && mounted) {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root with bpffs mounted at /sys/fs/bpf");
        eprintln!("SKIPPED: needs root and bpffs at /sys/fs/bpf");
    }
    root && mounted
}

/// Runs a test in a namespace with a trunk; it is told the ifindex of either end.
pub(crate) fn on_a_node(test: impl FnOnce(Node) + Send) {
    if !root_and_bpffs() {
        return;
    }
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let bpf_dir = PathBuf::from(format!("/sys/fs/bpf/sluice-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let run = || {
        // SAFETY: this thread holds no file system or namespace state that another one relies on, and ends here.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network namespace");
        // as the dataplane's own trunks: nothing but punts
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("no IPv6 on the trunk");
        ip("link set lo up");
        ip("link add near type veth peer name far");
        let offload = Command::new("ethtool").args(["-K", "near", "gro", "on", "tx", "off"]).output().expect("ethtool");
        assert!(offload.status.success(), "{offload:?}");
        ip("link set near up");
        ip("link set far up");
        let index = |name: &str| -> u32 {
            let shown = Command::new("ip").args(["-o", "link", "show", name]).output().expect("iproute2").stdout;
            String::from_utf8_lossy(&shown).split(':').next().expect("an index").parse().expect("a number")
        };
        test(Node { bpf_dir: bpf_dir.clone(), near: index("near"), far: index("far") });
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    let _ = std::fs::remove_dir_all(&bpf_dir);
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// Links that are no device's: not swapped, replaced.
const OF_THE_NODE: [&str; 2] = ["node-4-unjudged", "node-6-unjudged"];

/// Where a test takes place.
pub(crate) struct Node {
    pub(crate) bpf_dir: PathBuf,
    pub(crate) near: u32,
    pub(crate) far: u32,
}

impl Node {
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            bpf_dir: self.bpf_dir.clone(),
            cache_entries: 1000,
            denial_entries: 1000,
            origin_entries: 1000,
            fail_open: false,
            every_packet: false,
            new_flows_per_second: None,
        }
    }

    pub(crate) fn own(&self) -> PathBuf {
        self.bpf_dir.join(format!("v{ABI_VERSION}"))
    }

    /// A dataplane of the other version that has served, hooked its devices and died.
    pub(crate) fn other(&self) -> Other {
        let other = self.unhooked();
        for (link, ifindex) in self.links() {
            other.attach(&link, ifindex);
        }
        OF_THE_NODE.iter().for_each(|link| other.attach(link, 0));
        other
    }

    /// The same without links.
    pub(crate) fn unhooked(&self) -> Other {
        self.unhooked_with(1000)
    }

    /// The same with room for so many entries.
    pub(crate) fn unhooked_with(&self, entries: u32) -> Other {
        let other = Other::load(&self.bpf_dir, entries);
        other.put("ports", &PORT, &self.their_port());
        other.put("port_of_ifindex", &LO, &PORT);
        other.put("worker_of_trunk", &self.far, &0u32);
        other.put("cache", &their_key(ALLOWED), &their_value(1000));
        let denial = other::Denial { deny_epoch: DENY_EPOCH, ..Zeroable::zeroed() };
        other.put("denials", &other::Key { sport: 0, ..their_key(DENIED) }, &denial);
        other
    }

    pub(crate) fn links(&self) -> [(String, u32); 4] {
        let named = |name: &str, ifindex| (name.to_owned(), ifindex);
        [named("device-1-entering", LO), named("device-1-leaving", LO), named("trunk-0-far", self.far), named("trunk-0-near", self.near)]
    }

    pub(crate) fn their_port(&self) -> other::Port {
        let isolated = PORT_OPEN | PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS;
        other::Port {
            ifindex: LO,
            incarnation: INCARNATION,
            epoch: EPOCH,
            deny_epoch: DENY_EPOCH,
            state: abi::Port::state_word(INCARNATION, isolated),
            trunk_ifindex: self.near,
            ip4: [127, 0, 0, 1],
            has_ip6: 1,
            ip6: [7; 16],
            ..Zeroable::zeroed()
        }
    }

    /// Nothing of another version is left, and every link is ours.
    pub(crate) fn assert_alone(&self, loaded: &Loaded) {
        assert_eq!(names(&self.bpf_dir), [format!("v{ABI_VERSION}")]);
        let mut links: Vec<String> = self.links().into_iter().map(|(name, _)| name).chain(OF_THE_NODE.map(str::to_owned)).collect();
        links.sort();
        assert_eq!(names(&self.own().join("links")), links);
        assert!(loaded.attached(sluice_bpf::Hooks::Device, LO) && loaded.attached(sluice_bpf::Hooks::Far(0), self.far));
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mapped(address: Ipv4Addr) -> [u8; 16] {
    address.to_ipv6_mapped().octets()
}

pub(crate) fn their_key([sport, dport]: [u16; 2]) -> other::Key {
    let (src, dst) = (mapped(Ipv4Addr::LOCALHOST), mapped(Ipv4Addr::LOCALHOST));
    other::Key { incarnation: INCARNATION, port: PORT as u16, direction: 1, protocol: UDP, src, dst, sport, dport }
}

pub(crate) fn our_key([sport, dport]: [u16; 2]) -> abi::Key {
    let (src, dst) = (mapped(Ipv4Addr::LOCALHOST), mapped(Ipv4Addr::LOCALHOST));
    abi::Key { incarnation: INCARNATION, port: PORT as u16, direction: 1, protocol: UDP, src, dst, sport, dport }
}

/// Allows for ever.
pub(crate) fn their_value(packets: u64) -> other::CacheValue {
    let (verdict, last_seen_ns) = (abi::CACHE_ALLOW, 1);
    other::CacheValue {
        epoch: EPOCH,
        verdict,
        timeout_ns: 1000 * HOUR_NS,
        packets,
        last_seen_ns,
        rule: 9,
        generation: 8,
        ..Zeroable::zeroed()
    }
}

/// Datagrams of one flow that is allowed, and of two that are not, until it is stopped.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sent>,
}

/// Of each flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sent {
    pub(crate) allowed: u64,
    pub(crate) lost: u64,
    pub(crate) forbidden: u64,
    pub(crate) leaked: u64,
}

impl Traffic {
    pub(crate) fn start() -> Self {
        let stop = Arc::<AtomicBool>::default();
        let seen = stop.clone();
        let thread = std::thread::spawn(move || send(&seen));
        Self { stop, thread }
    }

    pub(crate) fn finish(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn send(stop: &AtomicBool) -> Sent {
    let socket = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let [allowed, unknown, denied] = [ALLOWED, UNKNOWN, DENIED].map(|[from, to]| (socket(from), socket(to), to));
    allowed.1.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut sent, mut buffer) = (Sent::default(), [0; 8]);
    while !stop.load(Ordering::Relaxed) {
        sent.allowed += 1;
        allowed.0.send_to(&sent.allowed.to_ne_bytes(), (Ipv4Addr::LOCALHOST, allowed.2)).unwrap();
        let arrived = allowed.1.recv(&mut buffer).is_ok() && buffer == sent.allowed.to_ne_bytes();
        sent.lost += u64::from(!arrived);
        for forbidden in [&unknown, &denied] {
            sent.forbidden += 1;
            forbidden.0.send_to(b"unjudged", (Ipv4Addr::LOCALHOST, forbidden.2)).unwrap();
        }
    }
    // the last one may still be on its way
    std::thread::sleep(Duration::from_millis(50));
    for forbidden in [&unknown, &denied] {
        forbidden.1.set_nonblocking(true).unwrap();
        while forbidden.1.recv(&mut buffer).is_ok() {
            sent.leaked += 1;
        }
    }
    sent
}
