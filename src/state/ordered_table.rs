//! Rows in order: partitions of rows that are sorted by some columns (Top-N, window functions).
//!
//! 1. A row becomes bytes whose order is the rows' order (Arrow's row format): the columns of its
//!    partition, then those that it is sorted by, then all others. So a partition is one range of
//!    keys, equal keys are equal rows, and rows that sort alike (peers) stand in an order that does
//!    not depend on how they came.
//! 2. One sorted map (`map.rs`) has, for each key, how many copies of the row there are. The row
//!    itself is in the key and comes back out of it ([`OrderedTable::decode`]).
//! 3. [`OrderedTable::add`] takes weights in any order. A row whose deletion came first stands with
//!    a negative weight until its insert comes; at the end of an epoch there should be none.
//!
//! To find a row costs O(log n); to go on from there, next to nothing.
//!
//! A checkpoint is what changed since the last one; finding the rows that came since then is one
//! walk over the map, and only when there are some.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array,
    new_empty_array,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};

use self::map::{Forward, OrderedMap};
use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::plan::event_time::time_values;
use crate::state::delta::TableDelta;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

mod map;

/// Rows of one batch of a checkpoint.
const CHECKPOINT_ROWS: usize = 8192;

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderedBy {
    pub column: usize,
    pub options: SortOptions,
}

/// The bytes of a row.
pub type RowKey = Box<[u8]>;

/// How a row stands in the table.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// How many copies; never 0.
    pub weight: i64,
    /// The length of the part of the key that peers share.
    pub peer_length: u32,
    /// Its row id in the last checkpoint; 0: it is not there, or with another weight.
    written_as: u64,
}

impl Copies {
    /// The part of `key` that rows share which sort alike.
    pub fn peers<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        &key[..self.peer_length as usize]
    }
}

/// Partitions of sorted rows.
#[derive(Debug)]
pub struct OrderedTable {
    schema: SchemaRef,
    partition: Vec<usize>,
    order_by: Vec<OrderedBy>,
    /// The columns in the order of their bytes: partition, order, the others.
    byte_columns: Vec<usize>,
    /// Where each column of the schema stands in `byte_columns`.
    places: Vec<usize>,
    partition_bytes: Option<RowConverter>,
    peer_bytes: Option<RowConverter>,
    row_bytes: Option<RowConverter>,
    /// A row's bytes to its copies; the entry goes when the weight is 0.
    rows: OrderedMap,
    /// Row ids given out by checkpoints.
    last_id: u64,
    /// Rows whose `written_as` is 0.
    unwritten: usize,
    /// Ids of the last checkpoint whose rows are gone or have another weight.
    dead: Vec<u64>,
}

impl Spill for OrderedTable {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.rows.spill(memory, pass);
    }

    fn disk_bytes(&self) -> usize {
        self.rows.disk_bytes()
    }
}

/// The bytes of a batch's rows.
pub struct Encoded {
    partition: Option<Rows>,
    peers: Option<Rows>,
    rows: Option<Rows>,
}

