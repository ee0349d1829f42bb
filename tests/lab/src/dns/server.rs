//! `serve-dns`: UDP and TCP port 53, answers A and AAAA from a hosts file.
//!
//! The lab rewrites the file by rename whenever pods or services change; the server looks at its modification time
//! before each answer. A name without an address of the asked family exists (NOERROR, no answer), an unknown name
//! does not (NXDOMAIN): resolvers walk their search list by that difference. Source: RFC 2308, section 2.

use anyhow::{Context, Result};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Short, so that a pod that is replaced is found again soon.
const TTL_S: u32 = 5;
/// Without EDNS a UDP answer holds no more. Source: RFC 1035, 4.2.1.
const UDP_ANSWER_MAX: usize = 512;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves for ever. `ready` is called once both sockets are bound.
pub fn serve(hosts: PathBuf, ready: impl FnOnce()) -> Result<()> {
    let wildcard = (Ipv6Addr::UNSPECIFIED, 53);
    let udp = UdpSocket::bind(wildcard).context("cannot bind UDP port 53")?;
    let tcp = TcpListener::bind(wildcard).context("cannot bind TCP port 53")?;
    let zone = Arc::new(Zone::new(hosts));
    ready();
    let over_tcp = Arc::clone(&zone);
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let zone = Arc::clone(&over_tcp);
            std::thread::spawn(move || serve_stream(stream, &zone));
        }
    });
    let mut buffer = [0; 4096];
    loop {
        let (len, client) = udp.recv_from(&mut buffer).context("UDP port 53")?;
        if let Some(answer) = zone.answer(&buffer[..len], UDP_ANSWER_MAX) {
            // The client asks again when its answer is lost.
            let _ = udp.send_to(&answer, client);
        }
    }
}

/// Length-prefixed messages until the client closes. Source: RFC 1035, 4.2.2.
fn serve_stream(mut stream: TcpStream, zone: &Zone) -> Option<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT)).ok()?;
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut query).ok()?;
        let answer = zone.answer(&query, usize::from(u16::MAX))?;
        let len = u16::try_from(answer.len()).ok()?;
        stream.write_all(&[&len.to_be_bytes()[..], &answer].concat()).ok()?;
    }
}

type Names = HashMap<String, Vec<IpAddr>>;

/// The hosts file as last read.
struct Zone {
    path: PathBuf,
    read: Mutex<(Option<SystemTime>, Names)>,
}

impl Zone {
    fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new((None, Names::new())) }
    }

    fn lookup(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = fs::metadata(&self.path).and_then(|meta| meta.modified()).ok();
        if modified != read.0 {
            *read = (modified, read_hosts(&self.path));
        }
        read.1.get(name).cloned()
    }

    /// The answer to a packet, `None` for one that deserves none.
    fn answer(&self, packet: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let query = Message::from_vec(packet).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        answer.add_queries(query.queries.iter().cloned());
        answer.metadata.response_code = match (query.metadata.op_code, query.queries.as_slice()) {
            (OpCode::Query, [question]) => {
                let name = question.name();
                match self.lookup(&key(name)) {
                    Some(addresses) => {
                        answer.add_answers(records(name, question.query_type(), &addresses));
                        ResponseCode::NoError
                    }
                    None => ResponseCode::NXDomain,
                }
            }
            (OpCode::Query, _) => ResponseCode::FormErr,
            _ => ResponseCode::NotImp,
        };
        let bytes = answer.to_vec().ok()?;
        if bytes.len() <= bytes_max { Some(bytes) } else { answer.truncate().to_vec().ok() }
    }
}

fn key(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn records(name: &Name, query_type: RecordType, addresses: &[IpAddr]) -> Vec<Record> {
    let data = addresses.iter().filter_map(|address| match (query_type, address) {
        (RecordType::A, IpAddr::V4(v4)) => Some(RData::A((*v4).into())),
        (RecordType::AAAA, IpAddr::V6(v6)) => Some(RData::AAAA((*v6).into())),
        _ => None,
    });
    data.map(|data| Record::from_rdata(name.clone(), TTL_S, data)).collect()
}

/// `ADDRESS NAME...` lines. What does not parse is passed over, as every resolver does with a hosts file.
fn read_hosts(path: &Path) -> Names {
    let mut names = Names::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        for name in words {
            names.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(name.parse().unwrap(), kind));
        Message::from_vec(&zone.answer(&query.to_vec().unwrap(), 512).unwrap()).unwrap()
    }

    #[test]
    fn a_known_name_without_the_family_exists_and_an_unknown_one_does_not() {
        let path = std::env::temp_dir().join(format!("sluice-lab-zone-{}", std::process::id()));
        fs::write(&path, "10.88.0.3 Web.default.svc.cluster.local # note\nnonsense\n").unwrap();
        let zone = Zone::new(path.clone());
        let answer = ask(&zone, "web.default.svc.cluster.local.", RecordType::A);
        assert_eq!(answer.answers.len(), 1);
        let answer = ask(&zone, "WEB.default.svc.cluster.local.", RecordType::AAAA);
        assert_eq!((answer.answers.len(), answer.metadata.response_code), (0, ResponseCode::NoError));
        let answer = ask(&zone, "web.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(zone.answer(b"short", 512).is_none());
        fs::remove_file(path).unwrap();
    }
}
