//! Attaching pods and taking them away, until those of the manifests run and no others.

use crate::cluster::{self, PodSpec};
use crate::cni::{Attached, Attachment, Chain, SLOTS_MAX};
use crate::netns::NetNs;
use crate::pod;
use crate::process::{ProcessId, kill_inside};
use crate::state::{Layout, PodState, State, replace_file};
use crate::store::Store;
use anyhow::{Context, Result, bail};
use sluice_flow::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many attachments at once; each is several short processes.
const PARALLEL: usize = 4;

/// Duplicate address detection is switched off before the interface exists: its one-second wait would be the longest
/// part of an ADD, and a veth pair has no third party to collide with.
const POD_SYSCTLS: [(&str, &str); 4] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/dad_transmits", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
];

/// What attaching needs besides the state.
pub(crate) struct Site<'a> {
    /// The lab's paths.
    pub(crate) layout: &'a Layout,
    /// The plugins.
    pub(crate) chain: &'a Chain,
    /// The manifests.
    pub(crate) store: &'a Store,
    /// Fails once the user wants to stop.
    pub(crate) check: &'a (dyn Fn() -> Result<()> + Sync),
    /// Told what is being done.
    pub(crate) progress: &'a (dyn Fn(&str) + Sync),
}

/// Which pods came and went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// Attached.
    pub attached: Vec<ObjectName>,
    /// Detached.
    pub detached: Vec<ObjectName>,
}

