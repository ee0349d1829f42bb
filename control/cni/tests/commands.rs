//! The real binary against a dataplane made of the real wire crate: what is asked, what is printed, which code ends it.

use serde_json::{Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_wire::{FromDataplane, Listener, PortInfo, PortState, ToDataplane};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// Serves one question per connection and reports each to the test.
struct FakeDataplane {
    dir: tempfile::TempDir,
    asked: mpsc::Receiver<ToDataplane>,
}

impl FakeDataplane {
    fn start(answer: impl Fn(&ToDataplane) -> FromDataplane + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&dir.path().join("dataplane.sock")).unwrap();
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok(Some(mut connection)) = listener.accept() {
                let Ok(Some((question, _))) = connection.recv::<ToDataplane>() else { continue };
                connection.send(&answer(&question), None).unwrap();
                if sender.send(question).is_err() {
                    break;
                }
            }
        });
        Self { dir, asked }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("dataplane.sock")
    }
}

struct Outcome {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.stdout, self.stderr))
    }

    /// The error's code and its whole text.
    fn error(&self) -> (u64, String) {
        assert!(!self.ok, "expected a failure: {:?}", self.stdout);
        let json = self.json();
        (json["code"].as_u64().unwrap(), format!("{} {}", json["msg"], json["details"]))
    }
}

fn run(environment: &[(&str, &str)], stdin: &str) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice-cni"))
        .env_clear()
        .envs(environment.iter().copied().collect::<BTreeMap<_, _>>())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that refuses early may close stdin first.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        ok: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn config(version: &str, socket: &Path, extra: Value) -> String {
    let mut config = json!({ "cniVersion": version, "name": "net", "type": "sluice-cni", "dataplaneSocket": socket });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

const ARGS: (&str, &str) = ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=web;K8S_POD_UID=u");

fn environment<'a>(command: &'a str, netns: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", netns), ARGS]
}

fn nowhere() -> PathBuf {
    PathBuf::from("/nonexistent/dataplane.sock")
}

