//! The container runtime's side of CNI: a chain of plugins, each given its predecessor's result.
//!
//! ```text
//!   ADD:  ptp (host-local) ──result──▶ sluice-cni ──result──▶ kept in the node's cni/
//!   DEL:  sluice-cni ▶ ptp, both with the kept result
//! ```
//!
//! Source: CNI specification 1.0.0, sections 3 and 4. The plugins run in the node's network namespace, as they would
//! on a node of a cluster. A failed ADD is followed by a DEL, as real runtimes do.

use crate::layout::Layout;
use crate::netns::NetNs;
use crate::state::NodeState;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use sluice_flow::ObjectName;
use sluice_wire::DATAPLANE_SOCKET;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CNI_VERSION: &str = "1.0.0";
const NETWORK_NAME: &str = "sluice-lab";
/// Where Debian's containernetworking-plugins are.
const PLUGIN_DIR: &str = "/usr/lib/cni";
/// The interface inside each pod.
const IFNAME: &str = "eth0";
/// How long sluice-cni waits for the pod to come under policy.
const ADD_DEADLINE_MS: u64 = 10_000;

const POLICY_PLUGIN: &str = "sluice-cni";

/// One attachment, as the runtime names it to the plugins.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The pod.
    pub pod: ObjectName,
    /// Its UID.
    pub uid: String,
    /// The sandbox.
    pub container_id: String,
    /// Where it is attached.
    pub netns: NetNs,
    /// Its place in the node's address ranges.
    pub slot: u32,
}

/// What an ADD brought about.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's end of the veth pair.
    pub host_ifname: String,
    /// From the start of sluice-cni to its end, its process included; zero in a lab without policy.
    pub policy_took: Duration,
}

/// The plugins of one node.
#[derive(Debug, Clone)]
pub struct Chain {
    netns: NetNs,
    node: NodeState,
    results: PathBuf,
    bin_dir: PathBuf,
    plugins: Vec<Value>,
}

impl Chain {
    /// Writes the node's conflist and makes the chain. Without policy it is plain ptp.
    pub(crate) fn create(layout: &Layout, node: &NodeState, bin_dir: &Path, with_policy: bool) -> Result<Self> {
        let ranges = node.pod_networks().map(|subnet| json!([{ "subnet": subnet }]));
        let mut plugins = vec![json!({
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": layout.ipam(),
                "ranges": ranges,
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        })];
        if with_policy {
            let socket = layout.run_dir().join(DATAPLANE_SOCKET);
            plugins.push(json!({ "type": POLICY_PLUGIN, "dataplaneSocket": socket, "deadlineMs": ADD_DEADLINE_MS }));
        }
        let conflist = json!({ "cniVersion": CNI_VERSION, "name": NETWORK_NAME, "plugins": plugins });
        let text = serde_json::to_vec_pretty(&conflist).context("the conflist as JSON")?;
        crate::state::replace_file(&layout.cni().join("10-sluice-lab.conflist"), &text)?;
        let netns = NetNs::named(layout.node_netns());
        Ok(Self { netns, node: node.clone(), results: layout.cni(), bin_dir: bin_dir.into(), plugins })
    }

