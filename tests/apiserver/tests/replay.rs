//! Replays are byte for byte what was recorded.

mod support;

use sluice_apiserver::{Recording, Server, Speed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Path and query of the request that a capture answered.
fn target(name: &str) -> &'static str {
    match name {
        "scenario2-errors/01-page1-limit3" => "/api/v1/pods?limit=3",
        "scenario2-errors/05-watch-bad-rv" => "/api/v1/pods?watch=true&resourceVersion=abc&timeoutSeconds=4",
        "scenario2-errors/13-watch-server-sigkill" => {
            "/apis/networking.k8s.io/v1/networkpolicies?watch=true&resourceVersion=603&allowWatchBookmarks=true"
        }
        "scenario2-errors/14-get-during-etcd-stall" => "/apis/networking.k8s.io/v1/namespaces/x/networkpolicies/deny-all?timeout=3s",
        "scenario2-errors/08-cnp-crd-absent" => "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
        "scenario1/pods.1-watch" => "/api/v1/pods?watch=true&resourceVersion=230&allowWatchBookmarks=true&timeoutSeconds=150",
        _ => unreachable!("{name} is not replayed here"),
    }
}

async fn replay(server: &Server, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let done = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes));
    done.await.expect("the answer ends").expect("the connection is not reset");
    bytes
}

#[tokio::test]
async fn answers_are_those_of_the_recorded_server_byte_by_byte() {
    let recording = Recording::bundled();
    let server = Server::builder().replay(recording.clone(), Speed::AtOnce).start().await.unwrap();
    for name in [
        "scenario2-errors/01-page1-limit3",
        "scenario2-errors/05-watch-bad-rv",
        "scenario2-errors/13-watch-server-sigkill",
        "scenario2-errors/14-get-during-etcd-stall",
        "scenario2-errors/08-cnp-crd-absent",
        "scenario1/pods.1-watch",
    ] {
        let bytes = replay(&server, target(name)).await;
        assert!(bytes == recording.capture(name).unwrap().http(), "{name}: {} bytes", bytes.len());
    }
}

#[tokio::test]
async fn pauses_are_those_of_the_recording_divided() {
    let server = Server::builder().replay(Recording::bundled(), Speed::Times(2.0)).start().await.unwrap();
    let begun = Instant::now();
    let bytes = replay(&server, target("scenario2-errors/13-watch-server-sigkill")).await;
    // The recorded connection broke off after 1.5 s.
    assert!(
        !bytes.is_empty() && (Duration::from_millis(600)..Duration::from_millis(1400)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn every_capture_can_be_taken_apart() {
    let recording = Recording::bundled();
    assert_eq!(recording.captures().count(), 76);
    let history = recording.history("scenario1").unwrap();
    assert_eq!(history.first.keys().collect::<Vec<_>>(), ["endpointslices", "namespaces", "networkpolicies", "nodes", "pods", "services"]);
    assert_eq!(history.last_items("pods").len(), 15);
    assert!(history.events.windows(2).all(|pair| pair[0].version() <= pair[1].version()));
    assert!(recording.capture("scenario1/nosuch").is_err());
}
