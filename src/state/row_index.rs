//! A hash index from key columns to one row id each: the row itself (unique keys), or the newest
//! row of a chain (`multi_table.rs`).
//!
//! Keys of fixed width up to 16 bytes are packed and stand in the bucket, so a lookup reads nothing
//! else. All other keys, and keys with a NULL, stand in a second table as 32 bits of their hash; a
//! batch is looked up in two loops there: candidates by hash first (independent loads overlap),
//! then the key columns of the candidates are compared. Keeping the hash in the bucket means that
//! growing reads no keys.
//!
//! The index never points at a dead row, because comparing reads the row's data.

use std::hash::{BuildHasher, Hash};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use foldhash::fast::FixedState;
use hashbrown::hash_table::Entry;

use crate::memory::blocks::{FlatTable, StateBlocks};
use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::state::row_equal::{EqualFn, key_equal};
use crate::state::row_ids::{NIL, ShortId};
use crate::state::row_store::RowStore;
use crate::types::error::Result;
use crate::types::key::{HashUse, hash_rows};

const PACKED_SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// What makes two rows meet in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Their key columns are equal.
    Keys,
    /// The hashes of their key columns are equal; the owner compares. Nothing is read on insert.
    Hashes,
}

/// Key columns of a batch, made ready for an index.
#[derive(Debug)]
pub struct Keys {
    columns: Vec<ArrayRef>,
    /// Where the row's bucket lies; of the packed key, or of the columns.
    hashes: Vec<u64>,
    packed: PackedKeys,
    /// Rows with a NULL in a key column.
    nulls: Option<NullBuffer>,
}

#[derive(Debug)]
enum PackedKeys {
    None,
    Narrow(Vec<u64>),
    Wide(Vec<u128>),
}

impl Keys {
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a key column of this row is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

/// The key as it stands in a bucket.
type Wide = [u64; 2];

#[derive(Debug)]
enum Packed {
    /// The key does not fit: everything is in `hashed`.
    None,
    Narrow(FlatTable<(u64, ShortId)>),
    Wide(FlatTable<(Wide, ShortId)>),
}

/// Key columns to row id.
#[derive(Debug)]
pub struct RowIndex {
    /// Columns of the table, in key order.
    columns: Vec<usize>,
    equal: Vec<EqualFn>,
    matching: Match,
    packed: Packed,
    /// Keys that are not packed: half of the hash, and the row.
    hashed: FlatTable<(u32, ShortId)>,
    /// Where the tables have their memory from.
    blocks: StateBlocks,
}

impl Spill for RowIndex {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        // SAFETY: only the tables of this index take from it, and nobody else has the index.
        unsafe { self.blocks.spill(memory, pass) }
    }

    fn disk_bytes(&self) -> usize {
        self.blocks.disk_bytes()
    }
}

impl RowIndex {
    /// An empty index over these columns of a table.
    ///
    /// # Errors
    /// For a key column whose type has no equality.
    pub fn new(schema: &SchemaRef, columns: Vec<usize>, matching: Match) -> Result<RowIndex> {
        let types: Vec<&DataType> = columns.iter().map(|c| schema.field(*c).data_type()).collect();
        let equal = types.iter().map(|t| key_equal(t)).collect::<Result<Vec<_>>>()?;
        let width: Option<usize> = types.iter().map(|t| packed_bytes(t)).sum();
        let blocks = StateBlocks::new();
        let packed = match (matching, width) {
            (Match::Keys, Some(1..=8)) => Packed::Narrow(blocks.table()),
            (Match::Keys, Some(9..=16)) => Packed::Wide(blocks.table()),
            _ => Packed::None,
        };
        let hashed = blocks.table();
        Ok(RowIndex { columns, equal, matching, packed, hashed, blocks })
    }

