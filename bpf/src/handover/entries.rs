//! What stands in another version's maps, read as ours.
//!
//! Ports first: without them no entry can be told from one of an earlier pod, so then nothing is taken, and the flows are
//! judged again. Not taken are the configuration (it follows from the command line), the ports' index by device (it
//! follows from the ports), and the sockets (they died with their process).

use super::Handover;
use crate::abi::{CACHE_FLAGS, CACHE_VERDICTS, CacheValue, Denial, Key, PORT_BITS, PORT_STATE_SHIFT, PORTS_MAX, Port};
use crate::layout::{Conversion, Role};
use crate::load::Loaded;
use crate::maps::{HashMapFd, MapError};
use crate::pinned::{PinnedMap, Unreadable};
use bytemuck::{Pod, Zeroable};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

const BATCH: usize = 4096;

/// What this process did with a directory before it took its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Copied {
    /// Nothing: our directory was complete, by an earlier process.
    #[default]
    Before,
    Now,
    /// Nothing: its ports could not be read.
    Never,
}

/// What was read of one directory before its links were taken: packets and bytes by a hash of the key.
#[derive(Debug, Default)]
pub(super) struct Taken {
    copied: Copied,
    hasher: RandomState,
    counts: HashMap<u64, [u64; 2]>,
}

impl Taken {
    /// Fills our maps, which nobody looks at yet.
    pub(super) fn copy(&mut self, other: &Path, loaded: &Loaded, done: &mut Handover) {
        if let Err(reason) = copy_ports(other, loaded, done) {
            self.copied = Copied::Never;
            return note(done, other, "ports", &reason);
        }
        self.copied = Copied::Now;
        done.entries += copy(other, loaded, "cache", &loaded.cache, done, |key, value| {
            self.counts.insert(self.hasher.hash_one(bytemuck::bytes_of(key)), [value.packets, value.bytes]);
            is_known(value)
        });
        copy(other, loaded, "denials", &loaded.denials, done, |_: &Key, _: &Denial| true);
        copy(other, loaded, "origins", &loaded.origins, done, |_: &Key, _: &u64| true);
        // not there before version 2
        if other.join("maps").join("exits").exists() {
            copy(other, loaded, "exits", &loaded.exits, done, |_: &u32, _: &u32| true);
        }
        copy(other, loaded, "worker_of_trunk", &loaded.worker_of_trunk, done, |_: &u32, _: &u32| true);
    }

    /// Adds what the other version's programs noted until they lost their last link. Ours run already, so an entry is
    /// read, changed and put back: what they count in between is lost, as it is whenever a worker rewrites one.
    pub(super) fn merge(&self, other: &Path, loaded: &Loaded, done: &mut Handover) {
        if self.copied == Copied::Never {
            return;
        }
        let mut held = 0;
        let cache = read(other, loaded, "cache", |key: Key, theirs: CacheValue| {
            let before = self.counts.get(&self.hasher.hash_one(bytemuck::bytes_of(&key)));
            // whatever a program notes, it counts a packet
            if before.is_some_and(|before| before[0] == theirs.packets) {
                return;
            }
            // never put where there is none: ours were complete when they were published
            let Some(ours) = loaded.cache.get(&key) else { return };
            held += 1;
            let merged = merged(&ours, &theirs, before);
            if merged != ours {
                loaded.cache.replace(&key, &merged);
            }
        });
        let origins = read(other, loaded, "origins", |key: Key, seen_ns: u64| {
            if loaded.origins.get(&key).is_none_or(|ours| ours < seen_ns) {
                // one that cannot be remembered costs its connection a judgement in mid-flow, should its pod be isolated
                let _ = loaded.origins.put(&key, &seen_ns);
            }
        });
        // what was skipped or could not be read was counted and said when it was copied
        if self.copied == Copied::Before {
            done.entries += held;
            for (name, outcome) in [("cache", cache), ("origins", origins)] {
                count_skipped(done, other, name, outcome);
            }
        }
    }
}

/// Ours with what theirs knows more. Without the counts at the time of the copy, the larger ones are nearest the truth.
fn merged(ours: &CacheValue, theirs: &CacheValue, before: Option<&[u64; 2]>) -> CacheValue {
    let counts = match before {
        Some([packets, bytes]) => {
            [ours.packets + theirs.packets.saturating_sub(*packets), ours.bytes + theirs.bytes.saturating_sub(*bytes)]
        }
        None => [ours.packets.max(theirs.packets), ours.bytes.max(theirs.bytes)],
    };
    CacheValue {
        packets: counts[0],
        bytes: counts[1],
        last_seen_ns: ours.last_seen_ns.max(theirs.last_seen_ns),
        tcp_flags: ours.tcp_flags | theirs.tcp_flags,
        // FIN and RST shorten it, nothing else changes it
        timeout_ns: ours.timeout_ns.min(theirs.timeout_ns),
        ..*ours
    }
}

