//! One line of a case → one object's manifest, as a person would have written it at length.
//!
//! ```text
//!   namespace y team=blue
//!   pod x/web 10.0.0.1 fd00::1 app=web http:80/TCP @elsewhere
//!   service x/api 10.96.0.10 80
//! ```
//!
//! Words of a pod: an address, a label `key=value`, a port `name:80/TCP` or `:80/TCP`, or a mark. Marks: `@elsewhere` (on
//! another node), `@host-network`, `@succeeded`, `@failed`, `@terminating`, `@sidecar:NAME:PORT/PROTOCOL` (a port of a
//! restartable init container), `@init:NAME:PORT/PROTOCOL` (of an ordinary one).

use serde_json::{Map, Value, json};
use sluice_flow::ObjectName;
use std::net::IpAddr;
use std::path::PathBuf;

/// The node that runs the pods under test.
const HERE: &str = "here";

/// An object as its case describes it.
#[derive(Debug, Clone)]
pub(super) enum Object {
    /// A whole file as it stands.
    Manifest { file: String, text: String },
    /// A policy whose `spec` is given in YAML.
    Policy { name: ObjectName, spec: String },
    /// A namespace and its labels.
    Namespace { name: String, labels: Map<String, Value> },
    /// A pod.
    Pod(Box<PodLine>),
    /// A service address.
    Service { name: ObjectName, address: IpAddr, port: u16 },
}

/// A pod in a line.
#[derive(Debug, Clone, Default)]
pub(super) struct PodLine {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) addresses: Vec<IpAddr>,
    labels: Map<String, Value>,
    ports: Vec<Value>,
    init_containers: Vec<Value>,
    elsewhere: bool,
    host_network: bool,
    terminating: bool,
    phase: Option<&'static str>,
}

impl Object {
    /// The file in which the loader will find it.
    pub(super) fn file(&self) -> PathBuf {
        match self {
            Self::Manifest { file, .. } => file.into(),
            Self::Policy { name, .. } => file_of("policy", &name.to_string()),
            Self::Namespace { name, .. } => file_of("namespace", name),
            Self::Pod(pod) => file_of("pod", &format!("{}/{}", pod.namespace, pod.name)),
            Self::Service { name, .. } => file_of("service", &name.to_string()),
        }
    }

    /// Its manifest. Where a real cluster places the pods (`placed` false), they tell neither addresses nor node.
    pub(super) fn manifest(&self, node: &[IpAddr], placed: bool) -> String {
        match self {
            Self::Manifest { text, .. } => text.clone(),
            Self::Policy { name, spec } => policy(name, spec),
            Self::Namespace { name, labels } => {
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}).to_string()
            }
            Self::Pod(pod) => pod.manifest(node, placed).to_string(),
            Self::Service { name, address, port } => json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": name.namespace, "name": name.name},
                "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": port}]},
            })
            .to_string(),
        }
    }
}

/// Where an object of a kind stands.
pub(super) fn file_of(kind: &str, name: &str) -> PathBuf {
    format!("{kind}/{name}.yaml").into()
}

/// The head takes four lines, so the first line of `spec` is the fifth of the file.
fn policy(name: &ObjectName, spec: &str) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {:?}, namespace: {:?}}}\nspec:\n",
        name.name, name.namespace
    );
    for line in spec.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

impl PodLine {
    /// Reads the words after `pod`.
    pub(super) fn read(name: &ObjectName, words: &[&str]) -> Result<Self, String> {
        let mut pod = Self { name: name.name.clone(), namespace: name.namespace.clone(), ..Self::default() };
        for word in words {
            pod.word(word).map_err(|why| format!("{word:?}: {why}"))?;
        }
        Ok(pod)
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if let Some(mark) = word.strip_prefix('@') {
            return self.mark(mark);
        }
        if let Ok(address) = word.parse() {
            self.addresses.push(address);
        } else if let Some((key, value)) = word.split_once('=') {
            self.labels.insert(key.to_owned(), json!(value));
        } else {
            self.ports.push(port(word)?);
        }
        Ok(())
    }

    fn mark(&mut self, mark: &str) -> Result<(), String> {
        match mark {
            "elsewhere" => self.elsewhere = true,
            "host-network" => self.host_network = true,
            "terminating" => self.terminating = true,
            "succeeded" => self.phase = Some("Succeeded"),
            "failed" => self.phase = Some("Failed"),
            _ => {
                let (kind, rest) = mark.split_once(':').ok_or("unknown mark")?;
                let mut container = json!({"name": format!("i{}", self.init_containers.len()), "ports": [port(rest)?]});
                match kind {
                    "sidecar" => container["restartPolicy"] = json!("Always"),
                    "init" => {}
                    _ => return Err("unknown mark".to_owned()),
                }
                self.init_containers.push(container);
            }
        }
        Ok(())
    }

    fn manifest(&self, node: &[IpAddr], placed: bool) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": self.ports}]},
        });
        if !self.init_containers.is_empty() {
            pod["spec"]["initContainers"] = json!(self.init_containers);
        }
        if self.host_network {
            pod["spec"]["hostNetwork"] = json!(true);
        }
        if self.terminating {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if placed {
            let list = |addresses: &[IpAddr]| addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
            pod["spec"]["nodeName"] = json!(if self.elsewhere { "elsewhere" } else { HERE });
            pod["status"] = json!({"phase": self.phase.unwrap_or("Running"), "podIPs": list(&self.addresses)});
            if let Some(first) = self.addresses.first() {
                pod["status"]["podIP"] = json!(first);
            }
            if let (Some(first), false) = (node.first(), self.elsewhere) {
                pod["status"]["hostIP"] = json!(first);
                pod["status"]["hostIPs"] = json!(list(node));
            }
        }
        pod
    }

    /// Whether this node's runtime has it attached.
    pub(super) fn is_attached_here(&self) -> bool {
        !self.elsewhere && !self.host_network && self.phase.is_none() && !self.addresses.is_empty()
    }
}

/// `name:80/TCP`, `:80/TCP`.
fn port(word: &str) -> Result<Value, String> {
    let form = || "no address, no label, no mark, and no port such as http:80/TCP".to_owned();
    let (name, rest) = word.split_once(':').ok_or_else(form)?;
    let (number, protocol) = rest.split_once('/').ok_or_else(form)?;
    let number: u16 = number.parse().map_err(|_| form())?;
    let mut port = json!({"containerPort": number, "protocol": protocol});
    if !name.is_empty() {
        port["name"] = json!(name);
    }
    Ok(port)
}

/// `key=value` words.
pub(super) fn labels(words: &[&str]) -> Result<Map<String, Value>, String> {
    let label = |word: &&str| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), json!(value))),
        None => Err(format!("{word:?} is no label key=value")),
    };
    words.iter().map(label).collect()
}