    /// Attaches a pod. On failure nothing is left behind.
    ///
    /// # Errors
    ///
    /// A plugin's, with its name.
    pub fn add(&self, attachment: &Attachment) -> Result<Attached> {
        self.add_all(attachment).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.del(attachment);
        })
    }

    fn add_all(&self, attachment: &Attachment) -> Result<Attached> {
        let (mut result, mut policy_took) = (None, Duration::ZERO);
        for plugin in &self.plugins {
            let start = Instant::now();
            result = Some(self.execute("ADD", plugin, attachment, result.as_ref())?);
            if plugin["type"] == POLICY_PLUGIN {
                policy_took = start.elapsed();
            }
        }
        let result = result.context("the chain is empty")?;
        let text = serde_json::to_vec_pretty(&result).context("a CNI result as JSON")?;
        crate::state::replace_file(&self.result_path(attachment), &text)?;
        let (addresses, host_ifname) = read_result(&result).with_context(|| format!("the plugins' result is not understood: {result}"))?;
        Ok(Attached { addresses, host_ifname, policy_took })
    }

    /// Detaches a pod: the plugins in reverse order, each given the result of the ADD. All of them are called, and
    /// the first error is returned.
    ///
    /// # Errors
    ///
    /// A plugin's, with its name.
    pub fn del(&self, attachment: &Attachment) -> Result<()> {
        let path = self.result_path(attachment);
        let result = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut outcome = Ok(());
        for plugin in self.plugins.iter().rev() {
            let deleted = self.execute("DEL", plugin, attachment, result.as_ref()).map(|_| ());
            outcome = outcome.and(deleted);
        }
        let _ = std::fs::remove_file(path);
        outcome
    }

    /// Asks the plugins whether the attachment is as they left it.
    pub(crate) fn check(&self, attachment: &Attachment) -> Result<()> {
        let path = self.result_path(attachment);
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let result = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        self.plugins.iter().try_for_each(|plugin| self.execute("CHECK", plugin, attachment, Some(&result)).map(|_| ()))
    }

    fn result_path(&self, attachment: &Attachment) -> PathBuf {
        self.results.join(format!("result-{}.json", attachment.container_id))
    }

    fn execute(&self, verb: &str, plugin: &Value, attachment: &Attachment, previous: Option<&Value>) -> Result<Value> {
        let kind = plugin["type"].as_str().context("a plugin without a type")?;
        let program = [Path::new(PLUGIN_DIR), &self.bin_dir].iter().map(|dir| dir.join(kind)).find(|path| path.exists());
        let program = program.with_context(|| format!("no CNI plugin {kind} in {PLUGIN_DIR} or {}", self.bin_dir.display()))?;
        let config = plugin_config(plugin, self.node.pod_addresses(attachment.slot), previous);
        let mut command = Command::new(program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", attachment.netns.path())
            .env("CNI_IFNAME", IFNAME)
            .env("CNI_PATH", format!("{PLUGIN_DIR}:{}", self.bin_dir.display()))
            .env("CNI_ARGS", cni_args(attachment))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let output = self.netns.run(|| {
            let mut child = command.spawn().with_context(|| format!("cannot start the CNI plugin {kind}"))?;
            let mut stdin = child.stdin.take().context("a piped stdin is there")?;
            // A plugin that fails early closes its input; its answer says more than our broken pipe.
            let _ = stdin.write_all(config.to_string().as_bytes());
            drop(stdin);
            child.wait_with_output().with_context(|| format!("cannot wait for the CNI plugin {kind}"))
        })?;
        let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if !output.status.success() {
            let reason = answer.as_ref().and_then(|answer| answer["msg"].as_str()).unwrap_or("no reason given");
            let details = answer.as_ref().and_then(|answer| answer["details"].as_str()).unwrap_or_default();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let more = [details, stderr.trim()].iter().filter(|t| !t.is_empty()).map(|t| format!(": {t}")).collect::<String>();
            bail!("CNI {verb} of {} by {kind} failed: {reason}{more}", attachment.pod);
        }
        Ok(answer.unwrap_or(Value::Null))
    }
}

/// The configuration that one plugin reads. The address is asked for through `args.cni.ips`, which host-local honours,
/// so that pods get the same addresses in every run although they are attached in parallel.
fn plugin_config(plugin: &Value, addresses: [IpAddr; 2], previous: Option<&Value>) -> Value {
    let mut config: Map<String, Value> = plugin.as_object().cloned().unwrap_or_default();
    config.insert("cniVersion".into(), CNI_VERSION.into());
    config.insert("name".into(), NETWORK_NAME.into());
    config.insert("args".into(), json!({ "cni": { "ips": addresses } }));
    if let Some(previous) = previous {
        config.insert("prevResult".into(), previous.clone());
    }
    Value::Object(config)
}

fn cni_args(attachment: &Attachment) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        attachment.pod.namespace, attachment.pod.name, attachment.container_id, attachment.uid
    )
}

/// Addresses and the node's interface out of a result. Source: CNI specification 1.0.0, "ADD Success".
fn read_result(result: &Value) -> Option<(Vec<IpAddr>, String)> {
    let interfaces = result["interfaces"].as_array()?;
    let host = interfaces.iter().find(|interface| interface["sandbox"].as_str().is_none_or(str::is_empty))?;
    let ips = result["ips"].as_array()?;
    let address = |ip: &Value| ip["address"].as_str()?.split_once('/')?.0.parse::<IpAddr>().ok();
    let addresses = ips.iter().map(address).collect::<Option<Vec<_>>>()?;
    Some((addresses, host["name"].as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_names_the_nodes_end() {
        let result = json!({
            "interfaces": [{ "name": "veth1", "mac": "0a:00:00:00:00:01" }, { "name": "eth0", "sandbox": "/run/netns/x" }],
            "ips": [{ "address": "10.88.0.2/16", "interface": 1 }, { "address": "fd88::2/64", "interface": 1 }],
        });
        let (addresses, host_ifname) = read_result(&result).unwrap();
        assert_eq!((addresses.len(), host_ifname.as_str()), (2, "veth1"));
    }
}
