//! When to look through all rows for those that time has passed.
//!
//! A walk over a table costs as much as the table is long, so it must have been earned: by as many
//! changes, or by the watermark's steps, each of which is worth some thousand rows. So small tables
//! hold nothing that is old, and of a large one at most about half is.

/// Rows that a step of the watermark pays for: some 20 µs, less than the fixed cost of an epoch.
const ROWS_PER_STEP: usize = 2048;

/// What has been earned since the last walk.
#[derive(Debug, Default)]
pub struct Walks {
    earned: usize,
    /// Without that nothing can have become old.
    watermark_moved: bool,
}

impl Walks {
    /// So many rows have changed.
    pub fn changed(&mut self, rows: usize) {
        self.earned = self.earned.saturating_add(rows);
    }

    /// The watermark has moved.
    pub fn moved(&mut self) {
        self.watermark_moved = true;
        self.changed(ROWS_PER_STEP);
    }

    /// Whether so many rows are to be walked over now, which spends what was earned.
    pub fn due(&mut self, rows: usize) -> bool {
        let due = self.watermark_moved && rows > 0 && self.earned >= rows;
        if due {
            *self = Walks::default();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_must_have_been_earned() {
        let mut walks = Walks::default();
        walks.changed(1_000_000);
        // Nothing can be old.
        assert!(!walks.due(10));
        walks.moved();
        assert!(walks.due(1_000_000));
        assert!(!walks.due(1));
        // Small tables are looked through with each step, larger ones now and then.
        walks.moved();
        assert!(walks.due(ROWS_PER_STEP));
        walks.moved();
        assert!(!walks.due(2 * ROWS_PER_STEP));
        walks.moved();
        assert!(walks.due(2 * ROWS_PER_STEP));
        walks.moved();
        assert!(!walks.due(0));
    }
}