impl Encoded {
    /// The part of a row's key that its partition shares.
    pub fn partition(&self, row: usize) -> &[u8] {
        self.partition.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    /// The part of a row's key that its peers share.
    pub fn peers(&self, row: usize) -> &[u8] {
        self.peers.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    pub fn key(&self, row: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    /// The changes of the batch that was encoded.
    pub fn changes(&self, batch: &ChangeBatch) -> impl Iterator<Item = RowChange> {
        (0..batch.num_rows()).map(|row| RowChange {
            key: self.key(row).into(),
            partition_length: self.partition(row).len(),
            peer_length: self.peers(row).len(),
            weight: batch.weight(row),
        })
    }
}

/// A row that changes.
#[derive(Debug)]
pub struct RowChange {
    pub key: RowKey,
    pub partition_length: usize,
    pub peer_length: usize,
    pub weight: i64,
}

impl RowChange {
    /// The part of the key that its partition shares.
    pub fn partition(&self) -> &[u8] {
        &self.key[..self.partition_length]
    }

    /// The part of the key that rows share which sort alike.
    pub fn peers(&self) -> &[u8] {
        &self.key[..self.peer_length]
    }
}

/// Changes in the order of their rows, each row once; what cancels out is left out.
pub fn added_up(mut changes: Vec<RowChange>) -> Vec<RowChange> {
    changes.sort_unstable_by(|l, r| l.key.cmp(&r.key));
    changes.dedup_by(|next, kept| {
        let same = next.key == kept.key;
        if same {
            kept.weight = kept.weight.saturating_add(next.weight);
        }
        same
    });
    changes.retain(|change| change.weight != 0);
    changes
}

/// How columns become bytes: the first ones in this order, the others ascending.
///
/// # Errors
/// For a column whose type has no order (SQLSTATE 0A000).
pub fn sort_fields(
    schema: &SchemaRef,
    columns: &[usize],
    order_by: &[OrderedBy],
) -> Result<Vec<SortField>> {
    let field = |(place, column): (usize, &usize)| {
        let field = schema.field(*column);
        let options = order_by.get(place).map_or_else(SortOptions::default, |by| by.options);
        let sorted = SortField::new_with_options(field.data_type().clone(), options);
        match RowConverter::supports_fields(std::slice::from_ref(&sorted)) {
            true => Ok(sorted),
            false => Err(Error::unsupported(format!(
                "keeping column \"{}\" of type {} in order",
                field.name(),
                field.data_type()
            ))),
        }
    };
    columns.iter().enumerate().map(field).collect()
}

impl OrderedTable {
    /// An empty table of rows with these columns.
    ///
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(
        schema: SchemaRef,
        partition: Vec<usize>,
        order_by: Vec<OrderedBy>,
    ) -> Result<OrderedTable> {
        let mut byte_columns = partition.clone();
        byte_columns.extend(order_by.iter().map(|by| by.column));
        for column in 0..schema.fields().len() {
            if !byte_columns.contains(&column) {
                byte_columns.push(column);
            }
        }
        let places = (0..schema.fields().len())
            .map(|column| {
                let place = byte_columns.iter().position(|c| *c == column);
                place.expect("every column is in the key")
            })
            .collect();
        let mut fields = sort_fields(&schema, &partition, &[])?;
        fields.extend(sort_fields(&schema, &byte_columns[partition.len()..], &order_by)?);
        let converter = |count: usize| -> Result<Option<RowConverter>> {
            match count {
                0 => Ok(None),
                count => Ok(Some(RowConverter::new(fields[..count].to_vec())?)),
            }
        };
        Ok(OrderedTable {
            partition_bytes: converter(partition.len())?,
            peer_bytes: converter(partition.len() + order_by.len())?,
            row_bytes: converter(fields.len())?,
            schema,
            partition,
            order_by,
            byte_columns,
            places,
            rows: OrderedMap::default(),
            last_id: 0,
            unwritten: 0,
            dead: Vec::new(),
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Columns of the partition.
    pub fn partition_columns(&self) -> &[usize] {
        &self.partition
    }

    /// Different rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The bytes of rows with the table's columns.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Encoded> {
        let columns: Vec<ArrayRef> =
            self.byte_columns.iter().map(|column| rows.column(*column).clone()).collect();
        let convert = |converter: &Option<RowConverter>, count: usize| -> Result<Option<Rows>> {
            let rows = converter.as_ref().map(|c| c.convert_columns(&columns[..count]));
            Ok(rows.transpose()?)
        };
        let peers = self.partition.len() + self.order_by.len();
        Ok(Encoded {
            partition: convert(&self.partition_bytes, self.partition.len())?,
            peers: convert(&self.peer_bytes, peers)?,
            rows: convert(&self.row_bytes, columns.len())?,
        })
    }

    /// The bytes that peers with these values share: one array per column of partition and order.
    pub fn encode_peers(&self, columns: &[ArrayRef]) -> Result<Option<Rows>> {
        let rows = self.peer_bytes.as_ref().map(|c| c.convert_columns(columns));
        Ok(rows.transpose()?)
    }

    /// The columns of partition and order of these keys, in that order.
    pub fn decode_peers<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.peer_bytes else { return Ok(vec![]) };
        let parser = converter.parser();
        Ok(converter.convert_rows(keys.map(|key| parser.parse(key)))?)
    }

    /// The rows of all partitions whose time, one of their columns, is before `bound`; a NULL is
    /// not.
    ///
    /// # Errors
    /// When that column is no time.
    pub fn rows_of_partitions_before(&self, place: usize, bound: i64) -> Result<Vec<RowKey>> {
        let mut found: Vec<RowKey> = Vec::new();
        let mut rows = self.rows.iter();
        loop {
            let chunk: Vec<_> = rows.by_ref().take(CHECKPOINT_ROWS).collect();
            if chunk.is_empty() {
                return Ok(found);
            }
            let columns = self.decode_peers(chunk.iter().map(|(key, copies)| copies.peers(key)))?;
            let times = columns.get(place).and_then(time_values);
            let times = times.ok_or_else(|| Error::internal("a partition's time is a time"))?;
            let before = |row: &usize| times.is_valid(*row) && times.value(*row) < bound;
            found.extend((0..chunk.len()).filter(before).map(|row| RowKey::from(chunk[row].0)));
        }
    }

    /// The part of keys that their partitions share, of columns that [`Self::decode_peers`] gave.
    ///
    /// # Errors
    /// When the columns are others.
    pub fn encode_partitions(&self, columns: &[ArrayRef]) -> Result<Option<Rows>> {
        let columns = &columns[..self.partition.len()];
        let rows = self.partition_bytes.as_ref().map(|c| c.convert_columns(columns));
        Ok(rows.transpose()?)
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        for (_, copies) in rows.iter() {
            if copies.written_as != 0 {
                self.dead.push(copies.written_as);
            }
        }
        self.unwritten = 0;
    }

    /// The columns of a partition, one row of them.
    pub fn decode_partition(&self, partition: &[u8]) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.partition_bytes else { return Ok(vec![]) };
        let parser = converter.parser();
        Ok(converter.convert_rows(std::iter::once(parser.parse(partition)))?)
    }

    /// All partitions, in order.
    pub fn partitions(&self) -> Result<Vec<RowKey>> {
        let mut partitions: Vec<RowKey> = Vec::new();
        let mut next = self.rows.iter().next();
        while let Some((key, _)) = next {
            // The key says where its partition's bytes end only by being decoded.
            let row = self.decode(std::iter::once(key))?;
            let partition: RowKey = self.encode(&row)?.partition(0).into();
            let after = successor(&partition);
            partitions.push(partition);
            let Some(after) = after else { break };
            next = self.rows.from(Bound::Included(&after)).next();
        }
        Ok(partitions)
    }

    /// Adds `weight` copies of a row.
    pub fn add(&mut self, key: &[u8], peer_length: usize, weight: i64) {
        if weight == 0 {
            return;
        }
        let (unwritten, dead) = (&mut self.unwritten, &mut self.dead);
        self.rows.change(key, |there| {
            let Some(mut copies) = there else {
                *unwritten += 1;
                return Some(Copies { weight, peer_length: peer_length as u32, written_as: 0 });
            };
            if copies.written_as != 0 {
                dead.push(copies.written_as);
                copies.written_as = 0;
                *unwritten += 1;
            }
            // A row that stands 2^63 times is beyond any memory.
            copies.weight = copies.weight.saturating_add(weight);
            *unwritten -= usize::from(copies.weight == 0);
            (copies.weight != 0).then_some(copies)
        });
    }

    /// Forgets a row.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(copies) = self.rows.remove(key) {
            match copies.written_as {
                0 => self.unwritten -= 1,
                id => self.dead.push(id),
            }
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Copies> {
        self.rows.get(key)
    }

    /// The rows of a partition, in order.
    pub fn partition<'a>(&'a self, partition: &'a [u8]) -> Walk<'a> {
        self.walk(partition, Bound::Included(partition))
    }

    /// The rows of a partition from a place on.
    pub fn walk<'a>(&'a self, partition: &'a [u8], from: Bound<&[u8]>) -> Walk<'a> {
        Walk { rows: self.rows.from(from), partition }
    }

    /// The rows of a partition before a place, last first.
    pub fn walk_back<'a>(
        &'a self,
        partition: &'a [u8],
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Copies)> + use<'a> {
        self.rows.before(to).take_while(move |(key, _)| key.starts_with(partition))
    }

    /// The rows from a place on, of its partition and of those after it.
    pub fn walk_any(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&[u8], &Copies)> {
        self.rows.from(from)
    }

    /// The rows before a place, of its partition and of those before it, last first.
    pub fn walk_back_any(&self, to: Bound<&[u8]>) -> impl Iterator<Item = (&[u8], &Copies)> {
        self.rows.before(to)
    }

    /// The last row of a partition.
    pub fn last(&self, partition: &[u8]) -> Option<(&[u8], &Copies)> {
        // Keys after the partition's are those that do not begin with its bytes.
        let after = successor(partition);
        let to = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.before(to).next().filter(|(key, _)| key.starts_with(partition))
    }

    /// All rows, partition by partition.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Copies)> {
        self.rows.iter()
    }

