//! A control process that is not root: it publishes what is then in force on live traffic, and can do nothing else. Neither
//! root's files, nor ports, nor the hooks are within its reach.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use sluice_flow::{Family, ObjectName};
use sluice_lab::{Agent, Lab, agents, probe};
use sluice_tests::live::{Live, pod, policy, program, turn, until};
use sluice_wire::{
    AddPort, CONTROL_DIR, CONTROL_SOCKET, Connection, DATAPLANE_SOCKET, FromDataplane, ToDataplane, WIRE_VERSION, WireError,
};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CONTROL: u32 = 65532;
const STRANGER: u32 = 65533;
const QUICK: Duration = Duration::from_millis(400);

/// b takes only what comes from these.
fn gate(from: &str) -> String {
    policy(
        "x/b",
        &format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {from}}}}}}}]}}]}}"),
    )
}

fn reaches(lab: &Lab, from: &str) -> bool {
    let address = SocketAddr::new(lab.pod_address("x/b", Family::V4).unwrap(), 80);
    lab.in_pod(from, || Ok(probe::tcp(address, QUICK).outcome.reached())).unwrap()
}

/// Runs it as another user, without any capability. The thread ends with it, so nobody else notices.
fn as_user<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// What the dataplane says to this request from this user.
fn asked_by(uid: u32, gid: u32, run_dir: &Path, request: &ToDataplane) -> Result<FromDataplane, WireError> {
    as_user(uid, gid, || {
        let mut connection = Connection::connect(&run_dir.join(DATAPLANE_SOCKET))?;
        connection.set_receive_timeout(Some(Duration::from_secs(5)))?;
        Ok(connection.call(request)?.0)
    })
}

