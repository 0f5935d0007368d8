//! Statements about savepoints and checkpoints: CREATE SAVEPOINT, DROP SAVEPOINT, SHOW SAVEPOINTS,
//! SHOW CHECKPOINTS; BACKUP, EXPORT SAVEPOINT, IMPORT SAVEPOINT.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::StreamExt;

use crate::config::{Storage, parse_storage};
use crate::coordinator::command::{Connection, Notice, Response};
use crate::coordinator::execute::done;
use crate::coordinator::running::Running;
use crate::coordinator::show::retain_like;
use crate::sql::statement::{CreateSavepoint, DropObjects, ShowList, Transfer, TransferWhat};
use crate::storage::store::Store;
use crate::storage::transfer::{self, Copied};
use crate::storage::{remote, savepoint};
use crate::types::error::{Error, Result, SqlState};

/// Whether a SHOW lists what this file knows.
pub(super) fn lists(what: ShowList) -> bool {
    matches!(what, ShowList::Savepoints | ShowList::Checkpoints)
}

/// The columns of such a SHOW.
pub(super) fn schema(what: ShowList) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns: Vec<(&str, DataType)> = match what {
        ShowList::Savepoints => vec![
            ("name", DataType::Utf8),
            ("created_at", time),
            ("epoch", DataType::Int64),
            ("views", DataType::Int64),
            ("files", DataType::Int64),
        ],
        _ => vec![
            ("checkpoint", DataType::Int64),
            ("epoch", DataType::Int64),
            ("time", time),
            ("duration_ms", DataType::Float64),
            ("stall_ms", DataType::Float64),
            ("cpu_ms", DataType::Float64),
            ("views", DataType::Int64),
            ("files", DataType::Int64),
            ("bytes", DataType::Int64),
        ],
    };
    let field = |(name, data_type)| Field::new(name, data_type, false);
    Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|v| i64::try_from(v).unwrap_or(i64::MAX))))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// The storage that a statement names.
fn open_other(url: &str) -> Result<Store> {
    match parse_storage(url)? {
        Storage::Directory(directory) => Store::directory(&directory),
        Storage::Remote(url) => remote::open(&url),
        Storage::Memory | Storage::DataDir => {
            Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("{url:?} keeps nothing"))
                .hint("Use file:///path or s3://bucket/prefix."))
        }
    }
}

/// The first and the longest pause before it is looked again whether a sink has been filled.
const FILLED_LOOK_MIN: Duration = Duration::from_millis(2);
const FILLED_LOOK_MAX: Duration = Duration::from_secs(1);

impl Connection {
    /// CHECKPOINT: when it answers, targets of sinks have what came before it, also of sinks that
    /// were still being filled.
    pub(super) async fn run_checkpoint(&self, running: &Running) -> Result<()> {
        let coordinator = &self.database.coordinator;
        let mut pause = FILLED_LOOK_MIN;
        loop {
            running.wait(coordinator.checkpoint()).await?;
            if running.wait(coordinator.sinks_written()).await? {
                return Ok(());
            }
            let pausing = async {
                tokio::time::sleep(pause).await;
                Ok(())
            };
            running.wait(pausing).await?;
            pause = (pause * 2).min(FILLED_LOOK_MAX);
        }
    }

    pub(super) async fn create_savepoint(
        &self,
        running: &Running,
        create: &CreateSavepoint,
    ) -> Result<Response> {
        let coordinator = &self.database.coordinator;
        let now_us = self.database.now().timestamp_micros();
        match running.wait(coordinator.create_savepoint(&create.name, now_us)).await {
            Err(error)
                if create.if_not_exists && error.sqlstate() == SqlState::DUPLICATE_OBJECT =>
            {
                let message = format!("{}, skipping", error.message());
                self.session.notify(Notice::note("42710", message));
            }
            Err(error) => return Err(error.position(create.position)),
            Ok(()) => {}
        }
        Ok(done("CREATE SAVEPOINT"))
    }