    /// Keys in the index.
    pub fn len(&self) -> usize {
        self.hashed.len()
            + match &self.packed {
                Packed::None => 0,
                Packed::Narrow(table) => table.len(),
                Packed::Wide(table) => table.len(),
            }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of the table that are the key.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether rows meet by hash alone.
    pub fn matches_hashes(&self) -> bool {
        self.matching == Match::Hashes
    }

    /// Makes key columns (in key order, of the index's types) ready.
    pub fn keys(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<Keys> {
        assert_eq!(columns.len(), self.columns.len(), "one array per key column");
        let nulls = columns
            .iter()
            .fold(None, |all, c| NullBuffer::union(all.as_ref(), c.logical_nulls().as_ref()))
            .filter(|nulls| nulls.null_count() > 0);
        let mut hashes;
        let packed = match &self.packed {
            Packed::None => {
                hashes = hash_rows(&columns, rows, HashUse::Table)?;
                PackedKeys::None
            }
            Packed::Narrow(_) => {
                let mut keys = vec![0u64; rows];
                pack(&columns, &mut keys);
                hashes = keys.iter().map(|key| packed_hash(*key)).collect();
                PackedKeys::Narrow(keys)
            }
            Packed::Wide(_) => {
                let mut keys = vec![0u128; rows];
                pack(&columns, &mut keys);
                hashes = keys.iter().map(|key| packed_hash(halves(*key))).collect();
                PackedKeys::Wide(keys)
            }
        };
        if let Some(nulls) = &nulls
            && !matches!(packed, PackedKeys::None)
        {
            let by_columns = hash_rows(&columns, rows, HashUse::Table)?;
            for row in (0..rows).filter(|row| nulls.is_null(*row)) {
                hashes[row] = by_columns[row];
            }
        }
        Ok(Keys { columns, hashes, packed, nulls })
    }

    fn in_hashed(&self, keys: &Keys, row: usize) -> bool {
        matches!(self.packed, Packed::None) || keys.is_null(row)
    }

    fn equal_to(&self, keys: &Keys, row: usize, id: ShortId, store: &RowStore) -> bool {
        if self.matching == Match::Hashes {
            return true;
        }
        let (batch, position) = store.row(id);
        self.columns
            .iter()
            .zip(&keys.columns)
            .zip(&self.equal)
            .all(|((column, probe), equal)| equal(batch.column(*column), position, probe, row))
    }

    /// The row of a key, or NIL.
    pub fn find(&self, keys: &Keys, row: usize, store: &RowStore) -> ShortId {
        let hash = keys.hashes[row];
        if self.in_hashed(keys, row) {
            let half = half(hash);
            let found = self
                .hashed
                .find(whole(half), |(h, id)| *h == half && self.equal_to(keys, row, *id, store));
            return found.map_or(NIL, |(_, id)| *id);
        }
        match (&self.packed, &keys.packed) {
            (Packed::Narrow(table), PackedKeys::Narrow(values)) => {
                find_packed(table, hash, values[row])
            }
            (Packed::Wide(table), PackedKeys::Wide(values)) => {
                find_packed(table, hash, halves(values[row]))
            }
            _ => unreachable!("keys are made by this index"),
        }
    }

    /// The row of each key, or NIL.
    pub fn find_all(&self, keys: &Keys, store: &RowStore) -> Vec<ShortId> {
        match (&self.packed, &keys.packed) {
            (Packed::Narrow(table), PackedKeys::Narrow(values)) if keys.nulls.is_none() => {
                let pairs = keys.hashes.iter().zip(values);
                pairs.map(|(hash, key)| find_packed(table, *hash, *key)).collect()
            }
            (Packed::Wide(table), PackedKeys::Wide(values)) if keys.nulls.is_none() => {
                let pairs = keys.hashes.iter().zip(values);
                pairs.map(|(hash, key)| find_packed(table, *hash, halves(*key))).collect()
            }
            (Packed::None, _) => {
                let candidate = |hash: &u64| {
                    let half = half(*hash);
                    self.hashed.find(whole(half), |(h, _)| *h == half).map_or(NIL, |(_, id)| *id)
                };
                let mut found: Vec<ShortId> = keys.hashes.iter().map(candidate).collect();
                for (row, id) in found.iter_mut().enumerate() {
                    if *id != NIL && !self.equal_to(keys, row, *id, store) {
                        *id = self.find(keys, row, store);
                    }
                }
                found
            }
            _ => (0..keys.len()).map(|row| self.find(keys, row, store)).collect(),
        }
    }

    /// Lets the key of `row` mean `id`; gives what it meant before, or NIL.
    pub fn put(&mut self, keys: &Keys, row: usize, id: ShortId, store: &RowStore) -> ShortId {
        let hash = keys.hashes[row];
        if self.in_hashed(keys, row) {
            let half = half(hash);
            let found = |this: &RowIndex| {
                let same =
                    |(h, id): &(u32, ShortId)| *h == half && this.equal_to(keys, row, *id, store);
                this.hashed.find_bucket_index(whole(half), same)
            };
            // Found by a look at the whole index, changed by its place.
            return match found(self).and_then(|place| self.hashed.get_bucket_mut(place)) {
                Some((_, before)) => std::mem::replace(before, id),
                None => {
                    self.hashed.insert_unique(whole(half), (half, id), |(h, _)| whole(*h));
                    NIL
                }
            };
        }
        match (&mut self.packed, &keys.packed) {
            (Packed::Narrow(table), PackedKeys::Narrow(values)) => {
                put_packed(table, hash, values[row], id)
            }
            (Packed::Wide(table), PackedKeys::Wide(values)) => {
                put_packed(table, hash, halves(values[row]), id)
            }
            _ => unreachable!("keys are made by this index"),
        }
    }

    /// Adds a key that is not there.
    pub fn insert(&mut self, keys: &Keys, row: usize, id: ShortId) {
        let hash = keys.hashes[row];
        if self.in_hashed(keys, row) {
            let half = half(hash);
            self.hashed.insert_unique(whole(half), (half, id), |(h, _)| whole(*h));
            return;
        }
        match (&mut self.packed, &keys.packed) {
            (Packed::Narrow(table), PackedKeys::Narrow(values)) => {
                table.insert_unique(hash, (values[row], id), |(key, _)| packed_hash(*key));
            }
            (Packed::Wide(table), PackedKeys::Wide(values)) => {
                let key = halves(values[row]);
                table.insert_unique(hash, (key, id), |(key, _)| packed_hash(*key));
            }
            _ => unreachable!("keys are made by this index"),
        }
    }

    /// Lets a key that means `before` mean `after`; false when no bucket of this hash means it.
    pub fn replace(&mut self, keys: &Keys, row: usize, before: ShortId, after: ShortId) -> bool {
        let hash = keys.hashes[row];
        if self.in_hashed(keys, row) {
            return replace_in(&mut self.hashed, whole(half(hash)), before, after);
        }
        match &mut self.packed {
            Packed::None => false,
            Packed::Narrow(table) => replace_in(table, hash, before, after),
            Packed::Wide(table) => replace_in(table, hash, before, after),
        }
    }

    /// Removes a key that means `id`; false when no bucket of this hash means it.
    pub fn remove(&mut self, keys: &Keys, row: usize, id: ShortId) -> bool {
        let hash = keys.hashes[row];
        if self.in_hashed(keys, row) {
            return remove_in(&mut self.hashed, whole(half(hash)), id, |(h, _)| whole(*h));
        }
        match &mut self.packed {
            Packed::None => false,
            Packed::Narrow(table) => remove_in(table, hash, id, |(key, _)| packed_hash(*key)),
            Packed::Wide(table) => remove_in(table, hash, id, |(key, _)| packed_hash(*key)),
        }
    }

    /// Whether a bucket of this row's hash means `id`.
    pub fn means(&self, keys: &Keys, row: usize, id: ShortId) -> bool {
        let hash = keys.hashes[row];
        if self.in_hashed(keys, row) {
            return self.hashed.find(whole(half(hash)), |(_, other)| *other == id).is_some();
        }
        match &self.packed {
            Packed::None => false,
            Packed::Narrow(table) => table.find(hash, |(_, other)| *other == id).is_some(),
            Packed::Wide(table) => table.find(hash, |(_, other)| *other == id).is_some(),
        }
    }

    /// Memory held, in bytes; what is on the disk is not.
    pub fn memory_bytes(&self) -> usize {
        let bytes = self.hashed.allocation_size()
            + match &self.packed {
                Packed::None => 0,
                Packed::Narrow(table) => table.allocation_size(),
                Packed::Wide(table) => table.allocation_size(),
            };
        self.blocks.in_memory(bytes)
    }
}

/// The part of a hash that is kept.
fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The hash made of the kept part: the table takes the bucket from the low bits and the tag from
/// the top ones. Good to about 2^25 buckets; beyond, probe sequences grow slowly.
fn whole(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

fn halves(key: u128) -> Wide {
    [key as u64, (key >> 64) as u64]
}

fn packed_hash(key: impl Hash) -> u64 {
    FixedState::with_seed(PACKED_SEED).hash_one(key)
}

fn find_packed<K: Eq>(table: &FlatTable<(K, ShortId)>, hash: u64, key: K) -> ShortId {
    table.find(hash, |(other, _)| *other == key).map_or(NIL, |(_, id)| *id)
}

fn put_packed<K: Eq + Hash + Copy>(
    table: &mut FlatTable<(K, ShortId)>,
    hash: u64,
    key: K,
    id: ShortId,
) -> ShortId {
    match table.entry(hash, |(other, _)| *other == key, |(other, _)| packed_hash(*other)) {
        Entry::Occupied(mut entry) => std::mem::replace(&mut entry.get_mut().1, id),
        Entry::Vacant(entry) => {
            entry.insert((key, id));
            NIL
        }
    }
}

fn replace_in<K>(
    table: &mut FlatTable<(K, ShortId)>,
    hash: u64,
    before: ShortId,
    after: ShortId,
) -> bool {
    match table.find_mut(hash, |(_, id)| *id == before) {
        Some((_, id)) => {
            *id = after;
            true
        }
        None => false,
    }
}

/// Tables shrink when they are mostly empty: a flood that has passed gives its memory back.
fn remove_in<K>(
    table: &mut FlatTable<(K, ShortId)>,
    hash: u64,
    id: ShortId,
    hasher: impl Fn(&(K, ShortId)) -> u64,
) -> bool {
    let Ok(entry) = table.find_entry(hash, |(_, other)| *other == id) else { return false };
    entry.remove();
    if table.capacity() > 1024 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, hasher);
    }
    true
}

/// Bytes of a value in a packed key; `None` for a type that is not packed.
fn packed_bytes(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(16) => Some(16),
        DataType::Time64(unit) if *unit != TimeUnit::Microsecond => None,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Date64
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Decimal128(_, _) => data_type.primitive_width(),
        _ => None,
    }
}

