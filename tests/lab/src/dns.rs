//! The lab's DNS: a server that answers from a hosts file, and a client that asks it as a pod would.

mod client;
mod server;

pub use client::resolve;
pub use server::serve;
