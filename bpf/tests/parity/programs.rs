//! The real programs under `BPF_PROG_TEST_RUN`: one frame in, what became of it out. Needs root, no device.
//!
//! The objects are loaded as the build left them, without the dataplane's loader, so nothing is pinned.

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use sluice_bpf::abi::{
    COUNTERS, CacheValue, KIND_PUNT, Key, PORT_ISOLATED_EGRESS, PORT_ISOLATED_INGRESS, PORT_OPEN, Port, TRUNK_BYTES, TrunkHeader,
};
use sluice_flow::{Direction, DropReason};
use sluice_frames::{Host, POD};
use std::cell::RefCell;

static SLUICE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sluice.o"));
static PARSE_PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/parse_probe.o"));

/// Frames that a device can deliver and a test run takes: no less than an Ethernet header, no more than a page with its
/// headroom.
pub(crate) const RUNNABLE: std::ops::RangeInclusive<usize> = 14..=3500;
/// A test run takes every frame of this length (net/bpf/test_run.c).
pub(crate) const LONG_ENOUGH: usize = 54;

const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
/// The loopback device: where test runs take place unless told otherwise.
const IFINDEX: u32 = 1;
const PORT_INDEX: u32 = 5;
const INCARNATION: u32 = 3;
const EPOCH: u32 = 11;

/// Whether this process may load programs; says so where it may not, which in CI is a failure.
pub(crate) fn root() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        eprintln!("SKIPPED: needs root to run BPF programs");
    }
    root
}

fn load(bytes: &[u8]) -> Object {
    let mut open = ObjectBuilder::default().open_memory(bytes).expect("the object is ours");
    for mut map in open.maps_mut() {
        if ["cache", "denials", "origins"].iter().any(|name| map.name() == *name) {
            map.set_max_entries(64).expect("before loading");
        }
    }
    open.load().expect("the verifier accepts the programs")
}

/// What a program is told of a frame beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    mark: u32,
    ingress_ifindex: u32,
    gso_segs: u32,
}

impl Context {
    /// `__sk_buff` up to `gso_segs`.
    fn bytes(self) -> [u8; 168] {
        let mut bytes = [0; 168];
        bytes[8..12].copy_from_slice(&self.mark.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.ingress_ifindex.to_ne_bytes());
        bytes[164..168].copy_from_slice(&self.gso_segs.to_ne_bytes());
        bytes
    }
}

fn run(object: &Object, program: &str, frame: &[u8], context: Context) -> (i32, Vec<u8>) {
    let program = object.progs_mut().find(|found| found.name() == program).expect("a program of this name");
    let (mut context, mut out) = (context.bytes(), vec![0; frame.len() + TRUNK_BYTES]);
    let input = ProgramInput { context_in: Some(&mut context), data_in: Some(frame), data_out: Some(&mut out), ..ProgramInput::default() };
    let output = program.test_run(input).unwrap_or_else(|error| panic!("{} bytes {frame:02x?}: {error}", frame.len()));
    (output.return_value as i32, output.data.map(|data| data.to_vec()).unwrap_or_default())
}

/// What the BPF parser makes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Dropped by the parser.
    Refused(DropReason),
    /// Not IP: the guard's.
    Arp,
    /// Dropped under every policy.
    Fragment,
    /// The cache may be asked. Port, incarnation and direction of the key are 0.
    Keyed { key: Key, opens: bool, tcp_flags: u8 },
    /// Left to the worker.
    Unkeyed,
}

/// The parser of the hooks.
pub(crate) struct Parser(Object);

impl Parser {
    pub(crate) fn load() -> Self {
        Self(load(PARSE_PROBE))
    }

    /// A frame as it is.
    pub(crate) fn parse(&self, frame: &[u8]) -> Parsed {
        self.parse_segments(frame, 0)
    }

    /// A frame that the kernel will cut into so many.
    pub(crate) fn parse_segments(&self, frame: &[u8], gso_segs: u32) -> Parsed {
        let mut padded = frame.to_vec();
        padded.resize(frame.len().max(LONG_ENOUGH), 0);
        let mark = if padded.len() > frame.len() { frame.len() as u32 } else { 0 };
        let (action, _) = run(&self.0, "parse_probe", &padded, Context { mark, gso_segs, ..Context::default() });
        assert_eq!(action, 0, "the padding came off");
        let map = self.0.maps().find(|map| map.name() == "probed").expect("the probe's map");
        let found = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().expect("an array's entry");
        let (key, rest) = found.split_at(size_of::<Key>());
        let verdict = i32::from_ne_bytes(*rest.first_chunk().expect("struct probed"));
        let [keyed, fragment, opens, tcp_flags] = *rest[6..].first_chunk().expect("struct probed");
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            _ if verdict != 0 => Parsed::Refused(reason(-verdict)),
            0x0806 => Parsed::Arp,
            _ if fragment != 0 => Parsed::Fragment,
            _ if keyed != 0 => Parsed::Keyed { key: bytemuck::pod_read_unaligned(key), opens: opens != 0, tcp_flags },
            _ => Parsed::Unkeyed,
        }
    }
}

