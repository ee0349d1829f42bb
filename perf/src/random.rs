//! Seeded randomness: the same seed gives the same run on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for resampling and workloads.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from `0..end`; `end` is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The high half of the product: no visible bias for ranges of this size.
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// From `0..end`, low numbers more often: of 100 the first gets 4.6 %, the last 0.7 %.
    pub(crate) fn skewed(&mut self, end: usize) -> usize {
        let even = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        // square roots are exact on every machine, powers are not
        ((even * even.sqrt() * end as f64) as usize).min(end - 1)
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_and_the_skew_is_as_documented() {
        let mut random = SplitMix::new(1);
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            assert!(random.below(7) < 7);
            counts[random.skewed(100)] += 1;
        }
        assert!((4_400..5_000).contains(&counts[0]), "{}", counts[0]);
        assert!((550..800).contains(&counts[99]), "{}", counts[99]);
        assert_eq!((0..1000).filter(|_| random.chance(100)).count(), 1000);
    }
}
