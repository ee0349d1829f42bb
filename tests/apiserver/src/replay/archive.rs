//! `recorded.tar.xz` → files.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The archive cannot be read or unpacked.
    #[error("archive: {0}")]
    Archive(#[from] io::Error),
    /// A file of the archive is not what its name says.
    #[error("{file}: {source}")]
    Json {
        /// The file within the archive.
        file: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A capture lacks one of its files.
    #[error("{0} is missing in the archive")]
    Missing(String),
    /// The chunks of a watch and their times do not belong together.
    #[error("{0}: the chunks do not match their recorded times")]
    Chunks(String),
}

/// Files by their path below the archive's top directory.
pub(super) fn unpack(archive: impl Read) -> Result<BTreeMap<String, Vec<u8>>, RecordingError> {
    let mut files = BTreeMap::new();
    let mut tar = tar::Archive::new(lzma_rust2::XzReader::new(archive, true));
    for entry in tar.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let name = path.split_once('/').map_or(path.as_str(), |(_, below)| below).to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name, bytes);
    }
    Ok(files)
}
