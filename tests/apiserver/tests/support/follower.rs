//! A client of the kube crate that keeps what its watcher tells it.

use futures::StreamExt;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sluice_apiserver::{Server, Store};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a follower may take to reach the server's state.
const PATIENCE: Duration = Duration::from_secs(20);

/// Anything that a watcher can follow.
pub(crate) trait Followed:
    Resource<DynamicType = ()> + Clone + Debug + PartialEq + DeserializeOwned + Send + Sync + 'static
{
}
impl<K: Resource<DynamicType = ()> + Clone + Debug + PartialEq + DeserializeOwned + Send + Sync + 'static> Followed for K {}

/// A client for a server's kubeconfig. It gives up on a silent server after `read_timeout`.
pub(crate) async fn client(kubeconfig: &str, read_timeout: Duration) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("the server writes kubeconfigs that kube reads");
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a usable kubeconfig");
    config.read_timeout = Some(read_timeout);
    Client::try_from(config).expect("a client")
}

/// The objects of one kind, kept up to date by a watcher.
pub(crate) struct Follower<K> {
    state: Arc<Mutex<BTreeMap<String, K>>>,
    task: JoinHandle<()>,
}

impl<K> Drop for Follower<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Followed> Follower<K> {
    pub(crate) fn start(client: Client, config: Config) -> Self {
        let state = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut events = watcher(Api::<K>::all(client), config).boxed();
            let mut coming = BTreeMap::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => coming.clear(),
                    Ok(Event::InitApply(object)) => drop(coming.insert(key(&object), object)),
                    Ok(Event::InitDone) => *shared.lock().unwrap() = std::mem::take(&mut coming),
                    Ok(Event::Apply(object)) => drop(shared.lock().unwrap().insert(key(&object), object)),
                    Ok(Event::Delete(object)) => drop(shared.lock().unwrap().remove(&key(&object))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Self { state, task }
    }

    pub(crate) fn state(&self) -> BTreeMap<String, K> {
        self.state.lock().unwrap().clone()
    }

    /// Waits until the follower holds exactly what the store does.
    pub(crate) async fn reaches(&self, store: &Store, resource: &str, why: &str) {
        let expected = of_values(store.values(resource).expect("a known resource"));
        self.becomes(&expected, why).await;
    }

    pub(crate) async fn becomes(&self, expected: &BTreeMap<String, K>, why: &str) {
        let reached = async {
            while self.state() != *expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            let state = self.state();
            let keys = state.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>();
            for key in keys {
                assert_eq!(state.get(key), expected.get(key), "{why}: {key}");
            }
        }
    }
}

/// Objects by namespace and name.
pub(crate) fn of_values<K: Followed>(values: impl IntoIterator<Item = serde_json::Value>) -> BTreeMap<String, K> {
    let objects = values.into_iter().map(|value| serde_json::from_value::<K>(value).expect("an object of its kind"));
    objects.map(|object| (key(&object), object)).collect()
}

fn key<K: Followed>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// A client for a server without a token, quick to give up.
pub(crate) async fn impatient_client(server: &Server) -> Client {
    client(&server.kubeconfig(), Duration::from_secs(2)).await
}
