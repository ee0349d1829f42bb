//! The real binary on the test API server, over real sockets, against a dataplane that the test plays.
#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod rig;

use rig::cluster::Cluster;
use rig::{Control, Dataplane, PATIENCE, allows, web};
use serde_json::{Value, json};
use sluice_apiserver::{Fault, Recording, Rule, Server, Speed, Verb};
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::load::load_str;
use sluice_policy::{Snapshot, compile};
use sluice_wire::{FromControl, Realization, RealizationState, ToControl, WatchStatus};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

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
    assert_eq!((status.pods, status.policies, status.watches.len()), (2, 1, 6));
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
    let status = control.until("403 is shown", |status| status.watches.len() == 6 && refused(&status.watches));
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
fn a_token_that_expires_takes_nothing_and_a_renewed_one_is_read_without_a_restart() {
    let cluster = Cluster::built(|builder| builder.tls(true).token("first"));
    cluster.put_policy(json!(80));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first").unwrap();
    let given = cluster.server.kubeconfig();
    let kubeconfig = given.replace("token: \"first\"", &format!("tokenFile: {}", file.display()));
    assert_ne!(kubeconfig, given);
    let control = Control::start_on(&kubeconfig);
    let mut session = Dataplane::start(&control).accept(web(), 0);
    while !allows(&session.publish_and_adopt(), 80) {}
    cluster.server.auth().accept("second");
    cluster.server.auth().revoke("first");
    // running watches live on; after the cut the old token opens no new ones
    cluster.runtime.block_on(async {
        cluster.server.go_down().await.unwrap();
        cluster.server.come_back().await.unwrap();
    });
    cluster.put_policy_of(2, json!(81));
    let refused =
        |watch: &WatchStatus| watch.trouble.as_ref().is_some_and(|trouble| trouble.contains("credentials are refused: renew the token"));
    let status = control.until("refused", |status| status.watches.iter().all(refused));
    assert_eq!((status.policies, status.adopted_generation), (1, status.published_generation), "what was known stays");
    std::fs::write(&file, "second").unwrap();
    // a token file is read again once a minute at least, and a broken watch is tried again every half minute at least
    let deadline = Instant::now() + Duration::from_secs(60 + 30) + PATIENCE;
    while control.status().watches.iter().any(|watch| watch.trouble.is_some()) {
        assert!(Instant::now() < deadline, "{:#?}", control.status().watches);
        std::thread::sleep(Duration::from_millis(100));
    }
    let table = session.publish_and_adopt();
    assert!(allows(&table, 81) && !allows(&table, 80));
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
    let cluster = Cluster::built(|builder| builder.expiry_as_status(true));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    cluster.runtime.block_on(cluster.server.go_down()).unwrap();
    cluster.put_policy(json!(80));
    // going on is refused for as long as it is asked for; a list is not
    cluster.server.store().compact();
    cluster.runtime.block_on(cluster.server.come_back()).unwrap();
    control.until("listed again", |status| watch(&status.watches, "networkpolicies").lists == 2);
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
fn a_streamed_list_without_an_end_is_given_up_for_pages() {
    let cluster = Cluster::start();
    cluster.put_policy(json!(80));
    // what servers before 1.27 make of the request for one
    cluster.server.faults().add(Rule::new(Fault::DropBookmarks).verb(Verb::Watch));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    assert!(!allows(&session.publish_within(Duration::from_secs(60)), 81));
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
        let key = |item: &Value| (item["metadata"]["namespace"].to_string(), item["metadata"]["name"].to_string());
        let mut last: BTreeMap<_, _> = history.last_items(plural).iter().map(|item| (key(item), item.clone())).collect();
        // the watches go on behind the last lists
        for event in history.events.iter().filter(|event| event.object["kind"] == kind && event.version() > history.last_version(plural)) {
            match event.kind.as_str() {
                "DELETED" => drop(last.remove(&key(&event.object))),
                _ => drop(last.insert(key(&event.object), event.object.clone())),
            }
        }
        items.extend(last.into_values().map(|mut item| {
            (item["kind"], item["apiVersion"]) = (kind.into(), api_version.into());
            item
        }));
    }
    let loaded = load_str("last.json", &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let endpoints = local(&loaded.snapshot);
    let expected = Snapshot { endpoints: endpoints.clone(), ..loaded.snapshot };
    assert!(expected.policies.len() > 3 && endpoints.len() > 3, "{} policies, {} endpoints", expected.policies.len(), endpoints.len());

    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::builder().replay(recording, Speed::AtOnce).start()).unwrap();
    let control = Control::start_on(&server.kubeconfig());
    let mut session = Dataplane::start(&control).accept(endpoints, 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let image = session.published_image();
        let generation = sluice_table::Table::from_bytes(&image).unwrap().generation();
        session.adopted(generation);
        if image == compile(&expected, generation).unwrap()[..] {
            break;
        }
        assert!(Instant::now() < deadline, "the last table is another one");
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

fn realization(control: &Control, policy: &str, generation: Option<i64>, timeout: Duration) -> Realization {
    let question = ToControl::Realization { policy: ObjectName::parse(policy), generation, timeout_ms: timeout.as_millis() as u64 };
    match control.ask(&question) {
        FromControl::Realization(realization) => realization,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_is_realised_when_the_state_that_the_server_holds_is_adopted() {
    let cluster = Cluster::start();
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    let look = |generation| realization(&control, "x/web", generation, Duration::ZERO);
    assert_eq!(look(None).state, RealizationState::Unknown);
    cluster.put_policy(json!(80));
    let held = session.published();
    assert_eq!(look(None).state, RealizationState::Pending, "published, not adopted");
    session.adopted(held.generation());
    let first = realization(&control, "x/web", None, PATIENCE);
    assert_eq!((first.state, first.generation, first.table_generation), (RealizationState::Realized, Some(1), held.generation()));
    // a newer state counts from the moment the server holds it, not from when it was heard of
    let hung = cluster.server.faults().add(Rule::new(Fault::Hang).on("networkpolicies.networking.k8s.io").verb(Verb::Watch));
    cluster.server.end_watches();
    let deadline = Instant::now() + PATIENCE;
    while cluster.server.faults().hits(hung) == 0 {
        assert!(Instant::now() < deadline, "no watch was opened again");
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.put_policy_of(2, json!(81));
    assert_eq!(look(None).state, RealizationState::Pending, "the server holds generation 2");
    assert_eq!(look(Some(1)).state, RealizationState::Realized, "somebody asked for the first");
    cluster.server.faults().clear();
    cluster.server.drop_connections();
    let table = session.publish_and_adopt();
    assert!(allows(&table, 81) && !allows(&table, 80));
    let second = realization(&control, "x/web", Some(2), PATIENCE);
    assert_eq!((second.state, second.generation), (RealizationState::Realized, Some(2)));
    assert!(second.since_ms > first.since_ms);
    cluster.put_policy_of(3, json!(700_000));
    let refused = realization(&control, "x/web", None, PATIENCE);
    assert_eq!((refused.state, refused.generation), (RealizationState::Refused, Some(2)), "{refused:?}");
    assert!(refused.problem.is_some_and(|problem| problem.field.ends_with("port")));
}

#[test]
fn a_pod_that_is_being_started_does_not_wait_for_quiet() {
    let cluster = Cluster::start();
    let control = Control::start_on_with(&cluster.server.kubeconfig(), &["--debounce-ms", "60000", "--debounce-max-ms", "60000"]);
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    cluster.put_policy(json!(80));
    session.stays_silent(Duration::from_millis(300));
    // its object is there already, and lies in the debounce
    cluster.put_pod("known", "10.0.0.3");
    std::thread::sleep(Duration::from_millis(200));
    let mut endpoints = [web(), vec![rig::endpoint(3, "x/known", "10.0.0.3")]].concat();
    session.endpoints(endpoints.clone(), 0);
    let table = published_with(&mut session, 3);
    assert!(!allows(&table, 81), "whatever had arrived comes with it");
    // its object comes while it waits
    endpoints.push(rig::endpoint(4, "x/coming", "10.0.0.4"));
    session.endpoints(endpoints, 0);
    cluster.put_pod("coming", "10.0.0.4");
    published_with(&mut session, 4);
}

/// The first table that knows the pod at that port; those before it are adopted.
fn published_with(session: &mut rig::Session, port: u16) -> sluice_table::Table {
    loop {
        let table = session.publish_and_adopt();
        if table.endpoint(PortIndex(port)).is_some() {
            return table;
        }
    }
}

#[test]
fn nodes_and_backends_explain_and_nothing_waits_for_them() {
    let cluster = Cluster::start();
    for verb in [Verb::List, Verb::Watch] {
        cluster.server.auth().forbid("nodes", verb);
    }
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "x", "name": "web"},
        "spec": {"clusterIP": "10.96.0.7", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }));
    cluster.put(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "x", "name": "web-abc", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 8080, "protocol": "TCP"}],
    }));
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n7"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
    }));
    let control = cluster.control();
    let mut session = Dataplane::start(&control).accept(web(), 0);
    session.publish_and_adopt();
    control.until("403 is shown", |status| status.settled && watch(&status.watches, "nodes").trouble.is_some());
    let notes = |dst: &str| {
        let question = ToControl::Explain { src: "x/client".into(), dst: dst.into(), port: 80, protocol: "TCP".into() };
        let FromControl::Explanation(explanation) = control.ask(&question) else { panic!("another answer") };
        explanation.notes
    };
    let deadline = Instant::now() + PATIENCE;
    while !notes("10.96.0.7").contains(&"x/web goes to 10.0.0.1:8080".to_owned()) {
        assert!(Instant::now() < deadline, "{:?}", notes("10.96.0.7"));
    }
    for verb in [Verb::List, Verb::Watch] {
        cluster.server.auth().allow("nodes", verb);
    }
    while !notes("192.0.2.7").iter().any(|note| note.contains("node n7")) {
        assert!(Instant::now() < deadline, "{:?}", notes("192.0.2.7"));
    }
}
