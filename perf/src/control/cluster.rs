//! A workload as an API server holds it.

use crate::random::SplitMix;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluice_apiserver::{DeleteOptions, Store};
use sluice_flow::{Addr, Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::Snapshot;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// The label by which new pods are let in.
const MARK: &str = "sluice-bench/mark";
/// Until everybody knows of a pod.
const KNOWN_AFTER: Duration = Duration::from_millis(200);
const BETWEEN_STARTS: Duration = Duration::from_millis(100);
/// Every so many changes one can be seen.
const MARKED_EVERY: u64 = 5;

/// Fills a server with a snapshot, with services up to `services`, and with a policy that lets marked pods in to the first
/// local pod.
///
/// # Errors
///
/// The server does not take an object.
pub(super) fn fill(store: &Store, snapshot: &Snapshot, services: usize, pod_bytes: usize) -> Result<()> {
    let typed = |api_version: &str, kind: &str, object: Value| {
        let mut document = object;
        (document["apiVersion"], document["kind"]) = (api_version.into(), kind.into());
        document
    };
    store.load(snapshot.namespaces.values().map(|object| typed("v1", "Namespace", json!(object)))).context("namespaces")?;
    store.load(snapshot.services.values().map(|object| typed("v1", "Service", json!(object)))).context("services")?;
    let namespace = snapshot.namespaces.keys().next().context("a namespace")?;
    let more = (snapshot.services.len()..services).map(|index| {
        let ip = Ipv4Addr::from(0x0a70_0000 + index as u32).to_string();
        let ports = json!([{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]);
        let spec =
            json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": index.to_string()}, "ports": ports});
        let metadata = json!({"namespace": namespace, "name": format!("more-{index}")});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    });
    store.load(more).context("services")?;
    let policies = snapshot.policies.values().map(|object| typed("networking.k8s.io/v1", "NetworkPolicy", json!(object)));
    store.load(policies).context("policies")?;
    store.put(door(snapshot)?).context("the policy of the marked pods")?;
    let pods = snapshot.pods.iter().map(|(name, pod)| as_large_as(pod_bytes, pod.manifest(name)));
    store.load(pods).context("pods")?;
    Ok(())
}

/// Of the first local pod's like.
fn door(snapshot: &Snapshot) -> Result<Value> {
    let first = snapshot.endpoints.first().context("no pod is attached here")?;
    let labels = snapshot.pods.get(&first.pod).context("the first local pod")?.labels();
    let from = json!([{"podSelector": {"matchExpressions": [{"key": MARK, "operator": "Exists"}]}}]);
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": first.pod.namespace, "name": "sluice-bench-door"},
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]},
    }))
}

