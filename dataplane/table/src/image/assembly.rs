//! Sections put side by side: what one image has in common with the next is copied, or stays where it is.

use crate::format::{ALIGNMENT, CHECKSUM_WORD, Header, Section, mixed};
use bytemuck::Pod;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

const HEADER_BYTES: usize = size_of::<Header>().next_multiple_of(ALIGNMENT);
const WORD: usize = size_of::<u64>();

/// An image's bytes. A clone is the same bytes; who holds none of them lets the writer go on in place.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(Arc<Vec<u64>>);

impl Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes)", self.len())
    }
}

/// An image's words, and where its sections are.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    words: Arc<Vec<u64>>,
    /// In bytes; `None` where a section must be made.
    places: [Option<Range<usize>>; Section::ALL.len()],
    /// Of the words behind the header; `None` until they are summed.
    sum: Option<u64>,
    before: Arc<Vec<u64>>,
    /// Room of an image that nobody holds any longer: fresh memory costs more than what is written into it.
    spare: Vec<u64>,
    places_before: [Option<Range<usize>>; Section::ALL.len()],
}

impl Assembly {
    /// An empty one, to which sections of this one may be taken over.
    pub(super) fn next(self) -> Self {
        let mut words = self.spare;
        words.clear();
        words.reserve(self.words.len().max(HEADER_BYTES / WORD) + 1024);
        words.resize(HEADER_BYTES / WORD, 0);
        Self { words: Arc::new(words), before: self.words, places_before: self.places, ..Self::default() }
    }

    pub(super) fn forget(&mut self, sections: &[Section]) {
        for &section in sections {
            self.places[section as usize] = None;
            self.places_before[section as usize] = None;
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.places.iter().all(Option::is_some)
    }

    /// Takes a section over, if it is still right.
    pub(super) fn keep(&mut self, section: Section) -> bool {
        let Some(place) = self.places_before[section as usize].take() else { return false };
        let from = self.words.len() * WORD;
        let words = place.start / WORD..place.end.next_multiple_of(ALIGNMENT) / WORD;
        Arc::make_mut(&mut self.words).extend_from_slice(&self.before[words]);
        self.places[section as usize] = Some(from..from + place.len());
        true
    }

    /// Adds a section.
    pub(super) fn put<T: Pod>(&mut self, section: Section, entries: impl ExactSizeIterator<Item = T>) {
        let from = self.words.len() * WORD;
        let place = from..from + entries.len() * size_of::<T>();
        let words = Arc::make_mut(&mut self.words);
        words.resize(place.end.next_multiple_of(ALIGNMENT) / WORD, 0);
        self.places[section as usize] = Some(place.clone());
        fill(&mut bytemuck::cast_slice_mut(words)[place], entries);
    }

    /// Changes entries of a section from the one at `first` on.
    pub(super) fn patch<T: Pod>(&mut self, section: Section, first: usize, entries: impl ExactSizeIterator<Item = T>) {
        let place = self.places[section as usize].as_ref().expect("only what is whole is patched");
        let from = place.start + first * size_of::<T>();
        let bytes = from..from + entries.len() * size_of::<T>();
        let words = bytes.start / WORD..bytes.end.div_ceil(WORD);
        let own = Arc::make_mut(&mut self.words);
        let before = sum(own, words.clone());
        fill(&mut bytemuck::cast_slice_mut(own)[bytes], entries);
        let after = sum(own, words);
        self.sum = self.sum.map(|sum| sum.wrapping_sub(before).wrapping_add(after));
    }

    /// The bytes under this header, which gets places, length and checksum.
    pub(super) fn image(&mut self, mut header: Header) -> Image {
        if let Some(room) = Arc::into_inner(std::mem::take(&mut self.before)).filter(|room| !room.is_empty()) {
            self.spare = room;
        }
        header.image_bytes = (self.words.len() * WORD) as u64;
        for (section, place) in header.sections.iter_mut().zip(self.places.iter().flatten()) {
            *section = [place.start as u64, place.len() as u64];
        }
        let (header_words, len) = (HEADER_BYTES / WORD, self.words.len());
        let words = Arc::make_mut(&mut self.words);
        bytemuck::cast_slice_mut(words)[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        let content = *self.sum.get_or_insert_with(|| sum(words, header_words..len));
        let own = mixed(CHECKSUM_WORD, 0);
        words[CHECKSUM_WORD] = content.wrapping_add(sum(words, 0..header_words)).wrapping_sub(own).to_le();
        Image(Arc::clone(&self.words))
    }
}

fn fill<T: Pod>(bytes: &mut [u8], entries: impl Iterator<Item = T>) {
    bytemuck::cast_slice_mut::<u8, T>(bytes).iter_mut().zip(entries).for_each(|(slot, entry)| *slot = entry);
}

/// What these words add to a checksum.
fn sum(words: &[u64], range: Range<usize>) -> u64 {
    let from = range.start;
    words[range].iter().enumerate().fold(0, |sum, (index, &word)| sum.wrapping_add(mixed(from + index, u64::from_le(word))))
}
