//! The bench's cluster as manifests: pods, a service, and any number of policies.
//!
//! ```text
//!   bench/client ─▶ bench/server        isolated both ways; `bench/server` is also behind the service bench/server
//!   free/client  ─▶ free/server         no policy selects them
//!   bench/noisy  ─▶ flows/s0            what floods
//!   flows/c0..15 ─▶ flows/s0..15        pairs for many flows, isolated both ways
//! ```
//!
//! Every tenth policy beyond these selects client and server too, with a block and a port of its own; the others select pods
//! that are not here. What peers express is the same: see [`Rules`].

use std::fmt::Write as _;

/// Pairs of pods for many flows.
pub(super) const PAIRS: usize = 16;
/// Destination ports of many flows, at each pair.
pub(super) const FLOW_PORTS: std::ops::Range<u16> = 20_000..26_250;
/// What client may open at server: iperf3, UDP, connections, the probe's, echoes, first packets.
const PORTS: [(&str, u16); 6] = [("TCP", 5201), ("UDP", 5202), ("TCP", 5203), ("TCP", 5211), ("UDP", 5205), ("UDP", 5206)];
/// Destination ports of which each is asked for once.
pub(super) const COLD_PORTS: std::ops::Range<u16> = 30_000..60_000;
/// Policies of [`base`].
pub(super) const BASE_POLICIES: usize = 9;

fn pod(name: &str, labels: &str, ports: &[u16]) -> String {
    let (namespace, name) = name.split_once('/').expect("a namespace");
    let ports: String = ports.iter().map(|port| format!("{{containerPort: {port}}}, ")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: c, image: i, ports: [{ports}]}}]}}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("a namespace");
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// Pods, the service, and the policies that let the measured traffic through.
pub(super) fn base() -> String {
    let namespace = |name: &str| {
        format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{kubernetes.io/metadata.name: {name}}}}}\n")
    };
    let mut yaml = ["bench", "free", "flows"].map(namespace).concat()
        + &pod("bench/client", "app: client, measured: 'yes'", &[5210])
        + &pod("bench/server", "app: server, measured: 'yes'", &[5210, 5211])
        + &pod("bench/noisy", "app: noisy", &[])
        + &pod("free/client", "app: client", &[])
        + &pod("free/server", "app: server", &[5210]);
    for pair in 0..PAIRS {
        yaml += &pod(&format!("flows/c{pair}"), "role: client", &[]);
        yaml += &pod(&format!("flows/s{pair}"), "role: server", &[]);
    }
    yaml += "---\napiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: bench}\n\
             spec: {selector: {app: server}, ports: [{name: iperf, port: 5201}, {name: probe, port: 5211}]}\n";
    let mut ports: Vec<String> = PORTS.iter().map(|(protocol, port)| format!("{{protocol: {protocol}, port: {port}}}")).collect();
    ports.push(format!("{{protocol: UDP, port: {}, endPort: {}}}", COLD_PORTS.start, COLD_PORTS.end - 1));
    let ports = ports.join(", ");
    let flows = format!("{{protocol: UDP, port: {}, endPort: {}}}", FLOW_PORTS.start, FLOW_PORTS.end - 1);
    let of = |app: &str| format!("podSelector: {{matchLabels: {{app: {app}}}}}");
    let role = |role: &str| format!("podSelector: {{matchLabels: {{role: {role}}}}}");
    let namespace = |name: &str| format!("namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}");
    for (name, spec) in [
        ("bench/default-deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}".to_owned()),
        ("flows/default-deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}".to_owned()),
        (
            "bench/client-out",
            format!("{{{}, policyTypes: [Egress], egress: [{{to: [{{{}}}], ports: [{ports}]}}]}}", of("client"), of("server")),
        ),
        ("bench/server-in", format!("{{{}, ingress: [{{from: [{{{}}}], ports: [{ports}]}}]}}", of("server"), of("client"))),
        (
            "bench/noisy-out",
            format!("{{{}, policyTypes: [Egress], egress: [{{to: [{{{}}}], ports: [{flows}]}}]}}", of("noisy"), namespace("flows")),
        ),
        (
            "flows/from-noisy",
            format!("{{{}, ingress: [{{from: [{{{}, {}}}], ports: [{flows}]}}]}}", role("server"), namespace("bench"), of("noisy")),
        ),
        (
            "flows/clients-out",
            format!("{{{}, policyTypes: [Egress], egress: [{{to: [{{{}}}], ports: [{flows}]}}]}}", role("client"), role("server")),
        ),
        ("flows/servers-in", format!("{{{}, ingress: [{{from: [{{{}}}], ports: [{flows}]}}]}}", role("server"), role("client"))),
        ("bench/edited", edited(0)),
    ] {
        yaml += &policy(name, &spec);
    }
    yaml
}

