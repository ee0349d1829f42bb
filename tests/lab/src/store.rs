//! The lab's manifest directory: one object per file, replaced by rename.
//!
//! ```text
//!   user's file ──validate (sluice_policy::load)──▶ documents ──▶ manifests/networkpolicy_default_deny.yaml
//! ```
//!
//! An object that is applied again must replace what was applied before, wherever it stood in the user's files; with
//! one object per file that is a rename, and sluice-control sees either the old object or the new one. The text of a
//! document is kept as it was written, traps such as `to:` with nothing after it included: they are what the control
//! process must read. Only what one document says about several objects (a List) is written anew, as JSON.

use crate::state::replace_file;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_policy::load::{Loaded, load_paths, load_str};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// A kind of object that the lab understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A namespace and its labels.
    Namespace,
    /// A pod.
    Pod,
    /// A service: names for DNS.
    Service,
    /// A policy.
    NetworkPolicy,
}

impl Kind {
    /// As in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// As in a path of the API.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::NetworkPolicy => "networkpolicies",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = anyhow::Error;

    /// As kubectl reads it: any case, singular, plural or short.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "ns" | "namespace" | "namespaces" => Self::Namespace,
            "po" | "pod" | "pods" => Self::Pod,
            "svc" | "service" | "services" => Self::Service,
            "netpol" | "networkpolicy" | "networkpolicies" => Self::NetworkPolicy,
            _ => bail!("unknown kind {text:?}; the lab knows pod, service, networkpolicy and namespace"),
        })
    }
}

/// One object's identity. A namespace has an empty `namespace` in its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
}

impl ObjectRef {
    /// From a kind and `ns/name`, or a bare name, which means the namespace `default`.
    pub fn new(kind: Kind, name: &str) -> Self {
        let name = if kind == Kind::Namespace { ObjectName::new("", name) } else { ObjectName::parse(name) };
        Self { kind, name }
    }

    fn file_name(&self) -> String {
        let kind = self.kind.name().to_ascii_lowercase();
        match self.kind {
            Kind::Namespace => format!("{kind}_{}.yaml", self.name.name),
            _ => format!("{kind}_{}_{}.yaml", self.name.namespace, self.name.name),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Namespace => write!(f, "namespace {}", self.name.name),
            kind => write!(f, "{} {}", kind.name().to_ascii_lowercase(), self.name),
        }
    }
}

/// One object, ready to be stored.
#[derive(Debug, Clone)]
pub struct Document {
    /// Which object it describes.
    pub object: ObjectRef,
    /// Its manifest.
    pub text: String,
}

/// Reads the user's files and directories.
///
/// # Errors
///
/// Every complaint of the loader, with file, line and field. Nothing of a set with an error in it is used.
pub fn read_documents(paths: &[PathBuf]) -> Result<Vec<Document>> {
    for path in paths {
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let loaded = load_paths(paths);
    refuse_errors(&loaded)?;
    let files: BTreeSet<&PathBuf> = loaded.origins.values().map(|(file, _)| file).collect();
    let mut documents = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        documents.extend(identify_all(&text).with_context(|| format!("in {}", file.display()))?);
    }
    Ok(documents)
}

/// As [`read_documents`], from text in hand.
pub fn parse_documents(text: &str) -> Result<Vec<Document>> {
    refuse_errors(&load_str("input.yaml", text))?;
    identify_all(text)
}

fn refuse_errors(loaded: &Loaded) -> Result<()> {
    if loaded.errors.is_empty() {
        return Ok(());
    }
    let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
    bail!("{}\nnothing was applied", errors.join("\n"))
}

fn identify_all(text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for part in split_documents(text) {
        documents.extend(identify(part)?);
    }
    Ok(documents)
}

/// Which objects one document describes, as the loader understands it. None for a kind that the lab ignores.
fn identify(text: String) -> Result<Vec<Document>> {
    let loaded = load_str("document.yaml", &text);
    if let Some(error) = loaded.errors.first() {
        bail!("a document that was valid within its file is not valid alone: {error}");
    }
    let mut objects = objects(&loaded.snapshot)?;
    // The loader adds the namespaces that objects live in; those stand nowhere in the document.
    let stated: BTreeSet<(&str, &str, &str)> =
        loaded.origins.keys().map(|id| (id.kind.name(), id.namespace.as_str(), id.name.as_str())).collect();
    objects.retain(|Document { object: ObjectRef { kind, name }, .. }| {
        stated.contains(&(kind.name(), name.namespace.as_str(), name.name.as_str()))
    });
    if let [only] = objects.as_mut_slice() {
        only.text = text;
    }
    Ok(objects)
}

