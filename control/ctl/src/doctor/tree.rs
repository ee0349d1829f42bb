//! The files of a machine, below a root directory, and what is to be looked for in them.

use super::Options;
use std::path::{Path, PathBuf};

/// A machine as its files show it.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) conf_dir: PathBuf,
    pub(super) bin_dir: PathBuf,
    /// Meant for workers; empty if nothing is known.
    pub(super) cpus: Vec<usize>,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) kind: String,
}

impl Tree {
    pub(super) fn of_this_machine(run_dir: &Path, options: &Options, cpus: Vec<usize>) -> Self {
        Self { cpus, ..Self::below(Path::new("/"), run_dir, &options.conf_dir, &options.bin_dir) }
    }

    pub(super) fn below(root: &Path, run_dir: &Path, conf_dir: &Path, bin_dir: &Path) -> Self {
        Self { root: root.into(), run_dir: run_dir.into(), conf_dir: conf_dir.into(), bin_dir: bin_dir.into(), cpus: Vec::new() }
    }

    /// Where an absolute path of that machine is here.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text without blanks around it; `None` if it is not there or may not be read.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// Whether a file, of whatever bytes, has this name in it with a zero byte behind.
    pub(super) fn has_bytes(&self, path: impl AsRef<Path>, name: &str) -> bool {
        let name = [name.as_bytes(), &[0]].concat();
        std::fs::read(self.path(path)).is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name))
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a directory, sorted; none if it is not there.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What is mounted, in order. Source: proc(5), mountinfo.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let text = self.read("/proc/self/mountinfo").unwrap_or_default();
        let mount = |line: &str| {
            let (place, rest) = line.split_once(" - ")?;
            Some(Mount { point: place.split(' ').nth(4)?.into(), kind: rest.split(' ').next()?.to_owned() })
        };
        text.lines().filter_map(mount).collect()
    }

    /// The mount that holds a path: the longest point above it, the last one of several.
    pub(super) fn mount_of(&self, path: &Path) -> Option<Mount> {
        self.mounts().into_iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.as_os_str().len())
    }

    /// One field of `/proc/self/status`, such as `CapEff`.
    pub(super) fn status(&self, field: &str) -> Option<String> {
        let text = self.read("/proc/self/status")?;
        text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
    }
}
