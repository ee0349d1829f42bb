//! The program in the runtime's directory of plugins.

use super::edit::PLUGIN;
use super::error::InstallError;
use super::step::{Owner, Step, sweep};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where it comes from and goes to.
#[derive(Debug)]
pub(super) struct Program {
    source: PathBuf,
    dir: PathBuf,
    /// The file that was last seen to be equal: inode, seconds and nanoseconds of its last change. Both files are some
    /// megabytes, too much to compare at every look.
    equal: Option<(u64, i64, i64)>,
}

impl Program {
    pub(super) fn new(source: &Path, dir: &Path) -> Self {
        Self { source: source.into(), dir: dir.into(), equal: None }
    }

    /// Puts it there; false if it is there already.
    ///
    /// # Errors
    /// It cannot be read or written; what was there before stays.
    pub(super) fn put(&mut self) -> Result<bool, InstallError> {
        let path = self.dir.join(PLUGIN);
        if self.equal.is_some() && self.equal == identity(&path) {
            return Ok(false);
        }
        sweep(&self.dir);
        let bytes = read(&self.source)?;
        let owner = Owner::program();
        let is_there = Owner::of(&path).is_ok_and(|there| there.mode == owner.mode) && read(&path).is_ok_and(|there| there == bytes);
        if !is_there {
            Step::Write { path: path.clone(), bytes, owner }.perform()?;
        }
        self.equal = identity(&path);
        Ok(!is_there)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InstallError> {
    std::fs::read(path).map_err(|source| InstallError::Read { path: path.into(), source })
}

fn identity(path: &Path) -> Option<(u64, i64, i64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec()))
}
