//! The dataplane as the chart runs it: in mounts of its own, with exactly the chart's capabilities. It serves, it refuses to
//! start with one capability less, and the container's end costs the trunks but no established flow.

use caps::Capability;
use sluice_dataplane::privileges;
use sluice_flow::Family;
use sluice_lab::{Agent, Lab, NetNs, probe};
use sluice_tests::live::{Contained, Live, pod, policy, turn, until};
use sluice_tests::traffic::{TcpPlan, TcpStreams, UdpFlows, UdpPlan};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const FLOWS: UdpPlan = UdpPlan { port: 9000, flows: 100, packets_per_second: 5_000, answer_every: 16 };
const STREAMS: TcpPlan = TcpPlan { port: 9001, streams: 4, bytes_per_second: 1 << 20 };
const QUICK: Duration = Duration::from_millis(400);
const CRASHES: usize = 3;

/// As in a pod: without `CAP_`. The chart adds CHOWN, for --control-user.
fn names(capabilities: impl IntoIterator<Item = Capability>) -> Vec<String> {
    capabilities.into_iter().map(|capability| capability.to_string().replace("CAP_", "")).collect()
}

fn chart() -> Vec<String> {
    names(privileges::NEEDED.map(|(capability, _)| capability).into_iter().chain([Capability::CAP_CHOWN]))
}

/// A port for each crash, none beside another one.
fn port_of(crash: usize) -> u16 {
    7000 + 2 * crash as u16
}

/// a may open to b, b to nobody. A rule of its own for some ports: what is allowed to those around them says nothing of them.
fn cluster() -> String {
    let ports: Vec<String> = (0..CRASHES).map(|crash| format!("{{protocol: TCP, port: {}}}", port_of(crash))).collect();
    let ports = ports.join(", ");
    let base = policy("x/base", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let b = "to: [{podSelector: {matchLabels: {app: b}}}]";
    let to_b = policy(
        "x/a-to-b",
        &format!("{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Egress], egress: [{{{b}, ports: [{ports}]}}, {{{b}}}]}}"),
    );
    let from_a =
        policy("x/b-from-a", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    ["x/a", "x/b"].map(pod).concat() + &base + &to_b + &from_a
}

fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    reaches_port(lab, from, to, 80)
}

fn reaches_port(lab: &Lab, from: &str, to: &str, port: u16) -> bool {
    let to = SocketAddr::new(lab.pod_address(to, Family::V4).unwrap(), port);
    lab.in_pod(from, || Ok(probe::tcp(to, QUICK).outcome.reached())).unwrap()
}

#[test]
fn a_container_s_end_takes_the_trunks_and_no_established_flow() {
    let Some(turn) = turn("live_container") else { return };
    let capabilities = chart();
    let contained = Contained::new(capabilities.iter().map(String::as_str)).unwrap();
    let live = Live::up(turn, "cont", &cluster(), |config| {
        config.bin_dir = Some(contained.bin_dir().to_owned());
        config.dataplane_args = vec![format!("--proc-sys-net={}", contained.proc_sys_net().display())];
    });
    assert!(reaches(&live, "x/a", "x/b") && !reaches(&live, "x/b", "x/a"));
    let flows = UdpFlows::start(&live, "x/a", "x/b", Family::V4, FLOWS).unwrap();
    let streams = TcpStreams::start(&live, "x/a", "x/b", Family::V6, STREAMS).unwrap();
    std::thread::sleep(QUICK);
    let trunk = |live: &Live| {
        live.node()
            .run(|| {
                Ok(rustix::net::netdevice::name_to_index(
                    &rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?,
                    "sluice-n0",
                )
                .ok())
            })
            .unwrap()
    };
    for crash in 0..CRASHES {
        let before = trunk(&live).expect("a trunk");
        assert!(live.kill_agent(Agent::Dataplane).unwrap());
        until("the trunks go with their namespace", Duration::from_secs(10), || trunk(&live).is_none());
        // to a port that nobody has asked for: what is like one before begins in the kernel
        let port = port_of(crash);
        assert!(!reaches_port(&live, "x/a", "x/b", port), "crash {crash}: a new connection without a dataplane");
        live.start_agent(Agent::Dataplane).unwrap();
        until("a new connection after the restart", Duration::from_secs(3), || reaches_port(&live, "x/a", "x/b", port));
        assert!(!reaches(&live, "x/b", "x/a"), "crash {crash}: a forbidden connection after the restart");
        assert_ne!(trunk(&live), Some(before), "crash {crash}: another trunk");
    }
    flows.finish().unwrap().assert_whole();
    streams.finish().unwrap().assert_whole();
    live.down();
}

/// Starts a dataplane that must not come up, in a network namespace that goes at once; what it says.
fn refusal(capabilities: &[String], arguments: &[&str]) -> String {
    let contained = Contained::new(capabilities.iter().map(String::as_str)).unwrap();
    let run_dir = tempfile::tempdir().unwrap();
    let netns = NetNs::named(format!("sluice-refusal-{}", std::process::id()));
    let bpf_dir = format!("/sys/fs/bpf/{}", netns.name());
    netns.create().unwrap();
    let mut command = Command::new(contained.bin_dir().join("sluice-dataplane"));
    command.arg("--run-dir").arg(run_dir.path()).arg("--bpf-dir").arg(&bpf_dir).args(arguments);
    let output = netns.run(|| Ok(command.output()?)).unwrap();
    let mut remove = Command::new(sluice_tests::live::program("sluice-dataplane"));
    remove.arg("--run-dir").arg(run_dir.path()).arg("--bpf-dir").arg(&bpf_dir).arg("remove");
    let removed = netns.run(|| Ok(remove.output()?)).unwrap();
    netns.delete().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_one_of_its_capabilities_it_names_it_and_does_not_start() {
    let Some(_turn) = turn("live_container capabilities") else { return };
    for (missing, what_for) in privileges::NEEDED {
        let held = names(privileges::NEEDED.map(|(capability, _)| capability).into_iter().filter(|capability| *capability != missing));
        let said = refusal(&held, &[]);
        assert!(said.contains(&format!("missing {missing} ({what_for})")), "{said}");
        assert_eq!(said.matches("CAP_").count(), 1, "only the one that is missing: {said}");
    }
}

#[test]
fn where_sysctls_are_read_only_it_says_which_mount_is_missing() {
    let Some(_turn) = turn("live_container sysctls") else { return };
    let said = refusal(&chart(), &[]);
    assert!(said.contains("mount the node's /proc/sys/net into the container and name it with --proc-sys-net"), "{said}");
    let said = refusal(&chart(), &["--proc-sys-net=/nowhere"]);
    assert!(said.contains("/nowhere/ipv6/conf/sluice-n0/disable_ipv6"), "{said}");
}
