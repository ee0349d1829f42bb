//! The workloads by name.

use super::{cidr_heavy, dense_node, kube_burner, load_test, namespaces, synthetic};
use crate::environment::memory_available;
use crate::random::SplitMix;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use sluice_policy::Snapshot;

/// One of the workloads that all benches share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Workload {
    /// 1000 pods, 50 policies.
    S1,
    /// 10k pods, 1000 policies.
    S2,
    /// 100k pods, 10k policies with blocks, excepts, port ranges and named ports.
    S3,
    /// The pods of S3 with 50 policies, all of them about pods of this node.
    #[value(name = "s3-few")]
    #[serde(rename = "s3-few")]
    S3Few,
    /// 10k pods in five namespaces, about 260 policies on each pod.
    S4,
    /// 1M pods, 100k policies.
    X,
    /// Kubernetes' load test: 150k pods on 5000 nodes.
    G1,
    /// 25 000 namespaces of four pods.
    G2,
    /// 100 namespaces of 1000 pods.
    G3,
    /// One namespace, 10k policies that all select all its pods.
    G4,
    /// 1000 namespaces whose policies look at other namespaces.
    G5,
    /// kube-burner's policies.
    G6,
    /// 110 pods on this node with 100 policies on each.
    G7,
    /// The same with 250 pods.
    #[value(name = "g7-250")]
    #[serde(rename = "g7-250")]
    G7Full,
    /// 1000 policies of blocks with excepts.
    G8,
}

/// What a pod needs while its cluster is made, compiled and questioned, rounded up.
const BYTES_PER_POD: u64 = 8 << 10;
/// What a policy needs.
const BYTES_PER_POLICY: u64 = 16 << 10;

impl Workload {
    /// As on the command line, in capitals.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
            Self::S3Few => "S3-few",
            Self::S4 => "S4",
            Self::X => "X",
            Self::G1 => "G1",
            Self::G2 => "G2",
            Self::G3 => "G3",
            Self::G4 => "G4",
            Self::G5 => "G5",
            Self::G6 => "G6",
            Self::G7 => "G7",
            Self::G7Full => "G7-250",
            Self::G8 => "G8",
        }
    }

    /// Pods and policies.
    pub(crate) fn size(self) -> (u64, u64) {
        match self {
            Self::S1 => (1000, 50),
            Self::S2 => (10_000, 1000),
            Self::S3 => (100_000, 10_000),
            Self::S3Few => (100_000, 50),
            Self::S4 => (10_000, 6000),
            Self::X => (1_000_000, 100_000),
            Self::G1 => (150_000, 1700),
            Self::G2 => (100_000, 75_000),
            Self::G3 => (100_000, 10_100),
            Self::G4 => (10_000, 10_000),
            Self::G5 => (100_000, 10_000),
            Self::G6 => (11_000, 12_100),
            Self::G7 => (150_000, 11_001),
            Self::G7Full => (150_000, 25_001),
            Self::G8 => (1000, 1000),
        }
    }

    /// Whether peers that write every rule out are tried: elsewhere they would take minutes.
    pub(crate) fn has_peers(self) -> bool {
        matches!(self, Self::S1 | Self::S2 | Self::S3)
    }

    /// Whether a proof of all its verdicts takes minutes and gigabytes: hundreds of policies on each pod make many cells of
    /// ports, and every unit is compared in each of them.
    pub(crate) fn has_long_proof(self) -> bool {
        matches!(self, Self::S4 | Self::X | Self::G4 | Self::G7 | Self::G7Full)
    }

    /// Memory that making, compiling and questioning it takes at most.
    pub(crate) fn bytes_needed(self) -> u64 {
        let (pods, policies) = self.size();
        pods * BYTES_PER_POD + policies * BYTES_PER_POLICY
    }

    /// Makes the cluster: one seed, one cluster, on every machine.
    ///
    /// # Errors
    ///
    /// This machine has too little memory for it: said before anything is made.
    pub(crate) fn generate(self, seed: u64) -> Result<Snapshot> {
        let (needed, available) = (self.bytes_needed(), memory_available()?);
        let (needed_mb, available_mb) = (needed >> 20, available >> 20);
        ensure!(needed <= available, "{} needs about {needed_mb} MB of memory, and {available_mb} MB are available", self.name());
        let random = &mut SplitMix::new(seed);
        Ok(match self {
            Self::S1 => synthetic::generate(synthetic::S1, random),
            Self::S2 => synthetic::generate(synthetic::S2, random),
            Self::S3 => synthetic::generate(synthetic::S3, random),
            Self::S3Few => synthetic::generate_few(synthetic::S3, 50, random),
            Self::S4 => synthetic::generate(synthetic::S4, random),
            Self::X => synthetic::generate(synthetic::X, random),
            Self::G1 => load_test::generate(random),
            Self::G2 => namespaces::small(random),
            Self::G3 => namespaces::large(random),
            Self::G4 => namespaces::single(random),
            Self::G5 => namespaces::crossing(random),
            Self::G6 => kube_burner::generate(random),
            Self::G7 => dense_node::generate(110, random),
            Self::G7Full => dense_node::generate(250, random),
            Self::G8 => cidr_heavy::generate(random),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Census;
    use clap::ValueEnum;

    #[test]
    fn one_seed_gives_one_cluster() {
        for workload in [Workload::S1, Workload::G8] {
            assert_eq!(workload.generate(3).unwrap(), workload.generate(3).unwrap(), "{workload:?}");
            assert_ne!(workload.generate(3).unwrap().policies, workload.generate(4).unwrap().policies, "{workload:?}");
        }
    }

    #[test]
    fn a_workload_has_what_it_says() {
        for workload in [Workload::S1, Workload::S2, Workload::S4, Workload::G6, Workload::G8] {
            let census = Census::of(&workload.generate(1).unwrap());
            assert_eq!((census.pods as u64, census.policies as u64), workload.size(), "{workload:?}");
            assert!((100..=110).contains(&census.endpoints), "{census:?}");
        }
    }

    /// Of those that are soon made; the bench prints what each of the others has.
    #[test]
    fn workloads_of_up_to_12_000_pods_have_what_they_say() {
        for workload in Workload::value_variants().iter().filter(|workload| workload.size().0 <= 12_000) {
            let census = Census::of(&workload.generate(1).unwrap());
            let (pods, policies) = workload.size();
            assert_eq!(census.pods as u64, pods, "{workload:?}");
            // how many namespaces have a pod here is drawn
            let spread = if matches!(workload, Workload::G7 | Workload::G7Full) { policies / 5 } else { 0 };
            assert!((policies - spread..=policies).contains(&(census.policies as u64)), "{workload:?}: {census:?}");
        }
    }
}
