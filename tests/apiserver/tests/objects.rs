//! Lives of objects through the ordinary API: defaults, conflicts, grace, finalizers, namespaces with content.

mod support;

use serde_json::{Value, json};
use sluice_apiserver::{Manifests, Recording, Resource, Server};
use support::*;

const PODS: &str = "/api/v1/namespaces/x/pods";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/x/networkpolicies";

#[tokio::test]
async fn new_objects_get_what_the_server_gives_them() {
    let server = server_with_pods().await;
    let answer = post(&server, PODS, json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"ports": [{"containerPort": 1}]}]}, "status": {"phase": "Running"}})).await;
    let made = answer.json();
    assert_eq!((answer.code, &made["kind"], &made["status"]["phase"]), (201, &json!("Pod"), &json!("Pending")));
    assert!(made["metadata"]["name"].as_str().unwrap().len() == 7 && made["metadata"]["uid"].as_str().unwrap().len() == 36);
    assert_eq!((&made["metadata"]["creationTimestamp"], &made["metadata"]["generation"]), (&json!("2026-01-01T00:00:00Z"), &json!(1)));
    assert_eq!(made["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
    let labels = get(&server, "/api/v1/namespaces/x").await.json()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"kubernetes.io/metadata.name": "x"}));
    let twice = post(&server, PODS, pod("x", "a", "node1")).await;
    assert_eq!((twice.code, &twice.json()["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(post(&server, "/api/v1/namespaces/nosuch/pods", pod("nosuch", "a", "")).await.code, 404);
    assert_eq!(post(&server, PODS, pod("y", "z", "")).await.code, 400);
    assert_eq!(post(&server, PODS, json!({"metadata": {}})).await.code, 422);
    assert_eq!(post(&server, PODS, json!(7)).await.code, 400);
}

#[tokio::test]
async fn writes_conflict_and_change_nothing_when_they_say_nothing_new() {
    let server = server_with_pods().await;
    let path = format!("{POLICIES}/gold");
    let first = post(&server, POLICIES, policy("x", "gold", "gold")).await.json();
    let second = patch(&server, &path, json!({"spec": {"policyTypes": ["Egress"]}})).await.json();
    assert_eq!(second["metadata"]["generation"], 2);
    let stale = send(&server, "PUT", &path, "Content-Type: application/json\r\n", &first.to_string()).await;
    let actions = "Operation cannot be fulfilled on networkpolicies.networking.k8s.io \"gold\": the object has been modified; please apply your changes to the latest version and try again";
    let details = json!({"name": "gold", "group": "networking.k8s.io", "kind": "networkpolicies"});
    assert_eq!((stale.code, &stale.json()["message"], &stale.json()["details"]), (409, &json!(actions), &details));
    let same = patch(&server, &path, json!({"metadata": {"labels": {"tier": "gold"}}})).await.json();
    assert_eq!(same, second, "a patch without effect makes no new version");
    let relabelled = patch(&server, &path, json!({"metadata": {"labels": {"tier": "tin"}}})).await.json();
    assert_eq!(relabelled["metadata"]["generation"], 2);
    let unknown = send(&server, "PATCH", &path, "Content-Type: application/json-patch+json\r\n", "[]").await;
    assert_eq!(unknown.code, 415);
}

#[tokio::test]
async fn a_status_is_written_apart_from_the_rest() {
    let server = server_with_pods().await;
    let body = json!({"metadata": {"labels": {"app": "new"}}, "status": {"phase": "Failed"}});
    let main = patch(&server, &format!("{PODS}/a"), body.clone()).await.json();
    assert_eq!((&main["metadata"]["labels"]["app"], &main["status"]["phase"]), (&json!("new"), &json!("Running")));
    let status = patch(&server, &format!("{PODS}/b/status"), body).await.json();
    assert_eq!((&status["metadata"]["labels"]["app"], &status["status"]["phase"]), (&json!("b"), &json!("Failed")));
    assert_eq!(get(&server, &format!("{PODS}/b/status")).await.json(), status);
}

#[tokio::test]
async fn pods_end_with_grace_and_when_nothing_holds_them() {
    let server = server_with_pods().await;
    let graceful = delete(&server, &format!("{PODS}/a")).await.json();
    let metadata = &graceful["metadata"];
    assert_eq!((&metadata["deletionTimestamp"], &metadata["deletionGracePeriodSeconds"]), (&json!("2026-01-01T00:00:30Z"), &json!(30)));
    assert_eq!(delete(&server, &format!("{PODS}/a")).await.json(), graceful, "once is enough");
    let last = delete(&server, &format!("{PODS}/a?gracePeriodSeconds=0")).await.json();
    let details = json!({"name": "a", "kind": "pods", "uid": metadata["uid"]});
    assert_eq!(last, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}));
    assert_eq!(get(&server, &format!("{PODS}/a")).await.code, 404);

    patch(&server, &format!("{PODS}/b"), json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let held = delete(&server, &format!("{PODS}/b?gracePeriodSeconds=0")).await.json();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    patch(&server, &format!("{PODS}/b"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(get(&server, &format!("{PODS}/b")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_goes_with_its_content_and_waits_for_what_is_held() {
    let server = server_with_pods().await;
    patch(&server, &format!("{PODS}/c"), json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let start = server.store().version();
    assert_eq!(delete(&server, "/api/v1/namespaces/x").await.json()["status"]["phase"], "Terminating");
    let watch = get(&server, &format!("/api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion={start}")).await;
    let kinds: Vec<_> = watch.events().into_iter().map(|(kind, name)| format!("{kind} {name}")).collect();
    assert_eq!(kinds, ["DELETED a", "DELETED b", "MODIFIED c", "DELETED d", "DELETED e"]);
    let refused = post(&server, PODS, pod("x", "new", "")).await;
    assert_eq!((refused.code, &refused.json()["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")));
    patch(&server, &format!("{PODS}/c"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(get(&server, "/api/v1/namespaces/x").await.code, 404);
    assert_eq!(server.store().count("pods").unwrap(), 0);
}

#[tokio::test]
async fn discovery_describes_what_is_served() {
    let custom = Resource::custom("example.com", "v1", "widgets", "Widget").cluster_scoped();
    let server = Server::builder().seed(1).resource(custom).start().await.unwrap();
    let recording = Recording::bundled();
    let recorded = |name: &str| recording.capture(&format!("scenario3-validation/{name}")).unwrap().json().unwrap();
    assert_eq!(get(&server, "/version").await.json()["gitVersion"], recorded("discovery_version")["gitVersion"]);
    for (path, name) in [
        ("/api/v1", "discovery_api_v1"),
        ("/apis/networking.k8s.io/v1", "discovery_apis_networking.k8s.io_v1"),
        ("/apis/discovery.k8s.io/v1", "discovery_apis_discovery.k8s.io_v1"),
    ] {
        let (found, real) = (get(&server, path).await.json(), recorded(name));
        let real_resources = real["resources"].as_array().unwrap();
        for resource in found["resources"].as_array().unwrap() {
            let same = real_resources.iter().find(|known| known["name"] == resource["name"]).expect("a real resource");
            for field in ["singularName", "namespaced", "kind"] {
                assert_eq!(resource[field], same[field], "{path} {}", resource["name"]);
            }
        }
        assert_eq!((&found["kind"], &found["groupVersion"]), (&real["kind"], &real["groupVersion"]));
    }
    server.store().put(json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}})).unwrap();
    let widgets = get(&server, "/apis/example.com/v1/widgets").await.json();
    assert_eq!(widgets["items"][0]["kind"], "Widget", "items of custom resources carry their type");
    assert_eq!(get(&server, "/livez").await.body, b"ok");
    assert_eq!(get(&server, "/apis/example.com").await.json()["preferredVersion"]["groupVersion"], "example.com/v1");
}

#[tokio::test]
async fn manifests_are_loaded_as_they_stand() {
    let directory = tempfile::tempdir().unwrap();
    let crd = "kind: CustomResourceDefinition\nspec:\n  group: example.com\n  scope: Cluster\n  names: {plural: widgets, kind: Widget}\n  versions: [{name: v1, storage: true}]\n";
    std::fs::write(directory.path().join("1.yaml"), format!("{crd}---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: w}}\n"))
        .unwrap();
    let list: Value = json!({"apiVersion": "v1", "kind": "PodList", "items": [pod("x", "a", "node1")]});
    std::fs::write(directory.path().join("2.json"), list.to_string()).unwrap();
    std::fs::write(directory.path().join("notes.txt"), "no manifest").unwrap();
    let manifests = Manifests::read(directory.path()).unwrap();
    let mut builder = Server::builder();
    for resource in manifests.resources {
        builder = builder.resource(resource);
    }
    let server = builder.start().await.unwrap();
    assert_eq!(server.store().load(manifests.objects).unwrap(), 2);
    assert_eq!(get(&server, &format!("{PODS}/a")).await.json()["status"]["phase"], "Running");
    assert_eq!(get(&server, "/apis/example.com/v1/widgets/w").await.code, 200);
    std::fs::write(directory.path().join("3.yaml"), "a: [").unwrap();
    assert!(Manifests::read(directory.path()).unwrap_err().to_string().contains("3.yaml"));
}
