//! The programs pass the verifier, and a second load finds the first one's maps. Needs root; says so when it is skipped.
#![cfg(feature = "load")]

use sluice_bpf::abi::{CACHE_ALLOW, CacheValue, Key, Port};
use sluice_bpf::testing::Intruder;
use sluice_bpf::{ABI_VERSION, Hooks, LoadOptions, Loaded};
use std::path::PathBuf;
use std::time::Duration;

struct BpfDir(PathBuf);

impl Drop for BpfDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn root_and_bpffs() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"));
    let mounted = std::fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" /sys/fs/bpf bpf "));
    if !(root && mounted) {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root with bpffs mounted at /sys/fs/bpf");
        eprintln!("SKIPPED: needs root and bpffs at /sys/fs/bpf");
    }
    root && mounted
}

/// In a network namespace of its own, whose postrouting the programs may stand in.
fn alone(name: &str, test: impl FnOnce(&LoadOptions) + Send) {
    if !root_and_bpffs() {
        return;
    }
    let dir = BpfDir(PathBuf::from(format!("/sys/fs/bpf/sluice-{name}-{}", std::process::id())));
    let options = LoadOptions {
        bpf_dir: dir.0.clone(),
        cache_entries: 20_000,
        denial_entries: 64,
        origin_entries: 64,
        fail_open: false,
        every_packet: false,
        new_flows_per_second: None,
    };
    let run = || {
        // SAFETY: this thread holds no namespace state that another one relies on, and ends with the test.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network namespace");
        test(&options);
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn whoever_stands_in_front_of_ours_is_seen_and_whoever_stands_behind_is_not() {
    const LO: u32 = 1;
    alone("chain", |options| {
        let loaded = Loaded::new(options).unwrap();
        let links = options.bpf_dir.join(format!("v{ABI_VERSION}"));
        let in_front = || [Hooks::Device, Hooks::Exit].map(|hooks| loaded.in_front(hooks, LO).unwrap());
        assert_eq!(in_front(), [vec![], vec![]], "nobody is there, not even ours");
        let early = Intruder::on(LO, &links);
        loaded.attach(Hooks::Device, LO).unwrap();
        assert_eq!(in_front()[0], [], "ours go first");
        drop(early);
        let late = Intruder::on(LO, &links);
        let [device, exit] = in_front();
        assert_eq!((device.len(), exit.len()), (1, 0), "{device:?} {exit:?}");
        drop(late);
        // the kernel takes a link off a moment after its last holder has gone
        let gone = (0..200).any(|_| {
            in_front()[0].is_empty() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        });
        assert!(gone, "{:?}", in_front());
        assert!(loaded.in_front(Hooks::Device, 4_000_000).is_err(), "no such device");
    });
}

#[test]
fn programs_load_and_maps_survive_their_loader() {
    alone("test", maps_survive);
}

fn maps_survive(options: &LoadOptions) {
    let key = |number: u32| Key { incarnation: number, port: 1, direction: 0, protocol: 6, src: [1; 16], dst: [2; 16], sport: 3, dport: 4 };
    let value = CacheValue { epoch: 1, verdict: CACHE_ALLOW, timeout_ns: 1, ..bytemuck::Zeroable::zeroed() };
    let first = Loaded::new(options).unwrap();
    let keys: Vec<Key> = (0..15_000).map(key).collect();
    first.cache.put_batch(&keys, &vec![value; keys.len()]).unwrap();
    first.ports.publish(7, std::mem::offset_of!(Port, state), 1);
    drop(first);

    let second = Loaded::new(options).unwrap();
    let mut seen = std::collections::HashSet::new();
    second.cache.scan(|key, _| assert!(seen.insert(*key), "no entry twice")).unwrap();
    assert_eq!(seen.len(), keys.len(), "a scan is complete");
    assert_eq!(second.ports.read(7).state, 1);
    let beyond: Vec<Key> = (20_000..30_000).map(key).collect();
    let error = second.cache.put_batch(&beyond, &vec![value; beyond.len()]).unwrap_err();
    assert!(matches!(error, sluice_bpf::MapError::Partial { done, .. } if done < beyond.len()), "{error}");
}
