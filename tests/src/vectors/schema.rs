//! The files' schema, `netpol-vectors/1`, and a step of a case as a snapshot.

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use sluice_policy::pod::{Container, ContainerPort, Pod, PodIp, PodMeta, PodSpec, PodStatus};
use sluice_policy::{ObjectName, Snapshot};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The schema that this build reads.
pub const SCHEMA: &str = "netpol-vectors/1";

/// Why vectors could not be used. None of them is a verdict.
#[derive(Debug, thiserror::Error)]
pub enum VectorsError {
    /// The file could not be read or decompressed.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not JSON of the expected shape.
    #[error("{}: not vectors: {source}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file announces another schema.
    #[error("{}: schema {found}, this build reads {SCHEMA}", path.display())]
    Schema {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A case contradicts itself or holds what the schema does not know.
    #[error("case {case} step {step}: {problem}")]
    Case {
        /// Its id.
        case: String,
        /// From 0.
        step: usize,
        /// What is wrong.
        problem: String,
    },
}

/// One file.
#[derive(Debug, Deserialize)]
pub struct VectorFile {
    /// Must be [`SCHEMA`].
    pub schema: String,
    /// In file order.
    pub cases: Vec<Case>,
}

/// One cluster and its history.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// `v4-006`.
    pub id: String,
    /// States one after the other, each complete.
    pub steps: Vec<Step>,
}

/// A state of the cluster and the truth in it.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Labels by name.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// All pods.
    pub pods: Vec<VectorPod>,
    /// Whole NetworkPolicy objects.
    pub policies: Vec<NetworkPolicy>,
    /// Between pods, on ports that they serve.
    pub truth: Grid,
    /// Between pods, on ports that no container declares.
    pub unserved: Grid,
    /// From addresses that are no pod.
    pub external_ingress: Grid,
    /// To addresses that are no pod.
    pub external_egress: Grid,
}

impl Step {
    /// The grids with their names.
    pub fn grids(&self) -> [(&'static str, &Grid); 4] {
        [
            ("truth", &self.truth),
            ("unserved", &self.unserved),
            ("external_ingress", &self.external_ingress),
            ("external_egress", &self.external_egress),
        ]
    }
}

/// A pod as far as policies see it.
#[derive(Debug, Deserialize)]
pub struct VectorPod {
    /// Its namespace.
    pub ns: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its only address.
    pub ip: IpAddr,
    /// What its container declares.
    pub ports: Vec<VectorPort>,
}

/// A declared container port.
#[derive(Debug, Deserialize)]
pub struct VectorPort {
    /// Unique in the pod.
    pub name: Option<String>,
    /// The number.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// Verdicts: a string for each source, character `j * ports + k` for destination `j` and port `k`.
#[derive(Debug, Deserialize)]
pub struct Grid {
    /// `ns/pod` or an address.
    pub sources: Vec<String>,
    /// `ns/pod` or an address.
    pub dests: Vec<String>,
    /// `TCP/80`.
    pub ports: Vec<String>,
    /// At the destination pod.
    pub ingress: Vec<String>,
    /// At the source pod.
    pub egress: Vec<String>,
    /// Both.
    pub combined: Vec<String>,
}

impl VectorFile {
    /// Reads `.json.gz` or `.json`.
    ///
    /// # Errors
    /// When the file cannot be read, is not JSON of this shape, or announces another schema.
    pub fn read(path: &Path) -> Result<Self, VectorsError> {
        let read = |source| VectorsError::Read { path: path.to_owned(), source };
        let mut bytes = fs::read(path).map_err(read)?;
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut plain = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(read)?;
            bytes = plain;
        }
        let json = |source| VectorsError::Json { path: path.to_owned(), source };
        let header: Header = serde_json::from_slice(&bytes).map_err(json)?;
        if header.schema != SCHEMA {
            return Err(VectorsError::Schema { path: path.to_owned(), found: header.schema });
        }
        serde_json::from_slice(&bytes).map_err(json)
    }
}

/// Read first, so that another schema is named as such and not as a missing field.
#[derive(Deserialize)]
struct Header {
    schema: String,
}

impl Step {
    /// The state as the API server would hold it.
    pub fn snapshot(&self) -> Snapshot {
        let namespaces = self.namespaces.iter().map(|(name, labels)| (name.clone(), Arc::new(namespace(name, labels))));
        let pods = self.pods.iter().map(|pod| (pod.object_name(), Arc::new(pod.object())));
        let policies = self.policies.iter().map(|policy| (policy_name(policy), Arc::new(policy.clone())));
        Snapshot { namespaces: namespaces.collect(), pods: pods.collect(), policies: policies.collect(), ..Snapshot::default() }
    }
}

fn policy_name(policy: &NetworkPolicy) -> ObjectName {
    let ObjectMeta { namespace, name, .. } = &policy.metadata;
    ObjectName::new(namespace.as_deref().unwrap_or("default"), name.as_deref().unwrap_or_default())
}

fn namespace(name: &str, labels: &BTreeMap<String, String>) -> Namespace {
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.clone()), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

impl VectorPod {
    /// `ns/name`.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&*self.ns, &*self.name)
    }

    fn object(&self) -> Pod {
        let port = |port: &VectorPort| ContainerPort {
            name: port.name.clone(),
            container_port: port.port,
            protocol: Some(port.protocol.clone()),
            ..ContainerPort::default()
        };
        let ports = Some(self.ports.iter().map(port).collect());
        let container = Container { name: "serve".to_owned(), ports, ..Container::default() };
        Pod {
            metadata: PodMeta { labels: Some(Arc::new(self.labels.clone())), ..PodMeta::default() },
            spec: Some(PodSpec { containers: [container].into(), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: Some("Running".into()),
                pod_ip: Some(self.ip.to_string().into()),
                pod_ips: Some([PodIp { ip: self.ip.to_string().into() }].into_iter().collect()),
                ..PodStatus::default()
            }),
        }
    }
}
