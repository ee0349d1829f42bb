//! This process's own socket, in a directory of its own.
//!
//! A control process that is not root cannot write to the run directory; the dataplane, told of its user, makes the
//! directory for it. Both start at the same time, so this one waits a while instead of failing until it is restarted.

use crate::ControlError;
use sluice_wire::{CONTROL_SOCKET, Listener, WireError};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A dataplane loads its programs within this, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Binds the socket. It is also the lock that keeps a second process from talking to the dataplane.
pub(crate) async fn bind(run_dir: &Path) -> Result<Listener, ControlError> {
    let socket = run_dir.join(CONTROL_SOCKET);
    let started = Instant::now();
    let mut said = false;
    loop {
        let denied = match attempt(run_dir, &socket) {
            Ok(listener) => return Ok(listener),
            Err(WireError::Io(error)) if error.kind() == io::ErrorKind::AddrInUse => return Err(ControlError::AlreadyRunning(socket)),
            Err(WireError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => error,
            Err(error) => return Err(ControlError::Socket(error)),
        };
        if started.elapsed() >= PATIENCE {
            return Err(ControlError::NotPermitted { socket, reason: denied });
        }
        if !said {
            tracing::warn!(socket = %socket.display(), "waiting for a dataplane with --control-user to make this user's directory");
            said = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn attempt(run_dir: &Path, socket: &Path) -> Result<Listener, WireError> {
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()));
    std::fs::create_dir_all(run_dir).map_err(|error| named(run_dir, error))?;
    let dir = socket.parent().expect("the socket is below the run directory");
    match DirBuilder::new().mode(0o750).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(dir, error).into()),
        _ => Listener::bind(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn the_directories_are_made_and_a_second_process_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let listener = bind(&run_dir).await.unwrap();
        let mode = std::fs::metadata(run_dir.join("control")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert!(matches!(bind(&run_dir).await, Err(ControlError::AlreadyRunning(path)) if path.ends_with("control/control.sock")));
        drop(listener);
        assert!(bind(&run_dir).await.is_ok(), "the directory that is there is used again");
    }

    #[tokio::test]
    async fn what_is_no_matter_of_permission_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = bind(&file).await.unwrap_err().to_string();
        assert!(error.contains("cannot make"), "{error}");
    }
}
