//! How clients find the server: a kubeconfig, or the files that a pod is given.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io;
use std::path::Path;

/// What a client needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) url: &'a str,
    pub(crate) ca_pem: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
}

/// A kubeconfig with one cluster, one user, one context.
pub(crate) fn kubeconfig(access: Access<'_>) -> String {
    let ca = access.ca_pem.map(|pem| format!("    certificate-authority-data: {}\n", STANDARD.encode(pem))).unwrap_or_default();
    let user = access.token.map_or(" {}".to_owned(), |token| format!("\n    token: \"{token}\""));
    format!(
        "apiVersion: v1
kind: Config
current-context: sluice-apiserver
clusters:
- name: sluice-apiserver
  cluster:
    server: {}
{ca}users:
- name: sluice
  user:{user}
contexts:
- name: sluice-apiserver
  context:
    cluster: sluice-apiserver
    user: sluice
    namespace: default
",
        access.url
    )
}

/// Writes `token`, `ca.crt` and `namespace`, as they are mounted into a pod.
pub(crate) fn write_in_cluster_files(access: Access<'_>, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("token"), access.token.unwrap_or_default())?;
    std::fs::write(directory.join("ca.crt"), access.ca_pem.unwrap_or_default())?;
    std::fs::write(directory.join("namespace"), "kube-system")
}
