//! The write-ahead log: what has been acknowledged since the last checkpoint.
//!
//! A record is one step of the coordinator: a transaction's changes of tables, or a change of
//! the catalog. Records have a sequence number without gaps. They are written by one thread:
//! 1. It takes all records that wait, and makes them one object (group commit).
//! 2. The object gets the next number, if that is free. If another server has taken it, this one
//!    has been replaced, and writes nothing more.
//! 3. When the store fails, the thread tries again, until it works or the server stops: what
//!    waits stays in order, so log and memory never disagree about anything but the log's end.
//! 4. It tells up to which record the log is durable.
//!
//! Bytes: `docs/FORMAT.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::storage::checksum::{crc32, damaged};
use crate::storage::generation::fenced;
use crate::storage::paths::{self, LOG};
use crate::storage::rows::{from_stream, split_weights, to_stream, with_weights};
use crate::storage::store::{Put, Store};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// The first bytes of an object; the last three are the format's version.
const MAGIC: &[u8; 8] = b"MSLOG001";
/// Magic, generation, number, records, bytes of the body, checksum of these.
const HEADER_BYTES: usize = 8 + 8 + 8 + 4 + 8 + 4;
/// Bytes of records in one object, but for the last that goes in.
const OBJECT_BYTES: usize = 32 << 20;
/// The first and the longest pause before a failed write is tried again.
const RETRY_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 20 });
const RETRY_MAX: Duration = Duration::from_millis(if cfg!(test) { 4 } else { 1000 });

const KIND_CATALOG: u8 = 1;
const KIND_INSERTS: u8 = 2;
const KIND_CHANGES: u8 = 3;

/// One step of the coordinator.
#[derive(Clone, Debug)]
pub struct Record {
    pub sequence: u64,
    pub epoch: Epoch,
    pub entries: Vec<Entry>,
}

/// A part of a step; all parts happen or none.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A change of the catalog, as the catalog writes it.
    Catalog(String),
    /// Exact changes of one table.
    Rows { table: ObjectId, changes: ChangeBatch },
}

impl Record {
    /// About the bytes that it takes in the log.
    pub fn size_bytes(&self) -> usize {
        let of = |entry: &Entry| match entry {
            Entry::Catalog(text) => text.len(),
            Entry::Rows { changes, .. } => changes.size_bytes() + 512,
        };
        self.entries.iter().map(of).sum::<usize>() + 64
    }
}

/// What the log tells.
pub enum LogEvent {
    /// This record and all before it are durable.
    Durable(u64),
    /// Writing failed, and is tried again.
    Failing(Error),
    /// Nothing is written any more.
    Stopped(Error),
}

/// Called by the log's thread; must not block.
pub type LogListener = Arc<dyn Fn(LogEvent) + Send + Sync>;

/// The log, open for appending.
pub struct Log {
    records: Option<Sender<Record>>,
    /// Dropped to end the waiting for a failing store.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    /// The newest object that is durable.
    number: AtomicU64,
    /// Of records that are not durable.
    waiting_bytes: AtomicUsize,
}

impl Log {
    /// Starts the thread. The next object is `number + 1`, the next record `sequence + 1`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        store: Store,
        runtime: Handle,
        generation: u64,
        number: u64,
        sequence: u64,
        listener: LogListener,
    ) -> Result<Log> {
        // Bounded by whoever appends, see `waiting_bytes`.
        let (records, queue) = unbounded();
        let (stop, stopped) = bounded(0);
        let shared =
            Arc::new(Shared { number: AtomicU64::new(number), waiting_bytes: AtomicUsize::new(0) });
        let (durable_sender, durable) = watch::channel(sequence);
        let writer = Writer {
            store,
            runtime,
            generation,
            queue,
            stopped,
            shared: shared.clone(),
            durable: durable_sender,
            listener,
        };
        let thread =
            std::thread::Builder::new().name("log".into()).spawn(move || writer.run(number))?;
        Ok(Log { records: Some(records), stop: Some(stop), thread: Some(thread), shared, durable })
    }

    /// Adds a record, whose sequence is one above that of the last.
    pub fn append(&self, record: Record) {
        self.shared.waiting_bytes.fetch_add(record.size_bytes(), Ordering::Relaxed);
        if let Some(records) = &self.records {
            // A thread that has stopped has told so.
            let _ = records.send(record);
        }
    }

    /// Bytes of records that are not durable yet.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.waiting_bytes.load(Ordering::Relaxed)
    }

    /// The newest object that is durable. Later objects hold only records that are not among
    /// those that were durable when this was asked.
    pub fn durable_number(&self) -> u64 {
        self.shared.number.load(Ordering::Acquire)
    }

    /// Follows the newest durable record.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// Writes what waits, unless the store fails, and ends the thread.
    pub fn stop(&mut self) {
        self.records = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by its own message.
            let _ = thread.join();
        }
    }
}

