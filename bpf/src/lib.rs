//! The kernel's part: BPF programs (C, in `src/c`), the layouts they share with the workers, and what loads them.
//!
//! ```text
//!  src/c/abi.h ═══ src/abi.rs          the ABI, in both languages, held together by tests
//!  src/c/*.h, sluice.bpf.c ──clang──▶ skeleton ──▶ src/load.rs: pins, links, maps
//! ```
//!
//! Without the feature `load` only the layouts are built: no clang, no libbpf.

pub mod abi;
#[cfg(feature = "load")]
mod attach;
#[cfg(feature = "load")]
mod handover;
#[cfg(feature = "load")]
mod layout;
#[cfg(feature = "load")]
mod links;
#[cfg(feature = "load")]
mod load;
#[cfg(feature = "load")]
mod maps;
#[cfg(feature = "load")]
mod pinned;
#[cfg(feature = "load")]
mod rations;
#[cfg(feature = "load")]
mod ring;
#[cfg(feature = "load")]
pub mod testing;

#[cfg(feature = "load")]
pub use attach::Hooks;
#[cfg(feature = "load")]
pub use handover::{Handover, Step};
#[cfg(feature = "load")]
pub use layout::{Layout, Misfit};
#[cfg(feature = "load")]
pub use links::{XdpFeatures, xdp_features};
#[cfg(feature = "load")]
pub use load::{LoadError, LoadOptions, Loaded};
#[cfg(feature = "load")]
pub use maps::{HashMapFd, MapError, Shared};
#[cfg(feature = "load")]
pub use ring::Ring;

/// The version of the maps' layouts and the trunk header: that of `src/c/abi.h`, one above with the feature `abi-next`.
pub const ABI_VERSION: u32 = 4 + cfg!(feature = "abi-next") as u32;
