//! The memory of a table: all that lookups read in one block, of large pages where the kernel has them.
//!
//! A lookup reads a handful of places far apart, and in small pages each of them costs a walk through page tables when the
//! table is new. Two large pages hold most tables.

use bytemuck::Pod;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// A large page.
const HUGE: usize = 2 << 20;
/// From here on a block is worth large pages.
const HUGE_MIN: usize = HUGE / 4;
/// A line of a cache.
pub(crate) const LINE: usize = 64;
/// Of each array.
const ALIGNMENT: usize = LINE;

/// A larger block is not kept for the next table.
const SPARE_MAX: usize = 64 << 20;

/// The last block that nobody held any longer. One table follows another of its size, and fresh pages are the larger part of
/// loading one: the kernel clears them, and a hypervisor may have to find them first.
static SPARE: Spare = Spare(Mutex::new(None));

/// A mapping for large pages, to be unmapped by whoever holds it.
struct Mapping {
    from: NonNull<u8>,
    bytes: usize,
    /// The first of it that is aligned to a large page.
    start: NonNull<u8>,
}

// SAFETY: memory of this process, whichever thread holds it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn unmap(self) {
        // SAFETY: it was mapped so, and whoever held it gave it up: nobody reads it any more.
        let _ = unsafe { munmap(self.from.as_ptr().cast(), self.bytes) };
    }
}

/// Room for one mapping.
struct Spare(Mutex<Option<Mapping>>);

impl Spare {
    /// The one that is there, if it is of this length; another one is of no use any more.
    fn take(&self, bytes: usize) -> Option<Mapping> {
        let mapping = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if mapping.bytes == bytes {
            return Some(mapping);
        }
        mapping.unmap();
        None
    }

    /// In place of an older one.
    fn put(&self, mapping: Mapping) {
        let former =
            if mapping.bytes > SPARE_MAX { Some(mapping) } else { self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(mapping) };
        former.into_iter().for_each(Mapping::unmap);
    }
}

/// Owned memory, freed with the last array in it.
enum Block {
    /// `None` only while it is dropped.
    Mapped(Option<Mapping>),
    Allocated {
        start: NonNull<u8>,
        layout: Layout,
    },
}

// SAFETY: nobody but `Memory`, which is not shared, writes to a block.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Its bytes are whatever they are.
    fn of(bytes: usize) -> Self {
        if bytes >= HUGE_MIN {
            let len = bytes.next_multiple_of(HUGE);
            if let Some(mapping) = SPARE.take(len + HUGE).or_else(|| map(len)) {
                return Self::Mapped(Some(mapping));
            }
        }
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT).expect("an image is far smaller than the address space");
        // SAFETY: the size is not 0.
        match NonNull::new(unsafe { alloc_zeroed(layout) }) {
            Some(start) => Self::Allocated { start, layout },
            None => handle_alloc_error(layout),
        }
    }

    fn start(&self) -> NonNull<u8> {
        match self {
            Self::Mapped(mapping) => mapping.as_ref().expect("nobody asks a block that is dropped").start,
            Self::Allocated { start, .. } => *start,
        }
    }
}

/// Where the kernel has no large pages, small ones do as well.
fn map(len: usize) -> Option<Mapping> {
    let bytes = len + HUGE;
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a mapping of its own, at a place of the kernel's choice.
    let from = NonNull::new(unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) }.ok()?.cast::<u8>())?;
    let before = from.addr().get().next_multiple_of(HUGE) - from.addr().get();
    // SAFETY: less than `HUGE` in front of `len` bytes.
    let start = unsafe { from.add(before) };
    // SAFETY: these pages are ours, and nothing is in them.
    let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
    Some(Mapping { from, bytes, start })
}

impl Drop for Block {
    fn drop(&mut self) {
        match self {
            // no array is left that would read it
            Self::Mapped(mapping) => mapping.take().into_iter().for_each(|mapping| SPARE.put(mapping)),
            // SAFETY: it was allocated with this layout, and no array is left that would read it.
            Self::Allocated { start, layout } => unsafe { dealloc(start.as_ptr(), *layout) },
        }
    }
}

/// A block that is being filled.
pub(crate) struct Memory {
    block: Arc<Block>,
    bytes: usize,
    used: usize,
}

/// Room that entries take.
pub(crate) fn room<T>(parts: &[&[T]]) -> usize {
    parts.iter().map(|part| size_of_val(*part)).sum::<usize>().next_multiple_of(ALIGNMENT)
}

impl Memory {
    /// For so many bytes, the sum of what [`room`] says of everything to be placed.
    pub(crate) fn of(bytes: usize) -> Self {
        Self { block: Arc::new(Block::of(bytes)), bytes, used: 0 }
    }

