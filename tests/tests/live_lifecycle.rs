//! Beginnings and ends: a second dataplane, damaged images, attachments that fail, a pod's first packet, manifests that
//! become invalid, and labs that end in every way without leaving anything behind.

use rustix::process::Signal;
use serde_json::Value;
use sluice_flow::Family;
use sluice_lab::{Agent, Lab, LabConfig, Outcome, agents, parse_documents, probe};
use sluice_table::seal::write_sealed;
use sluice_tests::live::cni::Sandbox;
use sluice_tests::live::{Live, PacketSocket, assert_nothing_left, frames, knock, lab_name, pod, policy, program, turn, until};
use sluice_tests::traffic::{ms, now_ns};
use sluice_wire::{Connection, DATAPLANE_SOCKET, FromDataplane, ToDataplane, WIRE_VERSION};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const QUICK: Duration = Duration::from_millis(400);

/// b takes only what comes from a; every pod of namespace late is isolated both ways.
fn cluster() -> String {
    let b = policy("x/b", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    let late = policy("late/base", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    ["x/a", "x/b", "x/c"].map(pod).concat() + &b + &late
}

fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let address = SocketAddr::new(lab.pod_address(to, Family::V4).unwrap(), 80);
    lab.in_pod(from, || Ok(probe::tcp(address, QUICK).outcome.reached())).unwrap()
}

/// The policy of [`cluster`] holds on live traffic.
fn assert_enforced(lab: &Lab, when: &str) {
    assert!(reaches(lab, "x/a", "x/b"), "{when}: a to b");
    assert!(!reaches(lab, "x/c", "x/b"), "{when}: c to b");
}

#[test]
fn a_second_dataplane_on_the_same_run_directory_is_refused() {
    let Some(turn) = turn("live_lifecycle second") else { return };
    let live = Live::up(turn, "two", &cluster(), |_| {});
    let layout = live.layout();
    let mut command = Command::new(program("sluice-dataplane"));
    command.arg("--run-dir").arg(layout.run_dir()).arg("--bpf-dir").arg(layout.bpf_dir()).args(["--workers", "2"]);
    let start = Instant::now();
    let output = live.node().run(|| Ok(command.output()?)).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && start.elapsed() < Duration::from_secs(5), "{said}");
    let expected = format!("another sluice-dataplane serves {}", layout.run_dir().display());
    assert!(said.contains(&expected) && !said.contains("panicked"), "{said}");
    assert_enforced(&live, "after the refusal");
    live.down();
}

/// One publication, as control would make it; what the dataplane answers.
fn publish(connection: &mut Connection, generation: u64, image_bytes: u64, memfd: Option<&OwnedFd>) -> FromDataplane {
    connection.send(&ToDataplane::Publish { generation, image_bytes }, memfd.map(AsFd::as_fd)).unwrap();
    connection.recv().unwrap().unwrap().0
}

