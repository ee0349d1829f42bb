//! The last good state of a set of files.
//!
//! Each update brings the whole present content. Who decides about an object, in this order:
//!
//! 1. the first file that names it: its first valid document, or the last good state if none is valid and the same file
//!    gave that; further valid documents that name it, here and in later files, are duplicates;
//! 2. otherwise any document that names it and is broken: the last good state, wherever that came from;
//! 3. otherwise a file that gave it last and now cannot be read or parsed, or holds a document that nobody can identify
//!    (it may be this one): the last good state;
//! 4. otherwise nobody names it: it is gone.

use super::defaults::implicit_namespace;
use super::document::{Claim, Content, Keep, read};
use super::error::{ERRORS_PER_FILE_MAX, ManifestError};
use super::object::{Object, ObjectId};
use super::sources::Sources;
use crate::pod::{Pod, Pool};
use crate::{ObjectName, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a set of manifests says, after all errors.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Valid, defaulted objects; namespaces that are only referenced are there too. `endpoints` is empty.
    pub snapshot: Snapshot,
    /// What was refused in the latest update, in the order of the files and lines.
    pub errors: Vec<ManifestError>,
    /// File and line (1-based) of each object in force. Implied namespaces have none.
    pub origins: BTreeMap<ObjectId, (PathBuf, u32)>,
    /// Objects in force only as their last good state; `origins` says where that stood.
    pub kept: BTreeSet<ObjectId>,
    /// Documents of kinds that say nothing about policy.
    pub skipped: Vec<Skipped>,
}

/// A document of a kind that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// Where the document begins, 1-based.
    pub line: u32,
    /// Its `kind`.
    pub kind: String,
}

/// The last good state of a set of files.
///
/// ```
/// use sluice_policy::load::ManifestSet;
/// let pod = |ip: &str| format!(
///     "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{}}]}}, status: {{podIP: {ip}}}}}");
/// let mut set = ManifestSet::new();
/// set.update(vec![("web.yaml".into(), Ok(pod("10.0.0.1").into_bytes()))]);
/// let loaded = set.update(vec![("web.yaml".into(), Ok(pod("10.0.0.300").into_bytes()))]);
/// assert_eq!((loaded.errors.len(), loaded.kept.len(), loaded.snapshot.pods.len()), (1, 1, 1));
/// ```
#[derive(Debug, Default)]
pub struct ManifestSet {
    loaded: Loaded,
    pool: Pool,
}

impl ManifestSet {
    /// Nothing loaded.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of one update only.
    pub(super) fn load(files: Vec<(PathBuf, io::Result<Vec<u8>>)>) -> Loaded {
        let mut set = Self::new();
        set.update(files);
        set.loaded
    }

    /// A set of one update only, and where everything in it stands.
    pub(super) fn load_with_sources(files: Vec<(PathBuf, io::Result<Vec<u8>>)>) -> (Loaded, Sources) {
        let mut set = Self::new();
        let sources = set.take(files, Keep::Sources);
        (set.loaded, sources)
    }

    /// Takes the complete present content of the set: each file with its bytes, or why it could not be read.
    ///
    /// Objects that are valid replace their last state; an invalid object that can be identified keeps its last good
    /// state; a file that cannot be parsed or read keeps all objects it gave last (an entry for a directory: all files
    /// below it); a file no longer listed loses its objects. Returns what is in force now.
    ///
    /// Cost: parses every file anew.
    pub fn update(&mut self, files: Vec<(PathBuf, io::Result<Vec<u8>>)>) -> &Loaded {
        self.take(files, Keep::Objects);
        &self.loaded
    }

    fn take(&mut self, files: Vec<(PathBuf, io::Result<Vec<u8>>)>, keep: Keep) -> Sources {
        let (old, pool) = (mem::take(&mut self.loaded), mem::take(&mut self.pool));
        let mut update = Update { old, new: Loaded::default(), sources: Sources::default(), pool };
        let (mut broken, mut opaque) = (Vec::new(), Vec::new());
        for (file, bytes) in files {
            let unreadable = |error| Box::new(ManifestError::whole_file(&file, format!("cannot be read: {error}")));
            match bytes.map_err(unreadable).and_then(|bytes| read(&file, &bytes, keep)) {
                Ok(content) => {
                    if content.claims.iter().any(|claim| claim.id.is_none()) {
                        opaque.push(file.clone());
                    }
                    update.take(&file, content, &mut broken);
                }
                Err(error) => {
                    update.new.errors.push(*error);
                    opaque.push(file);
                }
            }
        }
        broken.iter().for_each(|id| update.keep(id));
        for file in opaque {
            update.keep_all_of(&file);
        }
        let sources = mem::take(&mut update.sources);
        (self.loaded, self.pool) = update.finish();
        self.pool.shrink();
        sources
    }

    /// What is in force since the latest update.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }
}

/// An update on its way: objects move from `old` to `new`, at most once each.
struct Update {
    old: Loaded,
    new: Loaded,
    sources: Sources,
    pool: Pool,
}