fn reason(number: i32) -> DropReason {
    u8::try_from(number).ok().and_then(DropReason::from_number).unwrap_or_else(|| panic!("{number} is no drop reason"))
}

/// What a hook did with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// On its way, with the one counter that says why.
    Passed(usize),
    /// Dropped under this name.
    Dropped(DropReason),
    /// To the worker: these bytes behind the trunk's header.
    Punted(Vec<u8>),
}

/// Which traffic a policy isolates the port of [`Hooks`] from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolated {
    /// No policy.
    No,
    /// Both directions.
    BothWays,
}

/// The hooks of one port, with an empty cache.
pub(crate) struct Hooks {
    object: Object,
    /// After the last frame.
    counters: RefCell<Vec<u64>>,
}

impl Hooks {
    /// `owner` is the pod behind the port.
    pub(crate) fn load(owner: Host, isolated: Isolated) -> Self {
        let hooks = Self { object: load(SLUICE), counters: RefCell::new(vec![0; COUNTERS]) };
        let bits = match isolated {
            Isolated::No => PORT_OPEN,
            Isolated::BothWays => PORT_OPEN | PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS,
        };
        let port = Port {
            ifindex: IFINDEX,
            incarnation: INCARNATION,
            epoch: EPOCH,
            deny_epoch: 0,
            state: Port::state_word(INCARNATION, bits),
            trunk_ifindex: 9,
            worker: 2,
            pad: 0,
            mac: POD.mac,
            gateway_mac: [0; 6],
            ip4: owner.v4,
            has_ip6: 1,
            ip6: owner.v6,
        };
        hooks.put("port_of_ifindex", &IFINDEX.to_ne_bytes(), &PORT_INDEX.to_ne_bytes());
        hooks.put("ports", &PORT_INDEX.to_ne_bytes(), bytemuck::bytes_of(&port));
        hooks
    }

    fn put(&self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).unwrap_or_else(|error| panic!("{map}: {error}"));
    }

    fn map(&self, name: &str) -> libbpf_rs::Map<'_> {
        self.object.maps().find(|map| map.name() == name).unwrap_or_else(|| panic!("map {name}"))
    }

    /// The key under which a cache entry of this port stands.
    pub(crate) fn key(&self, parsed: Key, direction: Direction) -> Key {
        Key { incarnation: INCARNATION, port: PORT_INDEX as u16, direction: direction as u8, ..parsed }
    }

    /// Lets the cache allow one key and nothing else.
    pub(crate) fn allow(&self, key: &Key) {
        const HOUR_NS: u64 = 3_600_000_000_000;
        let value = CacheValue {
            epoch: EPOCH,
            verdict: sluice_bpf::abi::CACHE_ALLOW,
            flags: 0,
            tcp_flags: 0,
            pad: 0,
            timeout_ns: HOUR_NS,
            packets: 0,
            bytes: 0,
            // never idle
            last_seen_ns: u64::MAX,
            rule: 0,
            generation: 0,
        };
        self.put("cache", bytemuck::bytes_of(key), bytemuck::bytes_of(&value));
    }

    /// Takes it back.
    pub(crate) fn forget(&self, key: &Key) {
        self.map("cache").delete(bytemuck::bytes_of(key)).expect("it was there");
    }

    /// Runs a hook on a frame; one that enters came from another device.
    ///
    /// # Panics
    /// When the frame was not passed, dropped or punted under exactly one counter, or was punted changed.
    pub(crate) fn run(&self, direction: Direction, frame: &[u8]) -> Fate {
        let (program, ingress) = match direction {
            Direction::Egress => ("leaving", 0),
            Direction::Ingress => ("entering", IFINDEX),
        };
        let (action, out) = run(&self.object, program, frame, Context { ingress_ifindex: ingress, ..Context::default() });
        let after = self.counters();
        let before = self.counters.replace(after.clone());
        let changed: Vec<usize> = (0..after.len()).filter(|&counter| after[counter] != before[counter]).collect();
        let [counter] = changed[..] else { panic!("{program} {frame:02x?}: counters {changed:?}") };
        match action {
            TCX_NEXT => Fate::Passed(counter),
            TCX_DROP => Fate::Dropped(reason(counter as i32)),
            TC_ACT_REDIRECT => Fate::Punted(unpunt(direction, &out)),
            other => panic!("{program} {frame:02x?}: action {other}"),
        }
    }

    fn counters(&self) -> Vec<u64> {
        let map = self.map("counters");
        let sum = |index: u32| -> u64 {
            let values = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).unwrap().expect("an array's entry");
            values.iter().filter_map(|value| value.first_chunk()).map(|bytes| u64::from_ne_bytes(*bytes)).sum()
        };
        (0..COUNTERS as u32).map(sum).collect()
    }
}

fn unpunt(direction: Direction, out: &[u8]) -> Vec<u8> {
    let (header, inner) = out.split_at(TRUNK_BYTES);
    let header: TrunkHeader = bytemuck::pod_read_unaligned(header);
    let said = (header.kind, header.direction, header.port, header.worker, header.incarnation, header.epoch);
    assert_eq!(said, (KIND_PUNT, direction as u8, PORT_INDEX as u16, 2, INCARNATION, EPOCH));
    inner.to_vec()
}
