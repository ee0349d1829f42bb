//! Pods attached by the real plugin to a real dataplane in a namespace of its own: what a kubelet waits for.

use super::node::program;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sluice_flow::LocalEndpoint;
use sluice_lab::NetNs;
use sluice_wire::{Connection, DATAPLANE_SOCKET, DataplaneStatus, FromDataplane, ToDataplane};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// Of an ADD; a longer one is a failure.
const DEADLINE_MS: u64 = 20_000;

/// A node with a dataplane; everything of it goes when dropped.
pub(super) struct Node {
    netns: NetNs,
    /// Holds the pods' ends of all devices.
    pods: NetNs,
    run_dir: PathBuf,
    bpf_dir: PathBuf,
    dataplane: Option<Child>,
    devices: usize,
}

impl Node {
    /// Why there can be none here, if so.
    pub(super) fn lacks() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".into());
        }
        ["sluice-dataplane", "sluice-cni"].into_iter().find_map(|name| program(name).err().map(|error| error.to_string()))
    }

    /// Starts a dataplane on a run directory that the control process looks at, and waits until they have found each other.
    ///
    /// # Errors
    ///
    /// It does not serve in time.
    pub(super) fn start(run_dir: &Path) -> Result<Self> {
        let name = format!("sluice-bench-{}", std::process::id());
        let (netns, pods) = (NetNs::named(&*name), NetNs::named(format!("{name}-pods")));
        let bpf_dir = Path::new("/sys/fs/bpf").join(&name);
        let mut node = Self { netns, pods, run_dir: run_dir.to_owned(), bpf_dir, dataplane: None, devices: 0 };
        node.netns.create()?;
        node.pods.create()?;
        let mut command = node.command("sluice-dataplane", &["--workers", "1"])?;
        let log = std::fs::File::create(run_dir.join("dataplane.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.dataplane = Some(node.netns.run(|| Ok(command.spawn()?)).context("cannot start sluice-dataplane")?);
        let begun = Instant::now();
        while !node.status().is_ok_and(|status| status.control_connected && status.generation > 0) {
            let log = std::fs::read_to_string(run_dir.join("dataplane.log")).unwrap_or_default();
            ensure!(begun.elapsed() < SERVES_WITHIN, "the dataplane does not serve:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(node)
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program(name)?);
        command.arg("--run-dir").arg(&self.run_dir).arg("--bpf-dir").arg(&self.bpf_dir).args(arguments);
        Ok(command)
    }

    fn status(&self) -> Result<DataplaneStatus> {
        match Connection::connect(&self.run_dir.join(DATAPLANE_SOCKET))?.call(&ToDataplane::Status)?.0 {
            FromDataplane::Status(status) => Ok(status),
            other => bail!("the dataplane answered {other:?}"),
        }
    }

    /// Another pod's device; its number.
    ///
    /// # Errors
    ///
    /// iproute2's.
    pub(super) fn device(&mut self) -> Result<usize> {
        let number = self.devices;
        let (host, pod) = (format!("veth{number}"), format!("eth{number}"));
        let output = Command::new("ip")
            .args(["-n", self.netns.name(), "link", "add", &host, "type", "veth", "peer", "name", &pod, "netns", self.pods.name()])
            .output()
            .context("cannot run ip")?;
        ensure!(output.status.success(), "ip link add: {}", String::from_utf8_lossy(&output.stderr));
        self.devices += 1;
        Ok(number)
    }

    /// sluice-cni's ADD of a pod on a device, from the start of the process to its end. `meanwhile` happens once it runs.
    ///
    /// # Errors
    ///
    /// The plugin's.
    pub(super) fn add(&self, endpoint: &LocalEndpoint, device: usize, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
        self.call("ADD", endpoint, device, meanwhile)
    }

    /// Its DEL.
    ///
    /// # Errors
    ///
    /// The plugin's.
    pub(super) fn del(&self, endpoint: &LocalEndpoint, device: usize) -> Result<Duration> {
        self.call("DEL", endpoint, device, || Ok(()))
    }

    fn call(&self, command: &str, endpoint: &LocalEndpoint, device: usize, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let ips: Vec<Value> = endpoint.addresses.iter().map(|address| json!({"address": format!("{address}/32")})).collect();
        let config = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "sluice-cni", "dataplaneSocket": self.run_dir.join(DATAPLANE_SOCKET),
            "deadlineMs": DEADLINE_MS, "prevResult": {"cniVersion": "1.0.0", "ips": ips},
        });
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={}",
            endpoint.pod.namespace, endpoint.pod.name, endpoint.uid
        );
        let mut plugin = Command::new(program("sluice-cni")?);
        plugin
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("{}-{}", endpoint.pod.namespace, endpoint.pod.name))
            .env("CNI_NETNS", self.pods.path())
            .env("CNI_IFNAME", format!("eth{device}"))
            .env("CNI_ARGS", arguments)
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // entering the namespace is the runtime's part, and so not measured
        let (mut child, begun) = self.netns.run(|| {
            let begun = Instant::now();
            Ok((plugin.spawn()?, begun))
        })?;
        child.stdin.take().context("a pipe")?.write_all(config.to_string().as_bytes())?;
        meanwhile()?;
        let output = child.wait_with_output()?;
        let took = begun.elapsed();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.success(), "{command} of {}: {said}", endpoint.pod);
        Ok(took)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // it may be gone already, and each step is tried whatever became of the one before
        if let Some(mut dataplane) = self.dataplane.take() {
            let _ = kill_process(Pid::from_child(&dataplane), Signal::TERM);
            let _ = dataplane.wait();
        }
        let removed = self.command("sluice-dataplane", &["remove"]).and_then(|mut command| {
            self.netns.run(|| Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?))
        });
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("sluice-perf: {} may be left behind", self.bpf_dir.display());
        }
        let _ = self.netns.delete();
        let _ = self.pods.delete();
    }
}
