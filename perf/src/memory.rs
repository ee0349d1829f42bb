//! How much memory this process has, and had at most.

use anyhow::{Context, Result};
use std::fs;

/// Resident memory now, after the allocator gave back what it could. Source: proc_pid_status(5), `VmRSS`.
///
/// # Errors
///
/// `/proc` is not as it should be.
pub(crate) fn resident_bytes() -> Result<u64> {
    give_back();
    field("VmRSS:")
}

/// The most that was resident since the process began, or since [`forget_peak`]. Source: the same, `VmHWM`.
///
/// # Errors
///
/// `/proc` is not as it should be.
pub(crate) fn peak_bytes() -> Result<u64> {
    field("VmHWM:")
}

/// Lets the peak begin anew; whether that was allowed. Source: proc_pid_clear_refs(5), 5.
pub(crate) fn forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn field(name: &str) -> Result<u64> {
    parse(&fs::read_to_string("/proc/self/status").context("/proc/self/status")?, name)
}

fn parse(status: &str, name: &str) -> Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("/proc/self/status has no {name}"))?;
    let kilobytes: u64 = value.trim().trim_end_matches(" kB").parse().with_context(|| name.to_owned())?;
    Ok(kilobytes << 10)
}

/// Freed memory that the allocator keeps for later would count as used.
#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: takes any number, and touches only memory that nobody holds.
    unsafe { libc::malloc_trim(0) };
}

/// No such call elsewhere: differences are then upper bounds.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_bytes_and_a_missing_one_is_said() {
        let status = "Name:\tperf\nVmHWM:\t   12 kB\nVmRSS:\t    8 kB\n";
        assert_eq!(parse(status, "VmHWM:").unwrap(), 12 << 10);
        assert_eq!(parse(status, "VmRSS:").unwrap(), 8 << 10);
        assert!(parse(status, "VmSwap:").unwrap_err().to_string().contains("VmSwap"));
    }

    #[test]
    fn what_is_held_is_resident_and_in_the_peak() {
        const MUCH: u64 = 64 << 20;
        let held: Vec<Box<[u8]>> = (0..MUCH / 4096).map(|_| vec![1; 4096].into()).collect();
        // other tests have memory of their own at the same time, so only a lower bound is certain
        assert!(resident_bytes().unwrap() >= MUCH && peak_bytes().unwrap() >= MUCH, "{} pieces", held.len());
    }
}
