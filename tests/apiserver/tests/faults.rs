//! Faults over bare sockets: exactly what a client gets.

mod support;

use serde_json::{Value, json};
use sluice_apiserver::{Fault, Rule, Server, Verb};
use std::time::{Duration, Instant};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIST: &str = "/api/v1/pods";
const WATCH: &str =
    "/api/v1/pods?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

/// The answer to a request that one fault spoils.
async fn spoiled(fault: Fault, target: &str) -> Answer {
    let server = server_with_pods().await;
    server.faults().add(Rule::new(fault).on("pods"));
    get(&server, target).await
}

/// Names of a watch's events, bookmarks and errors by their type.
async fn watched(fault: Fault) -> (Vec<String>, bool) {
    let answer = spoiled(fault, WATCH).await;
    let name = |(kind, name): (String, String)| if name.is_empty() { kind } else { name };
    let cut = answer.body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let whole = Answer { body: answer.body[..cut].to_vec(), ..answer.clone() };
    (whole.events().into_iter().map(name).collect(), answer.complete && cut == answer.body.len())
}

#[tokio::test]
async fn a_status_is_answered_as_the_server_would() {
    for (code, reason, retry) in [
        (401, "Unauthorized", None),
        (403, "Forbidden", None),
        (410, "Expired", None),
        (429, "TooManyRequests", Some("Retry-After: 3")),
        (500, "InternalError", None),
        (503, "ServiceUnavailable", None),
        (504, "Timeout", None),
    ] {
        let answer = spoiled(Fault::Status { code, retry_after_s: Some(3) }, LIST).await;
        assert_eq!((answer.code, &answer.json()["reason"], &answer.json()["code"]), (code, &json!(reason), &json!(code)));
        assert_eq!(answer.head.contains("Retry-After"), retry.is_some(), "{code}");
        assert!(retry.is_none_or(|retry| answer.head.contains(retry)), "{code}");
    }
}

#[tokio::test]
async fn connections_end_where_the_rule_says() {
    let whole = spoiled(Fault::DelayMs(0), LIST).await;
    let whole_bytes = whole.head.len() + 4 + whole.body.len();
    assert_eq!(spoiled(Fault::Close, LIST).await.head, "");
    let cut = spoiled(Fault::CloseAfterBytes(700), LIST).await;
    assert!(whole_bytes > 700 && !cut.complete && cut.code == 200, "half a response");
    assert!(serde_json::from_slice::<Value>(&cut.body).is_err(), "cut within an object");
    assert_eq!(spoiled(Fault::CloseAfterBytes(0), LIST).await.head, "");
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let server = server_with_pods().await;
    server.faults().add(Rule::new(Fault::ResetAfterBytes(100)));
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"GET /api/v1/pods HTTP/1.1\r\n\r\n").await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_hanging_request_is_accepted_and_never_answered() {
    let server = server_with_pods().await;
    let rule = server.faults().add(Rule::new(Fault::Hang).verb(Verb::List));
    let hanging = tokio::time::timeout(Duration::from_millis(300), get(&server, LIST)).await;
    assert!(hanging.is_err());
    assert_eq!(server.faults().hits(rule), 1);
    server.faults().remove(rule);
    assert_eq!(get(&server, LIST).await.code, 200);
}

#[tokio::test]
async fn slow_streams_take_their_time() {
    let begun = Instant::now();
    let answer = spoiled(Fault::Slow(4000), LIST).await;
    let bytes = answer.head.len() + answer.body.len();
    let least = Duration::from_secs_f64(bytes as f64 / 4000.0 * 0.8);
    assert!(answer.complete && begun.elapsed() >= least, "{bytes} bytes in {:?}", begun.elapsed());
}

#[tokio::test]
async fn chunks_and_clocks_are_as_asked() {
    let answer = spoiled(Fault::ChunkBytes(7), WATCH).await;
    assert_eq!(answer.events().len(), 6);
    let skewed = spoiled(Fault::ClockSkewS(86_400), LIST).await;
    assert!(skewed.head.contains("Date: Fri, 02 Jan 2026 00:00:00 GMT"), "{}", skewed.head);
}

#[tokio::test]
async fn watches_are_spoiled_event_by_event() {
    let all = ["a", "b", "c", "d", "e", "BOOKMARK"];
    for (fault, expected, complete) in [
        (Fault::DelayMs(0), all.to_vec(), true),
        (Fault::EndAfter(2), vec!["a", "b"], true),
        (Fault::EndAfter(0), vec![], true),
        (Fault::ExpireAfter(1), vec!["a", "ERROR"], true),
        (Fault::CutInEvent(3), vec!["a", "b"], false),
        (Fault::Duplicate(2), vec!["a", "b", "b", "c", "d", "e", "BOOKMARK"], true),
        (Fault::Swap(2), vec!["a", "c", "b", "d", "e", "BOOKMARK"], true),
        (Fault::Swap(5), all.to_vec(), true),
        (Fault::DropBookmarks, vec!["a", "b", "c", "d", "e"], true),
        (Fault::Silent, vec![], true),
    ] {
        let expected = expected.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(watched(fault).await, (expected, complete), "{fault:?}");
    }
}

#[tokio::test]
async fn a_server_without_streaming_lists_refuses_them_in_its_words() {
    let refused = spoiled(Fault::NoStreamingLists, WATCH).await;
    let message = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: {message}"),
        "reason": "Invalid",
        "details": {
            "group": "meta.k8s.io", "kind": "ListOptions",
            "causes": [{"reason": "FieldValueForbidden", "message": message, "field": "sendInitialEvents"}],
        },
        "code": 422,
    });
    assert_eq!((refused.code, refused.json()), (422, expected));
    let server = Server::builder().streaming_lists(false).start().await.unwrap();
    assert_eq!(get(&server, WATCH).await.code, 422);
    assert_eq!(get(&server, "/api/v1/pods?watch=true&timeoutSeconds=1").await.code, 200);
}

#[tokio::test]
async fn an_outage_cuts_everybody_off_and_ends_on_the_same_address() {
    let server = server_with_pods().await;
    let mut watching = TcpStream::connect(server.address()).await.unwrap();
    watching.write_all(b"GET /api/v1/pods?watch=true HTTP/1.1\r\n\r\n").await.unwrap();
    let mut first = [0; 64];
    watching.read_exact(&mut first).await.unwrap();
    server.go_down().await.unwrap();
    let mut rest = Vec::new();
    let _ = watching.read_to_end(&mut rest).await;
    assert!(!take_apart(&[first.as_slice(), &rest].concat()).complete, "cut off in the middle");
    assert!(TcpStream::connect(server.address()).await.is_err());
    server.come_back().await.unwrap();
    assert_eq!(get(&server, LIST).await.code, 200);
}

#[tokio::test]
async fn a_server_that_is_told_to_terminate_ends_its_watches_in_order() {
    let server = server_with_pods().await;
    let watch = tokio::spawn({
        let address = server.address();
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /api/v1/pods?watch=true HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            take_apart(&bytes)
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.end_watches();
    let answer = watch.await.unwrap();
    assert_eq!((answer.complete, answer.events().len()), (true, 5));
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = server_with_pods().await;
    let address = server.address();
    drop(server);
    tokio::task::yield_now().await;
    assert!(TcpStream::connect(address).await.is_err());
}
