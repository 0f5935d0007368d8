//! Watermarks of sources and tables: which split is waited for, and what is announced next.
//!
//! A source's watermark is the least of its splits' watermarks, over the splits that are not idle
//! and have not ended; it never goes back, and there is none before every worker has said which
//! splits it reads. A split is idle when it has given no row for the source's `idle_timeout`. When
//! all are idle nothing holds the greatest of them back. A source whose splits have all ended has
//! the greatest watermark there is, which closes every window.
//!
//! A table's watermark is moved by the rows that are inserted.
//!
//! A pure state machine: told what workers report and what time it is, asked what to announce.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::connectors::SplitId;
use crate::coordinator::epoch::Moment;
use crate::dataflow::worker::TimeNews;
use crate::types::id::ObjectId;
use crate::types::time::Watermark;

/// What is known of the event time of all sources and tables that have a watermark.
#[derive(Debug)]
pub struct Watermarks {
    workers: usize,
    objects: BTreeMap<ObjectId, ObjectTime>,
}

#[derive(Debug)]
struct ObjectTime {
    idle_timeout: Option<Duration>,
    /// Workers that have said which splits they read.
    listed: Vec<bool>,
    /// Workers whose share has ended.
    finished: Vec<bool>,
    splits: BTreeMap<SplitId, SplitState>,
    /// Set directly: a table's.
    own: Option<Watermark>,
    announced: Option<Watermark>,
    /// News of a reading from before this many drops are of an older reading.
    drops: u64,
}

#[derive(Debug)]
struct SplitState {
    watermark: Option<Watermark>,
    /// When it gave rows last, or came up.
    active_at: Moment,
    ended: bool,
}

impl ObjectTime {
    fn new(workers: usize, idle_timeout: Option<Duration>) -> ObjectTime {
        ObjectTime {
            idle_timeout,
            listed: vec![false; workers],
            finished: vec![false; workers],
            splits: BTreeMap::new(),
            own: None,
            announced: None,
            drops: 0,
        }
    }

    fn idle_at(&self, split: &SplitState) -> Option<Moment> {
        self.idle_timeout.map(|timeout| split.active_at + timeout)
    }

    /// What the watermark is now.
    fn watermark(&self, now: Moment) -> Option<Watermark> {
        if self.own.is_some() {
            return self.own;
        }
        if self.finished.iter().all(|finished| *finished) {
            return Some(Watermark::END);
        }
        if !self.listed.iter().all(|listed| *listed) {
            return None;
        }
        let going_on = || self.splits.values().filter(|split| !split.ended);
        let idle = |split: &SplitState| self.idle_at(split).is_some_and(|at| at <= now);
        if going_on().all(idle) {
            return going_on().filter_map(|split| split.watermark).max();
        }
        // A split without a watermark holds the source back.
        going_on().filter(|split| !idle(split)).map(|split| split.watermark).min().flatten()
    }

    /// What is to be announced, if that is more than was.
    fn due(&self, now: Moment) -> Option<Watermark> {
        self.watermark(now).filter(|watermark| Some(*watermark) > self.announced)
    }

    /// When a split that is waited for becomes idle.
    fn wake(&self, now: Moment) -> Option<Moment> {
        let open = self.splits.values().filter(|split| !split.ended);
        open.filter_map(|split| self.idle_at(split)).filter(|at| *at > now).min()
    }
}

impl Watermarks {
    pub fn new(workers: usize) -> Watermarks {
        Watermarks { workers, objects: BTreeMap::new() }
    }

    /// A source or table with a watermark. `idle_timeout` is a source's.
    pub fn add(&mut self, object: ObjectId, idle_timeout: Option<Duration>) {
        self.objects.insert(object, ObjectTime::new(self.workers, idle_timeout));
    }

    /// What had been announced before the start.
    pub fn resume_at(&mut self, object: ObjectId, watermark: Watermark) {
        if let Some(time) = self.objects.get_mut(&object) {
            time.announced = Some(watermark);
        }
    }

    pub fn remove(&mut self, object: ObjectId) {
        self.objects.remove(&object);
    }

