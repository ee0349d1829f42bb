//! What the engine leaves for those who ask: one immutable value after each event.

use crate::realized::Realized;
use crate::source::{Manifests, Watch};
use sluice_policy::Snapshot;
use sluice_table::Table;
use sluice_wire::ControlStatus;
use std::sync::Arc;
use tokio::sync::watch;

/// Where to read the last view.
pub(crate) type Views = watch::Receiver<Arc<View>>;

/// The state after one event.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// All but the uptime and the watches.
    pub(crate) status: ControlStatus,
    /// The last reading of the directory that this state has seen.
    pub(crate) read_sequence: u64,
    /// Objects as they stand, attached pods merged in.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The table in force as far as this process knows it.
    pub(crate) table: Option<Arc<Table>>,
    /// The policies of the table in force.
    pub(crate) realized: Realized,
    /// The source's own view, for where policies were read.
    pub(crate) manifests: Option<Arc<Manifests>>,
    /// Of an API server.
    pub(crate) watches: Vec<Watch>,
    /// Whether everything read was in force at some moment since this process began.
    pub(crate) was_settled: bool,
    /// True when the present state cannot be published, so that waiting makes no sense; the status says why.
    pub(crate) failed: bool,
}

impl View {
    /// Nothing read, nobody connected.
    pub(crate) fn empty(source: String) -> Self {
        let status = ControlStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: 0,
            source,
            dataplane_connected: false,
            published_generation: 0,
            adopted_generation: 0,
            settled: false,
            last_failure: None,
            namespaces: 0,
            pods: 0,
            policies: 0,
            endpoints: 0,
            compile_us: 0,
            proof_us: 0,
            comparisons: 0,
            comparisons_required: 0,
            proof_pending: false,
            rollbacks: 0,
            image_bytes: 0,
            last_change_to_adopted_us: None,
            watches: Vec::new(),
            problems: Vec::new(),
        };
        Self {
            status,
            read_sequence: 0,
            snapshot: Arc::default(),
            table: None,
            realized: Realized::default(),
            manifests: None,
            watches: Vec::new(),
            was_settled: false,
            failed: false,
        }
    }
}
