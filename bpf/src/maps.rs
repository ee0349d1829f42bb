//! The maps from user space: arrays as shared memory, hashes by batched system calls whose counts are checked.

use bytemuck::Pod;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Why a map operation failed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("map {map}: {what}: {source}")]
    /// The kernel's reason.
    System {
        /// Which map.
        map: &'static str,
        /// Which operation.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    #[error("map {map}: {done} of {wanted} entries written: {source}")]
    /// A batch stopped in the middle.
    Partial {
        /// Which map.
        map: &'static str,
        /// Entries written, the first ones of the batch.
        done: usize,
        /// Entries given.
        wanted: usize,
        /// Why it stopped.
        source: io::Error,
    },
}

/// An mmapable array map as a slice of `T` in shared memory. Fields that change while programs run are 32-bit words,
/// read and written as atomics; the rest is written only while no program looks at the slot.
#[derive(Debug)]
pub struct Shared<T> {
    base: NonNull<T>,
    len: usize,
    bytes: usize,
}

// SAFETY: the mapping belongs to no thread; all access goes through atomics or raw copies of plain data.
unsafe impl<T: Pod> Send for Shared<T> {}
// SAFETY: as above; keeper and workers may touch one slot at a time, each 32-bit word of it atomically.
unsafe impl<T: Pod> Sync for Shared<T> {}

impl<T: Pod> Shared<T> {
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let page = 4096;
        let bytes = (len * size_of::<T>().next_multiple_of(8)).next_multiple_of(page);
        assert!(size_of::<T>().is_multiple_of(8), "array maps round values up to 8 bytes");
        // SAFETY: a fresh shared mapping of the map's own memory at an address of the kernel's choice aliases no Rust object.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap never returns null");
        Ok(Self { base, len, bytes })
    }

    fn at(&self, index: usize) -> NonNull<T> {
        assert!(index < self.len, "index {index} of {}", self.len);
        // SAFETY: `index` was checked against the mapping's length.
        unsafe { self.base.add(index) }
    }

    /// A copy of a slot, word by word: words written meanwhile may be old or new, each for itself.
    pub fn read(&self, index: usize) -> T {
        let mut value = T::zeroed();
        for (number, bytes) in bytemuck::bytes_of_mut(&mut value).chunks_exact_mut(4).enumerate() {
            // Relaxed: no order among words is promised
            bytes.copy_from_slice(&self.word(index, number * 4).load(Ordering::Relaxed).to_ne_bytes());
        }
        value
    }

    /// Replaces a slot, word by word.
    pub fn write(&self, index: usize, value: T) {
        for (number, bytes) in bytemuck::bytes_of(&value).chunks_exact(4).enumerate() {
            let word = u32::from_ne_bytes(bytes.try_into().expect("chunks of four"));
            // Relaxed: a slot is opened by its state word, which is published after it
            self.word(index, number * 4).store(word, Ordering::Relaxed);
        }
    }

    /// One 32-bit field of a slot, by byte offset, as an atomic shared with the programs.
    pub fn word(&self, index: usize, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= size_of::<T>(), "offset {offset}");
        // SAFETY: the offset lies inside the slot, which lies inside the mapping.
        let word = unsafe { self.at(index).cast::<u8>().add(offset) };
        // SAFETY: aligned to 4 by the assertion and the page-aligned base; the mapping outlives the borrow of self.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// One 64-bit field of a slot, likewise.
    pub fn long(&self, index: usize, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && size_of::<T>().is_multiple_of(8) && offset + 8 <= size_of::<T>(), "offset {offset}");
        // SAFETY: the offset lies inside the slot, which lies inside the mapping.
        let long = unsafe { self.at(index).cast::<u8>().add(offset) };
        // SAFETY: aligned to 8 by the assertion and the page-aligned base; the mapping outlives the borrow of self.
        unsafe { AtomicU64::from_ptr(long.as_ptr().cast()) }
    }

    /// Stores to a word so that everything written before is seen by a program that sees it.
    pub fn publish(&self, index: usize, offset: usize, value: u32) {
        // Release pairs with the programs' dependent loads of the slot.
        self.word(index, offset).store(value, Ordering::Release);
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping made in `map`, and no borrow of it outlives self.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A hash map by its descriptor: keys and values as plain data.
#[derive(Debug)]
pub struct HashMapFd<K, V> {
    fd: OwnedFd,
    name: &'static str,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> HashMapFd<K, V> {
    pub(crate) fn new(fd: OwnedFd, name: &'static str) -> Self {
        Self { fd, name, types: PhantomData }
    }

    fn error(&self, what: &'static str) -> MapError {
        MapError::System { map: self.name, what, source: io::Error::last_os_error() }
    }

    /// Another handle on the same map.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.fd.try_clone()?, self.name))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        let mut value = V::zeroed();
        // SAFETY: key and value are plain data of the map's own key and value sizes.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_elem(self.fd.as_raw_fd(), std::ptr::from_ref(key).cast(), std::ptr::from_mut(&mut value).cast())
        };
        (result == 0).then_some(value)
    }

    /// Inserts or replaces one entry.
    pub fn put(&self, key: &K, value: &V) -> Result<(), MapError> {
        // SAFETY: as in `get`.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(self.fd.as_raw_fd(), std::ptr::from_ref(key).cast(), std::ptr::from_ref(value).cast(), 0)
        };
        if result == 0 { Ok(()) } else { Err(self.error("update")) }
    }

    /// Replaces an entry that is there; false where it is not.
    pub fn replace(&self, key: &K, value: &V) -> bool {
        let exist = u64::from(libbpf_sys::BPF_EXIST);
        // SAFETY: as in `get`.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(self.fd.as_raw_fd(), std::ptr::from_ref(key).cast(), std::ptr::from_ref(value).cast(), exist)
        };
        result == 0
    }

    /// Inserts or replaces many entries with one system call, and checks that all were taken.
    pub fn put_batch(&self, keys: &[K], values: &[V]) -> Result<(), MapError> {
        assert_eq!(keys.len(), values.len());
        if keys.is_empty() {
            return Ok(());
        }
        let mut count = keys.len() as u32;
        // SAFETY: both slices hold `count` elements of the map's sizes; the kernel writes only `count`.
        let result = unsafe {
            libbpf_sys::bpf_map_update_batch(
                self.fd.as_raw_fd(),
                keys.as_ptr().cast(),
                values.as_ptr().cast(),
                &mut count,
                std::ptr::null(),
            )
        };
        if result == 0 && count as usize == keys.len() {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        Err(MapError::Partial { map: self.name, done: (count as usize).min(keys.len()), wanted: keys.len(), source })
    }

    /// Removes an entry; false where there was none.
    pub fn remove(&self, key: &K) -> bool {
        // SAFETY: as in `get`.
        let result = unsafe { libbpf_sys::bpf_map_delete_elem(self.fd.as_raw_fd(), std::ptr::from_ref(key).cast()) };
        result == 0
    }

    /// Removes an entry, and returns it as it was at that moment.
    pub fn take(&self, key: &K) -> Option<V> {
        let mut value = V::zeroed();
        // SAFETY: as in `get`.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_and_delete_elem(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(key).cast(),
                std::ptr::from_mut(&mut value).cast(),
            )
        };
        (result == 0).then_some(value)
    }

    /// Every entry; see [`scan_bytes`].
    pub fn scan(&self, mut each: impl FnMut(&K, &V)) -> Result<(), MapError> {
        scan_bytes(self.fd.as_fd(), self.name, size_of::<K>(), size_of::<V>(), |key, value| {
            each(&bytemuck::pod_read_unaligned(key), &bytemuck::pod_read_unaligned(value));
        })
    }
}

