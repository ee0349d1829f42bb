//! The dataplane's socket: control publishes, the CNI plugin registers ports, the CLI asks.

use crate::found::{FoundDevice, Identity};
use serde::{Deserialize, Serialize};
use sluice_flow::{Direction, Incarnation, LocalEndpoint, ObjectName, PortIndex};
use std::net::IpAddr;

/// Requests to `RUN/dataplane.sock`. Each gets exactly one answer, except [`ToDataplane::Control`], after which the
/// dataplane also speaks on its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ToDataplane {
    /// "I am the control process." Answered by [`FromDataplane::Endpoints`]; from then on `Endpoints`, `Adopted`,
    /// `Refused` and `Unidentified` arrive unasked. A newer control connection replaces an older one. Root and the control
    /// user only.
    Control {
        /// [`crate::WIRE_VERSION`].
        wire_version: u32,
    },
    /// A new table; its fully sealed memfd rides on this message. Answered later by `Adopted` or `Refused`. Root and the
    /// control user only.
    Publish {
        /// The generation in the image's header.
        generation: u64,
        /// The image's length.
        image_bytes: u64,
    },
    /// Register a pod's attachment and wait until it is under policy. Root only.
    AddPort(AddPort),
    /// Forget a pod's attachment. Succeeds when there is none. Root only.
    DelPort {
        /// The runtime's sandbox.
        container_id: String,
        /// The interface inside it.
        ifname: String,
        /// The host's end, where the sandbox still has one: finds a pod that was adopted, whose sandbox nobody named.
        #[serde(default)]
        host_ifindex: Option<u32>,
    },
    /// Fails unless this attachment is registered, as it was made, and under policy.
    CheckPort {
        /// The runtime's sandbox.
        container_id: String,
        /// The interface inside it.
        ifname: String,
        /// As in [`ToDataplane::DelPort`].
        #[serde(default)]
        host_ifindex: Option<u32>,
        /// What the pod's addresses should be; empty where the caller was not told.
        #[serde(default)]
        addresses: Vec<IpAddr>,
    },
    /// The pods' devices that no port owns.
    Found,
    /// Who is behind found devices. Taken where the dataplane adopts existing pods, and else no more than noted. As
    /// [`ToDataplane::Control`]: only who may publish.
    Identify {
        /// As many as one knows.
        identities: Vec<Identity>,
    },
    /// Take the hooks off every port, or put them back: for measuring what they cost and for emergencies. Off, nothing is
    /// enforced, and the status says so. A restart puts them back. Root only.
    Enforce {
        /// Hooks on.
        on: bool,
    },
    /// Let what the verdict cache knows pass or drop in the kernel, or send every packet of isolated pods to its worker. A restart
    /// does as its argument says. Root only.
    Offload {
        /// The cache decides.
        on: bool,
    },
    /// State, workers and drops.
    Status,
    /// All ports, by index.
    Ports,
    /// Live connections, at most `max`.
    Connections {
        /// Only of this pod.
        pod: Option<ObjectName>,
        /// At most so many.
        max: u32,
    },
    /// What each rule let through.
    Rules,
    /// Connections that tables cut, the newest ones.
    Cuts,
    /// The image in force; answered by [`FromDataplane::Table`] with its memfd.
    Table,
}

/// A pod's attachment, from the CNI plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddPort {
    /// The runtime's sandbox.
    pub container_id: String,
    /// The interface inside it.
    pub ifname: String,
    /// The pod.
    pub pod: ObjectName,
    /// Its UID where the runtime told it, else empty.
    pub uid: String,
    /// The host's end of the veth pair, in the dataplane's network namespace.
    pub host_ifindex: u32,
    /// The name of the host's end, for people.
    pub host_ifname: String,
    /// The MAC address of the pod's end.
    pub mac: [u8; 6],
    /// The pod's addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The network configuration's name: GC of one network leaves the ports of others alone.
    #[serde(default)]
    pub network: String,
    /// Give up, undo and fail after so long.
    pub deadline_ms: u64,
}

