//! What an installation does to files, as steps: each is atomic and lasts through a power cut, and after any number of them
//! the runtime finds a whole configuration. So what was interrupted can be done again from the start.

use super::error::InstallError;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a temporary file's name ends with; no runtime reads such a file.
const TEMPORARY: &str = ".sluice-new";

/// No file takes so long to write.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// One change of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The file has these bytes, or is as it was.
    Write { path: PathBuf, bytes: Vec<u8>, owner: Owner },
    /// The file is gone; that it was not there is no error.
    Remove { path: PathBuf },
}

/// Whose a file is, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Owner {
    /// As the file has it that is to be replaced.
    pub(super) fn of(path: &Path) -> Result<Self, InstallError> {
        let meta = std::fs::metadata(path).map_err(|source| InstallError::Read { path: path.into(), source })?;
        Ok(Self { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o777 })
    }

    /// A program of this process's user, for everybody to run.
    pub(super) fn program() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), mode: 0o755 }
    }
}

impl Step {
    /// Does it.
    ///
    /// # Errors
    /// A directory that is read-only, a full disk: the file is as it was.
    pub(super) fn perform(&self) -> Result<(), InstallError> {
        match self {
            Self::Write { path, bytes, owner } => {
                write(path, bytes, *owner).map_err(|source| InstallError::Write { path: path.clone(), source })
            }
            Self::Remove { path } => remove(path).map_err(|source| InstallError::Remove { path: path.clone(), source }),
        }
    }
}

fn write(path: &Path, bytes: &[u8], owner: Owner) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new().prefix(".").suffix(TEMPORARY).tempfile_in(dir)?;
    file.write_all(bytes)?;
    let meta = file.as_file().metadata()?;
    if (meta.uid(), meta.gid()) != (owner.uid, owner.gid) {
        std::os::unix::fs::fchown(file.as_file(), Some(owner.uid), Some(owner.gid))?;
    }
    file.as_file().set_permissions(Permissions::from_mode(owner.mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(dir)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(path.parent().unwrap_or(Path::new("."))),
    }
}

/// A rename or removal lasts once its directory is on disk.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes what a killed installation left half written, and nothing that another one is writing now.
pub(super) fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temporary = name.as_encoded_bytes().starts_with(b".") && name.as_encoded_bytes().ends_with(TEMPORARY.as_bytes());
        let modified = entry.metadata().and_then(|meta| meta.modified());
        if is_temporary && modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= ABANDONED_AFTER)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
