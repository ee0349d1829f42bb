//! Manifests for analysis: the objects that enforcement would read, and the pods that workloads would make.

use super::error::ManifestError;
use super::template::{self, Template, Workload};
use super::{Loaded, ManifestSet, defaults, read_paths};
use crate::ObjectName;
use crate::pod::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What manifests say, workloads included.
#[derive(Debug, Clone, Default)]
pub struct ClusterManifests {
    /// As [`super::load_paths`] gives it, plus one pod without an address for each workload of which no pod is there.
    pub loaded: Loaded,
    /// The workload behind each pod that a template gave.
    pub workloads: BTreeMap<ObjectName, Workload>,
}

/// Loads files and directories once, like [`super::load_paths`], and the pod templates in them. `-` is standard input.
///
/// A workload whose pods are in the manifests too (the dump of a running cluster has both) adds nothing, and so does
/// one that another workload made. Never use the result to enforce: a template is no pod.
///
/// ```
/// use sluice_policy::load::load_cluster_paths;
/// let cluster = load_cluster_paths(&["/nonexistent/web.yaml".into()]);
/// assert_eq!(cluster.loaded.errors.len(), 1);
/// ```
pub fn load_cluster_paths(paths: &[PathBuf]) -> ClusterManifests {
    load(read_paths(paths))
}

/// [`load_cluster_paths`] for one text; `name` stands for the file in messages.
pub fn load_cluster_str(name: &str, text: &str) -> ClusterManifests {
    load(vec![(Path::new(name).to_path_buf(), Ok(text.as_bytes().to_vec()))])
}

fn load(files: Vec<(PathBuf, io::Result<Vec<u8>>)>) -> ClusterManifests {
    let (mut templates, mut errors) = (Vec::new(), Vec::new());
    for (file, bytes) in &files {
        let Ok(bytes) = bytes else { continue };
        let (found, wrong) = template::read(file, bytes);
        templates.extend(found.into_iter().map(|template| (file.clone(), template)));
        errors.extend(wrong);
    }
    let mut cluster = ClusterManifests { loaded: ManifestSet::load(files), workloads: BTreeMap::new() };
    cluster.loaded.errors.extend(errors);
    cluster.add(templates);
    cluster
}

impl ClusterManifests {
    fn add(&mut self, templates: Vec<(PathBuf, Template)>) {
        let owners: BTreeSet<(String, ObjectName)> =
            templates.iter().map(|(_, template)| (template.workload.kind.to_owned(), template.workload.name.clone())).collect();
        let mut first: BTreeMap<(&'static str, ObjectName), (PathBuf, u32)> = BTreeMap::new();
        let mut made: BTreeMap<ObjectName, (Pod, Workload)> = BTreeMap::new();
        for (file, template) in templates {
            let Template { workload, owner, pod, line, column } = template;
            if let Some((first_file, first_line)) = first.get(&(workload.kind, workload.name.clone())) {
                let message = format!("defined twice; the first one is in {}:{first_line}", first_file.display());
                let field = format!("{} {}", workload.kind, workload.name);
                self.loaded.errors.push(ManifestError { line, column, field, ..ManifestError::whole_file(&file, message) });
                continue;
            }
            first.insert((workload.kind, workload.name.clone()), (file, line));
            let namespace = &workload.name.namespace;
            let has_maker = owner.is_some_and(|(kind, name)| owners.contains(&(kind, ObjectName::new(namespace, name))));
            if has_maker || self.has_pods_of(&pod, namespace) {
                continue;
            }
            let taken = |name: &ObjectName| self.loaded.snapshot.pods.contains_key(name) || made.contains_key(name);
            let name = if taken(&workload.name) {
                // Not a name that a real pod could have.
                ObjectName::new(namespace, format!("{} ({})", workload.name.name, workload.kind))
            } else {
                workload.name.clone()
            };
            made.insert(name, (pod, workload));
        }
        for (name, (pod, workload)) in made {
            let namespaces = &mut self.loaded.snapshot.namespaces;
            namespaces.entry(name.namespace.clone()).or_insert_with(|| Arc::new(defaults::implicit_namespace(&name.namespace)));
            self.loaded.snapshot.pods.insert(name.clone(), Arc::new(pod));
            self.workloads.insert(name, workload);
        }
    }

    /// Whether some pod that a controller made carries all labels of the template.
    fn has_pods_of(&self, template: &Pod, namespace: &str) -> bool {
        let Some(labels) = &template.metadata.labels else { return false };
        self.loaded.snapshot.pods.iter().any(|(name, pod)| {
            let carried = |(key, value): (&String, &String)| pod.metadata.labels.as_ref().and_then(|own| own.get(key)) == Some(value);
            name.namespace == namespace && pod.metadata.owner_references.is_some() && labels.iter().all(carried)
        })
    }
}
