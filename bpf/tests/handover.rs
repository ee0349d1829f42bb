//! From one ABI version to another: every map, every link, every place to die. Between the versions of this build and the
//! other one; built with `abi-next`, the same the other way.
#![cfg(feature = "load")]

mod node;

use bytemuck::Zeroable;
use node::{
    ALLOWED, DENIED, DENY_EPOCH, EPOCH, INCARNATION, LO, Node, PORT, Sent, Traffic, UNKNOWN, names, on_a_node, our_key, their_key,
    their_value,
};
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_DENY, CACHE_REPLY, COUNT_HIT, Port};
use sluice_bpf::testing::other::{self, VERSION};
use sluice_bpf::{LoadOptions, Loaded, Step};
use std::io;

/// What passes and what does not, in the end by our maps.
fn assert_judged(sent: &Sent) {
    assert!(sent.allowed > 20 && sent.forbidden > 40, "{sent:?}");
    assert_eq!((sent.lost, sent.leaked), (0, 0), "{sent:?}");
}

#[test]
fn under_traffic_nothing_is_lost_nothing_leaks_and_every_packet_is_counted_once() {
    on_a_node(|node| {
        let other = node.other();
        let before = other.count(COUNT_HIT as u32, 100);
        let traffic = Traffic::start();
        let loaded = Loaded::new(&node.options()).unwrap();
        let done = loaded.handover().expect("there was another version").clone();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let sent = traffic.finish();
        println!("{done}; {sent:?}");
        assert_judged(&sent);
        node.assert_alone(&loaded);
        assert_eq!((done.from, done.links, done.entries, done.skipped, done.unreadable), (vec![VERSION], 4, 1, 0, vec![]));
        let counters = loaded.counters();
        assert_eq!(counters[COUNT_HIT], before + sent.allowed);
        assert_eq!(counters[..64].iter().sum::<u64>(), sent.forbidden, "every drop has its reason: {:?}", &counters[..64]);
        let entry = loaded.cache.get(&our_key(ALLOWED)).unwrap();
        // what is counted while an entry is rewritten is lost
        assert!((1000 + sent.allowed - 10..=1000 + sent.allowed).contains(&entry.packets), "{} {sent:?}", entry.packets);
    });
}

#[test]
fn every_map_is_converted_and_what_does_not_fit_is_left_out_and_counted() {
    on_a_node(|node| {
        let other = node.unhooked();
        let reply = other::CacheValue { verdict: CACHE_DENY, flags: CACHE_REPLY, tcp_flags: 0x12, bytes: 77, ..their_value(5) };
        other.put("cache", &their_key([1, 2]), &reply);
        // of later versions
        other.put("cache", &their_key([3, 4]), &other::CacheValue { verdict: 9, ..their_value(1) });
        other.put("cache", &their_key([5, 6]), &other::CacheValue { flags: 0x80, ..their_value(1) });
        other.put("origins", &their_key([7, 8]), &123u64);
        let restricted = other::Port { state: node.their_port().state | 0x40, ifindex: 77, ..node.their_port() };
        other.put("ports", &6u32, &restricted);
        let mut skipped = 3;
        if let Some(wide) = wide_generation() {
            other.put("cache", &their_key([9, 10]), &other::CacheValue { generation: wide, ..their_value(1) });
            skipped += 1;
        }
        drop(other);
        let loaded = Loaded::new(&node.options()).unwrap();
        let done = loaded.handover().unwrap();
        assert_eq!((done.entries, done.skipped, done.unreadable.len()), (2, skipped, 0), "{done}");

        let port = loaded.ports.read(PORT as usize);
        let expected = Port {
            ifindex: LO,
            incarnation: INCARNATION,
            epoch: EPOCH,
            deny_epoch: DENY_EPOCH,
            state: node.their_port().state,
            trunk_ifindex: node.near,
            ip4: [127, 0, 0, 1],
            has_ip6: 1,
            ip6: [7; 16],
            ..Zeroable::zeroed()
        };
        assert_eq!(port, expected);
        assert_eq!(loaded.ports.read(6), Port { ifindex: 77, state: 0, ..expected }, "isolated in a way of a later version: closed");
        assert_eq!([LO, 77].map(|ifindex| loaded.port_of_ifindex.get(&ifindex)), [Some(PORT), Some(6)]);
        assert_eq!(loaded.worker_of_trunk.get(&node.far), Some(0));
        let entry = loaded.cache.get(&our_key([1, 2])).unwrap();
        assert_eq!((entry.epoch, entry.verdict, entry.flags, entry.tcp_flags), (EPOCH, CACHE_DENY, CACHE_REPLY, 0x12));
        assert_eq!((entry.packets, entry.bytes, entry.last_seen_ns, entry.timeout_ns), (5, 77, 1, reply.timeout_ns));
        assert_eq!((entry.rule, u64::from(entry.generation)), (9, 8));
        assert_eq!(loaded.cache.get(&our_key(ALLOWED)).map(|entry| entry.verdict), Some(CACHE_ALLOW));
        let denial = loaded.denials.get(&sluice_bpf::abi::Key { sport: 0, ..our_key(DENIED) });
        assert_eq!(denial.map(|denial| denial.deny_epoch), Some(DENY_EPOCH));
        assert_eq!(loaded.origins.get(&our_key([7, 8])), Some(123));
        for gone in [[3, 4], [5, 6], [9, 10], UNKNOWN] {
            assert_eq!(loaded.cache.get(&our_key(gone)), None, "{gone:?}");
        }
    });
}

