//! A recording as plain values.

use super::archive::{RecordingError, unpack};
use super::capture::{Capture, WatchEvent};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The recording that comes with the crate.
const BUNDLED: &[u8] = include_bytes!("../../recorded.tar.xz");

/// All captures of an archive.
#[derive(Debug, Clone)]
pub struct Recording {
    captures: BTreeMap<String, Capture>,
}

/// What happened in a scenario that watched several resources from an empty cluster on.
#[derive(Debug, Clone)]
pub struct History {
    /// The first list of each resource, by its plural.
    pub first: BTreeMap<String, Value>,
    /// The events of all watches in the order of their versions, without bookmarks.
    pub events: Vec<WatchEvent>,
    /// The list of each resource at the end.
    pub last: BTreeMap<String, Value>,
}

impl Recording {
    /// The recording of kube-apiserver 1.36.2 that comes with the crate.
    ///
    /// Cost: unpacks 2 MB.
    ///
    /// Panics: never; a test reads it.
    pub fn bundled() -> Self {
        Self::read(BUNDLED).expect("the bundled recording is sound")
    }

    /// Reads a `tar.xz`.
    ///
    /// Errors: an archive that cannot be read, a capture with a missing or broken file.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        Self::read(File::open(path)?)
    }

    fn read(archive: impl std::io::Read) -> Result<Self, RecordingError> {
        let files = unpack(archive)?;
        let names = files.keys().filter_map(|file| file.strip_suffix(".http"));
        let captures = names.map(|name| Ok((name.to_owned(), Capture::read(name, &files)?))).collect::<Result<_, RecordingError>>()?;
        Ok(Self { captures })
    }

    /// All captures in the order of their names.
    pub fn captures(&self) -> impl Iterator<Item = &Capture> {
        self.captures.values()
    }

    /// A capture, such as `scenario1/pods.1-watch`.
    ///
    /// Errors: there is none of this name.
    pub fn capture(&self, name: &str) -> Result<&Capture, RecordingError> {
        self.captures.get(name).ok_or_else(|| RecordingError::Missing(name.to_owned()))
    }

    /// Lists and events of a scenario whose captures are named `RESOURCE.0-list`, `.1-watch` and `.2-list-end`.
    ///
    /// Errors: a capture is missing or broken.
    pub fn history(&self, scenario: &str) -> Result<History, RecordingError> {
        let prefix = format!("{scenario}/");
        let below = self.captures.keys().filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix(".0-list"));
        let resources: Vec<&str> = below.collect();
        let mut history = History { first: BTreeMap::new(), events: Vec::new(), last: BTreeMap::new() };
        for resource in resources {
            let capture = |part: &str| self.capture(&format!("{prefix}{resource}.{part}"));
            history.first.insert(resource.to_owned(), capture("0-list")?.json()?);
            history.last.insert(resource.to_owned(), capture("2-list-end")?.json()?);
            history.events.extend(capture("1-watch")?.events()?.into_iter().filter(|event| event.kind != "BOOKMARK"));
        }
        history.events.sort_by_key(WatchEvent::version);
        Ok(history)
    }
}

impl History {
    /// The version of a resource's list at the end; 0 if there is none.
    pub fn last_version(&self, resource: &str) -> u64 {
        let version = self.last.get(resource).and_then(|list| list["metadata"]["resourceVersion"].as_str());
        version.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The items of a resource's list at the end.
    pub fn last_items(&self, resource: &str) -> &[Value] {
        self.last.get(resource).and_then(|list| list["items"].as_array()).map(Vec::as_slice).unwrap_or_default()
    }
}
