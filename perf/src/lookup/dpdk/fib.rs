//! DPDK's rte_fib and rte_hash: the longest prefix gives a label, pod and direction and label give the ports.

use super::super::backend::{Backend, Ways};
use super::super::labelled::{Labelled, PortRange};
use super::super::query::{Kind, Query};
use super::super::report::Built;
use super::super::resolved::{Resolved, side_index};
use super::{heap_bytes, last_error};
use anyhow::{Result, bail};
use std::collections::HashSet;
use std::ptr::NonNull;
use std::time::Instant;

pub(super) const NAME: &str = "rte_fib + rte_hash";

/// `struct labels` of fib.c: only ever seen by its address.
#[repr(C)]
struct Labels {
    _opaque: [u8; 0],
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Prefix {
    address: u32,
    length: u32,
    label: u32,
}

/// Where the ports of a side and label are.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Entry {
    side: u32,
    label: u32,
    first: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Question {
    address: u32,
    side: u16,
    port: u16,
    protocol: u8,
    padding: [u8; 3],
}

unsafe extern "C" {
    fn sluice_fib_build(
        prefixes: *const Prefix,
        prefix_count: u32,
        long_blocks: u32,
        entries: *const Entry,
        entry_count: u32,
        ranges: *const PortRange,
        isolated: *const u8,
    ) -> *mut Labels;
    fn sluice_fib_free(labels: *mut Labels);
    fn sluice_fib_serial(labels: *const Labels, questions: *const Question, count: usize, passes: *mut u8);
    fn sluice_fib_batch(labels: *const Labels, questions: *const Question, count: usize, passes: *mut u8);
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fib {
    labels: NonNull<Labels>,
    questions: Vec<Question>,
    // `labels` points into these
    _entries: Vec<Entry>,
    _ranges: Vec<PortRange>,
    _isolated: Vec<u8>,
}

impl Drop for Fib {
    fn drop(&mut self) {
        // SAFETY: made by `sluice_fib_build`, freed only here, used by nobody after.
        unsafe { sluice_fib_free(self.labels.as_ptr()) };
    }
}

impl Fib {
    /// Builds both.
    ///
    /// # Errors
    ///
    /// DPDK refuses an entry, or has too little memory.
    pub(super) fn of(resolved: &Resolved) -> Result<(Self, Built)> {
        crate::progress::progress("rte_fib and rte_hash: building");
        let (before, start) = (heap_bytes(), Instant::now());
        let Labelled { prefixes, allowed, isolated } = Labelled::of(resolved);
        // without the whole space: that is the default
        let prefixes: Vec<Prefix> = prefixes
            .into_iter()
            .filter(|((_, length), label)| (*length, *label) != (0, 0))
            .map(|((address, length), label)| Prefix { address, length: length.into(), label })
            .collect();
        let long_blocks: HashSet<u32> = prefixes.iter().filter(|prefix| prefix.length > 24).map(|prefix| prefix.address >> 8).collect();
        let (mut entries, mut ranges) = (Vec::with_capacity(allowed.len()), Vec::new());
        for (side, label, ports) in allowed {
            let first = ranges.len() as u32;
            ranges.extend(ports);
            entries.push(Entry { side: side.into(), label, first, end: ranges.len() as u32 });
        }
        let isolated: Vec<u8> = isolated.into_iter().map(u8::from).collect();
        let (prefix_count, entry_count) = (prefixes.len() as u32, entries.len() as u32);
        let (blocks, pointers) = (long_blocks.len() as u32, (entries.as_ptr(), ranges.as_ptr(), isolated.as_ptr()));
        // SAFETY: each pointer is valid for so many values of the same layout; the last three live as long as `Self`.
        let labels = unsafe { sluice_fib_build(prefixes.as_ptr(), prefix_count, blocks, pointers.0, entry_count, pointers.1, pointers.2) };
        let Some(labels) = NonNull::new(labels) else { bail!("{prefix_count} prefixes, {entry_count} entries: {}", last_error()) };
        let built = Built {
            backend: NAME.to_owned(),
            build_ms: start.elapsed().as_secs_f64() * 1e3,
            bytes: Some(heap_bytes() - before + (entries.len() * size_of::<Entry>() + ranges.len() * size_of::<PortRange>()) as u64),
            note: format!("; {prefix_count} prefixes, {entry_count} entries, {} port ranges", ranges.len()),
        };
        Ok((Self { labels, questions: Vec::new(), _entries: entries, _ranges: ranges, _isolated: isolated }, built))
    }
}

impl Backend for Fib {
    fn name(&self) -> &str {
        NAME
    }

    fn takes(&self, kind: Kind) -> bool {
        kind.is_v4()
    }

    fn ways(&self) -> Ways {
        Ways::Both
    }

    fn prepare(&mut self, queries: &[Query]) {
        let question = |query: &Query| Question {
            address: query.remote.to_v4().unwrap_or_default(),
            side: side_index(query.port, query.direction) as u16,
            port: query.dport,
            protocol: query.protocol.0,
            padding: [0; 3],
        };
        self.questions = queries.iter().map(question).collect();
    }

    fn touch(&self, first: usize, count: usize) {
        std::hint::black_box(self.questions[first..first + count].iter().fold(0, |sum, question| sum ^ question.port));
    }

    fn serial(&mut self, first: usize, passes: &mut [u8]) {
        let questions = &self.questions[first..first + passes.len()];
        // SAFETY: questions and answers are as many as said; `prepare` took sides that the rules have.
        unsafe { sluice_fib_serial(self.labels.as_ptr(), questions.as_ptr(), passes.len(), passes.as_mut_ptr()) };
    }

    fn batch(&mut self, first: usize, passes: &mut [u8]) {
        let questions = &self.questions[first..first + passes.len()];
        // SAFETY: as for `serial`.
        unsafe { sluice_fib_batch(self.labels.as_ptr(), questions.as_ptr(), passes.len(), passes.as_mut_ptr()) };
    }
}
