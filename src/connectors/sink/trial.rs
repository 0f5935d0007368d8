//! For tests: a target in memory that fails when it is told to, before or after it has done its
//! work, and remembers every batch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::connectors::options::{Connector, OptionSpec, Options};
use crate::connectors::sink::{Batch, Committed, SinkConnector, SinkInput, Target};
use crate::storage::sinks::BatchId;
use crate::types::error::{Error, Result, SqlState};

/// The connector's entry in the list.
pub const CONNECTOR: SinkConnector = SinkConnector {
    connector: Connector {
        name: "trial",
        doc: "For tests.",
        options: &[OptionSpec::required("target", &[], "name", "which one")],
        open_prefixes: &[],
        source: None,
    },
    open,
    forgets: false,
};

/// A batch as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// What [`Trial::moment`] said then.
    pub moment: usize,
    pub id: BatchId,
    /// Rows as text, with their weights.
    pub rows: Vec<(String, i64)>,
}

/// Counts what has happened elsewhere.
type Moment = Box<dyn Fn() -> usize + Send>;

/// What a target has, whatever happens to those who write to it.
#[derive(Default)]
pub struct Trial {
    pub written: Mutex<Vec<Written>>,
    pub moment: Mutex<Option<Moment>>,
    faults: Mutex<Option<(StdRng, f64)>>,
    /// Batches that came once more.
    pub repeated: Mutex<usize>,
    pub failures: Mutex<usize>,
}

static TRIALS: Mutex<BTreeMap<String, Arc<Trial>>> = Mutex::new(BTreeMap::new());

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trial {
    /// One that has these batches, under a name.
    pub fn named(name: &str, written: Vec<Written>) -> Arc<Trial> {
        let trial = Arc::new(Trial { written: Mutex::new(written), ..Trial::default() });
        locked(&TRIALS).insert(name.to_owned(), trial.clone());
        trial
    }

    /// Fails with this probability, before and after it has done its work.
    pub fn fail(&self, seed: u64, probability: f64) {
        *locked(&self.faults) = Some((StdRng::seed_from_u64(seed), probability));
    }

    /// The rows that are there, each with how often, as lines in order.
    pub fn content(&self) -> Vec<String> {
        let mut weights: BTreeMap<String, i64> = BTreeMap::new();
        for written in locked(&self.written).iter() {
            for (row, weight) in &written.rows {
                *weights.entry(row.clone()).or_default() += weight;
            }
        }
        let rows = weights.into_iter().filter(|(_, weight)| *weight != 0);
        rows.flat_map(|(row, weight)| {
            let copies =
                usize::try_from(weight).unwrap_or_else(|_| panic!("{row} is there {weight} times"));
            vec![row; copies]
        })
        .collect()
    }

    fn fault(&self) -> Result<()> {
        if let Some((random, probability)) = locked(&self.faults).as_mut()
            && random.random_bool(*probability)
        {
            *locked(&self.failures) += 1;
            return Err(Error::external(SqlState("08006"), "the target is away"));
        }
        Ok(())
    }
}

struct TrialTarget(Arc<Trial>);

fn open(options: &Options, _input: &SinkInput) -> Result<Box<dyn Target>> {
    let name = options.required("target")?;
    let trial = locked(&TRIALS).get(name).cloned();
    let trial = trial.ok_or_else(|| Error::internal(format!("there is no target {name}")))?;
    Ok(Box::new(TrialTarget(trial)))
}

#[async_trait]
impl Target for TrialTarget {
    async fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    async fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed> {
        self.0.fault()?;
        let mut rows = Vec::new();
        for changes in batch.changes {
            for row in 0..changes.num_rows() {
                let values = changes.rows().columns().iter();
                let values = values.map(|column| array_value_to_string(column, row));
                let values = values.collect::<std::result::Result<Vec<_>, _>>()?;
                rows.push((values.join("|"), changes.weight(row)));
            }
        }
        let count = rows.len() as u64;
        {
            let moment = locked(&self.0.moment).as_ref().map_or(0, |moment| moment());
            let mut written = locked(&self.0.written);
            match written.iter().find(|w| w.id == batch.id) {
                Some(before) => {
                    assert_eq!(before.rows, rows, "a batch is always the same");
                    *locked(&self.0.repeated) += 1;
                }
                None if written.last().is_some_and(|w| w.id > batch.id) => {
                    panic!("batch {:?} comes behind a later one", batch.id);
                }
                None => written.push(Written { moment, id: batch.id, rows }),
            }
        }
        self.0.fault()?;
        Ok(Committed { rows: count, bytes: 0 })
    }

    async fn abort(&mut self) -> Result<()> {
        self.0.fault()
    }
}