/// A packed key under construction.
trait Slot: Copy {
    fn or(&mut self, bits: u128, shift: u32);
}

impl Slot for u64 {
    fn or(&mut self, bits: u128, shift: u32) {
        *self |= (bits as u64) << shift;
    }
}

impl Slot for u128 {
    fn or(&mut self, bits: u128, shift: u32) {
        *self |= bits << shift;
    }
}

/// Packs the columns side by side. Rows with a NULL get some value or other.
fn pack<S: Slot>(columns: &[ArrayRef], keys: &mut [S]) {
    let mut shift = 0;
    for column in columns {
        pack_column(column, shift, keys);
        let bytes = packed_bytes(column.data_type()).expect("only such types are packed");
        shift += bytes as u32 * 8;
    }
}

fn pack_column<S: Slot>(column: &ArrayRef, shift: u32, keys: &mut [S]) {
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean().values();
            for (key, value) in keys.iter_mut().zip(values) {
                key.or(u128::from(value), shift);
            }
        }
        DataType::FixedSizeBinary(_) => {
            let values = column.as_fixed_size_binary();
            for (row, key) in keys.iter_mut().enumerate() {
                let bytes = values.value(row).try_into().expect("16 bytes each");
                key.or(u128::from_le_bytes(bytes), shift);
            }
        }
        DataType::Int8 => pack_as::<Int8Type, S>(column, shift, keys, |v| v as u8 as u128),
        DataType::Int16 => pack_as::<Int16Type, S>(column, shift, keys, |v| v as u16 as u128),
        DataType::Int32 => pack_as::<Int32Type, S>(column, shift, keys, |v| v as u32 as u128),
        DataType::Int64 => pack_as::<Int64Type, S>(column, shift, keys, |v| v as u64 as u128),
        DataType::UInt8 => pack_as::<UInt8Type, S>(column, shift, keys, u128::from),
        DataType::UInt16 => pack_as::<UInt16Type, S>(column, shift, keys, u128::from),
        DataType::UInt32 => pack_as::<UInt32Type, S>(column, shift, keys, u128::from),
        DataType::UInt64 => pack_as::<UInt64Type, S>(column, shift, keys, u128::from),
        DataType::Float32 => {
            // One pattern for both zeros and one for every NaN, as they are equal keys.
            pack_as::<Float32Type, S>(column, shift, keys, |v| {
                let v = if v.is_nan() { f32::NAN } else { v + 0.0 };
                u128::from(v.to_bits())
            });
        }
        DataType::Float64 => pack_as::<Float64Type, S>(column, shift, keys, |v| {
            let v = if v.is_nan() { f64::NAN } else { v + 0.0 };
            u128::from(v.to_bits())
        }),
        DataType::Date32 => pack_as::<Date32Type, S>(column, shift, keys, |v| v as u32 as u128),
        DataType::Date64 => pack_as::<Date64Type, S>(column, shift, keys, |v| v as u64 as u128),
        DataType::Time64(_) => {
            pack_as::<Time64MicrosecondType, S>(column, shift, keys, |v| v as u64 as u128);
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            pack_as::<TimestampSecondType, S>(column, shift, keys, |v| v as u64 as u128);
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            pack_as::<TimestampMillisecondType, S>(column, shift, keys, |v| v as u64 as u128);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            pack_as::<TimestampMicrosecondType, S>(column, shift, keys, |v| v as u64 as u128);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            pack_as::<TimestampNanosecondType, S>(column, shift, keys, |v| v as u64 as u128);
        }
        DataType::Decimal128(_, _) => {
            pack_as::<Decimal128Type, S>(column, shift, keys, |v| v as u128);
        }
        other => unreachable!("{other} is not packed"),
    }
}