/// The documents of a YAML stream, by its `---` lines. Such a line cannot stand inside an indented block.
fn split_documents(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        match line.strip_prefix("---") {
            Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t']) => parts.push(format!("{}\n", rest.trim_start())),
            _ => {
                let part = parts.last_mut().expect("never empty");
                part.push_str(line);
                part.push('\n');
            }
        }
    }
    parts.retain(|part| part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    parts
}

fn objects(snapshot: &Snapshot) -> Result<Vec<Document>> {
    fn document(kind: Kind, name: ObjectName, object: &impl Serialize) -> Result<Document> {
        let object_ref = ObjectRef { kind, name };
        let text = serde_json::to_string_pretty(object).with_context(|| format!("{object_ref} as JSON"))?;
        Ok(Document { object: object_ref, text })
    }
    let namespaces = snapshot.namespaces.iter().map(|(n, o)| document(Kind::Namespace, ObjectName::new("", n), o));
    let pods = snapshot.pods.iter().map(|(n, o)| document(Kind::Pod, n.clone(), &o.manifest(n)));
    let services = snapshot.services.iter().map(|(n, o)| document(Kind::Service, n.clone(), o));
    let policies = snapshot.policies.iter().map(|(n, o)| document(Kind::NetworkPolicy, n.clone(), o));
    namespaces.chain(pods).chain(services).chain(policies).collect()
}

/// Every object of one namespace, and the namespace itself.
pub(crate) fn in_namespace(snapshot: &Snapshot, namespace: &str) -> Vec<ObjectRef> {
    let of = |kind: Kind, names: Vec<&ObjectName>| {
        let own = names.into_iter().filter(|name| name.namespace == namespace).cloned();
        own.map(|name| ObjectRef { kind, name }).collect::<Vec<_>>()
    };
    let mut objects = of(Kind::Pod, snapshot.pods.keys().collect());
    objects.extend(of(Kind::Service, snapshot.services.keys().collect()));
    objects.extend(of(Kind::NetworkPolicy, snapshot.policies.keys().collect()));
    objects.push(ObjectRef::new(Kind::Namespace, namespace));
    objects
}

/// The directory itself.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// On an existing directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Stores or replaces one object.
    pub fn put(&self, document: &Document) -> Result<PathBuf> {
        let path = self.dir.join(document.object.file_name());
        replace_file(&path, document.text.as_bytes())?;
        Ok(path)
    }

    /// Removes one object; false when it was not there.
    pub fn remove(&self, object: &ObjectRef) -> Result<bool> {
        let path = self.dir.join(object.file_name());
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    /// All objects, as sluice-control reads them.
    pub fn snapshot(&self) -> Snapshot {
        load_paths(std::slice::from_ref(&self.dir)).snapshot
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_split_at_its_markers_and_nowhere_else() {
        let text = "# head\n---\nkind: A\ntext: |\n  ---\n  x\n--- # note\nkind: B\n---\n# nothing\n---\n";
        let parts = split_documents(text);
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert!(parts[0].contains("  ---\n"));
        assert!(parts[1].contains("kind: B"));
    }

    #[test]
    fn text_is_kept_and_a_list_is_taken_apart() {
        let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: dns}\nspec:\n  podSelector: {}\n  egress:\n  - to:\n    ports:\n    - port : 53\n";
        let documents = parse_documents(policy).unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].text, policy);
        assert_eq!(documents[0].object, ObjectRef::new(Kind::NetworkPolicy, "dns"));
        let item = |name: &str| {
            format!(
                "- {{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: x}}, spec: {{containers: [{{name: c, image: nginx}}]}}}}\n"
            )
        };
        let list = format!("apiVersion: v1\nkind: List\nitems:\n{}{}", item("a"), item("b"));
        let names: Vec<String> = parse_documents(&list).unwrap().iter().map(|document| document.object.to_string()).collect();
        assert_eq!(names, ["pod x/a", "pod x/b"]);
        assert!(parse_documents("kind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: []}\n").is_err());
    }

    #[test]
    fn kinds_read_as_kubectl_reads_them() {
        for (text, kind) in [("netpol", Kind::NetworkPolicy), ("Pods", Kind::Pod), ("svc", Kind::Service), ("ns", Kind::Namespace)] {
            assert_eq!(text.parse::<Kind>().unwrap(), kind);
        }
        assert!("deployment".parse::<Kind>().is_err());
    }
}
