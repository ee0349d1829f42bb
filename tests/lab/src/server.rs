//! `serve-pod`: the one process of a pod. HTTP on its TCP ports, an echo on its UDP ports.
//!
//! The page says who answered and whom it saw, so that a probe can tell a wrong pod, or a source address that was
//! rewritten on the way, from a right one.

use crate::state::{ServedPort, Transport};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that opens more at once waits in the backlog.
const CLIENTS_MAX: usize = 256;
const REQUEST_BYTES_MAX: u64 = 16 << 10;

/// Serves for ever under the pod's name. `ready` is called once every port is bound.
pub fn serve(pod: &str, ports: &[ServedPort], ready: impl FnOnce()) -> Result<()> {
    let clients = Arc::new(AtomicUsize::new(0));
    let pod: Arc<str> = pod.into();
    for served in ports {
        let wildcard = (Ipv6Addr::UNSPECIFIED, served.port);
        let pod = Arc::clone(&pod);
        match served.protocol {
            Transport::Tcp => {
                let listener = TcpListener::bind(wildcard).with_context(|| format!("cannot bind {served}"))?;
                let clients = Arc::clone(&clients);
                std::thread::spawn(move || accept(&listener, &pod, &clients));
            }
            Transport::Udp => {
                let socket = UdpSocket::bind(wildcard).with_context(|| format!("cannot bind {served}"))?;
                std::thread::spawn(move || echo(&socket, &pod));
            }
        }
    }
    ready();
    loop {
        std::thread::park();
    }
}

fn accept(listener: &TcpListener, pod: &Arc<str>, clients: &Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        // Relaxed: a plain count that publishes nothing; a few too many do no harm.
        while clients.load(Ordering::Relaxed) >= CLIENTS_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
        clients.fetch_add(1, Ordering::Relaxed);
        let (pod, counted) = (Arc::clone(pod), Arc::clone(clients));
        let spawned = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            // The client has gone or was cut off by a policy: both are ordinary here.
            let _ = respond(&stream, &pod);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers GET and HEAD until the client closes or asks to.
fn respond(stream: &TcpStream, pod: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let client = stream.peer_addr()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = reader.by_ref().take(REQUEST_BYTES_MAX);
        let mut first = String::new();
        request.read_line(&mut first)?;
        let mut words = first.split_ascii_whitespace();
        let (Some(method), Some(_), Some(version)) = (words.next(), words.next(), words.next()) else { return Ok(()) };
        let mut close = version == "HTTP/1.0";
        let mut header = String::new();
        while request.read_line(&mut header)? > 0 && !header.trim_end().is_empty() {
            close |= header.trim_end().eq_ignore_ascii_case("connection: close");
            header.clear();
        }
        let (status, body) = match method {
            "GET" | "HEAD" => ("200 OK", page(pod, client)),
            _ => ("405 Method Not Allowed", String::new()),
        };
        let connection = if close { "close" } else { "keep-alive" };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        if method != "HEAD" {
            answer.push_str(&body);
        }
        (&mut &*stream).write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

fn page(pod: &str, client: SocketAddr) -> String {
    let address = client.ip().to_canonical();
    format!("<!DOCTYPE html>\n<title>{pod}</title>\n<p>This is pod {pod}. You are {address}.</p>\n")
}

/// Sends each datagram back with the pod's name before it.
fn echo(socket: &UdpSocket, pod: &str) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // An ICMP error of an earlier answer shows up here; it concerns a client that is gone.
        let Ok((len, client)) = socket.recv_from(&mut buffer) else { continue };
        let answer = [pod.as_bytes(), b": ", &buffer[..len]].concat();
        let _ = socket.send_to(&answer, client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_tells_who_answers_and_whom_it_saw() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || accept(&listener, &"ns/web".into(), &Arc::default()));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nPUT / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("This is pod ns/web. You are 127.0.0.1."), "{text}");
        assert!(text.contains("HTTP/1.1 405"), "{text}");
    }
}
