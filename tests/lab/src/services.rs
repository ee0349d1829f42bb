//! Services on a node, as kube-proxy programs them in its nftables mode: one table for each family, maps from address,
//! protocol and port to a chain, a chain for each service port and for each backend.
//!
//! ```text
//!   prerouting, output ─▶ services ─▶ service-N ─numgen─▶ endpoint-N-I ─▶ dnat
//!                            └ NodePort, external address ─▶ external-N ─ mark for masquerade ─┘
//!   postrouting ─▶ marked? masquerade
//! ```
//!
//! What is masqueraded: a backend's packets to itself, packets from outside of the cluster's networks to a service, and whatever
//! comes by a NodePort or an external address, unless the service's traffic policy is Local. Source: Kubernetes 1.33,
//! pkg/proxy/nftables.

use crate::lab::Lab;
use crate::netns::NetNs;
use crate::nodes::{CLUSTER_NETWORKS, SERVICE_NETWORKS};
use crate::state::{PodState, State};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use sluice_flow::{Family, ObjectName};
use sluice_policy::{Objects, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

/// kube-proxy's bit for packets to be masqueraded.
const MASQUERADE: u32 = 0x4000;
const AFFINITY_S: i32 = 10_800;
/// From 30000 on.
const NODE_PORTS: u32 = 2768;

/// Where a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Inside the cluster, one of each family.
    pub addresses: Vec<IpAddr>,
    /// On every node, in the order of its ports; none where it has no such ports.
    pub node_ports: Vec<u16>,
}

impl Frontend {
    /// The cluster address of a family.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let is_wanted = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
        self.addresses.iter().find(is_wanted).copied().with_context(|| format!("no {family:?} address"))
    }
}

impl Lab {
    /// A service, by `ns/name`.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn service(&self, name: &str) -> Result<Frontend> {
        let snapshot = self.objects(&self.state()?)?.snapshot()?;
        let service = snapshot.services.get(&ObjectName::parse(name)).with_context(|| format!("no service {name}"))?;
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        Ok(Frontend {
            addresses: cluster_ips(service).iter().filter_map(|ip| ip.parse().ok()).collect(),
            node_ports: ports.filter_map(|port| port.node_port.and_then(|port| u16::try_from(port).ok())).collect(),
        })
    }
}

/// One port of one service in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    /// Cluster addresses, one at most.
    cluster_ips: Vec<IpAddr>,
    /// Addresses by which it is reached from outside.
    external_ips: Vec<IpAddr>,
    protocol: &'static str,
    port: u16,
    node_port: Option<u16>,
    /// Those of this node alone serve what comes from outside, unmasqueraded.
    external_local: bool,
    /// Those of this node alone serve what comes from inside.
    internal_local: bool,
    affinity_s: Option<i32>,
    /// Ready ones, with whether they are on this node.
    backends: Vec<(SocketAddr, bool)>,
}

/// What a node's packet filter has to say, in nft's language. The same for the same objects.
pub(crate) fn ruleset(snapshot: &Snapshot, state: &State, node: &str) -> String {
    let mut text = String::new();
    for (is_v4, table, cluster) in [(true, "ip", CLUSTER_NETWORKS[0]), (false, "ip6", CLUSTER_NETWORKS[1])] {
        let ports: Vec<Port> =
            snapshot.services.iter().flat_map(|(name, service)| ports(snapshot, state, node, name, service, is_v4)).collect();
        write_table(&mut text, table, cluster, &ports);
    }
    text
}

fn write_table(text: &mut String, family: &str, cluster_network: &str, ports: &[Port]) {
    let address = if family == "ip" { "ipv4_addr" } else { "ipv6_addr" };
    let mut say = |line: &str| writeln!(text, "{line}").expect("a String takes everything");
    // replaced as a whole, in one transaction
    say(&format!("table {family} kube-proxy\ndelete table {family} kube-proxy\ntable {family} kube-proxy {{"));
    let (mut chains, mut ips, mut node_ports) = (String::new(), Vec::new(), Vec::new());
    for (number, port) in ports.iter().enumerate() {
        write_port(&mut chains, family, address, cluster_network, number, port);
        let Port { protocol, port: at, .. } = port;
        ips.extend(port.cluster_ips.iter().map(|ip| format!("{ip} . {protocol} . {at} : goto service-{number}")));
        ips.extend(port.external_ips.iter().map(|ip| format!("{ip} . {protocol} . {at} : goto external-{number}")));
        node_ports.extend(port.node_port.map(|node_port| format!("{protocol} . {node_port} : goto external-{number}")));
    }
    let elements = |of: &[String]| if of.is_empty() { String::new() } else { format!("elements = {{ {} }}", of.join(", ")) };
    say(&chains);
    say(&format!("map service-ips {{ type {address} . inet_proto . inet_service : verdict; {} }}", elements(&ips)));
    say(&format!("map service-nodeports {{ type inet_proto . inet_service : verdict; {} }}", elements(&node_ports)));
    say(&format!(
        "chain services {{
    {family} daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local {family} daddr != {} meta l4proto . th dport vmap @service-nodeports
}}
chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
chain nat-output {{ type nat hook output priority -100; jump services; }}
chain nat-postrouting {{
    type nat hook postrouting priority 100
    meta mark & {MASQUERADE:#x} == 0 return
    meta mark set meta mark ^ {MASQUERADE:#x}
    masquerade fully-random
}}
}}",
        if family == "ip" { "127.0.0.0/8" } else { "::1" }
    ));
}

