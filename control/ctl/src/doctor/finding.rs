//! What a check says.

use serde::Serialize;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Fine,
    /// Works, and could be better.
    Advice,
    /// Could not be checked.
    Unknown,
    /// Sluice does not work so.
    Missing,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Advice => "advice",
            Self::Unknown => "unknown",
            Self::Missing => "MISSING",
        }
    }
}

/// One check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Its name; a device or process behind a blank where there are several.
    pub(super) check: String,
    pub(super) state: State,
    /// What is there.
    pub(super) found: String,
    /// What to do, a line for each step; nothing where all is fine.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn fine(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Fine, found: found.into(), advice: None }
    }

    pub(super) fn advice(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Advice, advice: Some(advice.into()), ..Self::fine(check, found) }
    }

    pub(super) fn missing(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Missing, ..Self::advice(check, found, advice) }
    }

    pub(super) fn unknown(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Unknown, ..Self::advice(check, found, advice) }
    }
}
