//! A directory of YAML and JSON manifests.

use crate::resource::Resource;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why manifests could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file or the directory cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its suffix says.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

/// Objects, and the resources that CustomResourceDefinitions among them define.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// Resources to register before the objects are loaded.
    pub resources: Vec<Resource>,
    /// Objects in the order of the file names, members of lists one by one.
    pub objects: Vec<Value>,
}

impl Manifests {
    /// Reads every `.yaml`, `.yml` and `.json` file of a directory, in the order of their names.
    ///
    /// Errors: a file that cannot be read or parsed.
    pub fn read(directory: &Path) -> Result<Self, ManifestError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ManifestError::Io { path, source }
        };
        let entries = std::fs::read_dir(directory).map_err(io(directory))?;
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(io(directory))?;
        paths.sort();
        let mut manifests = Self::default();
        for path in paths.iter().filter(|path| is_manifest(path)) {
            let text = std::fs::read_to_string(path).map_err(io(path))?;
            let documents = serde_saphyr::from_multiple::<Value>(&text)
                .map_err(|error| ManifestError::Syntax { path: path.clone(), message: error.to_string() })?;
            documents.into_iter().for_each(|document| manifests.add(document));
        }
        Ok(manifests)
    }

    fn add(&mut self, mut document: Value) {
        if document.is_null() {
            return;
        }
        if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
            && let Value::Array(items) = document["items"].take()
        {
            items.into_iter().for_each(|item| self.add(item));
        } else if document["kind"] == "CustomResourceDefinition" {
            self.resources.extend(Resource::from_crd(&document));
        } else {
            self.objects.push(document);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| ["yaml", "yml", "json"].iter().any(|known| suffix == *known))
}