/// Every entry of a map, in batches; entries that come or go meanwhile may or may not be among them, all others are.
///
/// A batch too small for one bucket is retried larger: taking that error for the end is how scans lose entries.
///
/// # Panics
/// When a key is longer than 64 bytes, which no map here has.
pub(crate) fn scan_bytes(
    fd: BorrowedFd<'_>,
    name: &'static str,
    key_bytes: usize,
    value_bytes: usize,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), MapError> {
    let mut token = [0u8; 64];
    assert!((1..=token.len()).contains(&key_bytes) && value_bytes > 0, "{name}: keys of {key_bytes} bytes");
    let mut room = 4096usize;
    let (mut keys, mut values) = (vec![0u8; room * key_bytes], vec![0u8; room * value_bytes]);
    let mut first = true;
    loop {
        let mut count = room as u32;
        let from = if first { std::ptr::null_mut() } else { token.as_mut_ptr().cast() };
        let mut next = [0u8; 64];
        // SAFETY: both vectors have room for `count` elements of the map's sizes; a token is at most a key, which was checked.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                fd.as_raw_fd(),
                from,
                next.as_mut_ptr().cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &mut count,
                std::ptr::null(),
            )
        };
        let error = io::Error::last_os_error();
        if result != 0 && error.raw_os_error() == Some(libc::ENOSPC) {
            room *= 2;
            keys.resize(room * key_bytes, 0);
            values.resize(room * value_bytes, 0);
            continue;
        }
        let end = result != 0 && error.raw_os_error() == Some(libc::ENOENT);
        if result != 0 && !end {
            return Err(MapError::System { map: name, what: "scan", source: error });
        }
        for (key, value) in keys.chunks_exact(key_bytes).zip(values.chunks_exact(value_bytes)).take(count as usize) {
            each(key, value);
        }
        if end {
            return Ok(());
        }
        token = next;
        first = false;
    }
}
