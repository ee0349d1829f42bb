//! What came of playing: who met what, and who did not.

use std::path::PathBuf;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The slow truth, on the objects.
    Oracle,
    /// The compiled table: lookups, and what it refuses.
    Table,
    /// The whole worker on a node in memory.
    Worker,
    /// The manifest loader: what it stores, and what it refuses.
    Loader,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Oracle, Self::Table, Self::Worker, Self::Loader];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oracle => "oracle",
            Self::Table => "table",
            Self::Worker => "worker",
            Self::Loader => "loader",
        }
    }
}

/// One expectation that an engine does not meet.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Failure {
    /// Where the expectation stands.
    pub file: PathBuf,
    /// Its line.
    pub line: u32,
    /// Who disagrees.
    pub engine: Engine,
    /// What was asked: a connection, a frame, an object.
    pub asked: String,
    /// What the case says.
    pub expected: String,
    /// What the engine says.
    pub got: String,
    /// What the oracle says of it and why; of frames, what the parser says.
    pub because: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}:{}: {}: {}", self.file.display(), self.line, self.engine.name(), self.asked)?;
        writeln!(f, "  expected {}", self.expected)?;
        write!(f, "  got      {}", self.got)?;
        if self.because.is_empty() { Ok(()) } else { write!(f, "\n  because  {}", self.because) }
    }
}

/// What came of one case.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Played {
    /// Where it stands.
    pub file: PathBuf,
    /// Where it begins.
    pub line: u32,
    /// Its promise.
    pub title: String,
    /// Expectations met, by engine in the order of [`Engine::ALL`].
    pub met: [u64; 4],
    /// Expectations not met.
    pub failures: Vec<Failure>,
}
