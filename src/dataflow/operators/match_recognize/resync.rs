//! A change in the middle of a long partition: matched from the anchor before it to an anchor
//! behind it where everything is as it was, not to the partition's end.
//!
//! An anchor is a place before which everything is decided, seen when the matcher had come so far.
//! 1. From the last sound anchor the partition is matched as it is now. Where the matcher comes to
//!    an old anchor behind the changes, and has decided just as much, with as many matches, the rest
//!    is what it was: what the matcher does from there depends on the rows to come only.
//! 2. The same stretch is matched as it was, for the rows that are taken back.
//! 3. Rows that conditions look back at from the anchor must lie behind the changes, too.
//!
//! The stretch is read up to a few anchors behind the changes, then to more of them, and in the end
//! to the partition's end.

use crate::dataflow::operators::match_recognize::{Anchor, MatchRecognize, Matched, Part, Touched};
use crate::pattern::found::Found;
use crate::pattern::matcher::Matcher;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::state::ordered_table::RowChange;
use crate::types::error::Result;

/// Anchors behind the changes that are tried first; then four times as many, and so on.
const CANDIDATES: usize = 2;

/// What a partition gave and gives, up to where nothing has changed.
pub(super) struct Resynced {
    pub before: Matched,
    pub now: Matched,
    /// The anchors from the first changed one on.
    pub anchors: Vec<Anchor>,
}

/// Where the matcher has come to an old anchor.
struct Meeting {
    /// Which of the old anchors.
    place: usize,
    /// Behind the last row that was looked at, in the part.
    seen: usize,
}

impl MatchRecognize {
    /// Matches a changed partition, the table being as it is now; `later` are the anchors that it
    /// had behind the changes.
    pub(super) fn resync(
        &self,
        touched: &Touched,
        changes: &[RowChange],
        later: &[Anchor],
        scratch: &mut Scratch,
    ) -> Result<Resynced> {
        let changes = &changes[touched.changes.clone()];
        let mut tried = CANDIDATES;
        while tried <= later.len() {
            let candidates = &later[..tried];
            if let Some(found) = self.resync_before(touched, changes, candidates, scratch)? {
                let (mut resynced, meeting, seen) = found;
                // Decisions of now have looked so far, too.
                resynced.anchors.extend(later[meeting..].iter().cloned().map(|mut anchor| {
                    if *anchor.seen < *seen {
                        anchor.seen.clone_from(&seen);
                    }
                    anchor
                }));
                return Ok(resynced);
            }
            tried *= 4;
        }
        let alone = std::slice::from_ref(touched);
        let mut now = self.compute(alone, scratch, 1)?;
        let part = self.part_with(touched, Some(changes), None)?;
        let mut before = Matched::default();
        self.compute_parts(&[(part, touched)], scratch, -1, &mut before)?;
        let anchors = now.anchors.pop().unwrap_or_default();
        Ok(Resynced { before, now, anchors })
    }

    /// The same as far as the last of some anchors; `None`: the two have not met until there.
    fn resync_before(
        &self,
        touched: &Touched,
        changes: &[RowChange],
        candidates: &[Anchor],
        scratch: &mut Scratch,
    ) -> Result<Option<(Resynced, usize, crate::state::ordered_table::RowKey)>> {
        let part = self.part_with(touched, None, candidates.last())?;
        let rows = self.rows_of_part(&part, touched)?;
        let mut found = Found::default();
        let met =
            self.run_to_meeting(&rows, &part, touched, changes, candidates, scratch, &mut found);
        let Some((meeting, anchors)) = met? else { return Ok(None) };
        let seen = part.keys[meeting.seen].into();
        let mut now = Matched::default();
        self.show_part(&rows, found, 1, &mut now)?;

        let anchor = &candidates[meeting.place];
        let part = self.part_with(touched, Some(changes), Some(anchor))?;
        let rows = self.rows_of_part(&part, touched)?;
        let mut found = Found::default();
        if !self.run_to(&rows, &part, touched, anchor, scratch, &mut found)? {
            return Ok(None);
        }
        let mut before = Matched::default();
        self.show_part(&rows, found, -1, &mut before)?;
        Ok(Some((Resynced { before, now, anchors }, meeting.place, seen)))
    }

