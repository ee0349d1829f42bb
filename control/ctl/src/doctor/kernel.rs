//! What the kernel must be and have.

use super::finding::Finding;
use super::tree::Tree;
use std::path::Path;

/// tcx, by which the programs stand at the pods' devices.
const KERNEL_MIN: (u32, u32) = (6, 6);
/// What AF_XDP sockets pin, for each worker; and room beside it.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;
/// Name, bit, what for. Source: linux/capability.h.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_BPF", 39, "load programs"),
    ("CAP_NET_ADMIN", 12, "attach them"),
    ("CAP_NET_RAW", 13, "open AF_XDP sockets"),
    ("CAP_SYS_ADMIN", 21, "make the trunks' namespace"),
];

/// Locks memory beyond the limit.
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn version(tree: &Tree) -> Vec<Finding> {
    let release = tree.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = KERNEL_MIN;
    vec![if version >= KERNEL_MIN {
        Finding::fine("kernel", format!("{release} (tcx needs {major}.{minor})"))
    } else {
        let found = if release.is_empty() { "no release found" } else { &release };
        Finding::missing(
            "kernel",
            format!("{found}, older than {major}.{minor}: no tcx"),
            format!("boot Linux {major}.{minor} or newer; Debian 12 has one in its backports"),
        )
    }]
}

pub(super) fn btf(tree: &Tree) -> Vec<Finding> {
    vec![match tree.path("/sys/kernel/btf/vmlinux").exists() {
        true => Finding::fine("btf", "/sys/kernel/btf/vmlinux"),
        false => Finding::missing("btf", "no /sys/kernel/btf/vmlinux", "boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
    }]
}

pub(super) fn bpffs(tree: &Tree) -> Vec<Finding> {
    let mounted = tree.mounts().into_iter().any(|mount| mount.kind == "bpf" && mount.point == Path::new("/sys/fs/bpf"));
    vec![match mounted {
        true => Finding::fine("bpffs", "mounted at /sys/fs/bpf"),
        false => Finding::missing(
            "bpffs",
            "no bpf file system at /sys/fs/bpf: nothing would outlive a restart",
            "mount -t bpf bpf /sys/fs/bpf\nfor good, in /etc/fstab: bpf /sys/fs/bpf bpf defaults 0 0",
        ),
    }]
}

pub(super) fn memlock(tree: &Tree) -> Vec<Finding> {
    let limits = tree.read("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let limit = limit.and_then(|rest| rest.split_ascii_whitespace().next());
    let may_exceed = capability_set(tree, "CapEff") >> CAP_IPC_LOCK & 1 == 1;
    vec![match (limit, limit.and_then(|text| text.parse::<u64>().ok())) {
        (Some("unlimited"), _) => Finding::fine("memlock", "unlimited"),
        (Some(_), _) if may_exceed => Finding::fine("memlock", "limited, and CAP_IPC_LOCK exceeds it"),
        (_, Some(bytes)) if bytes >= MEMLOCK_BYTES_MIN => Finding::fine("memlock", format!("{} MB", bytes >> 20)),
        (_, Some(bytes)) => Finding::advice(
            "memlock",
            format!("{} kB may be locked here; the workers' sockets lock more", bytes >> 10),
            "run the dataplane by its unit (LimitMEMLOCK=infinity) or with CAP_IPC_LOCK",
        ),
        (_, None) => Finding::unknown("memlock", "no limit found in /proc/self/limits", "ulimit -l shows it"),
    }]
}

pub(super) fn cgroup(tree: &Tree) -> Vec<Finding> {
    let root = tree.mounts().into_iter().find(|mount| mount.point == Path::new("/sys/fs/cgroup"));
    vec![match root.map(|mount| mount.kind).as_deref() {
        Some("cgroup2") => Finding::fine("cgroup", "version 2"),
        Some(other) => Finding::advice(
            "cgroup",
            format!("{other} at /sys/fs/cgroup: limits of the workers' memory are not those of version 2"),
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        None => Finding::advice("cgroup", "nothing at /sys/fs/cgroup", "mount -t cgroup2 none /sys/fs/cgroup"),
    }]
}

pub(super) fn capabilities(tree: &Tree) -> Vec<Finding> {
    let (effective, bounding) = (capability_set(tree, "CapEff"), capability_set(tree, "CapBnd"));
    let lacking = |set: u64| -> Vec<String> {
        let lacking = CAPABILITIES.iter().filter(|(_, bit, _)| set >> bit & 1 == 0);
        lacking.map(|(name, _, purpose)| format!("{name} ({purpose})")).collect()
    };
    vec![if lacking(effective).is_empty() {
        Finding::fine("capabilities", CAPABILITIES.map(|(name, ..)| name).join(", "))
    } else if !lacking(bounding).is_empty() {
        // not even root has them here
        let advice = "give them to the container or unit in which the dataplane is to run";
        Finding::missing("capabilities", format!("none may have {}", lacking(bounding).join(", ")), advice)
    } else {
        Finding::unknown("capabilities", format!("this process lacks {}", lacking(effective).join(", ")), "run as root")
    }]
}

/// One of this process's sets of capabilities; none if it cannot be read.
fn capability_set(tree: &Tree, name: &str) -> u64 {
    tree.status(name).and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0)
}

pub(super) fn jit(tree: &Tree) -> Vec<Finding> {
    const PATH: &str = "/proc/sys/net/core/bpf_jit_enable";
    vec![match tree.number(PATH) {
        Some(0) => Finding::advice(
            "bpf_jit",
            "off: each packet is interpreted",
            "sysctl -w net.core.bpf_jit_enable=1, and in /etc/sysctl.d for good",
        ),
        Some(_) => Finding::fine("bpf_jit", "on"),
        // kernels built with CONFIG_BPF_JIT_ALWAYS_ON keep it readable, for root
        None => Finding::unknown("bpf_jit", format!("{PATH} cannot be read"), "run as root"),
    }]
}

pub(super) fn unprivileged(tree: &Tree) -> Vec<Finding> {
    vec![match tree.number("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Some(0) => Finding::advice(
            "unprivileged_bpf",
            "allowed: every user may load programs",
            "sysctl -w kernel.unprivileged_bpf_disabled=1 (Sluice does not need it)",
        ),
        Some(_) => Finding::fine("unprivileged_bpf", "not allowed"),
        None => Finding::unknown("unprivileged_bpf", "the kernel does not tell", "nothing; Sluice does not need it"),
    }]
}
