//! What has to be done, from what is there: the configuration that the runtime would choose, and the steps that put the plugin
//! in or take it out. Reads files, changes none.
//!
//! ```text
//!   10-net.conflist      the entry is put into it            .10-net.conflist.sluice-backup   as it was before
//!   10-net.conf          becomes 10-net.conflist, and goes   .10-net.conf.sluice-backup       as it was, for uninstall
//! ```
//!
//! Source: libcni's `ConfFiles` and the runtimes' loaders: files by name, the first one counts; only `.conflist` is a list.

use super::edit::{Edit, List, PLUGIN, without_entry, wrapped};
use super::error::{InstallError, Unchainable};
use super::step::{Owner, Step};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const BACKUP: &str = ".sluice-backup";
/// What makes pods' interfaces otherwise than by a veth that the kernel routes; ADD refuses such pods.
const UNSERVED: [&str; 6] = ["bridge", "macvlan", "ipvlan", "host-device", "sriov", "vlan"];

/// The steps of an installation or removal, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// What was decided, for people.
    pub(super) said: Vec<String>,
    /// What will not work as it stands.
    pub(super) warnings: Vec<String>,
}

/// Puts the entry into the configuration that the runtime would choose.
///
/// # Errors
/// There is none, it cannot be read, or it cannot be chained.
pub(super) fn install(dir: &Path, entry: &Value) -> Result<Plan, InstallError> {
    let names = configurations(dir)?;
    let first = names.first().ok_or_else(|| InstallError::NoConfiguration(dir.into()))?;
    let first = &newer(dir, first).unwrap_or_else(|| first.clone());
    let file = dir.join(first);
    let text = read(&file)?;
    let refused = |reason| InstallError::Unchainable { file: file.clone(), reason };
    let mut plan = Plan::default();
    if is_list(first) {
        let list = List::parse(&text).map_err(refused)?;
        let shown = file.display();
        match list.with_entry(entry).map_err(refused)? {
            Edit::Unchanged => plan.said.push(format!("{shown}: {PLUGIN} is there already")),
            Edit::Changed(new) => {
                if !list.has_entry() {
                    plan.write(backup_of(&file), text.clone().into_bytes(), &file)?;
                }
                let what = if list.has_entry() { "brought up to date" } else { "added behind the last plugin" };
                plan.said.push(format!("{shown}: {PLUGIN} {what}"));
                plan.write(file.clone(), new.into_bytes(), &file)?;
            }
        }
        plan.warn_of(&list, dir);
        return Ok(plan);
    }
    let new = wrapped(&text, entry).map_err(refused)?;
    let list = with_ending(&file, "conflist");
    if list.exists() && !List::parse(&read(&list)?).is_ok_and(|list| list.wraps().is_some()) {
        return Err(InstallError::InTheWay { list, single: file });
    }
    let name = list.file_name().expect("made from a file's name").to_owned();
    if let Some(other) = names.iter().find(|other| *other != first && **other < name) {
        return Err(InstallError::NotFirst { list, other: dir.join(other) });
    }
    plan.said.push(format!("{}: now the list {}, with {PLUGIN} as its last plugin", file.display(), list.display()));
    plan.warn_of(&List::parse(&new).map_err(refused)?, dir);
    // in this order the runtime finds one of the two at every moment, and both say the same of the pod's interface
    plan.write(backup_of(&file), text.into_bytes(), &file)?;
    plan.write(list, new.into_bytes(), &file)?;
    plan.steps.push(Step::Remove { path: file });
    Ok(plan)
}

/// The single plugin's file of which this list was made, if it is there: another installer wrote it anew, or ours was interrupted.
/// The list may come first by name, and would hide what it says.
fn newer(dir: &Path, first: &OsStr) -> Option<OsString> {
    let list = dir.join(first);
    let text = read(&list).ok().filter(|_| is_list(first))?;
    List::parse(&text).ok()?.wraps()?;
    let mut singles = ["conf", "json"].into_iter().map(|ending| with_ending(&list, ending));
    let single = singles.find(|single| single.exists() && backup_of(single).exists())?;
    Some(single.file_name()?.to_owned())
}