/// A verdict or flag of a later version may mean less than ours.
fn is_known(value: &CacheValue) -> bool {
    CACHE_VERDICTS.contains(&value.verdict) && value.flags & !CACHE_FLAGS == 0
}

fn copy_ports(other: &Path, loaded: &Loaded, done: &mut Handover) -> Result<(), Unreadable> {
    let (mut ports, mut beyond) = (Vec::new(), 0);
    let skipped = read(other, loaded, "ports", |index: u32, port: Port| match (index as usize) < PORTS_MAX {
        true => ports.push((index, port)),
        false => beyond += u64::from(port.ifindex != 0),
    })?;
    done.skipped += skipped + beyond;
    for (index, mut port) in ports {
        let at = index as usize;
        // two directories of an interrupted handover say the same
        if loaded.ports.read(at) != Port::zeroed() {
            continue;
        }
        if port.state & ((1 << PORT_STATE_SHIFT) - 1) & !PORT_BITS != 0 {
            // it may be isolated in a way that ours would let pass: closed until a worker opens it
            port.state = 0;
            done.skipped += 1;
        }
        loaded.ports.write(at, port);
        if port.ifindex != 0 {
            loaded.port_of_ifindex.put(&port.ifindex, &index)?;
        }
    }
    Ok(())
}

/// Every record that can be converted and is wanted; returns how many are in our map now.
fn copy<K: Pod, V: Pod>(
    other: &Path,
    loaded: &Loaded,
    name: &'static str,
    to: &HashMapFd<K, V>,
    done: &mut Handover,
    mut is_wanted: impl FnMut(&K, &V) -> bool,
) -> u64 {
    let mut batch = Batch::new(to);
    let outcome = read(other, loaded, name, |key, value| match is_wanted(&key, &value) {
        true => batch.put(key, value),
        false => batch.refused += 1,
    });
    batch.flush();
    done.skipped += batch.refused;
    count_skipped(done, other, name, outcome);
    batch.written
}

/// Every record of a map that can be converted; returns how many cannot.
fn read<K: Pod, V: Pod>(other: &Path, loaded: &Loaded, name: &'static str, mut each: impl FnMut(K, V)) -> Result<u64, Unreadable> {
    let theirs = PinnedMap::open(&other.join("maps"), name)?;
    let ours = PinnedMap::open(&loaded.directory.join("maps"), name)?;
    let of_keys = Conversion::between(&theirs.key, &ours.key, Role::Key)?;
    let of_values = Conversion::between(&theirs.value, &ours.value, Role::Value)?;
    assert_eq!((of_keys.to_bytes(), of_values.to_bytes()), (size_of::<K>(), size_of::<V>()), "{name} is as this build made it");
    let mut skipped = 0;
    theirs.scan(|their_key, their_value| {
        let (mut key, mut value) = (K::zeroed(), V::zeroed());
        let fits = of_keys.convert(their_key, bytemuck::bytes_of_mut(&mut key))
            && of_values.convert(their_value, bytemuck::bytes_of_mut(&mut value));
        match fits {
            true => each(key, value),
            false => skipped += 1,
        }
    })?;
    Ok(skipped)
}

fn count_skipped(done: &mut Handover, other: &Path, map: &str, read: Result<u64, Unreadable>) {
    match read {
        Ok(skipped) => done.skipped += skipped,
        Err(reason) => note(done, other, map, &reason),
    }
}

fn note(done: &mut Handover, other: &Path, map: &str, reason: &Unreadable) {
    done.unreadable.push(format!("{} {map}: {reason}", other.file_name().unwrap_or_default().to_string_lossy()));
}

/// Entries on their way into a map; those that it has no room for are counted.
struct Batch<'a, K, V> {
    map: &'a HashMapFd<K, V>,
    keys: Vec<K>,
    values: Vec<V>,
    written: u64,
    refused: u64,
}

impl<'a, K: Pod, V: Pod> Batch<'a, K, V> {
    fn new(map: &'a HashMapFd<K, V>) -> Self {
        Self { map, keys: Vec::new(), values: Vec::new(), written: 0, refused: 0 }
    }

    fn put(&mut self, key: K, value: V) {
        self.keys.push(key);
        self.values.push(value);
        if self.keys.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let done = match self.map.put_batch(&self.keys, &self.values) {
            Ok(()) => self.keys.len(),
            Err(MapError::Partial { done, .. }) => done,
            Err(MapError::System { .. }) => 0,
        };
        self.written += done as u64;
        self.refused += (self.keys.len() - done) as u64;
        self.keys.clear();
        self.values.clear();
    }
}
