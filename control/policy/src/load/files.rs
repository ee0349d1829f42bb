//! Which files belong to a manifest directory, for the loader and the watcher alike.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest manifest file. A dump of a cluster with tens of thousands of pods stays below it.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Levels of directories below the one that was named.
const DIRECTORY_DEPTH_MAX: usize = 16;

/// Every manifest below `dir` with its bytes, or the reason why it could not be read: `*.yaml`, `*.yml` and `*.json`,
/// recursively, sorted by path. Hidden files and directories are skipped, so that the `..data` links of a mounted
/// ConfigMap are not read twice.
///
/// A directory that cannot be listed appears under its own name with the error. Symbolic links are followed, and a
/// directory with several names is read once, under the first of them: links that lead back end, and links to the same
/// directory do not multiply. Pipes, sockets and devices are refused, because reading them may never end.
pub fn read_directory(dir: &Path) -> Vec<(PathBuf, io::Result<Vec<u8>>)> {
    let mut walk = Walk::default();
    walk.descend(dir, 0);
    walk.found.sort_by(|a, b| a.0.cmp(&b.0));
    walk.found
}

/// One file's bytes, refusing larger ones before they are in memory. `-` is standard input.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    // The limit is on what is read, not on what the file claims: it may grow, or be a pipe.
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB; split the file"));
    }
    Ok(bytes)
}

#[derive(Default)]
struct Walk {
    found: Vec<(PathBuf, io::Result<Vec<u8>>)>,
    /// Device and inode of each directory that was entered.
    entered: BTreeSet<(u64, u64)>,
}

impl Walk {
    fn descend(&mut self, dir: &Path, depth: usize) {
        if depth > DIRECTORY_DEPTH_MAX {
            let reason = format!("more than {DIRECTORY_DEPTH_MAX} levels of directories");
            self.found.push((dir.to_path_buf(), Err(io::Error::other(reason))));
            return;
        }
        if let Ok(metadata) = fs::metadata(dir)
            && !self.entered.insert((metadata.dev(), metadata.ino()))
        {
            return;
        }
        let mut entries = match fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.found.push((dir.to_path_buf(), Err(error))),
        };
        // The order decides under which name a linked directory is read.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")) {
            let path = entry.path();
            // Through links; a dangling one with a manifest's name is reported when it is read.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.descend(&path, depth + 1),
                _ if !is_manifest(&path) => {}
                Ok(metadata) if !metadata.is_file() => self.found.push((path, Err(io::Error::other("neither a file nor a directory")))),
                _ => {
                    let bytes = read_file(&path);
                    self.found.push((path, bytes));
                }
            }
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_found_in_order_and_hidden_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/.git")).unwrap();
        for name in ["z.yaml", "a.yml", "b/c.json", "b/.git/x.yaml", ".hidden.yaml", "README.md", "yaml"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names: Vec<_> = read_directory(dir.path())
            .into_iter()
            .map(|(path, bytes)| (path.strip_prefix(dir.path()).unwrap().to_owned(), bytes.unwrap()))
            .collect();
        let expected = ["a.yml", "b/c.json", "z.yaml"].map(|name| (PathBuf::from(name), name.as_bytes().to_vec()));
        assert_eq!(names, expected);
    }

    #[test]
    fn an_unreadable_directory_is_an_entry_with_its_error() {
        let found = read_directory(Path::new("/nonexistent/manifests"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_to_directories_neither_loop_nor_multiply() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/p.yaml"), "").unwrap();
        // Followed blindly, four links to the directory itself are 4^16 directories.
        for (name, target) in [("a", "."), ("b", "."), ("c", "."), ("d", "."), ("again", "sub"), ("sub/up", "..")] {
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        }
        let found = read_directory(dir.path());
        let names: Vec<_> = found.iter().map(|(path, _)| path.strip_prefix(dir.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("again/p.yaml")]);
    }

    #[test]
    fn what_never_ends_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.yaml");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("z.json")).unwrap();
        let found = read_directory(dir.path());
        let reasons: Vec<_> = found.iter().map(|(_, bytes)| bytes.as_ref().unwrap_err().to_string()).collect();
        assert_eq!(reasons, ["neither a file nor a directory"; 2]);
    }
}
