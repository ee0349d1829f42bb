//! Where each field of a valid object stands, for whoever has something to say about objects that were accepted.
//!
//! A load for enforcement forgets its trees at once: a watched directory is parsed again at every change, and nobody asks
//! where a good field stood. A load for people keeps the trees of the policies, the texts of their files and the pod
//! templates of workloads, and nothing of it is computed before it is asked for.

use super::node::{Body, Node, Path as Field, Place};
use super::object::ObjectId;
use super::template::TemplatePods;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a loader remembers beside the objects.
#[derive(Debug, Default)]
pub struct Sources {
    pub(super) texts: BTreeMap<PathBuf, Text>,
    pub(super) trees: BTreeMap<ObjectId, (Arc<Path>, Node)>,
    pub(super) workloads: Vec<TemplatePods>,
    /// Namespaces with a workload whose pods cannot be told.
    pub(super) opaque: BTreeSet<String>,
}

/// A place in a file, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) file: PathBuf,
    /// 1-based, like `column`.
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) source_line: Option<String>,
}

/// How a field was written, before defaulting made most of these equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Not there.
    Absent,
    /// There, with nothing after the colon, or an explicit null.
    Null,
    /// `[]`
    EmptyList,
    /// Anything else.
    Value,
}

impl Sources {
    /// Pod templates of Deployments and their like.
    pub(crate) fn workloads(&self) -> &[TemplatePods] {
        &self.workloads
    }

    /// Namespaces of which some workload's pods cannot be told.
    pub(crate) fn opaque_namespaces(&self) -> &BTreeSet<String> {
        &self.opaque
    }

    /// Where a field of an object stands: a scalar's value, else its key; the nearest enclosing thing if the field is not
    /// there. `None` for an object that this load did not give.
    pub(crate) fn spot(&self, id: &ObjectId, field: &Field) -> Option<Spot> {
        let (file, tree) = self.trees.get(id)?;
        let Place { line, column } = tree.locate(field);
        let source_line = self.texts.get(&**file).and_then(|text| text.line(line));
        Some(Spot { file: file.to_path_buf(), line, column, source_line })
    }

    /// How a field of an object was written.
    pub(crate) fn written(&self, id: &ObjectId, field: &Field) -> Written {
        let node = self.trees.get(id).and_then(|(_, tree)| tree.find(field));
        match node.map(|node| &node.body) {
            None => Written::Absent,
            Some(Body::Null) => Written::Null,
            Some(Body::List(items)) if items.is_empty() => Written::EmptyList,
            Some(_) => Written::Value,
        }
    }
}

/// A file's text with its lines indexed: thousands of findings may each want one.
#[derive(Debug)]
pub(super) struct Text {
    text: String,
    starts: Vec<usize>,
}

impl Text {
    pub(super) fn new(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text: text.to_owned(), starts }
    }

    fn line(&self, line: u32) -> Option<String> {
        let index = usize::try_from(line.checked_sub(1)?).ok()?;
        let rest = &self.text[*self.starts.get(index)?..];
        super::error::shown(rest.lines().next()?)
    }
}
