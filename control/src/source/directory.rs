//! The manifest directory as a source of objects: watched by inotify, read whole, never half believed.
//!
//! inotify is only a hint that something changed: its queue overflows, it is blind on network file systems, and a
//! watched directory may be replaced. So every two seconds names, sizes and times are compared as well, which costs a
//! `stat` for each file and no reading. A directory that cannot be listed is a problem to show, not a cluster without
//! policies: the set of manifests keeps what it last gave.

use super::places::Places;
use super::truncation::Truncation;
use super::{Manifests, Reading};
use crate::debounce::Debounce;
use crate::engine::Event;
use notify::{EventKind, RecursiveMode, Watcher};
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_policy::load::{Kind, Loaded, ManifestError, ManifestSet, read_directory};
use sluice_wire::ManifestProblem;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

const RESCAN: Duration = Duration::from_secs(2);
/// How soon a directory is read again in which a file is being written.
const TORN_RETRY: Duration = Duration::from_millis(10);

/// Asks the reader to read at once.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    wake: Sender<Wake>,
}

impl Handle {
    /// See [`super::Source::read_now`].
    pub(super) fn read_now(&self) -> Option<u64> {
        let (answer, answered) = channel();
        self.wake.send(Wake::ReadNow(answer)).ok()?;
        answered.recv().ok()
    }
}

enum Wake {
    Changed,
    ReadNow(Sender<u64>),
}

/// Starts the source on a thread of its own, which ends with the receiver of `events`.
pub(crate) fn start(directory: &Path, debounce: Debounce, events: UnboundedSender<Event>) -> io::Result<Handle> {
    let (wake, woken) = channel();
    let reader = Reader {
        directory: directory.to_owned(),
        wake: wake.clone(),
        set: ManifestSet::new(),
        last: Snapshot::default(),
        truncation: Truncation::default(),
        was_listed: false,
        sequence: 0,
        watched: None,
        fingerprint: BTreeMap::new(),
    };
    std::thread::Builder::new().name("source".into()).spawn(move || reader.run(&woken, debounce, &events))?;
    Ok(Handle { wake })
}

struct Reader {
    directory: PathBuf,
    wake: Sender<Wake>,
    set: ManifestSet,
    /// What the last reading gave.
    last: Snapshot,
    truncation: Truncation,
    was_listed: bool,
    sequence: u64,
    watched: Option<Watched>,
    fingerprint: BTreeMap<PathBuf, Option<Fingerprint>>,
}

/// A watch follows the inode, so a directory that was replaced needs a new one.
struct Watched {
    inode: (u64, u64),
    _watcher: notify::RecommendedWatcher,
}

/// Changes whenever a file does: inode, size, times.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint([i64; 6]);

impl Reader {
    fn run(mut self, woken: &Receiver<Wake>, mut debounce: Debounce, events: &UnboundedSender<Event>) {
        self.rescan();
        let mut sent = self.read(Instant::now(), events);
        while sent && !events.is_closed() {
            let now = Instant::now();
            let wait = debounce.due().map_or(RESCAN, |due| due.saturating_duration_since(now).min(RESCAN));
            let mut asker = None;
            match woken.recv_timeout(wait) {
                Ok(Wake::Changed) => debounce.changed(Instant::now()),
                Ok(Wake::ReadNow(answer)) => asker = Some(answer),
                Err(RecvTimeoutError::Timeout) if debounce.due().is_none() && self.rescan() => debounce.changed(Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if asker.is_none() && debounce.due().is_none_or(|due| due > Instant::now()) {
                continue;
            }
            // Scanned before it is read: what changes in between is found by the next scan.
            self.rescan();
            sent = self.read(debounce.take().unwrap_or_else(Instant::now), events);
            if let Some(asker) = asker {
                // It may have given up meanwhile.
                let _ = asker.send(self.sequence);
            }
        }
    }

    /// Reads everything and reports it; false when nobody listens any more.
    fn read(&mut self, changed_at: Instant, events: &UnboundedSender<Event>) -> bool {
        let files = loop {
            let files = read_directory(&self.directory);
            if !self.truncation.is_unfinished(&files, Instant::now()) {
                break files;
            }
            std::thread::sleep(TORN_RETRY);
        };
        self.was_listed |= !files.iter().any(|(path, read)| *path == self.directory && read.is_err());
        let mut manifests = manifests(self.set.update(files), self.was_listed);
        // every reading makes all objects anew; those that are equal go on as the same ones
        manifests.snapshot.share(&self.last);
        self.last = manifests.snapshot.clone();
        let manifests = Arc::new(manifests);
        self.sequence += 1;
        let reading = Reading { sequence: self.sequence, changed_at, is_complete: self.was_listed, manifests, watches: Vec::new() };
        events.send(Event::Read(reading)).is_ok()
    }

    /// Renews the watch where the directory was replaced, and tells whether any file changed since the last scan.
    fn rescan(&mut self) -> bool {
        let inode = std::fs::metadata(&self.directory).ok().map(|m| (m.dev(), m.ino()));
        if self.watched.as_ref().map(|watched| watched.inode) != inode {
            self.watched = inode.and_then(|inode| self.watch(inode));
        }
        let mut fingerprint = BTreeMap::new();
        walk(&self.directory, 0, &mut fingerprint);
        let changed = fingerprint != self.fingerprint;
        self.fingerprint = fingerprint;
        changed
    }

    fn watch(&self, inode: (u64, u64)) -> Option<Watched> {
        let wake = self.wake.clone();
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| matters(&event)) {
                let _ = wake.send(Wake::Changed);
            }
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => Some(Watched { inode, _watcher: watcher }),
            Err(error) => {
                tracing::warn!(%error, rescan_s = RESCAN.as_secs(), "cannot watch the directory; changes are found by scanning");
                None
            }
        }
    }
}