/// The log's thread.
struct Writer {
    store: Store,
    runtime: Handle,
    generation: u64,
    queue: Receiver<Record>,
    /// Disconnected when the server stops.
    stopped: Receiver<()>,
    shared: Arc<Shared>,
    durable: watch::Sender<u64>,
    listener: LogListener,
}

impl Writer {
    fn run(self, mut number: u64) {
        while let Ok(first) = self.queue.recv() {
            let mut bytes = first.size_bytes();
            let mut records = vec![first];
            while bytes < OBJECT_BYTES {
                let Ok(record) = self.queue.try_recv() else { break };
                bytes += record.size_bytes();
                records.push(record);
            }
            number += 1;
            if let Err(error) = self.write(number, &records) {
                (self.listener)(LogEvent::Stopped(error));
                return;
            }
            let last = records.last().expect("there is a first").sequence;
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.number.store(number, Ordering::Release);
            self.durable.send_replace(last);
            (self.listener)(LogEvent::Durable(last));
        }
    }

    /// Writes one object, however often it takes.
    fn write(&self, number: u64, records: &[Record]) -> Result<()> {
        let content = encode_object(self.generation, number, records)?;
        let path = paths::numbered(LOG, number);
        let mut pause = RETRY_MIN;
        loop {
            match self.runtime.block_on(self.store.put_new(&path, content.clone())) {
                Ok(Put::Written) => return Ok(()),
                Ok(Put::Taken(_)) => return Err(fenced(&self.store, self.generation)),
                Err(error) => {
                    tracing::error!(file = %path, %error, "the log cannot be written; trying again");
                    (self.listener)(LogEvent::Failing(error.clone()));
                    let waited = self.stopped.recv_timeout(pause);
                    if waited == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
                        return Err(error);
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

/// An object of the log.
pub fn encode_object(generation: u64, number: u64, records: &[Record]) -> Result<Bytes> {
    let mut body = Vec::new();
    for record in records {
        let payload = encode_record(record)?;
        body.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        body.extend_from_slice(&crc32(&payload).to_le_bytes());
        body.extend_from_slice(&payload);
    }
    let mut object = Vec::with_capacity(HEADER_BYTES + body.len());
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&generation.to_le_bytes());
    object.extend_from_slice(&number.to_le_bytes());
    object.extend_from_slice(&(records.len() as u32).to_le_bytes());
    object.extend_from_slice(&(body.len() as u64).to_le_bytes());
    object.extend_from_slice(&crc32(&object).to_le_bytes());
    assert_eq!(object.len(), HEADER_BYTES);
    object.extend_from_slice(&body);
    Ok(Bytes::from(object))
}

fn encode_record(record: &Record) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&record.sequence.to_le_bytes());
    payload.extend_from_slice(&record.epoch.0.to_le_bytes());
    payload.extend_from_slice(&(record.entries.len() as u32).to_le_bytes());
    for entry in &record.entries {
        let (kind, table, bytes) = match entry {
            Entry::Catalog(text) => (KIND_CATALOG, 0, text.clone().into_bytes()),
            Entry::Rows { table, changes } if changes.all_inserts() => {
                (KIND_INSERTS, table.0, to_stream(changes.rows())?)
            }
            Entry::Rows { table, changes } => {
                (KIND_CHANGES, table.0, to_stream(&with_weights(changes)?)?)
            }
        };
        payload.push(kind);
        payload.extend_from_slice(&table.to_le_bytes());
        payload.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        payload.extend_from_slice(&bytes);
    }
    Ok(payload)
}

/// What could be read of an object.
#[derive(Debug)]
pub struct ReadObject {
    /// The server that wrote it; 0 when that cannot be read.
    pub generation: u64,
    pub records: Vec<Record>,
    /// What comes after the records cannot be read.
    pub damage: Option<Error>,
}

/// Reads the log's object `number`. Never fails: what is damaged is said, what stands before it
/// is given.
pub fn decode_object(number: u64, bytes: &[u8]) -> ReadObject {
    let name = paths::numbered(LOG, number);
    let damage = |what: String| Some(damaged(name.as_ref(), what));
    let mut read = ReadObject { generation: 0, records: Vec::new(), damage: None };
    let mut rest = Bits(bytes);
    let header = (|| {
        let magic = rest.take(8)?;
        let (generation, found, count) = (rest.u64()?, rest.u64()?, rest.u32()?);
        let (length, crc) = (rest.u64()?, rest.u32()?);
        (magic == MAGIC && crc == crc32(&bytes[..HEADER_BYTES - 4]))
            .then_some((generation, found, count, length))
    })();
    let Some((generation, found, count, length)) = header else {
        if bytes.len() > 8 && bytes[..5] == MAGIC[..5] && bytes[5..8] != MAGIC[5..8] {
            read.damage = Some(newer(name.as_ref()));
            return read;
        }
        read.damage = damage("its header cannot be read".to_owned());
        return read;
    };
    read.generation = generation;
    if found != number {
        read.damage = damage(format!("it says number {found}"));
        return read;
    }
    for index in 0..count {
        let payload = (|| {
            let (length, crc) = (rest.u64()?, rest.u32()?);
            let payload = rest.take(usize::try_from(length).ok()?)?;
            (crc == crc32(payload)).then_some(payload)
        })();
        let record = match payload {
            None => Err("it is torn or changed".to_owned()),
            Some(payload) if has_newer_entries(payload) => {
                read.damage = Some(newer(name.as_ref()));
                return read;
            }
            Some(payload) => decode_record(payload),
        };
        match record {
            Ok(record) => read.records.push(record),
            Err(what) => {
                read.damage = damage(format!("record {index} of {count}: {what}"));
                return read;
            }
        }
    }
    if bytes.len() as u64 != HEADER_BYTES as u64 + length {
        read.damage = damage(format!("it has {} bytes", bytes.len()));
    }
    read
}

fn decode_record(payload: &[u8]) -> Result<Record, String> {
    let mut rest = Bits(payload);
    let short = || "it ends too early".to_owned();
    let sequence = rest.u64().ok_or_else(short)?;
    let epoch = Epoch(rest.u64().ok_or_else(short)?);
    let count = rest.u32().ok_or_else(short)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let kind = rest.take(1).ok_or_else(short)?[0];
        let table = ObjectId(rest.u64().ok_or_else(short)?);
        let length = rest.u64().ok_or_else(short)?;
        let length = usize::try_from(length).map_err(|_| short())?;
        let bytes = rest.take(length).ok_or_else(short)?;
        let rows = |weighted: bool| -> Result<ChangeBatch, String> {
            let mut batches = from_stream(bytes).map_err(|error| error.to_string())?;
            let (Some(rows), true) = (batches.pop(), batches.is_empty()) else {
                return Err("an entry is not one batch".to_owned());
            };
            if weighted {
                split_weights(&rows).map_err(|error| error.to_string())
            } else {
                Ok(ChangeBatch::inserts(rows))
            }
        };
        entries.push(match kind {
            KIND_CATALOG => Entry::Catalog(
                String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8".to_owned())?,
            ),
            KIND_INSERTS => Entry::Rows { table, changes: rows(false)? },
            KIND_CHANGES => Entry::Rows { table, changes: rows(true)? },
            other => return Err(format!("it has an entry of kind {other}")),
        });
    }
    if !rest.0.is_empty() {
        return Err("it is longer than its entries".to_owned());
    }
    Ok(Record { sequence, epoch, entries })
}

/// Whether a sound record has entries that this version does not know.
fn has_newer_entries(payload: &[u8]) -> bool {
    let mut rest = Bits(payload);
    let Some(count) = rest.take(16).and_then(|_| rest.u32()) else { return false };
    (0..count).any(|_| {
        let kind = rest.take(1).and_then(|kind| rest.take(8).map(|_| kind[0]));
        let length = rest.u64().and_then(|length| usize::try_from(length).ok());
        length.and_then(|length| rest.take(length)).is_some()
            && kind.is_some_and(|kind| kind > KIND_CHANGES)
    })
}

fn newer(object: &str) -> Error {
    Error::unsupported(format!("the format of log object \"{object}\""))
        .detail("It was written by another version of Millstream.")
        .hint("Start the version that wrote it, or a newer one.")
}

/// Bytes that are taken from the front.
struct Bits<'a>(&'a [u8]);

impl<'a> Bits<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