#[test]
fn version_answers_whatever_stands_on_stdin() {
    for stdin in ["", r#"{"cniVersion":"0.3.1"}"#, r#"{"cniVersion":"1.1.0","name":"n"}"#] {
        let outcome = run(&[("CNI_COMMAND", "VERSION")], stdin);
        assert!(outcome.ok);
        assert_eq!(outcome.json()["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
}

#[test]
fn nonsense_gets_the_specification_s_codes_and_never_reaches_the_dataplane() {
    let dataplane = FakeDataplane::start(|_| FromDataplane::Done);
    let socket = dataplane.socket();
    let two_ipv4 = json!({"prevResult": {"ips": [{"address": "10.0.0.1/24"}, {"address": "10.0.0.2/24"}]}});
    let one = json!({"prevResult": {"ips": [{"address": "10.0.0.1/24"}]}});
    let no_netns = socket.to_str().unwrap().to_owned();
    let file = tempfile::NamedTempFile::new().unwrap();
    let plain_file = file.path().to_str().unwrap().to_owned();
    let add = |netns| environment("ADD", netns);
    let without = |variable: &str| add("/ns").into_iter().filter(|(name, _)| *name != variable).collect::<Vec<_>>();
    let valid = config("1.0.0", &socket, one.clone());
    for (what, environment, stdin, code) in [
        ("no command", vec![], valid.clone(), 4),
        ("unknown command", environment("FLY", "/ns"), valid.clone(), 4),
        ("no container", without("CNI_CONTAINERID"), valid.clone(), 4),
        ("no interface", without("CNI_IFNAME"), valid.clone(), 4),
        ("no netns", without("CNI_NETNS"), valid.clone(), 4),
        ("no args", without("CNI_ARGS"), valid.clone(), 4),
        ("no JSON", add("/ns"), "{".to_owned(), 6),
        ("no version", add("/ns"), "{}".to_owned(), 1),
        ("old version", add("/ns"), config("0.2.0", &socket, one.clone()), 1),
        ("new version", add("/ns"), config("2.0.0", &socket, one.clone()), 1),
        ("no prevResult", add("/ns"), config("1.0.0", &socket, json!({})), 7),
        ("prevResult a string", add("/ns"), config("1.0.0", &socket, json!({"prevResult": "x"})), 7),
        ("two IPv4", add("/ns"), config("1.0.0", &socket, two_ipv4), 7),
        ("netns missing", add("/nonexistent/ns"), valid.clone(), 5),
        ("netns a socket", add(&no_netns), valid.clone(), 5),
        ("netns a plain file", add(&plain_file), valid.clone(), 5),
        ("CHECK before 0.4", environment("CHECK", ""), config("0.3.1", &socket, one.clone()), 1),
        ("STATUS before 1.1", environment("STATUS", ""), valid.clone(), 1),
        ("GC before 1.1", environment("GC", ""), valid.clone(), 1),
        ("GC without a list", environment("GC", ""), config("1.1.0", &socket, json!({})), 7),
    ] {
        let outcome = run(&environment, &stdin);
        assert_eq!(outcome.error().0, code, "{what}: {}", outcome.stdout);
        assert!(outcome.json()["cniVersion"].is_string(), "{what}");
    }
    assert!(dataplane.asked.try_recv().is_err(), "the dataplane was asked");
}

#[test]
fn del_and_check_name_the_attachment() {
    let dataplane = FakeDataplane::start(|_| FromDataplane::Done);
    for command in ["DEL", "CHECK"] {
        let outcome = run(&environment(command, ""), &config("1.0.0", &dataplane.socket(), json!({})));
        assert!(outcome.ok, "{command}: {}", outcome.stdout);
        assert!(outcome.stdout.is_empty(), "{command}");
        match dataplane.asked.recv().unwrap() {
            ToDataplane::DelPort { container_id, ifname, host_ifindex: None } if command == "DEL" => {
                assert_eq!((container_id.as_str(), ifname.as_str()), ("c1", "eth0"));
            }
            ToDataplane::CheckPort { container_id, ifname, host_ifindex: None, addresses } if command == "CHECK" => {
                assert_eq!((container_id.as_str(), ifname.as_str(), addresses.as_slice()), ("c1", "eth0", [].as_slice()));
            }
            other => panic!("{command}: {other:?}"),
        }
    }
}

#[test]
fn del_succeeds_with_everything_down_and_says_so() {
    let outcome = run(&environment("DEL", ""), &config("1.1.0", &nowhere(), json!({})));
    assert!(outcome.ok);
    assert!(outcome.stderr.contains("/nonexistent/dataplane.sock"), "{}", outcome.stderr);
    assert!(outcome.stdout.is_empty());
}

#[test]
fn check_and_status_fail_with_everything_down() {
    let config = config("1.1.0", &nowhere(), json!({}));
    assert_eq!(run(&environment("CHECK", ""), &config).error().0, 11);
    let (code, text) = run(&environment("STATUS", ""), &config).error();
    assert_eq!(code, 51);
    assert!(text.contains("/nonexistent/dataplane.sock"), "{text}");
}

#[test]
fn a_refusal_carries_the_dataplane_s_own_words() {
    let dataplane = FakeDataplane::start(|_| FromDataplane::Failed { reason: "no port for c1/eth0".into() });
    let outcome = run(&environment("CHECK", ""), &config("1.0.0", &dataplane.socket(), json!({})));
    let (code, text) = outcome.error();
    assert_eq!(code, 100);
    assert!(text.contains("no port for c1/eth0"), "{text}");
    assert_eq!(outcome.json()["cniVersion"], "1.0.0");
}

#[test]
fn gc_deletes_exactly_its_network_s_ports_without_a_valid_attachment() {
    let port = |index: u16, container_id: &str, network: &str| PortInfo {
        endpoint: LocalEndpoint {
            port: PortIndex(index),
            incarnation: Incarnation(1),
            pod: ObjectName::new("x", container_id),
            uid: String::new(),
            addresses: vec![],
        },
        container_id: container_id.into(),
        ifname: "eth0".into(),
        network: network.into(),
        host_ifname: "v".into(),
        host_ifindex: 9,
        mac: String::new(),
        worker: 0,
        state: PortState::Open,
        isolated_ingress: false,
        isolated_egress: false,
        connections: 0,
        rationed: 0,
    };
    let dataplane = FakeDataplane::start(move |question| match question {
        ToDataplane::Ports => FromDataplane::Ports {
            ports: vec![port(0, "alive", "net"), port(1, "dead", "net"), port(2, "of another network", "storage"), port(3, "found:7", "")],
        },
        _ => FromDataplane::Done,
    });
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "alive", "ifname": "eth0"}]});
    let outcome = run(&[("CNI_COMMAND", "GC")], &config("1.1.0", &dataplane.socket(), valid));
    assert!(outcome.ok, "{}", outcome.stdout);
    assert!(matches!(dataplane.asked.recv().unwrap(), ToDataplane::Ports));
    match dataplane.asked.recv().unwrap() {
        ToDataplane::DelPort { container_id, .. } => assert_eq!(container_id, "dead"),
        other => panic!("{other:?}"),
    }
    assert!(dataplane.asked.try_recv().is_err());
    // a configuration without a name knows of no port that is its own
    let nameless = json!({"cni.dev/valid-attachments": [], "name": ""});
    assert!(run(&[("CNI_COMMAND", "GC")], &config("1.1.0", &dataplane.socket(), nameless)).ok);
    assert!(matches!(dataplane.asked.recv().unwrap(), ToDataplane::Ports));
    assert!(dataplane.asked.try_recv().is_err());
}

