//! What the run directory grants the control user: its own directory, and the way through the dataplane's socket.
//!
//! ```text
//!   RUN/                  root's; the control user cannot write here, so state, image and lock stay out of its reach
//!   RUN/dataplane.sock    root:GID 0660
//!   RUN/control/          UID:GID 0750, the control socket's place; root opens nothing in it but that socket
//! ```

use crate::permission::ControlUser;
use anyhow::{Context, Result, bail};
use sluice_wire::{CONTROL_DIR, CONTROL_SOCKET, DATAPLANE_SOCKET};
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;
use tracing::warn;

const MODE: u32 = 0o750;

/// Makes the directory, or gives the one that is there to its owner of now: root, unless a user is given.
pub(super) fn hand_over(run_dir: &Path, user: Option<ControlUser>) -> Result<()> {
    let ControlUser { uid, gid } = user.unwrap_or(ControlUser { uid: 0, gid: 0 });
    if user.is_some() {
        check_is_root_s(run_dir)?;
        let socket = run_dir.join(DATAPLANE_SOCKET);
        chown(&socket, None, Some(gid)).with_context(|| format!("give {} to group {gid} (needs CAP_CHOWN)", socket.display()))?;
    }
    let dir = run_dir.join(CONTROL_DIR);
    match std::fs::create_dir(&dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(|| format!("create {}", dir.display())),
        _ => give(&dir, uid, gid).with_context(|| format!("give {} to {uid}:{gid} (needs CAP_CHOWN)", dir.display())),
    }
}

/// Nobody but root can put something else in the directory's place meanwhile. Its mode is changed while it is root's, which
/// takes no capability beyond the one to give it away.
fn give(dir: &Path, uid: u32, gid: u32) -> Result<()> {
    let meta = std::fs::symlink_metadata(dir)?;
    if !meta.is_dir() {
        bail!("it is no directory: remove it");
    }
    if (meta.uid(), meta.gid(), meta.mode() & 0o7777) != (uid, gid, MODE) {
        if meta.uid() != 0 {
            lchown(dir, Some(0), Some(0))?;
        }
        std::fs::set_permissions(dir, Permissions::from_mode(MODE))?;
        lchown(dir, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Whoever may write to the run directory may put files of its own in the place of root's.
fn check_is_root_s(run_dir: &Path) -> Result<()> {
    let meta = std::fs::metadata(run_dir).with_context(|| format!("look at {}", run_dir.display()))?;
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        let shown = run_dir.display();
        bail!(
            "{shown} belongs to uid {} with mode {:o}, but only root may be able to write to it: chown root:root {shown} && chmod 755 {shown}",
            meta.uid(),
            meta.mode() & 0o7777
        );
    }
    Ok(())
}

/// Removes the directory with whatever its user left in it; symbolic links are not followed. A control process that still
/// serves keeps it.
pub(super) fn remove(run_dir: &Path) {
    let dir = run_dir.join(CONTROL_DIR);
    if std::os::unix::net::UnixStream::connect(run_dir.join(CONTROL_SOCKET)).is_ok() {
        warn!("sluice-control still serves: {} stays", dir.display());
    } else if let Err(error) = std::fs::remove_dir_all(&dir)
        && error.kind() != ErrorKind::NotFound
    {
        warn!(%error, "{} stays", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_directory_s_place_is_refused_and_its_target_untouched() {
        let run = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let before = std::fs::metadata(elsewhere.path()).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), run.path().join(CONTROL_DIR)).unwrap();
        let error = format!("{:#}", hand_over(run.path(), None).unwrap_err());
        assert!(error.contains("is no directory: remove it"), "{error}");
        let after = std::fs::metadata(elsewhere.path()).unwrap();
        assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
    }

    #[test]
    fn what_the_control_user_left_goes_but_nothing_that_it_points_to() {
        let run = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("precious"), "x").unwrap();
        let dir = run.path().join(CONTROL_DIR);
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.join("link")).unwrap();
        std::fs::write(dir.join("control.sock"), "no socket").unwrap();
        remove(run.path());
        assert!(!dir.exists() && elsewhere.path().join("precious").exists());
    }

    #[test]
    fn a_run_directory_that_others_can_write_to_is_refused() {
        let run = tempfile::tempdir().unwrap();
        std::fs::set_permissions(run.path(), Permissions::from_mode(0o777)).unwrap();
        let user = Some(ControlUser { uid: 65532, gid: 65532 });
        let error = format!("{:#}", hand_over(run.path(), user).unwrap_err());
        assert!(error.contains("chmod 755"), "{error}");
        assert!(!run.path().join(CONTROL_DIR).exists());
    }
}
