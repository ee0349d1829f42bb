//! The real programs under `BPF_PROG_TEST_RUN`, for tests: one frame in, what became of it out. Needs root, no device.
//!
//! The objects are loaded as the build left them, without the dataplane's loader, so nothing is pinned. The parity test
//! of this crate compares them with the worker's parser; the dataplane's tests compare them with their twin in memory.
//! The binaries use nothing of this module.
//!
//! A test run takes place on the loopback device of the calling thread's network namespace, with a socket of its own: for
//! [`Hooks`] every packet without an ingress device is one that this node made.

pub mod other;
pub mod stack;

use crate::abi::{
    Allowance, COUNT_ADMITTED, COUNT_DIRECT, COUNT_STALE, COUNTERS, CacheValue, Config, Denial, Key, OPENINGS_BYTES, Opening, Port, Ration,
    TRUNK_BYTES, TrunkHeader,
};
use crate::layout::Layout;
use crate::ring::Ring;
use bytemuck::AnyBitPattern;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use sluice_flow::{Direction, DropReason};
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

static SLUICE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sluice.o"));
static PARSE_PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/parse_probe.o"));

/// Frames that a device can deliver and a test run takes: no less than an Ethernet header, no more than a page with its
/// headroom.
pub const RUNNABLE: std::ops::RangeInclusive<usize> = 14..=3500;
/// A test run takes every frame of this length (net/bpf/test_run.c).
pub const LONG_ENOUGH: usize = 54;
/// The loopback device: where test runs take place.
pub const IFINDEX: u32 = 1;
/// The slot of the port of [`Hooks`].
pub const PORT_INDEX: u16 = 5;

const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// Whether this process may load programs; says so where it may not.
///
/// # Panics
/// In CI, where these tests must run.
pub fn root() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        eprintln!("SKIPPED: needs root to run BPF programs");
    }
    root
}

/// How the compiler laid out a struct of `abi.h`.
///
/// # Panics
/// When no map holds it.
pub fn layout(name: &str) -> Layout {
    layout_in(SLUICE, name)
}

fn layout_in(object: &[u8], name: &str) -> Layout {
    let btf = Btf::from_raw("sluice", object).expect("the object is ours").expect("the compiler wrote types");
    let found = btf.type_by_name::<Struct<'_>>(name).unwrap_or_else(|| panic!("struct {name}"));
    Layout::of(&btf, found.type_id().into()).unwrap_or_else(|misfit| panic!("{name}: {misfit}"))
}

fn load(bytes: &[u8]) -> Object {
    let mut open = ObjectBuilder::default().open_memory(bytes).expect("the object is ours");
    for mut map in open.maps_mut() {
        if ["cache", "denials", "origins", "fragments", "allowances"].iter().any(|name| map.name() == *name) {
            map.set_max_entries(64).expect("before loading");
        }
    }
    open.load().expect("the verifier accepts the programs")
}

/// A program that lets everything pass, in front of all others at a device's egress, until it is dropped.
#[derive(Debug)]
pub struct Intruder {
    link: PathBuf,
    _object: Object,
}

impl Intruder {
    /// On this device of the calling thread's network namespace; its pin lies in `directory`, on bpffs.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn on(ifindex: u32, directory: &Path) -> Self {
        // at an exit nothing is deferred to, ours lets everything pass
        let object = load(SLUICE);
        let link = directory.join(format!("intruder-{ifindex}"));
        {
            let program = object.progs_mut().find(|program| program.name() == "exiting").expect("a program of this name");
            crate::links::pin_tcx(&program, ifindex, &link).unwrap_or_else(|error| panic!("{error}"));
        }
        Self { link, _object: object }
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.link);
    }
}

/// What a program is told of a frame beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// The packet's mark.
    pub mark: u32,
    /// The device it came in by, 0 for none.
    pub ingress_ifindex: u32,
    /// Segments that it is still to be cut into, 0 for a whole packet.
    pub gso_segs: u32,
}

impl Context {
    const MARK_AT: usize = 8;

    /// `__sk_buff` up to `gso_segs`.
    fn bytes(self) -> [u8; 168] {
        let mut bytes = [0; 168];
        bytes[Self::MARK_AT..12].copy_from_slice(&self.mark.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.ingress_ifindex.to_ne_bytes());
        bytes[164..168].copy_from_slice(&self.gso_segs.to_ne_bytes());
        bytes
    }
}

