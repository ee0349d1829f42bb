//! From a published memfd to a table in force.

use super::Keeper;
use super::storage::Storage;
use crate::worker::Command;
use sluice_table::{ImageError, Table, seal};
use sluice_wire::FromDataplane;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// The last good image, inside the run directory.
pub(super) const LAST_IMAGE: &str = "image.last";

/// An image in force.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) table: Arc<Table>,
    /// Sealed; for tools that want the very bytes.
    pub(super) memfd: OwnedFd,
    pub(super) since: Instant,
}

/// An image on its way into force.
#[derive(Debug)]
pub(super) struct PendingAdoption {
    image: Image,
    received: Instant,
    validate: Duration,
    keep: Duration,
    cut_before: u64,
}

/// What an earlier process kept; nothing where the ports' registry is new, since incarnations then begin again and an old
/// table could speak of other pods. A damaged file is put aside: without a table everything new is dropped, which is safe.
pub(super) fn last_image(storage: &Storage, registry_is_new: bool) -> Option<Image> {
    let path = storage.path(LAST_IMAGE);
    if registry_is_new {
        let _ = std::fs::remove_file(&path);
        return None;
    }
    let bytes = std::fs::read(&path).ok()?;
    match Table::from_bytes(&bytes) {
        Ok(table) => {
            let memfd = seal::write_sealed("sluice-table", &bytes).ok()?;
            Some(Image { table: Arc::new(table), memfd, since: Instant::now() })
        }
        Err(reason) => {
            error!(%reason, path = %path.display(), "the last good image is damaged; waiting for control");
            let _ = std::fs::rename(&path, path.with_extension("damaged"));
            None
        }
    }
}

impl Keeper {
    /// Validates an image and hands it to the workers. On any doubt the previous table stays.
    pub(super) fn publish(&mut self, generation: u64, image_bytes: u64, memfd: Option<OwnedFd>) {
        let received = Instant::now();
        let mut bytes = std::mem::take(&mut self.buffer);
        match self.validate(generation, image_bytes, memfd, &mut bytes) {
            Ok(image) => {
                let (cut_before, validate) = (self.connections_cut(), received.elapsed());
                self.adopting = Some(PendingAdoption { image, received, validate, keep: Duration::ZERO, cut_before });
                // workers take it up while it is kept; it counts as adopted when both are done
                self.tell_tables();
                let keeping = Instant::now();
                self.keep_image(&bytes);
                if let Some(adopting) = &mut self.adopting {
                    adopting.keep = keeping.elapsed();
                }
                self.progress();
            }
            Err(reason) => {
                warn!(generation, %reason, "image refused; the previous table stays");
                self.last_refused = Some(format!("generation {generation}: {reason}"));
                self.tell_control(&FromDataplane::Refused { generation, reason });
            }
        }
        self.buffer = bytes;
    }

    /// Keeps it for the next process. Where it cannot be kept it comes into force all the same, and only a restart before the
    /// next attempt would miss it.
    fn keep_image(&self, bytes: &[u8]) {
        if self.storage.attempt(LAST_IMAGE, bytes).is_err() {
            // an older one must not rule after a restart; and without it there may be room
            let _ = std::fs::remove_file(self.storage.path(LAST_IMAGE));
            // told by the storage
            let _ = self.storage.write(LAST_IMAGE, bytes);
        }
    }

    /// Writes down what could not be when it was new.
    pub(super) fn keep_again(&self) {
        self.registry.keep_again();
        if let Some(image) = self.image.as_ref().filter(|_| self.adopting.is_none() && self.storage.is_behind(LAST_IMAGE))
            && let Ok(bytes) = seal::read_sealed(image.memfd.as_fd())
        {
            self.keep_image(&bytes);
        }
    }

    /// Reads the image into `bytes`.
    fn validate(&self, generation: u64, image_bytes: u64, memfd: Option<OwnedFd>, bytes: &mut Vec<u8>) -> Result<Image, String> {
        let memfd = memfd.ok_or("no descriptor came with the message")?;
        seal::read_sealed_into(memfd.as_fd(), bytes).map_err(|reason| reason.to_string())?;
        if bytes.len() as u64 != image_bytes {
            return Err(ImageError::Length { expected: image_bytes, found: bytes.len() as u64 }.to_string());
        }
        let table = Table::from_bytes(bytes).map_err(|reason| reason.to_string())?;
        if table.generation() != generation {
            return Err(format!("the image says generation {}", table.generation()));
        }
        let newest = self.adopting.as_ref().map_or(self.generation(), |adopting| adopting.image.table.generation());
        if generation <= newest {
            return Err(format!("generation {newest} is already here"));
        }
        Ok(Image { table: Arc::new(table), memfd, since: Instant::now() })
    }

    /// Hands the newest table to every worker that has not been given it yet, also to one that hung and is back.
    fn tell_tables(&mut self) {
        let adopting = self.adopting.as_ref().map(|adopting| &adopting.image);
        let Some(table) = adopting.or(self.image.as_ref()).map(|image| image.table.clone()) else { return };
        if self.is_moving() {
            return;
        }
        for worker in 0..self.workers.len() {
            if self.told[worker] < table.generation() {
                self.told[worker] = table.generation();
                self.command(worker, Command::Adopt(table.clone()));
            }
        }
    }

    fn connections_cut(&self) -> u64 {
        self.workers.iter().map(|worker| worker.shared.counts()[3]).sum()
    }

    /// Moves on whatever waits for workers: tables, then ADDs.
    pub(super) fn progress(&mut self) {
        self.flush_commands();
        self.tell_tables();
        if let Some(adopting) = self.adopting.take() {
            let table = adopting.image.table.clone();
            let generation = table.generation();
            // a dead or hung worker is outside the quorum; its frames are dropped, so it judges nothing by an old table
            let done =
                !self.is_moving() && self.workers.iter().all(|worker| worker.shared.generation() >= generation || !self.is_alive(worker));
            if done {
                let cut = self.connections_cut().saturating_sub(adopting.cut_before);
                let adopt_us = adopting.received.elapsed().as_micros() as u64;
                let [validate_us, keep_us] = [adopting.validate, adopting.keep].map(|time| time.as_micros() as u64);
                let image_bytes = table.image_bytes();
                info!(generation, adopt_us, validate_us, keep_us, image_bytes, connections_cut = cut, "table adopted");
                self.image = Some(Image { since: Instant::now(), ..adopting.image });
                self.tell_control(&FromDataplane::Adopted { generation, adopt_us, connections_cut: cut });
            } else {
                self.adopting = Some(adopting);
            }
        }
        self.finish_adds();
    }
}

impl PendingAdoption {
    /// The generation on its way.
    pub(super) fn generation(&self) -> u64 {
        self.image.table.generation()
    }
}
