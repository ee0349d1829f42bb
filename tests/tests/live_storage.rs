//! A run directory that is full, and one that became read-only: what is in force stays, what is new comes into force, what
//! must be written down first is refused with the reason, and everything is made up for once there is room.

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use sluice_flow::Family;
use sluice_lab::{Agent, Lab, agents, parse_documents, probe};
use sluice_tests::live::cni::Sandbox;
use sluice_tests::live::{Live, pod, policy, turn, until};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(5);
const METRICS: &str = "127.0.0.1:9808";

/// b takes only what comes from `from`.
fn gate(from: &str) -> String {
    policy(
        "x/b",
        &format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {from}}}}}}}]}}]}}"),
    )
}

fn cluster() -> String {
    ["x/a", "x/b", "x/c", "x/leaver"].map(pod).concat() + &gate("a")
}

fn change(lab: &Lab, from: &str) {
    lab.store().put(&parse_documents(&gate(from)).unwrap()[0]).unwrap();
    lab.settle().unwrap();
}

fn reaches(lab: &Lab, from: &str) -> bool {
    let address = SocketAddr::new(lab.pod_address("x/b", Family::V4).unwrap(), 80);
    lab.in_pod(from, || Ok(probe::tcp(address, QUICK).outcome.reached())).unwrap()
}

/// Of a and c exactly this one gets through.
fn assert_only(lab: &Lab, allowed: &str, when: &str) {
    for from in ["a", "c"] {
        assert_eq!(reaches(lab, &format!("x/{from}")), from == allowed, "{when}: {from} to b");
    }
}

fn trouble(lab: &Lab) -> Option<String> {
    agents::dataplane_status(lab.layout()).unwrap().storage_trouble
}

fn metrics(lab: &Lab) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(METRICS)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    lab.node().run(ask).unwrap()
}

fn log_of(lab: &Lab, agent: Agent) -> String {
    std::fs::read_to_string(agent.log(lab.layout())).unwrap()
}

/// The run directory as a file system of its own, as small as one can be, with what lay there before.
struct Small {
    path: PathBuf,
}

