//! The plugin's only error form: the one that the CNI specification gives to runtimes.

use serde_json::{Value, json};
use std::fmt;

/// Error codes. Up to 99 they are the specification's ("Error", well-known codes), from 100 on ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The config's cniVersion is not served, or does not know the command.
    IncompatibleVersion = 1,
    /// An environment variable is missing or nonsense; the message names it.
    InvalidEnvironment = 4,
    /// A socket, file or namespace could not be read.
    Io = 5,
    /// stdin is not JSON of the expected form.
    Decode = 6,
    /// The config or its prevResult cannot be served.
    InvalidConfig = 7,
    /// The dataplane is not there (yet).
    TryAgainLater = 11,
    /// STATUS: an ADD would fail now.
    NotAvailable = 50,
    /// STATUS: an ADD would fail now, and new flows of existing pods wait or drop.
    NotAvailableLimited = 51,
    /// The dataplane answered no; nothing was changed.
    Refused = 100,
    /// The pod's attachment is of a kind that is not served, such as a port of a bridge.
    UnsupportedAttachment = 101,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// What kind of failure.
    pub code: Code,
    /// In short.
    pub msg: String,
    /// What exactly is wrong.
    pub details: String,
}

impl CniError {
    pub(crate) fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// The system's reason.
    pub fn io(msg: impl Into<String>, source: impl fmt::Display) -> Self {
        Self::new(Code::Io, msg, source.to_string())
    }

    pub(crate) fn config(msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, msg, details)
    }

    pub(crate) fn environment(variable: &str, details: impl fmt::Display) -> Self {
        Self::new(Code::InvalidEnvironment, format!("invalid environment variable {variable}"), details.to_string())
    }

    /// The specification's error result.
    pub fn to_json(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "code": self.code as u32, "msg": self.msg, "details": self.details })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (code {})", self.msg, self.details, self.code as u32)
    }
}
