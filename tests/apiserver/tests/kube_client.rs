//! The kube crate against the server: its watcher reaches the store's state, whatever changes and whatever goes wrong.

mod support;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use serde_json::json;
use sluice_apiserver::{Fault, Recording, Rule, Script, Server, Size, Speed, Verb};
use std::time::Duration;
use support::follower::{Followed, Follower, client, impatient_client, of_values};
use support::namespace;

/// Both ways of the watcher to begin, with watches that end soon.
fn ways() -> [(&'static str, Config); 2] {
    let config = Config::default().timeout(2).page_size(7);
    [("streaming list", config.clone().streaming_lists()), ("paged list", config)]
}

#[tokio::test]
async fn watchers_follow_random_changes() {
    for (way, config) in ways() {
        for seed in 0..4 {
            let server = Server::builder().seed(seed).bookmark_interval(Duration::from_millis(50)).start().await.unwrap();
            let mut script = Script::new(server.store().clone(), seed, Size::default());
            let client = impatient_client(&server).await;
            let pods = Follower::<Pod>::start(client.clone(), config.clone());
            let policies = Follower::<NetworkPolicy>::start(client.clone(), config.clone());
            let namespaces = Follower::<Namespace>::start(client, config.clone());
            for step in 0..300 {
                script.step();
                if step % 100 == 50 {
                    server.store().compact();
                    server.drop_connections();
                }
                tokio::task::yield_now().await;
            }
            let why = format!("{way}, seed {seed}");
            pods.reaches(server.store(), "pods", &why).await;
            policies.reaches(server.store(), "networkpolicies", &why).await;
            namespaces.reaches(server.store(), "namespaces", &why).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_recover_from_every_fault() {
    let status = |code| Fault::Status { code, retry_after_s: Some(1) };
    let faults = [
        status(401),
        status(403),
        status(410),
        status(429),
        status(500),
        status(503),
        status(504),
        Fault::Hang,
        Fault::Close,
        Fault::DelayMs(300),
        Fault::CloseAfterBytes(0),
        Fault::CloseAfterBytes(1500),
        Fault::ResetAfterBytes(2500),
        Fault::Slow(200_000),
        Fault::ChunkBytes(7),
        Fault::ClockSkewS(-86_400),
        Fault::NoStreamingLists,
        Fault::ExpireAfter(3),
        Fault::EndAfter(2),
        Fault::CutInEvent(2),
        Fault::Duplicate(2),
        Fault::Swap(1),
        Fault::DropBookmarks,
        Fault::Silent,
    ];
    let runs = faults.into_iter().flat_map(|fault| ways().map(|way| (fault, way)));
    let runs = runs.map(|(fault, (way, config))| tokio::spawn(recovers(fault, way, config)));
    for run in runs.collect::<Vec<_>>() {
        run.await.expect("recovers");
    }
}

#[tokio::test]
async fn watchers_recover_from_faults_by_chance() {
    let faults = [
        Fault::Status { code: 500, retry_after_s: None },
        Fault::Close,
        Fault::CloseAfterBytes(3000),
        Fault::ResetAfterBytes(5000),
        Fault::ChunkBytes(100),
        Fault::ExpireAfter(5),
        Fault::EndAfter(4),
        Fault::CutInEvent(6),
        Fault::Duplicate(3),
    ];
    for seed in 0..6 {
        for (way, config) in ways() {
            let server = Server::builder().seed(seed).history_max(40).start().await.unwrap();
            let mut script = Script::new(server.store().clone(), seed, Size::default());
            for fault in faults {
                server.faults().add(Rule::new(fault).on("pods").probability(0.15));
            }
            let pods = Follower::<Pod>::start(impatient_client(&server).await, config);
            for _ in 0..150 {
                script.step();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.faults().clear();
            pods.reaches(server.store(), "pods", &format!("seed {seed}, {way}")).await;
        }
    }
}

/// A watcher that meets a fault in each of its first requests, and in some later ones.
async fn recovers(fault: Fault, way: &'static str, config: Config) {
    let server = Server::builder().seed(3).start().await.unwrap();
    let mut script = Script::new(server.store().clone(), 3, Size::default());
    let early = server.faults().add(Rule::new(fault).on("pods").first(2));
    server.faults().add(Rule::new(fault).on("pods").nth(5));
    let pods = Follower::<Pod>::start(impatient_client(&server).await, config);
    for _ in 0..60 {
        script.step();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    pods.reaches(server.store(), "pods", &format!("{fault:?}, {way}")).await;
    assert!(server.faults().hits(early) > 0, "{fault:?} met no request");
}

#[tokio::test]
async fn watchers_come_through_an_outage() {
    for (way, config) in ways() {
        let server = Server::builder().seed(9).start().await.unwrap();
        let mut script = Script::new(server.store().clone(), 9, Size::default());
        let pods = Follower::<Pod>::start(impatient_client(&server).await, config);
        pods.reaches(server.store(), "pods", way).await;
        let address = server.address();
        for round in 0..3 {
            server.go_down().await.unwrap();
            assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody is accepted");
            (0..20).for_each(|_| drop(script.step()));
            if round == 1 {
                server.store().compact();
            }
            server.come_back().await.unwrap();
            pods.reaches(server.store(), "pods", &format!("{way}, outage {round}")).await;
        }
        server.end_watches();
        script.step();
        pods.reaches(server.store(), "pods", way).await;
    }
}

#[tokio::test]
async fn objects_are_written_as_kube_writes_them() {
    let server = Server::builder().seed(1).tls(true).token("first").start().await.unwrap();
    let client = client(&server.kubeconfig(), Duration::from_secs(5)).await;
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.36.2");
    assert!(client.list_api_groups().await.unwrap().groups.iter().any(|group| group.name == "networking.k8s.io"));
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace("x")).unwrap()).await.unwrap();
    let policies = Api::<NetworkPolicy>::namespaced(client.clone(), "x");
    let spec = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
    let applied = policies.patch("p", &PatchParams::apply("test"), &Patch::Apply(&spec)).await.unwrap();
    let stored = serde_json::to_value(&applied).unwrap();
    assert_eq!(stored["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(stored["spec"]["egress"][0]["ports"][0], json!({"port": 53, "protocol": "TCP"}));
    let mut stale = applied.clone();
    policies.patch("p", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}))).await.unwrap();
    stale.metadata.labels = None;
    let conflict = policies.replace("p", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    assert!(policies.delete("p", &DeleteParams::default()).await.unwrap().is_right());
    assert_eq!(policies.get_opt("p").await.unwrap(), None);
    let listed = namespaces.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((listed.items.len(), listed.metadata.remaining_item_count), (2, Some(3)));
}

#[tokio::test]
async fn a_token_that_expires_is_renewed() {
    let server = Server::builder().tls(true).token("first").start().await.unwrap();
    let list = |kubeconfig: String| async move {
        let pods = Api::<Pod>::all(client(&kubeconfig, Duration::from_secs(5)).await);
        pods.list(&ListParams::default()).await.map(|list| list.items.len())
    };
    let first = server.kubeconfig();
    assert_eq!(list(first.clone()).await.unwrap(), 0);
    server.auth().accept("second");
    assert_eq!(list(first.clone()).await.unwrap(), 0, "both are good while one is renewed");
    server.auth().revoke("first");
    let refused = list(first.clone()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 401));
    assert_eq!(list(first.replace("first", "second")).await.unwrap(), 0);
    let directory = tempfile::tempdir().unwrap();
    server.write_in_cluster_files(directory.path()).unwrap();
    let ca = std::fs::read_to_string(directory.path().join("ca.crt")).unwrap();
    assert_eq!(Some(ca.as_str()), server.ca_pem());
}

#[tokio::test]
async fn a_replayed_scenario_ends_in_its_recorded_state() {
    let recording = Recording::bundled();
    let history = recording.history("scenario1").unwrap();
    for speed in [Speed::AtOnce, Speed::Times(300.0)] {
        let server = Server::builder().replay(recording.clone(), speed).start().await.unwrap();
        let kubeconfig = server.kubeconfig();
        tokio::join!(
            replays_to::<Namespace>(&kubeconfig, &history, "namespaces"),
            replays_to::<Pod>(&kubeconfig, &history, "pods"),
            replays_to::<NetworkPolicy>(&kubeconfig, &history, "networkpolicies"),
            replays_to::<Service>(&kubeconfig, &history, "services"),
            replays_to::<EndpointSlice>(&kubeconfig, &history, "endpointslices"),
            replays_to::<Node>(&kubeconfig, &history, "nodes"),
        );
    }
}

/// Follows a replay to the end of its watch, and folds what comes behind the last list into that list.
async fn replays_to<K: Followed>(kubeconfig: &str, history: &sluice_apiserver::History, resource: &str) {
    let mut expected = of_values::<K>(history.last_items(resource).iter().cloned());
    let kind = K::kind(&());
    let later = history.events.iter().filter(|event| event.version() > history.last_version(resource) && event.object["kind"] == *kind);
    for event in later {
        let mut single = of_values::<K>([event.object.clone()]);
        match event.kind.as_str() {
            "DELETED" => expected.retain(|key, _| !single.contains_key(key)),
            _ => expected.append(&mut single),
        }
    }
    let follower = Follower::<K>::start(client(kubeconfig, Duration::from_secs(60)).await, Config::default());
    follower.becomes(&expected, resource).await;
}

#[tokio::test]
async fn a_recording_cut_anywhere_leads_to_the_same_end() {
    let recording = Recording::bundled();
    let cuts = [(0, Fault::CutInEvent(3)), (40, Fault::ExpireAfter(2)), (111, Fault::ResetAfterBytes(9000)), (200, Fault::EndAfter(1))];
    for (events, fault) in cuts {
        let server = Server::builder().seed(1).system_namespaces(false).start().await.unwrap();
        let mut feed = sluice_apiserver::Feed::new(server.store().clone(), &recording, "scenario1").unwrap();
        feed.advance(events).unwrap();
        server.faults().add(Rule::new(fault).on("pods").verb(Verb::Watch).first(2));
        let pods = Follower::<Pod>::start(impatient_client(&server).await, Config::default().timeout(2));
        for _ in 0..8 {
            feed.advance(5).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        feed.finish("pods").unwrap();
        let recorded = of_values(feed.history().last_items("pods").iter().cloned());
        pods.becomes(&recorded, &format!("{fault:?} at {events}")).await;
    }
}
