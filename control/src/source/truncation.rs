//! Files caught between truncation and writing.
//!
//! `echo ... > policy.yaml` empties the file before it fills it, and an empty manifest is valid: it says that its
//! policies are gone. Read at that moment, an edit would open every pod that the policy isolates. So a file that just
//! lost all its content is not believed at once; the directory is read again until the file is filled or has stayed
//! empty for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a file must stay empty to be believed.
const EMPTY_BELIEVED: Duration = Duration::from_millis(500);

/// What is remembered between readings.
#[derive(Debug, Default)]
pub(crate) struct Truncation {
    /// Files that had content when they were last believed.
    filled: BTreeSet<PathBuf>,
    /// Those of them that are empty now.
    empty_since: BTreeMap<PathBuf, Instant>,
}

impl Truncation {
    /// Whether some file of this reading may be about to be filled. A reading for which this is false is remembered as
    /// believed.
    pub(crate) fn is_unfinished(&mut self, files: &[(PathBuf, io::Result<Vec<u8>>)], now: Instant) -> bool {
        let length = |read: &io::Result<Vec<u8>>| read.as_ref().map_or(0, Vec::len);
        let emptied = files.iter().filter(|(path, read)| read.is_ok() && length(read) == 0 && self.filled.contains(path));
        let empty_since = emptied.map(|(path, _)| (path.clone(), self.empty_since.get(path).copied().unwrap_or(now)));
        self.empty_since = empty_since.collect();
        if self.empty_since.values().any(|since| now.saturating_duration_since(*since) < EMPTY_BELIEVED) {
            return true;
        }
        self.filled = files.iter().filter(|(_, read)| length(read) > 0).map(|(path, _)| path.clone()).collect();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &str) -> Vec<(PathBuf, io::Result<Vec<u8>>)> {
        vec![("a.yaml".into(), Ok(content.as_bytes().to_vec())), ("b.yaml".into(), Ok(b"b".to_vec()))]
    }

    #[test]
    fn an_emptied_file_is_believed_only_after_a_while() {
        let mut truncation = Truncation::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!truncation.is_unfinished(&files(""), at(0)), "a new file has nothing to lose");
        assert!(!truncation.is_unfinished(&files("a"), at(1)));
        assert!(truncation.is_unfinished(&files(""), at(10)));
        assert!(!truncation.is_unfinished(&files("a"), at(20)), "filled again");
        assert!(truncation.is_unfinished(&files(""), at(30)));
        assert!(truncation.is_unfinished(&files(""), at(529)));
        assert!(!truncation.is_unfinished(&files(""), at(530)), "empty on purpose");
        assert!(!truncation.is_unfinished(&files(""), at(531)));
    }

    #[test]
    fn a_removed_file_is_no_truncation() {
        let mut truncation = Truncation::default();
        let now = Instant::now();
        assert!(!truncation.is_unfinished(&files("a"), now));
        assert!(!truncation.is_unfinished(&files("a")[1..], now));
    }
}
