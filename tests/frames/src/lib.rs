//! Frames, good and bad, for everything that parses frames: the fuzzer, the comparison of the BPF parser with the Rust
//! one, and tests of single shapes.
//!
//! ```text
//!   bytes (the fuzzer's, or random_bytes(seed)) ──Choices──▶ frame()  ─▶ a frame: mostly plain, with a defect or two
//!                                                 named()  ─▶ one frame for each shape worth a name, with what it is
//! ```
//!
//! [`frame`] is a total function: the same bytes give the same frame, every input gives one, and bytes that have run out
//! choose the plainest alternative everywhere. So the fuzzer's mutations are small changes of the frame, and a seed
//! replays.
//!
//! Checksums are zero: no parser that is tested here looks at them.
#![forbid(unsafe_code)]

mod choices;
mod generate;
pub mod layers;
mod named;

pub use choices::{Choices, random_bytes};
pub use generate::frame;
pub use named::{Named, named};

/// Named frames whole and cut to every length up to 64, then `generated` others; each with how to find it again.
pub fn labelled(generated: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    let cuts = named().into_iter().flat_map(|case| {
        let whole = case.frame.len();
        let lengths = (0..=64).filter(move |&len| len < whole).chain([whole]);
        lengths.map(move |len| (format!("{:?} cut to {len}", case.name), case.frame[..len].to_vec()))
    });
    cuts.chain((0..generated).map(|seed| (format!("frame(&random_bytes({seed}, 192))"), frame(&random_bytes(seed, 192)))))
}

/// The pod whose hooks see the frames.
pub const POD: Host = Host { mac: [0x0a, 0x58, 0x0a, 0xf4, 1, 2], v4: [10, 244, 1, 2], v6: v6(1, 2) };
/// The node's end of the pod's link.
pub const GATEWAY: Host = Host { mac: [0x0a, 0x58, 0x0a, 0xf4, 1, 1], v4: [10, 244, 1, 1], v6: v6(1, 1) };
/// Whom the pod talks to.
pub const PEER: Host = Host { mac: [0x0a, 0x58, 0x0a, 0xf4, 2, 3], v4: [10, 244, 2, 3], v6: v6(2, 3) };

/// Addresses of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Ethernet.
    pub mac: [u8; 6],
    /// IPv4.
    pub v4: [u8; 4],
    /// IPv6.
    pub v6: [u8; 16],
}

const fn v6(net: u8, host: u8) -> [u8; 16] {
    [0xfd, 0, 2, 0x44, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}
