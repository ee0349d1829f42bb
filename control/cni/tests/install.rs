//! The real program installs itself: what it says, how it ends, what is on disk; also on a full and on a read-only disk.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIST: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    {\"type\": \"ptp\"}\n  ]\n}\n";
const PROGRAM: &str = env!("CARGO_BIN_EXE_sluice-cni");

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(node.conf()).unwrap();
        node
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("net.d")
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    fn command(&self, what: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_remove("CNI_COMMAND").arg(what).arg("--bin-dir").arg(self.bin()).arg("--conf-dir").arg(self.conf());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, what: &str, arguments: &[&str]) -> Output {
        self.command(what, arguments).output().unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.conf().join(name), text).unwrap();
    }

    fn plugins(&self, name: &str) -> Vec<String> {
        plugins(&self.conf().join(name))
    }
}

fn plugins(file: &Path) -> Vec<String> {
    let value: Value = serde_json::from_slice(&std::fs::read(file).unwrap_or_default()).unwrap_or_default();
    let plugins = value["plugins"].as_array().into_iter().flatten();
    plugins.map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ends(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    text(output)
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_installs_itself_and_is_gone_after_uninstall() {
    let node = Node::new();
    node.write("10-net.conflist", LIST);
    let said = ends(&node.run("install", &["--run-dir", "/run/other"]), 0);
    assert!(said.contains("10-net.conflist: sluice-cni added behind the last plugin"), "{said}");
    let installed = node.bin().join("sluice-cni");
    assert_eq!(std::fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o755);
    let version = Command::new(&installed).env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).output().unwrap();
    assert!(version.status.success() && text(&version).contains("supportedVersions"), "{}", text(&version));
    assert_eq!(node.plugins("10-net.conflist"), ["ptp", "sluice-cni"]);
    assert!(std::fs::read_to_string(node.conf().join("10-net.conflist")).unwrap().contains("/run/other/dataplane.sock"));
    assert!(ends(&node.run("install", &["--run-dir", "/run/other"]), 0).contains("is there already"));
    assert!(ends(&node.run("install", &[]), 0).contains("brought up to date"));
    // another build takes the place of the program, from a file
    let other = node.dir.path().join("other");
    std::fs::write(&other, "#!/bin/sh\n").unwrap();
    ends(&node.run("install", &["--source", other.to_str().unwrap()]), 0);
    assert_eq!(std::fs::read_to_string(&installed).unwrap(), "#!/bin/sh\n");
    let said = ends(&node.run("uninstall", &[]), 0);
    assert!(said.contains("taken out") && said.contains("sluice-cni: removed"), "{said}");
    assert_eq!(std::fs::read_to_string(node.conf().join("10-net.conflist")).unwrap(), LIST);
    assert_eq!(std::fs::read_dir(node.conf()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(node.bin()).unwrap().count(), 0);
    assert!(ends(&node.run("uninstall", &[]), 0).contains("nothing to remove"));
}

#[test]
fn a_runtime_s_call_is_never_taken_for_an_installation() {
    let node = Node::new();
    node.write("10-net.conflist", LIST);
    let output = node.command("install", &[]).env("CNI_COMMAND", "VERSION").output().unwrap();
    assert!(ends(&output, 0).contains("supportedVersions"));
    assert_eq!(node.plugins("10-net.conflist"), ["ptp"]);
    let by_hand = Command::new(PROGRAM).env_remove("CNI_COMMAND").stdin(Stdio::null()).output().unwrap();
    assert!(ends(&by_hand, 1).contains("sluice-cni --help"), "a hint for people");
    assert!(ends(&Command::new(PROGRAM).env_remove("CNI_COMMAND").arg("--help").output().unwrap(), 0).contains("--watch"));
    ends(&node.run("fly", &[]), 2);
}

#[test]
fn what_is_missing_or_wrong_is_said_and_nothing_is_written() {
    let node = Node::new();
    let said = ends(&node.run("install", &["--timeout", "0s"]), 1);
    assert!(said.contains("no network configuration in") && said.contains("install the cluster's CNI plugin first"), "{said}");
    node.write("10-net.conflist", &LIST.replace("1.0.0", "0.2.0"));
    let said = ends(&node.run("install", &[]), 1);
    assert!(said.contains("cniVersion is 0.2.0; sluice-cni serves 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{said}");
    assert!(!node.bin().exists());
    node.write("10-net.conflist", LIST);
    let said = ends(&node.run("install", &["--source", "/nonexistent"]), 1);
    assert!(said.contains("cannot read /nonexistent"), "{said}");
    assert_eq!(node.plugins("10-net.conflist"), ["ptp"]);
}

/// The program in the background; what it says on stdout arrives line by line.
struct Watching(Child);

impl Watching {
    fn terminate(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_waits_for_a_configuration_and_watches_over_it() {
    let node = Node::new();
    let mut child = Watching(node.command("install", &["--watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut progress = String::new();
    // held to the end: a program that cannot say anything ends
    let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
    stderr.read_line(&mut progress).unwrap();
    assert!(progress.contains("waiting (0 s): no network configuration"), "{progress}");
    // half of it first, as a slow installer writes
    node.write("10-net.conflist", &LIST[..30]);
    std::thread::sleep(Duration::from_millis(100));
    node.write("10-net.conflist", LIST);
    until("installed", || node.plugins("10-net.conflist").len() == 2);
    // written anew, by another installer; and the program is gone
    node.write("10-net.conflist", &LIST.replace("ptp", "calico"));
    until("installed again", || node.plugins("10-net.conflist") == ["calico", "sluice-cni"]);
    std::fs::remove_file(node.bin().join("sluice-cni")).unwrap();
    until("the program is back", || node.bin().join("sluice-cni").exists());
    // quiet while nothing happens
    let ticks = cpu_ticks(child.0.id());
    std::thread::sleep(Duration::from_millis(1500));
    assert!(cpu_ticks(child.0.id()) - ticks <= 3, "a busy loop");
    assert_eq!(child.terminate(), 0);
    drop(stderr);
    assert_eq!(node.plugins("10-net.conflist"), ["calico", "sluice-cni"], "the plugin stays");
}

/// User and system time in hundredths of a second. Source: proc(5), `stat`.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Runs `script` with `$CONF`, `$BIN` and `$PROGRAM` in a mount namespace of its own; `None`, aloud, where that is not allowed.
fn with_mounts(node: &Node, script: &str) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "needs root");
        eprintln!("SKIPPED: full and read-only disks need root (mounts)");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script]).env_remove("CNI_COMMAND");
    Some(command.env("CONF", node.conf()).env("BIN", node.bin()).env("PROGRAM", PROGRAM).output().unwrap())
}

#[test]
fn a_full_disk_leaves_the_configuration_as_it_was() {
    let node = Node::new();
    node.write("saved", LIST);
    let script = "mkdir $BIN; mount -t tmpfs -o size=16k none $BIN; cp $CONF/saved $BIN/10-net.conflist
        # the configuration's disk is full
        ! head -c 16k /dev/zero > $BIN/fill
        ! $PROGRAM install --bin-dir /tmp/$$-bin --conf-dir $BIN
        rm -r /tmp/$$-bin
        cmp $CONF/saved $BIN/10-net.conflist; ls -A $BIN
        # there is no room for the program
        rm $BIN/fill; ! $PROGRAM install --bin-dir $BIN --conf-dir $BIN
        cmp $CONF/saved $BIN/10-net.conflist; ls -A $BIN";
    let Some(output) = with_mounts(&node, script) else { return };
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    let failures: Vec<&str> = said.lines().filter(|line| line.ends_with("what was there before stays")).collect();
    assert!(failures.len() == 2 && failures.iter().all(|line| line.contains("No space left on device")), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(),
        ["10-net.conflist", "fill", "10-net.conflist"],
        "{said}"
    );
}

#[test]
fn a_read_only_directory_is_named_in_the_error() {
    let node = Node::new();
    node.write("10-net.conflist", LIST);
    let script = "mount --bind $CONF $CONF; mount -o remount,bind,ro $CONF
        ! $PROGRAM install --bin-dir $BIN --conf-dir $CONF
        cat $CONF/10-net.conflist; ls -A $CONF";
    let Some(output) = with_mounts(&node, script) else { return };
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{LIST}10-net.conflist\n"));
    assert!(text(&output).contains("net.d/.10-net.conflist.sluice-backup: Read-only file system"), "{}", text(&output));
}
