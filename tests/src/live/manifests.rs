//! Manifests, as short as they can be said.

/// The head of every policy.
pub const POLICY_HEAD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";

/// A pod `ns/name` labelled `app: name`; it serves 80 over TCP and UDP.
pub fn pod(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: \"{namespace}\", labels: {{app: {name}}}}}\n\
         spec: {{containers: [{{name: c, image: i, ports: [{{containerPort: 80}}, {{containerPort: 80, protocol: UDP}}]}}]}}\n"
    )
}

/// As [`pod`], bound to a node of a cluster.
pub fn pod_on(node: &str, name: &str) -> String {
    let pod = pod(name);
    pod.replace("spec: {containers", &format!("spec: {{nodeName: {node}, containers"))
}

/// A policy `ns/name` with this `spec`, in YAML's flow style.
pub fn policy(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    format!("---\n{POLICY_HEAD}metadata: {{name: {name}, namespace: \"{namespace}\"}}\nspec: {spec}\n")
}
