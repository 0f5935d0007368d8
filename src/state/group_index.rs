//! Group keys to dense ids.
//!
//! 1. `intern` turns the key columns of a batch into one packed key per row, finds each in a hash
//!    table, and gives a new id to those that are not there. Ids are dense; a removed id is given
//!    out again before a new one.
//! 2. Keys that fit 16 bytes are packed into one or two words and stand in the bucket itself; the
//!    lookups of a batch do not depend on each other, so their cache misses overlap.
//! 3. Other keys are hashed; the bucket holds 32 bits of the hash and the id. Candidates are
//!    found by hash alone, then each key column is compared in a loop of its own, and only rows
//!    that failed go the slow way (`state-notes` item 1: 1.2 to 4 times faster than row keys).
//! 4. `gather` builds key columns for any list of ids.
//!
//! Keys are equal when every column is equal or both are NULL. Floats: -0.0 is 0.0, NaN is
//! itself.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use foldhash::fast::FixedState;
use hashbrown::hash_table::Entry;

use crate::memory::blocks::{Flat, FlatTable, StateBlocks};
use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::types::error::{Error, Result, SqlState};
use crate::types::key::{HashUse, hash_rows};
use crate::types::value::{
    BytesCodec, BytesColumn, Shape, from_wide_words, from_words, shape_of, to_wide_words, to_words,
};

/// Stands for "no group" while a batch is looked up; never given out as an id.
const NONE: u32 = u32::MAX;

/// Bytes of dead text that make a rewrite of a text column worth while.
const TEXT_REWRITE_BYTES_MIN: usize = 1 << 16;

/// Group keys to dense ids, and back.
pub struct GroupIndex {
    ids: Ids,
    keys: Keys,
    /// Where all of it has its memory from.
    blocks: StateBlocks,
}

impl Spill for GroupIndex {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        // SAFETY: only fields of this index take from it, and nobody else has the index.
        unsafe { self.blocks.spill(memory, pass) }
    }

    fn disk_bytes(&self) -> usize {
        self.blocks.disk_bytes()
    }
}

/// Which ids are given out.
struct Ids {
    /// Removed ids, to be given out again, last removed first.
    free: Flat<u32>,
    /// All ids below were given out at some time.
    next: u32,
}

