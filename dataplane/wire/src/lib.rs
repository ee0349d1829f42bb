//! What the processes of a node say to each other, and how: length-prefixed JSON over Unix stream sockets, with one
//! file descriptor riding on a message where the message says so.
//!
//! ```text
//!  sluice-control ──ToDataplane::Control, Publish(+memfd)──▶ RUN/dataplane.sock   sluice-dataplane
//!                 ◀──FromDataplane::Endpoints, Adopted, Refused, Unidentified──
//!                 ──Identify──▶                             (same socket, a connection of its own)
//!  sluice-cni     ──AddPort, DelPort, CheckPort──▶           (same socket)
//!  sluicectl      ──Status, Connections, Table──▶            (same socket)
//!  sluicectl      ──ToControl──▶ RUN/control/control.sock     sluice-control
//! ```
//!
//! The messages are small and rare; the table itself never crosses a socket, only its memfd does.
#![forbid(unsafe_code)]

mod connection;
mod control;
mod dataplane;
mod found;

pub use connection::{Connection, Listener, PeerCredentials, WireError};
pub use control::{
    ControlStatus, Explanation, FromControl, HalfExplanation, ManifestProblem, NearestMiss, PolicyInfo, Realization, RealizationState,
    ToControl, WatchStatus,
};
pub use dataplane::{
    AddPort, ConnectionInfo, CutInfo, DataplaneStatus, DropCount, FromDataplane, PortInfo, PortState, Preceded, RuleCounts, Straight,
    TakenOver, ToDataplane, UplinkStatus, WorkerStatus,
};
pub use found::{FoundDevice, FoundState, Identified, Identity};

/// The version of these messages; both ends say it first and refuse another.
pub const WIRE_VERSION: u32 = 1;
/// Where the sockets, the last good image and the state of the ports live, unless told otherwise.
pub const RUN_DIR: &str = "/run/sluice";
/// The dataplane's socket inside the run directory.
pub const DATAPLANE_SOCKET: &str = "dataplane.sock";
/// The control process's own directory inside the run directory: all that a control process that is not root may write to.
pub const CONTROL_DIR: &str = "control";
/// The control process's socket inside the run directory.
pub const CONTROL_SOCKET: &str = "control/control.sock";
