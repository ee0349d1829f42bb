//! Manifests → snapshot: YAML and JSON files with Namespaces, Pods, Services and NetworkPolicies become the objects that
//! a kube-apiserver 1.36 would store for them, or errors with file, line, field and a hint of the right form.
//!
//! ```text
//!   files ──yaml, json──▶ trees with places ──document──▶ claims: an object, or an identity that was refused
//!                                                            │
//!   last good state ─────────────────────────────set─────────┴──▶ Loaded { snapshot, errors, origins, kept }
//! ```
//!
//! The rules that hold throughout:
//!
//! * An object counts whole or not at all: a policy of which one rule is wrong is refused, never shortened. An unknown
//!   field in a NetworkPolicy is an error too (the server only warns), because a misspelt field makes a policy that
//!   means something else.
//! * Nothing is lost because of a broken document: what was valid before stays in force until the file says something
//!   valid, or no longer lists it.
//! * `null`, empty and absent keep the meaning that Go's decoder gives them: `to:` is every peer, `ingress: [null]` is
//!   one rule that allows all, `from: [{}]` is an error.
//! * Every limit refuses: 64 MiB a file, 100 levels, 100 000 values from aliases. Only the list of complaints is cut: at
//!   1000 for a file, and the rest are counted.

mod cluster;
mod decode;
mod defaults;
mod document;
mod error;
mod files;
mod hints;
mod json;
mod node;
mod object;
mod reindent;
mod scalar;
mod set;
mod sources;
mod template;
mod validate;
mod yaml;

pub use cluster::{ClusterManifests, load_cluster_paths, load_cluster_str};
pub use defaults::NAMESPACE_NAME_LABEL;
pub use error::ManifestError;
pub use files::{FILE_BYTES_MAX, read_directory};
pub use object::{Kind, ObjectId};
pub use set::{Loaded, ManifestSet, Skipped};
pub use sources::Sources;
pub use template::Workload;

pub(crate) use error::{Printable, clip, write_source};
pub(crate) use hints::nearest;
pub(crate) use node::Path as Field;
pub(crate) use sources::Written;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// Loads files and directories once, in the order given. Of a directory: what [`read_directory`] finds; a file named
/// here is read whatever its extension. A path that cannot be read is an error in the result, and so is everything
/// else: loading never fails as a whole.
///
/// ```
/// use sluice_policy::load;
/// let loaded = load::load_paths(&["/nonexistent/web.yaml".into()]);
/// assert!(loaded.errors[0].to_string().starts_with("/nonexistent/web.yaml: cannot be read: "));
/// ```
pub fn load_paths(paths: &[PathBuf]) -> Loaded {
    ManifestSet::load(read_paths(paths))
}

/// Reads files and directories as [`load_paths`] does, without looking into them.
pub fn read_paths(paths: &[PathBuf]) -> Vec<(PathBuf, io::Result<Vec<u8>>)> {
    let mut seen = HashSet::new();
    paths
        .iter()
        .flat_map(|path| if path.is_dir() { read_directory(path) } else { vec![(path.clone(), files::read_file(path))] })
        // A file named beside its directory is one file.
        .filter(|(path, _)| seen.insert(path.clone()))
        .collect()
}

/// Loads files once, and keeps where their fields stand: for [`lint`](crate::lint). Cost: the policies' trees and the
/// files' texts stay in memory.
pub fn load_with_sources(files: Vec<(PathBuf, io::Result<Vec<u8>>)>) -> (Loaded, Sources) {
    ManifestSet::load_with_sources(files)
}

/// Loads one text; `name` stands for the file in messages, and a `.json` ending makes it JSON.
///
/// ```
/// use sluice_policy::load::load_str;
/// let loaded = load_str("deny.yaml", "
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata: { name: deny }
/// spec: { podSelector: {} }
/// ");
/// assert!(loaded.errors.is_empty());
/// assert!(loaded.snapshot.namespaces.contains_key("default"), "implied by the policy");
/// ```
pub fn load_str(name: &str, text: &str) -> Loaded {
    ManifestSet::load(vec![(Path::new(name).to_path_buf(), Ok(text.as_bytes().to_vec()))])
}