/// A generation that the other layout holds and ours does not.
fn wide_generation() -> Option<other::Generation> {
    #[cfg(not(feature = "abi-next"))]
    return Some(u64::from(u32::MAX) + 1);
    #[cfg(feature = "abi-next")]
    None
}

#[test]
fn many_entries_are_taken_in_batches_and_those_without_room_are_counted() {
    const MANY: u16 = 20_000;
    on_a_node(|node| {
        let other = node.unhooked_with(u32::from(MANY) + 1);
        for sport in 0..MANY {
            other.put("cache", &their_key([sport, 1]), &their_value(u64::from(sport)));
        }
        drop(other);
        let loaded = Loaded::new(&LoadOptions { cache_entries: 15_000, ..node.options() }).unwrap();
        let done = loaded.handover().unwrap();
        println!("{done}");
        let mut found = 0;
        let read = loaded.cache.scan(|key, value| {
            found += 1;
            assert!(*key == our_key(ALLOWED) || value.packets == u64::from(key.sport));
        });
        read.unwrap();
        assert_eq!((done.entries, done.entries + done.skipped), (found, u64::from(MANY) + 1), "{done}");
        assert!((14_000..=15_000).contains(&found), "{found}");
    });
}

#[test]
fn a_process_that_dies_after_any_step_leaves_work_that_the_next_one_finishes() {
    let mut steps: Vec<Step> = Vec::new();
    on_a_node(|node| {
        drop(node.other());
        Loaded::new_watched(&node.options(), &mut |step| {
            steps.push(step.clone());
            Ok(())
        })
        .unwrap();
    });
    if !steps.is_empty() {
        assert_eq!(steps.len(), 3 + 2 * 4 + 3, "{steps:?}");
    }
    for last in &steps {
        on_a_node(|node| {
            drop(node.other());
            let traffic = Traffic::start();
            let died = Loaded::new_watched(&node.options(), &mut |step| match step == last {
                true => Err(io::Error::other("killed")),
                false => Ok(()),
            });
            assert!(died.unwrap_err().to_string().contains("killed"));
            std::thread::sleep(std::time::Duration::from_millis(20));
            let loaded = Loaded::new(&node.options()).unwrap();
            let sent = traffic.finish();
            assert_judged(&sent);
            node.assert_alone(&loaded);
            let entry = loaded.cache.get(&our_key(ALLOWED)).unwrap();
            assert!((1000..=1000 + sent.allowed).contains(&entry.packets), "{last:?}: {} {sent:?}", entry.packets);
            let hits = loaded.counters()[COUNT_HIT];
            assert!(hits >= sent.allowed, "{last:?}: {hits} hits of {sent:?}");
        });
    }
}