    /// Nobody reads the source any more; the next who does begins anew. `drops` is how many
    /// commands to drop something have been sent to the workers.
    pub fn begin_anew(&mut self, object: ObjectId, drops: u64) {
        if let Some(time) = self.objects.get_mut(&object) {
            *time = ObjectTime { drops, ..ObjectTime::new(self.workers, time.idle_timeout) };
        }
    }

    /// A worker's news; `drops` is how many drops it had seen.
    pub fn news(
        &mut self,
        object: ObjectId,
        worker: usize,
        drops: u64,
        news: TimeNews,
        now: Moment,
    ) {
        let Some(time) = self.objects.get_mut(&object) else { return };
        if drops < time.drops {
            return;
        }
        match news {
            TimeNews::Splits(splits) => {
                time.listed[worker] = true;
                for (split, watermark) in splits {
                    let fresh = SplitState { watermark: None, active_at: now, ended: false };
                    let split = time.splits.entry(split).or_insert(fresh);
                    split.watermark = split.watermark.max(watermark);
                }
            }
            TimeNews::Rows { split, watermark } => {
                if let Some(split) = time.splits.get_mut(&split) {
                    split.watermark = split.watermark.max(watermark);
                    split.active_at = now;
                }
            }
            TimeNews::Ended(split) => {
                if let Some(split) = time.splits.get_mut(&split) {
                    split.ended = true;
                }
            }
            TimeNews::Finished => time.finished[worker] = true,
        }
    }

    /// A table's rows have moved its watermark.
    pub fn advance(&mut self, object: ObjectId, watermark: Watermark) {
        if let Some(time) = self.objects.get_mut(&object) {
            time.own = time.own.max(Some(watermark));
        }
    }

    /// What holds for the rows of an object that come now, whether announced or not: a table's.
    pub fn current(&self, object: ObjectId) -> Option<Watermark> {
        let time = self.objects.get(&object)?;
        time.own.max(time.announced)
    }

    /// What was announced last.
    pub fn announced(&self, object: ObjectId) -> Option<Watermark> {
        self.objects.get(&object)?.announced
    }

    /// Whether some watermark is to be announced with the end of the open epoch.
    pub fn moved(&self, now: Moment) -> bool {
        self.objects.values().any(|time| time.due(now).is_some())
    }

    /// What is announced with the end of the epoch that closes.
    pub fn announce(&mut self, now: Moment) -> Vec<(ObjectId, Watermark)> {
        let mut moved = Vec::new();
        for (object, time) in &mut self.objects {
            if let Some(watermark) = time.due(now) {
                time.announced = Some(watermark);
                moved.push((*object, watermark));
            }
        }
        moved
    }

    /// Whether a source that has ended has said so here, too: its last watermark is due.
    pub fn finished(&self, object: ObjectId) -> bool {
        self.objects.get(&object).is_none_or(|time| time.finished.iter().all(|f| *f))
    }

