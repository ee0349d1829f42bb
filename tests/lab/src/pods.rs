//! Attaching pods and taking them away, until those of the manifests run and no others.

use crate::cluster::{self, PodSpec};
use crate::cni::{Attached, Attachment, Chain};
use crate::kubelet::Kubelet;
use crate::layout::Layout;
use crate::netns::NetNs;
use crate::pod;
use crate::process::{ProcessId, kill_inside};
use crate::services;
use crate::state::{PodState, State, replace_file};
use anyhow::{Context, Result, bail};
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
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

/// Makes a new pod's namespace ready to be attached.
///
/// # Errors
///
/// It cannot be entered; a kernel without IPv6.
pub fn prepare_pod_netns(netns: &NetNs) -> Result<()> {
    netns.set_sysctls(&POD_SYSCTLS)
}

/// What attaching needs besides the state.
pub(crate) struct Site<'a> {
    /// The lab's paths.
    pub(crate) layout: &'a Layout,
    /// The plugins of each node.
    pub(crate) chains: &'a BTreeMap<String, Chain>,
    /// Where there is an API server.
    pub(crate) kubelet: Option<Kubelet<'a>>,
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
    /// Makes the pods those of the objects. The state is saved before and after, so that a crash in between loses
    /// nothing. A pod that has another UID than the one that runs under its name is another pod.
    pub(crate) fn reconcile(&self, state: &mut State, snapshot: &Snapshot) -> Result<Reconciled> {
        let wanted = cluster::pods(snapshot, &state.nodes)?;
        let names: BTreeSet<(String, &str)> = wanted.iter().map(|spec| (spec.pod.to_string(), spec.uid.as_str())).collect();
        let is_gone = |pod: &&PodState| !names.contains(&(pod.pod.to_string(), pod.uid.as_str()));
        let gone: Vec<ObjectName> = state.pods.values().filter(is_gone).map(|pod| pod.pod.clone()).collect();
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
        self.attach_new(state, &dns)?;
        self.attach_new(state, &others)?;
        if let Some(kubelet) = &self.kubelet {
            kubelet.run_on_host(snapshot, &state.nodes)?;
        }
        replace_file(&self.layout.dns_hosts(), cluster::dns_hosts(snapshot, &state.pods).as_bytes())?;
        self.program_services(state, snapshot)?;
        Ok(Reconciled { attached, detached: gone })
    }

    /// What kube-proxy does on each node, where something changed.
    fn program_services(&self, state: &State, snapshot: &Snapshot) -> Result<()> {
        for node in state.nodes.keys() {
            let (layout, rules) = (self.layout.at(node), services::ruleset(snapshot, state, node));
            let written = layout.services();
            if std::fs::read_to_string(&written).is_ok_and(|before| before == rules) {
                continue;
            }
            services::program(&NetNs::named(layout.node_netns()), &rules)?;
            replace_file(&written, rules.as_bytes())?;
        }
        Ok(())
    }

    /// Takes a pod away as a node does: its processes, its attachment, its namespace.
    pub(crate) fn detach(&self, state: &mut State, name: &ObjectName) -> Result<()> {
        let Some(pod) = state.pods.get(&name.to_string()) else { return Ok(()) };
        let netns = NetNs::named(self.layout.pod_netns(name));
        if let Some(server) = pod.server {
            server.kill();
        }
        kill_inside(&netns.identity().into_iter().collect());
        self.chain(&pod.node)?.del(&self.attachment(pod))?;
        netns.delete()?;
        let _ = std::fs::remove_dir_all(pod::etc_dir(self.layout, name));
        state.pods.remove(&name.to_string());
        self.layout.save(state)
    }

    /// Gives a pod another sandbox, as a runtime does when the first one died: DEL, and ADD of the same pod.
    pub(crate) fn renew(&self, state: &mut State, name: &ObjectName) -> Result<()> {
        let pod = state.pods.get(&name.to_string()).cloned().with_context(|| format!("no pod {name}"))?;
        self.detach(state, name)?;
        self.restart_all(state, vec![pod])
    }

    /// Attaches pods whose sandboxes are gone, in new ones and in their old places.
    pub(crate) fn restart_all(&self, state: &mut State, pods: Vec<PodState>) -> Result<()> {
        let anew = |pod: PodState| PodState { container_id: container_id(&pod.uid, pod.slot), addresses: Vec::new(), server: None, ..pod };
        self.attach_all(state, pods.into_iter().map(anew).collect())
    }

    /// CNI CHECK.
    pub(crate) fn check(&self, pod: &PodState) -> Result<()> {
        self.chain(&pod.node)?.check(&self.attachment(pod))
    }

    fn chain(&self, node: &str) -> Result<&Chain> {
        self.chains.get(node).with_context(|| format!("no node {node}"))
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

    /// Gives new pods their places, and attaches them.
    fn attach_new(&self, state: &mut State, specs: &[PodSpec]) -> Result<()> {
        let mut used: BTreeSet<(String, u32)> = state.pods.values().map(|pod| (pod.node.clone(), pod.slot)).collect();
        let mut pods = Vec::with_capacity(specs.len());
        for spec in specs {
            let slots = 0..state.node(&spec.node)?.slots_max();
            let free = |slot: &u32| !used.contains(&(spec.node.clone(), *slot));
            let slot = slots.into_iter().find(free).with_context(|| format!("the address range of the pods on {} is full", spec.node))?;
            used.insert((spec.node.clone(), slot));
            pods.push(new_pod(spec, slot));
        }
        self.attach_all(state, pods)
    }

    /// Attaches pods in their places, several at once.
    pub(crate) fn attach_all(&self, state: &mut State, pending: Vec<PodState>) -> Result<()> {
        state.pods.extend(pending.iter().map(|pod| (pod.pod.to_string(), pod.clone())));
        self.layout.save(state)?;
        let nameserver = nameserver(&state.pods);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new(Vec::with_capacity(pending.len()));
        let shared = &*state;
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(pending.len()) {
                scope.spawn(|| {
                    // Relaxed: the counter hands out indices; the results are published by their mutex.
                    while let Some(pod) = pending.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = (self.check)().and_then(|()| self.attach(shared, pod, nameserver));
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

    /// Namespace, attachment, status, files, server. On failure none of them is left.
    fn attach(&self, state: &State, pod: &PodState, nameserver: Option<IpAddr>) -> Result<PodState> {
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
        match self.run(state, &pod, nameserver) {
            Ok(server) => pod.server = Some(server),
            Err(error) => {
                let _ = self.chain(&pod.node).and_then(|chain| chain.del(&self.attachment(&pod)));
                let _ = netns.delete();
                return Err(error);
            }
        }
        Ok(pod)
    }

    /// What a kubelet does once the sandbox is there.
    fn run(&self, state: &State, pod: &PodState, nameserver: Option<IpAddr>) -> Result<ProcessId> {
        self.write_etc(pod, nameserver)?;
        let server = pod::start_server(self.layout, &state.bin_dir, pod)?;
        if let Some(kubelet) = &self.kubelet
            && let Err(error) = state.node(&pod.node).and_then(|node| kubelet.runs(pod, node))
        {
            server.kill();
            return Err(error);
        }
        Ok(server)
    }

    fn attach_namespace(&self, netns: &NetNs, pod: &PodState) -> Result<Attached> {
        netns.create()?;
        prepare_pod_netns(netns)?;
        self.chain(&pod.node)?.add(&self.attachment(pod))
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
        node: spec.node.clone(),
        uid: spec.uid.clone(),
        slot,
        container_id: container_id(&spec.uid, slot),
        addresses: Vec::new(),
        host_ifname: String::new(),
        served: spec.served.clone(),
        dns: spec.dns,
        server: None,
    }
}

/// 64 hexadecimal digits, as container runtimes use; new for every attachment, since a sandbox is never used twice.
fn container_id(uid: &str, slot: u32) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let uid: String = uid.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    format!("{uid:0<32}{slot:08x}{:024x}", since.as_nanos())
}
