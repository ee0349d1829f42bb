//! The container runtime's part, played by the test: a sandbox, and plugins called with whatever the test wants to say.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sluice_lab::{Lab, NetNs};
use sluice_wire::DATAPLANE_SOCKET;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PTP: &str = "/usr/lib/cni/ptp";
const IFNAME: &str = "eth0";

/// What a plugin answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code 0.
    pub ok: bool,
    /// Its stdout; null when that is no JSON.
    pub json: Value,
    /// Its stderr.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Answer {
    /// `msg: details`, as the specification's errors have them.
    pub fn reason(&self) -> String {
        let part = |name: &str| self.json[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", part("msg"), part("details"))
    }
}

/// A pod's sandbox on its way to be attached, beside those that the lab itself attaches.
pub struct Sandbox<'a> {
    lab: &'a Lab,
    /// Its network namespace.
    pub netns: NetNs,
    pod: String,
    container_id: String,
    /// The result of the plugins so far.
    pub result: Value,
}

impl<'a> Sandbox<'a> {
    /// Makes the namespace of pod `ns/name`; nothing is attached. Its name is the lab's, so that the lab's removal finds it.
    ///
    /// # Errors
    /// It exists already.
    pub fn create(lab: &'a Lab, pod: &str) -> Result<Self> {
        let netns = NetNs::named(format!("{}{}", lab.layout().netns_prefix(), pod.replace('/', ".")));
        netns.create()?;
        netns.set_sysctls(&[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")])?;
        let container_id = format!("{:0>64}", std::process::id());
        Ok(Self { lab, netns, pod: pod.into(), container_id, result: Value::Null })
    }

    /// ptp's ADD: device, addresses, routes; no policy yet.
    ///
    /// # Errors
    /// The plugin's.
    pub fn plug(&mut self) -> Result<()> {
        let answer = self.call(PTP.into(), "ADD", &self.ptp().to_string(), &[])?;
        if !answer.ok {
            bail!("ptp: {}", answer.reason());
        }
        self.result = answer.json;
        Ok(())
    }

    /// ptp's DEL.
    ///
    /// # Errors
    /// The plugin's.
    pub fn unplug(&mut self) -> Result<()> {
        let answer = self.call(PTP.into(), "DEL", &self.ptp().to_string(), &[])?;
        if !answer.ok {
            bail!("ptp: {}", answer.reason());
        }
        self.result = Value::Null;
        Ok(())
    }

    /// sluice-cni with an ordinary configuration.
    ///
    /// # Errors
    /// It could not be run.
    pub fn sluice(&self, command: &str, deadline_ms: u64) -> Result<Answer> {
        self.sluice_with(command, &self.config(deadline_ms).to_string(), &[])
    }

    /// sluice-cni with this on its stdin and with some of the environment otherwise.
    ///
    /// # Errors
    /// It could not be run.
    pub fn sluice_with(&self, command: &str, stdin: &str, environment: &[(&str, &str)]) -> Result<Answer> {
        self.call(super::program("sluice-cni"), command, stdin, environment)
    }

    /// The ordinary configuration.
    pub fn config(&self, deadline_ms: u64) -> Value {
        let socket = self.lab.layout().run_dir().join(DATAPLANE_SOCKET);
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "sluice-lab", "type": "sluice-cni",
            "dataplaneSocket": socket, "deadlineMs": deadline_ms,
        });
        if !self.result.is_null() {
            config["prevResult"] = self.result.clone();
        }
        config
    }

    /// Its addresses, once plugged.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.result["ips"].as_array().cloned().unwrap_or_default();
        ips.iter().filter_map(|ip| ip["address"].as_str()?.split_once('/')?.0.parse().ok()).collect()
    }

    fn ptp(&self) -> Value {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "sluice-lab", "type": "ptp", "ipMasq": false,
            "ipam": {
                "type": "host-local", "dataDir": self.lab.layout().ipam(),
                "ranges": [[{ "subnet": "10.88.0.0/16" }], [{ "subnet": "fd88::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        });
        if !self.result.is_null() {
            config["prevResult"] = self.result.clone();
        }
        config
    }

    fn call(&self, program: PathBuf, command: &str, stdin: &str, environment: &[(&str, &str)]) -> Result<Answer> {
        let (namespace, name) = self.pod.split_once('/').context("a pod is ns/name")?;
        let mut process = Command::new(&program);
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.container_id)
            .env("CNI_NETNS", self.netns.path())
            .env("CNI_IFNAME", IFNAME)
            .env("CNI_PATH", "/usr/lib/cni")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID=0"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let start = Instant::now();
        let output = self.lab.node().run(|| {
            let mut child = process.spawn().with_context(|| format!("run {}", program.display()))?;
            // a plugin that fails early closes its input
            let _ = child.stdin.take().context("piped")?.write_all(stdin.as_bytes());
            Ok(child.wait_with_output()?)
        })?;
        Ok(Answer {
            ok: output.status.success(),
            json: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        })
    }
}
