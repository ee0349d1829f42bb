//! What nftables would do for the same pods and policies: a verdict map from pod to chain and a set in each chain, or a rule for
//! each port and block. Both let answers through by connection tracking, as everybody does.

use super::cluster::{Rules, allowed_ports};
use anyhow::{Context, Result, bail};
use sluice_lab::NetNs;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

const TABLE: &str = "ip sluice-peer";
const CONNECTIONS: &str = "ct state established,related accept";

/// With maps and sets: what a careful implementation does.
pub(super) fn sets(client: IpAddr, server: IpAddr, rules: &Rules) -> String {
    let element = |address: &str, protocol: &str, (from, to): (u16, u16)| {
        let ports = if from == to { from.to_string() } else { format!("{from}-{to}") };
        format!("{address} . {protocol} . {ports}")
    };
    let elements = |peer: IpAddr| {
        let own = allowed_ports().map(|(protocol, from, to)| element(&peer.to_string(), &protocol.to_lowercase(), (from, to)));
        let blocks = rules.blocks().map(|(block, port)| element(block.trim_end_matches("/32"), "tcp", (port, port)));
        own.chain(blocks).collect::<Vec<_>>().join(", ")
    };
    let set = |name: &str, peer| {
        format!("set {name} {{ type ipv4_addr . inet_proto . inet_service; flags interval; elements = {{ {} }}; }}\n", elements(peer))
    };
    let chain = |name: &str, field: &str, set: &str| format!("chain {name} {{ {field} . meta l4proto . th dport @{set} return; drop; }}\n");
    format!(
        "table {TABLE} {{\n{}{}{}{}{}{}\
         chain forward {{ type filter hook forward priority 0; {CONNECTIONS}; ip saddr vmap {{ {client} : jump client-out, {server} : jump server-out }}; \
         ip daddr vmap {{ {client} : jump client-in, {server} : jump server-in }}; }}\n}}\n",
        set("to-server", server),
        set("from-client", client),
        chain("client-out", "ip daddr", "to-server"),
        chain("server-in", "ip saddr", "from-client"),
        "chain server-out { drop; }\n",
        "chain client-in { drop; }\n",
    )
}

/// A rule for each: what a plain implementation does.
pub(super) fn linear(client: IpAddr, server: IpAddr, rules: &Rules) -> String {
    let mut out = String::new();
    for (chain, field, peer) in [("client-out", "daddr", server), ("server-in", "saddr", client)] {
        let _ = writeln!(out, "chain {chain} {{");
        // the measured ones come last: a policy's place in the list is nobody's choice, and this is the far end of it
        for (block, port) in rules.blocks() {
            let _ = writeln!(out, "ip {field} {block} tcp dport {port} return");
        }
        for (protocol, from, to) in allowed_ports() {
            let _ = writeln!(out, "ip {field} {peer} {} dport {from}-{to} return", protocol.to_lowercase());
        }
        out += "drop\n}\n";
    }
    format!(
        "table {TABLE} {{\n{out}\
         chain forward {{ type filter hook forward priority 0; {CONNECTIONS}; ip saddr {client} jump client-out; ip daddr {server} jump server-in; }}\n}}\n"
    )
}

/// Nothing but what stops one pod, before connection tracking.
pub(super) fn silence(pod: IpAddr) -> String {
    format!("table {TABLE} {{ chain first {{ type filter hook prerouting priority raw; ip saddr {pod} counter drop; }}\n}}\n")
}

/// Nothing but what stops one pod where packets are forwarded: a plain rule of a filter.
pub(super) fn refuse(pod: IpAddr) -> String {
    format!("table {TABLE} {{ chain forward {{ type filter hook forward priority 0; ip saddr {pod} counter drop; }}\n}}\n")
}

/// Replaces the rules of a namespace; none for an empty text.
pub(super) fn load(netns: &NetNs, rules: &str) -> Result<()> {
    nft(netns, &format!("table {TABLE} {{}}\ndelete table {TABLE}\n{rules}"))
}

/// Runs nft on a script.
pub(super) fn nft(netns: &NetNs, script: &str) -> Result<()> {
    netns.run(|| {
        let mut child =
            Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("is nft installed?")?;
        child.stdin.take().context("a piped stdin is there")?.write_all(script.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&output.stderr).lines().take(4).collect::<Vec<_>>().join("; "));
        }
        Ok(())
    })
}

/// Inside a receiving pod: frees datagrams to many ports before its stack looks for a socket.
pub(super) fn sink(netns: &NetNs, ports: std::ops::Range<u16>) -> Result<()> {
    nft(
        netns,
        &format!(
            "table ip sluice-sink {{\nchain first {{ type filter hook prerouting priority raw; udp dport {}-{} drop; }}\n}}\n",
            ports.start,
            ports.end - 1
        ),
    )
}

/// Inside a receiving pod: one socket answers for many ports.
pub(super) fn gather(netns: &NetNs, ports: std::ops::Range<u16>, port: u16) -> Result<()> {
    nft(
        netns,
        &format!(
            "table ip sluice-gather {{\nchain first {{ type nat hook prerouting priority dstnat; udp dport {}-{} redirect to :{port}; }}\n}}\n",
            ports.start,
            ports.end - 1
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_there_in_either_form_and_in_both_directions() {
        let [client, server] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let rules = Rules::of(1009);
        for text in [sets(client, server, &rules), linear(client, server, &rules)] {
            assert_eq!(text.matches("198.18.").count(), 200);
            assert_eq!(text.matches("30000-59999").count(), 2);
        }
    }
}