/// What a program left of a frame.
struct Ran {
    action: i32,
    frame: Vec<u8>,
    mark: u32,
}

fn run(object: &Object, program: &str, frame: &[u8], context: Context) -> Ran {
    let program = object.progs_mut().find(|found| found.name() == program).expect("a program of this name");
    let (mut context, mut context_out, mut out) = (context.bytes(), [0; 192], vec![0; frame.len() + TRUNK_BYTES]);
    let input = ProgramInput {
        context_in: Some(&mut context),
        context_out: Some(&mut context_out),
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..ProgramInput::default()
    };
    let output = program.test_run(input).unwrap_or_else(|error| panic!("{} bytes {frame:02x?}: {error}", frame.len()));
    let (action, frame) = (output.return_value as i32, output.data.map(|data| data.to_vec()).unwrap_or_default());
    let mark = context_out[Context::MARK_AT..].first_chunk().expect("192 bytes");
    Ran { action, frame, mark: u32::from_ne_bytes(*mark) }
}

/// What the BPF parser makes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Dropped by the parser.
    Refused(DropReason),
    /// Not IP: the guard's.
    Arp,
    /// A later fragment: it follows the first of this identification.
    Later {
        /// Without ports; of IPv6 without protocol.
        key: Key,
        /// Its packet's.
        id: u32,
    },
    /// The cache may be asked.
    Keyed {
        /// Port, incarnation and direction are 0.
        key: Key,
        /// TCP: SYN without ACK.
        opens: bool,
        /// TCP: all of them.
        tcp_flags: u8,
        /// A first fragment: its packet's identification.
        first: Option<u32>,
    },
    /// Left to the worker.
    Unkeyed,
}

/// The parser of the hooks.
#[derive(Debug)]
pub struct Parser(Object);

impl Parser {
    /// Loads it.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn load() -> Self {
        Self(load(PARSE_PROBE))
    }

    /// A frame as it is.
    ///
    /// # Panics
    /// When it is not [`RUNNABLE`].
    pub fn parse(&self, frame: &[u8]) -> Parsed {
        self.parse_segments(frame, 0)
    }

    /// A frame that the kernel will cut into so many.
    ///
    /// # Panics
    /// When it is not [`RUNNABLE`].
    pub fn parse_segments(&self, frame: &[u8], gso_segs: u32) -> Parsed {
        let mut padded = frame.to_vec();
        padded.resize(frame.len().max(LONG_ENOUGH), 0);
        let mark = if padded.len() > frame.len() { frame.len() as u32 } else { 0 };
        let ran = run(&self.0, "parse_probe", &padded, Context { mark, gso_segs, ..Context::default() });
        assert_eq!(ran.action, 0, "the padding came off");
        let map = self.0.maps().find(|map| map.name() == "probed").expect("the probe's map");
        let found = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).expect("a lookup").expect("an array's entry");
        let (key, rest) = found.split_at(size_of::<Key>());
        let verdict = i32::from_ne_bytes(*rest.first_chunk().expect("struct probed"));
        let id = u32::from_ne_bytes(*rest[12..].first_chunk().expect("struct probed"));
        let [keyed, fragment, opens, tcp_flags] = *rest[6..].first_chunk().expect("struct probed");
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            _ if verdict != 0 => Parsed::Refused(reason(-verdict)),
            0x0806 => Parsed::Arp,
            _ if fragment == 2 => Parsed::Later { key: bytemuck::pod_read_unaligned(key), id },
            _ if keyed != 0 => {
                let first = (fragment == 1).then_some(id);
                Parsed::Keyed { key: bytemuck::pod_read_unaligned(key), opens: opens != 0, tcp_flags, first }
            }
            _ => Parsed::Unkeyed,
        }
    }
}

fn reason(number: i32) -> DropReason {
    u8::try_from(number).ok().and_then(DropReason::from_number).unwrap_or_else(|| panic!("{number} is no drop reason"))
}

/// What a hook did with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// On its way, with the one counter that says why.
    Passed(usize),
    /// Dropped under this name.
    Dropped(DropReason),
    /// To the worker: the trunk's header and the frame.
    Punted(Vec<u8>),
    /// Straight to another pod's device, as it is sent there.
    Direct(Vec<u8>),
}

impl Fate {
    /// The trunk's header and the frame behind it, where it was punted.
    ///
    /// # Panics
    /// When what was punted is shorter than the header.
    pub fn punted(&self) -> Option<(TrunkHeader, &[u8])> {
        let Self::Punted(out) = self else { return None };
        let (header, inner) = out.split_at(TRUNK_BYTES);
        Some((bytemuck::pod_read_unaligned(header), inner))
    }
}