#[test]
fn a_damaged_image_is_refused_with_its_reason_and_the_old_table_stays() {
    let Some(turn) = turn("live_lifecycle images") else { return };
    let live = Live::up(turn, "img", &cluster(), |_| {});
    live.kill_agent(Agent::Control).unwrap();
    let mut connection = Connection::connect(&live.layout().run_dir().join(DATAPLANE_SOCKET)).unwrap();
    connection.set_receive_timeout(Some(Duration::from_secs(5))).unwrap();
    let (answer, _) = connection.call(&ToDataplane::Control { wire_version: WIRE_VERSION }).unwrap();
    let FromDataplane::Endpoints { generation, .. } = answer else { panic!("{answer:?}") };
    let last = std::fs::read(live.layout().run_dir().join("image.last")).unwrap();
    let next = generation + 1;
    let mut flipped = last.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let sealed = |bytes: &[u8]| write_sealed("test", bytes).unwrap();
    let loose = {
        let fd = rustix::fs::memfd_create("loose", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(fd);
        file.write_all(&last).unwrap();
        OwnedFd::from(file)
    };
    let len = last.len() as u64;
    for (what, memfd, image_bytes) in [
        ("garbage", Some(sealed(&[0xa5; 4096])), 4096),
        ("nothing at all", Some(sealed(&[])), 0),
        ("one bit flipped", Some(sealed(&flipped)), len),
        ("cut short", Some(sealed(&last[..last.len() - 64])), len - 64),
        ("a length that is not the image's", Some(sealed(&last)), len + 1),
        ("not sealed", Some(loose), len),
        ("no descriptor", None, len),
        ("an old generation", Some(sealed(&last)), len),
    ] {
        match publish(&mut connection, next, image_bytes, memfd.as_ref()) {
            FromDataplane::Refused { generation, reason } if generation == next && !reason.is_empty() => println!("{what}: {reason}"),
            other => panic!("{what}: {other:?}"),
        }
        let status = agents::dataplane_status(live.layout()).unwrap();
        assert_eq!(status.generation, generation, "{what}");
        assert!(status.last_refused.is_some_and(|refused| refused.contains(&next.to_string())), "{what}");
    }
    assert_enforced(&live, "after refusals");
    // the refused were not kept for the next start either
    live.kill_agent(Agent::Dataplane).unwrap();
    live.start_agent(Agent::Dataplane).unwrap();
    assert_eq!(agents::dataplane_status(live.layout()).unwrap().generation, generation);
    assert_enforced(&live, "after a restart");
    drop(connection);
    live.start_agent(Agent::Control).unwrap();
    live.settle().unwrap();
    assert_enforced(&live, "with control again");
    live.down();
}

/// Makes a pod known to control, as the API server does before the kubelet attaches it.
fn announce(lab: &Lab, name: &str) {
    lab.store().put(&parse_documents(&pod(name)).unwrap()[0]).unwrap();
    lab.settle().unwrap();
}

/// Ports and pinned links, to be the same before and after what fails.
fn attachments(lab: &Lab) -> (Vec<String>, Vec<String>) {
    let ports = agents::ports(lab.layout()).unwrap().into_iter().map(|port| port.endpoint.pod.to_string()).collect();
    let mut links = Vec::new();
    let mut dirs = vec![lab.layout().bpf_dir()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() { dirs.push(entry.path()) } else { links.push(entry.path().display().to_string()) }
        }
    }
    links.sort();
    (ports, links)
}

/// A device whose ADD failed keeps its hooks as long as it lives, so that nothing gets out; then their pins are swept away.
fn assert_mute(live: &Live, sandbox: &Sandbox) {
    let to = SocketAddr::new(live.pod_address("x/c", Family::V4).unwrap(), 80);
    let outcome = sandbox.netns.run(|| Ok(probe::udp(to, QUICK).outcome)).unwrap();
    assert_eq!(outcome, Outcome::TimedOut, "a pod whose ADD failed");
}

fn sweep_often(config: &mut LabConfig) {
    config.dataplane_args = ["--scan-interval", "1"].map(String::from).into();
}

const SWEPT_WITHIN: Duration = Duration::from_secs(4);

