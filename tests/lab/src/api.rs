//! A client of the lab's API server, from outside of its network.
//!
//! The server listens where only the lab's namespaces reach it. The client's runtime therefore runs on a thread that has
//! joined the underlay's namespace, and every request is made there; callers wait for it.

use crate::netns::NetNs;
use crate::store::{Kind, ObjectRef};
use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use sluice_flow::ObjectName;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A server that is away must not hang whoever asks.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub struct ApiClient {
    runtime: Runtime,
    client: Client,
}

/// One object on the server.
#[derive(Debug, Clone)]
pub struct Place {
    resource: ApiResource,
    /// An empty namespace for what has none.
    name: ObjectName,
}

impl From<&ObjectRef> for Place {
    fn from(object: &ObjectRef) -> Self {
        Self { resource: resource(object.kind), name: object.name.clone() }
    }
}

impl Place {
    /// A pod.
    pub fn pod(name: &ObjectName) -> Self {
        Self { resource: resource(Kind::Pod), name: name.clone() }
    }

    /// A node.
    pub fn node(name: &str) -> Self {
        Self { resource: ApiResource::erase::<Node>(&()), name: ObjectName::new("", name) }
    }

    fn api(&self, client: Client) -> Api<DynamicObject> {
        match self.name.namespace.as_str() {
            "" => Api::all_with(client, &self.resource),
            namespace => Api::namespaced_with(client, namespace, &self.resource),
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Namespace => ApiResource::erase::<Namespace>(&()),
        Kind::Pod => ApiResource::erase::<Pod>(&()),
        Kind::Service => ApiResource::erase::<Service>(&()),
        Kind::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
    }
}

impl ApiClient {
    /// Of the server that the kubeconfig names, asked from inside `netns`. Whether it answers is not asked.
    ///
    /// # Errors
    ///
    /// The kubeconfig is not there or damaged.
    pub(crate) fn new(netns: NetNs, kubeconfig: &Path) -> Result<Self> {
        // Its failure would be silent, but the namespace is there as long as the lab is, and a request from elsewhere fails.
        let enter = move || drop(netns.enter());
        let runtime = Builder::new_multi_thread().worker_threads(1).on_thread_start(enter).enable_all().build();
        let runtime = runtime.context("cannot start a runtime for the API client")?;
        let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let client = runtime.block_on(async {
            let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context("the kubeconfig")?;
            (config.connect_timeout, config.read_timeout) = (Some(CONNECT_MAX), Some(ANSWER_MAX));
            Client::try_from(config).context("the API client")
        })?;
        Ok(Self { runtime, client })
    }

    /// Runs a request where the namespace is the server's.
    fn wait<T: Send + 'static>(&self, what: &str, request: impl Future<Output = kube::Result<T>> + Send + 'static) -> Result<T> {
        let task = self.runtime.spawn(request);
        let answer = self.runtime.block_on(task).map_err(|_| anyhow!("the API client panicked"))?;
        answer.with_context(|| format!("the API server: {what}"))
    }

    /// Creates an object, or replaces all of it but its status.
    ///
    /// # Errors
    ///
    /// The server's, or it cannot be reached. So below.
    pub fn put(&self, place: &Place, object: Value) -> Result<Value> {
        let object: DynamicObject = serde_json::from_value(object).context("not an object of Kubernetes")?;
        let (api, name) = (place.api(self.client.clone()), place.name.name.clone());
        let answer = self.wait(&format!("cannot write {} {}", place.resource.kind, place.name), async move {
            match api.get_opt(&name).await? {
                Some(_) => api.replace(&name, &PostParams::default(), &object).await,
                None => api.create(&PostParams::default(), &object).await,
            }
        })?;
        to_value(&answer)
    }

    /// Merges a patch into an object.
    pub fn patch(&self, place: &Place, patch: Value) -> Result<Value> {
        let (api, name) = (place.api(self.client.clone()), place.name.name.clone());
        let answer = self.wait(&format!("cannot change {} {}", place.resource.kind, place.name), async move {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
        })?;
        to_value(&answer)
    }

    /// Merges a patch into an object's status.
    pub fn patch_status(&self, place: &Place, status: &Value) -> Result<Value> {
        let (api, name) = (place.api(self.client.clone()), place.name.name.clone());
        let patch = serde_json::json!({ "status": status });
        let answer = self.wait(&format!("cannot write the status of {} {}", place.resource.kind, place.name), async move {
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await
        })?;
        to_value(&answer)
    }

    /// Deletes an object; with `grace_s` above 0 a pod stays, marked with a deletionTimestamp. False when it was not there.
    pub fn delete(&self, place: &Place, grace_s: u32) -> Result<bool> {
        let (api, name) = (place.api(self.client.clone()), place.name.name.clone());
        self.wait(&format!("cannot delete {} {}", place.resource.kind, place.name), async move {
            let parameters = DeleteParams { grace_period_seconds: Some(grace_s), ..DeleteParams::default() };
            match api.delete(&name, &parameters).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// An object, `None` when there is none.
    pub fn get(&self, place: &Place) -> Result<Option<Value>> {
        let (api, name) = (place.api(self.client.clone()), place.name.name.clone());
        let found = self.wait("cannot read an object", async move { api.get_opt(&name).await })?;
        found.as_ref().map(to_value).transpose()
    }

    /// All objects of a kind.
    pub(crate) fn list(&self, kind: Kind) -> Result<Vec<Value>> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind));
        let list = self.wait("cannot list objects", async move { api.list(&ListParams::default()).await })?;
        list.items.iter().map(to_value).collect()
    }
}

fn to_value(object: &DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("an object as JSON")
}