/// A real namespace and a real veth pair; everything goes when this is dropped.
struct Namespace {
    name: String,
    host: String,
}

impl Namespace {
    /// `None`, aloud, where the test may not make namespaces.
    fn make(suffix: &str) -> Option<Self> {
        let id = std::process::id() % 100_000;
        let namespace = Self { name: format!("cnitest{id}{suffix}"), host: format!("cnit{id}{suffix}") };
        let made = ip(&["netns", "add", &namespace.name])
            && ip(&["link", "add", &namespace.host, "type", "veth", "peer", "name", "eth0", "netns", &namespace.name]);
        if !made {
            assert!(std::env::var_os("SLUICE_REQUIRE_ROOT").is_none(), "cannot make a namespace");
            eprintln!("SKIPPED: cannot make a network namespace (needs root and iproute2)");
            return None;
        }
        Some(namespace)
    }

    fn path(&self) -> String {
        format!("/var/run/netns/{}", self.name)
    }

    fn previous(&self, host: &str) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": host, "mtu": 1400}, {"name": "eth0", "sandbox": self.path(), "unknown": {"kept": true}}],
            "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}, {"address": "fd00::2/64", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0", "priority": 7}],
            "dns": {"nameservers": ["10.96.0.10"]},
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["link", "del", &self.host]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn added() -> FromDataplane {
    FromDataplane::PortAdded { port: PortIndex(4), incarnation: Incarnation(1), generation: 9, took_us: 100 }
}

