//! What comes in over the socket.

use super::Keeper;
use super::found::still_there;
use super::registry::Registered;
use crate::netlink::Link;
use crate::permission::refusal;
use crate::trunk::TRUNK_MTU;
use crate::veth::Fingerprint;
use crate::worker::Command;
use anyhow::{Context, Result, bail};
use sluice_bpf::Hooks;
use sluice_bpf::abi::TRUNK_BYTES;
use sluice_flow::limits::{POD_MTU_MAX, PORT_ADDRESSES_MAX};
use sluice_flow::{LocalEndpoint, PortIndex};
use sluice_wire::{AddPort, Connection, FromDataplane, PeerCredentials, ToDataplane, WIRE_VERSION, WireError};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use tracing::{info, warn};

const _: () = assert!(POD_MTU_MAX as usize + TRUNK_BYTES + 14 <= TRUNK_MTU as usize);

/// A connected process.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: Connection,
    peer: PeerCredentials,
}

/// A CNI ADD that waits for its pod to be under policy.
#[derive(Debug)]
pub(super) struct WaitingAdd {
    client: u64,
    endpoint: LocalEndpoint,
    since: Instant,
    deadline: Instant,
}

impl Keeper {
    pub(super) fn accept(&mut self) -> Result<()> {
        loop {
            let connection = match self.listener.accept() {
                Ok(Some(connection)) => connection,
                Ok(None) => break,
                Err(error) => {
                    // a client that went away, or no descriptors left: nothing that should end enforcement
                    warn!(%error, "a connection could not be accepted");
                    break;
                }
            };
            let Ok(peer) = connection.peer() else { continue };
            connection.set_nonblocking(true)?;
            self.clients.insert(self.next_client, Client { connection, peer });
            self.next_client += 1;
        }
        Ok(())
    }

