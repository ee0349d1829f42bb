//! The programs pass the verifier, and a second load finds the first one's maps. Needs root; says so when it is skipped.
#![cfg(feature = "load")]

use sluice_bpf::abi::{CACHE_ALLOW, CacheValue, Key, Port};
use sluice_bpf::{LoadOptions, Loaded};
use std::path::PathBuf;

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

#[test]
fn programs_load_and_maps_survive_their_loader() {
    if !root_and_bpffs() {
        return;
    }
    let dir = BpfDir(PathBuf::from(format!("/sys/fs/bpf/sluice-test-{}", std::process::id())));
    let options = LoadOptions {
        bpf_dir: dir.0.clone(),
        cache_entries: 20_000,
        denial_entries: 64,
        origin_entries: 64,
        fail_open: false,
        new_flows_per_second: None,
    };
    let key = |number: u32| Key { incarnation: number, port: 1, direction: 0, protocol: 6, src: [1; 16], dst: [2; 16], sport: 3, dport: 4 };
    let value = CacheValue { epoch: 1, verdict: CACHE_ALLOW, timeout_ns: 1, ..bytemuck::Zeroable::zeroed() };
    let first = Loaded::new(&options).unwrap();
    let keys: Vec<Key> = (0..15_000).map(key).collect();
    first.cache.put_batch(&keys, &vec![value; keys.len()]).unwrap();
    first.ports.publish(7, std::mem::offset_of!(Port, state), 1);
    drop(first);

    let second = Loaded::new(&options).unwrap();
    let mut seen = std::collections::HashSet::new();
    second.cache.scan(|key, _| assert!(seen.insert(*key), "no entry twice")).unwrap();
    assert_eq!(seen.len(), keys.len(), "a scan is complete");
    assert_eq!(second.ports.read(7).state, 1);
    let beyond: Vec<Key> = (20_000..30_000).map(key).collect();
    let error = second.cache.put_batch(&beyond, &vec![value; beyond.len()]).unwrap_err();
    assert!(matches!(error, sluice_bpf::MapError::Partial { done, .. } if done < beyond.len()), "{error}");
}
