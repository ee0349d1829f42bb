//! Datagrams that are larger than the pods' MTU, as their stacks cut them: between pods, to a service, in both families.

use sluice_flow::Family;
use sluice_lab::{Lab, agents};
use sluice_tests::live::{Live, drops, pod, policy, turn};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(400);
/// Three pieces at an MTU of 1500.
const BYTES: usize = 4000;
const PORT: u16 = 80;

/// b takes UDP 80 from a alone; a leaves for b alone; c is not isolated.
fn cluster() -> String {
    let from_a = "[{podSelector: {matchLabels: {app: a}}}]";
    let b =
        format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: {from_a}, ports: [{{port: {PORT}, protocol: UDP}}]}}]}}");
    let a =
        "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}";
    let service = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: x}}\nspec: {{selector: {{app: b}}, ports: [{{port: {PORT}, protocol: UDP}}]}}\n"
    );
    ["x/a", "x/b", "x/c"].map(pod).concat() + &service + &policy("x/b", &b) + &policy("x/a", a)
}

/// Sends so many datagrams of [`BYTES`] from one socket; how many are echoed whole.
fn echoed(lab: &Lab, from: &str, to: IpAddr, count: usize) -> usize {
    lab.in_pod(from, || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(SocketAddr::new(to, PORT))?;
        socket.set_read_timeout(Some(QUICK))?;
        let (sent, mut buffer, mut whole) = (vec![0x5a; BYTES], vec![0; 2 * BYTES], 0);
        for _ in 0..count {
            socket.send(&sent)?;
            // an echo begins with the pod's name
            whole += usize::from(socket.recv(&mut buffer).is_ok_and(|bytes| bytes > BYTES && buffer[..bytes].ends_with(&sent)));
        }
        Ok(whole)
    })
    .unwrap_or_else(|error| panic!("{from} to {to}: {error:#}"))
}

#[test]
fn large_datagrams_pass_whole_where_policy_lets_them_and_not_at_all_where_not() {
    let Some(turn) = turn("live_fragments") else { return };
    let live = Live::up(turn, "frag", &cluster(), |_| {});
    for family in [Family::V4, Family::V6] {
        let b = live.pod_address("x/b", family).unwrap();
        let c = live.pod_address("x/c", family).unwrap();
        let service = live.service("x/b").unwrap().address(family).unwrap();
        // the first of them meets the worker, the others the cache
        assert_eq!(echoed(&live, "x/a", b, 20), 20, "{family:?} a to b");
        assert_eq!(echoed(&live, "x/a", service, 20), 20, "{family:?} a to b's service");
        assert_eq!(echoed(&live, "x/a", c, 2), 0, "{family:?} a to c: a may not");
        assert_eq!(echoed(&live, "x/c", b, 2), 0, "{family:?} c to b: b does not take it");
        assert_eq!(echoed(&live, "x/c", service, 2), 0, "{family:?} c to b's service");
    }
    let status = agents::dataplane_status(live.layout()).unwrap();
    assert!(status.cache_hits > 200, "{status:?}");
    assert!(drops(live.layout(), "policy_denied") > 0 && drops(live.layout(), "exit_unjudged") == 0);
    live.down();
}
