//! The program around the library: environment and stdin in, one JSON value and an exit code out.
#![forbid(unsafe_code)]

use sluice_cni::{CONFIG_BYTES_MAX, CniError};
use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::var_os("CNI_COMMAND");
    // A runtime passes no arguments; whoever does is a person or an installer.
    if command.is_none() && std::env::args_os().len() > 1 {
        return sluice_cni::install::run(std::env::args_os());
    }
    let mut input = Vec::new();
    // A person who runs the plugin by hand gets an answer instead of a silent read from the terminal.
    let read = match command {
        None => Ok(0),
        Some(_) => std::io::stdin().lock().take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut input),
    };
    // Errors speak the version of the config where it can be read, so that the runtime understands them.
    let version = sluice_cni::version_of(&input);
    let outcome = match read {
        Ok(_) => sluice_cni::run(&|name| std::env::var_os(name), &input),
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
