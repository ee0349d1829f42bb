//! Whether the API server can be reached, where one is given: its address answers, and what is needed to log in can be read.

use super::finding::Finding;
use serde::Deserialize;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

const CHECK: &str = "api_server";
const PATIENCE: Duration = Duration::from_secs(3);
/// Where a pod finds what it needs. Source: Kubernetes, "Accessing the Kubernetes API from a Pod".
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Debug, Deserialize)]
struct Kubeconfig {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
}

#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster")]
    value: T,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    server: String,
}

/// The server of the file's current context.
pub(super) fn kubeconfig(file: &Path) -> Finding {
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return Finding::missing(CHECK, format!("{shown}: {error}"), "name a kubeconfig that this user may read"),
    };
    let config: Kubeconfig = match serde_saphyr::from_str(&text) {
        Ok(config) => config,
        Err(error) => return Finding::missing(CHECK, format!("{shown} is no kubeconfig: {error}"), "kubectl config view shows one"),
    };
    let context = config.contexts.iter().find(|context| context.name == config.current_context);
    let cluster = context.and_then(|context| config.clusters.iter().find(|cluster| cluster.name == context.value.cluster));
    match cluster {
        Some(cluster) => reach(&cluster.value.server),
        None => Finding::missing(
            CHECK,
            format!("{shown} has no cluster for its current context {:?}", config.current_context),
            "kubectl config use-context chooses one",
        ),
    }
}

/// The server of the cluster in which this pod runs.
pub(super) fn service_account() -> Finding {
    let token = Path::new(SERVICE_ACCOUNT).join("token");
    if let Err(error) = std::fs::read(&token) {
        return Finding::missing(CHECK, format!("{}: {error}", token.display()), "give the pod a serviceAccountName, and mount its token");
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) {
        (Some(host), port) => reach(&format!("https://{host}:{}", port.as_deref().unwrap_or("443"))),
        (None, _) => Finding::missing(CHECK, "KUBERNETES_SERVICE_HOST is not set", "run it in a pod, or use --kubeconfig"),
    }
}

/// Whether its port takes connections; who is allowed what, `sluicectl status` shows when control runs.
fn reach(server: &str) -> Finding {
    let unreachable = |reason: String| {
        let advice = "the address must be reachable from this node: a route, a firewall, the server itself";
        Finding::missing(CHECK, format!("{server}: {reason}"), advice)
    };
    let Some(address) = host_and_port(server) else { return unreachable("no address in it".to_owned()) };
    let addresses = match address.to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return unreachable(error.to_string()),
    };
    let mut last = "no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Finding::fine(CHECK, format!("{server} answers")),
            Err(error) => last = error.to_string(),
        }
    }
    unreachable(last)
}

/// `https://host[:port][/path]`, with the scheme's port if none is said.
fn host_and_port(server: &str) -> Option<String> {
    let (scheme, rest) = server.split_once("://").unwrap_or(("https", server));
    let authority = rest.split(['/', '?']).next().filter(|authority| !authority.is_empty())?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !authority.ends_with(']'));
    let default = if scheme == "http" { 80 } else { 443 };
    Some(if has_port { authority.to_owned() } else { format!("{authority}:{default}") })
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_kubeconfig_s_current_server_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let text = |port: u16, current: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: {current}\ncontexts:\n- name: here\n  context: {{cluster: c, user: u}}\n\
                 clusters:\n- name: other\n  cluster: {{server: 'https://nowhere.invalid'}}\n- name: c\n  cluster: {{server: 'https://127.0.0.1:{port}/k'}}\n\
                 users:\n- name: u\n  user: {{token: secret}}\n"
            )
        };
        std::fs::write(&file, text(port, "here")).unwrap();
        assert_eq!(kubeconfig(&file).state, State::Fine, "{:?}", kubeconfig(&file));
        drop(listener);
        let closed = kubeconfig(&file);
        assert!(closed.state == State::Missing && closed.found.contains("refused"), "{closed:?}");
        std::fs::write(&file, text(port, "there")).unwrap();
        assert!(kubeconfig(&file).found.contains("no cluster for its current context \"there\""));
        std::fs::write(&file, "[").unwrap();
        assert!(kubeconfig(&file).found.contains("is no kubeconfig"));
        assert!(kubeconfig(&dir.path().join("none")).found.contains("No such file"));
    }

    #[test]
    fn addresses_have_their_scheme_s_port() {
        for (server, expected) in [
            ("https://a:6443", Some("a:6443")),
            ("https://a", Some("a:443")),
            ("http://a/path", Some("a:80")),
            ("https://[fd00::1]", Some("[fd00::1]:443")),
            ("https://[fd00::1]:6443/", Some("[fd00::1]:6443")),
            ("a", Some("a:443")),
            ("https://", None),
        ] {
            assert_eq!(host_and_port(server).as_deref(), expected, "{server}");
        }
    }
}