/// Answers and announcements of the dataplane.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum FromDataplane {
    /// The pods attached to this node, whole, sorted by port; sent after every change.
    Endpoints {
        /// All of them.
        endpoints: Vec<LocalEndpoint>,
        /// The generation in force, 0 for none; a new control process continues above it.
        generation: u64,
    },
    /// The found devices that wait for an [`Identity`], whole; sent to control after every change.
    Unidentified {
        /// All of them.
        devices: Vec<FoundDevice>,
    },
    /// Every live worker judges by this generation.
    Adopted {
        /// Which.
        generation: u64,
        /// From the receipt of the image to the last worker's acknowledgement.
        adopt_us: u64,
        /// Connections whose verdict changed from allow to deny.
        connections_cut: u64,
    },
    /// The image was refused; the previous one stays.
    Refused {
        /// Which.
        generation: u64,
        /// Why, for people.
        reason: String,
    },
    /// The port is under policy.
    PortAdded {
        /// Its index.
        port: PortIndex,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The generation that first knew it.
        generation: u64,
        /// From the request to this answer.
        took_us: u64,
    },
    /// Done; nothing more to say.
    Done,
    /// The request failed and nothing was changed.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// To [`ToDataplane::Status`].
    Status(DataplaneStatus),
    /// To [`ToDataplane::Ports`].
    Ports {
        /// By index.
        ports: Vec<PortInfo>,
    },
    /// To [`ToDataplane::Found`].
    Found {
        /// By index.
        devices: Vec<FoundDevice>,
    },
    /// To [`ToDataplane::Connections`].
    Connections {
        /// At most as many as asked for.
        connections: Vec<ConnectionInfo>,
        /// How many there are.
        total: u64,
    },
    /// To [`ToDataplane::Rules`], by name.
    Rules {
        /// Those that let anything through.
        rules: Vec<RuleCounts>,
    },
    /// To [`ToDataplane::Cuts`], newest first.
    Cuts {
        /// As many as are kept.
        cuts: Vec<CutInfo>,
    },
    /// To [`ToDataplane::Table`]; the image's memfd rides on this message.
    Table {
        /// The generation in force.
        generation: u64,
        /// The image's length.
        image_bytes: u64,
    },
}

/// A port's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// Registered; no adopted table knows it, so nothing passes.
    Closed,
    /// Under policy; no policy isolates it.
    Open,
    /// Under policy and isolated in at least one direction.
    Isolated,
}

/// One port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortInfo {
    /// Index, incarnation, pod, UID and addresses.
    pub endpoint: LocalEndpoint,
    /// The runtime's sandbox.
    pub container_id: String,
    /// The pod's interface.
    pub ifname: String,
    /// The network configuration that attached it; empty where nobody said, as of adopted pods.
    #[serde(default)]
    pub network: String,
    /// The host's end.
    pub host_ifname: String,
    /// Its index.
    pub host_ifindex: u32,
    /// The pod's MAC.
    pub mac: String,
    /// The worker that owns it.
    pub worker: u32,
    /// Closed, open or isolated.
    pub state: PortState,
    /// Isolated for traffic entering it.
    pub isolated_ingress: bool,
    /// Isolated for traffic leaving it.
    pub isolated_egress: bool,
    /// Connections tracked for it.
    pub connections: u64,
    /// New flows beyond its share, dropped since it was attached.
    #[serde(default)]
    pub rationed: u64,
}

/// One drop reason's count since the maps were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// [`sluice_flow::DropReason::name`].
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// One worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Its index.
    pub worker: u32,
    /// The CPU it is pinned to.
    pub cpu: Option<u32>,
    /// The device at the host's end of its trunk.
    pub trunk: String,
    /// The generation it judges by.
    pub generation: u64,
    /// Ports it owns.
    pub ports: u64,
    /// Connections it tracks.
    pub connections: u64,
    /// Frames received.
    pub received: u64,
    /// Frames sent back with a verdict.
    pub forwarded: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Verdicts that changed at adoptions, allow to deny.
    pub connections_cut: u64,
    /// False once it has missed its heartbeat.
    pub alive: bool,
    /// How it waits for packets: `spin`, `adaptive` or `sleep`.
    #[serde(default)]
    pub wait: String,
    /// What it has had of a CPU since it started, in microseconds.
    #[serde(default)]
    pub cpu_us: u64,
}

/// What a rule let through since the workers started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// Its name.
    pub rule: String,
    /// Connections that live.
    pub live: u64,
    /// Connections that are over.
    pub over: u64,
    /// Of all of them, both directions, counted in the kernel.
    pub packets: u64,
    /// Of all of them, both directions, counted in the kernel.
    pub bytes: u64,
}

/// A connection that a table cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutInfo {
    /// The pod whose policy did.
    pub pod: ObjectName,
    /// The direction of its first packet, at that pod.
    pub direction: Direction,
    /// Protocol name.
    pub protocol: String,
    /// Opener's address and port.
    pub src: String,
    /// The other end.
    pub dst: String,
    /// The rule that had allowed it, none where the pod was not isolated.
    pub rule: Option<String>,
    /// The table that cut it.
    pub generation: u64,
    /// How long ago.
    pub age_ms: u64,
}

/// A NIC on which what was denied before is dropped, or should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Its name.
    pub device: String,
    /// Its driver runs XDP programs itself.
    pub native: bool,
    /// Its driver can fill AF_XDP sockets without a copy, which nothing here uses.
    pub zero_copy: bool,
    /// Ours runs in its driver.
    pub runs: bool,
    /// How many there are.
    pub rx_queues: u32,
    /// How many there are.
    pub tx_queues: u32,
    /// Why ours does not run.
    pub trouble: Option<String>,
}