/// Ours was there first; the other one copied it and died with some of its links.
#[test]
fn and_so_does_the_version_that_it_came_from() {
    for taken in 0..=4 {
        on_a_node(|node| {
            drop(node.other());
            let first = Loaded::new(&node.options()).unwrap();
            let epoch = first.ports.read(PORT as usize).epoch;
            drop(first);
            let other = node.unhooked();
            let traffic = Traffic::start();
            for (link, _) in node.links().iter().take(taken) {
                other.take(&node.own(), link);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            other.put("cache", &their_key(UNKNOWN), &their_value(1));
            let loaded = Loaded::new(&node.options()).unwrap();
            let done = loaded.handover().unwrap();
            assert_eq!((done.links, done.skipped), (taken as u64, 0), "{done}");
            assert_eq!(loaded.cache.get(&our_key(UNKNOWN)), None, "ours was complete: nothing is added");
            assert_eq!(loaded.ports.read(PORT as usize).epoch, epoch);
            node.assert_alone(&loaded);
            let sent = traffic.finish();
            assert_eq!(sent.lost, 0, "{sent:?}");
            assert!(loaded.counters()[COUNT_HIT] >= sent.allowed);
        });
    }
}

#[test]
fn what_cannot_be_read_is_as_if_it_were_not_there_and_the_links_are_taken_all_the_same() {
    on_a_node(|node| {
        for damaged in ["ports", "cache", "denials", "origins", "worker_of_trunk", "counters"] {
            damage(&node, damaged);
            let loaded = Loaded::new(&node.options()).unwrap();
            let done = loaded.handover().unwrap().clone();
            println!("{damaged}: {done}");
            assert!(done.unreadable.len() == 1 && done.unreadable[0].contains(damaged), "{done}");
            let port = loaded.ports.read(PORT as usize);
            let entry = loaded.cache.get(&our_key(ALLOWED));
            let taken = (port.ifindex == LO, entry.is_some());
            assert_eq!(taken, (damaged != "ports", damaged != "ports" && damaged != "cache"), "{damaged}");
            node.assert_alone(&loaded);
            let traffic = Traffic::start();
            std::thread::sleep(std::time::Duration::from_millis(if taken.1 { 100 } else { 1100 }));
            let sent = traffic.finish();
            assert_eq!(sent.leaked, 0, "{damaged}: {sent:?}");
            assert_eq!(sent.lost, if taken.1 { 0 } else { sent.allowed }, "{damaged}: {sent:?}");
            drop(loaded);
            std::fs::remove_dir_all(&node.bpf_dir).unwrap();
        }
    });
}

/// The other version's directory with some other map under this name, or, of a per-CPU map, none.
fn damage(node: &Node, map: &str) {
    let other = node.other();
    let path = other.directory.join("maps").join(map);
    std::fs::remove_file(&path).unwrap();
    if map != "counters" {
        let mut another = other.map("config");
        another.pin(&path).unwrap();
    }
}

#[test]
fn garbage_is_removed_and_a_directory_with_links_in_it_is_none() {
    on_a_node(|node| {
        for garbage in ["v7-new", "v7-old"] {
            std::fs::create_dir_all(node.bpf_dir.join(garbage).join("maps")).unwrap();
            std::fs::create_dir_all(node.bpf_dir.join(garbage).join("links")).unwrap();
        }
        drop(Loaded::new(&node.options()).unwrap());
        assert_eq!(names(&node.bpf_dir), [node.own().file_name().unwrap().to_string_lossy()]);
        let other = node.other();
        let hidden = node.bpf_dir.join(format!("v{VERSION}-old"));
        std::fs::rename(&other.directory, &hidden).unwrap();
        let refused = Loaded::new(&node.options()).unwrap_err().to_string();
        assert!(refused.contains("-old/links"), "{refused}");
        assert_eq!(names(&hidden.join("links")).len(), 6, "they still enforce");
    });
}
