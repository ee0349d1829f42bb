//! What was promised about lookups, and what became of it.

use super::growth::Growth;
use super::measure::{Metric, State};
use super::ours::{ONE_BY_ONE, batch_name};
use super::query::Kind;
use super::report::Section;
use crate::report::{Bound, Must, Promise};
use crate::workload::Workload;
use sluice_table::SimdLevel;

/// How DPDK's backends are called; see [`super::backend::Backend::name`].
pub(super) const ACL: &str = "rte_acl";

/// Judges every promise that what was asked for has a part in, batches by the level that a worker on this processor gets. What it needs and was not measured is a promise missed.
pub(super) fn judge(sections: &[Section], growth: Option<&Growth>) -> Vec<Must> {
    let section = |workload: Workload| sections.iter().find(|section| section.workload == workload);
    let mut musts = Vec::new();
    if let Some(s3) = section(Workload::S3) {
        let warm = |of: &str, trace, metric| s3.median(|name: &str| name.starts_with(of), trace, State::Warm, metric);
        let batch = batch_name();
        let batched = warm(&batch, Kind::Bursts, Metric::Burst32);
        let serial = warm(ONE_BY_ONE, Kind::Zipf, Metric::Serial);
        let ratio = |peer: Option<f64>, ours: Option<f64>| Some(peer? / ours?);
        let batched_name = format!("S3 batched ({}), zipf bursts of 32, ns", SimdLevel::best());
        musts.push(must(&batched_name, Bound::AtMost, 6.0, 3.0, batched));
        musts.push(must("S3 serial, zipf, ns", Bound::AtMost, 30.0, 15.0, serial));
        for (way, of, metric) in [("serial", ONE_BY_ONE, Metric::Serial), ("batched", &batch, Metric::Burst32)] {
            let above = warm(of, Kind::V6, metric).zip(warm(of, Kind::Zipf, metric)).map(|(v6, v4)| v6 - v4);
            musts.push(must(&format!("S3 {way}, IPv6 above IPv4, ns"), Bound::AtMost, 15.0, 15.0, above));
        }
        let acl = ratio(warm(ACL, Kind::Bursts, Metric::Burst32), batched);
        musts.push(must("S3 batched: rte_acl / table", Bound::AtLeast, 5.0, 15.0, acl));
        let acl = ratio(warm(ACL, Kind::Zipf, Metric::Serial), serial);
        musts.push(must("S3 serial: rte_acl / table", Bound::AtLeast, 5.0, 12.0, acl));
        musts.push(must("S3 with 10k policies / with 50, batched", Bound::AtMost, 1.3, 1.1, growth.map(|growth| growth.ratio)));
    }
    for (workload, must_mb) in [(Workload::S3, 4.6), (Workload::S4, 3.5)] {
        if let Some(section) = section(workload) {
            let megabytes = section.table.image_bytes as f64 / 1e6;
            musts.push(must(&format!("{} table, MB", workload.name()), Bound::AtMost, must_mb, 2.0, Some(megabytes)));
        }
    }
    musts
}

fn must(name: &str, bound: Bound, must: f64, aim: f64, measured: Option<f64>) -> Must {
    // not a number keeps no promise
    Must::of(name, Promise { bound, must, aim }, measured.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let skipped = must("S3 batched: rte_acl / table", Bound::AtLeast, 5.0, 15.0, None);
        assert!(!skipped.must_met && !skipped.aim_met);
        assert!(judge(&[], None).is_empty());
    }
}