    /// Rows out of their keys.
    pub fn decode<'a>(&self, keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let count = keys.len();
        let columns = match &self.row_bytes {
            Some(_) if count == 0 => {
                let fields = self.schema.fields().iter();
                fields.map(|field| new_empty_array(field.data_type())).collect()
            }
            Some(converter) => {
                let parser = converter.parser();
                let columns = converter.convert_rows(keys.map(|key| parser.parse(key)))?;
                self.places.iter().map(|place| columns[*place].clone()).collect()
            }
            None => vec![],
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// What changed since the last checkpoint: rows with their weights in a last column.
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        let mut delta = TableDelta { appended: vec![], deleted: std::mem::take(&mut self.dead) };
        if self.unwritten == 0 {
            return Ok(delta);
        }
        let mut fresh = Vec::with_capacity(self.unwritten);
        for (key, copies) in self.rows.iter_mut() {
            if copies.written_as == 0 {
                self.last_id += 1;
                copies.written_as = self.last_id;
                fresh.push((key, *copies));
            }
        }
        let mut appended = Vec::new();
        for rows in fresh.chunks(CHECKPOINT_ROWS) {
            // Not `self.decode`: the map is borrowed.
            let ids = UInt64Array::from_iter_values(rows.iter().map(|(_, c)| c.written_as));
            let weights = Int64Array::from_iter_values(rows.iter().map(|(_, c)| c.weight));
            let mut columns: Vec<ArrayRef> = match &self.row_bytes {
                Some(converter) => {
                    let parser = converter.parser();
                    let keys = rows.iter().map(|(key, _)| parser.parse(key));
                    let columns = converter.convert_rows(keys)?;
                    self.places.iter().map(|place| columns[*place].clone()).collect()
                }
                None => vec![],
            };
            columns.push(Arc::new(weights));
            let batch = RecordBatch::try_new(checkpoint_schema(&self.schema), columns)?;
            appended.push((ids, batch));
        }
        delta.appended = appended;
        self.unwritten = 0;
        Ok(delta)
    }

