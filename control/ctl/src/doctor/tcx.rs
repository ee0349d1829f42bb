//! tcx itself: whether a program can be attached, and who stands in front of ours.

use super::bpf::{self, Hook};
use super::finding::Finding;
use nix::sched::{CloneFlags, unshare};

const CHECK: &str = "tcx";
/// `lo` of a new network namespace is its first device.
const LO: u32 = 1;
/// What the dataplane's programs are called, at each hook.
const OURS: [(Hook, &str); 2] = [(Hook::Ingress, "leaving"), (Hook::Egress, "entering")];

/// Tries it, in a network namespace that ends with the try.
pub(super) fn attach() -> Option<Finding> {
    if !rustix::process::geteuid().is_root() {
        return Some(Finding::unknown(CHECK, "cannot be tried by this user", "run as root"));
    }
    let tried = std::thread::spawn(|| -> Result<(), String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace to try it in: {error}"))?;
        for (hook, _) in OURS {
            bpf::attach(LO, hook).map_err(|error| format!("no program can be attached: {error}"))?;
        }
        Ok(())
    });
    Some(match tried.join().unwrap_or_else(|_| Err("the try panicked".to_owned())) {
        Ok(()) => Finding::fine(CHECK, "programs can be attached"),
        Err(error) => {
            Finding::missing(CHECK, error, "boot Linux 6.6 or newer with CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS; see capabilities")
        }
    })
}

/// Programs that packets of a pod meet before ours: what those pass on or drop, policy never sees.
pub(super) fn in_front(device: &str, ifindex: u32) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for (hook, ours) in OURS {
        for id in bpf::programs(ifindex, hook)? {
            let name = bpf::name(id)?;
            if name == ours {
                break;
            }
            found.push(format!("{} (program {id}) at {device}", if name.is_empty() { "one without a name" } else { &name }));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn programs_are_attached_found_in_order_and_gone_with_their_link() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "needs root");
            eprintln!("SKIPPED: tcx needs root");
            return;
        }
        assert_eq!(attach().map(|finding| finding.state), Some(State::Fine));
        let tried = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert_eq!(in_front("lo", LO).unwrap(), Vec::<String>::new());
            let link = bpf::attach(LO, Hook::Egress).unwrap();
            let found = in_front("lo", LO).unwrap();
            assert!(found.len() == 1 && found[0].starts_with("one without a name (program "), "{found:?}");
            drop(link);
            assert_eq!(bpf::programs(LO, Hook::Egress).unwrap(), Vec::<u32>::new());
        });
        tried.join().unwrap();
    }
}