fn pack_as<T: ArrowPrimitiveType, S: Slot>(
    column: &ArrayRef,
    shift: u32,
    keys: &mut [S],
    bits: impl Fn(T::Native) -> u128,
) {
    for (key, value) in keys.iter_mut().zip(column.as_primitive::<T>().values()) {
        key.or(bits(*value), shift);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
        StringArray,
    };
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::types::change::ChangeBatch;

    /// Puts rows one after another; gives for each row the first row with the same key.
    fn first_of_key(columns: Vec<ArrayRef>) -> Vec<u32> {
        let fields = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema.clone(), columns.clone()).expect("a batch");
        let mut store = RowStore::new(schema.clone());
        store.append(&ChangeBatch::inserts(rows.clone())).expect("appends");
        let key: Vec<usize> = (0..columns.len()).collect();
        let mut index = RowIndex::new(&schema, key, Match::Keys).expect("an index");
        let keys = index.keys(columns, rows.num_rows()).expect("keys");
        for row in 0..rows.num_rows() {
            if index.find(&keys, row, &store) == NIL {
                index.insert(&keys, row, row as u32);
            }
        }
        let all = index.find_all(&keys, &store);
        let each: Vec<u32> = (0..keys.len()).map(|row| index.find(&keys, row, &store)).collect();
        assert_eq!(all, each);
        all
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn every_shape_of_key_finds_its_equals() {
        let longs: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(1), None, Some(-1), Some(1), None]));
        assert_eq!(first_of_key(vec![longs.clone()]), [0, 1, 2, 0, 1]);
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![7, 7, 7, 8, 7]));
        assert_eq!(first_of_key(vec![longs.clone(), ints.clone()]), [0, 1, 2, 3, 1]);
        assert_eq!(first_of_key(vec![ints.clone(), ints]), [0, 0, 0, 3, 0]);
        let text = texts(&[Some("a"), None, Some(""), Some("a"), Some("a")]);
        assert_eq!(first_of_key(vec![text.clone()]), [0, 1, 2, 0, 0]);
        assert_eq!(first_of_key(vec![longs, text]), [0, 1, 2, 0, 4]);
        let uuids = [[1u8; 16], [2; 16], [1; 16]];
        let uuids = FixedSizeBinaryArray::try_from_iter(uuids.iter()).expect("uuids");
        assert_eq!(first_of_key(vec![Arc::new(uuids)]), [0, 1, 0]);
        let money: ArrayRef = Arc::new(Decimal128Array::from(vec![-1, 1 << 100, -1]));
        assert_eq!(first_of_key(vec![money]), [0, 1, 0]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 0.0, f64::NAN, -f64::NAN]));
        assert_eq!(first_of_key(vec![floats]), [0, 0, 2, 2]);
    }

    #[test]
    fn keys_are_put_replaced_and_removed() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
        let column = texts(&[Some("a"), Some("b"), Some("a")]);
        let rows = RecordBatch::try_new(schema.clone(), vec![column.clone()]).expect("a batch");
        let mut store = RowStore::new(schema.clone());
        store.append(&ChangeBatch::inserts(rows)).expect("appends");
        let mut index = RowIndex::new(&schema, vec![0], Match::Keys).expect("an index");
        let keys = index.keys(vec![column], 3).expect("keys");
        assert_eq!(index.put(&keys, 0, 0, &store), NIL);
        assert_eq!(index.put(&keys, 1, 1, &store), NIL);
        assert_eq!(index.put(&keys, 2, 2, &store), 0);
        assert!(index.means(&keys, 0, 2) && !index.means(&keys, 0, 0));
        assert!(!index.remove(&keys, 0, 0));
        assert!(index.remove(&keys, 0, 2) && index.len() == 1);
        assert_eq!(index.find_all(&keys, &store), [NIL, 1, NIL]);
    }
}
