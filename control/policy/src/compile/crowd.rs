//! Reads many pods at once. The time goes into waiting for memory, so pods are touched some ahead, each waiting beside the
//! others, and large crowds are shared among threads. Neither shows: kinds are numbered by first use, which means nothing.

use super::identity::{Addresses, NamedPorts, has_identity, named_ports, stated, write_key};
use super::pods::Kind;
use crate::pod::{Container, Labels, Pod};
use crate::snapshot::Objects;
use ahash::RandomState;
use sluice_flow::ObjectName;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZero;
use std::ptr;
use std::sync::Arc;
use std::thread;

/// What one thread read.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// With their keys.
    pub(super) kinds: Vec<(Vec<u8>, Kind)>,
    /// Claims by index into `kinds`.
    pub(super) v4: Vec<(u32, u32)>,
    pub(super) v6: Vec<(u128, u32)>,
}

/// A pod, and where the dataplane has it.
type Entry<'a> = (&'a ObjectName, &'a Arc<Pod>, Option<&'a [IpAddr]>);

/// Pods for which another thread is worth while.
const PODS_OF_THREAD: usize = 8192;
const THREADS_MAX: usize = 8;
const TOUCHED_AHEAD: usize = 16;

/// Reads all pods with an identity. `placed`: where the dataplane has those that are attached here.
pub(super) fn read(pods: &Objects<ObjectName, Pod>, placed: &BTreeMap<ObjectName, Vec<IpAddr>>) -> Vec<Part> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(pods.len());
    entries.extend(pods.iter().map(|(name, pod)| (name, pod, None)));
    // few are here: to ask each pod would mean to read each name
    for (name, addresses) in placed {
        if let Ok(at) = entries.binary_search_by(|entry| entry.0.cmp(name)) {
            entries[at].2 = Some(addresses);
        }
    }
    let available = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = available.min(THREADS_MAX).min(entries.len().div_ceil(PODS_OF_THREAD)).max(1);
    if threads == 1 {
        return vec![read_part(&entries)];
    }
    thread::scope(|scope| {
        let workers: Vec<_> = entries.chunks(entries.len().div_ceil(threads)).map(|entries| scope.spawn(|| read_part(entries))).collect();
        workers.into_iter().map(|worker| worker.join().expect("reading pods does not panic")).collect()
    })
}

/// The parts that pods have in common, by where they are. Who holds the same ones in the same namespace is of one kind.
#[derive(PartialEq, Eq, Hash)]
struct Shared {
    labels: *const Labels,
    /// Null where there is none: what is empty may seem to be where something else is.
    containers: [*const Container; 2],
}

impl Shared {
    fn of(pod: &Pod) -> Self {
        let place = |containers: &[Container]| if containers.is_empty() { ptr::null() } else { containers.as_ptr() };
        Self { labels: pod.labels(), containers: [place(pod.containers()), place(pod.init_containers())] }
    }
}

fn read_part(entries: &[Entry<'_>]) -> Part {
    let mut part = Part::default();
    let mut ids: HashMap<Vec<u8>, u32, RandomState> = HashMap::default();
    // many kinds name the same ports
    let mut known_ports: HashMap<Box<[u8]>, Arc<NamedPorts>, RandomState> = HashMap::default();
    let mut key = Vec::with_capacity(256);
    // the pods of one namespace stand side by side
    let (mut namespace, mut here): (&str, HashMap<Shared, u32, RandomState>) = ("", HashMap::default());
    for entries in entries.chunks(TOUCHED_AHEAD) {
        touch(entries);
        for &(name, pod, placed) in entries.iter().filter(|(_, pod, _)| has_identity(pod)) {
            if name.namespace != namespace {
                namespace = &name.namespace;
                here.clear();
            }
            let kind = *here.entry(Shared::of(pod)).or_insert_with(|| {
                let ports = write_key(&mut key, namespace, pod);
                ids.get(&key).copied().unwrap_or_else(|| {
                    let kind = part.kinds.len() as u32;
                    let named_ports = Arc::clone(known_ports.entry(key[ports..].into()).or_insert_with(|| Arc::new(named_ports(pod))));
                    part.kinds.push((key.clone(), Kind { namespace: namespace.to_owned(), representative: Arc::clone(pod), named_ports }));
                    ids.insert(key.clone(), kind);
                    kind
                })
            });
            for address in placed.map_or_else(|| stated(pod), Addresses::from) {
                match address {
                    IpAddr::V4(address) => part.v4.push((u32::from(address), kind)),
                    IpAddr::V6(address) => part.v6.push((u128::from(address), kind)),
                }
            }
        }
    }
    part
}

/// Begins to fetch what will be read of these pods, as far as it is theirs alone.
fn touch(entries: &[Entry<'_>]) {
    let mut sum = 0usize;
    for (name, pod, _) in entries {
        sum += name.namespace.as_bytes().first().map_or(0, |&byte| usize::from(byte));
        sum += usize::from(pod.metadata.labels.is_some());
        sum += pod.status.as_ref().map_or(0, |status| status.pod_ips.as_ref().map_or(0, |ips| ips.len()));
    }
    black_box(sum);
}
