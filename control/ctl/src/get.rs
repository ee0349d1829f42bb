//! `get`: lists, one line for each thing.

use crate::arguments::{Form, Get};
use crate::client::{Client, unexpected};
use crate::output::{Columns, age, json, seconds_since};
use anyhow::Result;
use serde::Serialize;
use sluice_flow::{DropReason, ObjectName};
use sluice_wire::{
    ConnectionInfo, FoundDevice, FoundState, FromControl, FromDataplane, PolicyInfo, PortInfo, PortState, RealizationState, ToControl,
    ToDataplane,
};
use std::io::Write;

pub(crate) fn run(client: &Client, what: &Get, form: Form, out: &mut dyn Write) -> Result<()> {
    match what {
        Get::Endpoints => endpoints(client, form, out),
        Get::Policies => policies(client, form, out),
        Get::Connections { pod, max } => connections(client, pod.clone(), *max, form, out),
        Get::Rules => rules(client, form, out),
        Get::Cuts => cuts(client, form, out),
        Get::Drops => drops(client, form, out),
    }
}

fn endpoints(client: &Client, form: Form, out: &mut dyn Write) -> Result<()> {
    let (FromDataplane::Ports { ports }, _) = client.dataplane(&ToDataplane::Ports)? else { return unexpected() };
    let (FromDataplane::Found { devices }, _) = client.dataplane(&ToDataplane::Found)? else { return unexpected() };
    if form == Form::Json {
        let rows = ports.into_iter().map(Endpoint::Port).chain(devices.into_iter().map(Endpoint::Found));
        return json(out, &rows.collect::<Vec<_>>());
    }
    let headers = ["POD", "PORT", "ADDRESSES", "STATE", "ISOLATED", "DEVICE", "WORKER", "#CONNECTIONS", "#RATIONED", "CONTAINER"];
    let mut columns = Columns::new(&headers);
    for port in &ports {
        let addresses: Vec<String> = port.endpoint.addresses.iter().map(ToString::to_string).collect();
        columns.row([
            port.endpoint.pod.to_string(),
            format!("{}.{}", port.endpoint.port.0, port.endpoint.incarnation.0),
            addresses.join(","),
            state(port.state).to_owned(),
            isolated(port).to_owned(),
            port.host_ifname.clone(),
            port.worker.to_string(),
            port.connections.to_string(),
            port.rationed.to_string(),
            port.container_id.chars().take(12).collect(),
        ]);
    }
    for device in &devices {
        let addresses: Vec<String> = device.addresses.iter().map(ToString::to_string).collect();
        let state = match device.state {
            FoundState::Closed => "closed",
            FoundState::Unmanaged => "unmanaged",
        };
        let nothing = String::new;
        let (name, addresses) = (device.host_ifname.clone(), addresses.join(","));
        columns.row(["?".into(), nothing(), addresses, state.into(), nothing(), name, nothing(), nothing(), nothing(), nothing()]);
    }
    columns.print(out, "No pods are attached to this node.")?;
    for device in devices {
        writeln!(out, "{}: {}", device.host_ifname, device.reason)?;
    }
    Ok(())
}

/// One list for both: a found device is a pod of which less is known.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Endpoint {
    Port(PortInfo),
    Found(FoundDevice),
}

fn state(state: PortState) -> &'static str {
    match state {
        PortState::Closed => "closed",
        PortState::Open => "open",
        PortState::Isolated => "isolated",
    }
}

fn isolated(port: &PortInfo) -> &'static str {
    match (port.isolated_ingress, port.isolated_egress) {
        (true, true) => "ingress,egress",
        (true, false) => "ingress",
        (false, true) => "egress",
        (false, false) => "",
    }
}

/// For how long, or what keeps it from being.
fn in_force(policy: &PolicyInfo) -> String {
    match (policy.state, policy.since_ms) {
        (RealizationState::Realized, Some(since)) => age(seconds_since(since)),
        (RealizationState::Refused, _) => "refused".to_owned(),
        _ => "not yet".to_owned(),
    }
}

fn policies(client: &Client, form: Form, out: &mut dyn Write) -> Result<()> {
    let FromControl::Policies { policies } = client.control(&ToControl::Policies)? else { return unexpected() };
    if form == Form::Json {
        return json(out, &policies);
    }
    let mut columns = Columns::new(&["POLICY", "TYPES", "#INGRESS", "#EGRESS", "#PODS", "#HERE", "SELECTS", "IN FORCE", "FILE"]);
    for policy in &policies {
        columns.row([
            policy.policy.to_string(),
            policy.types.join(","),
            policy.ingress_rules.to_string(),
            policy.egress_rules.to_string(),
            policy.selected_pods.len().to_string(),
            policy.local_pods.to_string(),
            selected(policy),
            in_force(policy),
            policy.file.clone().unwrap_or_default(),
        ]);
    }
    columns.print(out, "No policies: no pod is isolated, everything is allowed.")
}

