//! Median, quartiles and a bootstrap interval: all that the benches need.

use crate::random::SplitMix;
use serde::Serialize;

const RESAMPLES: usize = 10_000;

/// A sample's middle and its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// How many values.
    pub(crate) count: usize,
    /// The median.
    pub(crate) median: f64,
    /// First quartile.
    pub(crate) q1: f64,
    /// Third quartile.
    pub(crate) q3: f64,
    /// Lower end of the 95 % interval of the median (percentile bootstrap).
    pub(crate) low95: f64,
    /// Its upper end.
    pub(crate) high95: f64,
    /// The 99th percentile.
    pub(crate) p99: f64,
    /// The smallest value.
    pub(crate) min: f64,
    /// The largest value.
    pub(crate) max: f64,
}

impl Summary {
    /// `None` for an empty sample. The same sample gives the same interval in every run.
    ///
    /// # Panics
    ///
    /// When a value is not a number.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values.to_vec());
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let medians = sorted_medians(&sorted);
        Some(Self {
            count: sorted.len(),
            median: quantile(&sorted, 0.5),
            q1: quantile(&sorted, 0.25),
            q3: quantile(&sorted, 0.75),
            low95: quantile(&medians, 0.025),
            high95: quantile(&medians, 0.975),
            p99: quantile(&sorted, 0.99),
            min,
            max,
        })
    }
}

/// Medians of resamples with replacement, sorted.
fn sorted_medians(values: &[f64]) -> Vec<f64> {
    let mut random = SplitMix::new(0x5105_1ce5);
    let mut resample = vec![0.0; values.len()];
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        resample.fill_with(|| values[random.below(values.len())]);
        resample.sort_unstable_by(f64::total_cmp);
        medians.push(quantile(&resample, 0.5));
    }
    sorted(medians)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    assert!(values.iter().all(|value| !value.is_nan()), "a measurement is not a number");
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Linear interpolation between the two nearest ranks (type 7 of Hyndman and Fan, 1996). `sorted` is not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_the_textbook() {
        for (values, q1, median, q3) in [
            (&[7.0][..], 7.0, 7.0, 7.0),
            (&[2.0, 1.0], 1.25, 1.5, 1.75),
            (&[3.0, 1.0, 2.0], 1.5, 2.0, 2.5),
            (&[4.0, 1.0, 3.0, 2.0, 5.0], 2.0, 3.0, 4.0),
        ] {
            let summary = Summary::of(values).unwrap();
            assert_eq!((summary.q1, summary.median, summary.q3), (q1, median, q3), "{values:?}");
        }
    }

    #[test]
    fn an_empty_sample_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_interval_holds_the_median_and_narrows_with_the_sample() {
        let sample = |count: usize| -> Vec<f64> { (0..count).map(|i| (i * 7919 % 101) as f64).collect() };
        let (few, many) = (Summary::of(&sample(8)).unwrap(), Summary::of(&sample(808)).unwrap());
        for summary in [few, many] {
            assert!(summary.low95 <= summary.median && summary.median <= summary.high95, "{summary:?}");
            assert!(summary.min <= summary.low95 && summary.high95 <= summary.max, "{summary:?}");
        }
        assert!(many.high95 - many.low95 < (few.high95 - few.low95) / 2.0, "{few:?} {many:?}");
    }

    #[test]
    fn one_wild_value_hardly_moves_the_median() {
        let calm = Summary::of(&[1.0, 1.01, 0.99, 1.0, 1.02]).unwrap();
        let wild = Summary::of(&[1.0, 1.01, 0.99, 1.0, 50.0]).unwrap();
        assert_eq!(calm.median, 1.0);
        assert_eq!(wild.median, 1.0);
    }

    #[test]
    fn the_same_sample_gives_the_same_interval() {
        let values = [0.97, 1.01, 0.93, 1.02, 0.99, 0.98];
        assert_eq!(Summary::of(&values), Summary::of(&values));
    }
}
