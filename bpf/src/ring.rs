//! A BPF ring buffer from user space, without callbacks: one consumer, which reads what there is and knows what it has read up to.
//!
//! ```text
//!   page 0          consumer position, ours to write
//!   page 1          producer position, the kernel's
//!   page 2..        records, twice in a row, so that none has a seam:  len | BUSY | DISCARDED, page, bytes, padding to 8
//! ```
//!
//! Source: the kernel's Documentation/bpf/ringbuf.rst.

use bytemuck::AnyBitPattern;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const PAGE: usize = 4096;
const HEADER_BYTES: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// The consumer's end.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    consumer: NonNull<AtomicU64>,
    /// The producer's page, then the records, twice.
    producer: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the mappings belong to no thread; all access goes through atomics or copies of records that the kernel has released.
unsafe impl Send for Ring {}
// SAFETY: as above; two consumers at a time would only read records twice.
unsafe impl Sync for Ring {}

impl Ring {
    /// A new ring of so many bytes, a power of two of pages.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(crate) fn create(bytes: usize) -> io::Result<Self> {
        // SAFETY: a plain request without options; the name is a C string.
        let fd = unsafe {
            libbpf_sys::bpf_map_create(libbpf_sys::BPF_MAP_TYPE_RINGBUF, c"openings".as_ptr(), 0, 0, bytes as u32, std::ptr::null())
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave it to us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let consumer = map(&fd, PAGE, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let producer = match map(&fd, PAGE + 2 * bytes, libc::PROT_READ, PAGE) {
            Ok(producer) => producer,
            Err(error) => {
                // SAFETY: mapped above, and nobody else knows of it.
                unsafe { libc::munmap(consumer.as_ptr().cast(), PAGE) };
                return Err(error);
            }
        };
        Ok(Self { fd, consumer: consumer.cast(), producer: producer.cast(), bytes })
    }

    fn consumer(&self) -> &AtomicU64 {
        // SAFETY: the start of a page that is mapped as long as self lives.
        unsafe { self.consumer.as_ref() }
    }

    fn producer(&self) -> &AtomicU64 {
        // SAFETY: as above; the kernel alone writes it.
        unsafe { self.producer.as_ref() }
    }

    /// Reads every record that was begun before the call, also those that a program is still writing, which takes it less than a
    /// microsecond. Cost without records: two loads.
    pub fn consume<T: AnyBitPattern>(&self, mut each: impl FnMut(T)) {
        // SeqCst: after whatever the caller voided before; pairs with the programs' barrier behind their reservation
        let end = self.producer().load(Ordering::SeqCst);
        // Relaxed: ours alone
        let mut at = self.consumer().load(Ordering::Relaxed);
        while at < end {
            let header = self.released(at);
            let len = (header & !(BUSY | DISCARDED)) as usize;
            if header & DISCARDED == 0 && len >= size_of::<T>() && len <= self.bytes {
                each(self.record(at));
            }
            at += (len + HEADER_BYTES).next_multiple_of(8) as u64;
            // Release: the kernel may overwrite what was read only after it was
            self.consumer().store(at, Ordering::Release);
        }
    }

    /// The header of a record, once its program has released it.
    fn released(&self, at: u64) -> u32 {
        // SAFETY: inside the mapping: the position is taken modulo the ring's length, behind the producer's page.
        let header = unsafe { self.producer.byte_add(PAGE + (at as usize & (self.bytes - 1))) };
        // SAFETY: records are aligned to 8, and nobody writes but the kernel, atomically.
        let header = unsafe { header.cast::<AtomicU32>().as_ref() };
        loop {
            // Acquire pairs with the kernel's release of the record
            let value = header.load(Ordering::Acquire);
            if value & BUSY == 0 {
                return value;
            }
            std::thread::yield_now();
        }
    }

    fn record<T: AnyBitPattern>(&self, at: u64) -> T {
        // SAFETY: the records are mapped twice in a row, and the header's length, at least T's, is at most the ring's.
        let record = unsafe { self.producer.byte_add(PAGE + (at as usize & (self.bytes - 1)) + HEADER_BYTES) };
        // SAFETY: released by the kernel, which does not write there before the consumer's position is behind it.
        unsafe { record.cast::<T>().read_unaligned() }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping of `create`, no borrow of which outlives self.
        unsafe { libc::munmap(self.consumer.as_ptr().cast(), PAGE) };
        // SAFETY: likewise.
        unsafe { libc::munmap(self.producer.as_ptr().cast(), PAGE + 2 * self.bytes) };
    }
}

fn map(fd: &OwnedFd, bytes: usize, protection: i32, offset: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases no Rust object.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset as libc::off_t) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(base.cast()).expect("mmap never returns null"))
}
