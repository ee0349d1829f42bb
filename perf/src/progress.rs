//! What is being done right now, for somebody who watches.

use std::io::{IsTerminal, Write};

/// One line that overwrites itself on a terminal.
pub(crate) fn progress(step: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K  {step}");
        let _ = std::io::stderr().flush();
    }
}

/// Takes that line away.
pub(crate) fn end_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
