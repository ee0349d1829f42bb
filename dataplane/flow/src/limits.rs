//! Every limit of the system, in one place. Each is enforced by refusing whole, never by truncating.

/// Ports (pods' attachments) of one node. Index 0 is a port like others.
pub const PORTS_MAX: usize = 256;
/// Workers of one dataplane.
pub const WORKERS_MAX: usize = 16;
/// Addresses of one port: one for each family.
pub const PORT_ADDRESSES_MAX: usize = 2;
/// Connections one port may hold. The verdict cache has room for all ports at this limit, so that no pod's
/// connections ever take another's room.
pub const CONNECTIONS_PER_PORT_MAX: usize = 8192;
/// Entries of the verdict cache: two for each connection of each port.
pub const CACHE_ENTRIES_MAX: usize = PORTS_MAX * CONNECTIONS_PER_PORT_MAX * 2;
/// Entries of the denial cache (least recently used go first).
pub const DENIALS_MAX: usize = 16_384;
/// Remembered openers of connections of pods that no policy isolates (least recently used go first).
pub const ORIGINS_MAX: usize = 65_536;
/// Frames taken from a socket, judged and sent as one batch.
pub const BATCH_MAX: usize = 64;
/// IPv6 extension headers followed before a packet is dropped.
pub const EXTENSION_HEADERS_MAX: usize = 8;
/// Largest image accepted.
pub const IMAGE_BYTES_MAX: usize = 1 << 30;
/// Largest message on a control socket.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The largest MTU of a pod's interface: what the trunks carry. ADD refuses larger ones by name.
pub const POD_MTU_MAX: u32 = 9216;