/// A policy of all measured pods that is never the same twice and allows nothing that they do.
fn edited(edit: usize) -> String {
    let (block, port) = (edit % 250 + 1, 1000 + edit % 50_000);
    format!(
        "{{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{from: [{{ipBlock: {{cidr: 192.0.2.{block}/32}}}}], ports: [{{port: {port}}}]}}]}}"
    )
}

/// The same as a manifest of its own, of the pods with many flows or of others in turn.
pub(super) fn edit(edit: usize) -> String {
    policy(
        if edit.is_multiple_of(2) { "flows/edited" } else { "free/edited-elsewhere" },
        &match edit % 2 {
            0 => edited(edit),
            _ => edited(edit).replace("{podSelector: {}", "{podSelector: {matchLabels: {app: nobody}}"),
        },
    )
}

/// What client and server allow beside each other, at this many policies.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Policies beyond those of [`base`].
    extra: usize,
}

impl Rules {
    pub(super) fn of(policies: usize) -> Self {
        Self { extra: policies.saturating_sub(BASE_POLICIES) }
    }

    /// Blocks and TCP ports that client and server have beside the measured ones, in both directions.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (String, u16)> + use<> {
        (0..self.extra).filter(|number| number % 10 == 0).map(block)
    }

    /// The policies beyond those of [`base`], from this one on.
    pub(super) fn yaml(&self, from: usize) -> String {
        let mut yaml = String::new();
        for number in from..self.extra {
            let (cidr, port) = block(number);
            let spec = match number % 10 {
                0 => format!(
                    "{{podSelector: {{matchLabels: {{measured: 'yes'}}}}, policyTypes: [Ingress, Egress], \
                     ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: {port}}}]}}], \
                     egress: [{{to: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: {port}}}]}}]}}"
                ),
                _ => format!(
                    "{{podSelector: {{matchLabels: {{app: other-{number}}}}}, \
                     ingress: [{{from: [{{podSelector: {{matchLabels: {{app: other-{}}}}}}}], ports: [{{port: {port}}}]}}]}}",
                    number + 1
                ),
            };
            let _ = write!(yaml, "{}", policy(&format!("bench/extra-{number}"), &spec));
        }
        yaml
    }
}

fn block(number: usize) -> (String, u16) {
    (format!("198.{}.{}.{}/32", 18 + number / 65_536, number / 256 % 256, number % 256), 1000 + (number % 4000) as u16)
}

/// The ports of client and server: protocol and first and last port.
pub(super) fn allowed_ports() -> impl Iterator<Item = (&'static str, u16, u16)> {
    let cold = ("UDP", COLD_PORTS.start, COLD_PORTS.end - 1);
    PORTS.into_iter().map(|(protocol, port)| (protocol, port, port)).chain([cold])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_policies_are_so_many() {
        for policies in [BASE_POLICIES, 10, 1000] {
            let count = (base() + &Rules::of(policies).yaml(0)).matches("kind: NetworkPolicy").count();
            assert_eq!(count, policies);
        }
        assert_ne!(edit(2), edit(4));
        assert_eq!(Rules::of(10_000).blocks().count(), 1000, "every tenth");
    }
}
