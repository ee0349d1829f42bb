//! What happens in a run, and when: drawn from its seed.

use super::kinds;
use fastrand::Rng;
use sluice_apiserver::{Fault, Rule, Verb};
use std::time::Duration;

/// What is decided before anything happens.
#[derive(Debug)]
pub(super) struct Settings {
    /// The recorded history, or a random one.
    pub(super) recorded: bool,
    pub(super) tls: bool,
    pub(super) streaming_lists: bool,
    /// How a watch from a forgotten version is refused.
    pub(super) expiry_as_status: bool,
    /// Small ones make watches expire.
    pub(super) history_max: usize,
    /// Whether changes begin only when a first table is there.
    pub(super) settled: bool,
    /// A kind that cannot be listed at first.
    pub(super) held: Option<&'static str>,
}

/// One thing that happens.
#[derive(Debug)]
pub(super) enum Act {
    /// So many objects change.
    Changes(usize),
    /// Something will go wrong with a request.
    Fault(Rule),
    /// All connections break.
    Cut,
    /// All watches end in order.
    EndWatches,
    /// The server forgets its history.
    Compact,
    /// The server is away while so many objects change.
    Outage(usize),
    Wait(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    random: Rng,
    /// So that a run ends while the server still breaks now and then.
    acts: usize,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let acts = random.usize(10..40);
        Self { random, acts }
    }

    pub(super) fn settings(&mut self) -> Settings {
        let random = &mut self.random;
        Settings {
            recorded: random.bool(),
            tls: random.u32(..8) == 0,
            streaming_lists: random.u32(..4) > 0,
            expiry_as_status: random.bool(),
            history_max: if random.u32(..3) == 0 { random.usize(2..20) } else { 10_000 },
            settled: random.u32(..4) > 0,
            held: (random.u32(..4) == 0).then(|| kinds()[random.usize(..kinds().len())]),
        }
    }

    /// `remaining`: changes that are left; `None` when they and the acts are used up.
    pub(super) fn next(&mut self, remaining: usize) -> Option<Act> {
        let random = &mut self.random;
        if self.acts == 0 {
            return (remaining > 0).then_some(Act::Changes(remaining));
        }
        self.acts -= 1;
        Some(match random.u32(..100) {
            0..25 => Act::Changes(random.usize(1..30)),
            25..55 => Act::Fault(rule(random)),
            55..61 => Act::Cut,
            61..65 => Act::EndWatches,
            65..70 => Act::Compact,
            70..75 => Act::Outage(random.usize(..30)),
            _ => Act::Wait(Duration::from_millis(random.u64(1..60))),
        })
    }
}

/// One request to come is spoiled, of one kind or of the next one that asks.
fn rule(random: &mut Rng) -> Rule {
    let events = random.u64(1..12);
    let bytes = random.usize(..6000);
    let (verb, fault) = match random.u32(..20) {
        0 => (None, Fault::Status { code: 410, retry_after_s: None }),
        1 => (None, Fault::Status { code: 429, retry_after_s: None }),
        2 => (None, Fault::Status { code: 500, retry_after_s: None }),
        3 => (None, Fault::Status { code: 503, retry_after_s: None }),
        4 => (None, Fault::Status { code: 504, retry_after_s: None }),
        5 => (None, Fault::Status { code: if random.bool() { 401 } else { 403 }, retry_after_s: None }),
        6 => (None, Fault::Hang),
        7 => (None, Fault::Close),
        8 => (None, Fault::DelayMs(random.u64(1..50))),
        9 => (None, Fault::CloseAfterBytes(bytes)),
        10 => (None, Fault::ResetAfterBytes(bytes)),
        11 => (None, Fault::Slow(random.u32(50_000..1_000_000))),
        12 => (None, Fault::ChunkBytes(random.usize(1..100))),
        13 => (Some(Verb::Watch), Fault::ExpireAfter(events)),
        14 => (Some(Verb::Watch), Fault::EndAfter(events)),
        15 => (Some(Verb::Watch), Fault::CutInEvent(events)),
        16 => (Some(Verb::Watch), Fault::Duplicate(events)),
        17 => (Some(Verb::Watch), Fault::Swap(events)),
        18 => (Some(Verb::Watch), Fault::DropBookmarks),
        _ => (Some(Verb::Watch), if random.bool() { Fault::Silent } else { Fault::ClockSkewS(-100_000) }),
    };
    let rule = Rule::new(fault).first(1);
    let rule = if random.bool() { rule.on(kinds()[random.usize(..kinds().len())]) } else { rule };
    Rule { verb, ..rule }
}
