//! The real helm, of the version that `deploy/helm` names.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Why a chart was not rendered; what helm said.
#[derive(Debug, thiserror::Error)]
#[error("helm: {0}")]
pub struct RenderError(pub String);

/// A helm that runs.
#[derive(Debug)]
pub struct Helm(());

impl Helm {
    /// Finds it. `None`, said aloud, where it is not installed.
    ///
    /// # Panics
    /// Where it is not installed and `CI` is set, since there nothing may be skipped.
    pub fn find(test: &str) -> Option<Self> {
        let found = run(&["--find"], "");
        if found.status.success() {
            return Some(Self(()));
        }
        let reason = format!("SKIPPED: {test}: {}", String::from_utf8_lossy(&found.stderr).trim());
        assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{reason}");
        println!("{reason}");
        None
    }

    /// Renders the chart as release `sluice` in `sluice-system`, with values in YAML.
    ///
    /// # Errors
    /// Helm's, for instance what values.schema.json has against the values.
    pub fn render(&self, values: &str) -> Result<String, RenderError> {
        self.run(&["template", "sluice", &chart(), "--namespace", "sluice-system", "--values", "-"], values)
    }

    /// What an installation would print at its end.
    ///
    /// # Errors
    /// As [`Helm::render`].
    pub fn notes(&self, values: &str) -> Result<String, RenderError> {
        let arguments = ["install", "sluice", &chart(), "--namespace", "sluice-system", "--dry-run=client", "--values", "-"];
        let printed = self.run(&arguments, values)?;
        printed.split_once("NOTES:").map(|(_, notes)| notes.to_owned()).ok_or_else(|| RenderError(format!("no notes in:\n{printed}")))
    }

    /// What `helm lint --strict` finds.
    ///
    /// # Errors
    /// Its findings.
    pub fn lint(&self, values: &str) -> Result<String, RenderError> {
        self.run(&["lint", "--strict", &chart(), "--values", "-"], values)
    }

    fn run(&self, arguments: &[&str], values: &str) -> Result<String, RenderError> {
        let output = run(arguments, values);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(printed),
            false => Err(RenderError(String::from_utf8_lossy(&output.stderr).into_owned() + &printed)),
        }
    }
}

fn chart() -> String {
    super::folder().join("chart/sluice").display().to_string()
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(super::folder().join("helm"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("deploy/helm runs");
    // whoever does not read its input closes it, which is no error of ours
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("deploy/helm ends")
}