impl Update {
    /// Settles every object that this file is the first to name.
    fn take(&mut self, file: &Path, content: Content, broken: &mut Vec<ObjectId>) {
        let errors_before = self.new.errors.len();
        let mut unlisted = content.unlisted;
        self.new.errors.extend(content.errors);
        self.new.skipped.extend(content.skipped);
        self.sources.texts.extend(content.text.map(|text| (file.to_path_buf(), text)));
        self.sources.workloads.extend(content.workloads);
        self.sources.opaque.extend(content.opaque);
        let shared: Arc<Path> = Arc::from(file);
        // kept only where no document of the file is valid, so that the same content means the same at every reading
        let mut own = Vec::new();
        for claim in content.claims {
            let Claim { place, id: Some(id), object, source_line, tree } = claim else { continue };
            match (object, self.new.origins.get(&id)) {
                (Some(_), Some(_)) if self.new.errors.len() - errors_before >= ERRORS_PER_FILE_MAX => unlisted += 1,
                (Some(_), Some((first_file, first_line))) => {
                    let first = format!("{}:{first_line}", first_file.display());
                    self.new.errors.push(ManifestError {
                        file: file.to_path_buf(),
                        line: place.line,
                        column: place.column,
                        object: Some(id),
                        field: String::new(),
                        message: format!("defined twice; the first one, in {first}, stays in force"),
                        hint: Some("remove one of the two, or give it another name or namespace".to_owned()),
                        source_line,
                    });
                }
                (Some(object), None) => {
                    insert(&mut self.new.snapshot, &mut self.pool, &id, object);
                    self.sources.trees.extend(tree.map(|tree| (id.clone(), (Arc::clone(&shared), tree))));
                    self.new.origins.insert(id, (file.to_path_buf(), place.line));
                }
                (None, _) if self.old.origins.get(&id).is_some_and(|(last, _)| last == file) => own.push(id),
                (None, _) => broken.push(id),
            }
        }
        own.iter().for_each(|id| self.keep(id));
        self.new.errors[errors_before..].sort_by_key(|error| (error.line, error.column));
        if unlisted > 0 {
            self.new.errors.push(ManifestError::whole_file(file, format!("{unlisted} more problems are not listed")));
        }
    }

    /// Carries the last good state over, unless the object is settled or there was none.
    fn keep(&mut self, id: &ObjectId) {
        if self.new.origins.contains_key(id) {
            return;
        }
        let Some(origin) = self.old.origins.remove(id) else { return };
        carry(id, &mut self.old.snapshot, &mut self.new.snapshot).expect("every origin has its object");
        self.new.origins.insert(id.clone(), origin);
        self.new.kept.insert(id.clone());
    }

    fn keep_all_of(&mut self, path: &Path) {
        let given = self.old.origins.iter().filter(|(_, (file, _))| file.starts_with(path));
        let given: Vec<ObjectId> = given.map(|(id, _)| id.clone()).collect();
        given.iter().for_each(|id| self.keep(id));
    }

    /// Adds the namespaces that objects refer to and nobody defines.
    fn finish(mut self) -> (Loaded, Pool) {
        let referenced: BTreeSet<&str> =
            self.new.origins.keys().map(|id| id.namespace.as_str()).filter(|namespace| !namespace.is_empty()).collect();
        for namespace in referenced {
            if !self.new.snapshot.namespaces.contains_key(namespace) {
                self.new.snapshot.namespaces.insert(namespace.to_owned(), Arc::new(implicit_namespace(namespace)));
            }
        }
        (self.new, self.pool)
    }
}

fn insert(snapshot: &mut Snapshot, pool: &mut Pool, id: &ObjectId, object: Object) {
    let name = ObjectName::new(&id.namespace, &id.name);
    match object {
        Object::Namespace(object) => drop(snapshot.namespaces.insert(id.name.clone(), Arc::new(object))),
        Object::Pod(object) => drop(snapshot.pods.insert(name, Arc::new(pool.share(Pod::from(*object))))),
        Object::Service(object) => drop(snapshot.services.insert(name, Arc::from(object))),
        Object::NetworkPolicy(object) => drop(snapshot.policies.insert(name, Arc::from(object))),
    }
}

/// Moves an object; `None` where there is none.
fn carry(id: &ObjectId, from: &mut Snapshot, to: &mut Snapshot) -> Option<()> {
    use super::object::Kind;
    let name = ObjectName::new(&id.namespace, &id.name);
    match id.kind {
        Kind::Namespace => drop(to.namespaces.insert(id.name.clone(), from.namespaces.remove(&id.name)?)),
        Kind::Pod => drop(to.pods.insert(name.clone(), from.pods.remove(&name)?)),
        Kind::Service => drop(to.services.insert(name.clone(), from.services.remove(&name)?)),
        Kind::NetworkPolicy => drop(to.policies.insert(name.clone(), from.policies.remove(&name)?)),
    }
    Some(())
}
