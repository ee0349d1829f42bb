//! The chart with many values.

use super::{Documents, Helm};
use std::sync::OnceLock;

/// Values that reach every branch of the templates.
const VALUES: [(&str, &str); 22] = [
    ("defaults", ""),
    ("image", "image: {repository: 'registry.example:5000/team/sluice', tag: v1, pullPolicy: Always}\nimagePullSecrets: [{name: pull}]"),
    ("digest", "image: {digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'}"),
    ("name", "nameOverride: policy"),
    ("full name", "fullnameOverride: node-policy"),
    ("account", "serviceAccount: {name: reader, annotations: {example.org/owner: team}}"),
    ("account of others", "serviceAccount: {create: false, name: reader}"),
    ("default account", "serviceAccount: {create: false}"),
    ("workers", "dataplane: {workers: 4, cpus: [2, 3, 4, 5]}"),
    ("fail open", "dataplane: {failOpen: true, established: keep}"),
    ("pods that run already", "dataplane: {existingPods: unmanaged}"),
    ("no reporter", "reporter: {enabled: false}"),
    ("extra", "dataplane: {extraArgs: [--udp-timeout=60], extraEnv: [{name: RUST_LOG, value: debug}]}"),
    ("extra of control", "control: {extraArgs: [--debounce-ms=50], extraEnv: [{name: KUBERNETES_SERVICE_HOST, value: 192.0.2.9}]}"),
    ("limits", "control: {resources: {limits: {memory: 2Gi, cpu: 1}}}\ndataplane: {resources: {requests: {cpu: 2}, limits: {cpu: 2}}}"),
    ("text logs", "logFormat: text"),
    ("every address", "metrics: {bindAddress: '[::]', port: 9900}"),
    ("IPv6 loopback", "metrics: {bindAddress: '[::1]'}"),
    ("scraped", "metrics: {annotations: true}"),
    ("monitored", "metrics: {bindAddress: '[$(HOST_IP)]', serviceMonitor: {enabled: true, interval: 1m, labels: {release: prometheus}}}"),
    ("no plugin", "cni: {install: false}"),
    ("uninstall", "uninstall: {enabled: true}\nimagePullSecrets: [{name: pull}]"),
];

/// Values that set as much as goes together.
pub const ALL_AT_ONCE: &str = "
image: {repository: registry.example/sluice, tag: v1, pullPolicy: Always}
imagePullSecrets: [{name: one}, {name: two}]
nameOverride: policy
serviceAccount: {name: reader, annotations: {example.org/owner: team}}
dataplane: {workers: 2, cpus: [2, 3], failOpen: true, established: keep, extraArgs: [--scan-interval=9], extraEnv: [{name: RUST_LOG, value: debug}]}
control: {extraArgs: [--proof-wait-ms=9], extraEnv: [{name: RUST_LOG, value: debug}]}
logFormat: text
metrics: {bindAddress: 0.0.0.0, port: 9900, annotations: true, serviceMonitor: {enabled: true, labels: {release: prometheus}}}
cni: {binDir: /usr/lib/cni, confDir: /etc/cni}
podAnnotations: {example.org/restarted: 'yes'}
podLabels: {team: network}
nodeSelector: {example.org/policy: 'true'}
tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
priorityClassName: system-cluster-critical
updateStrategy: {type: OnDelete}
terminationGracePeriodSeconds: 30
seLinuxOptions: {level: s0}
";

/// What the chart makes of values.
///
/// # Panics
/// When it makes nothing of them.
pub fn render(helm: &Helm, values: &str) -> Documents {
    let rendered = helm.render(values).unwrap_or_else(|error| panic!("{values}: {error}"));
    Documents::parse(&rendered).unwrap_or_else(|error| panic!("{values}: {error}"))
}

/// Each set of values with what the chart makes of it; rendered once for all tests of a process.
///
/// # Panics
/// As [`render`].
pub fn every_render(helm: &Helm) -> &'static [(&'static str, Documents)] {
    static RENDERED: OnceLock<Vec<(&str, Documents)>> = OnceLock::new();
    let sets = VALUES.into_iter().chain([("all at once", ALL_AT_ONCE)]);
    RENDERED.get_or_init(|| sets.map(|(name, values)| (name, render(helm, values))).collect())
}
