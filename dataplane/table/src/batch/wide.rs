//! A batch of any length, cut into groups of lanes.

use super::{Query, avx2, avx512};
use crate::arrays::Arrays;
use crate::width::{Large, Small};
use sluice_flow::{Addr, Direction, PortIndex, Protocol, Verdict};

/// Fills the lanes that have nothing to do.
const NOTHING: Query = Query {
    remote: Addr([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
    port: PortIndex(0),
    dport: 0,
    protocol: Protocol(0),
    direction: Direction::Ingress,
};

/// So many lookups are under way together.
const TOGETHER: usize = 32;

macro_rules! lookup {
    ($name:ident, $level:ident, $features:literal) => {
        /// See [`super::Table::lookup_batch`]; as many verdicts as queries.
        #[target_feature(enable = $features)]
        pub(super) fn $name<L: Large, S: Small>(arrays: &Arrays<L, S>, queries: &[Query], verdicts: &mut [Verdict]) {
            const LANES: usize = $level::LANES;
            const GROUPS: usize = TOGETHER / LANES;
            let (groups, rest) = queries.as_chunks::<LANES>();
            let (group_verdicts, rest_verdicts) = verdicts.as_chunks_mut::<LANES>();
            let (together, groups) = groups.as_chunks::<GROUPS>();
            let (together_verdicts, group_verdicts) = group_verdicts.as_chunks_mut::<GROUPS>();
            for (queries, verdicts) in together.iter().zip(together_verdicts) {
                $level::groups(arrays, queries, verdicts);
            }
            for (queries, verdicts) in groups.iter().zip(group_verdicts) {
                $level::groups(arrays, std::array::from_ref(queries), std::array::from_mut(verdicts));
            }
            if !rest.is_empty() {
                let (mut filled, mut answers) = ([[NOTHING; LANES]], [[Verdict::Deny; LANES]]);
                filled[0][..rest.len()].copy_from_slice(rest);
                $level::groups(arrays, &filled, &mut answers);
                rest_verdicts.copy_from_slice(&answers[0][..rest.len()]);
            }
        }
    };
}

lookup!(lookup_avx2, avx2, "avx2");
lookup!(lookup_avx512, avx512, "avx512f,avx512bw,avx512dq,avx512vl");

impl<L: Large, S: Small> Arrays<L, S> {
    /// Puts the classes of the lanes `v6`, whose addresses are IPv6, in their places.
    pub(super) fn put_v6_classes(&self, v6: u32, queries: &[Query], classes: &mut [u32]) {
        let mut left = v6;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            classes[lane] = self.addresses.v6_class(queries[lane].remote.to_u128()) as u32;
            left &= left - 1;
        }
    }
}
