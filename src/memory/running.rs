//! Queries that are running, and which of them is given up when memory is used up.
//!
//! What a query takes is mostly known and counted (`sql/query_memory.rs`): one that asks for too much
//! fails by itself. But not all is: texts that a function makes, what the batch engine notes for each
//! step of a recursion. When memory is used up, state has nothing left that could go, and the process
//! has grown a lot while a query ran, that query is the likely cause. Of several of which that is true
//! the newest is given up; the others may be saved by it.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, Weak};

/// A query that can be ended from outside.
pub trait GiveUp: Debug + Send + Sync {
    /// Ends it, with an error that says that it has used up memory.
    fn give_up(&self);
}

/// One of several whose growth is at least so much of the greatest is as likely the cause.
const AS_LIKELY_PERCENT: u64 = 90;

#[derive(Debug)]
struct Running {
    query: Weak<dyn GiveUp>,
    /// Of the process when it began.
    memory_bytes: u64,
}

/// The queries of a server that do not end at once, oldest first.
#[derive(Debug, Default)]
pub struct RunningQueries {
    queries: Mutex<Vec<Running>>,
}

impl RunningQueries {
    /// One begins, in a process that has so much memory.
    pub fn add(&self, query: Weak<dyn GiveUp>, memory_bytes: u64) {
        let mut queries = self.lock();
        queries.retain(|running| running.query.strong_count() > 0);
        queries.push(Running { query, memory_bytes });
    }

    /// Gives up the one that the process, which has so much memory now, has probably grown by; none
    /// while which it has grown by less than `growth_min`. Tells whether there was one.
    pub fn give_up_one(&self, memory_bytes: u64, growth_min: u64) -> bool {
        let mut queries = self.lock();
        queries.retain(|running| running.query.strong_count() > 0);
        let growth = |running: &Running| memory_bytes.saturating_sub(running.memory_bytes);
        let greatest = queries.iter().map(growth).max().unwrap_or(0);
        let least = (greatest / 100).saturating_mul(AS_LIKELY_PERCENT).max(growth_min).max(1);
        let Some(at) = queries.iter().rposition(|running| growth(running) >= least) else {
            return false;
        };
        let query = queries.remove(at).query;
        drop(queries);
        if let Some(query) = query.upgrade() {
            query.give_up();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.queries.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Query(AtomicBool);

    impl GiveUp for Query {
        fn give_up(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_newest_of_the_likely_ones_is_given_up() {
        let running = RunningQueries::default();
        let begin = |memory_bytes| {
            let query = Arc::new(Query::default());
            let shared: Arc<dyn GiveUp> = query.clone();
            running.add(Arc::downgrade(&shared), memory_bytes);
            query
        };
        let ended = |query: &Arc<Query>| query.0.load(Ordering::Relaxed);
        assert!(!running.give_up_one(1000, 1));
        let queries = [begin(100), begin(120), begin(250), begin(700)];
        assert!(!running.give_up_one(750, 700));
        assert!(running.give_up_one(1000, 300));
        assert_eq!(queries.each_ref().map(ended), [false, true, false, false]);
        // The others have grown less than nine tenths of the first.
        assert!(running.give_up_one(1000, 300));
        assert_eq!(queries.each_ref().map(ended), [true, true, false, false]);
        assert!(running.give_up_one(1000, 300));
        assert_eq!(queries.each_ref().map(ended), [true, true, true, false]);
        // One that has come to its end by itself is none.
        drop(queries);
        assert!(!running.give_up_one(1000, 300));
    }
}
