//! Pod templates: what Deployments and their kin would run, for questions asked before anything runs.
//!
//! People keep workloads in their manifests, not Pods. Enforcement never reads them, because the pods that matter to a
//! node come with their own objects; an analysis of manifests alone has nothing else. So this module is beside the
//! loader, not inside: the bytes are parsed a second time, and what a node enforces cannot depend on it.
//!
//! A template is decoded, defaulted and validated as the Pod that it describes, and a mistake in it is reported with
//! the line and column of the workload's document.

use super::document::{self, located, parse};
use super::error::{ManifestError, Problem, Problems};
use super::hints;
use super::node::{Body, Entry, Node, Path as Field};
use super::object::{Kind, Object};
use crate::ObjectName;
use crate::pod::Pod;
use std::path::Path;

/// A kind whose objects make pods.
struct WorkloadKind {
    name: &'static str,
    groups: &'static [&'static str],
    template: &'static str,
}

const KINDS: [WorkloadKind; 7] = [
    WorkloadKind { name: "Deployment", groups: &["apps", "extensions"], template: "spec.template" },
    WorkloadKind { name: "StatefulSet", groups: &["apps"], template: "spec.template" },
    WorkloadKind { name: "DaemonSet", groups: &["apps", "extensions"], template: "spec.template" },
    WorkloadKind { name: "ReplicaSet", groups: &["apps", "extensions"], template: "spec.template" },
    WorkloadKind { name: "ReplicationController", groups: &[""], template: "spec.template" },
    WorkloadKind { name: "Job", groups: &["batch"], template: "spec.template" },
    WorkloadKind { name: "CronJob", groups: &["batch"], template: "spec.jobTemplate.spec.template" },
];

/// An object that makes pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// `Deployment`, `StatefulSet` and so on.
    pub kind: &'static str,
    /// Its own name.
    pub name: ObjectName,
    /// `spec.replicas`, where it is stated.
    pub replicas: Option<u64>,
}

/// A template as it stands in a file.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) workload: Workload,
    /// Kind and name of the controller that made the workload itself, such as the Deployment of a ReplicaSet.
    pub(super) owner: Option<(String, String)>,
    /// Named like the workload; without an address.
    pub(super) pod: Pod,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The pods of one workload, all alike.
#[derive(Debug, Clone)]
pub(crate) struct TemplatePods {
    pub(crate) namespace: String,
    /// `web (Deployment)`: no pod can be called so.
    pub(crate) title: String,
    /// Labels, ports and network of each of its pods.
    pub(crate) pod: Pod,
}

/// What a document of a kind that is none of ours says about pods.
#[derive(Debug)]
pub(super) enum Pods {
    /// Nothing.
    None,
    /// These.
    Of(Box<TemplatePods>),
    /// Some in this namespace, but the template cannot be read.
    Opaque(String),
}

/// The pods of one document.
pub(super) fn pods(node: &Node, lines: &[&str]) -> Pods {
    let written = node.get("kind").and_then(Node::text).unwrap_or_default();
    let Some(kind) = KINDS.iter().find(|kind| kind.name == written && kind.is_of(node)) else { return Pods::None };
    match template(node, kind, lines) {
        Ok(Template { workload: Workload { name, .. }, pod, .. }) => {
            Pods::Of(Box::new(TemplatePods { namespace: name.namespace, title: format!("{} ({})", name.name, kind.name), pod }))
        }
        Err(Refused { name, .. }) => {
            let stated = || node.get("metadata").and_then(|metadata| metadata.get("namespace")).and_then(Node::text);
            Pods::Opaque(name.map(|name| name.namespace).or_else(|| stated().map(str::to_owned)).unwrap_or_else(|| "default".to_owned()))
        }
    }
}

