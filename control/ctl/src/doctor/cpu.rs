//! Time and cores.

use super::finding::Finding;
use super::tree::Tree;
use std::collections::BTreeSet;

/// Read without leaving the process; others cost a system call or a device's access for each look at the clock.
const QUICK_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

pub(super) fn clock(tree: &Tree) -> Vec<Finding> {
    let dir = "/sys/devices/system/clocksource/clocksource0";
    let current = tree.read(format!("{dir}/current_clocksource"));
    vec![match current {
        Some(name) if QUICK_CLOCKS.contains(&name.as_str()) => Finding::fine("clock", name),
        Some(name) => {
            let available = tree.read(format!("{dir}/available_clocksource")).unwrap_or_default();
            let better = QUICK_CLOCKS.iter().find(|quick| available.split(' ').any(|there| there == **quick));
            let advice = match better {
                Some(better) => format!("echo {better} > {dir}/current_clocksource"),
                None => "none of tsc, kvm-clock, arch_sys_counter is there; on a virtual machine ask for an invariant TSC".to_owned(),
            };
            Finding::advice("clock", format!("{name}: workers look at the clock for each batch, and this one is slow"), advice)
        }
        None => Finding::unknown("clock", "the kernel does not tell its clock source", "look into /sys/devices/system/clocksource"),
    }]
}

pub(super) fn workers(tree: &Tree) -> Vec<Finding> {
    let list = |name: &str| cpus(&tree.read(format!("/sys/devices/system/cpu/{name}")).unwrap_or_default());
    let (online, isolated) = (list("online"), list("isolated"));
    let shown = |cpus: &[usize]| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let not = |set: &BTreeSet<usize>| tree.cpus.iter().copied().filter(|cpu| !set.contains(cpu)).collect::<Vec<_>>();
    let quantity = format!("{} online", online.len());
    if tree.cpus.is_empty() {
        let advice = "give each worker a core: sluice-dataplane --cpus, and doctor --cpus to check them";
        return vec![Finding::advice("cpus", format!("{quantity}; no cores are named for workers"), advice)];
    }
    let (offline, shared) = (not(&online), not(&isolated));
    vec![if !offline.is_empty() {
        Finding::missing("cpus", format!("{quantity}; {} are not", shown(&offline)), "name cores that are online")
    } else if !shared.is_empty() {
        Finding::advice(
            "cpus",
            format!("{quantity}; {} share with everything else", shown(&shared)),
            format!("for even latency boot with isolcpus={} (or keep pods off them: the kubelet's reservedSystemCPUs)", shown(&shared)),
        )
    } else {
        Finding::fine("cpus", format!("{quantity}; {} are isolated", shown(&tree.cpus)))
    }]
}

/// `0-3,8`. Source: Linux, Documentation/admin-guide/cputopology.rst.
fn cpus(list: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        for (text, expected) in [("0-2,8", vec![0, 1, 2, 8]), ("", vec![]), ("5", vec![5]), ("\n", vec![])] {
            assert_eq!(cpus(text).into_iter().collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