/// Another program that stands in front of one of ours and sees packets before policy does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Preceded {
    /// On which device.
    pub device: String,
    /// The kernel's number of the program.
    pub program: u32,
}

/// From a dataplane of another ABI version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TakenOver {
    /// Which; more than one after a takeover that was interrupted.
    pub abi_versions: Vec<u32>,
    /// Entries of the verdict cache that stayed in force.
    pub entries: u64,
    /// Records that could not be taken: their flows were judged again.
    pub skipped: u64,
    /// Maps that could not be read, with the reason.
    pub unreadable: Vec<String>,
    /// How long it took.
    pub took_us: u64,
}

/// What may go straight from one pod's device to another's (`--direct`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Straight {
    /// Nothing.
    #[default]
    Nothing,
    /// Established UDP, as it was asked for.
    Udp,
    /// Established UDP; TCP goes by the kernel, since its connection tracking takes what it sees of a connection for all there is:
    /// `nf_conntrack_tcp_be_liberal`, `nf_conntrack_tcp_ignore_invalid_rst` or `nf_conntrack_tcp_loose` is 0.
    UdpSinceTcpIsTracked,
    /// Both.
    UdpAndTcp,
}

/// The dataplane as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneStatus {
    /// Crate version.
    pub version: String,
    /// Version of the maps' and the trunk header's layout.
    pub abi_version: u32,
    /// What this process took over from other such versions when it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<TakenOver>,
    /// Its process.
    pub pid: u32,
    /// Since this process began to serve.
    pub uptime_s: u64,
    /// The generation in force, 0 for none.
    pub generation: u64,
    /// Age of that generation here.
    pub generation_age_s: u64,
    /// Size of its image.
    pub image_bytes: u64,
    /// Whether a control process is connected.
    pub control_connected: bool,
    /// The last image that was refused, and why.
    pub last_refused: Option<String>,
    /// What cannot be written to the run directory, and why; it stays in force, and would be lost with this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_trouble: Option<String>,
    /// `enforce` or `keep`: what a swap does to connections it forbids.
    pub established: String,
    /// False while the hooks are taken off by [`ToDataplane::Enforce`]: nothing is enforced.
    pub enforcing: bool,
    /// Whether packets pass while no worker serves.
    pub fail_open: bool,
    /// Whether workers see every packet, also what the verdict cache knows (`--offload off`).
    #[serde(default)]
    pub every_packet: bool,
    /// Packets judged in the kernel by the verdict cache.
    pub cache_hits: u64,
    /// Packets sent to a worker.
    pub punts: u64,
    /// Connections that the hooks began by themselves, as a worker had allowed one that differs in the source port alone.
    #[serde(default)]
    pub admitted: u64,
    /// Those of the cache's packets that went straight from one pod's device to another's.
    #[serde(default)]
    pub direct: u64,
    /// Which packets may.
    #[serde(default)]
    pub straight: Straight,
    /// NICs that drop what was denied before (`--uplink`).
    #[serde(default)]
    pub uplinks: Vec<UplinkStatus>,
    /// Packets that they dropped; they are among the drops, too.
    #[serde(default)]
    pub uplink_drops: u64,
    /// Packets of pods that no policy isolates.
    pub not_isolated: u64,
    /// Entries in the verdict cache.
    pub cache_entries: u64,
    /// Ports.
    pub ports: u64,
    /// `close`, `unmanaged` or `adopt`: what becomes of pods that nobody told the dataplane of.
    #[serde(default)]
    pub existing_pods: String,
    /// Pods' devices that no port owns and that are closed.
    #[serde(default)]
    pub found_closed: u64,
    /// Pods' devices that no port owns and that no policy holds for.
    #[serde(default)]
    pub found_unmanaged: u64,
    /// Programs in front of ours.
    #[serde(default)]
    pub preceded: Vec<Preceded>,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
    /// Each reason that occurred.
    pub drops: Vec<DropCount>,
}

/// One tracked connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionInfo {
    /// The pod whose policy judged it.
    pub pod: ObjectName,
    /// The direction of its first packet, at that pod.
    pub direction: Direction,
    /// It left its pod for a service or its node, and this is what it is where it departs.
    #[serde(default)]
    pub departs: bool,
    /// To a service or to its node: judged where it departs.
    #[serde(default)]
    pub deferred: bool,
    /// Its source's address before the node translated it: that one is judged.
    #[serde(default)]
    pub origin: Option<IpAddr>,
    /// Protocol name.
    pub protocol: String,
    /// Opener's address and port.
    pub src: String,
    /// The other end.
    pub dst: String,
    /// `allow` or `deny` (cut after a swap).
    pub verdict: String,
    /// The rule that allows it under the table in force.
    pub rule: Option<String>,
    /// Both directions, counted in the kernel.
    pub packets: u64,
    /// Both directions, counted in the kernel.
    pub bytes: u64,
    /// Since its last packet.
    pub idle_ms: u64,
}
