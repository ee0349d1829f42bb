//! Who is behind the devices that the dataplane found and nobody told it of: pods that ran before it did.
//!
//! A pod is proven by its addresses: it runs on this node, on a network of its own, has not ended, and has exactly the
//! addresses that the node's routes lead to over the device; and no other pod of this node has them. Routes are the
//! node's, and the status is the kubelet's, so a pod can claim neither.
//!
//! Answers go over a connection of their own, so that they cannot get between the parts of a publication.

use crate::view::Views;
use sluice_flow::ObjectName;
use sluice_policy::Objects;
use sluice_policy::pod::Pod;
use sluice_wire::{Connection, FoundDevice, FromDataplane, Identified, Identity, ToDataplane, WireError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Between two looks at the pods, as long as a device waits: its pod's object may still be on its way.
const AGAIN: Duration = Duration::from_millis(250);
/// Without a waiting device.
const IDLE: Duration = Duration::from_secs(3600);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Starts the thread; it ends with the returned sender, which takes all devices that wait, whenever they change.
pub(crate) fn start(socket: PathBuf, node_name: String, views: Views) -> io::Result<Sender<Vec<FoundDevice>>> {
    let (sender, inbox) = channel();
    std::thread::Builder::new().name("identify".into()).spawn(move || run(&socket, &node_name, &views, &inbox))?;
    Ok(sender)
}

fn run(socket: &Path, node_name: &str, views: &Views, inbox: &Receiver<Vec<FoundDevice>>) {
    let (mut devices, mut said) = (Vec::new(), Vec::new());
    loop {
        match inbox.recv_timeout(if devices.is_empty() { IDLE } else { AGAIN }) {
            Ok(waiting) => (devices, said) = (waiting, Vec::new()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // before everything was read once, nobody is a stranger
        let Some(manifests) = views.borrow().manifests.clone() else { continue };
        let identities = identify(&manifests.snapshot.pods, node_name, &devices);
        if identities == said {
            continue;
        }
        match tell(socket, &identities) {
            Ok(()) => said = identities,
            Err(error) => tracing::warn!(%error, "the dataplane was not told who its found devices are"),
        }
    }
}

fn tell(socket: &Path, identities: &[Identity]) -> Result<(), WireError> {
    for identity in identities {
        let addresses = &identity.addresses;
        match &identity.answer {
            Identified::Pod { pod, uid } => tracing::info!(%pod, uid, ?addresses, "identified"),
            Identified::Nobody { reason } => tracing::warn!(reason, ?addresses, "not identified"),
        }
    }
    let mut connection = Connection::connect(socket)?;
    connection.set_send_timeout(Some(ANSWER_MAX))?;
    connection.set_receive_timeout(Some(ANSWER_MAX))?;
    match connection.call(&ToDataplane::Identify { identities: identities.to_vec() })?.0 {
        FromDataplane::Failed { reason } => Err(io::Error::other(reason).into()),
        _ => Ok(()),
    }
}

/// One answer for each device. Cost: one walk over all pods.
fn identify(pods: &Objects<ObjectName, Pod>, node_name: &str, devices: &[FoundDevice]) -> Vec<Identity> {
    let mut here: BTreeMap<BTreeSet<IpAddr>, Vec<(&ObjectName, &Pod)>> = BTreeMap::new();
    for (name, pod) in pods {
        if stands_on(pod, node_name) {
            here.entry(addresses(pod)).or_default().push((name, pod));
        }
    }
    let answer = |device: &FoundDevice| {
        let wanted: BTreeSet<IpAddr> = device.addresses.iter().map(IpAddr::to_canonical).collect();
        match here.get(&wanted).map(Vec::as_slice) {
            Some([(name, pod)]) => {
                Identified::Pod { pod: (*name).clone(), uid: pod.metadata.uid.as_deref().unwrap_or_default().to_owned() }
            }
            Some(several) => {
                let names: Vec<String> = several.iter().map(|(name, _)| name.to_string()).collect();
                Identified::Nobody { reason: format!("several pods of node {node_name} have its addresses: {}", names.join(", ")) }
            }
            None => Identified::Nobody { reason: format!("no running pod of node {node_name} has exactly its addresses") },
        }
    };
    let identity =
        |device: &FoundDevice| Identity { host_ifindex: device.host_ifindex, addresses: device.addresses.clone(), answer: answer(device) };
    devices.iter().map(identity).collect()
}

/// Whether it runs there, with addresses of its own.
pub(crate) fn stands_on(pod: &Pod, node_name: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref() == Some(node_name) && spec.host_network != Some(true) && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let Some(status) = &pod.status else { return BTreeSet::new() };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let texts = listed.chain(status.pod_ip.as_deref());
    texts.filter_map(|text| text.parse().ok()).map(|address: IpAddr| address.to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_policy::pod::{PodIp, PodSpec, PodStatus};
    use sluice_wire::FoundState;
    use std::sync::Arc;

    fn pod(node: &str, ips: &[&str]) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(format!("uid-{}", ips.join("-")).into());
        pod.spec = Some(PodSpec { node_name: Some(node.into()), ..PodSpec::default() });
        let pod_ips = ips.iter().map(|ip| PodIp { ip: (*ip).into() }).collect();
        pod.status = Some(PodStatus { phase: Some("Running".into()), pod_ips: Some(pod_ips), ..PodStatus::default() });
        pod
    }

    fn device(addresses: &[&str]) -> FoundDevice {
        FoundDevice {
            host_ifindex: 9,
            host_ifname: "veth9".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            mac: None,
            state: FoundState::Closed,
            reason: String::new(),
            awaits_identity: true,
        }
    }

    /// Who has these addresses on node n1, or why nobody.
    fn who(pods: &[(&str, Pod)], addresses: &[&str]) -> Result<String, String> {
        let pods = pods.iter().map(|(name, pod)| (ObjectName::parse(name), Arc::new(pod.clone()))).collect();
        match identify(&pods, "n1", &[device(addresses)]).remove(0).answer {
            Identified::Pod { pod, uid } => Ok(format!("{pod} {uid}")),
            Identified::Nobody { reason } => Err(reason),
        }
    }

    #[test]
    fn exactly_one_running_pod_of_this_node_with_exactly_these_addresses_is_it() {
        let both = ["10.0.0.2", "fd00::2"];
        let web = pod("n1", &both);
        assert_eq!(who(&[("x/web", web.clone())], &both), Ok("x/web uid-10.0.0.2-fd00::2".into()));
        let mut single = pod("n1", &[]);
        single.status.as_mut().unwrap().pod_ip = Some("10.0.0.2".into());
        assert_eq!(who(&[("x/old-status", single)], &["10.0.0.2"]), Ok("x/old-status uid-".into()));
        let (mut ended, mut failed, mut on_host) = (web.clone(), web.clone(), web.clone());
        ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
        failed.status.as_mut().unwrap().phase = Some("Failed".into());
        on_host.spec.as_mut().unwrap().host_network = Some(true);
        for (what, other) in [
            ("ended", ended),
            ("failed", failed),
            ("on its node's network", on_host),
            ("of another node", pod("n2", &both)),
            ("with one address less", pod("n1", &both[..1])),
            ("with one more", pod("n1", &["10.0.0.2", "fd00::2", "10.0.0.3"])),
            ("without addresses", pod("n1", &[])),
            ("without a node", Pod { spec: None, ..web.clone() }),
        ] {
            let reason = who(&[("x/web", other.clone())], &both).unwrap_err();
            assert!(reason.contains("no running pod of node n1"), "{what}: {reason}");
            assert_eq!(who(&[("x/web", web.clone()), ("x/other", other)], &both), Ok("x/web uid-10.0.0.2-fd00::2".into()), "{what}");
        }
    }

    #[test]
    fn two_pods_that_claim_the_same_addresses_are_both_nobody() {
        let claim = pod("n1", &["10.0.0.2"]);
        let reason = who(&[("x/a", claim.clone()), ("y/b", claim)], &["10.0.0.2"]).unwrap_err();
        assert!(reason.contains("x/a, y/b"), "{reason}");
    }
}
