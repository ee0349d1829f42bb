//! Taking over from another ABI version, older or newer, under traffic.
//!
//! ```text
//!   BPF_DIR/v1/{maps,links}      what the other one left; its programs judge on
//!   BPF_DIR/v2-new/maps          1 ours are filled from it, while nobody looks at them
//!   BPF_DIR/v2/{maps,links}      2 renamed: from here on complete
//!                                  our program at the end of postrouting beside the other one's
//!                                3 link by link: swapped to our program, then its pin moved from v1/links
//!                                4 what v1's programs noted since step 1 is added, then its counters
//!   BPF_DIR/v1-old               5 renamed: from here on garbage, and removed
//! ```
//!
//! The process that made `v1` is dead, so workers write nothing meanwhile, and both sides' programs only note what they
//! see. Every device is judged at every moment: by the old program on the old maps, or by ours on maps that are complete.
//! Each step is one rename or one swap, and all can be repeated: whoever starts next, of either version, finds directories
//! that are complete or garbage and goes on from there. No worker serves before the last other directory is gone, so a
//! cache that outlived its time can never be found again.
//!
//! **The trunks go last** (their links' names sort behind the devices'). A punt carries the version of the hook that made
//! it, and the other version's trunk drops and counts it (`trunk_header`). Nobody misses it: without a worker every punt is
//! dropped, from the moment the old process died until ours serves. Only under fail-open does that cost what would have
//! passed, new flows, for the length of step 3. A verdict of the dead worker that is still on its way finds its own
//! version's trunk, which is the last thing to change. What hits the cache never sees a trunk.

mod directories;
mod entries;

pub(crate) use directories::Directories;

use crate::links::REPLACED;
use crate::load::{LoadError, Loaded, system};
use crate::pinned::PinnedMap;
use entries::Taken;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// What was taken over from other versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handover {
    /// ABI versions that were there.
    pub from: Vec<u32>,
    /// Links swapped and moved.
    pub links: u64,
    /// Entries of the verdict cache that stay in force.
    pub entries: u64,
    /// Records that this version cannot hold: their flows are judged again.
    pub skipped: u64,
    /// Maps that could not be read, and why: as if they had been empty.
    pub unreadable: Vec<String>,
    /// From loading the programs to the end.
    pub took: Duration,
}

impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, links, entries, skipped, unreadable, took } = self;
        let from: Vec<String> = from.iter().map(|version| format!("v{version}")).collect();
        write!(f, "{}: {entries} entries, {skipped} skipped, {links} links, {} us", from.join(", "), took.as_micros())?;
        match unreadable.is_empty() {
            true => Ok(()),
            false => write!(f, "; not converted: {}", unreadable.join("; ")),
        }
    }
}

/// What has just been done. A process may die after any of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Our programs are loaded on maps that nobody looks at yet.
    Loaded,
    /// The maps are filled.
    Copied,
    /// Our directory has its name.
    Published,
    /// A link runs our program; its pin is still the other version's.
    Swapped(String),
    /// And its pin is ours.
    Moved(String),
    /// What the other programs noted meanwhile is added.
    Merged,
    /// Their counters are.
    Counted,
    /// The other directory has lost its name.
    Retired,
}

/// Told of every step; an error ends the work there, as death would.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&Step) -> io::Result<()>;

pub(crate) fn told(watch: Watch<'_>, step: Step) -> Result<(), LoadError> {
    watch(&step).map_err(system(format!("after {step:?}")))
}

/// Publishes a freshly loaded dataplane's maps, filled from whatever other versions left, and takes their links.
pub(crate) fn take_over(loaded: &mut Loaded, directories: &Directories, watch: Watch<'_>) -> Result<Option<Handover>, LoadError> {
    let began = Instant::now();
    let mut done = Handover { from: directories.others.iter().map(|other| other.version).collect(), ..Handover::default() };
    let mut taken: Vec<Taken> = directories.others.iter().map(|_| Taken::default()).collect();
    if directories.is_new {
        told(watch, Step::Loaded)?;
        for (other, taken) in directories.others.iter().zip(&mut taken) {
            taken.copy(&other.path, loaded, &mut done);
        }
        told(watch, Step::Copied)?;
        directories.publish()?;
        loaded.directory = directories.own.clone();
        told(watch, Step::Published)?;
    }
    // before the others' goes, so that there is always one
    loaded.guard_node()?;
    loaded.swap_pinned_links()?;
    for (other, taken) in directories.others.iter().zip(&taken) {
        take_links(loaded, &other.path, &mut done, watch)?;
        taken.merge(&other.path, loaded, &mut done);
        told(watch, Step::Merged)?;
        if let Err(reason) = add_counters(loaded, &other.path) {
            done.unreadable.push(format!("v{} counters: {reason}", other.version));
        }
        told(watch, Step::Counted)?;
        other.retire()?;
        told(watch, Step::Retired)?;
        other.remove_retired()?;
    }
    done.took = began.elapsed();
    Ok((!done.from.is_empty()).then_some(done))
}

/// Swaps every link of another version to our programs and moves its pin, devices before trunks. Links of a kind that we do
/// not know go last: whatever they did is not ours to judge by, and their maps are about to end.
fn take_links(loaded: &Loaded, other: &Path, done: &mut Handover, watch: Watch<'_>) -> Result<(), LoadError> {
    let links = other.join("links");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&links).map_err(system(format!("list {}", links.display())))? {
        names.push(entry.map_err(system("list links"))?.file_name().to_string_lossy().into_owned());
    }
    let (mut known, unknown): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| loaded.program_named(name).is_some());
    known.sort();
    for name in known {
        let path = links.join(&name);
        if !loaded.swap_pinned_link(&path)? {
            continue;
        }
        told(watch, Step::Swapped(name.clone()))?;
        std::fs::rename(&path, loaded.link_path(&name)).map_err(system(format!("take the pin {}", path.display())))?;
        done.links += 1;
        told(watch, Step::Moved(name))?;
    }
    for name in unknown {
        let path = links.join(&name);
        std::fs::remove_file(&path).map_err(system(format!("unpin {}", path.display())))?;
        if !name.ends_with(REPLACED) {
            done.unreadable.push(format!("link {name} is of an unknown kind"));
        }
    }
    Ok(())
}

/// So that totals never go back. A process that dies right behind this adds them twice.
fn add_counters(loaded: &Loaded, other: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let maps = other.join("maps");
    let counted = PinnedMap::sums(&maps, "counters")?;
    // a version without this map had taken over from nobody
    let before = PinnedMap::sums(&maps, "counted_before").unwrap_or_default();
    for (index, counted) in counted.iter().enumerate().take(crate::abi::COUNTERS) {
        let index_key = index as u32;
        let ours = loaded.counted_before.get(&index_key).unwrap_or(0);
        loaded.counted_before.put(&index_key, &(ours + counted + before.get(index).unwrap_or(&0)))?;
    }
    Ok(())
}