fn refused(answer: Result<FromDataplane, WireError>) -> String {
    match answer {
        Ok(FromDataplane::Failed { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// sluice-control as another user. Its program is a copy where every user can reach it.
struct OtherControl {
    child: Child,
    _dir: tempfile::TempDir,
}

impl OtherControl {
    fn start(lab: &Lab, uid: u32, gid: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy: PathBuf = dir.path().join("sluice-control");
        std::fs::copy(program("sluice-control"), &copy).unwrap();
        let mut command = Command::new(copy);
        command.arg("--run-dir").arg(lab.layout().run_dir()).arg("--manifests").arg(lab.layout().manifests());
        let child = command.uid(uid).gid(gid).current_dir("/").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, _dir: dir }
    }

    /// Ends it; what it had said.
    fn end(&mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        self.child.wait().unwrap();
        said
    }
}

impl Drop for OtherControl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

#[test]
fn a_control_process_of_another_user_publishes_and_can_do_nothing_else() {
    let Some(turn) = turn("live_control_user") else { return };
    let yaml = ["x/a", "x/b", "x/c"].map(pod).concat() + &gate("a");
    let live = Live::up(turn, "user", &yaml, |config| {
        config.dataplane_args = ["--control-user".into(), format!("{CONTROL}:{CONTROL}")].into();
    });
    let run_dir = live.layout().run_dir();
    assert_eq!(owner(&run_dir.join(CONTROL_DIR)), (CONTROL, CONTROL, 0o750));
    assert_eq!(owner(&run_dir.join(DATAPLANE_SOCKET)), (0, CONTROL, 0o660));

    // root's control leaves a socket file behind; its successor of another user takes the place
    live.kill_agent(Agent::Control).unwrap();
    let before = agents::dataplane_status(live.layout()).unwrap().generation;
    let mut control = OtherControl::start(&live, CONTROL, CONTROL);
    until("control connects", Duration::from_secs(20), || agents::dataplane_status(live.layout()).is_ok_and(|s| s.control_connected));
    assert_eq!(owner(&run_dir.join(CONTROL_SOCKET)).0, CONTROL);
    let status = std::fs::read_to_string(format!("/proc/{}/status", control.child.id())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("CapPrm:\t0000000000000000"), "{status}");
    // root asks it as ever, and what it publishes is in force
    assert!(reaches(&live, "x/a") && !reaches(&live, "x/c"));
    live.apply_yaml(&gate("c")).unwrap();
    assert!(!reaches(&live, "x/a") && reaches(&live, "x/c"), "the new policy");
    let adopted = agents::dataplane_status(live.layout()).unwrap();
    assert!(adopted.generation > before && adopted.last_refused.is_none(), "{adopted:?}");

    // all is well, says the doctor in the node's own network namespace
    let mut doctor = Command::new("ip");
    doctor.args(["netns", "exec", &live.layout().node_netns()]).arg(program("sluicectl")).arg("--run-dir").arg(&run_dir);
    let output = doctor.args(["doctor", "-o", "json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    for (check, found) in
        [("dataplane", "version"), ("control", "directory"), ("tcx_chain", "pods here, nothing in front"), ("pod_mtu", "none above")]
    {
        let finding = json["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == check).unwrap();
        assert!(finding["state"] == "fine" && finding["found"].as_str().unwrap().contains(found), "{finding}");
    }

    // nothing else: not ports, not the hooks, not root's files
    let (container_id, ifname) = ("c".to_owned(), "eth0".to_owned());
    let add = AddPort {
        container_id: container_id.clone(),
        ifname: ifname.clone(),
        pod: ObjectName::new("x", "evil"),
        uid: String::new(),
        host_ifindex: 1,
        host_ifname: "lo".into(),
        mac: [2, 0, 0, 0, 0, 1],
        addresses: vec!["10.88.9.9".parse().unwrap()],
        network: String::new(),
        deadline_ms: 100,
    };
    for request in
        [ToDataplane::AddPort(add), ToDataplane::DelPort { container_id, ifname, host_ifindex: None }, ToDataplane::Enforce { on: false }]
    {
        let reason = refused(asked_by(CONTROL, CONTROL, &run_dir, &request));
        assert!(reason.contains("only root may"), "{request:?}: {reason}");
    }
    assert!(agents::dataplane_status(live.layout()).unwrap().enforcing);
    as_user(CONTROL, CONTROL, || {
        for file in ["image.last", "ports.json", "dataplane.lock", DATAPLANE_SOCKET] {
            let path = run_dir.join(file);
            assert!(path.exists(), "{file}");
            assert_eq!(std::fs::remove_file(&path).unwrap_err().kind(), ErrorKind::PermissionDenied, "{file}");
            assert_eq!(std::fs::rename(run_dir.join(CONTROL_SOCKET), &path).unwrap_err().kind(), ErrorKind::PermissionDenied, "{file}");
            if file != DATAPLANE_SOCKET {
                let opened = std::fs::OpenOptions::new().write(true).open(&path);
                assert_eq!(opened.unwrap_err().kind(), ErrorKind::PermissionDenied, "{file}");
            }
        }
        let away = std::fs::rename(run_dir.join(CONTROL_DIR), run_dir.join("elsewhere"));
        assert_eq!(away.unwrap_err().kind(), ErrorKind::PermissionDenied);
    });

    // another user is kept out by the socket's mode, and as a member of the group by name
    let control_request = ToDataplane::Control { wire_version: WIRE_VERSION };
    match asked_by(STRANGER, STRANGER, &run_dir, &control_request) {
        Err(WireError::Connect { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
        other => panic!("a stranger: {other:?}"),
    }
    let reason = refused(asked_by(STRANGER, CONTROL, &run_dir, &control_request));
    assert!(reason.contains("uid 65533 may not publish tables: only root and uid 65532 may"), "{reason}");
    let mut stranger = OtherControl::start(&live, STRANGER, STRANGER);
    std::thread::sleep(Duration::from_secs(1));
    let said = stranger.end();
    assert!(said.contains("waiting for a dataplane with --control-user"), "{said}");
    assert!(agents::dataplane_status(live.layout()).unwrap().control_connected, "the right one is still there");

    // it ends, its table stays; a restarted dataplane gives the directory back to the same user
    assert!(control.end().contains("ending"));
    assert!(!reaches(&live, "x/a") && reaches(&live, "x/c"), "without control");
    live.restart_agent(Agent::Dataplane).unwrap();
    assert_eq!(owner(&run_dir.join(CONTROL_DIR)), (CONTROL, CONTROL, 0o750));
    assert!(!reaches(&live, "x/a") && reaches(&live, "x/c"), "after a restart");

    // taken off the node, nothing is left, whatever the control user put into its directory
    as_user(CONTROL, CONTROL, || std::os::unix::fs::symlink("/etc", run_dir.join(CONTROL_DIR).join("link")).unwrap());
    live.kill_agent(Agent::Dataplane).unwrap();
    let mut remove = Command::new(program("sluice-dataplane"));
    remove.arg("remove").arg("--run-dir").arg(&run_dir).arg("--bpf-dir").arg(live.layout().bpf_dir());
    let removed = live.node().run(|| Ok(remove.output()?)).unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert!(!run_dir.exists() && Path::new("/etc/passwd").exists());
    live.down();
}
