//! Identities and prefixes in BPF maps: an address has a label in an LPM trie, and each pod and direction a trie of what
//! it allows to a label.
//!
//! The program answers a stretch of queries in one run of `BPF_PROG_TEST_RUN`, so that the system call is spread over all
//! of them. Queries and answers lie in memory that both sides map. Needs root.

use super::backend::{Backend, Ways};
use super::labelled::{Labelled, PortRange};
use super::query::{Kind, Query};
use super::report::Built;
use super::resolved::{Resolved, side_index};
use anyhow::{Context, Result, ensure};
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, ProgramInput};
use rustix::mm::{MapFlags as Mapping, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

pub(super) const NAME: &str = "labels in BPF maps";

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lookup.bpf.o"));
const QUESTIONS_MAX: usize = 1 << 17;
const SIDES_MAX: usize = 512;
const ALLOWED_MAX: u32 = 4_194_304;
/// `BPF_F_NO_PREALLOC`, which tries demand.
const NO_PREALLOC: u32 = 1;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Question {
    address: [u8; 4],
    side: u16,
    port: [u8; 2],
    protocol: u8,
    padding: [u8; 3],
}

/// `struct shared` of lookup.bpf.c.
#[repr(C)]
struct Shared {
    first: u32,
    count: u32,
    padding: [u32; 2],
    isolated: [u8; SIDES_MAX],
    questions: [Question; QUESTIONS_MAX],
    passes: [u8; QUESTIONS_MAX],
}

/// See the module.
pub(super) struct Maps {
    object: Object,
    shared: *mut Shared,
    /// The kernel keeps them as long as the outer map; these are only descriptors.
    _allowed: Vec<MapHandle>,
}

impl Drop for Maps {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` at this length, and used by nobody after.
        let _ = unsafe { munmap(self.shared.cast(), size_of::<Shared>()) };
    }
}

impl Maps {
    /// Loads the program and fills the maps.
    ///
    /// # Errors
    ///
    /// This process may not load programs, or a map refuses an entry.
    pub(super) fn of(resolved: &Resolved) -> Result<(Self, Built)> {
        crate::progress::progress("labels in BPF maps: building");
        let start = Instant::now();
        let Labelled { prefixes, allowed, isolated } = Labelled::of(resolved);
        ensure!(isolated.len() <= SIDES_MAX, "{} sides, at most {SIDES_MAX}", isolated.len());
        let options = bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as _, map_flags: NO_PREALLOC, ..Default::default() };
        let create = || MapHandle::create(MapType::LpmTrie, Some("allowed"), 12, 4, ALLOWED_MAX, &options);
        let sides: Vec<MapHandle> = isolated.iter().map(|_| create()).collect::<Result<_, _>>().context("a map for each side")?;
        let mut open = ObjectBuilder::default().open_memory(OBJECT).context("the object")?;
        let template = sides.first().context("no side")?;
        let mut outer = open.maps_mut().find(|map| map.name() == "allowed").context("the map of maps")?;
        outer.set_inner_map_fd(template.as_fd()).context("the inner map")?;
        let object = open.load().context("loading the program (needs root)")?;
        let map = |name: &str| object.maps().find(|map| map.name().to_string_lossy().ends_with(name)).context("a map");
        let outer = map("allowed")?;
        // all at once: after each change of a map of maps the kernel waits for every running program
        let numbers: Vec<u8> = (0..sides.len() as u32).flat_map(u32::to_ne_bytes).collect();
        let descriptors: Vec<u8> = sides.iter().flat_map(|inner| inner.as_fd().as_raw_fd().to_ne_bytes()).collect();
        outer.update_batch(&numbers, &descriptors, sides.len() as u32, MapFlags::ANY, MapFlags::ANY).context("the sides")?;
        let labels = map("labels")?;
        for &((address, length), label) in &prefixes {
            let key = [u32::from(length).to_ne_bytes(), address.to_be_bytes()].concat();
            labels.update(&key, &label.to_ne_bytes(), MapFlags::ANY).context("a prefix")?;
        }
        let mut entries = 0;
        for (side, label, ports) in &allowed {
            for key in ports.iter().flat_map(|range| keys(*label, *range)) {
                sides[usize::from(*side)].update(&key, &1u32.to_ne_bytes(), MapFlags::ANY).context("what is allowed")?;
                entries += 1;
            }
        }
        let shared = share(&map(".bss")?, &isolated)?;
        let note = format!("; {} prefixes, {entries} entries", prefixes.len());
        let built = Built { backend: NAME.to_owned(), build_ms: start.elapsed().as_secs_f64() * 1e3, bytes: None, note };
        Ok((Self { object, shared, _allowed: sides }, built))
    }

    /// Has the program answer so many queries.
    fn run(&mut self, first: usize, passes: &mut [u8]) {
        assert!(first + passes.len() <= QUESTIONS_MAX);
        // SAFETY: mapped for as long as `self`; the program runs only below, on this thread.
        let shared = unsafe { &mut *self.shared };
        (shared.first, shared.count) = (first as u32, passes.len() as u32);
        let frame = [0; 64];
        let program = self.object.progs_mut().next().expect("one program");
        program.test_run(ProgramInput { data_in: Some(&frame), ..ProgramInput::default() }).expect("it ran before");
        passes.copy_from_slice(&shared.passes[first..first + passes.len()]);
    }
}

/// Maps the memory that the program and the bench share.
fn share(bss: &impl AsFd, isolated: &[bool]) -> Result<*mut Shared> {
    let (access, mapping) = (ProtFlags::READ | ProtFlags::WRITE, Mapping::SHARED);
    // SAFETY: a new mapping where the kernel likes, of a map that is at least as long: its value is `struct shared`.
    let memory = unsafe { mmap(std::ptr::null_mut(), size_of::<Shared>(), access, mapping, bss, 0) }.context("mapping the queries")?;
    let shared: *mut Shared = memory.cast();
    // SAFETY: just mapped, at this length; nobody else looks at it before the program runs.
    let isolated_of = unsafe { &mut (*shared).isolated };
    isolated_of.iter_mut().zip(isolated).for_each(|(place, &isolated)| *place = u8::from(isolated));
    Ok(shared)
}

/// The trie's keys of a range: its ports cut into prefixes.
fn keys(label: u32, range: PortRange) -> Vec<[u8; 12]> {
    let key = |length: u32, port: u16| {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&length.to_ne_bytes());
        key[4..8].copy_from_slice(&label.to_ne_bytes());
        key[8] = range.protocol;
        key[10..].copy_from_slice(&port.to_be_bytes());
        key
    };
    if range.protocol == 0 {
        return vec![key(32, 0)];
    }
    let (mut keys, mut first) = (Vec::new(), u32::from(range.first));
    while first <= u32::from(range.last) {
        let aligned = if first == 0 { 16 } else { first.trailing_zeros().min(16) };
        let fitting = (u32::from(range.last) - first + 1).ilog2();
        let bits = aligned.min(fitting);
        keys.push(key(64 - bits, first as u16));
        first += 1 << bits;
    }
    keys
}

impl Backend for Maps {
    fn name(&self) -> &str {
        NAME
    }

    fn takes(&self, kind: Kind) -> bool {
        kind.is_v4()
    }

    fn ways(&self) -> Ways {
        Ways::Stretch
    }

    fn prepare(&mut self, queries: &[Query]) {
        assert!(queries.len() <= QUESTIONS_MAX);
        // SAFETY: mapped for as long as `self`; the program does not run meanwhile.
        let places = unsafe { &mut (*self.shared).questions };
        for (place, query) in places.iter_mut().zip(queries) {
            *place = Question {
                address: query.remote.to_v4().unwrap_or_default().to_be_bytes(),
                side: side_index(query.port, query.direction) as u16,
                port: query.dport.to_be_bytes(),
                protocol: query.protocol.0,
                padding: [0; 3],
            };
        }
    }

    fn touch(&self, _: usize, _: usize) {}

    fn serial(&mut self, _: usize, _: &mut [u8]) {
        unreachable!("not one of its ways");
    }

    fn batch(&mut self, first: usize, passes: &mut [u8]) {
        self.run(first, passes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_prefixes() {
        let lengths = |first, last| {
            let keys = keys(7, PortRange { protocol: 6, padding: 0, first, last });
            keys.iter().map(|key| key[0]).collect::<Vec<_>>()
        };
        assert_eq!(lengths(80, 80), [64]);
        assert_eq!(lengths(0, u16::MAX), [48]);
        assert_eq!(lengths(1, 8), [64, 63, 62, 64]);
        assert_eq!(lengths(u16::MAX, u16::MAX), [64]);
    }
}
