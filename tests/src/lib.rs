//! Suites that drive more than one crate: the vectors of policy questions with a known truth.
#![forbid(unsafe_code)]

pub mod vectors;
