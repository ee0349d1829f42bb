//! The directories under `BPF_DIR`, and what their names say: `vN` is complete, `vN-new` and `vN-old` are garbage without
//! links. A directory changes its name in one step.

use crate::ABI_VERSION;
use crate::load::{LoadError, system};
use std::io;
use std::path::{Path, PathBuf};

/// What another version left.
#[derive(Debug)]
pub(crate) struct Other {
    pub(super) version: u32,
    pub(super) path: PathBuf,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Ours, once it is complete.
    pub(crate) own: PathBuf,
    /// Ours has yet to be made.
    pub(crate) is_new: bool,
    /// Complete ones of other versions, in order of theirs.
    pub(super) others: Vec<Other>,
}

impl Directories {
    /// Looks, and removes garbage.
    pub(crate) fn find(bpf_dir: &Path) -> Result<Self, LoadError> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(bpf_dir).into_iter().flatten() {
            let path = entry.map_err(system(format!("list {}", bpf_dir.display())))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix('v') else { continue };
            let number = rest.trim_end_matches("-new").trim_end_matches("-old");
            match (number.parse(), number == rest) {
                (Ok(version), true) if version != ABI_VERSION => others.push(Other { version, path }),
                (Ok(_), false) => remove(&path)?,
                _ => {}
            }
        }
        others.sort_by_key(|other| other.version);
        let own = bpf_dir.join(format!("v{ABI_VERSION}"));
        Ok(Self { is_new: !own.exists(), own, others })
    }

    /// Where to load.
    pub(crate) fn workplace(&self) -> PathBuf {
        if self.is_new { renamed(&self.own, "new") } else { self.own.clone() }
    }

    /// Gives our new directory its name.
    pub(super) fn publish(&self) -> Result<(), LoadError> {
        std::fs::rename(self.workplace(), &self.own).map_err(system(format!("make {}", self.own.display())))
    }
}

impl Other {
    /// Takes its name away.
    ///
    /// # Errors
    /// Also where a link is left in it: that one still enforces.
    pub(super) fn retire(&self) -> Result<(), LoadError> {
        let links = self.path.join("links");
        std::fs::remove_dir(&links).or_else(absent).map_err(system(format!("remove {}", links.display())))?;
        std::fs::rename(&self.path, renamed(&self.path, "old")).map_err(system(format!("retire {}", self.path.display())))
    }

    pub(super) fn remove_retired(&self) -> Result<(), LoadError> {
        remove(&renamed(&self.path, "old"))
    }
}

/// bpffs takes no dots in names.
fn renamed(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(format!("{}-{suffix}", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Never with links in it: unpinned, they would leave their devices unhooked.
fn remove(path: &Path) -> Result<(), LoadError> {
    std::fs::remove_dir(path.join("links")).or_else(absent).map_err(system(format!("remove {}/links", path.display())))?;
    std::fs::remove_dir_all(path).map_err(system(format!("remove {}", path.display())))
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