fn write_port(chains: &mut String, family: &str, address: &str, cluster_network: &str, number: usize, port: &Port) {
    let mut say = |line: String| writeln!(chains, "{line}").expect("a String takes everything");
    let mark = format!("meta mark set meta mark | {MASQUERADE:#x}");
    for (index, (backend, _)) in port.backends.iter().enumerate() {
        let to = if backend.is_ipv4() { backend.to_string() } else { format!("[{}]:{}", backend.ip(), backend.port()) };
        let remember = port.affinity_s.map_or(String::new(), |_| format!("update @affinity-{number}-{index} {{ {family} saddr }}\n    "));
        if let Some(timeout) = port.affinity_s {
            say(format!("set affinity-{number}-{index} {{ type {address}; flags dynamic,timeout; timeout {timeout}s; }}"));
        }
        // to itself: the answer has to come back this way
        say(format!(
            "chain endpoint-{number}-{index} {{\n    {family} saddr {} {mark}\n    {remember}meta l4proto {} dnat to {to}\n}}",
            backend.ip(),
            port.protocol
        ));
    }
    let choose = |local_only: bool| {
        let serving: Vec<usize> =
            port.backends.iter().enumerate().filter(|(_, (_, local))| *local || !local_only).map(|(index, _)| index).collect();
        let mut rules = String::new();
        if port.affinity_s.is_some() {
            for index in &serving {
                let _ = writeln!(rules, "    {family} saddr @affinity-{number}-{index} goto endpoint-{number}-{index}");
            }
        }
        let chains: Vec<String> =
            serving.iter().enumerate().map(|(place, index)| format!("{place} : goto endpoint-{number}-{index}")).collect();
        match chains.len() {
            // as its filter chains would: refused, or silence where others have backends
            0 => rules.push_str("    drop\n"),
            count => {
                let _ = writeln!(rules, "    numgen random mod {count} vmap {{ {} }}", chains.join(", "));
            }
        }
        rules
    };
    say(format!("chain service-{number} {{\n    {family} saddr != {cluster_network} {mark}\n{}}}", choose(port.internal_local)));
    let masquerade = if port.external_local { String::new() } else { format!("    {mark}\n") };
    say(format!("chain external-{number} {{\n{masquerade}{}}}", choose(port.external_local)));
}

/// A service's ports in one family.
fn ports(snapshot: &Snapshot, state: &State, node: &str, name: &ObjectName, service: &Service, is_v4: bool) -> Vec<Port> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let parsed = |list: &[String]| -> Vec<IpAddr> {
        list.iter().filter_map(|text| text.parse().ok()).filter(|ip: &IpAddr| ip.is_ipv4() == is_v4).collect()
    };
    let cluster_ips = parsed(&cluster_ips(service));
    if cluster_ips.is_empty() {
        return Vec::new();
    }
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|balancer| balancer.ingress.as_ref());
    let balanced: Vec<String> = ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.clone()).collect();
    let external: Vec<String> = spec.external_ips.iter().flatten().cloned().chain(balanced).collect();
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()).and_then(|client| client.timeout_seconds);
    let backends_of = |port: &ServicePort| -> Vec<(SocketAddr, bool)> {
        let selected = selected(snapshot, &state.pods, name, service);
        let socket = |pod: &PodState| {
            let address = pod.addresses.iter().find(|address| address.is_ipv4() == is_v4)?;
            let port = match port.target_port.as_ref() {
                None => u16::try_from(port.port).ok(),
                Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
                Some(IntOrString::String(named)) => {
                    let object = snapshot.pods.get(&pod.pod)?;
                    let mut ports = object.containers().iter().flat_map(|container| container.ports.iter().flatten());
                    ports.find(|port| port.name.as_deref() == Some(named)).and_then(|port| u16::try_from(port.container_port).ok())
                }
            }?;
            Some((SocketAddr::new(*address, port), pod.node == node))
        };
        selected.filter_map(socket).collect()
    };
    let port = |port: &ServicePort| {
        Some(Port {
            cluster_ips: cluster_ips.clone(),
            external_ips: parsed(&external),
            protocol: match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => "tcp",
                "UDP" => "udp",
                "SCTP" => "sctp",
                _ => return None,
            },
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()),
            external_local: is_local(&spec.external_traffic_policy),
            internal_local: is_local(&spec.internal_traffic_policy),
            affinity_s: affinity.then_some(timeout.unwrap_or(AFFINITY_S)),
            backends: backends_of(port),
        })
    };
    spec.ports.iter().flatten().filter_map(port).collect()
}

