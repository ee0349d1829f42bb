//! What happens to the cluster, and what it then holds, read by the loader: not by what is tested.

use anyhow::{Context, Result, bail};
use serde_json::json;
use sluice_apiserver::{Feed, Recording, Script, Size, Store};
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::Snapshot;
use sluice_policy::load::load_str;
use std::sync::Arc;

/// Plural, kind and apiVersion of what decides verdicts.
pub(super) const KINDS: [(&str, &str, &str); 4] = [
    ("namespaces", "Namespace", "v1"),
    ("pods", "Pod", "v1"),
    ("services", "Service", "v1"),
    ("networkpolicies", "NetworkPolicy", "networking.k8s.io/v1"),
];
/// Changes of a random history.
const RANDOM_CHANGES: usize = 120;
/// Pods that are attached here.
const LOCAL_MAX: usize = 6;

/// See the module.
pub(super) struct History {
    store: Arc<Store>,
    source: Source,
}

enum Source {
    Recorded(Feed),
    Random { script: Script, remaining: usize },
}

impl History {
    /// The recorded history of a scenario, or a random one of this seed; the store holds its first state.
    pub(super) fn begin(store: &Arc<Store>, recorded: Option<(&Recording, &str)>, seed: u64) -> Result<Self> {
        let source = match recorded {
            Some((recording, scenario)) => Source::Recorded(Feed::new(Arc::clone(store), recording, scenario)?),
            None => Source::Random { script: Script::new(Arc::clone(store), seed, Size::default()), remaining: RANDOM_CHANGES },
        };
        Ok(Self { store: Arc::clone(store), source })
    }

    pub(super) fn remaining(&self) -> usize {
        match &self.source {
            Source::Recorded(feed) => feed.remaining(),
            Source::Random { remaining, .. } => *remaining,
        }
    }

    /// Lets so many changes happen, as far as there are so many; returns how many.
    pub(super) fn advance(&mut self, count: usize) -> Result<u64> {
        let count = count.min(self.remaining());
        match &mut self.source {
            Source::Recorded(feed) => feed.advance(count).context("the recorded history")?,
            Source::Random { script, remaining } => {
                (0..count).for_each(|_| drop(script.step()));
                *remaining -= count;
            }
        }
        Ok(count as u64)
    }

    /// Some pods with addresses, as a dataplane would report them.
    pub(super) fn endpoints(&self, incarnation: u32) -> Vec<LocalEndpoint> {
        let pods = self.store.values("pods").unwrap_or_default();
        let text = |pod: &serde_json::Value, at: &str| pod.pointer(at).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
        let endpoint = |pod: &serde_json::Value| {
            let ips = pod.pointer("/status/podIPs").and_then(|ips| ips.as_array()).into_iter().flatten();
            let addresses: Vec<_> = ips.filter_map(|ip| text(ip, "/ip").parse().ok()).collect();
            let is_ours = !addresses.is_empty()
                && pod.pointer("/spec/hostNetwork").is_none()
                && !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed");
            let name = ObjectName::new(text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
            is_ours.then(|| (name, text(pod, "/metadata/uid"), addresses))
        };
        let local = pods.iter().filter_map(endpoint).take(LOCAL_MAX).enumerate();
        let local = local.map(|(index, (pod, uid, addresses))| LocalEndpoint {
            port: PortIndex(index as u16),
            incarnation: Incarnation(incarnation),
            pod,
            uid,
            addresses,
        });
        local.collect()
    }

    /// What the server holds now.
    pub(super) fn snapshot(&self, endpoints: Vec<LocalEndpoint>) -> Result<Snapshot> {
        let mut items = Vec::new();
        for (plural, kind, api_version) in KINDS {
            items.extend(self.store.values(plural)?.into_iter().map(|mut object| {
                object["apiVersion"] = api_version.into();
                object["kind"] = kind.into();
                object
            }));
        }
        let loaded = load_str("store.json", &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
        if let Some(error) = loaded.errors.first() {
            bail!("the loader does not take what the server holds: {error}");
        }
        Ok(Snapshot { endpoints, ..loaded.snapshot })
    }
}