#[test]
fn add_registers_the_kernel_s_view_and_prints_prev_result_untouched() {
    let Some(namespace) = Namespace::make("a") else { return };
    let dataplane = FakeDataplane::start(|_| added());
    let previous = namespace.previous(&namespace.host);
    let config = config("1.0.0", &dataplane.socket(), json!({"prevResult": previous, "deadlineMs": 1234}));
    let outcome = run(&environment("ADD", &namespace.path()), &config);
    assert!(outcome.ok, "{}", outcome.stdout);
    assert_eq!(outcome.json(), previous);
    let ToDataplane::AddPort(port) = dataplane.asked.recv().unwrap() else { panic!("another question") };
    assert_eq!((port.container_id.as_str(), port.ifname.as_str()), ("c1", "eth0"));
    assert_eq!((port.pod.to_string().as_str(), port.uid.as_str()), ("x/web", "u"));
    assert_eq!((port.host_ifname.as_str(), port.deadline_ms), (namespace.host.as_str(), 1234));
    let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", namespace.host)).unwrap();
    assert_eq!(port.host_ifindex.to_string(), index.trim());
    assert_ne!(port.mac, [0; 6]);
    assert_eq!(port.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.2", "fd00::2"]);
    assert_eq!(port.network, "net");
}

#[test]
fn del_and_check_name_the_sandbox_s_device_where_there_is_one() {
    let Some(namespace) = Namespace::make("d") else { return };
    let dataplane = FakeDataplane::start(|_| FromDataplane::Done);
    let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", namespace.host)).unwrap();
    let index: u32 = index.trim().parse().unwrap();
    let config = config("1.1.0", &dataplane.socket(), json!({"prevResult": namespace.previous(&namespace.host)}));
    assert!(run(&environment("CHECK", &namespace.path()), &config).ok);
    let asked = dataplane.asked.recv().unwrap();
    let ToDataplane::CheckPort { host_ifindex, addresses, .. } = asked else { panic!("{asked:?}") };
    assert_eq!((host_ifindex, addresses.len()), (Some(index), 2));
    assert!(run(&environment("DEL", &namespace.path()), &config).ok);
    let asked = dataplane.asked.recv().unwrap();
    assert!(matches!(asked, ToDataplane::DelPort { host_ifindex: Some(found), .. } if found == index), "{asked:?}");
    // the device is gone: CHECK says so, DEL does not mind
    assert!(ip(&["link", "del", &namespace.host]));
    assert_eq!(run(&environment("CHECK", &namespace.path()), &config).error().0, 5);
    assert!(run(&environment("DEL", &namespace.path()), &config).ok);
    let asked = dataplane.asked.recv().unwrap();
    assert!(matches!(asked, ToDataplane::DelPort { host_ifindex: None, .. }), "{asked:?}");
}

#[test]
fn add_fails_when_the_dataplane_refuses_or_is_not_there() {
    let Some(namespace) = Namespace::make("b") else { return };
    let previous = json!({"prevResult": namespace.previous(&namespace.host)});
    let dataplane = FakeDataplane::start(|_| FromDataplane::Failed { reason: "deadline: no table yet".into() });
    let outcome = run(&environment("ADD", &namespace.path()), &config("1.1.0", &dataplane.socket(), previous.clone()));
    let (code, text) = outcome.error();
    assert_eq!(code, 100);
    assert!(text.contains("deadline: no table yet"), "{text}");
    let outcome = run(&environment("ADD", &namespace.path()), &config("1.1.0", &nowhere(), previous));
    assert_eq!(outcome.error().0, 11);
}

#[test]
fn add_refuses_what_is_not_this_pod_s_routed_veth() {
    let Some(namespace) = Namespace::make("c") else { return };
    let dataplane = FakeDataplane::start(|_| added());
    let add = |netns: &str, ifname: &str, previous: &Value| {
        let mut environment = environment("ADD", netns);
        environment.retain(|(name, _)| *name != "CNI_IFNAME");
        environment.push(("CNI_IFNAME", ifname));
        run(&environment, &config("1.0.0", &dataplane.socket(), json!({"prevResult": previous}))).error()
    };
    let path = namespace.path();
    // an interface that is not there, and one that is no veth
    let bare = json!({"ips": [{"address": "10.1.0.2/24"}]});
    assert_eq!(add(&path, "eth7", &bare).0, 5);
    assert_eq!(add(&path, "lo", &bare).0, 101);
    // a result that names another host's end
    let (code, text) = add(&path, "eth0", &namespace.previous("othervethname"));
    assert_eq!(code, 7);
    assert!(text.contains(&namespace.host), "{text}");
    // a pair within the pod's own namespace: its peer index may well exist here, and must not be believed
    assert!(ip(&["-n", &namespace.name, "link", "add", "in0", "type", "veth", "peer", "name", "in1"]));
    assert_eq!(add(&path, "in0", &bare).0, 101);
    // a port of a bridge
    let bridge = format!("{}br", namespace.host);
    assert!(ip(&["link", "add", &bridge, "type", "bridge"]));
    let enslaved = ip(&["link", "set", &namespace.host, "master", &bridge]);
    let outcome = add(&path, "eth0", &namespace.previous(&namespace.host));
    ip(&["link", "del", &bridge]);
    assert!(enslaved);
    assert_eq!(outcome.0, 101);
    assert!(outcome.1.contains("bridge"), "{}", outcome.1);
    assert!(dataplane.asked.try_recv().is_err(), "the dataplane was asked");
}
