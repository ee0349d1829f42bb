//! The rules in nft's language: for each direction a table, in it a verdict map from pod to chain, and for each chain a set.
//!
//! ```text
//!  hook output ▶ ip daddr vmap @pods ─▶ chain of the pod: ip saddr . meta l4proto . th dport @set accept ─▶ goto denied
//! ```
//!
//! For egress the two addresses change places. A pod that nothing isolates is not in the map. While answers are checked,
//! `denied` drops; while packets are timed it accepts, so that each of them goes the same way with and without rules.

use super::cells::Cell;
use sluice_flow::Direction;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// What becomes of a packet that no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Drop,
    Accept,
}

pub(super) fn table(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "sluice_ingress",
        Direction::Egress => "sluice_egress",
    }
}

/// Addresses of the pod and of its peer, as a packet has them.
fn ends(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Ingress => ("daddr", "saddr"),
        Direction::Egress => ("saddr", "daddr"),
    }
}

/// A direction's table without pods; it sees nothing until it is woken.
pub(super) fn frame(direction: Direction) -> String {
    let (table, (pod, _)) = (table(direction), ends(direction));
    format!(
        "table ip {table} {{\n  flags dormant\n  map pods {{ type ipv4_addr : verdict; }}\n  chain denied {{ }}\n  \
         chain base {{ type filter hook output priority 0; policy accept; ip {pod} vmap @pods; }}\n}}\n"
    )
}

/// A pod's chain and set.
pub(super) fn pod(direction: Direction, number: usize, address: Ipv4Addr, cells: &[Cell]) -> String {
    let (table, (_, peer)) = (table(direction), ends(direction));
    let mut text = format!("add chain ip {table} pod{number}\n");
    if !cells.is_empty() {
        let elements: Vec<String> = cells.iter().map(element).collect();
        let _ = write!(
            text,
            "add set ip {table} set{number} {{ type ipv4_addr . inet_proto . inet_service; flags interval; elements = {{ {} }}; }}\n\
             add rule ip {table} pod{number} ip {peer} . meta l4proto . th dport @set{number} accept\n",
            elements.join(", ")
        );
    }
    let _ = write!(text, "add rule ip {table} pod{number} goto denied\nadd element ip {table} pods {{ {address} : goto pod{number} }}\n");
    text
}

fn element(cell: &Cell) -> String {
    let range = |first: String, last: String| if first == last { first } else { format!("{first}-{last}") };
    let ip = |number: u32| Ipv4Addr::from(number).to_string();
    let addresses = range(ip(cell.addresses.0), ip(cell.addresses.1));
    let protocol = cell.protocol.map_or_else(|| "0-255".to_owned(), |protocol| protocol.to_string());
    format!("{addresses} . {protocol} . {}", range(cell.ports.0.to_string(), cell.ports.1.to_string()))
}

/// Puts a direction's table in force, or out of it; its contents stay.
pub(super) fn wake(direction: Direction, awake: bool) -> String {
    format!("table ip {} {{ {} }}\n", table(direction), if awake { "" } else { "flags dormant;" })
}

/// Says what becomes of denied packets.
pub(super) fn deny(direction: Direction, denied: Denied) -> String {
    let (table, verdict) = (table(direction), if denied == Denied::Drop { "drop" } else { "accept" });
    format!("flush chain ip {table} denied\nadd rule ip {table} denied {verdict}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_a_chain_with_a_set_and_the_peer_is_the_other_end() {
        let cells = [
            Cell { addresses: (0x0a00_0001, 0x0a00_0001), protocol: Some(6), ports: (80, 80) },
            Cell { addresses: (0x0a00_0002, 0x0a00_0003), protocol: None, ports: (0, u16::MAX) },
        ];
        let text = pod(Direction::Ingress, 7, Ipv4Addr::new(10, 64, 0, 2), &cells);
        assert!(text.contains("elements = { 10.0.0.1 . 6 . 80, 10.0.0.2-10.0.0.3 . 0-255 . 0-65535 }"), "{text}");
        assert!(text.contains("ip saddr . meta l4proto . th dport @set7 accept"), "{text}");
        assert!(pod(Direction::Egress, 7, Ipv4Addr::LOCALHOST, &cells).contains("ip daddr . meta"));
        let nothing = pod(Direction::Egress, 8, Ipv4Addr::LOCALHOST, &[]);
        assert!(!nothing.contains("set8") && nothing.contains("goto denied"), "{nothing}");
    }
}