/// The hooks of one port, with empty caches and a ring for its worker.
#[derive(Debug)]
pub struct Hooks {
    object: Object,
    ring: Ring,
    /// After the last frame.
    counters: RefCell<Vec<u64>>,
}

impl Hooks {
    /// Loads both programs and enters `port` into the slot [`PORT_INDEX`] as the port of the device [`IFINDEX`].
    ///
    /// # Panics
    /// When the kernel refuses them.
    pub fn load(port: &Port) -> Self {
        let ring = Ring::create(OPENINGS_BYTES).expect("the kernel makes rings");
        let hooks = Self { object: load(SLUICE), ring, counters: RefCell::new(vec![0; COUNTERS]) };
        let fd = hooks.ring.as_fd().as_raw_fd();
        hooks.put("openings", &u32::from(port.worker).to_ne_bytes(), &fd.to_ne_bytes());
        hooks.put("port_of_ifindex", &IFINDEX.to_ne_bytes(), &u32::from(PORT_INDEX).to_ne_bytes());
        hooks.put("ports", &u32::from(PORT_INDEX).to_ne_bytes(), bytemuck::bytes_of(port));
        hooks
    }

    /// Those with a configuration.
    ///
    /// # Panics
    /// As [`Hooks::load`].
    pub fn load_with(port: &Port, config: &Config) -> Self {
        let hooks = Self::load(port);
        hooks.put("config", &[0; 4], bytemuck::bytes_of(config));
        hooks
    }