impl Ids {
    fn allocate(&mut self) -> Result<u32> {
        if let Some(id) = self.free.pop() {
            return Ok(id);
        }
        if self.next == NONE {
            return Err(Error::user(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "an aggregation has more than 4294967295 groups on one worker",
            )
            .hint("Use more workers, or aggregate fewer groups at once."));
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

enum Keys {
    /// No key columns: one group, id 0.
    Empty,
    One(PackedKeys<u64>),
    Two(PackedKeys<[u64; 2]>),
    Hashed(HashedKeys),
}

impl GroupIndex {
    /// An index over key columns of these types.
    ///
    /// # Errors
    /// For a type that cannot be a key.
    pub fn new(key_types: &[DataType]) -> Result<GroupIndex> {
        let blocks = StateBlocks::new();
        let keys = if key_types.is_empty() {
            Keys::Empty
        } else if let Some(fields) = PackedField::place(key_types, 1) {
            Keys::One(PackedKeys::new(fields, &blocks))
        } else if let Some(fields) = PackedField::place(key_types, 2) {
            Keys::Two(PackedKeys::new(fields, &blocks))
        } else {
            Keys::Hashed(HashedKeys::new(key_types, &blocks)?)
        };
        Ok(GroupIndex { ids: Ids { free: blocks.array(), next: 0 }, keys, blocks })
    }

    /// The id of each row's key, new keys included. `ids` is overwritten.
    ///
    /// # Errors
    /// When there are no ids left.
    pub fn intern(&mut self, columns: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<()> {
        ids.clear();
        assert!(columns.iter().all(|c| c.len() == rows), "key columns have the batch's length");
        match &mut self.keys {
            Keys::Empty => {
                assert!(columns.is_empty(), "this index has no key columns");
                if rows > 0 && self.ids.next == 0 {
                    self.ids.allocate()?;
                }
                ids.resize(rows, 0);
                Ok(())
            }
            Keys::One(keys) => keys.intern(columns, rows, &mut self.ids, ids),
            Keys::Two(keys) => keys.intern(columns, rows, &mut self.ids, ids),
            Keys::Hashed(keys) => keys.intern(columns, rows, &mut self.ids, ids),
        }
    }

    /// The key columns of these ids, which must be given out.
    ///
    /// # Errors
    /// When a text column would exceed what an array can hold.
    pub fn gather(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        match &self.keys {
            Keys::Empty => Ok(vec![]),
            Keys::One(keys) => Ok(keys.gather(ids)),
            Keys::Two(keys) => Ok(keys.gather(ids)),
            Keys::Hashed(keys) => keys.columns.iter().map(|c| c.gather(ids)).collect(),
        }
    }

    /// Forgets these ids; each was given out and is named once.
    ///
    /// # Errors
    /// When the keys cannot be read back (never for keys that were interned).
    pub fn remove(&mut self, ids: &[u32]) -> Result<()> {
        match &mut self.keys {
            Keys::Empty => {
                assert!(ids.is_empty(), "the only group is never removed");
            }
            Keys::One(keys) => keys.remove(ids),
            Keys::Two(keys) => keys.remove(ids),
            Keys::Hashed(keys) => keys.remove(ids)?,
        }
        self.ids.free.extend_from_slice(ids);
        Ok(())
    }

    /// All ids are below this.
    pub fn id_limit(&self) -> usize {
        self.ids.next as usize
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.id_limit() - self.ids.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes; what is on the disk is not.
    pub fn memory_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Empty => 0,
            Keys::One(keys) => keys.memory_bytes(),
            Keys::Two(keys) => keys.memory_bytes(),
            Keys::Hashed(keys) => keys.memory_bytes(),
        };
        self.blocks.in_memory(keys + self.ids.free.capacity() * size_of::<u32>())
    }
}

/// Makes -0.0 to 0.0, so that equal floats are one key.
fn fold_zeros(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            if !floats.values().iter().any(|v| v.to_bits() == 1 << 63) {
                return column.clone();
            }
            Arc::new(floats.unary::<_, Float64Type>(|v| if v == 0.0 { 0.0 } else { v }))
        }
        DataType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            if !floats.values().iter().any(|v| v.to_bits() == 1 << 31) {
                return column.clone();
            }
            Arc::new(floats.unary::<_, Float32Type>(|v| if v == 0.0 { 0.0 } else { v }))
        }
        _ => column.clone(),
    }
}

/// A key of one or two words.
trait PackedKey: Copy + Eq + Default {
    fn hash(self, state: &FixedState, nulls: u32) -> u64;
    /// Sets bits that are 0.
    fn put(&mut self, word: usize, bits: u64);
    fn word(self, word: usize) -> u64;
}

impl PackedKey for u64 {
    #[inline]
    fn hash(self, state: &FixedState, nulls: u32) -> u64 {
        state.hash_one(self ^ u64::from(nulls).rotate_left(48))
    }
    #[inline]
    fn put(&mut self, _word: usize, bits: u64) {
        *self |= bits;
    }
    #[inline]
    fn word(self, _word: usize) -> u64 {
        self
    }
}

impl PackedKey for [u64; 2] {
    #[inline]
    fn hash(self, state: &FixedState, nulls: u32) -> u64 {
        state.hash_one((self[0] ^ u64::from(nulls).rotate_left(48), self[1]))
    }
    #[inline]
    fn put(&mut self, word: usize, bits: u64) {
        self[word] |= bits;
    }
    #[inline]
    fn word(self, word: usize) -> u64 {
        self[word]
    }
}