/// The first pods by name; `-o json` has all.
fn selected(policy: &PolicyInfo) -> String {
    const SHOWN_MAX: usize = 3;
    let mut names: Vec<&str> = policy.selected_pods.iter().take(SHOWN_MAX).map(|pod| pod.name.as_str()).collect();
    if policy.selected_pods.len() > SHOWN_MAX {
        names.push("...");
    }
    names.join(",")
}

fn connections(client: &Client, pod: Option<ObjectName>, max: u32, form: Form, out: &mut dyn Write) -> Result<()> {
    let answer = client.dataplane(&ToDataplane::Connections { pod, max })?;
    let (FromDataplane::Connections { connections, total }, _) = answer else { return unexpected() };
    if form == Form::Json {
        #[derive(Serialize)]
        struct List {
            total: u64,
            connections: Vec<ConnectionInfo>,
        }
        return json(out, &List { total, connections });
    }
    let headers = ["POD", "DIRECTION", "PROTOCOL", "SOURCE", "DESTINATION", "VERDICT", "RULE", "#PACKETS", "#BYTES", "IDLE"];
    let mut columns = Columns::new(&headers);
    let shown = connections.len() as u64;
    for c in connections {
        let rule = if c.deferred { "judged where it departs".to_owned() } else { c.rule.unwrap_or_default() };
        let direction = if c.departs { "departure".to_owned() } else { c.direction.to_string() };
        let src = c.origin.map_or(c.src.clone(), |origin| format!("{} (was {origin})", c.src));
        let idle = age(c.idle_ms / 1000);
        let (packets, bytes) = (c.packets.to_string(), c.bytes.to_string());
        columns.row([c.pod.to_string(), direction, c.protocol, src, c.dst, c.verdict, rule, packets, bytes, idle]);
    }
    columns.print(out, "No connections are tracked.")?;
    if shown < total {
        writeln!(out, "{shown} of {total} shown; see --max")?;
    }
    Ok(())
}

fn rules(client: &Client, form: Form, out: &mut dyn Write) -> Result<()> {
    let (FromDataplane::Rules { mut rules }, _) = client.dataplane(&ToDataplane::Rules)? else { return unexpected() };
    rules.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.rule.cmp(&b.rule)));
    if form == Form::Json {
        return json(out, &rules);
    }
    let mut columns = Columns::new(&["RULE", "#LIVE", "#OVER", "#PACKETS", "#BYTES"]);
    for rule in rules {
        columns.row([rule.rule, rule.live.to_string(), rule.over.to_string(), rule.packets.to_string(), rule.bytes.to_string()]);
    }
    columns.print(out, "No rule has let anything through.")
}

fn cuts(client: &Client, form: Form, out: &mut dyn Write) -> Result<()> {
    let (FromDataplane::Cuts { cuts }, _) = client.dataplane(&ToDataplane::Cuts)? else { return unexpected() };
    if form == Form::Json {
        return json(out, &cuts);
    }
    let mut columns = Columns::new(&["AGE", "POD", "DIRECTION", "PROTOCOL", "SOURCE", "DESTINATION", "HAD BEEN ALLOWED BY", "TABLE"]);
    for cut in cuts {
        let rule = cut.rule.unwrap_or_else(|| "(no policy isolated it)".to_owned());
        let (age, direction) = (age(cut.age_ms / 1000), cut.direction.to_string());
        columns.row([age, cut.pod.to_string(), direction, cut.protocol, cut.src, cut.dst, rule, cut.generation.to_string()]);
    }
    columns.print(out, "No connection has been cut.")
}

#[derive(Debug, Serialize)]
struct Drop {
    reason: String,
    packets: u64,
    meaning: &'static str,
}

fn drops(client: &Client, form: Form, out: &mut dyn Write) -> Result<()> {
    let (FromDataplane::Status(status), _) = client.dataplane(&ToDataplane::Status)? else { return unexpected() };
    let meaning = |name: &str| {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == name);
        reason.map_or("A reason that this sluicectl does not know; it is older than the dataplane.", |reason| reason.meaning())
    };
    let mut drops: Vec<Drop> =
        status.drops.into_iter().map(|drop| Drop { meaning: meaning(&drop.reason), reason: drop.reason, packets: drop.packets }).collect();
    drops.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    if form == Form::Json {
        return json(out, &drops);
    }
    let mut columns = Columns::new(&["REASON", "#PACKETS", "MEANING"]);
    for drop in drops {
        columns.row([drop.reason, drop.packets.to_string(), drop.meaning.to_owned()]);
    }
    columns.print(out, "No packets were dropped.")
}
