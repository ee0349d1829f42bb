//! Histograms of latencies, and what reports keep of them.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Where a curve has its points, in percent.
const PERCENTILES: [f64; 17] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99, 99.995, 99.999, 100.0];

/// Latencies in ticks of some clock, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// Up to minutes, whatever the clock.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 1 << 40, 3).expect("sound bounds"))
    }

    #[inline]
    pub(crate) fn record(&mut self, ticks: u64) {
        self.0.saturating_record(ticks);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// In ticks.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// In nanoseconds, of brackets of so many queries.
    pub(crate) fn tail(&self, queries: usize, tick_ns: f64) -> Tail {
        let at = |quantile: f64| self.at(quantile) as f64 * tick_ns;
        let percentiles = PERCENTILES.into_iter().filter(|percent| percent_is_told(*percent, self.0.len()));
        Tail {
            queries,
            count: self.0.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 * tick_ns,
            curve: percentiles.map(|percent| [percent, at(percent / 100.0)]).collect(),
        }
    }
}

/// Whether so many samples say anything about that percentile: one of them at least lies beyond it.
fn percent_is_told(percent: f64, count: u64) -> bool {
    percent == 100.0 || (100.0 - percent) / 100.0 * count as f64 >= 1.0
}

/// A histogram in nanoseconds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tail {
    /// Queries in each bracket; 0 in an empty one.
    pub(crate) queries: usize,
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Percentile and nanoseconds, ascending.
    pub(crate) curve: Vec<[f64; 2]>,
}

impl Tail {
    /// In words.
    pub(crate) fn text(&self) -> String {
        format!("p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0} ns", self.p50, self.p99, self.p999, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values_and_in_nanoseconds() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|value| latencies.record(value));
        let tail = latencies.tail(1, 0.5);
        assert_eq!((tail.count, tail.p50, tail.p99, tail.p999, tail.max), (1000, 250.0, 495.0, 499.5, 500.0));
        assert!(tail.curve.windows(2).all(|pair| pair[0][0] < pair[1][0] && pair[0][1] <= pair[1][1]), "{tail:?}");
    }

    #[test]
    fn a_curve_claims_no_percentile_that_its_samples_cannot_tell() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|value| latencies.record(value));
        let told: Vec<f64> = latencies.tail(1, 1.0).curve.iter().map(|point| point[0]).collect();
        assert_eq!(told, [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 100.0]);
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (mut low, mut high) = (Latencies::new(), Latencies::new());
        (1..=99).for_each(|_| low.record(10));
        high.record(1000);
        low.add(&high);
        assert_eq!((low.at(0.5), low.at(0.99), low.tail(1, 1.0).max), (10, 10, 1000.0));
    }

    #[test]
    fn an_empty_histogram_is_no_panic() {
        assert_eq!(Latencies::new().tail(0, 1.0).count, 0);
    }
}
