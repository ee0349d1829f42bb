//! Target `manifests`: text that somebody put into the manifest directory, as YAML and as JSON.

use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::load::{Loaded, ManifestSet};
use sluice_policy::{Snapshot, compile};
use sluice_table::Table;
use std::net::IpAddr;
use std::path::PathBuf;

/// For inputs of a few kilobytes: aliases may expand to 100 000 values, an image has 650 kB and grows with its peers.
const MEMORY_MAX: usize = 512 << 20;

/// Loads the bytes under both names, twice, and compiles what is valid.
pub fn check(data: &[u8]) {
    for name in ["fuzz.yaml", "fuzz.json"] {
        crate::memory::bounded(MEMORY_MAX, || check_as(name, data));
    }
}

fn check_as(name: &str, data: &[u8]) {
    let files = || vec![(PathBuf::from(name), Ok(data.to_vec()))];
    let mut set = ManifestSet::new();
    let first = set.update(files()).clone();
    assert_eq!(first.kept.len(), 0, "there was nothing to keep");
    assert_same(&first, set.update(files()), "the same file again");
    assert_same(&first, ManifestSet::new().update(files()), "the same file in another set");
    for error in &first.errors {
        assert!(!error.to_string().is_empty() && !error.message.is_empty());
    }
    if first.snapshot.policies.is_empty() && first.snapshot.pods.is_empty() {
        return;
    }
    let generation = 1;
    // beyond the format's limits, or an object of whose kind the loader could not see that it has no exact form
    let Ok(image) = compile(&with_every_pod_attached(first.snapshot), generation) else { return };
    let table = Table::from_bytes(&image).expect("what the compiler wrote is a table");
    assert_eq!(table.generation(), generation);
}

fn assert_same(first: &Loaded, again: &Loaded, what: &str) {
    assert_eq!(first.errors, again.errors, "{what}");
    assert_eq!(first.origins, again.origins, "{what}");
    assert_eq!(first.kept, again.kept, "{what}");
    assert_eq!(first.skipped, again.skipped, "{what}");
    assert!(first.snapshot == again.snapshot, "{what}: another snapshot");
}

/// Every pod as an endpoint of this node, as far as ports reach, with the addresses its status shows.
pub fn with_every_pod_attached(mut snapshot: Snapshot) -> Snapshot {
    let addresses = |pod: &ObjectName| -> Vec<IpAddr> {
        let status = snapshot.pods[pod].status.as_ref();
        let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
        let first = status.and_then(|status| status.pod_ip.as_deref());
        let mut addresses: Vec<IpAddr> = listed.chain(first).filter_map(|text| text.parse().ok()).collect();
        addresses.dedup();
        addresses
    };
    let endpoints = snapshot.pods.keys().take(PORTS_MAX).enumerate().map(|(index, pod)| LocalEndpoint {
        port: PortIndex(index as u16),
        incarnation: Incarnation(index as u32 + 1),
        pod: pod.clone(),
        uid: String::new(),
        addresses: addresses(pod),
    });
    snapshot.endpoints = endpoints.collect();
    snapshot
}
