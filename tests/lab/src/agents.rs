//! The two agents of a node: starting, waiting until they serve, asking, and ending them.
//!
//! A [`Layout`] says which node's. Both run in the node's network namespace with the machine's own mounts, so that the dataplane sees the bpffs under
//! `/sys/fs/bpf`. They outlive the command that starts them; what they say goes to `STATE/logs`.

use crate::layout::Layout;
use crate::netns::NetNs;
use crate::objects::Mark;
use crate::process::{ProcessId, log_tail, spawn_detached};
use crate::state::{NodeState, State};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_wire::{
    CONTROL_SOCKET, Connection, ConnectionInfo, ControlStatus, DATAPLANE_SOCKET, DataplaneStatus, Explanation, FromControl, FromDataplane,
    PortInfo, ToControl, ToDataplane, WireError,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Loading and verifying the BPF programs on a busy machine takes the longest.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a change may take to be in force before the lab calls it a failure.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// One of the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// sluice-dataplane.
    Dataplane,
    /// sluice-control.
    Control,
}

impl Agent {
    /// In the order in which they start.
    pub const ALL: [Self; 2] = [Self::Dataplane, Self::Control];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Control => "control",
        }
    }

    /// The file name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Dataplane => "sluice-dataplane",
            Self::Control => "sluice-control",
        }
    }

    /// Its log.
    pub fn log(self, layout: &Layout) -> PathBuf {
        layout.agent_log(self.name())
    }

    /// Its recorded process.
    pub fn process(self, node: &NodeState) -> Option<ProcessId> {
        match self {
            Self::Dataplane => node.dataplane,
            Self::Control => node.control,
        }
    }

    /// Where its process is recorded.
    pub fn process_mut(self, node: &mut NodeState) -> &mut Option<ProcessId> {
        match self {
            Self::Dataplane => &mut node.dataplane,
            Self::Control => &mut node.control,
        }
    }

    fn command(self, layout: &Layout, state: &State, node: &NodeState) -> Command {
        let usual = state.bin_dir.join(self.program());
        match self {
            Self::Dataplane => {
                let mut command = Command::new(node.dataplane_program.as_ref().unwrap_or(&usual));
                command.arg("--run-dir").arg(layout.run_dir()).arg("--bpf-dir").arg(layout.bpf_dir());
                command.args(["--workers", &state.workers.to_string(), "--cpus", &state.cpus]).args(&state.dataplane_args);
                command
            }
            Self::Control => {
                let mut command = Command::new(usual);
                match &state.api {
                    None => command.arg("--manifests").arg(layout.manifests()),
                    Some(_) => command.arg("--kubernetes").arg("--kubeconfig").arg(layout.kubeconfig()),
                };
                command.arg("--run-dir").arg(layout.run_dir()).args(&state.control_args);
                command
            }
        }
    }

    /// Starts it; it does not serve yet.
    pub fn start(self, layout: &Layout, state: &State, node: &NodeState) -> Result<ProcessId> {
        let mut command = self.command(layout, state, node);
        let child = NetNs::named(layout.node_netns()).run(|| spawn_detached(&mut command, &self.log(layout), None))?;
        ProcessId::of(child.id() as i32).with_context(|| format!("{} ended at once:\n{}", self.program(), log_tail(&self.log(layout), 20)))
    }

    /// Waits until it answers on its socket.
    ///
    /// # Errors
    ///
    /// It has ended, or it does not answer in time; the end of its log is part of the message.
    pub fn wait_ready(self, layout: &Layout, process: ProcessId, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let answered = match self {
                Self::Dataplane => dataplane_status(layout).map(|_| ()),
                Self::Control => control_status(layout).map(|_| ()),
            };
            let Err(error) = answered else { return Ok(()) };
            let tail = || log_tail(&self.log(layout), 20);
            if !process.is_alive() {
                bail!("{} ended while starting; its last words:\n{}", self.program(), tail());
            }
            if start.elapsed() > READY_TIMEOUT {
                bail!("{} does not serve after {READY_TIMEOUT:?}: {error:#}\n{}", self.program(), tail());
            }
            if interrupted() {
                bail!("interrupted");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end (SIGTERM), and makes it end.
    pub fn stop(process: ProcessId) -> bool {
        process.terminate(STOP_GRACE)
    }
}

fn call<Q: Serialize, A: DeserializeOwned>(socket: &Path, request: &Q, timeout: Duration) -> Result<A> {
    let exchange = || -> Result<A, WireError> {
        let mut connection = Connection::connect(socket)?;
        connection.set_send_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_receive_timeout(Some(timeout))?;
        Ok(connection.call(request)?.0)
    };
    // The messages of WireError hold their causes already; as a chain they would be said twice.
    exchange().map_err(|error| match error {
        WireError::Connect { .. } => anyhow!("{error}"),
        error => anyhow!("asking {}: {error}", socket.display()),
    })
}

/// Asks the dataplane.
pub fn ask_dataplane(layout: &Layout, request: &ToDataplane) -> Result<FromDataplane> {
    match call(&layout.run_dir().join(DATAPLANE_SOCKET), request, ANSWER_TIMEOUT)? {
        FromDataplane::Failed { reason } => bail!("the dataplane: {reason}"),
        answer => Ok(answer),
    }
}

/// Asks the control process.
pub fn ask_control(layout: &Layout, request: &ToControl) -> Result<FromControl> {
    let timeout = match request {
        ToControl::Settle { timeout_ms } => Duration::from_millis(*timeout_ms) + ANSWER_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    };
    match call(&layout.run_dir().join(CONTROL_SOCKET), request, timeout)? {
        FromControl::Failed { reason } => bail!("the control process: {reason}"),
        answer => Ok(answer),
    }
}

/// State, workers and drops.
pub fn dataplane_status(layout: &Layout) -> Result<DataplaneStatus> {
    match ask_dataplane(layout, &ToDataplane::Status)? {
        FromDataplane::Status(status) => Ok(status),
        other => bail!("the dataplane answered a status request with {other:?}"),
    }
}

/// All ports.
pub fn ports(layout: &Layout) -> Result<Vec<PortInfo>> {
    match ask_dataplane(layout, &ToDataplane::Ports)? {
        FromDataplane::Ports { ports } => Ok(ports),
        other => bail!("the dataplane answered a request for ports with {other:?}"),
    }
}

/// Tracked connections of all pods, no more than so many.
pub fn connections(layout: &Layout, max: u32) -> Result<Vec<ConnectionInfo>> {
    match ask_dataplane(layout, &ToDataplane::Connections { pod: None, max })? {
        FromDataplane::Connections { connections, .. } => Ok(connections),
        other => bail!("the dataplane answered a request for connections with {other:?}"),
    }
}

/// State, problems, generations.
pub fn control_status(layout: &Layout) -> Result<ControlStatus> {
    match ask_control(layout, &ToControl::Status)? {
        FromControl::Status(status) => Ok(status),
        other => bail!("the control process answered a status request with {other:?}"),
    }
}

/// Waits until everything written so far is in force: in the directory, or, up to the mark, on the API server.
///
/// # Errors
///
/// A manifest that could not be used, or a table that was not adopted in time.
pub fn settle_up_to(layout: &Layout, mark: &Mark) -> Result<ControlStatus> {
    let start = Instant::now();
    loop {
        let timeout_ms = SETTLE_TIMEOUT.saturating_sub(start.elapsed()).as_millis() as u64;
        let status = match ask_control(layout, &ToControl::Settle { timeout_ms })? {
            FromControl::Status(status) => status,
            other => bail!("the control process answered Settle with {other:?}"),
        };
        if let Some(failure) = &status.last_failure {
            bail!("the change is not in force: {failure}");
        }
        let Some(missing) = mark.missing(&status) else {
            if status.settled {
                return Ok(status);
            }
            let ControlStatus { published_generation, adopted_generation, .. } = status;
            bail!(
                "the change is not in force after {SETTLE_TIMEOUT:?}: published generation {published_generation}, adopted {adopted_generation}"
            );
        };
        if start.elapsed() > SETTLE_TIMEOUT {
            bail!("the change is not in force after {SETTLE_TIMEOUT:?}: the control process has heard of {missing}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As [`settle_up_to`], of the directory.
pub fn settle(layout: &Layout) -> Result<ControlStatus> {
    settle_up_to(layout, &Mark::default())
}

/// Why a connection passes or not.
pub fn explain(layout: &Layout, src: &str, dst: &str, port: u16, protocol: &str) -> Result<Explanation> {
    let request = ToControl::Explain { src: src.into(), dst: dst.into(), port, protocol: protocol.into() };
    match ask_control(layout, &request)? {
        FromControl::Explanation(explanation) => Ok(explanation),
        other => bail!("the control process answered Explain with {other:?}"),
    }
}