    /// Fills a fresh table with the rows of its checkpoints.
    ///
    /// # Errors
    /// When the batches do not have the table's columns: the checkpoint is of something else.
    pub fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        assert!(self.is_empty(), "a fresh table is restored");
        let width = self.schema.fields().len();
        for batch in batches {
            if batch.num_columns() != width + 1
                || batch.column(width).data_type() != &DataType::Int64
            {
                return Err(Error::internal("a checkpoint has rows of another table"));
            }
            let weights = batch.column(width).as_primitive::<Int64Type>().clone();
            let columns = batch.columns()[..width].to_vec();
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
            let encoded = self.encode(&rows)?;
            for row in 0..rows.num_rows() {
                self.add(encoded.key(row), encoded.peers(row).len(), weights.value(row));
            }
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.dead.capacity() * size_of::<u64>()
    }
}

/// Rows of one partition, in order.
pub struct Walk<'a> {
    rows: Forward<'a>,
    partition: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = (&'a [u8], &'a Copies);

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next().filter(|(key, _)| key.starts_with(self.partition))
    }
}

/// The least bytes that come after all that begin with `prefix`; `None`: nothing does.
pub fn successor(prefix: &[u8]) -> Option<RowKey> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after = prefix[..=kept].to_vec();
    after[kept] += 1;
    Some(after.into())
}

