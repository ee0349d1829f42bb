//! Asking the lab's DNS server as a pod's resolver would: search list, one datagram for each try.
//!
//! Probes resolve names themselves, since the C library reads the machine's `/etc/resolv.conf` and not the pod's, and
//! since a probe must tell "the name did not resolve" from "the address did not answer".

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use sluice_flow::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const NDOTS: usize = 5;
const ATTEMPTS: u32 = 2;

/// Finds the addresses of `host` in the given family, from the network namespace of the calling thread.
pub fn resolve(server: IpAddr, search: &[String], host: &str, family: Family, timeout: Duration) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let wildcard = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((wildcard, 0)).context("cannot make a DNS socket")?;
    socket.connect(SocketAddr::new(server, 53)).with_context(|| format!("no route to the DNS server {server}"))?;
    let searched = search.iter().map(|domain| format!("{host}.{domain}."));
    let plain = std::iter::once(format!("{host}."));
    let names: Vec<String> =
        if host.matches('.').count() >= NDOTS { plain.chain(searched).collect() } else { searched.chain(plain).collect() };
    for name in names {
        if let Some(addresses) = ask(&socket, &name, family, timeout)? {
            return Ok(addresses);
        }
    }
    bail!("no such name: {host}")
}

/// One question. `None` when the name does not exist.
fn ask(socket: &UdpSocket, name: &str, family: Family, timeout: Duration) -> Result<Option<Vec<IpAddr>>> {
    let kind = match family {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    };
    let name: Name = name.parse().with_context(|| format!("{name} is no DNS name"))?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let packet = query.to_vec().context("cannot encode a DNS query")?;
    socket.set_read_timeout(Some(timeout / ATTEMPTS)).context("cannot set a DNS timeout")?;
    for _ in 0..ATTEMPTS {
        // A refusal (ICMP) shows up as an error of send or receive; the next attempt tells.
        if socket.send(&packet).is_err() {
            continue;
        }
        let mut buffer = [0; 4096];
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let answer = Message::from_vec(&buffer[..len]).context("the DNS answer is not understood")?;
        if answer.metadata.id != query.metadata.id {
            continue;
        }
        return match answer.metadata.response_code {
            ResponseCode::NoError => Ok(Some(answer.answers.iter().filter_map(address).collect())),
            ResponseCode::NXDomain => Ok(None),
            code => bail!("the DNS server answered {code}"),
        };
    }
    bail!("the DNS server did not answer within {} ms", timeout.as_millis())
}

fn address(record: &hickory_proto::rr::Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}
