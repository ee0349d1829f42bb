//! Structures of DPDK, beside which the table is measured. Linked only with the feature `dpdk`.

mod acl;
mod fib;

use super::backend::Backend;
use super::report::{Built, Skipped};
use super::resolved::Resolved;
use crate::environment::memory_available;
use anyhow::{Result, ensure};
use std::ffi::{c_int, c_uint};
use std::sync::OnceLock;

/// Of DPDK's own heap, for everything; pages that are not used cost nothing.
const MEMORY_MB: c_uint = 6000;

unsafe extern "C" {
    fn sluice_dpdk_start(cpu: c_uint, megabytes: c_uint) -> c_int;
    fn sluice_dpdk_errno() -> c_int;
    fn sluice_dpdk_heap_bytes() -> u64;
}

/// Starts DPDK on this core, once in a process.
fn start(cpu: usize) -> Result<()> {
    static STARTED: OnceLock<c_int> = OnceLock::new();
    if STARTED.get().is_none() {
        let available_mb = memory_available()? >> 20;
        ensure!(available_mb > u64::from(MEMORY_MB), "it may take {MEMORY_MB} MB of memory, and {available_mb} MB are available");
    }
    // SAFETY: the bench has one thread, and starts it once.
    let errno = *STARTED.get_or_init(|| unsafe { sluice_dpdk_start(cpu as c_uint, MEMORY_MB) });
    ensure!(errno == 0, "DPDK does not start: {}", std::io::Error::from_raw_os_error(errno));
    Ok(())
}

/// Memory in use, once it has started.
fn heap_bytes() -> u64 {
    // SAFETY: asks for a statistic; without a heap it says 0.
    unsafe { sluice_dpdk_heap_bytes() }
}

/// Why the last call failed.
fn last_error() -> std::io::Error {
    // SAFETY: reads a number of this thread.
    std::io::Error::from_raw_os_error(unsafe { sluice_dpdk_errno() })
}

/// Every structure that can be built.
pub(super) fn all(resolved: &Resolved, cpu: usize) -> (Vec<Box<dyn Backend>>, Vec<Built>, Vec<Skipped>) {
    let (mut backends, mut built, mut skipped): (Vec<Box<dyn Backend>>, Vec<Built>, Vec<Skipped>) = Default::default();
    let mut skip =
        |backend: &str, error: anyhow::Error| skipped.push(Skipped { backend: backend.to_owned(), reason: format!("{error:#}") });
    match start(cpu).and_then(|()| acl::all(resolved)) {
        Ok((acls, how)) => {
            built.push(how);
            acls.into_iter().for_each(|acl| backends.push(Box::new(acl)));
        }
        Err(error) => skip(super::musts::ACL, error),
    }
    match start(cpu).and_then(|()| fib::Fib::of(resolved)) {
        Ok((fib, how)) => {
            built.push(how);
            backends.push(Box::new(fib));
        }
        Err(error) => skip(fib::NAME, error),
    }
    (backends, built, skipped)
}
