//! The kernel's own counts of a network namespace, as its files say them: two lines for each protocol, names and values.

use anyhow::{Context, Result};

/// The sum of some counters of the calling thread's namespace.
fn sum(file: &str, protocol: &str, wanted: &[&str]) -> Result<u64> {
    let path = format!("/proc/thread-self/net/{file}");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    sum_of(&text, protocol, wanted).with_context(|| format!("no {protocol} counters {wanted:?} in {path}"))
}

fn sum_of(text: &str, protocol: &str, wanted: &[&str]) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let counts: Vec<u64> =
        names.zip(values).filter(|(name, _)| wanted.contains(name)).map(|(_, value)| value.parse().ok()).collect::<Option<_>>()?;
    (counts.len() == wanted.len()).then(|| counts.iter().sum())
}

/// Datagrams that reached a socket, read or not.
pub(super) fn datagrams() -> Result<u64> {
    sum("snmp", "Udp", &["InDatagrams", "RcvbufErrors", "MemErrors"])
}

/// IP packets that came in, whatever becomes of them.
pub(super) fn packets() -> Result<u64> {
    sum("snmp", "Ip", &["InReceives"])
}

/// Bytes of IP packets that came in; those that the kernel put together have one header.
pub(super) fn bytes() -> Result<u64> {
    sum("netstat", "IpExt", &["InOctets"])
}

/// Segments that TCP sent again.
pub(super) fn retransmits() -> Result<u64> {
    sum("snmp", "Tcp", &["RetransSegs"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Tcp: A B\nTcp: 7 8\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors MemErrors\n\
                    Udp: 3 9 40 9 40 9 2\nUdpLite: InDatagrams\nUdpLite: 5\n";
        assert_eq!(sum_of(snmp, "Udp", &["InDatagrams", "RcvbufErrors", "MemErrors"]), Some(45));
        assert_eq!(sum_of(snmp, "Tcp", &["B"]), Some(8));
        assert_eq!(sum_of(snmp, "Tcp", &["C"]), None);
        assert_eq!(sum_of("Tcp: A\nTcp: 7\n", "Udp", &["InDatagrams"]), None);
    }

    #[test]
    fn this_kernel_has_all_of_them() {
        for read in [datagrams, packets, bytes, retransmits] {
            read().unwrap();
        }
    }
}
