//! This machine's caches: their sizes as the kernel tells them, their latencies as a chase of pointers finds them.

use super::clock;
use crate::random::SplitMix;
use serde::Serialize;
use std::time::Instant;

/// One level of memory.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Level {
    pub(crate) name: &'static str,
    /// As the kernel tells it; a guess where it does not.
    pub(crate) bytes: usize,
    /// How much was chased through.
    pub(crate) chased_bytes: usize,
    /// Of one dependent load.
    pub(crate) latency_ns: f64,
}

/// L1, L2, L3 and memory.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) levels: Vec<Level>,
    /// A bracket of the clock with nothing in it: what timing one lookup adds.
    pub(crate) empty_bracket_ns: f64,
    pub(crate) tick_ns: f64,
}

impl Machine {
    pub(crate) fn measure() -> Self {
        let bytes = [cache_bytes(0).unwrap_or(32 << 10), cache_bytes(2).unwrap_or(1 << 20), cache_bytes(3).unwrap_or(32 << 20)];
        let memory = (bytes[2] * 4).min(256 << 20);
        let chased = [bytes[0] / 2, bytes[1] / 2, bytes[1] * 4, memory];
        let sizes = [bytes[0], bytes[1], bytes[2], memory];
        let levels = ["L1", "L2", "L3", "memory"].into_iter().zip(sizes.into_iter().zip(chased));
        let levels = levels.map(|(name, (bytes, chased_bytes))| Level { name, bytes, chased_bytes, latency_ns: chase(chased_bytes) });
        let levels = levels.collect();
        let tick_ns = clock::tick_ns();
        let mut empty: Vec<u64> = (0..20_000).map(|_| clock::begin().abs_diff(clock::end())).collect();
        empty.sort_unstable();
        Self { levels, empty_bracket_ns: empty[empty.len() / 2] as f64 * tick_ns, tick_ns }
    }

    pub(crate) fn level(&self, name: &str) -> Option<&Level> {
        self.levels.iter().find(|level| level.name == name)
    }
}

/// Bytes of the first CPU's cache at that index: 0 L1 data, 2 L2, 3 L3. Source: Linux, ABI/testing/sysfs-devices-system-cpu.
fn cache_bytes(index: usize) -> Option<usize> {
    let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
    let text = text.trim();
    match text.strip_suffix('K') {
        Some(kilobytes) => Some(kilobytes.parse::<usize>().ok()? << 10),
        None => Some(text.strip_suffix('M')?.parse::<usize>().ok()? << 20),
    }
}

/// Walks one random cycle through so many bytes, one step to each cache line.
fn chase(bytes: usize) -> f64 {
    const LINE_WORDS: usize = 16;
    let lines = bytes / (LINE_WORDS * 4);
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = SplitMix::new(1);
    for last in (1..lines).rev() {
        order.swap(last, random.below(last + 1));
    }
    let mut next = vec![0u32; lines * LINE_WORDS];
    for (index, &line) in order.iter().enumerate() {
        next[line as usize * LINE_WORDS] = order[(index + 1) % lines] * LINE_WORDS as u32;
    }
    let steps = lines.clamp(1 << 17, 1 << 20);
    let mut at = 0;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..steps {
            at = next[at as usize];
        }
        best = best.min(start.elapsed().as_nanos() as f64 / steps as f64);
        std::hint::black_box(at);
    }
    best
}
