//! What outlives the process: the ports and the last good image, each a file of the run directory.
//!
//! A run directory that is full or read-only stops nothing that is in force. What could not be written is shown as long as
//! that is so, and written once it can be; meanwhile the process's memory is what counts.

use super::adoption::LAST_IMAGE;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{error, info};

/// The attachments.
pub(super) const PORTS: &str = "ports.json";
/// Every file that is written here, and what a writer that died may have left of it.
pub(super) const FILES: [&str; 5] = [PORTS, "ports.new", LAST_IMAGE, "image.new", "image.damaged"];

/// The run directory's files. Copies share what is known of their trouble.
#[derive(Debug, Clone, Default)]
pub(super) struct Storage {
    run_dir: PathBuf,
    trouble: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Storage {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), trouble: Arc::default() }
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.run_dir.join(file)
    }

    /// Replaces a file so that a reader sees the old bytes or the new ones, whenever this process dies. The first failure in
    /// a row is logged, and so is its end.
    ///
    /// # Errors
    /// The file stays as it was.
    pub(super) fn write(&self, file: &'static str, bytes: &[u8]) -> Result<()> {
        self.attempt(file, bytes).inspect_err(|reason| {
            let reason = format!("{reason:#}");
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            if !trouble.contains_key(file) {
                error!(file, reason, "cannot be kept; what is in force stays, and is written down once it can be");
            }
            trouble.insert(file, reason);
        })
    }

    /// As [`Storage::write`]; but whoever calls has a remedy for a failure, which is none yet.
    pub(super) fn attempt(&self, file: &'static str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.path(file), bytes)?;
        if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).remove(file).is_some() {
            info!(file, "kept again");
        }
        Ok(())
    }

    /// Whether the file's newest state could not be written.
    pub(super) fn is_behind(&self, file: &str) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).contains_key(file)
    }

    /// What cannot be written now, for people.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        (!trouble.is_empty()).then(|| trouble.values().cloned().collect::<Vec<_>>().join("; "))
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let written = std::fs::write(&temporary, bytes).with_context(|| format!("write {}", temporary.display()));
    if written.is_err() {
        // half a file would keep the room that the next attempt needs
        let _ = std::fs::remove_file(&temporary);
    }
    written.and_then(|()| std::fs::rename(&temporary, path).with_context(|| format!("replace {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_told_until_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::new(&dir.path().join("missing"));
        assert!(storage.write(PORTS, b"one").is_err() && storage.clone().is_behind(PORTS) && !storage.is_behind(LAST_IMAGE));
        assert!(storage.trouble().unwrap().contains("missing/ports.new"), "{:?}", storage.trouble());
        std::fs::create_dir(dir.path().join("missing")).unwrap();
        storage.write(PORTS, b"two").unwrap();
        assert_eq!((storage.trouble(), std::fs::read(storage.path(PORTS)).unwrap()), (None, b"two".to_vec()));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::new(dir.path());
        storage.write(PORTS, b"old").unwrap();
        std::fs::create_dir(storage.path("ports.new")).unwrap();
        assert!(storage.write(PORTS, b"new").is_err());
        assert_eq!(std::fs::read(storage.path(PORTS)).unwrap(), b"old");
    }
}