/// Where a key column lies in the packed key.
struct PackedField {
    data_type: DataType,
    /// The first word that it lies in; a wide value fills both words.
    word: usize,
    /// Bits below it in its word.
    shift: usize,
    wide: bool,
    /// The bits of a value, not shifted.
    mask: u64,
}

impl PackedField {
    /// Packs the columns into `words` words, or `None` when they do not fit.
    fn place(key_types: &[DataType], words: usize) -> Option<Vec<PackedField>> {
        let mut used_bytes = vec![0; words];
        let mut fields = Vec::with_capacity(key_types.len());
        for data_type in key_types {
            let (word, bytes, wide) = match shape_of(data_type) {
                Shape::Word { bytes } => {
                    (used_bytes.iter().position(|used| used + bytes <= 8)?, bytes, false)
                }
                Shape::Wide if words == 2 && used_bytes == [0, 0] => (0, 8, true),
                Shape::Wide | Shape::Bytes => return None,
            };
            let shift = used_bytes[word] * 8;
            used_bytes[word] += bytes;
            if wide {
                used_bytes[1] = 8;
            }
            let mask = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
            fields.push(PackedField { data_type: data_type.clone(), word, shift, wide, mask });
        }
        Some(fields)
    }
}

#[derive(Clone, Copy)]
struct Bucket<K> {
    key: K,
    /// Bit i: key column i is NULL (its bits in `key` are 0).
    nulls: u32,
    id: u32,
}

struct PackedKeys<K> {
    fields: Vec<PackedField>,
    state: FixedState,
    table: FlatTable<Bucket<K>>,
    /// Key by id; of a removed id, its last key.
    keys: Flat<K>,
    /// NULL bits by id; empty as long as no key has a NULL.
    nulls: Flat<u32>,
}

impl<K: PackedKey> PackedKeys<K> {
    fn new(fields: Vec<PackedField>, blocks: &StateBlocks) -> PackedKeys<K> {
        PackedKeys {
            fields,
            state: FixedState::with_seed(0x2545_f491_4f6c_dd1d),
            table: blocks.table(),
            keys: blocks.array(),
            nulls: blocks.array(),
        }
    }

    /// One key per row, and its NULL bits (empty when there are no NULLs).
    fn pack(&self, columns: &[ArrayRef], rows: usize) -> (Vec<K>, Vec<u32>) {
        assert_eq!(columns.len(), self.fields.len(), "one column per key field");
        let mut keys = vec![K::default(); rows];
        let mut nulls = Vec::new();
        for (index, (field, column)) in self.fields.iter().zip(columns).enumerate() {
            assert_eq!(column.data_type(), &field.data_type, "key columns keep their types");
            let column = &fold_zeros(column);
            if field.wide {
                for (key, value) in keys.iter_mut().zip(to_wide_words(column)) {
                    key.put(0, (value >> 64) as u64);
                    key.put(1, value as u64);
                }
            } else {
                for (key, value) in keys.iter_mut().zip(to_words(column)) {
                    key.put(field.word, value << field.shift);
                }
            }
            if let Some(valid) = column.nulls().filter(|n| n.null_count() > 0) {
                nulls.resize(rows, 0);
                for (row, bits) in nulls.iter_mut().enumerate() {
                    *bits |= u32::from(valid.is_null(row)) << index;
                }
            }
        }
        (keys, nulls)
    }

    fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        free: &mut Ids,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let (keys, nulls) = self.pack(columns, rows);
        let (table, state) = (&self.table, &self.state);
        let mut misses = 0;
        let find = |key: K, nulls: u32| {
            table
                .find(key.hash(state, nulls), |b| b.key == key && b.nulls == nulls)
                .map_or(NONE, |bucket| bucket.id)
        };
        if nulls.is_empty() {
            ids.extend(keys.iter().map(|key| find(*key, 0)));
        } else {
            ids.extend(keys.iter().zip(&nulls).map(|(key, nulls)| find(*key, *nulls)));
        }
        for id in ids.iter() {
            misses += usize::from(*id == NONE);
        }
        if misses == 0 {
            return Ok(());
        }
        for (row, id) in ids.iter_mut().enumerate() {
            if *id == NONE {
                let nulls = nulls.get(row).copied().unwrap_or(0);
                *id = self.find_or_insert(keys[row], nulls, free)?;
            }
        }
        Ok(())
    }

    fn find_or_insert(&mut self, key: K, nulls: u32, free: &mut Ids) -> Result<u32> {
        let state = &self.state;
        let entry = self.table.entry(
            key.hash(state, nulls),
            |b| b.key == key && b.nulls == nulls,
            |b| b.key.hash(state, b.nulls),
        );
        let vacant = match entry {
            Entry::Occupied(bucket) => return Ok(bucket.get().id),
            Entry::Vacant(vacant) => vacant,
        };
        let id = free.allocate()?;
        vacant.insert(Bucket { key, nulls, id });
        put_at(&mut self.keys, id, key);
        if nulls != 0 || !self.nulls.is_empty() {
            put_at(&mut self.nulls, id, nulls);
        }
        Ok(id)
    }

    fn nulls_of(&self, id: u32) -> u32 {
        self.nulls.get(id as usize).copied().unwrap_or(0)
    }

    fn gather(&self, ids: &[u32]) -> Vec<ArrayRef> {
        let keys: Vec<K> = ids.iter().map(|id| self.keys[*id as usize]).collect();
        let gather_field = |(index, field): (usize, &PackedField)| {
            let valid = (!self.nulls.is_empty())
                .then(|| ids.iter().map(|id| self.nulls_of(*id) >> index & 1 == 0).collect());
            if field.wide {
                let words: Vec<u128> = keys
                    .iter()
                    .map(|key| u128::from(key.word(0)) << 64 | u128::from(key.word(1)))
                    .collect();
                return from_wide_words(&words, valid, &field.data_type);
            }
            let words: Vec<u64> =
                keys.iter().map(|key| key.word(field.word) >> field.shift & field.mask).collect();
            from_words(&words, valid, &field.data_type)
        };
        self.fields.iter().enumerate().map(gather_field).collect()
    }

    fn remove(&mut self, ids: &[u32]) {
        for id in ids {
            let hash = self.keys[*id as usize].hash(&self.state, self.nulls_of(*id));
            self.table
                .find_entry(hash, |bucket| bucket.id == *id)
                .unwrap_or_else(|_| panic!("group {id} is removed twice"))
                .remove();
        }
    }

    fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
            + self.keys.capacity() * size_of::<K>()
            + self.nulls.capacity() * size_of::<u32>()
    }
}

/// Sets the value of `id`, which is at most a few places behind the end.
fn put_at<T: Copy + Default>(values: &mut Flat<T>, id: u32, value: T) {
    let id = id as usize;
    if id >= values.len() {
        values.resize(id + 1, T::default());
    }
    values[id] = value;
}

struct HashedKeys {
    /// 32 bits of the hash, and the id.
    table: FlatTable<(u32, u32)>,
    columns: Vec<KeyColumn>,
}

/// The hash that the table sees, from the 32 bits that it keeps: hashbrown takes the bucket from
/// the low bits and the tag from the top 7. Good to about 2^25 groups in one table.
fn widen(hash: u32) -> u64 {
    u64::from(hash) | u64::from(hash) << 32
}

impl HashedKeys {
    fn new(key_types: &[DataType], blocks: &StateBlocks) -> Result<HashedKeys> {
        let columns = key_types.iter().map(|key_type| KeyColumn::new(key_type, blocks));
        Ok(HashedKeys { table: blocks.table(), columns: columns.collect::<Result<_>>()? })
    }

    fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        free: &mut Ids,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        assert_eq!(columns.len(), self.columns.len(), "one column per key field");
        let columns: Vec<ArrayRef> = columns.iter().map(fold_zeros).collect();
        let hashes = hash_rows(&columns, rows, HashUse::Table)?;
        let encoded = self
            .columns
            .iter()
            .zip(&columns)
            .map(|(key, column)| key.encode(column))
            .collect::<Result<Vec<_>>>()?;
        let table = &self.table;
        ids.extend(hashes.iter().map(|hash| {
            let hash = (hash >> 32) as u32;
            table.find(widen(hash), |bucket| bucket.0 == hash).map_or(NONE, |bucket| bucket.1)
        }));
        for (key, column) in self.columns.iter().zip(&encoded) {
            key.reject_different(column, ids);
        }
        for (row, id) in ids.iter_mut().enumerate() {
            if *id == NONE {
                *id = self.find_or_insert((hashes[row] >> 32) as u32, &encoded, row, free)?;
            }
        }
        Ok(())
    }

    fn find_or_insert(
        &mut self,
        hash: u32,
        encoded: &[Encoded],
        row: usize,
        free: &mut Ids,
    ) -> Result<u32> {
        let columns = &self.columns;
        let entry = self.table.entry(
            widen(hash),
            |bucket| {
                bucket.0 == hash
                    && columns.iter().zip(encoded).all(|(key, c)| key.equal(bucket.1, c, row))
            },
            |bucket| widen(bucket.0),
        );
        let vacant = match entry {
            Entry::Occupied(bucket) => return Ok(bucket.get().1),
            Entry::Vacant(vacant) => vacant,
        };
        let id = free.allocate()?;
        vacant.insert((hash, id));
        for (key, column) in self.columns.iter_mut().zip(encoded) {
            key.put(id, column, row);
        }
        Ok(id)
    }

    fn remove(&mut self, ids: &[u32]) -> Result<()> {
        let keys = self.columns.iter().map(|c| c.gather(ids)).collect::<Result<Vec<_>>>()?;
        let hashes = hash_rows(&keys, ids.len(), HashUse::Table)?;
        for (id, hash) in ids.iter().zip(hashes) {
            self.table
                .find_entry(widen((hash >> 32) as u32), |bucket| bucket.1 == *id)
                .unwrap_or_else(|_| panic!("group {id} is removed twice"))
                .remove();
            for column in &mut self.columns {
                column.forget(*id);
            }
        }
        for column in &mut self.columns {
            column.drop_dead_text();
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
            + self.columns.iter().map(KeyColumn::memory_bytes).sum::<usize>()
    }
}

/// One key column by id.
struct KeyColumn {
    data_type: DataType,
    /// Whether the value of an id is NULL; empty as long as none is.
    nulls: Flat<bool>,
    values: KeyValues,
}

enum KeyValues {
    Words(Flat<u64>),
    Wide(Flat<u128>),
    Bytes(BytesCodec, ByteStore),
}

/// A key column of a batch, in the form in which it is stored.
struct Encoded {
    nulls: Option<NullBuffer>,
    values: EncodedValues,
}

enum EncodedValues {
    Words(Vec<u64>),
    Wide(Vec<u128>),
    Bytes(BytesColumn),
}

impl Encoded {
    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }
}

impl KeyColumn {
    fn new(data_type: &DataType, blocks: &StateBlocks) -> Result<KeyColumn> {
        let values = match shape_of(data_type) {
            Shape::Word { .. } => KeyValues::Words(blocks.array()),
            Shape::Wide => KeyValues::Wide(blocks.array()),
            Shape::Bytes => KeyValues::Bytes(BytesCodec::new(data_type)?, ByteStore::new(blocks)),
        };
        Ok(KeyColumn { data_type: data_type.clone(), nulls: blocks.array(), values })
    }

