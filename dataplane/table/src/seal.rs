//! Sharing an image between processes so that nobody can change it any more: a memfd, filled by `write()`, then sealed
//! whole. `F_SEAL_FUTURE_WRITE` would not do: a mapping its writer made before still writes (measured). Source: memfd_create(2),
//! fcntl(2) "File Sealing".

use crate::format::ImageError;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Puts an image into a memfd and seals it: afterwards it cannot be written, mapped writable, truncated or extended by
/// anyone, its maker included.
///
/// # Errors
/// The system's.
pub fn write_sealed(name: &str, image: &[u8]) -> io::Result<OwnedFd> {
    seal_in(File::from(memfd(name)?), name, image)
}

/// How often room is looked for that nobody else holds.
const ATTEMPTS: usize = 5;

/// The kernel does not seal while somebody holds one of the pages, be it the kernel itself, which moves them about. Nobody
/// holds fresh ones for long.
fn seal_in(mut file: File, name: &str, image: &[u8]) -> io::Result<OwnedFd> {
    for _ in 1..ATTEMPTS {
        match seal(file, image) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => file = File::from(memfd(name)?),
            done => return done,
        }
    }
    seal(file, image)
}

fn memfd(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

fn seal(mut file: File, image: &[u8]) -> io::Result<OwnedFd> {
    file.write_all(image)?;
    file.set_len(image.len() as u64)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Shares one image after another: most of the time of it is the system's search for pages, so it is done for the next
/// image while nobody waits.
#[derive(Debug)]
pub struct Sealer {
    name: &'static str,
    spare: Option<File>,
}

/// Room beyond the last image's that a spare has.
const ROOM_MORE: u64 = 64 << 10;

impl Sealer {
    /// Memfds get this name.
    pub fn new(name: &'static str) -> Self {
        Self { name, spare: None }
    }

    /// As [`write_sealed`], sooner where [`Self::prepare`] was called before.
    ///
    /// # Errors
    /// The system's.
    pub fn seal(&mut self, image: &[u8]) -> io::Result<OwnedFd> {
        match self.spare.take() {
            Some(spare) => seal_in(spare, self.name, image),
            None => write_sealed(self.name, image),
        }
    }

    /// Makes room for an image about as long as this one. Where the system has none, the next image looks for it.
    pub fn prepare(&mut self, image_bytes: usize) {
        let spare = || -> io::Result<File> {
            let fd = memfd(self.name)?;
            rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, image_bytes as u64 + ROOM_MORE)?;
            Ok(fd.into())
        };
        self.spare = spare().ok();
    }
}

/// Reads an image out of a memfd, after checking that it is sealed whole: what is read is what will ever be there.
///
/// # Errors
/// [`ImageError::Seals`] where a seal is missing or the descriptor is no memfd, [`ImageError::Read`] otherwise.
pub fn read_sealed(fd: BorrowedFd<'_>) -> Result<Vec<u8>, ImageError> {
    let mut image = Vec::new();
    read_sealed_into(fd, &mut image)?;
    Ok(image)
}

/// As [`read_sealed`], in place of what stands in `image`: whoever reads one after another need not look for memory.
///
/// # Errors
/// As there; nothing stands in `image` then.
pub fn read_sealed_into(fd: BorrowedFd<'_>, image: &mut Vec<u8>) -> Result<(), ImageError> {
    image.clear();
    let found = rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
    if !found.contains(SEALS) {
        return Err(ImageError::Seals { found: found.bits() });
    }
    let read = |image: &mut Vec<u8>| -> io::Result<()> {
        let mut file = File::from(fd.try_clone_to_owned()?);
        let len = file.metadata()?.len();
        if len > sluice_flow::limits::IMAGE_BYTES_MAX as u64 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("image of {len} bytes")));
        }
        file.seek(SeekFrom::Start(0))?;
        image.reserve(len as usize);
        file.read_to_end(image)?;
        Ok(())
    };
    read(image).map_err(|error| {
        image.clear();
        ImageError::Read(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags};
    use std::os::fd::AsFd;

    #[test]
    fn published_bytes_cannot_be_changed_by_anyone() {
        let fd = write_sealed("test", b"the table").unwrap();
        assert_eq!(read_sealed(fd.as_fd()).unwrap(), b"the table");
        let mut file = File::from(fd.try_clone().unwrap());
        file.seek(SeekFrom::Start(0)).unwrap();
        assert!(file.write(b"x").is_err(), "write");
        assert!(file.set_len(3).is_err(), "truncate");
        assert!(file.set_len(100).is_err(), "extend");
        assert!(rustix::fs::fcntl_add_seals(&file, SealFlags::empty()).is_err(), "unseal");
        let reopened = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        if let Ok(mut again) = std::fs::OpenOptions::new().write(true).open(reopened) {
            assert!(again.write(b"x").is_err(), "write through a fresh descriptor");
        }
        assert!(map_writable(&fd).is_err(), "map writable");
        assert_eq!(read_sealed(fd.as_fd()).unwrap(), b"the table");
    }

    #[test]
    fn an_image_in_room_that_was_prepared_is_as_long_as_it_is_and_sealed_whole() {
        let mut sealer = Sealer::new("test");
        for (prepared, image) in [(None, 5000), (Some(5000), 5000), (Some(5000), 10), (Some(10), 300_000), (Some(1), 0)] {
            prepared.into_iter().for_each(|bytes| sealer.prepare(bytes));
            let image: Vec<u8> = (0..image).map(|at| at as u8).collect();
            let fd = sealer.seal(&image).unwrap();
            assert_eq!(read_sealed(fd.as_fd()).unwrap(), image);
            assert!(map_writable(&fd).is_err() && File::from(fd).set_len(1).is_err());
        }
    }

    #[test]
    fn room_that_somebody_holds_is_not_used() {
        let mut sealer = Sealer::new("test");
        sealer.prepare(100);
        let held = sealer.spare.as_ref().unwrap().try_clone().unwrap();
        map_writable(&held.into()).unwrap();
        let fd = sealer.seal(b"the table").unwrap();
        assert_eq!(read_sealed(fd.as_fd()).unwrap(), b"the table");
        assert!(map_writable(&fd).is_err());
    }

    #[test]
    fn a_descriptor_that_may_still_change_is_refused() {
        let fd = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(matches!(read_sealed(fd.as_fd()), Err(ImageError::Seals { .. })));
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL).unwrap();
        assert!(matches!(read_sealed(fd.as_fd()), Err(ImageError::Seals { .. })), "FUTURE_WRITE alone does not suffice");
        let file = tempfile();
        assert!(matches!(read_sealed(file.as_fd()), Err(ImageError::Seals { .. })), "a plain file");
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("sluice-seal-{}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[allow(unsafe_code)]
    fn map_writable(fd: &OwnedFd) -> rustix::io::Result<()> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing; it is never read.
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 9, ProtFlags::WRITE, MapFlags::SHARED, fd, 0) }.map(|_| ())
    }
}
