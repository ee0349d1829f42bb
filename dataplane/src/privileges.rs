//! What the process may do: checked before set-up, given up after it.

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};

/// What the process must hold when it starts, and what for. Nothing else is used: a container that gives exactly these will do.
pub const NEEDED: [(Capability, &str); 5] = [
    (Capability::CAP_BPF, "loads programs and pins maps"),
    (Capability::CAP_NET_ADMIN, "attaches programs and makes the trunks"),
    (Capability::CAP_NET_RAW, "opens AF_XDP sockets"),
    (Capability::CAP_SYS_ADMIN, "makes the trunks' network namespace"),
    (Capability::CAP_IPC_LOCK, "keeps the workers' packet memory, whatever the memlock limit"),
];

/// What the keeper's thread keeps after set-up.
pub const KEEPER: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// What a worker's thread keeps once it serves.
pub const WORKER: [Capability; 1] = [Capability::CAP_BPF];

/// Refuses to start on a kernel or with rights that would fail later in a less obvious way.
pub fn check() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 6) {
        bail!("kernel {release} is too old: tcx needs 6.6 or newer");
    }
    let missing: Vec<String> = NEEDED
        .into_iter()
        .filter(|(capability, _)| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(false))
        .map(|(capability, what_for)| format!("{capability} ({what_for})"))
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing {}: run as root, in a container with these capabilities; all but BPF and NET_ADMIN are given up after set-up",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Keeps only these capabilities in the calling thread, for good.
pub fn keep_only(keep: &[Capability]) -> Result<()> {
    rustix::thread::set_no_new_privs(true).context("give up new privileges")?;
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false);
    for capability in caps::all().into_iter().filter(|capability| may_bound && !keep.contains(capability)) {
        // a capability this kernel does not know cannot be dropped, nor held
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    let keep: CapsHashSet = keep.iter().copied().collect();
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).context("clear capabilities")?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep).context("drop capabilities")?;
    }
    Ok(())
}
