//! `sluice-perf report`.

use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
One page of everything that was measured, from the JSON that benches wrote.

The page is a single HTML file without scripts and without anything from elsewhere; it follows the reader's choice of light \
or dark, and can be read on a phone. It has every promise and what became of it, latency by percentile, cost against the \
number of policies, the peers of the lookup, stages and memory, and for each record the machine it was measured on.";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf report perf/records/*.json
  make bench-lookup OUT=lookup.json && sluice-perf report lookup.json --out lookup.html

A record is what a bench wrote with OUT=FILE or --out. The environment variable OUT stands for --out. Exit status: 0; 1 when
a file is no record, or the page cannot be written.";

/// See [`ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Records of benches: lookup, swap, compile, proof, forward.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write the page there [default: $OUT, else report.html].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
