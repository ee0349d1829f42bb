//! The cluster as it stands at one step of a case: manifests through the real loader, attachments as a runtime would make
//! them, both merged as the control process does.

use super::objects::Object;
use sluice_control::Merger;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::load::{Loaded, ManifestSet};
use sluice_policy::{Objects, Oracle, Snapshot, compile};
use sluice_table::Table;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module.
#[derive(Default)]
pub(super) struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    manifests: ManifestSet,
    merger: Merger,
    /// Sandboxes on this node.
    attached: BTreeMap<ObjectName, LocalEndpoint>,
    /// How often each port was used.
    incarnations: BTreeMap<PortIndex, u32>,
    /// This node's addresses.
    pub(super) node: Vec<IpAddr>,
    /// What is compiled.
    pub(super) snapshot: Snapshot,
    generation: u64,
}

impl State {
    pub(super) fn put(&mut self, object: &Object) -> Result<(), String> {
        self.files.insert(object.file(), object.manifest(&self.node, true).into_bytes());
        self.reload();
        let Object::Pod(pod) = object else { return Ok(()) };
        let name = ObjectName::new(&*pod.namespace, &*pod.name);
        match pod.is_attached_here() {
            true => self.attach(&name, &pod.addresses),
            false => {
                self.detach(&name);
                Ok(())
            }
        }
    }

    /// Removes a file; a pod's sandbox with it.
    pub(super) fn delete(&mut self, file: &Path) -> Result<(), String> {
        self.files.remove(file).ok_or_else(|| format!("there is no {}", file.display()))?;
        let pod = file.strip_prefix("pod").ok().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".yaml"));
        if let Some(pod) = pod {
            self.attached.remove(&ObjectName::parse(pod));
        }
        self.reload();
        Ok(())
    }

    /// Removes a pod's object only.
    pub(super) fn forget(&mut self, pod: &ObjectName) -> Result<(), String> {
        let file = super::objects::file_of("pod", &pod.to_string());
        self.files.remove(&file).ok_or_else(|| format!("there is no pod {pod}"))?;
        self.reload();
        Ok(())
    }

    /// A sandbox is attached, in place of an earlier one of that name with other addresses.
    pub(super) fn attach(&mut self, pod: &ObjectName, addresses: &[IpAddr]) -> Result<(), String> {
        if self.attached.get(pod).is_some_and(|endpoint| endpoint.addresses == addresses) {
            return Ok(());
        }
        self.detach(pod);
        let taken = |index: &PortIndex| self.attached.values().any(|endpoint| endpoint.port == *index);
        let port = (0..PORTS_MAX as u16).map(PortIndex).find(|index| !taken(index)).ok_or("this node has no port left")?;
        let incarnation = self.incarnations.entry(port).or_insert(0);
        *incarnation += 1;
        let (incarnation, addresses) = (Incarnation(*incarnation), addresses.to_vec());
        self.attached.insert(pod.clone(), LocalEndpoint { port, incarnation, pod: pod.clone(), uid: String::new(), addresses });
        self.reload();
        Ok(())
    }

    fn detach(&mut self, pod: &ObjectName) {
        if self.attached.remove(pod).is_some() {
            self.reload();
        }
    }

    fn reload(&mut self) {
        let files = self.files.iter().map(|(path, bytes)| (path.clone(), Ok(bytes.clone()))).collect();
        let objects = &self.manifests.update(files).snapshot;
        let endpoints: Vec<_> = self.attached.values().cloned().collect();
        self.snapshot = self.merger.merge(objects, &endpoints);
    }

    /// A new control process: it knows what the files and the dataplane say now, nothing else.
    pub(super) fn restart(&mut self) {
        (self.manifests, self.merger) = (ManifestSet::new(), Merger::default());
        self.reload();
    }

    /// What the loader says, refusals included.
    pub(super) fn loaded(&self) -> &Loaded {
        self.manifests.loaded()
    }

    /// The bytes that the control process would publish now.
    pub(super) fn image(&mut self) -> Result<Vec<u8>, String> {
        self.generation += 1;
        compile(&self.snapshot, self.generation).map(|image| image.to_vec()).map_err(|refusal| format!("the compiler refuses: {refusal}"))
    }

    /// What would be published next if all policies went.
    pub(super) fn image_without_policies(&mut self) -> Result<Vec<u8>, String> {
        self.generation += 1;
        let without = Snapshot { policies: Objects::new(), ..self.snapshot.clone() };
        compile(&without, self.generation).map(|image| image.to_vec()).map_err(|refusal| format!("the compiler refuses: {refusal}"))
    }

    /// The table that a worker would adopt now.
    pub(super) fn table(&mut self) -> Result<Arc<Table>, String> {
        Ok(Arc::new(Table::from_bytes(&self.image()?).map_err(|refusal| format!("the image is refused: {refusal}"))?))
    }

    /// The attachment of a pod on this node.
    pub(super) fn endpoint(&self, pod: &ObjectName) -> Option<&LocalEndpoint> {
        self.attached.get(pod)
    }

    /// All attachments.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &LocalEndpoint> {
        self.attached.values()
    }

    /// The addresses under which a pod sends: its sandbox's, else what its status says.
    pub(super) fn addresses_of(&self, pod: &ObjectName) -> Vec<IpAddr> {
        match self.attached.get(pod) {
            Some(endpoint) => endpoint.addresses.clone(),
            None => Oracle::new(&self.snapshot).stated_addresses_of(pod),
        }
    }

    /// The address of a pod or of `node` in a family.
    pub(super) fn address(&self, name: &str, v4: bool) -> Result<IpAddr, String> {
        let addresses = if name == "node" { self.node.clone() } else { self.addresses_of(&ObjectName::parse(name)) };
        let found = addresses.into_iter().find(|address| address.is_ipv4() == v4);
        found.ok_or_else(|| format!("{name} has no {} address", if v4 { "IPv4" } else { "IPv6" }))
    }
}