impl Site<'_> {
    /// Makes the pods those of the manifests. The state is saved before and after, so that a crash in between loses
    /// nothing.
    pub(crate) fn reconcile(&self, state: &mut State) -> Result<Reconciled> {
        let snapshot = self.store.snapshot();
        let wanted = cluster::pods(&snapshot);
        let names: BTreeSet<String> = wanted.iter().map(|spec| spec.pod.to_string()).collect();
        let gone: Vec<ObjectName> =
            state.pods.values().filter(|pod| !names.contains(&pod.pod.to_string())).map(|pod| pod.pod.clone()).collect();
        for pod in &gone {
            self.detach(state, pod)?;
        }
        let (known, new): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|spec| state.pods.contains_key(&spec.pod.to_string()));
        for spec in known {
            self.follow_ports(state, &spec)?;
        }
        let attached = new.iter().map(|spec| spec.pod.clone()).collect();
        // The DNS server goes first: the others' resolv.conf names its address.
        let (dns, others): (Vec<_>, Vec<_>) = new.into_iter().partition(|spec| spec.dns);
        self.attach_all(state, &dns)?;
        self.attach_all(state, &others)?;
        replace_file(&self.layout.dns_hosts(), cluster::dns_hosts(&snapshot, &state.pods).as_bytes())?;
        Ok(Reconciled { attached, detached: gone })
    }

    /// Takes a pod away as a node does: its processes, its attachment, its namespace.
    pub(crate) fn detach(&self, state: &mut State, name: &ObjectName) -> Result<()> {
        let Some(pod) = state.pods.get(&name.to_string()) else { return Ok(()) };
        let netns = NetNs::named(self.layout.pod_netns(name));
        if let Some(server) = pod.server {
            server.kill();
        }
        kill_inside(&netns.identity().into_iter().collect());
        self.chain.del(&self.attachment(pod))?;
        netns.delete()?;
        let _ = std::fs::remove_dir_all(pod::etc_dir(self.layout, name));
        state.pods.remove(&name.to_string());
        self.layout.save(state)
    }

    /// CNI CHECK.
    pub(crate) fn check(&self, pod: &PodState) -> Result<()> {
        self.chain.check(&self.attachment(pod))
    }

    /// Starts the server anew when the declared ports have changed.
    fn follow_ports(&self, state: &mut State, spec: &PodSpec) -> Result<()> {
        let bin_dir = state.bin_dir.clone();
        let Some(pod) = state.pods.get_mut(&spec.pod.to_string()) else { return Ok(()) };
        let runs = pod.server.is_some_and(ProcessId::is_alive);
        if (&pod.served, pod.dns, runs) == (&spec.served, spec.dns, true) {
            return Ok(());
        }
        if let Some(server) = pod.server.take() {
            server.kill();
        }
        (pod.served, pod.dns) = (spec.served.clone(), spec.dns);
        pod.server = Some(pod::start_server(self.layout, &bin_dir, pod)?);
        self.layout.save(state)
    }

    fn attach_all(&self, state: &mut State, specs: &[PodSpec]) -> Result<()> {
        let mut used: BTreeSet<u32> = state.pods.values().map(|pod| pod.slot).collect();
        let mut pending = Vec::with_capacity(specs.len());
        for spec in specs {
            let slot = (0..SLOTS_MAX).find(|slot| !used.contains(slot)).context("the pods' address range is full")?;
            used.insert(slot);
            let pod = new_pod(spec, slot);
            state.pods.insert(spec.pod.to_string(), pod.clone());
            pending.push(pod);
        }
        self.layout.save(state)?;
        let nameserver = nameserver(&state.pods);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new(Vec::with_capacity(pending.len()));
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(pending.len()) {
                scope.spawn(|| {
                    // Relaxed: the counter hands out indices; the results are published by their mutex.
                    while let Some(pod) = pending.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = (self.check)().and_then(|()| self.attach(&state.bin_dir, pod, nameserver));
                        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                        (self.progress)(&format!("pods: {count}/{} attached", pending.len()));
                        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((pod, outcome));
                    }
                });
            }
        });
        let mut errors = Vec::new();
        for (pod, outcome) in results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            let key = pod.pod.to_string();
            match outcome {
                Ok(pod) => {
                    state.pods.insert(key, pod);
                }
                Err(error) => {
                    state.pods.remove(&key);
                    errors.push(format!("pod {key}: {error:#}"));
                }
            }
        }
        self.layout.save(state)?;
        (self.check)()?;
        if !errors.is_empty() {
            errors.sort();
            errors.dedup();
            bail!("{}", errors.join("\n"));
        }
        Ok(())
    }

    /// Namespace, attachment, files, server. On failure none of them is left.
    fn attach(&self, bin_dir: &std::path::Path, pod: &PodState, nameserver: Option<IpAddr>) -> Result<PodState> {
        let netns = NetNs::named(self.layout.pod_netns(&pod.pod));
        let attached = self.attach_namespace(&netns, pod);
        let attached = match attached {
            Ok(attached) => attached,
            Err(error) => {
                let _ = netns.delete();
                return Err(error);
            }
        };
        let mut pod = PodState { addresses: attached.addresses, host_ifname: attached.host_ifname, ..pod.clone() };
        let served = self.write_etc(&pod, nameserver).and_then(|()| pod::start_server(self.layout, bin_dir, &pod));
        match served {
            Ok(server) => pod.server = Some(server),
            Err(error) => {
                let _ = self.chain.del(&self.attachment(&pod));
                let _ = netns.delete();
                return Err(error);
            }
        }
        Ok(pod)
    }

    fn attach_namespace(&self, netns: &NetNs, pod: &PodState) -> Result<Attached> {
        netns.create()?;
        netns.set_sysctls(&POD_SYSCTLS)?;
        self.chain.add(&self.attachment(pod))
    }

    fn write_etc(&self, pod: &PodState, nameserver: Option<IpAddr>) -> Result<()> {
        let dir = pod::etc_dir(self.layout, &pod.pod);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let nameserver = if pod.dns { pod.addresses.first().copied() } else { nameserver };
        if let Some(nameserver) = nameserver {
            replace_file(&dir.join("resolv.conf"), cluster::resolv_conf(&pod.pod, nameserver).as_bytes())?;
        }
        replace_file(&dir.join("hosts"), cluster::etc_hosts(&pod.pod, &pod.addresses).as_bytes())
    }

    fn attachment(&self, pod: &PodState) -> Attachment {
        Attachment {
            pod: pod.pod.clone(),
            uid: pod.uid.clone(),
            container_id: pod.container_id.clone(),
            netns: NetNs::named(self.layout.pod_netns(&pod.pod)),
            slot: pod.slot,
        }
    }
}

/// The address of the DNS server.
pub(crate) fn nameserver(pods: &BTreeMap<String, PodState>) -> Option<IpAddr> {
    pods.values().find(|pod| pod.dns)?.addresses.first().copied()
}

fn new_pod(spec: &PodSpec, slot: u32) -> PodState {
    PodState {
        pod: spec.pod.clone(),
        uid: spec.uid.clone(),
        slot,
        container_id: container_id(spec, slot),
        addresses: Vec::new(),
        host_ifname: String::new(),
        served: spec.served.clone(),
        dns: spec.dns,
        server: None,
    }
}

/// 64 hexadecimal digits, as container runtimes use; new for every attachment, since a sandbox is never used twice.
fn container_id(spec: &PodSpec, slot: u32) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let uid: String = spec.uid.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    format!("{uid:0<32}{slot:08x}{:024x}", since.as_nanos())
}
