//! A node with pods whose agents are taken off and put back: what stands on its devices, and who is known.

use super::{Live, Turn, pod, policy, program};
use serde_json::Value;
use sluice_flow::Family;
use sluice_lab::{Agent, Lab, LabConfig, agents, probe};
use sluice_wire::{FoundDevice, FoundState, FromDataplane, ToDataplane};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

/// Nobody answers later than this.
pub const QUICK: Duration = Duration::from_millis(400);
/// What should happen at once has happened by then.
pub const SOON: Duration = Duration::from_secs(5);
/// The node's name.
pub const NODE: &str = "n1";

/// b takes only what comes from a; every pod of namespace late is isolated both ways.
pub fn cluster() -> String {
    let b = policy("x/b", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    let late = policy("late/base", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    ["x/a", "x/b", "x/c"].map(pod).concat() + &b + &late
}

/// A lab of [`cluster`] whose dataplane does this with existing pods; its control process is that of [`NODE`].
///
/// # Panics
/// When the lab does not obey.
pub fn up(turn: Turn, stem: &str, choice: &str) -> Live {
    let change = |config: &mut LabConfig| {
        config.dataplane_args = ["--scan-interval", "1", "--existing-pods", choice].map(String::from).into();
        config.control_args = ["--node-name", NODE].map(String::from).into();
    };
    Live::up(turn, stem, &cluster(), change)
}

/// A pod's address and this port.
///
/// # Panics
/// When the lab does not obey.
pub fn at(lab: &Lab, pod: &str, port: u16) -> SocketAddr {
    SocketAddr::new(lab.pod_address(pod, Family::V4).unwrap(), port)
}

/// Whether a TCP connection to port 80 comes about.
///
/// # Panics
/// When the lab does not obey.
pub fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let address = at(lab, to, 80);
    lab.in_pod(from, || Ok(probe::tcp(address, QUICK).outcome.reached())).unwrap()
}

/// The policy of [`cluster`] holds on live traffic.
///
/// # Panics
/// When the lab does not obey.
pub fn assert_enforced(lab: &Lab, when: &str) {
    assert!(reaches(lab, "x/a", "x/b"), "{when}: a to b");
    assert!(!reaches(lab, "x/c", "x/b"), "{when}: c to b");
}

/// Runs a command in the node's network namespace; what it printed.
///
/// # Panics
/// When the lab does not obey.
pub fn in_node(lab: &Lab, command: &[&str]) -> String {
    let output = lab.node().run(|| Ok(Command::new(command[0]).args(&command[1..]).output()?)).unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks sluicectl; what it printed.
///
/// # Panics
/// When the lab does not obey.
pub fn sluicectl(lab: &Lab, arguments: &[&str]) -> String {
    let output = Command::new(program("sluicectl")).arg("--run-dir").arg(lab.layout().run_dir()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `sluice-dataplane remove` on this node.
///
/// # Panics
/// When the lab does not obey.
pub fn remove(lab: &Lab) -> Output {
    let mut command = Command::new(program("sluice-dataplane"));
    command.arg("--run-dir").arg(lab.layout().run_dir()).arg("--bpf-dir").arg(lab.layout().bpf_dir()).arg("remove");
    lab.node().run(|| Ok(command.output()?)).unwrap()
}

/// Kills both agents.
///
/// # Panics
/// When the lab does not obey.
pub fn stop_both(lab: &Lab) {
    for agent in Agent::ALL {
        lab.kill_agent(agent).unwrap();
    }
}

/// Starts both agents.
///
/// # Panics
/// When the lab does not obey.
pub fn start_both(lab: &Lab) {
    for agent in Agent::ALL {
        lab.start_agent(agent).unwrap();
    }
}

/// The node as it was before anybody installed an agent, with its pods running.
///
/// # Panics
/// When the lab does not obey.
pub fn uninstall(lab: &Lab) {
    stop_both(lab);
    let output = remove(lab);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(reaches(lab, "x/c", "x/b"), "without an agent everything passes");
}

/// What the dataplane does with existing pods from its next start on.
///
/// # Panics
/// When the lab does not obey.
pub fn choose(lab: &Lab, choice: &str) {
    let mut state = lab.state().unwrap();
    *state.dataplane_args.last_mut().unwrap() = choice.into();
    lab.layout().save(&state).unwrap();
}

/// Devices of pods that no port owns.
///
/// # Panics
/// When the lab does not obey.
pub fn found(lab: &Lab) -> Vec<FoundDevice> {
    match agents::ask_dataplane(lab.layout(), &ToDataplane::Found).unwrap() {
        FromDataplane::Found { devices } => devices,
        other => panic!("{other:?}"),
    }
}

/// The same by name.
///
/// # Panics
/// When the lab does not obey.
pub fn states(lab: &Lab) -> BTreeMap<String, FoundState> {
    found(lab).into_iter().map(|device| (device.host_ifname, device.state)).collect()
}

/// The host's end of each pod of the lab.
///
/// # Panics
/// When the lab does not obey.
pub fn pods_devices(lab: &Lab) -> BTreeSet<String> {
    let text = in_node(lab, &["ip", "-j", "route", "show"]);
    let routes: Vec<Value> = serde_json::from_str(&text).unwrap();
    let addresses: BTreeSet<String> = lab.state().unwrap().pods.values().flat_map(|pod| &pod.addresses).map(ToString::to_string).collect();
    let of_pods = routes.iter().filter(|route| addresses.contains(route["dst"].as_str().unwrap()));
    of_pods.map(|route| route["dev"].as_str().unwrap().to_owned()).collect()
}

/// A device's index in the node.
///
/// # Panics
/// When the lab does not obey.
pub fn ifindex(lab: &Lab, device: &str) -> u32 {
    let text = in_node(lab, &["ip", "-j", "link", "show", device]);
    let links: Value = serde_json::from_str(&text).unwrap();
    links[0]["ifindex"].as_u64().unwrap() as u32
}

/// Devices with pinned hooks, trunks apart.
///
/// # Panics
/// When the lab does not obey.
pub fn hooked(lab: &Lab) -> BTreeSet<u32> {
    let mut hooked = BTreeSet::new();
    for version in std::fs::read_dir(lab.layout().bpf_dir()).into_iter().flatten().flatten() {
        for link in std::fs::read_dir(version.path().join("links")).into_iter().flatten().flatten() {
            let name = link.file_name().into_string().unwrap();
            hooked.extend(name.strip_prefix("device-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok()));
        }
    }
    hooked
}