    /// When to look again without news: a split becomes idle.
    pub fn wake(&self, now: Moment) -> Option<Moment> {
        self.objects.values().filter_map(|time| time.wake(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::time::EventTime;

    const SOURCE: ObjectId = ObjectId(7);
    const SECOND: Duration = Duration::from_secs(1);

    fn split(name: &str) -> SplitId {
        SplitId(name.to_owned())
    }

    fn at(us: i64) -> Watermark {
        Watermark(EventTime(us))
    }

    struct Case(Watermarks);

    impl Case {
        fn new(workers: usize, idle_timeout: Option<Duration>) -> Case {
            let mut marks = Watermarks::new(workers);
            marks.add(SOURCE, idle_timeout);
            Case(marks)
        }

        fn splits(&mut self, worker: usize, names: &[&str], now: Moment) {
            let splits = names.iter().map(|name| (split(name), None)).collect();
            self.0.news(SOURCE, worker, 0, TimeNews::Splits(splits), now);
        }

        fn rows(&mut self, name: &str, us: i64, now: Moment) {
            let news = TimeNews::Rows { split: split(name), watermark: Some(at(us)) };
            self.0.news(SOURCE, 0, 0, news, now);
        }

        fn announce(&mut self, now: Moment) -> Option<i64> {
            assert_eq!(self.0.moved(now), self.0.wants(now));
            self.0.announce(now).first().map(|(_, watermark)| watermark.0.0)
        }
    }

    impl Watermarks {
        fn wants(&self, now: Moment) -> bool {
            self.objects[&SOURCE].due(now).is_some()
        }
    }

    #[test]
    fn the_least_split_counts_once_all_are_known() {
        let mut case = Case::new(2, None);
        case.splits(0, &["a"], SECOND);
        case.rows("a", 10, SECOND);
        assert_eq!(case.announce(SECOND), None);
        case.splits(1, &["b"], SECOND);
        assert_eq!(case.announce(SECOND), None);
        case.rows("b", 4, SECOND);
        assert_eq!(case.announce(SECOND), Some(4));
        assert_eq!(case.announce(SECOND), None);
        case.rows("b", 12, SECOND);
        assert_eq!(case.announce(SECOND), Some(10));
        // A split that comes later holds back what comes, and takes nothing back.
        case.splits(1, &["b", "c"], SECOND);
        case.rows("a", 20, SECOND);
        case.rows("c", 5, SECOND);
        assert_eq!(case.announce(SECOND), None);
        // One that has ended is not waited for.
        case.0.news(SOURCE, 1, 0, TimeNews::Ended(split("c")), SECOND);
        assert_eq!(case.announce(SECOND), Some(12));
        case.0.news(SOURCE, 0, 0, TimeNews::Finished, SECOND);
        assert_eq!(case.announce(SECOND), None);
        case.0.news(SOURCE, 1, 0, TimeNews::Finished, SECOND);
        assert_eq!(case.announce(SECOND), Some(i64::MAX));
    }

    #[test]
    fn a_silent_split_is_not_waited_for_after_its_timeout() {
        let mut case = Case::new(1, Some(5 * SECOND));
        case.splits(0, &["a", "b"], SECOND);
        case.rows("a", 10, 2 * SECOND);
        assert_eq!(case.announce(5 * SECOND), None);
        assert_eq!(case.0.wake(5 * SECOND), Some(6 * SECOND));
        assert_eq!(case.announce(6 * SECOND), Some(10));
        // It comes back, behind: the watermark stands.
        case.rows("b", 3, 8 * SECOND);
        case.rows("a", 30, 8 * SECOND);
        assert_eq!(case.announce(8 * SECOND), None);
        case.rows("b", 15, 9 * SECOND);
        assert_eq!(case.announce(9 * SECOND), Some(15));
        // When all are silent, the greatest counts.
        assert_eq!(case.announce(20 * SECOND), Some(30));
        assert_eq!(case.0.wake(20 * SECOND), None);
    }

    #[test]
    fn news_of_an_older_reading_is_passed_over() {
        let mut case = Case::new(1, None);
        case.splits(0, &["a"], SECOND);
        case.rows("a", 10, SECOND);
        assert_eq!(case.announce(SECOND), Some(10));
        case.0.begin_anew(SOURCE, 3);
        case.rows("a", 20, SECOND);
        assert_eq!(case.announce(SECOND), None);
        let splits = TimeNews::Splits(vec![(split("a"), None)]);
        case.0.news(SOURCE, 0, 3, splits, SECOND);
        let rows = TimeNews::Rows { split: split("a"), watermark: Some(at(1)) };
        case.0.news(SOURCE, 0, 3, rows, SECOND);
        assert_eq!(case.announce(SECOND), Some(1));
    }

    #[test]
    fn a_split_that_was_read_before_a_restart_keeps_its_watermark() {
        let mut case = Case::new(1, None);
        case.0.resume_at(SOURCE, at(5));
        let splits = vec![(split("a"), Some(at(40))), (split("b"), Some(at(5)))];
        case.0.news(SOURCE, 0, 0, TimeNews::Splits(splits), SECOND);
        assert_eq!(case.announce(SECOND), None);
        // The other has given all its rows, and holds nothing back.
        case.rows("b", 30, SECOND);
        assert_eq!(case.announce(SECOND), Some(30));
    }

    #[test]
    fn rows_move_a_tables_watermark() {
        let mut case = Case::new(2, None);
        case.0.advance(SOURCE, at(5));
        case.0.advance(SOURCE, at(4));
        assert_eq!(case.0.current(SOURCE), Some(at(5)));
        assert_eq!(case.announce(SECOND), Some(5));
        assert_eq!(case.announce(SECOND), None);
    }
}
