//! What a packet is to Sluice: its key, what may be said about it, and every limit of the system.
//!
//! ```text
//!   frame (bytes) ──parse──▶ Packet { FlowKey, kind, flags }  ──judge──▶ Verdict ──▶ Fate (forward | drop: DropReason)
//! ```
//!
//! This crate is the vocabulary that all others share. It has no I/O, no clock and no unsafe code, so the same parser
//! runs in the workers, in the simulation and under the fuzzer.
#![forbid(unsafe_code)]

mod addr;
mod drop;
mod endpoint;
mod key;
pub mod limits;
mod parse;
mod verdict;

pub use addr::{Addr, Family};
pub use drop::DropReason;
pub use endpoint::{LocalEndpoint, ObjectName};
pub use key::{FlowKey, IcmpClass, Incarnation, PortIndex, Protocol};
pub use parse::{Fragment, IcmpError, Kind, Packet, ParseError, TcpFlags, parse_frame};
pub use verdict::{Direction, RuleId, Verdict};
