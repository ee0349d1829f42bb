//! Who may run: root, with the binaries built, one live test at a time.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Labs are up one at a time, also across test programs: a second one on two cores would measure the first.
const LOCK: &str = "/run/sluice-live-tests.lock";
const PROGRAMS: [&str; 6] = ["sluice-dataplane", "sluice-control", "sluice-cni", "sluicectl", "sluice-lab", "sluice-apiserver"];

/// The right to have a lab up, as long as it lives.
#[derive(Debug)]
pub struct Turn {
    /// The test's name.
    pub test: &'static str,
    _lock: File,
}

/// Waits for the test's turn. `None`, said aloud, without root.
///
/// # Panics
/// Without root where `CI` is set, since there nothing may be skipped; and when a program is not built.
pub fn turn(test: &'static str) -> Option<Turn> {
    if !rustix::process::geteuid().is_root() {
        let reason = format!("SKIPPED: {test} needs root (network namespaces, BPF, AF_XDP)");
        assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{reason}");
        println!("{reason}");
        return None;
    }
    for program in PROGRAMS {
        assert!(
            self::program(program).exists(),
            "{} is not there; run: cargo build --workspace --features sluice-dataplane/kernel",
            self::program(program).display()
        );
    }
    let lock = File::create(LOCK).unwrap_or_else(|error| panic!("{LOCK}: {error}"));
    flock(&lock, FlockOperation::LockExclusive).unwrap_or_else(|error| panic!("{LOCK}: {error}"));
    Some(Turn { test, _lock: lock })
}

/// A program of this build: beside the test program, or above it where that lies in `deps`.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let dir = own.parent().unwrap_or(Path::new("."));
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    dir.join(name)
}
