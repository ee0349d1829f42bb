//! Why a packet was not forwarded: one list for the BPF programs, the workers, the metrics and the CLI.

/// Declares the reasons once: number (an ABI with the BPF programs), name in metrics and CLI, meaning.
macro_rules! drop_reasons {
    ($($variant:ident = $number:literal, $name:literal, $meaning:literal;)*) => {
        /// Why a packet was dropped. The numbers are shared with `bpf/src/c/abi.h`; a test holds the two together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $meaning] $variant = $number,)* }

        impl DropReason {
            /// Every reason, by number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];

            /// The name in metrics, CLI and cases.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// A sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(DropReason::$variant => $meaning,)* }
            }

            /// From the number used on the wire and in maps.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(DropReason::$variant),)* _ => None }
            }
        }
    };
}

drop_reasons! {
    PolicyDenied = 1, "policy_denied", "An isolating policy selects the pod and no rule allows the connection.";
    NoPort = 2, "no_port", "The hook's device belongs to no port.";
    PortClosed = 3, "port_closed", "The port is not open yet: no adopted table knows its pod.";
    EndpointUnknown = 4, "endpoint_unknown", "The table in force does not know this incarnation of the port.";
    NoTable = 5, "no_table", "No table has been adopted.";
    NoWorker = 6, "no_worker", "No worker serves the trunk, so a new flow waits outside.";
    SpoofedMac = 7, "spoofed_mac", "A frame left the pod with a source MAC that is not the port's.";
    SpoofedAddress = 8, "spoofed_address", "A packet left the pod with a source address that is not the port's.";
    SpoofedArp = 9, "spoofed_arp", "An ARP message claims a MAC or address that is not the port's.";
    SpoofedNeighbour = 10, "spoofed_neighbour", "A neighbour discovery message claims what is not the port's.";
    RogueRouter = 11, "rogue_router", "A pod sent a router advertisement or a redirect.";
    WrongDestination = 12, "wrong_destination", "A packet entering the pod is not addressed to it.";
    Malformed = 13, "malformed", "A header is truncated, contradictory or has a wrong length.";
    ExtensionChain = 14, "extension_chain", "Too many, misplaced or unknown IPv6 extension headers.";
    Vlan = 18, "vlan_unsupported", "The frame carries a VLAN tag.";
    EtherType = 19, "ethertype_unsupported", "Neither IPv4 nor IPv6 nor ARP.";
    Multicast = 20, "multicast_unsupported", "Broadcast or multicast beyond neighbour discovery and listener reports.";
    IcmpErrorUntracked = 21, "icmp_error_untracked", "An ICMP error that quotes no tracked connection.";
    MidFlowUnknown = 22, "mid_flow_unknown", "A TCP packet in mid-flow of a connection whose opener is unknown and which is not allowed both ways.";
    ConnectionsFull = 23, "connections_full", "The port holds as many connections as it may.";
    CacheWriteFailed = 24, "cache_write_failed", "The kernel refused the verdict cache entries.";
    TransmitFull = 25, "transmit_full", "The worker's transmit ring was full.";
    TrunkHeader = 26, "trunk_header", "A frame on the trunk carried no valid header of this ABI version.";
    WrongWorker = 27, "wrong_worker", "A frame reached the trunk of a worker that does not own its port.";
    StalePort = 28, "stale_port", "The port's incarnation changed while the packet was on the trunk.";
    Internal = 29, "internal", "A helper of the kernel failed.";
    ReplyToNothing = 30, "reply_to_nothing", "An echo reply without a request.";
    WorkerOverrun = 31, "worker_overrun", "The worker's receive ring was full: it is behind with new flows.";
    ExitUnjudged = 32, "exit_unjudged", "A packet to a service or to its node was about to leave where nobody judges it: by a device without an exit hook, or with nothing to tell whose it is.";
    FragmentUnmatched = 33, "fragment_unmatched", "A later fragment whose first one has not been seen, or was dropped.";
    Rationed = 34, "rationed", "The pod opens more new flows, or is sent more, than its share of the workers: see --new-flows-per-second.";
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(DropReason::ALL.is_sorted_by_key(|reason| *reason as u8), "by number");
        for reason in DropReason::ALL {
            // said once that fragments, SCTP and services are not served; older dataplanes counted by them
            assert!(![15, 16, 17].contains(&(*reason as u8)), "a number is not used twice");
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
        }
    }
}