#[test]
fn an_add_that_makes_no_sense_fails_and_leaves_nothing() {
    let Some(turn) = turn("live_lifecycle nonsense") else { return };
    let live = Live::up(turn, "nons", &cluster(), sweep_often);
    let before = attachments(&live);
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    let unplugged = sandbox.config(1000);
    sandbox.plug().unwrap();
    // a pod that nobody has told of yet is closed already
    until("both hooks are on", SWEPT_WITHIN, || attachments(&live).1.len() == before.1.len() + 2);
    let plugged = attachments(&live);
    let good = sandbox.config(1000);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut config = good.clone();
        edit(&mut config);
        config.to_string()
    };
    let long = "x".repeat(100_000);
    for (what, stdin, environment) in [
        ("no JSON", "nonsense".to_owned(), vec![]),
        ("empty", String::new(), vec![]),
        ("no prevResult", unplugged.to_string(), vec![]),
        ("a version from the future", edited(&|config| config["cniVersion"] = "9.9.9".into()), vec![]),
        ("a deadline of nothing", edited(&|config| config["deadlineMs"] = 0.into()), vec![]),
        ("an address that is none", edited(&|config| config["prevResult"]["ips"][0]["address"] = "10.88.0.256/16".into()), vec![]),
        ("interfaces that are no list", edited(&|config| config["prevResult"]["interfaces"] = 7.into()), vec![]),
        ("no such namespace", good.to_string(), vec![("CNI_NETNS", "/run/netns/sluice-no-such")]),
        ("no such interface", good.to_string(), vec![("CNI_IFNAME", "eth7")]),
        ("no container", good.to_string(), vec![("CNI_CONTAINERID", "")]),
        ("no pod", good.to_string(), vec![("CNI_ARGS", "")]),
        ("arguments without end", good.to_string(), vec![("CNI_ARGS", long.as_str())]),
        ("a socket that nobody serves", edited(&|config| config["dataplaneSocket"] = "/run/no-such.sock".into()), vec![]),
    ] {
        let answer = sandbox.sluice_with("ADD", &stdin, &environment).unwrap();
        assert!(!answer.ok && answer.took < Duration::from_secs(4), "{what}: {answer:?}");
        assert!(answer.json["code"].as_u64().is_some_and(|code| code > 0), "{what}: no error as the specification has it: {answer:?}");
        assert!(!answer.stderr.contains("panicked"), "{what}: {answer:?}");
        println!("{what}: code {} {}", answer.json["code"], answer.reason().chars().take(110).collect::<String>());
        assert_eq!(attachments(&live), plugged, "{what}");
    }
    // all in order, but no manifest tells of such a pod
    let answer = sandbox.sluice("ADD", 500).unwrap();
    assert!(!answer.ok && answer.took < Duration::from_secs(2), "{answer:?}");
    assert!(answer.reason().contains("late/newcomer is in no published table"), "{answer:?}");
    println!("an unknown pod: {} after {}", answer.reason(), ms(answer.took));
    assert_mute(&live, &sandbox);
    sandbox.unplug().unwrap();
    until("the same as before", SWEPT_WITHIN, || attachments(&live) == before);
    assert_enforced(&live, "afterwards");
    live.down();
}

#[test]
fn an_add_without_control_fails_in_time_and_a_del_with_everything_down_succeeds() {
    let Some(turn) = turn("live_lifecycle down") else { return };
    let live = Live::up(turn, "ndel", &cluster(), sweep_often);
    announce(&live, "late/newcomer");
    let before = attachments(&live);
    let mut sandbox = Sandbox::create(&live, "late/newcomer").unwrap();
    sandbox.plug().unwrap();
    live.kill_agent(Agent::Control).unwrap();
    let answer = sandbox.sluice("ADD", 1000).unwrap();
    assert!(!answer.ok, "{answer:?}");
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&answer.took), "{answer:?}");
    assert!(answer.reason().contains("sluice-control is not connected"), "{answer:?}");
    println!("ADD without control: {} after {}", answer.reason(), ms(answer.took));
    assert_eq!(attachments(&live).0, before.0);
    assert_mute(&live, &sandbox);
    // the same sandbox, once control is there
    live.start_agent(Agent::Control).unwrap();
    let answer = sandbox.sluice("ADD", 5000).unwrap();
    assert!(answer.ok, "{answer:?}");
    println!("ADD with control again: {}", ms(answer.took));
    assert!(sandbox.sluice("CHECK", 1000).unwrap().ok);
    live.kill_agent(Agent::Control).unwrap();
    live.kill_agent(Agent::Dataplane).unwrap();
    let answer = sandbox.sluice("ADD", 1000).unwrap();
    assert!(!answer.ok && answer.took < Duration::from_secs(4), "{answer:?}");
    println!("ADD with everything down: {}", answer.reason());
    for round in 0..2 {
        let answer = sandbox.sluice("DEL", 1000).unwrap();
        assert!(answer.ok && answer.took < Duration::from_secs(3), "round {round}: {answer:?}");
    }
    sandbox.unplug().unwrap();
    // what DEL could not tell the dataplane, it finds out by itself
    live.start_agent(Agent::Dataplane).unwrap();
    live.start_agent(Agent::Control).unwrap();
    live.settle().unwrap();
    until("the same as before", SWEPT_WITHIN, || attachments(&live) == before);
    assert_enforced(&live, "afterwards");
    // and the lab itself goes down with nobody alive
    live.kill_agent(Agent::Control).unwrap();
    live.kill_agent(Agent::Dataplane).unwrap();
    live.down();
}

