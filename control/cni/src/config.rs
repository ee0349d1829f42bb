//! The configuration on stdin: the plugin's own fields, `prevResult` as an untouched value, and the version gate.

use crate::error::{CniError, Code};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// The versions whose configs and results are understood, oldest first; they differ only in fields that pass through untouched
/// and in the commands that there are.
pub(crate) const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// CHECK exists since then.
pub(crate) const CHECK_SINCE: &str = "0.4.0";
/// STATUS and GC exist since then.
pub(crate) const STATUS_AND_GC_SINCE: &str = "1.1.0";
/// What errors and VERSION speak when the config tells nothing.
const NEWEST_VERSION: &str = "1.1.0";

/// Largest configuration; a runtime's is a few kilobytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// One plugin's entry of a network configuration, as the runtime passes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Absent means 0.1.0 by the specification, which is not served.
    #[serde(default)]
    pub(crate) cni_version: String,
    /// The network's name.
    #[serde(default)]
    pub(crate) name: String,
    /// The result of the plugins before this one; passed through byte for value.
    pub(crate) prev_result: Option<Value>,
    #[serde(default = "default_socket")]
    pub(crate) dataplane_socket: PathBuf,
    /// How long ADD may wait for a table that knows the pod.
    #[serde(default = "default_deadline_ms")]
    pub(crate) deadline_ms: u64,
    /// GC: what still exists.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(crate) valid_attachments: Option<Vec<ValidAttachment>>,
}

/// An attachment that GC must leave alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct ValidAttachment {
    #[serde(rename = "containerID")]
    /// The runtime's sandbox.
    pub container_id: String,
    /// The interface inside it.
    pub ifname: String,
}

fn default_socket() -> PathBuf {
    PathBuf::from(sluice_wire::RUN_DIR).join(sluice_wire::DATAPLANE_SOCKET)
}

fn default_deadline_ms() -> u64 {
    10_000
}

impl Config {
    /// Parses stdin. The version is not judged here: VERSION must answer whatever the version is.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, CniError> {
        if input.len() > CONFIG_BYTES_MAX {
            let details = format!("more than {CONFIG_BYTES_MAX} bytes");
            return Err(CniError::new(Code::Decode, "cannot decode the network configuration", details));
        }
        let config: Self = serde_json::from_slice(input)
            .map_err(|e| CniError::new(Code::Decode, "cannot decode the network configuration", e.to_string()))?;
        if !(1..=3_600_000).contains(&config.deadline_ms) {
            let found = format!("deadlineMs is {}, allowed are 1 to 3600000", config.deadline_ms);
            return Err(CniError::config("invalid network configuration", found));
        }
        Ok(config)
    }

    /// Refuses versions whose forms are not known.
    pub(crate) fn check_version(&self) -> Result<(), CniError> {
        if SUPPORTED_VERSIONS.contains(&self.cni_version.as_str()) {
            return Ok(());
        }
        let found = if self.cni_version.is_empty() { "none" } else { &self.cni_version };
        let details = format!("cniVersion is {found}, this plugin serves {}", SUPPORTED_VERSIONS.join(", "));
        Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details))
    }

    /// Refuses also versions before `since`: a runtime that asks this of an older config is confused.
    pub(crate) fn check_version_since(&self, since: &str, command: &str) -> Result<(), CniError> {
        self.check_version()?;
        let place = |version: &str| SUPPORTED_VERSIONS.iter().position(|served| *served == version);
        if place(&self.cni_version) >= place(since) {
            return Ok(());
        }
        let details = format!("{command} needs cniVersion {since}, the configuration says {}", self.cni_version);
        Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details))
    }

    /// GC's list, which an empty one is and a missing one is not.
    pub(crate) fn required_valid_attachments(&mut self) -> Result<Vec<ValidAttachment>, CniError> {
        self.valid_attachments
            .take()
            .ok_or_else(|| CniError::config("cni.dev/valid-attachments is missing", format!("GC of network {:?}", self.name)))
    }

    pub(crate) fn required_prev_result(&mut self) -> Result<Value, CniError> {
        match self.prev_result.take() {
            Some(value @ Value::Object(_)) => Ok(value),
            Some(_) => Err(CniError::config("invalid prevResult", "prevResult is not an object")),
            None => Err(CniError::config(
                "prevResult is missing",
                "sluice-cni is a chained plugin: put it behind the plugin that makes the pod's interface",
            )),
        }
    }
}

/// The version to answer in: the config's where it can be read at all.
pub fn version_of(input: &[u8]) -> String {
    serde_json::from_slice::<Value>(input)
        .ok()
        .and_then(|value| Some(value.get("cniVersion")?.as_str()?.to_owned()))
        .filter(|version| !version.is_empty())
        .unwrap_or_else(|| NEWEST_VERSION.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, CniError> {
        Config::parse(text.as_bytes())
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = parse(r#"{"cniVersion":"1.0.0","name":"n","type":"sluice-cni"}"#).unwrap();
        assert_eq!(config.dataplane_socket, PathBuf::from("/run/sluice/dataplane.sock"));
        assert_eq!(config.deadline_ms, 10_000);
        assert!(config.check_version().is_ok());
    }

    #[test]
    fn a_configuration_beyond_the_limit_is_refused_whatever_it_says() {
        let valid = r#"{"cniVersion":"1.0.0"}"#;
        let padded = |len: usize| format!("{valid}{}", " ".repeat(len - valid.len()));
        assert!(parse(&padded(CONFIG_BYTES_MAX)).is_ok());
        assert_eq!(parse(&padded(CONFIG_BYTES_MAX + 1)).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn nonsense_is_refused_under_the_specification_s_code() {
        for (text, code) in [
            ("", Code::Decode),
            ("[]", Code::Decode),
            ("{", Code::Decode),
            (r#"{"cniVersion":7}"#, Code::Decode),
            (r#"{"deadlineMs":"soon"}"#, Code::Decode),
            (r#"{"deadlineMs":0}"#, Code::InvalidConfig),
            (r#"{"deadlineMs":-1}"#, Code::Decode),
        ] {
            assert_eq!(parse(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn versions_are_gated() {
        for (version, add, check, gc) in [
            ("", false, false, false),
            ("0.2.0", false, false, false),
            ("0.3.0", true, false, false),
            ("0.3.1", true, false, false),
            ("0.4.0", true, true, false),
            ("1.0.0", true, true, false),
            ("1.1.0", true, true, true),
            ("2.0.0", false, false, false),
        ] {
            let config = parse(&format!(r#"{{"cniVersion":"{version}"}}"#)).unwrap();
            assert_eq!(config.check_version().is_ok(), add, "{version}");
            assert_eq!(config.check_version_since(CHECK_SINCE, "CHECK").is_ok(), check, "{version}");
            assert_eq!(config.check_version_since(STATUS_AND_GC_SINCE, "GC").is_ok(), gc, "{version}");
        }
    }
}
