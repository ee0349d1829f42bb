//! The worker process: takes what the hooks punt, judges it by the table in force, keeps connections.
//!
//! ```text
//!   sockets ─▶ keeper (one thread) ──commands──▶ worker 0..W (pinned)  ──verdict cache──▶ hooks in the kernel
//!                adoption, ports, expiry           io ▶ parse ▶ connection ▶ table ▶ commit ▶ forward or drop
//! ```
//!
//! Everything nondeterministic enters through two small traits, [`io::PacketIo`] (frames) and [`kernel::Kernel`] (ports
//! and verdict cache), and time as an argument; so the whole pipeline runs in one test process, without root. The
//! feature `kernel` adds the real ones: AF_XDP sockets and BPF maps.
#![cfg_attr(not(feature = "kernel"), forbid(unsafe_code))]

pub mod conntrack;
pub mod io;
pub mod kernel;
pub mod permission;
pub mod privileges;
pub mod worker;

#[cfg(feature = "kernel")]
pub mod config;
#[cfg(feature = "kernel")]
pub mod keeper;
#[cfg(feature = "kernel")]
pub mod netlink;
#[cfg(feature = "kernel")]
pub mod process;
#[cfg(feature = "kernel")]
pub mod trunk;
#[cfg(feature = "kernel")]
pub mod veth;
