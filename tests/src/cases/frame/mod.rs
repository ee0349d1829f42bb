//! Frames by their names: a list of layers from the outside in, as a person would say it.
//!
//! ```text
//!   ipv4(x/client) tcp(4000, 80, S)                     an ordinary SYN; lengths and checksums are right
//!   ipv6(x/client) destination fragment(more) udp(1, 2) data(8)
//!   ipv4(x/client, total=999) udp(1, 2)                 a lie about a length
//!   vlan(5) ipv4(x/client) udp(1, 2) cut(30)            cut off after 30 bytes
//! ```
//!
//! The first argument of `ipv4` and `ipv6` is the other end; the pod at whose hook the frame stands is this end. Whatever
//! an argument does not say is as it should be. The layers are listed in tests/cases/README.md.

mod encode;
mod layer;
mod transport;

pub(super) use encode::{Surroundings, encode};
pub(super) use layer::{Layer, read};