    fn put(&self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).unwrap_or_else(|error| panic!("{map}: {error}"));
    }

    fn map(&self, name: &str) -> libbpf_rs::Map<'_> {
        self.object.maps().find(|map| map.name() == name).unwrap_or_else(|| panic!("map {name}"))
    }

    /// Puts an entry into the verdict cache.
    ///
    /// # Panics
    /// When the cache, which is small here, is full.
    pub fn remember(&self, key: &Key, value: &CacheValue) {
        self.put("cache", bytemuck::bytes_of(key), bytemuck::bytes_of(value));
    }

    /// Takes an entry out of the verdict cache, as the programs left it.
    ///
    /// # Panics
    /// When there is none.
    pub fn forget(&self, key: &Key) -> CacheValue {
        self.take("cache", key)
    }

    /// Lets flows be admitted that differ from this one in the source port alone, so many at most from now on.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn allow(&self, allowance: &Allowance, room: u32) {
        self.change_ration(|ration| Ration { may: ration.made.wrapping_add(room), ..ration });
        self.put("allowances", bytemuck::bytes_of(&allowance.key), bytemuck::bytes_of(allowance));
    }

    /// Has the port be full until then once its room is used up; 0: it is not.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_full(&self, until_ns: u64) {
        self.change_ration(|ration| Ration { full_until_ns: until_ns, ..ration });
    }

    /// Until when it is.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn full_until_ns(&self) -> u64 {
        self.port_ration().full_until_ns
    }

    fn port_ration(&self) -> Ration {
        let index = u32::from(PORT_INDEX).to_ne_bytes();
        bytemuck::pod_read_unaligned(&self.map("rations").lookup(&index, MapFlags::ANY).expect("a lookup").expect("an array's entry"))
    }

    fn change_ration(&self, change: impl FnOnce(Ration) -> Ration) {
        self.put("rations", &u32::from(PORT_INDEX).to_ne_bytes(), bytemuck::bytes_of(&change(self.port_ration())));
    }

    /// Takes an allowance back.
    ///
    /// # Panics
    /// When there is none.
    pub fn disallow(&self, key: &Key) {
        self.map("allowances").delete(bytemuck::bytes_of(key)).expect("it was there");
    }

    /// What the hooks told the port's worker since this was last asked.
    pub fn openings(&self) -> Vec<Opening> {
        let mut openings = Vec::new();
        self.ring.consume(|opening| openings.push(opening));
        openings
    }

    /// Puts an entry into the denial cache.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn deny(&self, key: &Key, denial: &Denial) {
        self.put("denials", bytemuck::bytes_of(key), bytemuck::bytes_of(denial));
    }

    /// Takes an entry out of the denial cache, as the programs left it.
    ///
    /// # Panics
    /// When there is none.
    pub fn forgive(&self, key: &Key) -> Denial {
        self.take("denials", key)
    }

    fn take<V: AnyBitPattern>(&self, map: &str, key: &Key) -> V {
        let (map, key) = (self.map(map), bytemuck::bytes_of(key));
        let value = map.lookup(key, MapFlags::ANY).expect("a lookup").expect("it was there");
        map.delete(key).expect("it was there");
        bytemuck::pod_read_unaligned(&value)
    }

    /// The openers that were remembered since this was last asked.
    ///
    /// # Panics
    /// When the map cannot be read.
    pub fn take_origins(&self) -> Vec<Key> {
        let origins = self.map("origins");
        let keys: Vec<Vec<u8>> = origins.keys().collect();
        keys.iter().for_each(|key| origins.delete(key).expect("it was there"));
        keys.iter().map(|key| bytemuck::pod_read_unaligned(key)).collect()
    }

    /// Runs a hook on a frame; one that enters came from another device.
    ///
    /// # Panics
    /// See [`Hooks::run_with`].
    pub fn run(&self, direction: Direction, frame: &[u8]) -> Fate {
        let ingress_ifindex = if direction == Direction::Ingress { IFINDEX } else { 0 };
        self.run_with(direction, frame, Context { ingress_ifindex, ..Context::default() }).0
    }

    /// Runs a hook on a frame. Also returns the packet's mark afterwards.
    ///
    /// # Panics
    /// When the frame is shorter than [`LONG_ENOUGH`], or was not passed, dropped or punted under exactly one counter
    /// (beside [`COUNT_STALE`], [`COUNT_ADMITTED`] and [`COUNT_DIRECT`], which a punt, a pass and a hit may raise too).
    pub fn run_with(&self, direction: Direction, frame: &[u8], context: Context) -> (Fate, u32) {
        let program = if direction == Direction::Egress { "leaving" } else { "entering" };
        let ran = run(&self.object, program, frame, context);
        let after = self.counters();
        let before = self.counters.replace(after.clone());
        let beside = [COUNT_STALE, COUNT_ADMITTED, COUNT_DIRECT];
        let changed = (0..after.len()).filter(|counter| after[*counter] != before[*counter] && !beside.contains(counter));
        let [counter] = changed.collect::<Vec<_>>()[..] else { panic!("{program} {frame:02x?}: {before:?} became {after:?}") };
        assert_eq!(after[counter], before[counter] + 1, "{program} {frame:02x?}: counter {counter}");
        let fate = match ran.action {
            TCX_NEXT => Fate::Passed(counter),
            TCX_DROP => Fate::Dropped(reason(counter as i32)),
            TC_ACT_REDIRECT if after[COUNT_DIRECT] != before[COUNT_DIRECT] => Fate::Direct(ran.frame),
            TC_ACT_REDIRECT => Fate::Punted(ran.frame),
            other => panic!("{program} {frame:02x?}: action {other}"),
        };
        (fate, ran.mark)
    }

    /// Whether the program on a NIC drops a frame that arrives there, for the port's address.
    ///
    /// # Panics
    /// When the program neither passes nor drops.
    pub fn drops_on_arrival(&self, frame: &[u8]) -> bool {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        let program = self.object.progs_mut().find(|found| found.name() == "uplink").expect("a program of this name");
        let mut out = vec![0; frame.len()];
        let input = ProgramInput { data_in: Some(frame), data_out: Some(&mut out), ..ProgramInput::default() };
        let action = program.test_run(input).unwrap_or_else(|error| panic!("{frame:02x?}: {error}")).return_value;
        self.counters.replace(self.counters());
        assert!([XDP_DROP, XDP_PASS].contains(&action), "{action}");
        action == XDP_DROP
    }

    /// Enters an address of the port for the program on NICs.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn enter_address(&self, address: &[u8; 16]) {
        self.put("port_of_address", address, &u32::from(PORT_INDEX).to_ne_bytes());
    }

    /// All counters, summed over CPUs.
    ///
    /// # Panics
    /// When the map cannot be read.
    pub fn counters(&self) -> Vec<u64> {
        let map = self.map("counters");
        let sum = |index: u32| -> u64 {
            let values = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).expect("a lookup").expect("an array's entry");
            values.iter().filter_map(|value| value.first_chunk()).map(|bytes| u64::from_ne_bytes(*bytes)).sum()
        };
        (0..COUNTERS as u32).map(sum).collect()
    }
}
