//! Questions to the two processes, with errors that say what to do.

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_wire::{CONTROL_SOCKET, Connection, DATAPLANE_SOCKET, FromControl, FromDataplane, ToControl, ToDataplane, WireError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nothing that is asked takes longer, waiting apart.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Where the sockets are.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    dataplane: PathBuf,
    control: PathBuf,
}

impl Client {
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self { dataplane: run_dir.join(DATAPLANE_SOCKET), control: run_dir.join(CONTROL_SOCKET) }
    }

    /// Asks the dataplane; a refusal is an error.
    pub(crate) fn dataplane(&self, question: &ToDataplane) -> Result<(FromDataplane, Option<OwnedFd>)> {
        match ask(&self.dataplane, question, ANSWER_MAX).context("the dataplane cannot be asked")? {
            (FromDataplane::Failed { reason }, _) => bail!("the dataplane says: {reason}"),
            answer => Ok(answer),
        }
    }

    /// Asks the control process; a refusal is an error.
    pub(crate) fn control(&self, question: &ToControl) -> Result<FromControl> {
        let patience = match question {
            ToControl::Settle { timeout_ms } | ToControl::Realization { timeout_ms, .. } => ANSWER_MAX + Duration::from_millis(*timeout_ms),
            _ => ANSWER_MAX,
        };
        match ask(&self.control, question, patience).context("the control process cannot be asked")?.0 {
            FromControl::Failed { reason } => Err(anyhow!(reason)),
            answer => Ok(answer),
        }
    }
}

/// The other side answered something else: another version of it, most likely.
pub(crate) fn unexpected<T>() -> Result<T> {
    bail!("the answer belongs to another question; do sluicectl and the daemons have the same version?")
}

fn ask<Q: Serialize, A: DeserializeOwned>(socket: &Path, question: &Q, patience: Duration) -> Result<(A, Option<OwnedFd>)> {
    let mut connection = Connection::connect(socket).map_err(explain_connect)?;
    connection.set_receive_timeout(Some(patience))?;
    connection.set_send_timeout(Some(ANSWER_MAX))?;
    connection.call(question).map_err(|error| match error {
        WireError::Io(e) if e.kind() == io::ErrorKind::WouldBlock => anyhow!("no answer within {} s", patience.as_secs()),
        other => other.into(),
    })
}

fn explain_connect(error: WireError) -> anyhow::Error {
    let hint = match &error {
        WireError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => "; is it running, and is --run-dir right?",
            io::ErrorKind::ConnectionRefused => "; it is not running any more",
            io::ErrorKind::PermissionDenied => "; try as root",
            _ => "",
        },
        _ => "",
    };
    anyhow!("{error}{hint}")
}
