//! What a bench wrote.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;

/// Which bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bench {
    Lookup,
    Swap,
    Compile,
    Proof,
    Forward,
    Control,
}

impl Bench {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "lookup" => Self::Lookup,
            "swap" => Self::Swap,
            "compile" => Self::Compile,
            "proof" => Self::Proof,
            "forward" => Self::Forward,
            "control" => Self::Control,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Swap => "swap",
            Self::Compile => "compile",
            Self::Proof => "proof",
            Self::Forward => "forward",
            Self::Control => "control",
        }
    }
}

/// See the module. What is asked for is found by its JSON pointer (RFC 6901).
#[derive(Debug)]
pub(super) struct Record {
    /// Without folders: where it lay is nobody's concern.
    pub(super) file: String,
    pub(super) bench: Bench,
    pub(super) value: Value,
}

impl Record {
    /// # Errors
    ///
    /// The file cannot be read, or no bench wrote it.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        Self::parse(&name, &text).with_context(|| format!("{} is no record of a bench", file.display()))
    }

    /// # Errors
    ///
    /// No bench wrote it.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let Some(bench) = value.get("bench").and_then(Value::as_str) else { bail!("it does not say which") };
        let bench = Bench::of(bench).with_context(|| format!("it says {bench:?}"))?;
        Ok(Self { file: file.to_owned(), bench, value })
    }

    pub(super) fn list(&self, at: &str) -> &[Value] {
        list(&self.value, at)
    }
}

/// A number; `None` where there is none.
pub(super) fn number(value: &Value, at: &str) -> Option<f64> {
    value.pointer(at)?.as_f64()
}

/// A text; empty where there is none.
pub(super) fn string<'v>(value: &'v Value, at: &str) -> &'v str {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// A list; empty where there is none.
pub(super) fn list<'v>(value: &'v Value, at: &str) -> &'v [Value] {
    value.pointer(at).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether it is said to be so.
pub(super) fn is(value: &Value, at: &str) -> bool {
    value.pointer(at).and_then(Value::as_bool).unwrap_or(false)
}

/// Percentiles and nanoseconds of a tail.
pub(super) fn curve(tail: &Value) -> Vec<[f64; 2]> {
    list(tail, "/curve").iter().filter_map(|point| Some([number(point, "/0")?, number(point, "/1")?])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_bench_wrote_is_a_record() {
        for (text, reason) in [("{}", "which"), ("{\"bench\": \"tea\"}", "tea"), ("[1", "EOF")] {
            let error = format!("{:#}", Record::parse("x.json", text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!(Record::parse("x.json", "{\"bench\": \"swap\"}").unwrap().bench, Bench::Swap);
    }
}
