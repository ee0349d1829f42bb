//! Whether a program takes the arguments that it is given, without starting it.

use crate::live::program;
use std::process::{Command, Stdio};

/// An argument that no program has. Arguments are read in order, so a program that complains of this one took all before it.
const END: &str = "--the-end-of-what-the-chart-says";

/// What a program does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Gives a program of this build these arguments. `None` when it takes them all; otherwise what it says of the first that it
/// does not take.
///
/// # Panics
/// The program is not built; or it took [`END`] too, and did whatever it was told.
pub fn first_refusal(name: &str, arguments: &[String]) -> Option<Refusal> {
    let path = program(name);
    assert!(path.exists(), "{} is not there; run: cargo build --workspace --features sluice-dataplane/kernel", path.display());
    let output = Command::new(&path).args(arguments).arg(END).stdin(Stdio::null()).output().expect("a program of this build runs");
    assert!(!output.status.success(), "{name} {arguments:?} {END} did something");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (!said.contains(&format!("unexpected argument '{END}'"))).then_some(Refusal(said))
}
