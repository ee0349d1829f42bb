//! The test API server with a small cluster.

use super::Control;
use serde_json::{Value, json};
use sluice_apiserver::{DeleteOptions, Server};
use tokio::runtime::Runtime;

/// A server with one namespace, the pods `x/web` and `x/client`, and nothing else.
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) server: Server,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::built(|builder| builder)
    }

    pub(crate) fn built(settings: impl FnOnce(sluice_apiserver::Builder) -> sluice_apiserver::Builder) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(settings(Server::builder()).start()).unwrap();
        let cluster = Self { runtime, server };
        cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}));
        cluster.put_pod("web", "10.0.0.1");
        cluster.put_pod("client", "10.0.0.2");
        cluster
    }

    pub(crate) fn put(&self, object: Value) {
        self.server.store().put(object).unwrap();
    }

    pub(crate) fn put_pod(&self, name: &str, ip: &str) {
        self.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }));
    }

    /// Lets the client reach the web pod at this port only.
    pub(crate) fn put_policy(&self, port: Value) {
        self.put_policy_of(1, port);
    }

    pub(crate) fn put_policy_of(&self, generation: i64, port: Value) {
        self.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "web", "generation": generation},
            "spec": {
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Ingress"],
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                    "ports": [{"protocol": "TCP", "port": port}],
                }],
            },
        }));
    }

    pub(crate) fn delete_policy(&self) {
        let store = self.server.store();
        store.delete(store.place("networkpolicies", "x", "web").unwrap(), &DeleteOptions::now()).unwrap();
    }

    pub(crate) fn control(&self) -> Control {
        Control::start_on(&self.server.kubeconfig())
    }
}