    fn encode(&self, column: &ArrayRef) -> Result<Encoded> {
        assert_eq!(column.data_type(), &self.data_type, "key columns keep their types");
        let values = match &self.values {
            KeyValues::Words(_) => EncodedValues::Words(to_words(column)),
            KeyValues::Wide(_) => EncodedValues::Wide(to_wide_words(column)),
            KeyValues::Bytes(codec, _) => EncodedValues::Bytes(codec.encode(column)?),
        };
        let nulls = column.logical_nulls().filter(|n| n.null_count() > 0);
        Ok(Encoded { nulls, values })
    }

    fn is_null(&self, id: u32) -> bool {
        self.nulls.get(id as usize).copied().unwrap_or(false)
    }

    /// Sets to `NONE` each id whose value differs from that of its row.
    fn reject_different(&self, column: &Encoded, ids: &mut [u32]) {
        match (&self.values, &column.values) {
            (KeyValues::Words(values), EncodedValues::Words(rows)) => {
                reject(ids, |id, row| values[id as usize] == rows[row]);
            }
            (KeyValues::Wide(values), EncodedValues::Wide(rows)) => {
                reject(ids, |id, row| values[id as usize] == rows[row]);
            }
            (KeyValues::Bytes(_, values), EncodedValues::Bytes(rows)) => {
                // What the bytes of a NULL are does not matter: its test is below.
                reject(ids, |id, row| {
                    values.get(id) == rows.value(row) || self.is_null(id) && column.is_null(row)
                });
            }
            _ => unreachable!("encoded by this column"),
        }
        if !self.nulls.is_empty() || column.nulls.is_some() {
            reject(ids, |id, row| self.is_null(id) == column.is_null(row));
        }
    }

    fn equal(&self, id: u32, column: &Encoded, row: usize) -> bool {
        let null = self.is_null(id);
        if null || column.is_null(row) {
            return null && column.is_null(row);
        }
        match (&self.values, &column.values) {
            (KeyValues::Words(values), EncodedValues::Words(rows)) => {
                values[id as usize] == rows[row]
            }
            (KeyValues::Wide(values), EncodedValues::Wide(rows)) => {
                values[id as usize] == rows[row]
            }
            (KeyValues::Bytes(_, values), EncodedValues::Bytes(rows)) => {
                values.get(id) == rows.value(row)
            }
            _ => unreachable!("encoded by this column"),
        }
    }

    fn put(&mut self, id: u32, column: &Encoded, row: usize) {
        let null = column.is_null(row);
        if null || !self.nulls.is_empty() {
            put_at(&mut self.nulls, id, null);
        }
        match (&mut self.values, &column.values) {
            (KeyValues::Words(values), EncodedValues::Words(rows)) => {
                put_at(values, id, rows[row]);
            }
            (KeyValues::Wide(values), EncodedValues::Wide(rows)) => put_at(values, id, rows[row]),
            (KeyValues::Bytes(_, values), EncodedValues::Bytes(rows)) => {
                values.put(id, if null { &[] } else { rows.value(row) });
            }
            _ => unreachable!("encoded by this column"),
        }
    }

    fn gather(&self, ids: &[u32]) -> Result<ArrayRef> {
        let valid = (!self.nulls.is_empty())
            .then(|| ids.iter().map(|id| !self.is_null(*id)).collect::<NullBuffer>());
        Ok(match &self.values {
            KeyValues::Words(values) => {
                let words: Vec<u64> = ids.iter().map(|id| values[*id as usize]).collect();
                from_words(&words, valid, &self.data_type)
            }
            KeyValues::Wide(values) => {
                let words: Vec<u128> = ids.iter().map(|id| values[*id as usize]).collect();
                from_wide_words(&words, valid, &self.data_type)
            }
            KeyValues::Bytes(codec, values) => {
                let value = |id: &u32| (!self.is_null(*id)).then(|| values.get(*id));
                codec.decode(ids.iter().map(value))?
            }
        })
    }

    fn forget(&mut self, id: u32) {
        if let KeyValues::Bytes(_, values) = &mut self.values {
            values.forget(id);
        }
    }