    /// The rows of one part, which may end before its partition.
    fn rows_of_part<'a>(&'a self, part: &Part<'_>, touched: &Touched) -> Result<Rows<'a>> {
        let batch = self.table.decode(part.keys.iter().copied())?;
        let first_row = touched.first_number() - part.begin as u64;
        let place = PartitionRows::new(0, part.keys.len(), first_row, part.complete);
        Rows::new(self.kernels.spec(), batch, vec![place])
    }

    /// Where an anchor's row stands in a part.
    fn place_of(part: &Part<'_>, anchor: &Anchor) -> Option<usize> {
        let first = part.keys.partition_point(|key| *key < &*anchor.row);
        let place = first + anchor.copy;
        part.keys.get(place).filter(|key| **key == &*anchor.row).map(|_| place)
    }

    /// Lets the matcher go through a part until it meets an old anchor; gives that with the anchors
    /// that it sets on the way.
    #[expect(clippy::too_many_arguments, reason = "a step of one computation")]
    fn run_to_meeting(
        &self,
        rows: &Rows<'_>,
        part: &Part<'_>,
        touched: &Touched,
        changes: &[RowChange],
        candidates: &[Anchor],
        scratch: &mut Scratch,
        found: &mut Found,
    ) -> Result<Option<(Meeting, Vec<Anchor>)>> {
        let spec = self.kernels.spec();
        let first_row = rows.partitions[0].first_row;
        let last_change = changes.last().map_or(&[][..], |change| &change.key);
        let back = usize::try_from(spec.rows_back()).unwrap_or(usize::MAX);
        let ahead = spec.rows_ahead();
        let mut matcher = touched.matcher();
        let mut anchors: Vec<Anchor> = Vec::new();
        for (place, candidate) in candidates.iter().enumerate() {
            let Some(at) = Self::place_of(part, candidate) else { continue };
            let behind = at.checked_sub(back).is_some_and(|from| part.keys[from] > last_change);
            let row = first_row + at as u64;
            let target = row + candidate.ahead_rows;
            if !behind || target + ahead >= rows.partitions[0].end_row() {
                continue;
            }
            self.set_anchors(
                rows,
                0,
                part,
                touched,
                &mut matcher,
                target,
                scratch,
                found,
                &mut anchors,
            )?;
            let covered = matcher.matched_until().saturating_sub(matcher.undecided_row());
            // Anchors behind have numbers of matches, too; they count if anybody asks for them.
            let numbered = spec.uses_match_number();
            let same = matcher.next_row() == target
                && matcher.undecided_row() == row
                && covered == candidate.covered
                && matcher.passed_rows().next().is_none()
                && (matcher.matches() == candidate.matches || !numbered);
            if same {
                // Set already, if the last stretch ended there.
                anchors
                    .retain(|anchor| (&anchor.row, anchor.copy) < (&candidate.row, candidate.copy));
                let seen = (target + ahead - first_row) as usize;
                return Ok(Some((Meeting { place, seen }, anchors)));
            }
        }
        Ok(None)
    }

    /// Lets the matcher go through a part to where an anchor was set; whether it is one again.
    fn run_to(
        &self,
        rows: &Rows<'_>,
        part: &Part<'_>,
        touched: &Touched,
        anchor: &Anchor,
        scratch: &mut Scratch,
        found: &mut Found,
    ) -> Result<bool> {
        let Some(at) = Self::place_of(part, anchor) else { return Ok(false) };
        let row = rows.partitions[0].first_row + at as u64;
        let target = row + anchor.ahead_rows;
        let mut matcher: Matcher = touched.matcher();
        if matcher.next_row() > target {
            return Ok(false);
        }
        let kernel = self.kernels.of_partition(&rows.batch, &rows.partitions[0])?;
        matcher.advance(&kernel, scratch, rows, 0, target, found)?;
        Ok(matcher.next_row() == target && matcher.undecided_row() == row)
    }
}