/// Reading files makes events too; only those that may change what is read count. Names that the reader skips do not,
/// except `..data`, which Kubernetes replaces when it updates a mounted ConfigMap.
fn matters(event: &notify::Event) -> bool {
    let is_read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.starts_with(b"..") || !(name.starts_with(b".") || name.ends_with(b"~"))
    };
    let changes = match event.kind {
        EventKind::Access(kind) => kind == notify::event::AccessKind::Close(notify::event::AccessMode::Write),
        _ => true,
    };
    event.need_rescan() || (changes && (event.paths.is_empty() || event.paths.iter().any(is_read)))
}

fn walk(path: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Option<Fingerprint>>) {
    // The reader's own depth is bounded likewise; a loop of links ends here.
    const DEPTH_MAX: usize = 17;
    let metadata = std::fs::metadata(path);
    let is_dir = metadata.as_ref().is_ok_and(Metadata::is_dir);
    found.insert(path.to_owned(), metadata.ok().map(|m| fingerprint(&m)));
    let entries = if is_dir && depth < DEPTH_MAX { std::fs::read_dir(path).ok() } else { None };
    for entry in entries.into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            walk(&entry.path(), depth + 1, found);
        }
    }
}

fn fingerprint(m: &Metadata) -> Fingerprint {
    Fingerprint([m.ino().cast_signed(), m.size().cast_signed(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
}

fn manifests(loaded: &Loaded, was_listed: bool) -> Manifests {
    let in_force = |error: &ManifestError| match &error.object {
        _ if !was_listed => "nothing: until the directory could be read once, nothing is published".to_owned(),
        Some(object) if loaded.kept.contains(object) => format!("the last good state of {object}"),
        Some(object) if loaded.origins.contains_key(object) => format!("{object} as defined elsewhere"),
        Some(object) => format!("nothing of {object}, it was never good"),
        None => "what was last read there".to_owned(),
    };
    let problem = |error: &ManifestError| ManifestProblem {
        file: error.file.display().to_string(),
        line: error.line,
        column: error.column,
        object: error.object.as_ref().map(ToString::to_string),
        field: error.field.clone(),
        message: error.message.clone(),
        hint: error.hint.clone(),
        in_force: in_force(error),
    };
    let policies = loaded.origins.iter().filter(|(id, _)| id.kind == Kind::NetworkPolicy);
    Manifests {
        snapshot: loaded.snapshot.clone(),
        places: Places::default(),
        problems: loaded.errors.iter().map(problem).collect(),
        policy_files: policies
            .map(|(id, (file, line))| (ObjectName::new(&*id.namespace, &*id.name), format!("{}:{line}", file.display())))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};

    #[test]
    fn only_events_that_may_change_what_is_read_wake_the_reader() {
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for (kind, path, expected) in [
            (written, "/m/policy.yaml", true),
            (renamed, "/m/policy.yaml", true),
            (EventKind::Create(CreateKind::Folder), "/m/team", true),
            (renamed, "/m/..data", true),
            (EventKind::Access(AccessKind::Open(AccessMode::Read)), "/m/policy.yaml", false),
            (written, "/m/.policy.yaml.swp", false),
            (written, "/m/policy.yaml~", false),
        ] {
            let event = notify::Event::new(kind).add_path(path.into());
            assert_eq!(matters(&event), expected, "{kind:?} {path}");
        }
    }
}