#[test]
fn a_new_pod_is_under_policy_when_its_add_returns_and_closed_before() {
    let Some(turn) = turn("live_lifecycle first packet") else { return };
    let live = Live::up(turn, "frst", &cluster(), |_| {});
    // c takes everything, so only the newcomer's own policy stands between
    let open = SocketAddr::new(live.pod_address("x/c", Family::V4).unwrap(), 9000);
    let listener = live.in_pod("x/c", || Ok(UdpSocket::bind(("0.0.0.0", 9000))?)).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for round in 0..5 {
        let name = format!("late/newcomer{round}");
        announce(&live, &name);
        let mut sandbox = Sandbox::create(&live, &name).unwrap();
        let stop = Arc::<AtomicBool>::default();
        let knocking = knock(sandbox.netns.clone(), open, stop.clone());
        sandbox.plug().unwrap();
        // the gateway is known, so that no packet waits for an ARP answer while it knocks
        let host = sandbox.result["interfaces"][0]["mac"].as_str().unwrap().to_owned();
        frames::ip_json(&sandbox.netns, &["neigh", "replace", "10.88.0.1", "lladdr", &host, "dev", "eth0", "nud", "permanent"]).unwrap();
        let tap = PacketSocket::of_pod(&sandbox.netns).unwrap();
        let address = sandbox.addresses().into_iter().find(|address| address.is_ipv4()).unwrap();
        let outside = live.in_pod("x/c", || Ok(UdpSocket::bind(("0.0.0.0", 0))?)).unwrap();
        let began = now_ns();
        let (answer, hooked) = std::thread::scope(|scope| {
            let adding = scope.spawn(|| sandbox.sluice("ADD", 5000).unwrap());
            let mut hooked = None;
            while !adding.is_finished() {
                let _ = outside.send_to(b"into the newcomer", (address, 9000));
                // the dataplane tells of a port when its hooks are attached
                let ports = if hooked.is_none() { agents::ports(live.layout()).unwrap() } else { Vec::new() };
                if ports.iter().any(|port| port.endpoint.pod.to_string() == name) {
                    hooked = Some(now_ns());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            (adding.join().unwrap(), hooked.unwrap())
        });
        let returned = now_ns();
        assert!(answer.ok, "{answer:?}");
        let _ = tap.frames(Duration::ZERO).unwrap();
        for _ in 0..50 {
            let _ = outside.send_to(b"into the newcomer", (address, 9000));
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
        let sent = knocking.join().unwrap();
        let mut got_out = Vec::new();
        let mut body = [0; 8];
        while listener.recv(&mut body).is_ok() {
            got_out.push(u64::from_le_bytes(body));
        }
        let got_in = frames::arrivals(&tap, Duration::from_millis(50)).unwrap();
        assert!(got_in.iter().all(|arrival| arrival.src != open.ip()), "round {round}: {got_in:?}");
        let closed_for = ms(Duration::from_nanos(returned - hooked));
        println!(
            "newcomer {round}: ADD {}, {sent} packets sent, {} got out before its device had a hook, none in the {closed_for} between hook and \
             ADD's return, none after",
            ms(answer.took),
            got_out.len()
        );
        let late: Vec<&u64> = got_out.iter().filter(|sent| **sent > hooked).collect();
        assert!(late.is_empty(), "round {round}: hooked {} ns after ADD began, yet got out: {late:?} (ADD began {began})", hooked - began);
        assert!(sandbox.sluice("DEL", 1000).unwrap().ok);
        sandbox.unplug().unwrap();
        sandbox.netns.delete().unwrap();
    }
    live.down();
}

fn sluicectl(lab: &Lab, args: &[&str]) -> Output {
    Command::new(program("sluicectl")).arg("--run-dir").arg(lab.layout().run_dir()).args(args).output().unwrap()
}

#[test]
fn a_manifest_that_becomes_invalid_keeps_its_last_good_state_and_says_where() {
    let Some(turn) = turn("live_lifecycle manifest") else { return };
    let live = Live::up(turn, "bad", &cluster(), |_| {});
    let file = live.layout().manifests().join("networkpolicy_x_b.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let bad = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: b, namespace: x}\nspec:\n  podSelector:\n    matchLabels: app=b\n";
    std::fs::write(&file, bad).unwrap();
    let problems = || {
        let output = sluicectl(&live, &["status", "-o", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        status["control"]["status"]["problems"].as_array().unwrap().clone()
    };
    let took = until("the problem shows", Duration::from_secs(2), || !problems().is_empty());
    let problem = problems().remove(0);
    println!("after {}: {problem}", ms(took));
    assert_eq!(problem["file"], file.display().to_string(), "{problem}");
    assert_eq!(problem["line"], 6, "{problem}");
    assert!(problem["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
    assert_enforced(&live, "with the invalid manifest");
    // other changes go on beside it
    live.apply_yaml(&policy("x/a", "{podSelector: {matchLabels: {app: c}}, ingress: []}")).unwrap();
    assert!(!reaches(&live, "x/a", "x/c"), "another policy, applied meanwhile");
    assert_enforced(&live, "after another change");
    std::fs::write(&file, good).unwrap();
    until("the problem is gone", Duration::from_secs(2), || problems().is_empty());
    assert_enforced(&live, "with the good manifest again");
    live.down();
}

#[test]
fn an_up_that_fails_or_is_interrupted_leaves_nothing() {
    let Some(turn) = turn("live_lifecycle up") else { return };
    let name = lab_name("fail");
    let fails = |what: &str, change: &dyn Fn(&mut LabConfig)| {
        let mut config = LabConfig::new(&name);
        config.yaml = cluster();
        change(&mut config);
        let Err(error) = Lab::up(&config) else { panic!("{what}: came up") };
        println!("{what}: {}", format!("{error:#}").lines().next().unwrap_or_default());
        assert_nothing_left(&name);
    };
    fails("a dataplane that refuses its arguments", &|config| config.dataplane_args = vec!["--no-such-option".into()]);
    fails("a control process that refuses its arguments", &|config| config.control_args = vec!["--no-such-option".into()]);
    fails("an invalid manifest", &|config| config.yaml += "---\nkind: NetworkPolicy\nspec: 7\n");
    let steps = Arc::new(Mutex::new(Vec::new()));
    {
        let mut config = LabConfig::new(&name);
        config.yaml = cluster();
        let steps = steps.clone();
        config.progress = Arc::new(move |step| steps.lock().unwrap().push(step.to_owned()));
        Lab::up(&config).unwrap().down().unwrap();
        assert_nothing_left(&name);
    }
    let steps = steps.lock().unwrap().len();
    for at in 0..steps {
        fails(&format!("interrupted at step {} of {steps}", at + 1), &|config| {
            let (count, interrupted) = (AtomicUsize::new(0), config.interrupted.clone());
            config.progress = Arc::new(move |_| {
                if count.fetch_add(1, Ordering::Relaxed) == at {
                    interrupted.store(true, Ordering::Relaxed);
                }
            });
        });
    }
    drop(turn);
}

#[test]
fn a_signal_during_up_leaves_nothing() {
    let Some(turn) = turn("live_lifecycle signal") else { return };
    let manifests = tempfile::tempdir().unwrap();
    std::fs::write(manifests.path().join("all.yaml"), cluster()).unwrap();
    let name = lab_name("sig");
    for (delay_ms, signal) in [(30, Signal::INT), (120, Signal::INT), (250, Signal::TERM), (400, Signal::INT)] {
        let mut command = Command::new(program("sluice-lab"));
        command.args(["--lab", &name, "up", "-f"]).arg(manifests.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let start = Instant::now();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        println!("{signal:?} after {delay_ms} ms: ended {} later, {}: {said}", ms(start.elapsed()), output.status);
        assert!(start.elapsed() < Duration::from_secs(10));
        if output.status.success() {
            // it was up already
            assert!(!Lab::remove(&name).unwrap().is_nothing());
        }
        assert_nothing_left(&name);
    }
    drop(turn);
}