    fn drop_dead_text(&mut self) {
        if let KeyValues::Bytes(_, values) = &mut self.values {
            values.drop_dead();
        }
    }

    fn memory_bytes(&self) -> usize {
        let values = match &self.values {
            KeyValues::Words(values) => values.capacity() * size_of::<u64>(),
            KeyValues::Wide(values) => values.capacity() * size_of::<u128>(),
            KeyValues::Bytes(_, values) => values.memory_bytes(),
        };
        values + self.nulls.capacity()
    }
}

/// Sets to `NONE` each id for which `keep(id, row)` is false.
fn reject(ids: &mut [u32], keep: impl Fn(u32, usize) -> bool) {
    for (row, id) in ids.iter_mut().enumerate() {
        if *id != NONE && !keep(*id, row) {
            *id = NONE;
        }
    }
}

/// Byte strings by id, one after the other in one buffer.
struct ByteStore {
    bytes: Flat<u8>,
    /// Where the string of an id begins.
    offsets: Flat<u64>,
    lengths: Flat<u32>,
    /// Bytes of `bytes` that no id owns.
    dead_bytes: usize,
}

impl ByteStore {
    fn new(blocks: &StateBlocks) -> ByteStore {
        let (bytes, offsets, lengths) = (blocks.array(), blocks.array(), blocks.array());
        ByteStore { bytes, offsets, lengths, dead_bytes: 0 }
    }

    #[inline]
    fn get(&self, id: u32) -> &[u8] {
        let start = self.offsets[id as usize] as usize;
        &self.bytes[start..start + self.lengths[id as usize] as usize]
    }

    fn put(&mut self, id: u32, value: &[u8]) {
        put_at(&mut self.offsets, id, self.bytes.len() as u64);
        let length = u32::try_from(value.len()).expect("an array's value is below 4 GiB");
        put_at(&mut self.lengths, id, length);
        self.bytes.extend_from_slice(value);
    }

    fn forget(&mut self, id: u32) {
        self.dead_bytes += self.lengths[id as usize] as usize;
        self.lengths[id as usize] = 0;
    }

    /// Rewrites the buffer when more than half of it is dead.
    fn drop_dead(&mut self) {
        if self.dead_bytes < TEXT_REWRITE_BYTES_MIN || self.dead_bytes * 2 < self.bytes.len() {
            return;
        }
        let live_bytes = self.bytes.len() - self.dead_bytes;
        let mut bytes = Flat::with_capacity_in(live_bytes, self.bytes.allocator().clone());
        for id in 0..self.offsets.len() {
            let start = bytes.len() as u64;
            bytes.extend_from_slice(self.get(id as u32));
            self.offsets[id] = start;
        }
        self.bytes = bytes;
        self.dead_bytes = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.offsets.capacity() * size_of::<u64>()
            + self.lengths.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{Float64Array, Int16Array, Int64Array, StringArray};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn random_column(data_type: &DataType, rows: usize, rng: &mut SmallRng) -> ArrayRef {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter(
            (0..rows).map(|_| rng.random_bool(0.9).then(|| rng.random_range(-20..20i64))),
        ));
        match data_type {
            DataType::Utf8 => {
                let numbers = numbers.as_primitive::<arrow::datatypes::Int64Type>();
                let text = |n: i64| "x".repeat((n + 20) as usize);
                Arc::new(numbers.iter().map(|n| n.map(text)).collect::<StringArray>())
            }
            other => arrow::compute::cast(&numbers, other).expect("casts from bigint"),
        }
    }

    /// The keys of a batch as text, for the oracle.
    fn texts(columns: &[ArrayRef], rows: usize) -> Vec<String> {
        let show = |c: &ArrayRef, row| {
            arrow::util::display::array_value_to_string(c, row).expect("displays")
                + if c.is_null(row) { "NULL" } else { "" }
        };
        (0..rows)
            .map(|row| columns.iter().map(|c| show(c, row)).collect::<Vec<_>>().join("|"))
            .collect()
    }