/// What real pods carry and nobody here reads: who manages which field.
fn as_large_as(bytes: usize, mut pod: Value) -> Value {
    let missing = bytes.saturating_sub(pod.to_string().len());
    if missing > 0 {
        let fields: String = "f:image f:name f:resources f:terminationMessagePath ".chars().cycle().take(missing).collect();
        pod["metadata"]["managedFields"] =
            json!([{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f": fields}}]);
    }
    pod
}

/// Pods that come and go.
pub(super) struct Churn {
    store: Arc<Store>,
    /// Copied from pods of this namespace.
    namespace: String,
    models: Vec<Value>,
    alive: VecDeque<String>,
    random: SplitMix,
    drawn: u64,
}

impl Churn {
    /// Of the first local pod's namespace.
    ///
    /// # Errors
    ///
    /// No pod is attached here.
    pub(super) fn new(store: Arc<Store>, snapshot: &Snapshot, pod_bytes: usize, seed: u64) -> Result<Self> {
        let namespace = snapshot.endpoints.first().context("no pod is attached here")?.pod.namespace.clone();
        let range = snapshot.pods.range(ObjectName::new(&*namespace, "")..).take_while(|(name, _)| name.namespace == namespace);
        let models = range.take(100).map(|(name, pod)| as_large_as(pod_bytes, pod.manifest(name))).collect();
        Ok(Self { store, namespace, models, alive: VecDeque::new(), random: SplitMix::new(seed), drawn: 0 })
    }

    /// Policies at the server.
    pub(super) fn policies(&self) -> Result<usize> {
        Ok(self.store.count("networkpolicies")?)
    }

    /// Of how many of them a reporter told.
    pub(super) fn reports(&self) -> Result<usize> {
        Ok(self.store.count("policystatuses.sluice.network")?)
    }

    /// One pod comes, or one that came goes. Returns the address of one that can be seen.
    ///
    /// # Errors
    ///
    /// The server does not take it.
    pub(super) fn step(&mut self) -> Result<Option<Addr>> {
        self.drawn += 1;
        if self.alive.len() > 200 && self.drawn.is_multiple_of(2) {
            let name = self.alive.pop_front().expect("there are some");
            self.store.delete(self.store.place("pods", &self.namespace, &name)?, &DeleteOptions::now())?;
            return Ok(None);
        }
        let address = Ipv4Addr::from(0x0ac8_0000 + self.drawn as u32);
        let name = format!("new-{}", self.drawn);
        let mut pod = self.random.pick(&self.models).clone();
        pod["metadata"]["name"] = name.as_str().into();
        pod["metadata"]["uid"] = format!("new-{}", self.drawn).into();
        pod["spec"]["hostNetwork"] = Value::Null;
        (pod["status"]["phase"], pod["status"]["podIP"]) = ("Running".into(), address.to_string().into());
        pod["status"]["podIPs"] = json!([{"ip": address.to_string()}]);
        let is_marked = self.drawn % MARKED_EVERY == 1;
        if is_marked {
            pod["metadata"]["labels"][MARK] = "yes".into();
        }
        self.store.put(pod)?;
        self.alive.push_back(name);
        Ok(is_marked.then(|| Addr::from(IpAddr::V4(address))))
    }
}

/// Pods that start on this node: of the models of [`Churn`], one after another.
pub(super) struct Starts<'c> {
    churn: &'c Churn,
    count: u16,
}

impl<'c> Starts<'c> {
    pub(super) fn of(churn: &'c Churn) -> Self {
        Self { churn, count: 0 }
    }

    /// Starts so many of them on that port; how long each took. Half of them are attached before the server shows them: that
    /// then happens while they are.
    ///
    /// # Errors
    ///
    /// The server's, and those of `start`.
    pub(super) fn each(
        &mut self,
        count: usize,
        port: PortIndex,
        mut start: impl FnMut(&LocalEndpoint, &dyn Fn() -> Result<()>) -> Result<Duration>,
    ) -> Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(count);
        for index in 0..count {
            let (endpoint, pod) = self.next(port);
            took.push(if index % 2 == 0 {
                self.put(pod)?;
                std::thread::sleep(KNOWN_AFTER);
                start(&endpoint, &|| Ok(()))?
            } else {
                start(&endpoint, &|| self.put(pod.clone()))?
            });
            std::thread::sleep(BETWEEN_STARTS);
        }
        Ok(took)
    }

    /// The next one: its attachment, and its object, which the server shows without an address.
    fn next(&mut self, port: PortIndex) -> (LocalEndpoint, Value) {
        self.count += 1;
        let name = format!("started-{}", self.count);
        let mut pod = self.churn.models[usize::from(self.count) * 7 % self.churn.models.len()].clone();
        pod["metadata"]["name"] = name.as_str().into();
        pod["metadata"]["uid"] = name.as_str().into();
        pod["spec"]["hostNetwork"] = Value::Null;
        pod["status"] = json!({"phase": "Pending"});
        let endpoint = LocalEndpoint {
            port,
            incarnation: Incarnation(1000 + u32::from(self.count)),
            pod: ObjectName::new(&*self.churn.namespace, &*name),
            uid: name,
            addresses: vec![IpAddr::V4(Ipv4Addr::from(0x0ad2_0000 + u32::from(self.count)))],
        };
        (endpoint, pod)
    }

    /// At the server from now on.
    ///
    /// # Errors
    ///
    /// The server does not take it.
    fn put(&self, pod: Value) -> Result<()> {
        Ok(self.churn.store.put(pod).map(|_| ())?)
    }
}
