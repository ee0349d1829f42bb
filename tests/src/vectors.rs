//! Policy questions with an independent truth, put to the oracle and to the compiled table.
//!
//! The files hold clusters (namespaces, pods, policies) and, for each, who may reach whom on which port according to
//! Cyclonus. Each cluster is rebuilt as Kubernetes objects, so the questions go the whole way: objects → oracle, and
//! objects → compiler → image bytes → validation → lookup.
//!
//! | file | job |
//! |---|---|
//! | schema | the JSON of the files, and a step as a snapshot |
//! | engine | who is asked: the oracle or the table |
//! | compare | one step: every decided cell of every grid |
//! | run | files over the cores, counts, differences in file order |

mod compare;
pub(crate) mod engine;
mod run;
mod schema;

pub use compare::Difference;
pub use engine::Engine;
pub use run::{DIFFERENCES_SHOWN_MAX, Tally, run};
pub use schema::{Case, SCHEMA, Step, VectorFile, VectorsError};
