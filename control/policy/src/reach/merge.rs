//! Regions of addresses that turn out alike share a row.
//!
//! The excepts of one block, for instance, are usually treated alike by everybody. Whether they are is read off the
//! answers, after all pairs were judged, so nothing rests on an understanding of blocks.

use super::answer::Reach;
use super::ends::{End, EndKind, Survey};
use std::collections::HashMap;

/// Blocks that a row's name lists; of more, it names the first and says how many others there are.
const LISTED_MAX: usize = 2;

/// One answer about a region: state, other end, whether the region is the source, and the answer.
type Answer = (usize, u32, bool, usize);

/// Merges the blocks about which all answers are the same, in every state. `reaches` holds one for each state.
pub(super) fn merge_blocks(survey: &mut Survey, reaches: &mut [Reach]) {
    let is_block = |end: u32| matches!(survey.ends[end as usize].kind, EndKind::Blocks(_));
    let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); survey.ends.len()];
    for (state, reach) in reaches.iter().enumerate() {
        for &pair in &reach.pairs {
            let cell = reach.cell_index(pair);
            for (end, other, is_source) in [(pair.from, pair.to, true), (pair.to, pair.from, false)] {
                if is_block(end) {
                    answers[end as usize].push((state, other, is_source, cell));
                }
            }
        }
    }
    let mut first: HashMap<Vec<Answer>, usize> = HashMap::new();
    let mut kept: Vec<Option<u32>> = Vec::with_capacity(survey.ends.len());
    let mut ends: Vec<End> = Vec::with_capacity(survey.ends.len());
    for (end, answers) in std::mem::take(&mut survey.ends).into_iter().zip(answers) {
        if let EndKind::Blocks(nets) = &end.kind {
            let next = ends.len();
            let place = *first.entry(answers).or_insert(next);
            if let Some(End { kind: EndKind::Blocks(merged), .. }) = ends.get_mut(place) {
                merged.extend(nets);
                kept.push(None);
                continue;
            }
        }
        kept.push(Some(u32::try_from(ends.len()).expect("pairs are bounded")));
        ends.push(end);
    }
    for end in &mut ends {
        if let EndKind::Blocks(nets) = &end.kind {
            end.name = match &nets[..] {
                nets if nets.len() <= LISTED_MAX => nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                nets => format!("{} and {} more", nets[0], nets.len() - 1),
            };
        }
    }
    survey.ends = ends;
    let mut was_kept = kept.iter();
    survey.selected.retain(|_| was_kept.next().is_some_and(Option::is_some));
    for reach in reaches {
        reach.renumber(&kept);
    }
}