/// Takes the entry out of every configuration.
///
/// # Errors
/// One that holds it, or its backup, cannot be read.
pub(super) fn uninstall(dir: &Path) -> Result<Plan, InstallError> {
    let mut plan = Plan::default();
    for name in configurations(dir)?.iter().filter(|name| is_list(name)) {
        let file = dir.join(name);
        let text = read(&file)?;
        let list = match List::parse(&text) {
            Ok(list) if list.has_entry() => list,
            // only a text that names the plugin can hold its entry
            Err(reason) if text.contains(PLUGIN) => return Err(InstallError::Unchainable { file, reason }),
            _ => continue,
        };
        match original_of(&file, &list)? {
            Some((single, original)) => {
                plan.said.push(format!("{}: {} again, as it was", file.display(), single.display()));
                if !single.exists() {
                    plan.write(single, original.into_bytes(), &file)?;
                }
                plan.steps.push(Step::Remove { path: file });
            }
            None => {
                plan.said.push(format!("{}: {PLUGIN} taken out", file.display()));
                let new = without_entry(&text).map_err(|reason| InstallError::Unchainable { file: file.clone(), reason })?;
                plan.write(file.clone(), new.into_bytes(), &file)?;
            }
        }
    }
    plan.steps.extend(backups(dir)?.into_iter().map(|path| Step::Remove { path }));
    Ok(plan)
}

/// The single plugin's file of which this list was made, and its text, if the list is still what was made of it.
fn original_of(list_file: &Path, list: &List<'_>) -> Result<Option<(PathBuf, String)>, InstallError> {
    let Some(plugin) = list.wraps() else { return Ok(None) };
    for extension in ["conf", "json"] {
        let single = with_ending(list_file, extension);
        let backup = backup_of(&single);
        if !backup.exists() {
            continue;
        }
        let original = read(&backup)?;
        if original.trim() == plugin {
            return Ok(Some((single, original)));
        }
    }
    Ok(None)
}

impl Plan {
    fn write(&mut self, path: PathBuf, bytes: Vec<u8>, like: &Path) -> Result<(), InstallError> {
        self.steps.push(Step::Write { path, bytes, owner: Owner::of(like)? });
        Ok(())
    }

    fn warn_of(&mut self, list: &List<'_>, dir: &Path) {
        if let Some(kind) = list.kinds().next().filter(|kind| UNSERVED.contains(kind)) {
            self.warnings.push(format!(
                "its first plugin is {kind}: ADD refuses pods that are not attached by a veth which the kernel routes (ptp, kindnet, Calico and alike)"
            ));
        }
        let behind: Vec<&str> = list.kinds().skip_while(|kind| *kind != PLUGIN).skip(1).collect();
        if !behind.is_empty() {
            self.warnings
                .push(format!("{} stands behind {PLUGIN}: a plugin there that changes addresses would go unseen", behind.join(", ")));
        }
        let own = dir.join(&list.name);
        if !list.only_inlined && own.is_dir() {
            self.warnings.push(format!("newer runtimes append the plugins of {} behind {PLUGIN}", own.display()));
        }
    }
}

/// The files that a runtime looks at, in its order. A directory that is not there has none.
fn configurations(dir: &Path) -> Result<Vec<OsString>, InstallError> {
    files(dir, |name| matches!(extension(name), Some(b"conf" | b"conflist" | b"json")))
}

fn backups(dir: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let names = files(dir, |name| name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(BACKUP.as_bytes()))?;
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn files(dir: &Path, wanted: impl Fn(&OsStr) -> bool) -> Result<Vec<OsString>, InstallError> {
    let failed = |source| InstallError::Read { path: dir.into(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        if !is_dir && wanted(&entry.file_name()) {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

/// What stands behind the last dot, as Go's `filepath.Ext` sees it: a name that begins with its only dot has one too.
fn extension(name: &OsStr) -> Option<&[u8]> {
    let bytes = name.as_bytes();
    bytes.iter().rposition(|byte| *byte == b'.').map(|dot| &bytes[dot + 1..])
}

/// The same name with another ending; `Path::with_extension` sees none in a name that begins with its only dot.
fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let name = file.file_name().expect("a file of the directory").as_bytes();
    let stem = name.iter().rposition(|byte| *byte == b'.').map_or(name, |dot| &name[..dot]);
    file.with_file_name(OsStr::from_bytes(&[stem, b".", ending.as_bytes()].concat()))
}

fn is_list(name: &OsStr) -> bool {
    extension(name) == Some(b"conflist")
}

/// Hidden, and with an ending that no runtime reads.
fn backup_of(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().expect("a file of the directory"));
    name.push(BACKUP);
    file.with_file_name(name)
}

fn read(path: &Path) -> Result<String, InstallError> {
    let bytes = std::fs::read(path).map_err(|source| InstallError::Read { path: path.into(), source })?;
    String::from_utf8(bytes)
        .map_err(|_| InstallError::Unchainable { file: path.into(), reason: Unchainable::NoJson("it is not UTF-8".to_owned()) })
}
