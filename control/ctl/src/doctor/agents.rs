//! The two processes, if they run: versions, what they say of themselves, and their pods' devices.

use super::finding::Finding;
use super::tcx::in_front;
use super::tree::Tree;
use crate::client::Client;
use crate::output::count;
use anyhow::Result;
use sluice_flow::limits::POD_MTU_MAX;
use sluice_wire::{ControlStatus, DataplaneStatus, FromControl, FromDataplane, PortInfo, ToControl, ToDataplane};

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What they answered.
pub(super) struct Agents {
    dataplane: Result<DataplaneStatus>,
    ports: Vec<PortInfo>,
    control: Result<ControlStatus>,
}

impl Agents {
    pub(super) fn ask(client: &Client) -> Self {
        let dataplane = client.dataplane(&ToDataplane::Status).and_then(|answer| match answer.0 {
            FromDataplane::Status(status) => Ok(status),
            _ => crate::client::unexpected(),
        });
        let ports = match client.dataplane(&ToDataplane::Ports) {
            Ok((FromDataplane::Ports { ports }, _)) => ports,
            _ => Vec::new(),
        };
        let control = client.control(&ToControl::Status).and_then(|answer| match answer {
            FromControl::Status(status) => Ok(status),
            _ => crate::client::unexpected(),
        });
        Self { dataplane, ports, control }
    }

    /// Those to which workers are pinned.
    pub(super) fn cpus(&self) -> Vec<usize> {
        let workers = self.dataplane.iter().flat_map(|status| &status.workers);
        workers.filter_map(|worker| worker.cpu.map(|cpu| cpu as usize)).collect()
    }

    pub(super) fn findings(&self, tree: &Tree) -> Vec<Finding> {
        let mut findings = vec![self.dataplane(), self.control()];
        findings.extend(abi_versions(tree));
        findings.extend(self.pods(tree));
        findings
    }

    fn dataplane(&self) -> Finding {
        const CHECK: &str = "dataplane";
        let status = match &self.dataplane {
            Ok(status) => status,
            Err(error) => return not_there(CHECK, error, "systemctl start sluice-dataplane, or see its log"),
        };
        let found = format!("version {}, ABI {}, generation {}", status.version, status.abi_version, status.generation);
        let dead = status.workers.iter().filter(|worker| !worker.alive).count();
        if status.version != OWN_VERSION {
            Finding::advice(CHECK, format!("{found}; this is sluicectl {OWN_VERSION}"), "bring all parts of the node to one version")
        } else if dead > 0 {
            Finding::missing(CHECK, format!("{found}; {dead} of {} workers do not answer", status.workers.len()), "see its log; restart it")
        } else if !status.enforcing {
            Finding::missing(CHECK, format!("{found}; enforcement is switched off"), "sluicectl enforce on")
        } else if status.fail_open {
            Finding::advice(CHECK, format!("{found}; packets pass while no worker serves"), "leave out --fail-open unless that is meant")
        } else {
            Finding::fine(CHECK, found)
        }
    }

    fn control(&self) -> Finding {
        const CHECK: &str = "control";
        let status = match &self.control {
            Ok(status) => status,
            Err(error) => return not_there(CHECK, error, "systemctl start sluice-control, or see its log"),
        };
        let found = format!("version {}, {}", status.version, status.source);
        if status.version != OWN_VERSION {
            Finding::advice(CHECK, format!("{found}; this is sluicectl {OWN_VERSION}"), "bring all parts of the node to one version")
        } else if !status.dataplane_connected {
            Finding::missing(
                CHECK,
                format!("{found}; not connected to the dataplane"),
                "see its log; one that is not root needs sluice-dataplane --control-user",
            )
        } else if let Some(failure) = &status.last_failure {
            Finding::missing(CHECK, format!("{found}; its last table is not in force: {failure}"), "sluicectl status")
        } else if !status.problems.is_empty() {
            Finding::advice(
                CHECK,
                format!("{found}; {} of objects", count(status.problems.len() as u64, "problem", "problems")),
                "sluicectl status",
            )
        } else {
            Finding::fine(CHECK, found)
        }
    }

    /// The pods' devices: in this network namespace, small enough, ours in front.
    fn pods(&self, tree: &Tree) -> Vec<Finding> {
        if self.dataplane.is_err() {
            return Vec::new();
        }
        let (mut foreign, mut absent, mut large, mut failed) = (Vec::new(), Vec::new(), Vec::new(), None);
        for port in &self.ports {
            let device = &port.host_ifname;
            let attribute = |name: &str| tree.number(format!("/sys/class/net/{device}/{name}"));
            if attribute("ifindex") != Some(i64::from(port.host_ifindex)) {
                absent.push(format!("{} ({device})", port.endpoint.pod));
                continue;
            }
            if let Some(mtu) = attribute("mtu").filter(|mtu| *mtu > i64::from(POD_MTU_MAX)) {
                large.push(format!("{} ({mtu})", port.endpoint.pod));
            }
            match in_front(device, port.host_ifindex) {
                Ok(found) => foreign.extend(found),
                Err(error) => failed = Some(error),
            }
        }
        let mut findings = vec![match (failed, foreign.as_slice()) {
            (Some(error), _) => {
                Finding::unknown("tcx_chain", format!("programs at pods' devices cannot be listed: {error}"), "run as root")
            }
            (None, []) => {
                Finding::fine("tcx_chain", format!("{} pods here, nothing in front of the hooks", self.ports.len() - absent.len()))
            }
            (None, foreign) => Finding::advice(
                "tcx_chain",
                format!("in front of the hooks: {}", foreign.join(", ")),
                "what those let pass or drop, policy does not see; attach them behind, or restart the dataplane to be first again",
            ),
        }];
        if !absent.is_empty() {
            let advice = "run sluicectl where the dataplane runs: on the node itself, or in its container";
            findings.push(Finding::unknown("pods", format!("devices are not in this network namespace: {}", absent.join(", ")), advice));
        }
        if !large.is_empty() {
            let advice = format!("set mtu to {POD_MTU_MAX} or less in the cluster's CNI configuration");
            findings.push(Finding::missing("pods", format!("MTU above {POD_MTU_MAX}: {}", large.join(", ")), advice));
        }
        findings
    }
}

/// It need not run yet where a machine is only looked at.
fn not_there(check: &str, error: &anyhow::Error, advice: &str) -> Finding {
    let cause = error.root_cause().to_string();
    match cause.contains("Permission denied") {
        true => Finding::unknown(check, cause, "run as root"),
        false => Finding::advice(check, format!("does not answer: {cause}"), advice),
    }
}

/// Maps and links of several versions side by side: an upgrade that did not end.
fn abi_versions(tree: &Tree) -> Option<Finding> {
    let versions = tree.names("/sys/fs/bpf/sluice");
    match versions.as_slice() {
        [] | [_] => None,
        several => Some(Finding::advice(
            "abi",
            format!("maps of several versions: {}", several.join(", ")),
            "an upgrade has not ended: restart the newer dataplane, and see its log",
        )),
    }
}
