//! The real binary against sockets that the test serves, saved images and manifests: what is printed and how it ends.

use serde_json::Value;
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::load::load_str;
use sluice_table::seal::write_sealed;
use sluice_wire::{
    CONTROL_DIR, CONTROL_SOCKET, ControlStatus, DataplaneStatus, DropCount, Explanation, FoundDevice, FoundState, FromControl,
    FromDataplane, Listener, ManifestProblem, Preceded, Realization, RealizationState, ToControl, ToDataplane, WatchStatus, WorkerStatus,
};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};

const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: x, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: x, labels: {app: client}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.2, phase: Running}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-client, namespace: x}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 80}]
";

fn image(generation: u64) -> Vec<u8> {
    let mut snapshot = load_str("test.yaml", MANIFESTS).snapshot;
    snapshot.endpoints = vec![LocalEndpoint {
        port: PortIndex(0),
        incarnation: Incarnation(1),
        pod: ObjectName::parse("x/web"),
        uid: String::new(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    }];
    sluice_policy::compile(&snapshot, generation).unwrap().to_vec()
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicectl")).arg("--run-dir").arg(dir).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    text(output)
}

fn serve_dataplane(dir: &Path) {
    let listener = Listener::bind(&dir.join("dataplane.sock")).unwrap();
    std::thread::spawn(move || {
        while let Ok(Some(mut connection)) = listener.accept() {
            let Ok(Some((question, _))) = connection.recv::<ToDataplane>() else { continue };
            let image = image(7);
            let fd = matches!(question, ToDataplane::Table).then(|| write_sealed("test", &image).unwrap());
            let answer = match question {
                ToDataplane::Status => FromDataplane::Status(dataplane_status()),
                ToDataplane::Ports => FromDataplane::Ports { ports: Vec::new() },
                ToDataplane::Found => FromDataplane::Found { devices: vec![found(7, FoundState::Closed), found(9, FoundState::Unmanaged)] },
                ToDataplane::Table => FromDataplane::Table { generation: 7, image_bytes: image.len() as u64 },
                _ => FromDataplane::Failed { reason: "not today".into() },
            };
            connection.send(&answer, fd.as_ref().map(AsFd::as_fd)).unwrap();
        }
    });
}

fn found(host_ifindex: u32, state: FoundState) -> FoundDevice {
    FoundDevice {
        host_ifindex,
        host_ifname: format!("veth{host_ifindex}"),
        addresses: vec!["10.0.0.9".parse().unwrap()],
        mac: None,
        state,
        reason: "ran before it could be attached".into(),
        awaits_identity: false,
    }
}

fn dataplane_status() -> DataplaneStatus {
    DataplaneStatus {
        version: "0.1.0".into(),
        abi_version: 1,
        taken_over: None,
        pid: 1,
        uptime_s: 600,
        generation: 7,
        generation_age_s: 3,
        image_bytes: 4096,
        control_connected: true,
        last_refused: None,
        storage_trouble: Some("write /run/sluice/image.new: No space left on device".into()),
        established: "enforce".into(),
        enforcing: true,
        fail_open: false,
        every_packet: false,
        cache_hits: 1000,
        punts: 10,
        admitted: 7,
        direct: 3,
        straight: sluice_wire::Straight::UdpSinceTcpIsTracked,
        uplinks: Vec::new(),
        uplink_drops: 0,
        not_isolated: 5,
        cache_entries: 2,
        ports: 1,
        existing_pods: "close".into(),
        found_closed: 1,
        found_unmanaged: 2,
        preceded: vec![Preceded { device: "veth7".into(), program: 99 }],
        workers: vec![WorkerStatus {
            worker: 0,
            cpu: Some(1),
            trunk: "sluice-t0".into(),
            generation: 7,
            ports: 1,
            connections: 1,
            received: 10,
            forwarded: 9,
            dropped: 1,
            connections_cut: 0,
            alive: true,
            wait: "adaptive".into(),
            cpu_us: 1_500_000,
        }],
        drops: vec![DropCount { reason: "malformed".into(), packets: 1 }, DropCount { reason: "policy_denied".into(), packets: 41 }],
    }
}

fn serve_control(dir: &Path, settled: bool) {
    std::fs::create_dir_all(dir.join(CONTROL_DIR)).unwrap();
    let listener = Listener::bind(&dir.join(CONTROL_SOCKET)).unwrap();
    std::thread::spawn(move || {
        while let Ok(Some(mut connection)) = listener.accept() {
            let Ok(Some((question, _))) = connection.recv::<ToControl>() else { continue };
            let answer = match question {
                ToControl::Status | ToControl::Settle { .. } => FromControl::Status(control_status(settled)),
                ToControl::Explain { port, .. } => FromControl::Explanation(Explanation {
                    src: "x/client (10.0.0.2)".into(),
                    dst: "x/web (10.0.0.1)".into(),
                    port: format!("{port}/TCP"),
                    allowed: port == 80,
                    egress: None,
                    ingress: None,
                    notes: vec!["from the node".into()],
                }),
                ToControl::Policies => FromControl::Policies { policies: Vec::new() },
                ToControl::Realization { policy, generation, .. } => FromControl::Realization(realization(policy, generation, settled)),
            };
            connection.send(&answer, None).unwrap();
        }
    });
}

/// Generation 4 is in force, and the newest.
fn realization(policy: ObjectName, generation: Option<i64>, well: bool) -> Realization {
    let is_known = policy.name == "web";
    let state = match (is_known, well, generation.unwrap_or(0) <= 4) {
        (false, ..) => RealizationState::Unknown,
        (true, false, _) => RealizationState::Refused,
        (true, true, true) => RealizationState::Realized,
        (true, true, false) => RealizationState::Pending,
    };
    Realization {
        policy,
        state,
        generation: is_known.then_some(4),
        known_generation: is_known.then_some(4),
        since_ms: is_known.then_some(1_000_000_250),
        table_generation: 7,
        problem: (is_known && !well).then(problem),
        failure: None,
    }
}

fn control_status(settled: bool) -> ControlStatus {
    ControlStatus {
        version: "0.1.0".into(),
        pid: 2,
        uptime_s: 10,
        source: "directory manifests".into(),
        dataplane_connected: true,
        published_generation: 7,
        adopted_generation: 7,
        settled,
        last_failure: (!settled).then(|| "the table disagrees with the oracle: counterexample".into()),
        namespaces: 1,
        pods: 2,
        policies: 1,
        endpoints: 1,
        compile_us: 812,
        proof_us: 4100,
        comparisons: 1203,
        comparisons_required: 1203,
        proof_pending: false,
        rollbacks: 0,
        image_bytes: 4096,
        last_change_to_adopted_us: Some(31_000),
        watches: watches(settled),
        problems: vec![problem()],
    }
}

fn problem() -> ManifestProblem {
    ManifestProblem {
        file: "manifests/web.yaml".into(),
        line: 9,
        column: 15,
        object: Some("NetworkPolicy x/web".into()),
        field: "spec.ingress[0].ports[0].port".into(),
        message: "must be between 1 and 65535".into(),
        hint: Some("write 80".into()),
        in_force: "the last good state".into(),
    }
}

fn watches(well: bool) -> Vec<WatchStatus> {
    let pods = WatchStatus {
        resource: "pods".into(),
        objects: 2,
        listed: true,
        lists: 1,
        version: "4711".into(),
        heard_s: 90,
        trouble: (!well).then(|| "failed to start watching object: connection refused".into()),
        trouble_s: 75,
    };
    vec![pods.clone(), WatchStatus { resource: "services".into(), objects: 1, listed: false, trouble: None, ..pods }]
}

#[test]
fn status_shows_either_half_and_says_which_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let shown = ends(&run(dir.path(), &["status"]), 2);
    assert!(shown.contains("DATAPLANE down") && shown.contains("CONTROL   down"), "{shown}");
    serve_dataplane(dir.path());
    let shown = ends(&run(dir.path(), &["status"]), 0);
    assert!(shown.contains("DATAPLANE up") && shown.contains("CONTROL   down") && shown.contains("generation 7"), "{shown}");
    serve_control(dir.path(), true);
    let shown = ends(&run(dir.path(), &["status"]), 0);
    for expected in [
        "CONTROL   up",
        "1 namespace, 2 pods, 1 policy, 1 endpoint here",
        "manifests/web.yaml:9:15: NetworkPolicy x/web: spec.ingress[0].ports[0].port: must be between 1 and 65535",
        "hint: write 80",
        "in force: the last good state",
        "following",
        "listing",
        "No space left on device; it is in force, and lost",
        "CLOSED: 1 running pod that nothing passes to or from, --existing-pods=close",
        "UNMANAGED: 2 running pods that no policy holds for",
    ] {
        assert!(shown.contains(expected), "{expected:?} in {shown}");
    }
    let json: Value = serde_json::from_slice(&run(dir.path(), &["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["control"]["status"]["watches"][0]["objects"], 2);
    assert_eq!(json["ready"], true);
    assert_eq!(json["dataplane"]["status"]["generation"], 7);
    assert_eq!(json["control"]["status"]["problems"][0]["line"], 9);
}

#[test]
fn status_wait_ends_with_one_when_not_ready_in_time() {
    let dir = tempfile::tempdir().unwrap();
    ends(&run(dir.path(), &["status", "--wait", "--timeout", "200ms"]), 1);
    serve_dataplane(dir.path());
    serve_control(dir.path(), false);
    let shown = ends(&run(dir.path(), &["status", "--wait", "--timeout", "200ms"]), 1);
    assert!(shown.contains("counterexample"), "{shown}");
    let dir = tempfile::tempdir().unwrap();
    serve_dataplane(dir.path());
    serve_control(dir.path(), true);
    ends(&run(dir.path(), &["status", "--wait", "--timeout", "5s"]), 0);
}

#[test]
fn the_live_table_is_read_from_its_sealed_memory_and_can_be_saved() {
    let dir = tempfile::tempdir().unwrap();
    serve_dataplane(dir.path());
    let live = ends(&run(dir.path(), &["table", "dump"]), 0);
    assert!(live.contains("x/web") && live.contains("x/allow-client"), "{live}");
    let file = dir.path().join("saved.img");
    ends(&run(dir.path(), &["table", "save", file.to_str().unwrap()]), 0);
    assert_eq!(std::fs::read(&file).unwrap(), image(7));
    let saved = ends(&run(Path::new("/nonexistent"), &["table", "dump", "--image", file.to_str().unwrap()]), 0);
    assert_eq!(saved, live);
    let json = run(dir.path(), &["-o", "json", "table", "dump"]).stdout;
    assert_eq!(serde_json::from_slice::<Value>(&json).unwrap()["generation"], 7);
    std::fs::write(&file, &image(7)[..100]).unwrap();
    let refused = ends(&run(dir.path(), &["table", "dump", "--image", file.to_str().unwrap()]), 2);
    assert!(refused.contains("no valid image"), "{refused}");
}

#[test]
fn explain_answers_from_manifests_without_a_node_and_its_exit_code_is_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.yaml");
    std::fs::write(&file, MANIFESTS).unwrap();
    let explain = |arguments: &[&str]| run(dir.path(), &[&["explain"], arguments, &["-f", file.to_str().unwrap()]].concat());
    let shown = ends(&explain(&["x/client", "x/web", "80"]), 0);
    assert!(shown.starts_with("ALLOWED") && shown.contains("allowed by policy x/allow-client ingress[0]"), "{shown}");
    assert!(shown.contains("not isolated"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour in a pipe");
    let shown = ends(&explain(&["x/client", "x/web", "81"]), 1);
    assert!(shown.starts_with("DENIED") && shown.contains("default deny") && shown.contains("nearest miss"), "{shown}");
    ends(&explain(&["x/client", "x/web", "icmp"]), 1);
    ends(&explain(&["x/nobody", "x/web", "80"]), 2);
    ends(&explain(&["x/client", "x/web", "http"]), 2);
    let json: Value = serde_json::from_slice(&explain(&["x/client", "x/web", "81", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["allowed"], false);
    assert_eq!(json["ingress"]["isolating"][0]["name"], "allow-client");
    // manifests with problems give no answer: it might be wrong
    std::fs::write(&file, MANIFESTS.replace("port: 80", "port: 80000")).unwrap();
    let refused = ends(&explain(&["x/client", "x/web", "80"]), 2);
    assert!(refused.contains("all.yaml:"), "{refused}");
}

#[test]
fn explain_asks_the_node_when_there_are_no_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let refused = ends(&run(dir.path(), &["explain", "x/client", "x/web", "80"]), 2);
    assert!(refused.contains("is it running"), "{refused}");
    serve_control(dir.path(), true);
    assert!(ends(&run(dir.path(), &["explain", "x/client", "x/web", "80"]), 0).contains("note: from the node"));
    ends(&run(dir.path(), &["explain", "x/client", "x/web", "81/tcp"]), 1);
}

#[test]
fn lists_say_so_when_they_are_empty_and_drops_say_what_they_mean() {
    let dir = tempfile::tempdir().unwrap();
    serve_dataplane(dir.path());
    serve_control(dir.path(), true);
    let endpoints = ends(&run(dir.path(), &["get", "endpoints"]), 0);
    for expected in ["veth7", "closed", "veth9", "unmanaged", "10.0.0.9", "veth9: ran before it could be attached"] {
        assert!(endpoints.contains(expected), "{expected:?} in {endpoints}");
    }
    let json: Value = serde_json::from_slice(&run(dir.path(), &["get", "endpoints", "-o", "json"]).stdout).unwrap();
    assert_eq!((&json[0]["state"], &json[1]["state"]), (&"closed".into(), &"unmanaged".into()));
    assert!(ends(&run(dir.path(), &["get", "policies"]), 0).contains("No policies"));
    let drops = ends(&run(dir.path(), &["get", "drops"]), 0);
    let lines: Vec<&str> = drops.lines().collect();
    assert!(lines[0].starts_with("REASON") && lines[1].starts_with("policy_denied"), "most first: {drops}");
    assert!(lines[1].contains("41") && lines[1].contains("no rule allows"), "{drops}");
    let refused = ends(&run(dir.path(), &["get", "connections"]), 2);
    assert!(refused.contains("not today"), "{refused}");
}

#[test]
fn waiting_for_a_policy_ends_by_whether_it_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let refused = ends(&run(dir.path(), &["wait", "policy", "x/web"]), 2);
    assert!(refused.contains("is it running"), "{refused}");
    serve_control(dir.path(), true);
    let shown = ends(&run(dir.path(), &["wait", "policy", "x/web"]), 0);
    assert!(shown.starts_with("realized x/web generation 4 is in force since 1970-01-12T13:46:40.250Z"), "{shown}");
    let shown = ends(&run(dir.path(), &["wait", "policy", "x/web", "--generation", "5", "--timeout", "0s"]), 1);
    assert!(shown.starts_with("pending") && shown.contains("table 7"), "{shown}");
    let shown = ends(&run(dir.path(), &["wait", "policy", "x/wbe"]), 1);
    assert!(shown.contains("there is no NetworkPolicy x/wbe"), "{shown}");
    let json: Value = serde_json::from_slice(&run(dir.path(), &["wait", "policy", "x/web", "-o", "json"]).stdout).unwrap();
    assert_eq!((&json["state"], &json["sinceMs"]), (&"realized".into(), &1_000_000_250_u64.into()));
    let dir = tempfile::tempdir().unwrap();
    serve_control(dir.path(), false);
    let shown = ends(&run(dir.path(), &["wait", "policy", "x/web"]), 1);
    assert!(shown.starts_with("refused") && shown.contains("must be between 1 and 65535") && shown.contains("hint: write 80"), "{shown}");
}

#[test]
fn doctor_looks_at_this_very_machine_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let arguments = ["doctor", "--conf-dir", none.to_str().unwrap(), "-o", "json"];
    let output = run(dir.path(), &arguments);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    let checks = json["checks"].as_array().unwrap();
    let state = |name: &str| checks.iter().find(|check| check["check"] == name).map(|check| check["state"].as_str().unwrap().to_owned());
    let missing = checks.iter().any(|check| check["state"] == "missing");
    assert_eq!((output.status.code(), json["ok"].as_bool()), (Some(i32::from(missing)), Some(!missing)), "{json:#}");
    for check in checks {
        assert_eq!(check["advice"].is_null(), check["state"] == "fine", "{check}");
    }
    // these tests run on no older kernel
    assert_eq!(state("kernel").as_deref(), Some("fine"), "{json:#}");
    let tried = if rustix::process::geteuid().is_root() { "fine" } else { "unknown" };
    assert_eq!(state("tcx").as_deref(), Some(tried), "{json:#}");
    assert_eq!((state("dataplane").as_deref(), state("cni").as_deref()), (Some("advice"), Some("advice")), "{json:#}");

    let shown = text(&run(dir.path(), &arguments[..3]));
    assert!(shown.starts_with("CHECK") && shown.contains("do: systemctl start sluice-dataplane"), "{shown}");
    // running processes are asked
    serve_dataplane(dir.path());
    serve_control(dir.path(), true);
    let json: Value = serde_json::from_slice(&run(dir.path(), &arguments).stdout).unwrap();
    let found = |name: &str| json["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).unwrap()["found"].to_string();
    assert!(found("dataplane").contains("version 0.1.0, ABI 1, generation 7"), "{json:#}");
    assert!(found("control").contains("1 problem of objects"), "{json:#}");
    assert!(found("cpus").contains("online"), "{json:#}");
}
