//! A client of bare sockets: what the server sends, byte by byte.

// Each test file uses its own part of this.
#![allow(dead_code)]

pub(crate) mod follower;

use serde_json::{Value, json};
use sluice_apiserver::Server;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    /// The body without its chunking.
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    /// Type, name and resourceVersion of each event.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.lines().iter().map(|line| (text(&line["type"]), text(&line["object"]["metadata"]["name"]))).collect()
    }
}

/// Sends one request on a connection of its own and reads the answer to the end of the connection.
pub(crate) async fn send(server: &Server, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(server.address()).await.expect("the server accepts");
    let length = body.len();
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut bytes = Vec::new();
    // A reset counts as an end: the bytes before it are what matters.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("the answer ends");
    take_apart(&bytes)
}

pub(crate) async fn get(server: &Server, target: &str) -> Answer {
    send(server, "GET", target, "", "").await
}

pub(crate) async fn post(server: &Server, target: &str, body: Value) -> Answer {
    send(server, "POST", target, "Content-Type: application/json\r\n", &body.to_string()).await
}

pub(crate) async fn patch(server: &Server, target: &str, body: Value) -> Answer {
    send(server, "PATCH", target, "Content-Type: application/merge-patch+json\r\n", &body.to_string()).await
}

pub(crate) async fn delete(server: &Server, target: &str) -> Answer {
    send(server, "DELETE", target, "", "").await
}

/// Takes apart the bytes of one answer, however much of it there is.
pub(crate) fn take_apart(bytes: &[u8]) -> Answer {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer { code: 0, head: String::from_utf8_lossy(bytes).into_owned(), body: Vec::new(), complete: false };
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    let (body, complete) = match length {
        Some(length) => (rest.to_vec(), rest.len() == length),
        None => unchunk(rest),
    };
    Answer { code, head, body, complete }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line_end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).expect("a chunk size"), 16).expect("a chunk size");
        rest = &rest[line_end + 2..];
        if size == 0 {
            return (body, rest == b"\r\n");
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return (body, false);
        }
        rest = &rest[size + 2..];
    }
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
        "status": {"phase": "Running"},
    })
}

pub(crate) fn policy(namespace: &str, name: &str, tier: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {"tier": tier}},
        "spec": {"podSelector": {}},
    })
}

/// A server with namespace `x` and the pods `a` to `e` in it, of which `a` to `c` run on node1.
pub(crate) async fn server_with_pods() -> Server {
    let server = Server::builder().seed(7).start().await.expect("a free port");
    server.store().put(namespace("x")).expect("a namespace");
    for (name, node) in [("a", "node1"), ("b", "node1"), ("c", "node1"), ("d", "node2"), ("e", "node2")] {
        server.store().put(pod("x", name, node)).expect("a pod");
    }
    server
}