    /// Copies these parts side by side. Panics where they do not fit.
    pub(crate) fn place<T: Pod>(&mut self, parts: &[&[T]]) -> Array<T> {
        let at = self.used;
        self.used += room(parts);
        assert!(self.used <= self.bytes && align_of::<T>() <= ALIGNMENT, "the room was summed up before");
        // SAFETY: inside of the block, as was just asked.
        let start: NonNull<T> = unsafe { self.block.start().add(at) }.cast();
        let mut len = 0;
        for part in parts {
            // SAFETY: the parts fit their room.
            let next = unsafe { start.add(len) };
            // SAFETY: as above, and nobody else knows of the room yet.
            unsafe { next.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len()) };
            len += part.len();
        }
        let content = len * size_of::<T>();
        // SAFETY: the content ends inside of the room, or where it does.
        let rest = unsafe { start.cast::<u8>().add(content) };
        // SAFETY: up to the end of the room, where the next part begins.
        unsafe { rest.write_bytes(0, room(parts) - content) };
        Array { start, len, _block: Arc::clone(&self.block), entries: PhantomData }
    }

    /// All that was placed.
    pub(crate) fn whole(&self) -> Array<u8> {
        // of `used` bytes, all of which were written: between two parts stand zeros
        Array { start: self.block.start(), len: self.used, _block: Arc::clone(&self.block), entries: PhantomData }
    }
}

/// Entries in a block. Read as a slice; nobody changes them.
pub(crate) struct Array<T> {
    start: NonNull<T>,
    len: usize,
    _block: Arc<Block>,
    entries: PhantomData<[T]>,
}

// SAFETY: it is read only.
unsafe impl<T: Sync> Send for Array<T> {}
// SAFETY: it is read only.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many entries were copied there, or zeros written where no part stands; and the block lives as long
        // as this array.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array of {}", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_placed_stays_as_it_is_while_any_of_it_is_held() {
        for many in [0, 1, 3, 70_000] {
            let (bytes, words): (Vec<u8>, Vec<u64>) = ((0..many).map(|n| n as u8).collect(), (0..many as u64).collect());
            let mut memory = Memory::of(room(&[&bytes]) + room(&[&words, &words]) + room::<u16>(&[]));
            let first = memory.place(&[&bytes]);
            let second = memory.place(&[&words, &words]);
            let none = memory.place::<u16>(&[]);
            let whole = memory.whole();
            drop(memory);
            assert_eq!((&*first, &*none), (&bytes[..], &[][..]));
            assert_eq!(whole.len(), bytes.len().next_multiple_of(LINE) + (words.len() * 16).next_multiple_of(LINE));
            assert_eq!(whole[..bytes.len()], bytes);
            drop((first, none, whole));
            assert_eq!(*second, [words.as_slice(), &words].concat());
            assert!(second.as_ptr().addr().is_multiple_of(64));
        }
    }

    #[test]
    fn the_last_mapping_is_used_again_whatever_sizes_came_before() {
        let spare = Spare(Mutex::new(None));
        for len in [HUGE, 3 * HUGE, HUGE] {
            assert!(spare.take(len + HUGE).is_none(), "nothing of this size was there");
            let mapping = map(len).unwrap();
            let from = mapping.from;
            spare.put(mapping);
            assert_eq!(
                spare.take(len + HUGE).map(|mapping| {
                    let same = mapping.from == from;
                    spare.put(mapping);
                    same
                }),
                Some(true)
            );
        }
        spare.put(map(SPARE_MAX).unwrap());
        assert!(spare.take(SPARE_MAX + HUGE).is_none(), "too large to be kept");
    }

    #[test]
    fn a_block_that_is_used_again_shows_nothing_of_what_was_in_it() {
        let bytes = HUGE_MIN + 1;
        for _ in 0..4 {
            let mut memory = Memory::of(room(&[&vec![0xff_u8; bytes]]));
            memory.place(&[&vec![0xff_u8; bytes]]);
            drop(memory);
            let mut memory = Memory::of(room(&[&vec![1_u8; bytes - 70]]) + room(&[&[2_u8; 3]]));
            let (first, second) = (memory.place(&[&vec![1_u8; bytes - 70]]), memory.place(&[&[2_u8; 3]]));
            let whole = memory.whole();
            assert!(first.iter().all(|byte| *byte == 1) && *second == [2; 3]);
            let between = &whole[first.len()..first.len().next_multiple_of(LINE)];
            assert!(between.iter().chain(&whole[whole.len() - 61..]).all(|byte| *byte == 0), "{between:?}");
        }
    }

    #[test]
    #[should_panic(expected = "the room was summed up before")]
    fn more_than_there_is_room_for_is_refused() {
        let mut memory = Memory::of(64);
        memory.place(&[&[0u8; 64][..]]);
        memory.place(&[&[0u8; 1][..]]);
    }
}