    pub(super) async fn drop_savepoints(&self, drop: &DropObjects) -> Result<()> {
        for name in &drop.names {
            match self.database.coordinator.drop_savepoint(&name.name).await {
                Err(error) if error.sqlstate() == SqlState::UNDEFINED_OBJECT => {
                    if !drop.if_exists {
                        return Err(error.position(name.position));
                    }
                    self.missing(true, error.sqlstate(), error.message().to_owned())?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// BACKUP, EXPORT SAVEPOINT, IMPORT SAVEPOINT.
    pub(super) async fn run_transfer(
        &self,
        running: &Running,
        transfer: &Transfer,
    ) -> Result<Response> {
        let Transfer { what, url, position } = transfer;
        let other = open_other(url).map_err(|error| error.position(*position))?;
        let coordinator = &self.database.coordinator;
        let copied = match what {
            TransferWhat::Backup => {
                let held = running.wait(coordinator.hold(None)).await?;
                running.wait(transfer::copy(&held.source, &other)).await?
            }
            TransferWhat::Export(name) => {
                let held = coordinator.hold(Some(name));
                let held = running.wait(held).await.map_err(|error| error.position(*position))?;
                let empty = running.wait(transfer::is_empty(&other)).await?;
                if !empty {
                    return Err(Error::external(
                        SqlState::OBJECT_IN_USE,
                        format!("{url} is not empty"),
                    )
                    .hint("Export to a new directory or prefix."));
                }
                running.wait(transfer::copy(&held.source, &other)).await?
            }
            TransferWhat::Import(name) => {
                // So that nothing of it is deleted as nobody's before it is named.
                let held = running.wait(coordinator.hold(None)).await?;
                if held.source.savepoints.contains_key(name) {
                    return Err(savepoint::exists(name).position(*position));
                }
                let import = transfer::import(&other, &held.source.store, name);
                let (savepoint, copied) = running.wait(import).await?;
                running.wait(coordinator.add_savepoint(savepoint)).await?;
                copied
            }
        };
        let Copied { files, bytes, present } = copied;
        let verb = if matches!(what, TransferWhat::Import(_)) { "from" } else { "to" };
        let message =
            format!("{files} files of {bytes} bytes copied {verb} {url}, {present} there");
        self.session.notify(Notice::note("00000", message));
        Ok(done(match what {
            TransferWhat::Backup => "BACKUP",
            TransferWhat::Export(_) => "EXPORT SAVEPOINT",
            TransferWhat::Import(_) => "IMPORT SAVEPOINT",
        }))
    }

    pub(super) async fn list_checkpoints(
        &self,
        running: &Running,
        what: ShowList,
        like: Option<&str>,
    ) -> Result<Response> {
        let coordinator = &self.database.coordinator;
        let columns = if what == ShowList::Savepoints {
            let mut all = running.wait(coordinator.savepoints()).await?;
            if let Some(pattern) = like {
                let mut names = all.iter().map(|s| vec![Some(s.name.clone())]).collect();
                retain_like(&mut names, pattern)?;
                all.retain(|s| names.iter().any(|name| name[0].as_ref() == Some(&s.name)));
            }
            let names = StringArray::from_iter_values(all.iter().map(|s| &s.name));
            vec![
                Arc::new(names) as ArrayRef,
                times(all.iter().map(|s| s.created_at_us)),
                numbers(all.iter().map(|s| s.manifest.epoch)),
                numbers(all.iter().map(|s| s.manifest.views.len() as u64)),
                numbers(all.iter().map(|s| s.manifest.files().len() as u64)),
            ]
        } else {
            let all = running.wait(coordinator.checkpoints()).await?;
            let ms = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
            vec![
                numbers(all.iter().map(|c| c.manifest)),
                numbers(all.iter().map(|c| c.epoch.0)),
                times(all.iter().map(|c| c.time.0)),
                ms(all.iter().map(|c| c.duration.as_secs_f64() * 1e3).collect()),
                ms(all.iter().map(|c| c.stall.as_secs_f64() * 1e3).collect()),
                ms(all.iter().map(|c| c.cpu.as_secs_f64() * 1e3).collect()),
                numbers(all.iter().map(|c| c.views as u64)),
                numbers(all.iter().map(|c| c.files as u64)),
                numbers(all.iter().map(|c| c.bytes)),
            ]
        };
        let schema = schema(what);
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        let rows = futures::stream::iter([Ok(batch)]).boxed();
        Ok(Response::Rows { schema, rows, tag: "SHOW".to_owned() })
    }
}
