//! The checks on trees of machines that this one is not, and once on this one.

use super::finding::{Finding, State};
use super::tree::Tree;
use super::{TREE_CHECKS, nic};
use std::collections::BTreeMap;
use std::path::Path;

const MOUNTS: &str = "\
21 27 0:20 / / rw - ext4 /dev/vda rw
22 21 0:21 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
23 21 0:22 / /sys/fs/bpf rw - bpf bpf rw
24 21 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
";
const LIST: &str = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"},{"type":"sluice-cni"}]}"#;

/// A machine on which all is well, changed file by file; an empty text takes a file away.
fn machine(changes: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let well = [
        ("/proc/sys/kernel/osrelease", "6.6.0-1-amd64\n"),
        ("/sys/kernel/btf/vmlinux", "\0bpf_nf_link_attach\0"),
        ("/sys/kernel/btf/nf_conntrack", "\0bpf_skb_ct_lookup\0"),
        ("/proc/self/mountinfo", MOUNTS),
        (
            "/proc/self/limits",
            "Max open files 1024 1024 files\nMax locked memory         unlimited            unlimited            bytes\n",
        ),
        ("/proc/self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffbfff\nCapBnd:\t000001ffffffffff\n"),
        ("/proc/sys/net/core/bpf_jit_enable", "1\n"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
        ("/proc/sys/net/ipv4/ip_forward", "1\n"),
        ("/proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
        ("/proc/sys/net/ipv4/conf/all/rp_filter", "2\n"),
        ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("/sys/devices/system/cpu/online", "0-7\n"),
        ("/sys/devices/system/cpu/isolated", "2-3\n"),
        ("/etc/cni/net.d/10-n.conflist", LIST),
        ("/opt/cni/bin/sluice-cni", "program"),
        ("/sys/class/net/vethpod/ifindex", "7"),
        ("/sys/class/net/vethpod/iflink", "2"),
        ("/sys/class/net/vethpod/mtu", "1500"),
    ];
    for (path, text) in well.iter().chain(changes) {
        let path = dir.path().join(path.trim_start_matches('/'));
        if text.is_empty() {
            std::fs::remove_file(path).unwrap();
        } else {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
    let mut tree = Tree::below(dir.path(), Path::new("/run/sluice"), Path::new("/etc/cni/net.d"), Path::new("/opt/cni/bin"));
    tree.cpus = vec![2, 3];
    (dir, tree)
}

fn findings(tree: &Tree) -> Vec<Finding> {
    TREE_CHECKS.iter().flat_map(|check| check(tree)).collect()
}

#[test]
fn a_machine_on_which_all_is_well_needs_nothing() {
    let (_dir, tree) = machine(&[]);
    let findings = findings(&tree);
    assert!(findings.iter().all(|finding| finding.state == State::Fine && finding.advice.is_none()), "{findings:#?}");
    assert!(findings.len() >= TREE_CHECKS.len());
}

#[test]
fn what_is_odd_is_found_by_its_own_check_and_no_other() {
    let no_bpffs = MOUNTS.replace("bpf bpf rw", "tmpfs none rw");
    let no_cgroup2 = MOUNTS.replace("cgroup2", "tmpfs");
    let on_disk = MOUNTS.replace("/run rw", "/elsewhere rw");
    let not_last = LIST.replace("]}", ",{\"type\":\"portmap\"}]}");
    let status = |effective: &str, bounding: &str| format!("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t{effective}\nCapBnd:\t{bounding}\n");
    let (plain_user, poor_container) = (status("0", "000001ffffffffff"), status("0000003fffffbfff", "0000003fffffffff"));
    let list = "/etc/cni/net.d/10-n.conflist";
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    for (path, text, check, state, found) in [
        ("/proc/sys/kernel/osrelease", "6.5.13", "kernel", State::Missing, "6.5.13, older than 6.6"),
        ("/proc/sys/kernel/osrelease", "5.10.0-8+deb11", "kernel", State::Missing, "older"),
        ("/proc/sys/kernel/osrelease", "nonsense", "kernel", State::Missing, "nonsense"),
        ("/proc/sys/kernel/osrelease", "", "kernel", State::Missing, "no release found"),
        ("/sys/kernel/btf/vmlinux", "", "btf", State::Missing, "no /sys/kernel/btf/vmlinux"),
        ("/sys/kernel/btf/vmlinux", "bpf_nf_link_attachment\0", "netfilter", State::Missing, "no programs in netfilter"),
        ("/sys/kernel/btf/nf_conntrack", "", "conntrack", State::Advice, "by the node's address"),
        ("/proc/self/mountinfo", &no_bpffs, "bpffs", State::Missing, "no bpf file system"),
        ("/proc/self/mountinfo", &no_cgroup2, "cgroup", State::Advice, "tmpfs at /sys/fs/cgroup"),
        ("/proc/self/mountinfo", &on_disk, "run_dir", State::Advice, "ext4, which outlives a boot"),
        ("/proc/self/limits", "Max locked memory 8388608 8388608 bytes", "memlock", State::Advice, "8192 kB"),
        ("/proc/self/limits", "", "memlock", State::Unknown, "no limit found"),
        ("/proc/self/status", &plain_user, "capabilities", State::Unknown, "lacks CAP_BPF"),
        ("/proc/self/status", &poor_container, "capabilities", State::Missing, "none may have CAP_BPF"),
        ("/proc/sys/net/core/bpf_jit_enable", "0", "bpf_jit", State::Advice, "off"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "0", "unprivileged_bpf", State::Advice, "every user"),
        ("/proc/sys/net/ipv4/ip_forward", "0", "ip_forward", State::Missing, "does not route"),
        ("/proc/sys/net/ipv6/conf/all/forwarding", "0", "ip6_forward", State::Advice, "off"),
        ("/proc/sys/net/ipv4/conf/all/rp_filter", "1", "rp_filter", State::Advice, "strict for all"),
        (clock, "hpet", "clock", State::Advice, "hpet"),
        ("/sys/devices/system/cpu/online", "0-2", "cpus", State::Missing, "3 online; 3 are not"),
        ("/sys/devices/system/cpu/isolated", "2", "cpus", State::Advice, "3 share"),
        (list, "", "cni", State::Advice, "no network configuration"),
        (list, "{", "cni", State::Missing, "is no JSON"),
        (list, r#"{"plugins":[{"type":"ptp"}]}"#, "cni", State::Missing, "new pods are not under policy"),
        (list, &not_last, "cni", State::Advice, "portmap stand behind"),
        ("/etc/cni/net.d/05-first.conf", r#"{"type":"bridge"}"#, "cni", State::Missing, "05-first.conf has no sluice-cni"),
        ("/opt/cni/bin/sluice-cni", "", "cni_program", State::Missing, "is not there"),
        ("/sys/class/net/vethpod/mtu", "9300", "pod_mtu", State::Advice, "vethpod (9300)"),
    ] {
        let (_dir, tree) = machine(&[(path, text)]);
        let odd: Vec<Finding> = findings(&tree).into_iter().filter(|finding| finding.state != State::Fine).collect();
        assert!(odd.len() == 1 && odd[0].check == check && odd[0].state == state, "{path}: {text:?}: {odd:#?}");
        assert!(odd[0].found.contains(found) && odd[0].advice.is_some(), "{path}: {text:?}: {odd:#?}");
    }
}

#[test]
fn a_better_clock_that_is_there_is_named_and_workers_without_cores_get_advice() {
    let dir = "/sys/devices/system/clocksource/clocksource0";
    let current = format!("{dir}/current_clocksource");
    let available = format!("{dir}/available_clocksource");
    let (_dir, mut tree) = machine(&[(&current, "hpet"), (&available, "hpet tsc acpi_pm")]);
    tree.cpus.clear();
    let findings = findings(&tree);
    let advice = |check: &str| findings.iter().find(|finding| finding.check == check).unwrap().advice.clone().unwrap();
    assert_eq!(advice("clock"), format!("echo tsc > {current}"));
    assert!(advice("cpus").contains("--cpus"));
}

#[test]
fn an_empty_root_is_a_machine_of_which_nothing_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::below(dir.path(), Path::new("/run/sluice"), Path::new("/etc/cni/net.d"), Path::new("/opt/cni/bin"));
    let findings = findings(&tree);
    assert!(findings.iter().any(|finding| finding.state == State::Missing));
    let devices = nic::described(&tree, Ok(&BTreeMap::new()));
    assert!(devices.len() == 1 && devices[0].found == "no physical device here");
}

#[test]
fn a_physical_device_is_described_with_what_the_kernel_says_of_it() {
    let nic = "/sys/class/net/eth9";
    let files = ["ifindex", "mtu", "queues/rx-0/x", "queues/rx-1/x", "queues/tx-0/x", "device/vendor"].map(|name| format!("{nic}/{name}"));
    let (dir, tree) =
        machine(&files.iter().zip(["9", "1500", "x", "x", "x", "x"]).map(|(path, text)| (path.as_str(), text)).collect::<Vec<_>>());
    let driver = dir.path().join(format!("{nic}/device/driver").trim_start_matches('/'));
    std::os::unix::fs::symlink("../../bus/pci/drivers/ice", driver).unwrap();
    let shown = |features: Result<u64, String>| {
        let features = features.map(|bits| BTreeMap::from([(9, super::netdev::XdpFeatures::of(bits))]));
        let found = nic::described(&tree, features.as_ref());
        assert_eq!((found.len(), found[0].check.as_str()), (1, "nic eth9"), "{found:?}");
        (found[0].state, found[0].found.clone())
    };
    let base = "ice, 2 rx and 1 tx queues, MTU 1500";
    assert_eq!(shown(Ok(9)), (State::Fine, format!("{base}, native XDP, AF_XDP without a copy")));
    assert_eq!(shown(Ok(1)), (State::Fine, format!("{base}, native XDP, AF_XDP with a copy")));
    assert_eq!(shown(Ok(0)), (State::Advice, format!("{base}, no native XDP")));
    assert_eq!(shown(Err("not today".into())), (State::Unknown, format!("{base}; XDP features: not today")));
}
