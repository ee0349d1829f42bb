//! Suites that drive more than one crate: the vectors of policy questions with a known truth, and the live tests on the
//! one-machine cluster with the traffic that they send.
#![deny(unsafe_code)]

pub mod articles;
pub mod cases;
pub mod deploy;
pub mod live;
pub mod node;
pub mod simulation;
pub mod starts;
pub mod traffic;
pub mod upstream;
pub mod vectors;
pub mod walkthrough;
pub mod watching;
