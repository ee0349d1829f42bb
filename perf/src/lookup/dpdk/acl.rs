//! DPDK's rte_acl: for each pod and direction a context of its own, built of all its rules written out.
//!
//! Its batches are runs of one context, so it is asked for batches only where the
//! packets of one pod come together; sorting them is not its work and is not timed.

use super::super::backend::{Backend, Ways};
use super::super::flat::{FlatRule, flat_rules};
use super::super::query::{Kind, Query};
use super::super::report::Built;
use super::super::resolved::{Resolved, side_index};
use super::super::trace::BURST_MAX;
use super::{heap_bytes, last_error};
use anyhow::{Result, bail, ensure};
use std::ffi::c_int;
use std::rc::Rc;
use std::time::Instant;

/// Beyond it, building would take minutes and gigabytes.
const RULES_MAX: usize = 8_000_000;

/// `struct rte_acl_ctx`: only ever seen by its address.
#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}

/// What is matched, in network order.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Key {
    protocol: u8,
    padding: [u8; 3],
    address: [u8; 4],
    port: [u8; 2],
    zero: [u8; 2],
}

unsafe extern "C" {
    fn sluice_acl_build(rules: *const FlatRule, count: u32, number: u32) -> *mut Context;
    fn sluice_acl_free(context: *mut Context);
    fn sluice_acl_serial(
        contexts: *const *mut Context,
        keys: *const Key,
        sides: *const u16,
        count: usize,
        algorithm: c_int,
        passes: *mut u8,
    ) -> c_int;
    fn sluice_acl_batch(
        contexts: *const *mut Context,
        data: *const *const Key,
        sides: *const u16,
        count: usize,
        algorithm: c_int,
        passes: *mut u8,
    ) -> c_int;
}

/// A context for each side.
#[derive(Debug)]
struct Contexts(Vec<*mut Context>);

impl Drop for Contexts {
    fn drop(&mut self) {
        for &context in &self.0 {
            // SAFETY: made by `sluice_acl_build`, freed only here, used by nobody after.
            unsafe { sluice_acl_free(context) };
        }
    }
}

/// Name, number in `enum rte_acl_classify_alg`, and whether this processor has the instructions: DPDK does not ask.
fn algorithms() -> [(&'static str, c_int, bool); 4] {
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
    [
        ("rte_acl, scalar", 1, true),
        ("rte_acl, AVX2", 3, is_x86_feature_detected!("avx2")),
        ("rte_acl, AVX-512 x16", 6, avx512),
        ("rte_acl, AVX-512 x32", 7, avx512),
    ]
}

/// See the module. One for each algorithm; all share the contexts.
#[derive(Debug)]
pub(super) struct Acl {
    name: &'static str,
    algorithm: c_int,
    contexts: Rc<Contexts>,
    keys: Vec<Key>,
    /// The keys' addresses.
    data: Vec<*const Key>,
    sides: Vec<u16>,
    /// Whether the packets of one side come together.
    is_grouped: bool,
}

/// Builds all contexts.
///
/// # Errors
///
/// DPDK does not start, or the rules are too many for it.
pub(super) fn all(resolved: &Resolved) -> Result<(Vec<Acl>, Built)> {
    let written: Vec<Vec<FlatRule>> = resolved.sides.iter().map(|side| flat_rules(resolved, side)).collect();
    let rules: usize = written.iter().map(Vec::len).sum();
    ensure!(rules <= RULES_MAX, "{rules} rules when written out, at most {RULES_MAX} are tried");
    let (before, start) = (heap_bytes(), Instant::now());
    let mut contexts = Contexts(Vec::with_capacity(written.len()));
    for (number, rules) in written.iter().enumerate() {
        crate::progress::progress(&format!("rte_acl: context {number} of {}, {} rules", written.len(), rules.len()));
        // SAFETY: the slice is valid for so many rules of the same layout, and is only read.
        let context = unsafe { sluice_acl_build(rules.as_ptr(), rules.len() as u32, number as u32) };
        if context.is_null() {
            bail!("a context of {} rules: {}", rules.len(), last_error());
        }
        contexts.0.push(context);
    }
    let build_ms = start.elapsed().as_secs_f64() * 1e3;
    let bytes = heap_bytes() - before;
    let note = format!("; {rules} rules written out, {} contexts", contexts.0.len());
    let contexts = Rc::new(contexts);
    let acls = algorithms().into_iter().filter(|algorithm| algorithm.2).map(|(name, algorithm, _)| {
        let contexts = Rc::clone(&contexts);
        Acl { name, algorithm, contexts, keys: Vec::new(), data: Vec::new(), sides: Vec::new(), is_grouped: false }
    });
    let acls = acls.collect();
    Ok((acls, Built { backend: super::super::musts::ACL.to_owned(), build_ms, bytes: Some(bytes), note }))
}

impl Backend for Acl {
    fn name(&self) -> &str {
        self.name
    }

    fn takes(&self, kind: Kind) -> bool {
        kind.is_v4()
    }

    fn ways(&self) -> Ways {
        if self.is_grouped { Ways::Both } else { Ways::Serial }
    }

    fn prepare(&mut self, queries: &[Query]) {
        let key = |query: &Query| Key {
            protocol: query.protocol.0,
            padding: [0; 3],
            address: query.remote.to_v4().unwrap_or_default().to_be_bytes(),
            port: query.dport.to_be_bytes(),
            zero: [0; 2],
        };
        self.keys = queries.iter().map(key).collect();
        self.data = self.keys.iter().map(std::ptr::from_ref).collect();
        self.sides = queries.iter().map(|query| side_index(query.port, query.direction) as u16).collect();
        self.is_grouped = self.sides.chunks(BURST_MAX).all(|burst| burst.iter().all(|side| *side == burst[0]));
    }

    fn touch(&self, first: usize, count: usize) {
        let read = |sum: u32, index: usize| sum + u32::from(self.keys[index].protocol) + u32::from(self.sides[index]);
        std::hint::black_box((first..first + count).fold(0, read));
    }

    fn serial(&mut self, first: usize, passes: &mut [u8]) {
        let (keys, sides) = (&self.keys[first..first + passes.len()], &self.sides[first..first + passes.len()]);
        let contexts = self.contexts.0.as_ptr();
        // SAFETY: keys, sides and answers are as many as said; `prepare` took sides that have a context.
        let failure =
            unsafe { sluice_acl_serial(contexts, keys.as_ptr(), sides.as_ptr(), passes.len(), self.algorithm, passes.as_mut_ptr()) };
        assert_eq!(failure, 0, "{}", self.name);
    }

    fn batch(&mut self, first: usize, passes: &mut [u8]) {
        let (data, sides) = (&self.data[first..first + passes.len()], &self.sides[first..first + passes.len()]);
        let contexts = self.contexts.0.as_ptr();
        // SAFETY: as for `serial`; `data` points into `keys`, which lives as long and did not move.
        let failure =
            unsafe { sluice_acl_batch(contexts, data.as_ptr(), sides.as_ptr(), passes.len(), self.algorithm, passes.as_mut_ptr()) };
        assert_eq!(failure, 0, "{}", self.name);
    }
}