    pub(super) fn serve_client(&mut self, id: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else { return };
            let peer = client.peer;
            match client.connection.recv::<ToDataplane>() {
                Ok(Some((request, fd))) => self.request(id, peer, request, fd),
                Ok(None) => return,
                Err(error) => {
                    if !matches!(error, WireError::Closed) {
                        warn!(pid = peer.pid, %error, "a client was disconnected");
                        self.answer(id, &FromDataplane::Failed { reason: error.to_string() });
                    }
                    self.disconnect(id);
                    return;
                }
            }
        }
    }

    fn disconnect(&mut self, id: u64) {
        self.clients.remove(&id);
        if self.control == Some(id) {
            self.control = None;
            warn!("control disconnected; the last table stays in force");
        }
        // a CNI plugin that went away before its answer: the runtime will call DEL
    }

    pub(super) fn answer(&mut self, id: u64, message: &FromDataplane) {
        self.answer_with(id, message, None);
    }

    fn answer_with(&mut self, id: u64, message: &FromDataplane, fd: Option<&OwnedFd>) {
        let Some(client) = self.clients.get(&id) else { return };
        if client.connection.send(message, fd.map(AsFd::as_fd)).is_err() {
            self.disconnect(id);
        }
    }

    pub(super) fn tell_control(&mut self, message: &FromDataplane) {
        if let Some(control) = self.control {
            self.answer(control, message);
        }
    }

    fn request(&mut self, id: u64, peer: PeerCredentials, request: ToDataplane, fd: Option<OwnedFd>) {
        if let Some(reason) = refusal(&request, peer.uid, self.arguments.control_user) {
            warn!(pid = peer.pid, reason, "a request was refused");
            return self.answer(id, &FromDataplane::Failed { reason });
        }
        let outcome = match request {
            ToDataplane::Control { wire_version } => self.control(id, wire_version),
            ToDataplane::Publish { generation, image_bytes } if self.control == Some(id) => {
                self.publish(generation, image_bytes, fd);
                return;
            }
            ToDataplane::Publish { .. } => Err(anyhow::anyhow!("say Control first: only one process publishes")),
            ToDataplane::AddPort(add) => match self.add_port(id, add) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            ToDataplane::DelPort { container_id, ifname, host_ifindex } => {
                self.del_port(&container_id, &ifname, host_ifindex).map(|()| FromDataplane::Done)
            }
            ToDataplane::CheckPort { container_id, ifname, host_ifindex, addresses } => {
                self.check_port(&container_id, &ifname, host_ifindex, &addresses).map(|()| FromDataplane::Done)
            }
            ToDataplane::Found => Ok(FromDataplane::Found { devices: self.found_devices() }),
            ToDataplane::Identify { identities } => self.identify(identities).map(|()| FromDataplane::Done),
            ToDataplane::Offload { on } => {
                warn!(on, "offload switched by request");
                self.loaded.set_every_packet(!on);
                Ok(FromDataplane::Done)
            }
            ToDataplane::Enforce { on } => self.enforce(on).map(|()| FromDataplane::Done),
            ToDataplane::Status => Ok(FromDataplane::Status(self.status())),
            ToDataplane::Ports => Ok(FromDataplane::Ports { ports: self.port_infos() }),
            ToDataplane::Rules => self.rule_counts(),
            ToDataplane::Cuts => Ok(FromDataplane::Cuts { cuts: self.cuts.list() }),
            ToDataplane::Connections { pod, max } => self.connection_infos(pod.as_ref(), max as usize),
            ToDataplane::Table => match &self.image {
                Some(image) => {
                    let message = FromDataplane::Table { generation: image.table.generation(), image_bytes: image.table.image_bytes() };
                    match image.memfd.try_clone() {
                        Ok(memfd) => return self.answer_with(id, &message, Some(&memfd)),
                        Err(error) => Err(error.into()),
                    }
                }
                None => Err(anyhow::anyhow!("no table has been adopted yet")),
            },
        };
        let answer = outcome.unwrap_or_else(|error| FromDataplane::Failed { reason: format!("{error:#}") });
        self.answer(id, &answer);
    }

    fn control(&mut self, id: u64, wire_version: u32) -> Result<FromDataplane> {
        if wire_version != WIRE_VERSION {
            bail!("control speaks version {wire_version}, this dataplane {WIRE_VERSION}");
        }
        if let Some(old) = self.control.replace(id)
            && old != id
        {
            self.clients.remove(&old);
        }
        self.found.ask_anew();
        info!("control connected");
        Ok(self.endpoints_message())
    }

    pub(super) fn endpoints_message(&self) -> FromDataplane {
        let newest = self.adopting.as_ref().map_or(self.generation(), |adopting| adopting.generation());
        FromDataplane::Endpoints { endpoints: self.registry.endpoints(), generation: newest }
    }

    /// Closes the pod's device at once, and answers when a table that knows the pod is in force.
    fn add_port(&mut self, id: u64, add: AddPort) -> Result<()> {
        let since = Instant::now();
        let link = self.check_attachment(&add)?;
        // the runtime may repeat an ADD that it gave up on
        if let Some(old) = self.registry.find(&add.container_id, &add.ifname).cloned() {
            self.forget(&old);
        }
        self.refresh_node_addresses();
        let registered = self.register(&add, &link)?;
        info!(pod = %add.pod, port = registered.endpoint.port.0, device = add.host_ifname, "port closed until a table knows its pod");
        let deadline = since + Duration::from_millis(add.deadline_ms);
        self.adds.push(WaitingAdd { client: id, endpoint: registered.endpoint, since, deadline });
        let message = self.endpoints_message();
        self.tell_control(&message);
        Ok(())
    }

    /// A closed port on a checked device.
    pub(super) fn register(&mut self, add: &AddPort, link: &Link) -> Result<Registered> {
        let device = Fingerprint::of(link).context("the host's end has no Ethernet address")?;
        let registered = self.registry.add(add, device, self.trunks.len() as u32)?;
        if let Err(error) = self.open_slot(&registered) {
            self.forget(&registered);
            return Err(error);
        }
        self.found.is_port_now(registered.host_ifindex);
        Ok(registered)
    }

    pub(super) fn check_attachment(&mut self, add: &AddPort) -> Result<Link> {
        let name = &add.host_ifname;
        let link = self.netlink.link_by_index(add.host_ifindex)?;
        let link = link.with_context(|| format!("no device with index {} ({name}) in the node's network namespace", add.host_ifindex))?;
        if link.name != *name {
            bail!("device {} is called {}, not {name}", add.host_ifindex, link.name);
        }
        if !link.is_veth {
            bail!("{name} is no veth: this release serves pods attached by veth and routed by the kernel");
        }
        if let Some(bridge) = link.controller {
            bail!("{name} belongs to bridge or bond {bridge}: this release serves pods routed by the kernel (ptp, kindnet, Calico-like)");
        }
        if link.mtu > POD_MTU_MAX {
            bail!("{name} has MTU {}, this release serves up to {POD_MTU_MAX}", link.mtu);
        }
        let v4 = add.addresses.iter().filter(|address| address.is_ipv4()).count();
        if add.addresses.is_empty() || v4 > 1 || add.addresses.len() - v4 > 1 || add.addresses.len() > PORT_ADDRESSES_MAX {
            bail!("a pod has one address of each family at most, and one at least; got {:?}", add.addresses);
        }
        let taken = self.registry.iter().find(|port| {
            let same_attachment = port.container_id == add.container_id && port.ifname == add.ifname;
            !same_attachment && (port.host_ifindex == add.host_ifindex || port.endpoint.addresses.iter().any(|a| add.addresses.contains(a)))
        });
        if let Some(taken) = taken.cloned() {
            // its device vanished without a DEL; or the pod was adopted, and now its runtime speaks
            let there = self.netlink.link_by_index(taken.host_ifindex)?;
            let is_gone = still_there(&mut self.netlink, &taken, there)?.is_none();
            if is_gone || (taken.is_adopted() && taken.host_ifindex == add.host_ifindex) {
                self.forget(&taken);
                return self.check_attachment(add);
            }
            bail!("device or address is registered for {} (container {})", taken.endpoint.pod, taken.container_id);
        }
        Ok(link)
    }

    /// The slot first, closed; then the hooks: from their first packet on they drop.
    fn open_slot(&mut self, registered: &Registered) -> Result<()> {
        let port = registered.endpoint.port;
        let index = usize::from(port.0);
        let trunk_ifindex = self.trunks[registered.worker as usize].near_ifindex;
        let slot = registered.slot(trunk_ifindex, &self.loaded.ports.read(index));
        self.loaded.ports.write(index, slot);
        // what an earlier pod of this index opened is not this one's
        self.loaded.reset_ration(index);
        self.loaded.port_of_ifindex.put(&registered.host_ifindex, &u32::from(port.0))?;
        self.note_addresses(registered)?;
        if self.enforcing {
            self.loaded.attach(Hooks::Device, registered.host_ifindex)?;
        }
        Ok(())
    }

    /// Takes the hooks off all ports, or puts them back.
    fn enforce(&mut self, on: bool) -> Result<()> {
        warn!(on, "enforcement switched by request");
        // before the first hook defers anything, and not while none does
        match on {
            true => self.loaded.guard_node()?,
            false => self.loaded.unguard_node(),
        }
        self.deferring = on;
        let (mut gone, mut failed) = (Vec::new(), Vec::new());
        for port in self.registry.iter() {
            if !on {
                self.loaded.detach(Hooks::Device, port.host_ifindex);
                continue;
            }
            if self.netlink.link_by_index(port.host_ifindex)?.is_none() {
                gone.push(port.clone());
            } else if let Err(error) = self.loaded.attach(Hooks::Device, port.host_ifindex) {
                failed.push(format!("{}: {error}", port.endpoint.pod));
            }
        }
        self.enforcing = on && failed.is_empty();
        for port in gone {
            self.forget(&port);
        }
        self.enforce_on_found(on)?;
        self.look_at_shortcuts();
        let links = self.netlink.links()?;
        self.keep_uplinks(&links);
        if !failed.is_empty() {
            bail!("not enforced everywhere: {}", failed.join("; "));
        }
        Ok(())
    }

    /// Undoes everything about a port. Whoever waits for it is told.
    pub(super) fn forget(&mut self, registered: &Registered) {
        let port: PortIndex = registered.endpoint.port;
        self.clear_slot(port);
        self.found.speak_for(registered.host_ifindex, registered.fingerprint());
        self.command(registered.worker as usize, Command::ForgetPort(port));
        let waiting: Vec<u64> = self.adds.extract_if(.., |add| add.endpoint.port == port).map(|add| add.client).collect();
        for client in waiting {
            let reason =
                format!("{}: the port was removed while ADD waited: by DEL, by another ADD, or with its device", registered.endpoint.pod);
            self.answer(client, &FromDataplane::Failed { reason });
        }
        self.registry.remove(port);
        let message = self.endpoints_message();
        self.tell_control(&message);
    }

    /// Also a pod that was adopted, by its device: nobody had named its sandbox.
    fn registered(&self, container_id: &str, ifname: &str, host_ifindex: Option<u32>) -> Option<Registered> {
        let adopted = || self.registry.adopted_at(host_ifindex?);
        self.registry.find(container_id, ifname).or_else(adopted).cloned()
    }

    fn del_port(&mut self, container_id: &str, ifname: &str, host_ifindex: Option<u32>) -> Result<()> {
        if let Some(registered) = self.registered(container_id, ifname, host_ifindex) {
            info!(pod = %registered.endpoint.pod, port = registered.endpoint.port.0, "port removed");
            self.forget(&registered);
        } else if let Some(link) = host_ifindex.map(|index| self.netlink.link_by_index(index)).transpose()?.flatten()
            && let Some(device) = Fingerprint::of(&link)
        {
            // about to go: not to be adopted any more
            self.found.speak_for(link.index, device);
        }
        Ok(())
    }

    fn check_port(&mut self, container_id: &str, ifname: &str, host_ifindex: Option<u32>, addresses: &[IpAddr]) -> Result<()> {
        let found = self.registered(container_id, ifname, host_ifindex);
        let registered = found.with_context(|| format!("no port for container {container_id}, interface {ifname}"))?;
        let pod = &registered.endpoint.pod;
        let link = self.netlink.link_by_index(registered.host_ifindex)?;
        if still_there(&mut self.netlink, &registered, link)?.is_none() {
            bail!("{pod}: {} is gone, or another device by now", registered.host_ifname);
        }
        if host_ifindex.is_some_and(|index| index != registered.host_ifindex) {
            bail!("{pod}: the sandbox's {ifname} leads to another device than {}", registered.host_ifname);
        }
        if let Some(unknown) = addresses.iter().find(|address| !registered.endpoint.addresses.contains(address)) {
            bail!("{pod}: {unknown} is none of the addresses that were registered: {:?}", registered.endpoint.addresses);
        }
        if !self.loaded.attached(Hooks::Device, registered.host_ifindex) {
            bail!("{pod}: the hooks on {} are gone", registered.host_ifname);
        }
        if !self.is_under_policy(&registered.endpoint) {
            bail!("{pod}: the table in force does not know the pod; its port is closed");
        }
        Ok(())
    }

    fn is_under_policy(&self, endpoint: &LocalEndpoint) -> bool {
        self.image.as_ref().is_some_and(|image| image.table.endpoint(endpoint.port) == Some(endpoint.incarnation))
    }

    /// Answers ADDs whose pod is under policy now, and those whose time is over.
    pub(super) fn finish_adds(&mut self) {
        let now = Instant::now();
        for add in std::mem::take(&mut self.adds) {
            if self.is_under_policy(&add.endpoint) && self.is_open(add.endpoint.port) {
                let LocalEndpoint { port, incarnation, .. } = add.endpoint;
                let (generation, took_us) = (self.generation(), add.since.elapsed().as_micros() as u64);
                self.answer(add.client, &FromDataplane::PortAdded { port, incarnation, generation, took_us });
            } else if now >= add.deadline {
                let pod = &add.endpoint.pod;
                let reason = match self.control {
                    None => format!("{pod} cannot be put under policy: sluice-control is not connected"),
                    Some(_) => format!(
                        "{pod} is in no published table: control does not know the pod yet, or refused the snapshot (see sluicectl status)"
                    ),
                };
                warn!(%reason, "ADD failed");
                if let Some(registered) = self.registry.by_port(add.endpoint.port).cloned() {
                    self.forget(&registered);
                }
                self.answer(add.client, &FromDataplane::Failed { reason });
            } else {
                self.adds.push(add);
            }
        }
    }

    fn is_open(&self, port: PortIndex) -> bool {
        self.loaded.ports.read(usize::from(port.0)).state_bits() & sluice_bpf::abi::PORT_OPEN != 0
    }
}