/// All templates of a file, and what is wrong with them. A text that does not parse gives neither: the loader reports
/// it.
pub(super) fn read(file: &Path, bytes: &[u8]) -> (Vec<Template>, Vec<ManifestError>) {
    let (mut templates, mut errors) = (Vec::new(), Vec::new());
    let Some(text) = str::from_utf8(bytes).ok().filter(|text| KINDS.iter().any(|kind| text.contains(kind.name))) else {
        return (templates, errors);
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    for document in parse(file, text).unwrap_or_default() {
        each_object(&document, None, &mut |node, kind| match template(node, kind, &lines) {
            Ok(template) => templates.push(template),
            Err(Refused { name, node: at, problems }) => {
                let subject = name.map_or_else(|| kind.name.to_owned(), |name| format!("{} {name}", kind.name));
                errors.extend(problems.into_iter().map(|problem| {
                    let field = format!("{subject}: {}", field(&problem.path, kind));
                    ManifestError { field, ..located(file, &lines, &at, None, problem) }
                }));
            }
        });
    }
    (templates, errors)
}

/// Why a template is not used. `node` is the pod that it describes, in the places of the document.
struct Refused {
    name: Option<ObjectName>,
    node: Node,
    problems: Vec<Problem>,
}

/// Visits the workloads of a document, lists taken apart; recursion is bounded by the depth of the tree.
fn each_object(node: &Node, inherited: Option<&'static WorkloadKind>, visit: &mut impl FnMut(&Node, &'static WorkloadKind)) {
    let written = node.get("kind").and_then(Node::text).unwrap_or_default();
    if let Some(item) = written.strip_suffix("List") {
        let item = KINDS.iter().find(|kind| kind.name == item);
        if let Some(Body::List(items)) = node.get("items").map(|items| &items.body) {
            items.iter().for_each(|one| each_object(one, item, visit));
        }
    } else if written.is_empty() {
        inherited.into_iter().for_each(|kind| visit(node, kind));
    } else if let Some(kind) = KINDS.iter().find(|kind| kind.name == written && kind.is_of(node)) {
        visit(node, kind);
    }
}

impl WorkloadKind {
    /// Another project's `Job` is another kind.
    fn is_of(&self, node: &Node) -> bool {
        let version = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        version.is_empty() || self.groups.contains(&group)
    }
}

fn template(node: &Node, kind: &'static WorkloadKind, lines: &[&str]) -> Result<Template, Refused> {
    let id = document::identity(node, Kind::Pod);
    let name = id.as_ref().map(|id| ObjectName::new(&id.namespace, &id.name));
    let refused = |at: &Node, problems| Refused { name: name.clone(), node: at.clone(), problems };
    if let Some(problem) = hints::lost_indentation(node, lines) {
        return Err(refused(node, vec![problem]));
    }
    let mut problems = Problems::default();
    let Some(name) = name.clone() else {
        problems.required(&Field::of("metadata.name"), "needs a name").hint("    metadata:\n      name: ...");
        return Err(refused(node, problems.0));
    };
    let Some(template) = node.find(&Field::of(kind.template)).filter(|template| matches!(template.body, Body::Map(_))) else {
        problems.required(&Field::root(), "the template of its pods").at(Field::of("spec"));
        return Err(refused(node, problems.0));
    };
    let described = described_pod(&name, node, template);
    let pod = match document::typed(&described, Kind::Pod) {
        Ok(Object::Pod(pod)) => Pod::from(*pod),
        Ok(_) => unreachable!("a Pod was asked for"),
        Err(problems) => return Err(refused(&described, problems)),
    };
    let replicas = node.find(&Field::of("spec.replicas")).and_then(|replicas| match &replicas.body {
        Body::Number(number) => number.as_u64(),
        _ => None,
    });
    let workload = Workload { kind: kind.name, name, replicas };
    Ok(Template { workload, owner: controller(node), pod, line: node.at.line, column: node.at.column })
}

/// The document of the pod: the template's labels and spec under the workload's name.
fn described_pod(name: &ObjectName, workload: &Node, template: &Node) -> Node {
    let text = |text: &str| Node { at: workload.at, body: Body::Text(text.to_owned()) };
    let entry = |key: &str, value: Node| Entry { key: key.to_owned(), at: value.at, value };
    let at = workload.entry("metadata").map_or(workload.at, |metadata| metadata.at);
    let mut metadata = vec![entry("name", text(&name.name)), entry("namespace", text(&name.namespace))];
    let labels = template.get("metadata").and_then(|metadata| metadata.entry("labels"));
    metadata.extend(labels.cloned());
    let mut entries = vec![
        entry("apiVersion", text(Kind::Pod.api_version())),
        entry("kind", text(Kind::Pod.name())),
        Entry { key: "metadata".to_owned(), at, value: Node { at, body: Body::Map(metadata) } },
    ];
    entries.extend(template.entry("spec").cloned());
    Node { at: template.at, body: Body::Map(entries) }
}

fn controller(node: &Node) -> Option<(String, String)> {
    let owners = node.get("metadata")?.get("ownerReferences")?;
    let Body::List(owners) = &owners.body else { return None };
    let text = |owner: &Node, field: &str| owner.get(field).and_then(Node::text).map(str::to_owned);
    owners.iter().find_map(|owner| Some((text(owner, "kind")?, text(owner, "name")?)))
}

/// A field of the described pod, as it is called in the workload's document.
fn field(path: &Field, kind: &WorkloadKind) -> String {
    let path = path.to_string();
    match path.as_str() {
        "" => kind.template.to_owned(),
        own if own.starts_with("metadata.name") => path,
        _ => format!("{}.{path}", kind.template),
    }
}
