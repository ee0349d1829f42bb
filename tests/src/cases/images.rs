//! Images on their way to the dataplane, damaged in transit: each is refused by the reader's own checks, and the table in
//! force stays.
//!
//! Where damage is meant to be found behind the checksum, the checksum is made right again; it is written down here once
//! more, from the format's description.

use super::state::State;
use sluice_table::{Table, seal};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

const FORMAT_AT: usize = 8;
const GENERATION_AT: usize = 16;
const IMAGE_BYTES_AT: usize = 24;
const CHECKSUM_AT: usize = 32;
const SECTIONS_AT: usize = 64;
const HEADER_BYTES: usize = SECTIONS_AT + 20 * 16;
/// Among the sections.
const V4_TRIE: usize = 1;

/// What the dataplane says of the image of `state` after this damage; `adopted` if nothing.
pub(super) fn verdict(state: &mut State, damage: &str) -> Result<String, String> {
    let image = state.image()?;
    let bytes = match damage {
        "an unsealed descriptor" => {
            let fd = rustix::fs::memfd_create("case", rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING);
            let mut file = File::from(fd.map_err(|error| error.to_string())?);
            file.write_all(&image).map_err(|error| error.to_string())?;
            return Ok(match seal::read_sealed(file.as_fd()) {
                Ok(_) => "adopted".to_owned(),
                Err(refusal) => refusal.to_string(),
            });
        }
        "sealed" => {
            let fd = seal::write_sealed("case", &image).map_err(|error| error.to_string())?;
            seal::read_sealed(fd.as_fd()).map_err(|error| error.to_string())?
        }
        _ => damaged(state, image, damage)?,
    };
    Ok(Table::from_bytes(&bytes).map_or_else(|refusal| refusal.to_string(), |_| "adopted".to_owned()))
}

fn damaged(state: &mut State, mut image: Vec<u8>, damage: &str) -> Result<Vec<u8>, String> {
    let section = |image: &[u8], index: usize| number(image, SECTIONS_AT + index * 16) as usize;
    match damage {
        "as it is" => {}
        "another magic" => image[0] ^= 1,
        "another format" => image[FORMAT_AT] += 1,
        "one byte flipped" => {
            let middle = image.len() / 2;
            image[middle] ^= 1;
        }
        "cut in half" => image.truncate(image.len() / 2),
        "empty" => image.clear(),
        "64 bytes longer" => image.resize(image.len() + 64, 0),
        "a length that lies" => put(&mut image, IMAGE_BYTES_AT, 1 << 40),
        // the header of one generation, what follows of another
        "torn" => {
            let next = state.image_without_policies()?;
            image[..HEADER_BYTES].copy_from_slice(&next[..HEADER_BYTES]);
            let image_bytes = image.len() as u64;
            put(&mut image, IMAGE_BYTES_AT, image_bytes);
        }
        "another generation's number" => put(&mut image, GENERATION_AT, 99),
        "an index out of range" => {
            let at = section(&image, V4_TRIE);
            image[at..at + 2].copy_from_slice(&u16::MAX.to_le_bytes());
            reseal(&mut image);
        }
        "a section outside the image" => {
            put(&mut image, SECTIONS_AT + V4_TRIE * 16, 1 << 40);
            reseal(&mut image);
        }
        "a section that is not aligned" => {
            let at = section(&image, V4_TRIE) as u64;
            put(&mut image, SECTIONS_AT + V4_TRIE * 16, at + 4);
            reseal(&mut image);
        }
        other => return Err(format!("there is no damage {other:?}")),
    }
    Ok(image)
}

fn number(image: &[u8], at: usize) -> u64 {
    image.get(at..at + 8).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn put(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn reseal(image: &mut [u8]) {
    let mut sum = 0u64;
    for (index, chunk) in (0u64..).zip(image.chunks(8)).filter(|(index, _)| *index as usize * 8 != CHECKSUM_AT) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = u64::from_le_bytes(word) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let product = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        sum = sum.wrapping_add(product ^ product >> 32);
    }
    put(image, CHECKSUM_AT, sum);
}
