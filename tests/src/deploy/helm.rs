//! The real helm, of the version that `deploy/helm` names.

use super::{Documents, text};
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

    /// What an installation would print at its end. Helm renders that only where a cluster answers, so a copy of the chart
    /// carries it in a ConfigMap.
    ///
    /// # Errors
    /// As [`Helm::render`].
    ///
    /// # Panics
    /// The chart cannot be copied.
    pub fn notes(&self, values: &str) -> Result<String, RenderError> {
        const CARRIER: &str =
            "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"data\": {\"notes\": {{ tpl (.Files.Get \"notes.txt\") . | toJson }}}}";
        let copy = tempfile::tempdir().expect("a directory");
        let copied = Command::new("cp").arg("-r").arg(chart()).arg(copy.path()).status().expect("cp runs");
        assert!(copied.success(), "the chart was copied");
        let (chart, templates) = (copy.path().join("sluice"), copy.path().join("sluice/templates"));
        std::fs::rename(templates.join("NOTES.txt"), chart.join("notes.txt")).expect("the chart has notes");
        std::fs::write(templates.join("notes.yaml"), CARRIER).expect("written");
        let chart = chart.display().to_string();
        let arguments =
            ["template", "sluice", &chart, "--namespace", "sluice-system", "--show-only", "templates/notes.yaml", "--values", "-"];
        let carrier = Documents::parse(&self.run(&arguments, values)?)?;
        Ok(text(&carrier.only("ConfigMap")["data"]["notes"]).to_owned())
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