/// A service's addresses inside the cluster; none where it is headless.
pub(crate) fn cluster_ips(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let first = spec.cluster_ip.iter().cloned();
    let all = spec.cluster_ips.clone().unwrap_or_default();
    let mut ips: Vec<String> = first.chain(all).filter(|ip| !ip.is_empty() && ip != "None").collect();
    ips.dedup();
    ips
}

/// The running pods that a service selects.
pub(crate) fn selected<'a>(
    snapshot: &'a Snapshot,
    attached: &'a BTreeMap<String, PodState>,
    name: &'a ObjectName,
    service: &'a Service,
) -> impl Iterator<Item = &'a PodState> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let is_selected = move |pod: &&PodState| {
        let object = snapshot.pods.get(&pod.pod);
        let matches = |labels: &BTreeMap<String, String>| {
            selector.is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
        };
        pod.pod.namespace == name.namespace && object.is_some_and(|object| matches(object.labels()))
    };
    attached.values().filter(is_selected)
}

/// A service's manifest with the addresses and node ports that it does not bring: those that it had, or new ones of both
/// families, from its name and beside those that are taken.
///
/// # Errors
///
/// Not YAML.
pub(crate) fn addressed(name: &ObjectName, manifest: &str, known: &Objects<ObjectName, Service>) -> Result<Value> {
    let mut value: Value = serde_saphyr::from_str(manifest).with_context(|| format!("service {name}: not YAML"))?;
    let kind = value["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    let had = known.get(name);
    if value["spec"].is_object() && kind != "ExternalName" && value["spec"]["clusterIP"].as_str().is_none_or(str::is_empty) {
        let had = had.map(|service| cluster_ips(service)).filter(|ips| !ips.is_empty());
        let taken: BTreeSet<String> = known.values().flat_map(|service| cluster_ips(service)).collect();
        let ips = had.unwrap_or_else(|| free_addresses(name, &taken));
        value["spec"]["clusterIP"] = ips[0].as_str().into();
        value["spec"]["clusterIPs"] = ips.into();
    }
    if ["NodePort", "LoadBalancer"].contains(&&*kind) {
        let numbers = |service: &Service| {
            service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(|port| port.node_port).collect()
        };
        let mut taken: BTreeSet<i32> = known.values().flat_map(|service| -> Vec<i32> { numbers(service) }).collect();
        let had: Vec<i32> = had.map(|service| numbers(service)).unwrap_or_default();
        for (index, port) in value["spec"]["ports"].as_array_mut().into_iter().flatten().enumerate() {
            if port["nodePort"].is_null() {
                let free = |taken: &BTreeSet<i32>| {
                    (0..NODE_PORTS)
                        .map(|step| 30_000 + (hash(name).wrapping_add(step) % NODE_PORTS) as i32)
                        .find(|port| !taken.contains(port))
                };
                let number = had.get(index).copied().or_else(|| free(&taken)).context("all node ports are taken")?;
                taken.insert(number);
                port["nodePort"] = number.into();
            }
        }
    }
    Ok(value)
}

/// FNV-1a.
fn hash(name: &ObjectName) -> u32 {
    name.to_string().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn free_addresses(name: &ObjectName, taken: &BTreeSet<String>) -> Vec<String> {
    const PLACES: u32 = 65_000;
    let places = (0..PLACES).map(|step| 10 + (hash(name).wrapping_add(step) % PLACES) as u16);
    let mut all = places.map(|place| service_addresses(place).map(|address| address.to_string()).to_vec());
    all.find(|addresses| !addresses.iter().any(|address| taken.contains(address))).expect("fewer services than addresses")
}

fn service_addresses(host: u16) -> [IpAddr; 2] {
    let (v4, v6) = SERVICE_NETWORKS;
    let [high, low] = host.to_be_bytes();
    let mut six = v6.segments();
    six[7] = host;
    let [a, b, ..] = v4.octets();
    [IpAddr::from([a, b, high, low]), IpAddr::from(six)]
}

/// Gives a node these rules.
pub(crate) fn program(netns: &NetNs, rules: &str) -> Result<()> {
    netns.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run nft; is nftables installed?")?;
        child.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("the services of {} cannot be programmed: {}\n{rules}", netns.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    })
}
