//! The programs pass the verifier, and a second load finds the first one's maps. Needs root; says so when it is skipped.
#![cfg(feature = "load")]

use sluice_bpf::abi::{CACHE_ALLOW, CacheValue, ENDINGS_MAX, Ending, Key, Port};
use sluice_bpf::testing::Intruder;
use sluice_bpf::testing::stack::{STACK_BYTES_MAX, deepest_chains};
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

/// Also on kernels that count more strictly than this one.
#[test]
fn the_stack_of_the_deepest_chain_of_calls_is_small_enough_for_every_kernel() {
    if !root_and_bpffs() {
        return;
    }
    let chains = deepest_chains();
    assert!(chains.iter().any(|(_, bytes)| *bytes > STACK_BYTES_MAX / 2), "counted too little: {chains:?}");
    for (program, bytes) in chains {
        assert!(bytes <= STACK_BYTES_MAX, "{program}: {bytes} bytes");
    }
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

/// Of one of port 80's clients, and of the answers to it.
fn key(number: u16) -> Key {
    Key { incarnation: 1, port: 1, direction: 1, protocol: 6, src: [1; 16], dst: [2; 16], sport: number, dport: 80 }
}

fn back(number: u16) -> Key {
    Key { direction: 0, src: [2; 16], dst: [1; 16], sport: 80, dport: number, ..key(0) }
}

/// What closed is taken out with its counts; what has begun again on its ports stays, also where only half of it is left.
#[test]
fn what_closed_is_taken_out_with_its_counts() {
    alone("end", |options| {
        let loaded = Loaded::new(options).unwrap();
        let value = |number: u16, tcp_flags| CacheValue {
            verdict: CACHE_ALLOW,
            tcp_flags,
            packets: number.into(),
            bytes: 100 * u64::from(number),
            ..bytemuck::Zeroable::zeroed()
        };
        // FIN, RST, begun again, nothing but the answers, nothing
        let put = |key: &Key, value: CacheValue| loaded.cache.put(key, &value).unwrap();
        for (number, tcp_flags) in [(1, Some(0x11)), (2, Some(0x04)), (3, Some(0x02)), (4, None)] {
            tcp_flags.into_iter().for_each(|tcp_flags| put(&key(number), value(number, tcp_flags)));
            put(&back(number), value(10 * number, 0x10));
        }
        for worker in [0, 15] {
            let mut closed: Vec<Ending> = (1..=5).map(|number| Ending { key: key(number), again: 7, packets: 7, bytes: 7 }).collect();
            loaded.end(worker, &mut closed).unwrap();
            let found: Vec<_> = closed.iter().map(|ending| (ending.again, ending.packets, ending.bytes)).collect();
            let expected = match worker {
                0 => [(0, 11, 1100), (0, 22, 2200), (1, 0, 0), (0, 40, 4000), (0, 0, 0)],
                _ => [(0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0)],
            };
            assert_eq!(found, expected, "worker {worker}");
            let left = |key: fn(u16) -> Key| (1..=5).filter(|number| loaded.cache.get(&key(*number)).is_some()).collect::<Vec<_>>();
            assert_eq!((left(key), left(back)), (vec![3], vec![3]));
        }
        let mut many: Vec<Ending> =
            (100..100 + ENDINGS_MAX as u16).map(|number| Ending { key: key(number), ..bytemuck::Zeroable::zeroed() }).collect();
        many.iter().for_each(|ending| put(&ending.key, value(ending.key.sport, 0x01)));
        loaded.end(3, &mut many).unwrap();
        assert!(many.iter().all(|ending| ending.packets == u64::from(ending.key.sport) && loaded.cache.get(&ending.key).is_none()));
    });
}
