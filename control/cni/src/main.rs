//! The chained CNI plugin: it adds policy to pods whose veths some other plugin made.
//!
//! ```text
//!   runtime ──stdin: config + prevResult, env: CNI_*──▶ sluice-cni ──AddPort──▶ RUN/dataplane.sock
//!           ◀──stdout: prevResult untouched, or an error──         ◀─PortAdded─ (a table that knows the pod is adopted)
//! ```
//!
//! ADD is the gate that closes the window at a pod's start: it returns success only when every worker judges by a
//! table that knows the pod, and otherwise fails with a reason before anything was changed. DEL succeeds with
//! everything down, because a runtime that cannot delete a sandbox retries for ever.
//!
//! Source: CNI specification 1.0.0 and 1.1.0 (containernetworking/cni, SPEC.md).
#![forbid(unsafe_code)]

mod attachment;
mod command;
mod config;
mod dataplane;
mod error;
mod invocation;
mod link;

use error::CniError;
use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut input = Vec::new();
    // A person who runs the plugin by hand gets an answer instead of a silent read from the terminal.
    let read = match std::env::var_os("CNI_COMMAND") {
        None => Ok(0),
        Some(_) => std::io::stdin().lock().read_to_end(&mut input),
    };
    // Errors speak the version of the config where it can be read, so that the runtime understands them.
    let version = config::version_of(&input);
    let outcome = match read {
        Ok(_) => command::run(&|name| std::env::var_os(name), &input),
        Err(error) => Err(CniError::io("cannot read the configuration from stdin", error)),
    };
    let (text, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result.to_string(), ExitCode::SUCCESS),
        Err(error) => (error.to_json(&version).to_string(), ExitCode::FAILURE),
    };
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
