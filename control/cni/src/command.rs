//! The commands of the specification, each one question to the dataplane.

use crate::config::{Config, SUPPORTED_VERSIONS, ValidAttachment, version_of};
use crate::dataplane::{ANSWER_MAX, ask, unexpected};
use crate::error::{CniError, Code};
use crate::invocation::{Attachment, Environment};
use crate::link::find_pair;
use crate::request::{Addition, Examination, Question, Request};
use serde_json::{Value, json};
use sluice_wire::{AddPort, FromDataplane, PortInfo, ToDataplane};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Runs one command; `None` prints nothing.
///
/// # Errors
/// As [`Request::read`], and whatever the kernel or the dataplane have against it.
pub fn run(environment: Environment<'_>, input: &[u8]) -> Result<Option<Value>, CniError> {
    let (config, question) = match Request::read(environment, input)? {
        Request::Version => {
            return Ok(Some(json!({ "cniVersion": version_of(input), "supportedVersions": SUPPORTED_VERSIONS })));
        }
        Request::Ask(config, question) => (config, question),
    };
    match question {
        Question::Add(addition) => add(&config, *addition).map(Some),
        Question::Del(attachment, netns) => del(&config, attachment, netns.as_deref()).map(|()| None),
        Question::Check(examination) => check(&config, *examination).map(|()| None),
        Question::Status => status(&config).map(|()| None),
        Question::Gc(valid) => gc(&config, &valid).map(|()| None),
    }
}

/// Everything was validated before the dataplane hears of the port; the dataplane undoes its own half when it fails.
fn add(config: &Config, addition: Addition) -> Result<Value, CniError> {
    let Addition { attachment, netns, identity, prev_result, described } = addition;
    let pair = find_pair(&netns, &attachment.ifname)?;
    if !described.host_ifnames.is_empty() && !described.host_ifnames.contains(&pair.host_ifname) {
        let details = format!("the host's end is {}, prevResult lists {}", pair.host_ifname, described.host_ifnames.join(", "));
        return Err(CniError::config("prevResult contradicts the kernel", details));
    }
    let mac = pair.mac.map(|byte| format!("{byte:02x}")).join(":");
    if let Some(told) = described.mac.filter(|told| !told.eq_ignore_ascii_case(&mac)) {
        let details = format!("the MAC of {} is {mac}, prevResult says {told}", attachment.ifname);
        return Err(CniError::config("prevResult contradicts the kernel", details));
    }
    let request = ToDataplane::AddPort(AddPort {
        container_id: attachment.container_id,
        ifname: attachment.ifname,
        pod: identity.pod,
        uid: identity.uid,
        host_ifindex: pair.host_ifindex,
        host_ifname: pair.host_ifname,
        mac: pair.mac,
        addresses: described.addresses,
        network: config.name.clone(),
        deadline_ms: config.deadline_ms,
    });
    // The dataplane gives up first, so that its reason arrives instead of our time-out.
    let patience = Duration::from_millis(config.deadline_ms) + Duration::from_secs(2);
    match ask(&config.dataplane_socket, &request, patience)? {
        FromDataplane::PortAdded { .. } => {
            let mut result = prev_result;
            result["cniVersion"] = Value::from(config.cni_version.as_str());
            Ok(result)
        }
        other => Err(unexpected(&other)),
    }
}

/// Succeeds with everything down: the port's device dies with the sandbox, and the dataplane frees the ports of devices
/// that are gone, when that happens or when it is back.
fn del(config: &Config, attachment: Attachment, netns: Option<&Path>) -> Result<(), CniError> {
    // a sandbox that is half gone is no reason to keep it
    let host_ifindex = netns.and_then(|netns| find_pair(netns, &attachment.ifname).ok()).map(|pair| pair.host_ifindex);
    let request = ToDataplane::DelPort { container_id: attachment.container_id, ifname: attachment.ifname, host_ifindex };
    match ask(&config.dataplane_socket, &request, ANSWER_MAX) {
        Ok(FromDataplane::Done) => Ok(()),
        Ok(other) => Err(unexpected(&other)),
        Err(error) if error.code == Code::Refused => Err(error),
        Err(error) => {
            eprintln!("sluice-cni: DEL without the dataplane: {error}");
            Ok(())
        }
    }
}

/// The attachment as it was made, and under policy. Where the runtime names the sandbox, its device is looked at too.
fn check(config: &Config, examination: Examination) -> Result<(), CniError> {
    let Examination { attachment, netns, described } = examination;
    let pair = netns.map(|netns| find_pair(&netns, &attachment.ifname)).transpose()?;
    let request = ToDataplane::CheckPort {
        container_id: attachment.container_id,
        ifname: attachment.ifname,
        host_ifindex: pair.map(|pair| pair.host_ifindex),
        addresses: described.map(|described| described.addresses).unwrap_or_default(),
    };
    match ask(&config.dataplane_socket, &request, ANSWER_MAX)? {
        FromDataplane::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Whether an ADD would succeed now: it needs a worker to adopt and a control process to compile a table.
fn status(config: &Config) -> Result<(), CniError> {
    let not_available = |code: Code, details: String| Err(CniError::new(code, "the plugin is not available", details));
    let status = match ask(&config.dataplane_socket, &ToDataplane::Status, ANSWER_MAX) {
        Ok(FromDataplane::Status(status)) => status,
        Ok(other) => return Err(unexpected(&other)),
        Err(error) => return not_available(Code::NotAvailableLimited, format!("{}: {}", error.msg, error.details)),
    };
    if !status.workers.iter().any(|worker| worker.alive) {
        return not_available(Code::NotAvailableLimited, "no worker is alive".to_owned());
    }
    if !status.control_connected {
        return not_available(Code::NotAvailable, "no control process is connected to the dataplane".to_owned());
    }
    Ok(())
}

/// Deletes this network's ports that belong to no valid attachment. The list speaks of one network only, so ports of other
/// networks, and those whose network nobody said, are left alone; they end with their devices.
fn gc(config: &Config, valid: &[ValidAttachment]) -> Result<(), CniError> {
    let ports = match ask(&config.dataplane_socket, &ToDataplane::Ports, ANSWER_MAX)? {
        FromDataplane::Ports { ports } => ports,
        other => return Err(unexpected(&other)),
    };
    // Every stale port is tried before the first failure is reported.
    let mut outcome = Ok(());
    for stale in stale_ports(ports, &config.name, valid) {
        let request = ToDataplane::DelPort { container_id: stale.container_id, ifname: stale.ifname, host_ifindex: None };
        let deleted = match ask(&config.dataplane_socket, &request, ANSWER_MAX) {
            Ok(FromDataplane::Done) => Ok(()),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        };
        outcome = outcome.and(deleted);
    }
    outcome
}

fn stale_ports(ports: Vec<PortInfo>, network: &str, valid: &[ValidAttachment]) -> Vec<ValidAttachment> {
    let valid: BTreeSet<&ValidAttachment> = valid.iter().collect();
    let of_network = ports.into_iter().filter(|port| !network.is_empty() && port.network == network);
    let attachment = |port: PortInfo| ValidAttachment { container_id: port.container_id, ifname: port.ifname };
    of_network.map(attachment).filter(|attachment| !valid.contains(attachment)).collect()
}
