//! The other core: images at a rate, by the path that they take in the product.
//!
//! ```text
//!   image ▷ memfd, sealed ▷ read, validated, loaded ▷ handed over ▷ acknowledged ▷ the table before is dropped
//!                                                      └── or dropped at once: the same work, and no swap
//! ```

use super::check::{Known, Questions};
use super::editor::{Editor, Made};
use super::reader::{Reader, Stretch};
use crate::environment::stay_on;
use crate::stats::Summary;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sluice_dataplane::worker::{Command, WorkerShared};
use sluice_table::{Table, seal};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A worker that takes no table for so long is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where images come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Made when they are due.
    Live,
    /// Made before, published in turn.
    Ring { images: Vec<Made>, next: usize },
}

/// Images at one rate.
#[derive(Debug)]
pub(super) struct Rate {
    pub(super) per_second: u32,
    /// Edits between two images.
    pub(super) edits: usize,
    /// What making one takes, in milliseconds.
    pub(super) make_ms: f64,
    pub(super) source: Source,
}

/// What was published in a stretch of time.
#[derive(Debug, Default, Clone)]
pub(super) struct Published {
    pub(super) images: u64,
    /// Milliseconds of each: making it, where that was done live.
    pub(super) make_ms: Vec<f64>,
    /// Into a memfd, sealed, read back, validated, loaded.
    pub(super) load_ms: Vec<f64>,
    /// From the hand-over until the worker judged by it.
    pub(super) adopt_us: Vec<f64>,
}

/// The same of a whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublishedSummary {
    pub(super) images: u64,
    pub(super) make_ms: Option<Summary>,
    pub(super) load_ms: Option<Summary>,
    pub(super) adopt_us: Option<Summary>,
}

impl Published {
    pub(super) fn add(&mut self, other: Self) {
        self.images += other.images;
        self.make_ms.extend(other.make_ms);
        self.load_ms.extend(other.load_ms);
        self.adopt_us.extend(other.adopt_us);
    }

    pub(super) fn summary(&self) -> PublishedSummary {
        let [make_ms, load_ms, adopt_us] = [&self.make_ms, &self.load_ms, &self.adopt_us].map(|values| Summary::of(values));
        PublishedSummary { images: self.images, make_ms, load_ms, adopt_us }
    }
}

/// What the keeper has.
#[derive(Debug)]
pub(super) struct Publisher<'q> {
    pub(super) cpu: usize,
    pub(super) shared: Arc<WorkerShared>,
    pub(super) known: Known,
    pub(super) questions: &'q Questions,
    /// In force.
    pub(super) table: Option<Arc<Table>>,
    /// Handed over, and not yet taken; oldest first.
    pub(super) waiting: VecDeque<(Arc<Table>, Instant)>,
}

impl Publisher<'_> {
    /// Publishes at that rate until `stop` says so, on a core of its own. `hands_over`: whether the worker gets the tables.
    ///
    /// # Errors
    ///
    /// An image is none, or the worker does not take it.
    pub(super) fn run(&mut self, rate: &mut Rate, editor: &mut Editor, hands_over: bool, stop: &AtomicBool) -> Result<Published> {
        stay_on(self.cpu)?;
        let (mut published, interval, start) = (Published::default(), Duration::from_secs(1) / rate.per_second, Instant::now());
        // half an interval, so that the worker begins undisturbed
        let mut due = start + interval / 2;
        // Relaxed: one image more or less does not matter
        while !stop.load(Ordering::Relaxed) {
            self.settle(&mut published)?;
            let now = Instant::now();
            if now < due {
                match self.waiting.is_empty() {
                    true => std::thread::sleep((due - now).min(Duration::from_millis(2))),
                    false => std::hint::spin_loop(),
                }
                continue;
            }
            // an image that comes late does not make the next one early
            due = (due + interval).max(now);
            let made = self.next(rate, editor, &mut published)?;
            self.publish(&made, hands_over, &mut published)?;
        }
        while !self.waiting.is_empty() {
            self.settle(&mut published)?;
        }
        Ok(published)
    }

    /// Takes notice of what the worker judges by. Only now is the table before that free: nobody looks anything up in it any
    /// more. One that was overtaken in the worker's queue goes with it.
    fn settle(&mut self, published: &mut Published) -> Result<()> {
        let generation = self.shared.generation();
        if let Some(taken) = self.waiting.iter().position(|(table, _)| table.generation() == generation) {
            for (table, handed) in self.waiting.drain(..=taken) {
                published.adopt_us.push(handed.elapsed().as_secs_f64() * 1e6);
                self.table = Some(table);
            }
        }
        let oldest = self.waiting.front().map_or(Duration::ZERO, |(_, handed)| handed.elapsed());
        ensure!(oldest < PATIENCE, "the worker took no table for {oldest:?}");
        Ok(())
    }

    fn next(&self, rate: &mut Rate, editor: &mut Editor, published: &mut Published) -> Result<Made> {
        match &mut rate.source {
            Source::Live => {
                let start = Instant::now();
                let (made, _) = editor.make(rate.edits, self.questions, false)?;
                published.make_ms.push(start.elapsed().as_secs_f64() * 1e3);
                Ok(made)
            }
            Source::Ring { images, next } => {
                let made = images[*next].clone();
                *next = (*next + 1) % images.len();
                Ok(made)
            }
        }
    }

    /// As the keeper does with what control sent.
    fn publish(&mut self, made: &Made, hands_over: bool, published: &mut Published) -> Result<()> {
        let start = Instant::now();
        let memfd = seal::write_sealed("sluice-table", &made.image).context("writing the image")?;
        let table = Arc::new(Table::from_bytes(&seal::read_sealed(memfd.as_fd())?).context("loading the image")?);
        published.load_ms.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(table.generation() == made.generation, "generation {} came back as {}", made.generation, table.generation());
        published.images += 1;
        if !hands_over {
            return Ok(());
        }
        self.hand_over(made, &table)?;
        self.waiting.push_back((table, Instant::now()));
        Ok(())
    }

    fn hand_over(&self, made: &Made, table: &Arc<Table>) -> Result<()> {
        self.known.add(made.generation, Arc::clone(&made.answers));
        let handed = self.shared.commands.push(Command::Adopt(Arc::clone(table)));
        handed.map_err(|_| anyhow::anyhow!("the worker's queue is full"))
    }

    /// The first table, before anything is asked.
    ///
    /// # Errors
    ///
    /// The image is none.
    pub(super) fn begin(&mut self, made: &Made, reader: &mut Reader<'_>) -> Result<()> {
        let table = Arc::new(Table::from_bytes(&made.image).context("loading the image")?);
        self.hand_over(made, &table)?;
        self.table = Some(table);
        reader.adopt()
    }
}

/// One stretch: the reader asks on this thread, `work` goes on beside it until it is told to stop.
///
/// # Errors
///
/// Of either.
pub(super) fn beside(
    reader: &mut Reader<'_>,
    time: Duration,
    work: impl FnOnce(&AtomicBool) -> Result<Published> + Send,
) -> Result<(Stretch, Published)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let beside = scope.spawn(move || work(stop));
        let stretch = reader.run(time);
        // Relaxed: as where it is read
        stop.store(true, Ordering::Relaxed);
        // what is on its way is still taken, or its publisher would wait in vain
        while !beside.is_finished() {
            reader.adopt()?;
        }
        let published = beside.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))??;
        Ok((stretch?, published))
    })
}
