//! The real binary on the test API server, over real sockets, against a dataplane that the test plays.
#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod rig;

use rig::{Control, Dataplane, PATIENCE, allows, web};
use serde_json::{Value, json};
use sluice_apiserver::{DeleteOptions, Fault, Recording, Rule, Server, Speed, Verb};
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::load::load_str;
use sluice_policy::{Snapshot, compile};
use sluice_wire::WatchStatus;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A server with one namespace, the pods `x/web` and `x/client`, and nothing else.
struct Cluster {
    runtime: Runtime,
    server: Server,
}

impl Cluster {
    fn start() -> Self {
        Self::built(|builder| builder)
    }

    fn built(settings: impl FnOnce(sluice_apiserver::Builder) -> sluice_apiserver::Builder) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(settings(Server::builder()).start()).unwrap();
        let cluster = Self { runtime, server };
        cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}));
        cluster.put_pod("web", "10.0.0.1");
        cluster.put_pod("client", "10.0.0.2");
        cluster
    }

    fn put(&self, object: Value) {
        self.server.store().put(object).unwrap();
    }

    fn put_pod(&self, name: &str, ip: &str) {
        self.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }));
    }

    /// Lets the client reach the web pod at this port only.
    fn put_policy(&self, port: Value) {
        self.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "web"},
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

    fn delete_policy(&self) {
        let store = self.server.store();
        store.delete(store.place("networkpolicies", "x", "web").unwrap(), &DeleteOptions::now()).unwrap();
    }

    fn control(&self) -> Control {
        Control::start_on(&self.server.kubeconfig())
    }
}

fn watch<'a>(watches: &'a [WatchStatus], resource: &str) -> &'a WatchStatus {
    watches.iter().find(|watch| watch.resource == resource).unwrap_or_else(|| panic!("no watch of {resource} in {watches:?}"))
}

#[test]
fn changes_at_the_server_are_published_and_the_status_shows_the_watches() {
    let cluster = Cluster::built(|builder| builder.tls(true).token("a token"));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    assert!(allows(&session.publish_and_adopt(), 81), "not isolated");
    cluster.put_policy(json!(80));
    let table = session.publish_and_adopt();
    assert!(allows(&table, 80) && !allows(&table, 81));
    let status = control.until("settled", |status| status.settled);
    assert!(status.source.starts_with("API server https://127.0.0.1:"), "{}", status.source);
    assert_eq!((status.pods, status.policies, status.watches.len()), (2, 1, 4));
    for watch in &status.watches {
        assert!(watch.listed && watch.lists == 1 && watch.trouble.is_none(), "{watch:?}");
    }
    cluster.delete_policy();
    assert!(allows(&session.publish_and_adopt(), 81));
}

#[test]
fn nothing_is_published_before_every_kind_may_be_read_and_the_status_says_what_to_do() {
    let cluster = Cluster::start();
    for verb in [Verb::List, Verb::Watch] {
        cluster.server.auth().forbid("networkpolicies.networking.k8s.io", verb);
    }
    cluster.put_policy(json!(80));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    let refused = |watches: &[WatchStatus]| watch(watches, "networkpolicies").trouble.as_ref().is_some_and(|t| t.contains("ClusterRole"));
    let status = control.until("403 is shown", |status| status.watches.len() == 4 && refused(&status.watches));
    assert!(!status.settled && !watch(&status.watches, "networkpolicies").listed && status.published_generation == 0, "{status:#?}");
    session.stays_silent(Duration::from_millis(300));
    for verb in [Verb::List, Verb::Watch] {
        cluster.server.auth().allow("networkpolicies.networking.k8s.io", verb);
    }
    let table = session.publish_and_adopt();
    assert!(allows(&table, 80) && !allows(&table, 81));
    control.until("all is well", |status| status.settled && status.watches.iter().all(|watch| watch.trouble.is_none()));
}

#[test]
fn an_outage_changes_nothing_and_what_was_missed_is_made_up_for() {
    let cluster = Cluster::start();
    cluster.put_policy(json!(80));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    cluster.runtime.block_on(cluster.server.go_down()).unwrap();
    let status = control.until("all watches are broken", |status| status.watches.iter().all(|watch| watch.trouble.is_some()));
    assert!(status.settled, "what was known is in force: {status:#?}");
    cluster.put_policy(json!(81));
    session.stays_silent(Duration::from_millis(300));
    cluster.runtime.block_on(cluster.server.come_back()).unwrap();
    let table = session.publish_and_adopt();
    assert!(allows(&table, 81) && !allows(&table, 80));
    control.until("all is well", |status| status.watches.iter().all(|watch| watch.trouble.is_none()));
}

#[test]
fn history_that_is_gone_means_one_list_more_and_no_moment_without_policy() {
    let cluster = Cluster::start();
    cluster.put_policy(json!(80));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    cluster.runtime.block_on(cluster.server.go_down()).unwrap();
    cluster.put_policy(json!(81));
    cluster.server.store().compact();
    cluster.runtime.block_on(cluster.server.come_back()).unwrap();
    let table = session.publish_and_adopt();
    assert!(allows(&table, 81) && !allows(&table, 80), "the next table is the new state, not an empty one");
    control.until("listed again", |status| watch(&status.watches, "networkpolicies").lists == 2);
}

