//! What every live test needs: a turn on the machine, a lab of its own, and the proof that nothing of it is left behind.
//!
//! ```text
//!   turn(name)        root? binaries there? then wait until no other live test runs
//!     └ Live::up      a lab named after the test and this process
//!         └ down      or dropped: removed, then netns, pins, mounts, processes and files are looked for
//! ```

pub mod cni;
mod container;
mod fixture;
pub mod frames;
mod knock;
mod leftovers;
mod manifests;
pub mod node;
mod packet_socket;
mod status;
mod turn;

pub use container::Contained;
pub use fixture::{Live, assert_nothing_left, lab_name};
pub use knock::knock;
pub use leftovers::leftovers;
pub use manifests::{POLICY_HEAD, pod, pod_on, policy};
pub use packet_socket::PacketSocket;
pub use status::{drops, until};
pub use turn::{Turn, program, turn};
