//! The compiled table: position-independent bytes in, verdicts out.
//!
//! ```text
//!  remote address ─▶ class ─┐
//!  (protocol, port) ─▶ port class ─┐
//!  endpoint (PortIndex, direction) ─▶ row of the class ─▶ action[row][port class] = verdict and rule id
//! ```
//!
//! Few dependent loads, and no term for the number of policies: peers that no rule of this node tells apart share a
//! class, ports that no rule tells apart share a port class. [`Table::from_bytes`] bounds every index once, so a lookup can
//! neither fail nor panic.
//!
//! | file | job |
//! |---|---|
//! | format, width | header, sections, how wide numbers are stored |
//! | parts, image | what a compiler hands over, and its bytes |
//! | load, sections | bytes → table, every index checked |
//! | addresses, v4, arrays, packed, sides, table | the lookup, and what it reads |
//! | memory | where all of that lies |
//! | batch | many lookups at once, by what the processor has |
//! | inspect | the table as data, for proofs and reports |
//! | names, dump | the cold section, and the table for people |
//! | seal | sharing between processes: fully sealed memfd |

mod addresses;
mod arrays;
mod batch;
mod dump;
mod format;
mod image;
mod inspect;
mod load;
mod memory;
mod names;
mod packed;
mod parts;
pub mod seal;
mod sections;
mod sides;
mod table;
mod v4;
mod width;

pub use batch::{Query, SimdLevel};
pub use dump::Dump;
pub use format::{FORMAT_VERSION, ImageError, SEGMENT};
pub use image::{Image, ImageWriter, V4Change, V6Change, build_image, build_packed_image};
pub use inspect::{Meaning, Meant, Profile, V4Stretch};
pub use names::{EndpointName, Names, PodName, RuleName};
pub use parts::{Action, EndpointRow, PortParts, ProfileParts, TableParts};
pub use table::Table;
