//! Health and metrics of the real binary, as the kubelet and Prometheus ask for them.
#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod rig;

use rig::cluster::Cluster;
use rig::http::{free_address, get};
use rig::{Control, Dataplane, allows, web};
use serde_json::json;
use sluice_apiserver::Verb;

/// Answers one question for the status on the dataplane's socket.
fn answer_as_dataplane(control: &Control) {
    let listener = sluice_wire::Listener::bind(&control.dir.path().join("run/dataplane.sock")).unwrap();
    let worker = json!({
        "worker": 3, "cpu": null, "trunk": "sluice-n3", "generation": 7, "ports": 1, "connections": 5, "received": 9, "forwarded": 8,
        "dropped": 1, "connectionsCut": 0, "alive": true,
    });
    let status = json!({
        "version": "0.1.0", "abiVersion": 1, "pid": 1, "uptimeS": 600, "generation": 7, "generationAgeS": 3, "imageBytes": 4096,
        "controlConnected": true, "lastRefused": null, "established": "enforce", "enforcing": true, "failOpen": false, "cacheHits": 1000,
        "punts": 10, "notIsolated": 5, "cacheEntries": 2, "ports": 1, "foundUnmanaged": 2, "workers": [worker],
        "drops": [{"reason": "policy_denied", "packets": 41}],
    });
    let answer = sluice_wire::FromDataplane::Status(serde_json::from_value(status).unwrap());
    std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().unwrap();
        assert!(matches!(connection.recv().unwrap().unwrap().0, sluice_wire::ToDataplane::Status));
        connection.send(&answer, None).unwrap();
        // the socket stays until the asker has its answer
        let _ = connection.recv::<sluice_wire::ToDataplane>();
    });
}

#[test]
fn health_and_metrics_tell_what_a_kubelet_and_prometheus_want_to_know() {
    let cluster = Cluster::start();
    for verb in [Verb::List, Verb::Watch] {
        cluster.server.auth().forbid("pods", verb);
    }
    let address = free_address();
    let control = Control::start_on_with(&cluster.server.kubeconfig(), &["--metrics-bind-address", &address]);
    let mut session = Dataplane::start(&control).accept(web(), 0);
    assert_eq!(get(&address, "/livez"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    control.until("403 is known", |status| status.watches.iter().any(|watch| watch.trouble.is_some()));
    let (line, body) = get(&address, "/readyz");
    assert!(line.contains("503") && body.contains("pods are not listed yet: cannot list: 403"), "{line}: {body}");
    for verb in [Verb::List, Verb::Watch] {
        cluster.server.auth().allow("pods", verb);
    }
    cluster.put_policy(json!(80));
    while allows(&session.publish_and_adopt(), 81) {}
    control.until("settled", |status| status.settled);
    cluster.runtime.block_on(cluster.server.go_down()).unwrap();
    control.until("broken", |status| status.watches.iter().all(|watch| watch.trouble.is_some()));
    assert_eq!(get(&address, "/readyz").1, "ok\n", "an outage takes nothing from a node");
    let (line, body) = get(&address, "/metrics");
    assert_eq!(line, "HTTP/1.1 200 OK");
    for expected in [
        "sluice_control_build_info{version=",
        "sluice_control_settled 1",
        "sluice_control_endpoints 1",
        "sluice_control_objects{kind=\"policies\"} 1",
        "sluice_control_watch_broken{resource=\"pods\"} 1",
        "sluice_control_watch_lists_total{resource=\"pods\"} 1",
        "sluice_control_tables_published_total ",
        "sluice_control_policy_programming_latency_seconds_count ",
        "sluice_control_resident_memory_bytes ",
        "sluice_dataplane_up 0",
        "# EOF",
    ] {
        assert!(body.contains(expected), "{expected} in {body}");
    }
    answer_as_dataplane(&control);
    let (_, body) = get(&address, "/metrics");
    for expected in [
        "sluice_dataplane_up 1",
        "sluice_dataplane_generation 7",
        "sluice_dataplane_found_unmanaged 2",
        "sluice_dataplane_cache_hits_total 1000",
        "sluice_dataplane_drops_total{reason=\"policy_denied\"} 41",
        "sluice_dataplane_worker_alive{worker=\"3\"} 1",
        "sluice_control_settled 1",
    ] {
        assert!(body.contains(expected), "{expected} in {body}");
    }
    assert_eq!(body.matches("# EOF").count(), 1, "{body}");
    let count = body.lines().find_map(|line| line.strip_prefix("sluice_control_policy_programming_latency_seconds_count ")).unwrap();
    assert_ne!(count, "0");
    assert!(get(&address, "/other").0.contains("404"));
}