impl Small {
    fn under(live: &Live) -> Self {
        for agent in [Agent::Control, Agent::Dataplane] {
            live.kill_agent(agent).unwrap();
        }
        let path = live.layout().run_dir();
        // the trunks go with it, and are made again
        unmount(path.join("netns-far"), UnmountFlags::DETACH).unwrap();
        let kept = ["ports.json", "image.last"].map(|name| (name, std::fs::read(path.join(name)).unwrap()));
        mount("sluice-small", &path, "tmpfs", MountFlags::empty(), Some(c"size=1m,mode=755")).unwrap();
        let small = Self { path };
        for (name, bytes) in kept {
            std::fs::write(small.path.join(name), bytes).unwrap();
        }
        for agent in [Agent::Dataplane, Agent::Control] {
            live.start_agent(agent).unwrap();
        }
        live.settle().unwrap();
        small
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// By another mount of it above itself: one in which files are open for writing cannot be made read-only.
    fn set_read_only(&self, is_read_only: bool) {
        if is_read_only {
            mount_bind(&self.path, &self.path).unwrap();
            mount_remount(&self.path, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        } else {
            unmount(&self.path, UnmountFlags::DETACH).unwrap();
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(self.path.join("netns-far"), UnmountFlags::DETACH);
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// What an ADD for a pod that control knows says while nothing can be written; it leaves no port behind.
fn refused_add(live: &Live, sandbox: &Sandbox<'_>, expected: &str) {
    let before = agents::ports(live.layout()).unwrap().len();
    let answer = sandbox.sluice("ADD", 2000).unwrap();
    assert!(!answer.ok && answer.reason().contains(expected), "{answer:?}");
    assert!(answer.reason().contains("ports.new"), "which file: {answer:?}");
    assert_eq!(agents::ports(live.layout()).unwrap().len(), before, "{answer:?}");
    println!("ADD: {}", answer.reason());
}

fn with_metrics(config: &mut sluice_lab::LabConfig) {
    config.dataplane_args = ["--scan-interval", "1"].map(String::from).into();
    config.control_args = ["--metrics-bind-address", METRICS].map(String::from).into();
}

fn last_generation_kept(small: &Small, live: &Live) -> bool {
    let bytes = std::fs::read(small.path.join("image.last")).unwrap_or_default();
    let kept = sluice_table::Table::from_bytes(&bytes).map(|table| table.generation()).unwrap_or(0);
    kept == agents::dataplane_status(live.layout()).unwrap().generation
}

fn in_file(path: &Path, pod: &str) -> bool {
    std::fs::read_to_string(path.join("ports.json")).unwrap().contains(pod)
}

#[test]
fn a_full_run_directory_stops_nothing_that_is_in_force() {
    let Some(turn) = turn("live_storage full") else { return };
    let live = Live::up(turn, "full", &cluster(), with_metrics);
    let small = Small::under(&live);
    assert_only(&live, "a", "on a small file system");
    assert_eq!(trouble(&live), None);
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    live.store().put(&parse_documents(&pod("late/newcomer")).unwrap()[0]).unwrap();
    live.settle().unwrap();
    sandbox.plug().unwrap();

    small.fill();
    change(&live, "c");
    assert_only(&live, "c", "full");
    // the device of a pod that nobody told of yet is written down too, and that is not possible now
    assert!(trouble(&live).is_none_or(|told| !told.contains("image")) && last_generation_kept(&small, &live), "the older image gives way");
    std::fs::remove_file(small.path.join("image.last")).unwrap();
    small.fill();
    change(&live, "a");
    assert_only(&live, "a", "what cannot be kept is in force all the same");
    change(&live, "c");
    let told = trouble(&live).unwrap();
    assert!(told.contains("image.new") && told.contains("No space left on device"), "{told}");
    assert!(metrics(&live).contains("sluice_dataplane_storage_broken 1"));
    let lines = log_of(&live, Agent::Dataplane);
    assert_eq!(
        lines.lines().filter(|line| line.contains("cannot be kept") && line.contains("image.last")).count(),
        1,
        "told once: {lines}"
    );
    assert!(!small.exists("image.last"), "an older table must not rule after a restart");
    refused_add(&live, &sandbox, "No space left on device");
    // a pod that goes is let go
    let port = |pod: &str| agents::ports(live.layout()).unwrap().into_iter().find(|port| port.endpoint.pod.to_string() == pod);
    let device = port("x/leaver").unwrap().host_ifname;
    let deleted = live.node().run(|| Ok(Command::new("ip").args(["link", "delete", &device]).status()?)).unwrap();
    assert!(deleted.success());
    until("forgotten", SOON, || port("x/leaver").is_none());

    // a restart while it is full: closed until control says what holds, which it does at once
    live.kill_agent(Agent::Dataplane).unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    live.settle().unwrap();
    until("a table again", SOON, || agents::dataplane_status(live.layout()).unwrap().generation > 0);
    assert_only(&live, "c", "after a restart");

    small.make_room();
    until("made up for", SOON, || trouble(&live).is_none());
    assert!(last_generation_kept(&small, &live) && !in_file(&small.path, "leaver"), "{:?}", std::fs::read_dir(&small.path).unwrap());
    assert!(metrics(&live).contains("sluice_dataplane_storage_broken 0"));
    assert!(sandbox.sluice("ADD", 5000).unwrap().ok);
    assert!(in_file(&small.path, "newcomer"));
    live.kill_agent(Agent::Control).unwrap();
    live.kill_agent(Agent::Dataplane).unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    assert_only(&live, "c", "from what was kept, without control");
    assert!(sandbox.sluice("DEL", 1000).unwrap().ok);
    sandbox.unplug().unwrap();
    live.kill_agent(Agent::Dataplane).unwrap();
    drop(small);
    live.down();
}

#[test]
fn a_read_only_run_directory_stops_nothing_that_is_in_force() {
    let Some(turn) = turn("live_storage read-only") else { return };
    let live = Live::up(turn, "rdonly", &cluster(), with_metrics);
    let small = Small::under(&live);
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    live.store().put(&parse_documents(&pod("late/newcomer")).unwrap()[0]).unwrap();
    live.settle().unwrap();
    sandbox.plug().unwrap();
    small.set_read_only(true);
    change(&live, "c");
    assert_only(&live, "c", "read-only");
    let told = trouble(&live).unwrap();
    assert!(told.contains("Read-only file system"), "{told}");
    refused_add(&live, &sandbox, "Read-only file system");
    // neither process can begin there, and both say why
    for agent in [Agent::Control, Agent::Dataplane] {
        live.kill_agent(agent).unwrap();
        assert!(live.start_agent(agent).is_err(), "{}", agent.name());
        let lines = log_of(&live, agent);
        let last = lines.lines().last().unwrap_or_default();
        assert!(last.contains("Read-only file system"), "{}: {last}", agent.name());
    }
    assert!(!reaches(&live, "x/a"), "nobody is let in meanwhile");
    small.set_read_only(false);
    for agent in [Agent::Dataplane, Agent::Control] {
        live.start_agent(agent).unwrap();
    }
    live.settle().unwrap();
    assert_only(&live, "c", "once it can be written again");
    until("nothing is wrong", SOON, || trouble(&live).is_none() && last_generation_kept(&small, &live));
    sandbox.unplug().unwrap();
    for agent in [Agent::Control, Agent::Dataplane] {
        live.kill_agent(agent).unwrap();
    }
    drop(small);
    live.down();
}