#[test]
fn a_watch_that_may_only_begin_anew_does() {
    let cluster = Cluster::start();
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    // going on is refused for as long as it is asked for; a list is not
    let rule = cluster.server.faults().add(Rule::new(Fault::Status { code: 410, retry_after_s: None }).on("networkpolicies").first(1));
    cluster.server.end_watches();
    control.until("listed again", |status| watch(&status.watches, "networkpolicies").lists == 2);
    assert_eq!(cluster.server.faults().hits(rule), 1);
    cluster.put_policy(json!(80));
    assert!(!allows(&session.publish_and_adopt(), 81));
}

#[test]
fn events_out_of_order_are_not_believed() {
    let cluster = Cluster::start();
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    cluster.server.faults().add(Rule::new(Fault::Swap(1)).on("pods").verb(Verb::Watch).first(1));
    cluster.server.end_watches();
    std::thread::sleep(Duration::from_millis(300));
    cluster.put_pod("one", "10.0.0.3");
    cluster.put_pod("two", "10.0.0.4");
    control.until("listed again", |status| watch(&status.watches, "pods").lists == 2 && status.pods == 4);
}

#[test]
fn a_server_that_streams_no_lists_is_listed_in_pages() {
    let cluster = Cluster::built(|builder| builder.streaming_lists(false));
    for index in 0..1200 {
        cluster.put_pod(&format!("pod-{index}"), &format!("10.1.{}.{}", index / 250, index % 250 + 1));
    }
    cluster.put_policy(json!(80));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    assert!(!allows(&session.publish_and_adopt(), 81));
    assert_eq!(control.until("settled", |status| status.settled).pods, 1202);
}

#[test]
fn a_policy_that_cannot_be_represented_keeps_its_last_good_state() {
    let cluster = Cluster::start();
    cluster.put_policy(json!(80));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    cluster.put_policy(json!(700_000));
    let status = control.until("a problem", |status| !status.problems.is_empty());
    let problem = &status.problems[0];
    assert_eq!(problem.object.as_deref(), Some("NetworkPolicy x/web"));
    assert_eq!((problem.field.as_str(), problem.in_force.as_str()), ("spec.ingress[0].ports[0].port", "the last good state"));
    session.stays_silent(Duration::from_millis(300));
    cluster.put_policy(json!(81));
    assert!(allows(&session.publish_and_adopt(), 81));
    control.until("no problem", |status| status.problems.is_empty());
}

#[test]
fn a_recorded_server_replayed_byte_by_byte_ends_in_the_table_of_its_last_lists() {
    let recording = Recording::bundled();
    let history = recording.history("scenario1").unwrap();
    let mut items = Vec::new();
    for (plural, kind, api_version) in [
        ("namespaces", "Namespace", "v1"),
        ("pods", "Pod", "v1"),
        ("services", "Service", "v1"),
        ("networkpolicies", "NetworkPolicy", "networking.k8s.io/v1"),
    ] {
        for mut item in history.last_items(plural).iter().cloned() {
            (item["kind"], item["apiVersion"]) = (kind.into(), api_version.into());
            items.push(item);
        }
    }
    let loaded = load_str("last.json", &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let endpoints = local(&loaded.snapshot);
    let expected = Snapshot { endpoints: endpoints.clone(), ..loaded.snapshot };
    assert!(expected.policies.len() > 5 && endpoints.len() > 3, "{} policies, {} endpoints", expected.policies.len(), endpoints.len());

    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::builder().replay(recording, Speed::AtOnce).start()).unwrap();
    let control = Control::start_on(&server.kubeconfig());
    let mut session = Dataplane::start(&control).accept(endpoints, 0);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let image = session.published_image();
        let generation = sluice_table::Table::from_bytes(&image).unwrap().generation();
        session.adopted(generation);
        if image == compile(&expected, generation).unwrap()[..] {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the last table is another one");
    }
}

/// The pods of one node of the recording, as a dataplane would report them.
fn local(snapshot: &Snapshot) -> Vec<LocalEndpoint> {
    let mut endpoints = Vec::new();
    for (pod, object) in &snapshot.pods {
        let spec = object.spec.as_ref().unwrap();
        let ips = object.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        let addresses: Vec<_> = ips.map(|ip| ip.ip.parse().unwrap()).collect();
        if spec.node_name.as_deref() == Some("node1") && spec.host_network != Some(true) && !addresses.is_empty() {
            let port = PortIndex(endpoints.len() as u16);
            let (incarnation, uid) = (Incarnation(1), object.metadata.uid.as_deref().unwrap_or_default().to_owned());
            endpoints.push(LocalEndpoint { port, incarnation, pod: ObjectName::new(&*pod.namespace, &*pod.name), uid, addresses });
        }
    }
    endpoints
}