/// The table's columns, then how many copies.
fn checkpoint_schema(schema: &SchemaRef) -> SchemaRef {
    let weight = Arc::new(Field::new("weight", DataType::Int64, false));
    let fields: Vec<_> = schema.fields().iter().cloned().chain([weight]).collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray};

    use super::*;

    fn rows(rows: &[(i32, Option<i32>, &str)]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("text", DataType::Utf8, false),
            Field::new("group", DataType::Int32, false),
            Field::new("at", DataType::Int32, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.1))),
        ];
        RecordBatch::try_new(schema, columns).expect("three columns")
    }

    /// By group, latest first.
    fn table() -> OrderedTable {
        let options = SortOptions { descending: true, nulls_first: true };
        let by = OrderedBy { column: 2, options };
        OrderedTable::new(rows(&[]).schema(), vec![1], vec![by]).expect("sortable columns")
    }

    fn add(table: &mut OrderedTable, batch: &RecordBatch, weight: i64) {
        let encoded = table.encode(batch).expect("encodes");
        for row in 0..batch.num_rows() {
            table.add(encoded.key(row), encoded.peers(row).len(), weight);
        }
    }

    fn texts(table: &OrderedTable, group: i32) -> Vec<String> {
        let encoded = table.encode(&rows(&[(group, None, "")])).expect("encodes");
        let keys: Vec<&[u8]> = table.partition(encoded.partition(0)).map(|(key, _)| key).collect();
        let batch = table.decode(keys.into_iter()).expect("decodes");
        batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn partitions_are_ranges_in_order() {
        let mut table = table();
        let all = [(1, Some(5), "b"), (2, Some(9), "x"), (1, None, "n"), (1, Some(7), "c")];
        add(&mut table, &rows(&all), 1);
        add(&mut table, &rows(&[(1, Some(5), "a")]), 2);
        assert_eq!(texts(&table, 1), ["n", "c", "a", "b"]);
        assert_eq!(texts(&table, 2), ["x"]);
        assert!(texts(&table, 3).is_empty());
        let encoded = table.encode(&rows(&[(1, Some(5), "b")])).expect("encodes");
        let (last, copies) = table.last(encoded.partition(0)).expect("rows of the group");
        assert_eq!((last, copies.weight), (encoded.key(0), 1));
        assert_eq!(copies.peers(last), encoded.peers(0));
    }

    #[test]
    fn weights_add_up_in_any_order() {
        let mut table = table();
        let row = rows(&[(1, Some(5), "a")]);
        add(&mut table, &row, -1);
        add(&mut table, &row, 3);
        let encoded = table.encode(&row).expect("encodes");
        assert_eq!(table.get(encoded.key(0)).expect("there").weight, 2);
        add(&mut table, &row, -2);
        assert!(table.is_empty());
        assert_eq!(table.memory_bytes(), 0);
    }

    #[test]
    fn checkpoints_hold_what_changed() {
        let mut table = table();
        add(&mut table, &rows(&[(1, Some(5), "a"), (1, Some(6), "b"), (2, None, "c")]), 1);
        let first = table.checkpoint_delta().expect("writes");
        assert_eq!((first.appended[0].0.len(), first.deleted.len()), (3, 0));
        add(&mut table, &rows(&[(1, Some(6), "b")]), -1);
        add(&mut table, &rows(&[(1, Some(5), "a")]), 1);
        // Came and went: nobody hears of it.
        add(&mut table, &rows(&[(1, Some(8), "d")]), 1);
        add(&mut table, &rows(&[(1, Some(8), "d")]), -1);
        let second = table.checkpoint_delta().expect("writes");
        assert_eq!((second.appended[0].0.len(), second.deleted.len()), (1, 2));
        let third = table.checkpoint_delta().expect("writes");
        assert!(third.appended.is_empty() && third.deleted.is_empty());
        let mut again = super::tests::table();
        again.restore(second.appended.into_iter().map(|(_, rows)| rows).collect()).expect("reads");
        let encoded = again.encode(&rows(&[(1, Some(5), "a")])).expect("encodes");
        assert_eq!(again.get(encoded.key(0)).expect("there").weight, 2);
    }

    #[test]
    fn a_successor_follows_all_with_the_prefix() {
        assert_eq!(successor(&[1, 2]).as_deref(), Some([1, 3].as_slice()));
        assert_eq!(successor(&[1, 255, 255]).as_deref(), Some([2].as_slice()));
        assert_eq!(successor(&[255]), None);
        assert_eq!(successor(&[]), None);
    }
}