    #[test]
    fn ids_follow_keys_through_inserts_and_removals() {
        use DataType as T;
        let shapes: &[(&[DataType], &str)] = &[
            (&[], "empty"),
            (&[T::Int64], "one"),
            (&[T::Int32, T::Int16, T::Boolean], "one"),
            (&[T::Int64, T::Int32], "two"),
            (&[T::Float64, T::Int64], "two"),
            (&[T::Decimal128(20, 2)], "two"),
            (&[T::Utf8], "hashed"),
            (&[T::Utf8, T::Int32, T::Decimal128(20, 2)], "hashed"),
            (&[T::Int64, T::Int64, T::Float64], "hashed"),
        ];
        for (seed, (types, shape)) in shapes.iter().enumerate() {
            let mut rng = SmallRng::seed_from_u64(seed as u64);
            let mut index = GroupIndex::new(types).expect("an index");
            let made = match &index.keys {
                Keys::Empty => "empty",
                Keys::One(_) => "one",
                Keys::Two(_) => "two",
                Keys::Hashed(_) => "hashed",
            };
            assert_eq!(made, *shape);
            let mut oracle: HashMap<String, u32> = HashMap::new();
            let mut ids = Vec::new();
            for _ in 0..200 {
                let rows = rng.random_range(0..60);
                let columns: Vec<ArrayRef> =
                    types.iter().map(|t| random_column(t, rows, &mut rng)).collect();
                index.intern(&columns, rows, &mut ids).expect("interns");
                for (key, id) in texts(&columns, rows).into_iter().zip(&ids) {
                    assert_eq!(oracle.entry(key).or_insert(*id), id);
                }
                assert_eq!(index.len(), oracle.len());
                let mut live: Vec<u32> = oracle.values().copied().collect();
                live.sort_unstable();
                assert!(live.is_sorted_by(|a, b| a < b), "no id is given out twice");
                let keys = index.gather(&live).expect("gathers");
                for (key, id) in texts(&keys, live.len()).iter().zip(&live) {
                    assert!(types.is_empty() || oracle[key] == *id, "{key}");
                }
                if !types.is_empty() {
                    let dead: Vec<u32> =
                        live.into_iter().filter(|_| rng.random_bool(0.2)).collect();
                    index.remove(&dead).expect("removes");
                    oracle.retain(|_, id| !dead.contains(id));
                }
            }
            assert!(index.id_limit() < 20_000, "ids are given out again");
        }
    }

    #[test]
    fn zeros_are_one_key_and_nulls_are_not_zero() {
        let mut ids = Vec::new();
        let mut index = GroupIndex::new(&[DataType::Float64]).expect("an index");
        let column: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), None, Some(f64::NAN), None]));
        index.intern(&[column], 5, &mut ids).expect("interns");
        assert_eq!(ids, [0, 0, 1, 2, 1]);
        let mut index = GroupIndex::new(&[DataType::Int16, DataType::Int16]).expect("an index");
        let a: ArrayRef = Arc::new(Int16Array::from(vec![None, Some(i16::MIN), None]));
        let b: ArrayRef = Arc::new(Int16Array::from(vec![Some(i16::MIN), None, None]));
        index.intern(&[a, b], 3, &mut ids).expect("interns");
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn dead_text_is_dropped() {
        let mut index = GroupIndex::new(&[DataType::Utf8]).expect("an index");
        let mut ids = Vec::new();
        for round in 0..100 {
            let column: ArrayRef = Arc::new(StringArray::from_iter_values(
                (0..100).map(|i| format!("{round:04} {i:04} {}", "x".repeat(100))),
            ));
            index.intern(&[column], 100, &mut ids).expect("interns");
            index.remove(&ids[1..]).expect("removes");
        }
        assert_eq!(index.len(), 100);
        assert!(index.memory_bytes() < 400_000, "{}", index.memory_bytes());
    }
}
