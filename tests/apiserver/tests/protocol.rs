//! The protocol over bare sockets, against the recordings of a real server.

mod support;

use serde_json::{Value, json};
use sluice_apiserver::{Recording, Server, Verb};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The recorded Status, with the numbers that differ from server to server replaced.
fn recorded(name: &str, from: &[(&str, &str)]) -> Value {
    let status = Recording::bundled().capture(&format!("scenario2-errors/{name}")).unwrap().json().unwrap();
    let text = from.iter().fold(status.to_string(), |text, (old, new)| text.replace(old, new));
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn errors_are_shaped_as_recorded() {
    let server = server_with_pods().await;
    let current = server.store().version().to_string();
    for (name, target, from) in [
        ("03-list-too-large-rv-504", "/api/v1/pods?resourceVersion=99999999", vec![("575", current.as_str())]),
        ("03-list-exact-future", "/api/v1/pods?resourceVersion=99999999&resourceVersionMatch=Exact", vec![("576", current.as_str())]),
        ("04-list-bad-fieldselector-400", "/api/v1/pods?fieldSelector=spec.bogus%3Dx", vec![]),
        ("04-list-bad-match-422", "/api/v1/pods?resourceVersionMatch=Exact", vec![]),
        ("04-list-bad-rv-400", "/api/v1/pods?resourceVersion=abc", vec![]),
        ("08-404-object", "/apis/networking.k8s.io/v1/namespaces/x/networkpolicies/nosuch", vec![]),
        ("08-404-resource", "/apis/networking.k8s.io/v1/nosuch", vec![]),
    ] {
        let answer = get(&server, target).await;
        let expected = recorded(name, &from);
        assert_eq!(answer.json(), expected, "{name}");
        assert_eq!(u64::from(answer.code), expected["code"].as_u64().unwrap(), "{name}");
        assert_eq!(answer.head.contains("Retry-After: 1"), name.starts_with("03"), "{name}");
    }
    let bad_watch = get(&server, "/api/v1/pods?watch=true&resourceVersion=abc").await;
    let capture = Recording::bundled().capture("scenario2-errors/05-watch-bad-rv").unwrap().http().to_vec();
    assert_eq!((bad_watch.code, bad_watch.json()), (500, take_apart(&capture).json()));
    let absent = get(&server, "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies").await;
    assert_eq!((absent.code, absent.body.as_slice()), (404, b"404 page not found\n".as_slice()));
    let metadata =
        send(&server, "GET", "/api/v1/pods?watch=true", "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=1\r\n", "")
            .await;
    let capture = Recording::bundled().capture("scenario2-errors/06-watch-metadata").unwrap().http().to_vec();
    assert_eq!((metadata.code, metadata.json()), (406, take_apart(&capture).json()));
}

#[tokio::test]
async fn tokens_and_permissions_are_refused_as_recorded() {
    let server = Server::builder().token("first").start().await.unwrap();
    let with = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(get(&server, "/api/v1/pods").await.json(), recorded("07-401-bad-token", &[]));
    assert_eq!(send(&server, "GET", "/api/v1/pods", &with("second"), "").await.code, 401);
    assert_eq!(send(&server, "GET", "/api/v1/pods", &with("first"), "").await.code, 200);
    server.auth().accept("second");
    server.auth().revoke("first");
    assert_eq!(send(&server, "GET", "/api/v1/pods", &with("first"), "").await.code, 401);
    server.auth().forbid("pods", Verb::List);
    server.auth().forbid("pods", Verb::Watch);
    let user = [("netpol-agent", sluice_apiserver::USER)];
    let forbidden = send(&server, "GET", "/api/v1/pods", &with("second"), "").await;
    assert_eq!((forbidden.code, forbidden.json()), (403, recorded("07-403-no-rbac", &user)));
    let watch = send(&server, "GET", "/api/v1/pods?watch=true", &with("second"), "").await;
    assert_eq!(watch.json(), recorded("07-403-watch", &user));
    server.auth().allow("pods", Verb::List);
    assert_eq!(send(&server, "GET", "/api/v1/pods", &with("second"), "").await.code, 200);
}

#[tokio::test]
async fn pages_are_of_one_version_whatever_is_written_between_them() {
    let server = server_with_pods().await;
    let names = |answer: &Answer| -> Vec<String> {
        answer.json()["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = get(&server, "/api/v1/pods?limit=2").await;
    let metadata = first.json()["metadata"].clone();
    assert_eq!((names(&first), &metadata["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(3)));
    assert_eq!(first.json()["items"][0].get("kind"), None, "items of lists carry no type");
    delete(&server, "/api/v1/namespaces/x/pods/c?gracePeriodSeconds=0").await;
    server.store().put(pod("x", "bb", "node1")).unwrap();
    let token = metadata["continue"].as_str().unwrap();
    let second = get(&server, &format!("/api/v1/pods?limit=2&continue={token}")).await;
    assert_eq!(
        (names(&second), &second.json()["metadata"]["resourceVersion"]),
        (vec!["c".into(), "d".into()], &metadata["resourceVersion"])
    );
    server.store().compact();
    let expired = get(&server, &format!("/api/v1/pods?limit=2&continue={token}")).await;
    let mut shape = recorded("09-continue-after-compaction-410", &[]);
    let inconsistent = expired.json()["metadata"]["continue"].clone();
    shape["metadata"]["continue"] = inconsistent.clone();
    assert_eq!((expired.code, expired.json()), (410, shape));
    let rest = get(&server, &format!("/api/v1/pods?limit=9&continue={}", inconsistent.as_str().unwrap())).await;
    assert_eq!(names(&rest), ["bb", "d", "e"]);
    let exact = format!("/api/v1/pods?resourceVersion={}&resourceVersionMatch=Exact", metadata["resourceVersion"].as_str().unwrap());
    assert_eq!(get(&server, &exact).await.json(), recorded("10-list-exact-compacted-410", &[]));
    assert_eq!(names(&get(&server, "/api/v1/pods?resourceVersion=0&limit=2").await).len(), 5, "limits do not count for version 0");
    assert_eq!(names(&get(&server, "/api/v1/namespaces/nosuch/pods").await), Vec::<String>::new());
    assert_eq!(names(&get(&server, "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode2&labelSelector=app+in+(d,a)").await), ["d"]);
}

#[tokio::test]
async fn watches_begin_where_they_are_asked_to() {
    let server = server_with_pods().await;
    let event = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let node2 = "/api/v1/pods?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dnode2";
    let added = [event("ADDED", "d"), event("ADDED", "e")];
    assert_eq!(get(&server, node2).await.events(), added);
    assert_eq!(get(&server, &format!("{node2}&resourceVersion=0")).await.events(), added);
    let streaming = get(&server, &format!("{node2}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")).await;
    assert!(streaming.complete);
    let mut expected = added.to_vec();
    expected.push(event("BOOKMARK", ""));
    assert_eq!(streaming.events(), expected);
    let bookmark = &streaming.lines()[2]["object"];
    let version = server.store().version().to_string();
    let metadata = json!({"resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}});
    assert_eq!(*bookmark, json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": null}, "status": {}}));
    let no_match = get(&server, "/api/v1/pods?watch=true&sendInitialEvents=true").await;
    assert_eq!((no_match.code, &no_match.json()["reason"]), (422, &json!("Invalid")));
    let future = get(&server, "/api/v1/pods?watch=true&resourceVersion=99999999&timeoutSeconds=1").await;
    assert_eq!((future.code, future.events()), (200, vec![]), "silence until the time is up");
    server.store().compact();
    let expired = get(&server, "/api/v1/pods?watch=true&resourceVersion=1").await;
    let oldest = format!("1 ({})", server.store().version());
    let expected = Recording::bundled().capture("scenario2-errors/11-watch-rv1-410-in-stream").unwrap().events().unwrap();
    let text = serde_json::to_string(&expected[0].object).unwrap().replace("1 (588)", &oldest);
    assert_eq!(expired.lines(), [json!({"type": "ERROR", "object": serde_json::from_str::<Value>(&text).unwrap()})]);
    assert!(expired.complete && expired.code == 200);
}

#[tokio::test]
async fn leaving_a_selection_is_a_deletion_with_the_old_content_as_recorded() {
    let server = Server::builder().seed(1).start().await.unwrap();
    server.store().put(policy("default", "gold", "gold")).unwrap();
    let start = server.store().version();
    let path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    for tier in ["silver", "gold"] {
        let answer = patch(&server, &format!("{path}/gold"), json!({"metadata": {"labels": {"tier": tier}}})).await;
        assert_eq!(answer.code, 200);
    }
    let watch = get(&server, &format!("{path}?watch=true&timeoutSeconds=1&labelSelector=tier%3Dgold&resourceVersion={start}")).await;
    let seen: Vec<_> = watch
        .lines()
        .iter()
        .map(|line| {
            let metadata = &line["object"]["metadata"];
            (line["type"].clone(), metadata["labels"]["tier"].clone(), metadata["resourceVersion"].clone())
        })
        .collect();
    let expected =
        [("DELETED", start + 1), ("ADDED", start + 2)].map(|(kind, version)| (json!(kind), json!("gold"), json!(version.to_string())));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn one_connection_carries_many_requests_even_sent_ahead() {
    let server = server_with_pods().await;
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let requests = "GET /api/v1/namespaces/x/pods/a HTTP/1.1\r\n\r\nPOST /api/v1/namespaces/x/pods HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        c\r\n{\"metadata\":\r\n11\r\n{\"name\":\"late\"}}\n\r\n0\r\n\r\nGET /api/v1/namespaces/x/pods/late HTTP/1.1\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let codes: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(codes, ["200", "201", "200"]);
}

#[tokio::test]
async fn oversized_and_malformed_requests_are_refused() {
    let server = server_with_pods().await;
    for (bytes, code) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(70_000)), 400),
        ("POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_owned(), 413),
    ] {
        let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(take_apart(&answer).code, code, "{:.40}", bytes);
    }
}

#[tokio::test]
async fn a_server_for_each_of_many_seeds_costs_little() {
    let begun = std::time::Instant::now();
    for seed in 0..200 {
        let server = Server::builder().seed(seed).start().await.unwrap();
        assert_eq!(get(&server, "/api/v1/namespaces/default").await.code, 200);
    }
    // A hundredth of this is usual; the rest is for machines that are busy.
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn bad_watches_and_methods_are_refused_before_anything_is_sent() {
    let server = server_with_pods().await;
    assert_eq!(get(&server, "/api/v1/pods?watch=true&timeoutSeconds=soon").await.code, 400);
    assert_eq!(send(&server, "OPTIONS", "/api/v1/pods", "", "").await.code, 405);
    assert_eq!(send(&server, "DELETE", "/api/v1/namespaces/x/pods", "", "").await.code, 405);
}

#[tokio::test]
async fn a_compaction_leaves_running_watches_alone() {
    let server = server_with_pods().await;
    let watch = tokio::spawn({
        let address = server.address();
        let start = server.store().version();
        async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request =
                format!("GET /api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion={start} HTTP/1.1\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            take_apart(&bytes)
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    server.store().put(namespace("other")).unwrap();
    server.store().compact();
    server.store().put(pod("x", "late", "node1")).unwrap();
    assert_eq!(watch.await.unwrap().events(), [("ADDED".to_owned(), "late".to_owned())]);
}
