//! Joins two changing inputs on equal keys; both sides are kept, both are looked up.
//!
//! 1. The rows of each side stand in a table by key columns. Rows with a NULL key never match
//!    (unless NULLs are equal here) and are not kept: they pass by, padded, or are dropped.
//! 2. `on_batch`: an inner join of inputs that never delete answers at once. All others collect the
//!    epoch's changes, because a match that comes within the epoch must not show as a row without
//!    matches first, and because consolidated changes make consolidated output.
//! 3. `on_epoch`: one side advances while the other stands still, then the other. Advancing a side
//!    by its changes d: a) its rows look up the other side and make pairs, weights multiplied,
//!    8192 pairs at a time; b) if rows of this side show by whether they match (outer, semi, anti),
//!    those of d do so now; c) if rows of the other side show by whether they match, those whose
//!    first match came or whose last match went appear or disappear; d) d enters the table.
//! 4. When both sides changed, the sum is consolidated before it leaves.
//!
//! Whether a row of the other side has matches is, without a residual condition, whether its key
//! has rows on this side: nothing is stored for it. With one, each row carries the number of its
//! matches; these counts are not checkpointed but computed again by `restore`.
//!
//! A pair for which the residual condition fails is no match, and is reported with its weight.
//!
//! Keeps: every row of both sides with a key. Of the right side of a semi or anti join without
//! residual condition only the key columns.
//!
//! No watermark is passed on but the end: a row that arrives late for one side may still meet any
//! row of the other.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions, UInt32Array,
    new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use hashbrown::{HashMap, HashSet};

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::evaluate::{evaluate_condition, report};
use crate::plan::expr::Expr;
use crate::plan::node::{self, JoinKind};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::multi_table::{MultiTable, Walk};
use crate::state::row_ids::{NIL, ShortId};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::time::{Epoch, Watermark};

/// Pairs, and rows looked up, in one step of the kernel; also the rows of an output batch.
const STEP_ROWS: usize = 8192;

const LEFT: usize = 0;
const RIGHT: usize = 1;
/// The sides' tables in a checkpoint.
const TABLES: [&str; 2] = ["left", "right"];

/// What to join.
#[derive(Clone, Debug)]
pub struct JoinSpec {
    pub kind: JoinKind,
    /// Pairs of equal columns: (left column, right column). Empty: every pair of rows is tried.
    pub keys: Vec<(usize, usize)>,
    pub null_equals_null: bool,
    /// Further condition over left columns then right columns.
    pub residual: Option<Expr>,
    /// Neither input ever deletes.
    pub append_only: bool,
    pub schema: SchemaRef,
}

impl From<&node::Join> for JoinSpec {
    fn from(node: &node::Join) -> JoinSpec {
        JoinSpec {
            kind: node.kind,
            keys: node.keys.clone(),
            null_equals_null: node.null_equals_null,
            residual: node.residual.clone(),
            append_only: node.left.input.append_only() && node.right.input.append_only(),
            schema: node.schema.clone(),
        }
    }
}

/// When a row shows by itself, not as part of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Never,
    /// Semi join.
    Matched,
    /// Anti join, and padded with NULLs in an outer join.
    Unmatched,
}

impl Shows {
    fn of(kind: JoinKind, port: usize) -> Shows {
        match (kind, port) {
            (JoinKind::Left | JoinKind::Full | JoinKind::LeftAnti, LEFT) => Shows::Unmatched,
            (JoinKind::Right | JoinKind::Full, RIGHT) => Shows::Unmatched,
            (JoinKind::LeftSemi, LEFT) => Shows::Matched,
            _ => Shows::Never,
        }
    }

    fn when(self, matched: bool) -> bool {
        match self {
            Shows::Never => false,
            Shows::Matched => matched,
            Shows::Unmatched => !matched,
        }
    }
}

/// One input.
struct Side {
    /// Its columns.
    schema: SchemaRef,
    /// Its key columns, in key order.
    keys: Vec<usize>,
    shows: Shows,
    /// The columns that the table keeps: all, or the key columns.
    kept: Vec<usize>,
    keeps_all: bool,
    /// Where the key columns stand in the table.
    table_keys: Vec<usize>,
    /// Rows that have a key. Has counts when rows show by their matches under a residual condition.
    table: MultiTable,
    /// Changes of the current epoch.
    changes: Vec<ChangeBatch>,
    watermark: Option<Watermark>,
}

impl Side {
    fn key_columns(&self, rows: &ChangeBatch) -> Vec<ArrayRef> {
        rows.columns_at(&self.keys)
    }
}

/// The residual condition, and what it reads.
struct Residual {
    expr: Expr,
    /// Columns used, of left columns then right columns.
    used: Vec<usize>,
    /// Left columns then right columns, those not used without values.
    schema: SchemaRef,
}

/// The `join` operator.
pub struct Join {
    spec: JoinSpec,
    sides: [Side; 2],
    residual: Option<Residual>,
    /// Pairs are part of the output.
    emits_pairs: bool,
    /// Output of the current epoch.
    pending: Vec<ChangeBatch>,
}

/// How rows of one side matched.
struct Matches {
    /// Sum of the weights of each row's matches; without a residual condition only whether it is 0.
    of_rows: Vec<i64>,
    /// What the matches of rows of the other side change by.
    of_others: HashMap<ShortId, i64>,
}

impl Join {
    /// # Errors
    /// When two key columns differ in type (ours: the planner makes them equal).
    pub fn new(spec: JoinSpec, left: &SchemaRef, right: &SchemaRef) -> Result<Join> {
        for (l, r) in &spec.keys {
            let (l, r) = (left.field(*l), right.field(*r));
            if l.data_type() != r.data_type() {
                return Err(Error::internal(format!(
                    "join keys {} and {} have types {} and {}",
                    l.name(),
                    r.name(),
                    l.data_type(),
                    r.data_type()
                )));
            }
        }
        let residual = spec.residual.clone().map(|expr| {
            let used = expr.input_columns();
            let fields = left.fields().iter().chain(right.fields()).enumerate();
            let fields = fields.map(|(index, field)| match used.contains(&index) {
                true => field.clone(),
                false => Arc::new(Field::new(field.name(), DataType::Null, true)),
            });
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            Residual { expr, used, schema }
        });
        let emits_pairs = !matches!(spec.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let side = |port: usize, schema: &SchemaRef| -> Result<Side> {
            let keys = spec.keys.iter().map(|(l, r)| if port == LEFT { *l } else { *r });
            let keys: Vec<usize> = keys.collect();
            let shows = Shows::of(spec.kind, port);
            let only_keys = !emits_pairs && shows == Shows::Never && residual.is_none();
            let kept = if only_keys { keys.clone() } else { (0..schema.fields().len()).collect() };
            let table_keys = if only_keys { (0..keys.len()).collect() } else { keys.clone() };
            let table_schema = Arc::new(schema.project(&kept)?);
            let table = MultiTable::keyed(table_schema, table_keys.clone())?;
            let counted = shows != Shows::Never && residual.is_some();
            Ok(Side {
                schema: schema.clone(),
                keys,
                shows,
                kept,
                keeps_all: !only_keys,
                table_keys,
                table: if counted { table.with_counts() } else { table },
                changes: Vec::new(),
                watermark: None,
            })
        };
        let sides = [side(LEFT, left)?, side(RIGHT, right)?];
        Ok(Join { spec, sides, residual, emits_pairs, pending: Vec::new() })
    }

    fn answers_at_once(&self) -> bool {
        self.spec.kind == JoinKind::Inner && self.spec.append_only
    }

    /// Advances side `port` by changes while the other side stands still.
    fn advance(&mut self, port: usize, changes: ChangeBatch, out: &mut Output) -> Result<()> {
        let changes = self.pass_null_keys(port, changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut matches = Matches { of_rows: Vec::new(), of_others: HashMap::new() };
        for start in (0..changes.num_rows()).step_by(STEP_ROWS) {
            let step = changes.slice(start, STEP_ROWS.min(changes.num_rows() - start));
            self.match_rows(port, &step, &mut matches, true, out)?;
            let shows = self.sides[port].shows;
            if shows != Shows::Never {
                let shown = matches.of_rows[start..].iter().map(|m| Some(shows.when(*m > 0)));
                let shown = step.filter(&BooleanArray::from_iter(shown))?;
                self.show(port, shown)?;
            }
        }
        let others_show = self.sides[1 - port].shows != Shows::Never;
        if others_show && self.residual.is_some() {
            self.apply(port, &changes, &matches)?;
            return self.flip_counted(1 - port, matches.of_others);
        }
        if others_show && self.sides[1 - port].table.live_rows() > 0 {
            let keys = self.sides[port].key_columns(&changes);
            let before = self.sides[port].table.heads(keys.clone(), changes.num_rows())?;
            self.apply(port, &changes, &matches)?;
            let after = self.sides[port].table.heads(keys.clone(), changes.num_rows())?;
            return self.flip_keys(1 - port, keys, &before, &after);
        }
        self.apply(port, &changes, &matches)
    }

    /// Rows with a NULL key match nothing; gives the others.
    fn pass_null_keys(&mut self, port: usize, changes: ChangeBatch) -> Result<ChangeBatch> {
        if self.spec.null_equals_null {
            return Ok(changes);
        }
        let side = &self.sides[port];
        let nulls = side.key_columns(&changes).iter().fold(None, |all: Option<NullBuffer>, c| {
            NullBuffer::union(all.as_ref(), c.logical_nulls().as_ref())
        });
        let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else { return Ok(changes) };
        let keyed = BooleanArray::new(nulls.into_inner(), None);
        if side.shows == Shows::Unmatched {
            let passing = changes.filter(&compute::not(&keyed)?)?;
            self.show(port, passing)?;
        }
        changes.filter(&keyed)
    }

    /// Lets rows of side `port`, at most `STEP_ROWS` of them, look up the other side. Only when they
    /// advance are pairs emitted and matches of the other side counted.
    fn match_rows(
        &mut self,
        port: usize,
        rows: &ChangeBatch,
        matches: &mut Matches,
        advancing: bool,
        out: &mut Output,
    ) -> Result<()> {
        let [own, other] = own_and_other(&mut self.sides, port);
        if self.residual.is_none() && !self.emits_pairs && own.shows == Shows::Never {
            // The right side of a semi or anti join: nobody asks what its rows match.
            return Ok(());
        }
        let heads = other.table.heads(own.key_columns(rows), rows.num_rows())?;
        let first = matches.of_rows.len();
        if self.residual.is_none() {
            matches.of_rows.extend(heads.iter().map(|head| i64::from(*head != NIL)));
            if !self.emits_pairs {
                return Ok(());
            }
        } else {
            matches.of_rows.resize(first + rows.num_rows(), 0);
        }
        let mut walk = Walk::new(&heads);
        let mut more = true;
        while more {
            let (mut pair_rows, mut ids) = (Vec::new(), Vec::new());
            let other = &mut self.sides[1 - port].table;
            more = other.walk(&mut walk, STEP_ROWS, &mut pair_rows, &mut ids);
            let pairs = Pairs { rows: UInt32Array::from(pair_rows), ids };
            let Some(pairs) = self.meet_residual(port, rows, pairs, out)? else { continue };
            let weights = self.sides[1 - port].table.weights(&pairs.ids);
            if self.residual.is_some() {
                let others = advancing && self.sides[1 - port].shows != Shows::Never;
                for (index, (row, id)) in pairs.rows.values().iter().zip(&pairs.ids).enumerate() {
                    let row = *row as usize;
                    let weight = weights.as_ref().map_or(1, |weights| weights[index]);
                    matches.of_rows[first + row] += weight;
                    if others {
                        *matches.of_others.entry(*id).or_default() += rows.weight(row);
                    }
                }
            }
            if advancing && self.emits_pairs {
                self.emit_pairs(port, rows, &pairs, weights, out)?;
            }
        }
        Ok(())
    }

    /// The pairs for which the residual condition is true; `None` when there is none.
    fn meet_residual(
        &self,
        port: usize,
        rows: &ChangeBatch,
        pairs: Pairs,
        out: &mut Output,
    ) -> Result<Option<Pairs>> {
        if pairs.ids.is_empty() {
            return Ok(None);
        }
        let Some(residual) = &self.residual else { return Ok(Some(pairs)) };
        let length = pairs.ids.len();
        let nothing: ArrayRef = Arc::new(NullArray::new(length));
        let mut columns = vec![nothing; residual.schema.fields().len()];
        for (column, values) in
            residual.used.iter().zip(self.pair_columns(port, rows, &pairs, &residual.used)?)
        {
            columns[*column] = values;
        }
        let batch = batch(residual.schema.clone(), columns, length)?;
        let (condition, failed) = evaluate_condition(&residual.expr, &batch)?;
        if !failed.is_empty() {
            self.report_pairs(port, rows, &pairs, failed, out)?;
        }
        let met = condition.true_count();
        if met == length {
            return Ok(Some(pairs));
        }
        if met == 0 {
            return Ok(None);
        }
        let keep: Vec<usize> = condition.values().set_indices().collect();
        Ok(Some(Pairs {
            rows: keep.iter().map(|index| pairs.rows.value(*index)).collect::<Vec<u32>>().into(),
            ids: keep.iter().map(|index| pairs.ids[*index]).collect(),
        }))
    }

    /// Reports pairs whose residual condition could not be evaluated, with all their columns.
    fn report_pairs(
        &self,
        port: usize,
        rows: &ChangeBatch,
        pairs: &Pairs,
        failed: Vec<(usize, Error)>,
        out: &mut Output,
    ) -> Result<()> {
        let residual = self.residual.as_ref().expect("it failed");
        let bad = Pairs {
            rows: failed.iter().map(|(i, _)| pairs.rows.value(*i)).collect::<Vec<u32>>().into(),
            ids: failed.iter().map(|(i, _)| pairs.ids[*i]).collect(),
        };
        let fields = self.sides.iter().flat_map(|side| side.schema.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let columns = self.pair_columns(port, rows, &bad, &all)?;
        let batch = batch(schema, columns, bad.ids.len())?;
        let weights = self.sides[1 - port].table.weights(&bad.ids);
        let weight = |index: usize| {
            let other = weights.as_ref().map_or(1, |weights| weights[index]);
            rows.weight(bad.rows.value(index) as usize).saturating_mul(other)
        };
        let failed = failed.into_iter().enumerate().map(|(index, (_, error))| (index, error));
        report(&residual.expr, &batch, failed.collect(), weight, out)
    }

    /// Columns of pairs, numbered over left columns then right columns.
    fn pair_columns(
        &self,
        port: usize,
        rows: &ChangeBatch,
        pairs: &Pairs,
        columns: &[usize],
    ) -> Result<Vec<ArrayRef>> {
        let left_columns = self.sides[LEFT].schema.fields().len();
        let place = |column: usize| match column.checked_sub(left_columns) {
            None => (LEFT, column),
            Some(column) => (RIGHT, column),
        };
        let others: Vec<usize> =
            columns.iter().map(|c| place(*c)).filter(|(p, _)| *p != port).map(|(_, c)| c).collect();
        let mut others = self.sides[1 - port].table.gather(&others, &pairs.ids)?.into_iter();
        // Where every row has one match, the rows' columns are the pairs'.
        let same = pairs.ids.len() == rows.num_rows()
            && pairs.rows.values().iter().enumerate().all(|(index, row)| index == *row as usize);
        let values = columns.iter().map(|column| match place(*column) {
            (side, column) if side != port => {
                let _ = column;
                Ok(others.next().expect("one gathered array per column of the other side"))
            }
            (_, column) if same => Ok(rows.column(column).clone()),
            (_, column) => Ok(compute::take(rows.column(column), &pairs.rows, None)?),
        });
        values.collect()
    }

    fn emit_pairs(
        &mut self,
        port: usize,
        rows: &ChangeBatch,
        pairs: &Pairs,
        weights: Option<Vec<i64>>,
        out: &mut Output,
    ) -> Result<()> {
        let all: Vec<usize> = (0..self.spec.schema.fields().len()).collect();
        let columns = self.pair_columns(port, rows, pairs, &all)?;
        let joined = batch(self.spec.schema.clone(), columns, pairs.ids.len())?;
        let joined = if rows.all_inserts() && weights.is_none() {
            ChangeBatch::inserts(joined)
        } else {
            let product = |(index, row): (usize, &u32)| {
                let other = weights.as_ref().map_or(1, |weights| weights[index]);
                rows.weight(*row as usize).checked_mul(other).ok_or_else(weight_overflow)
            };
            let products = pairs.rows.values().iter().enumerate().map(product);
            ChangeBatch::new(joined, products.collect::<Result<_>>()?)?
        };
        if self.answers_at_once() {
            out.emit(joined);
        } else {
            self.pending.push(joined);
        }
        Ok(())
    }

    /// Rows of side `port` appear (or with negative weight disappear) by themselves.
    fn show(&mut self, port: usize, rows: ChangeBatch) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let length = rows.num_rows();
        let mut columns = rows.rows().columns().to_vec();
        if self.emits_pairs {
            let fields = self.sides[1 - port].schema.fields();
            let nulls = fields.iter().map(|field| new_null_array(field.data_type(), length));
            let at = if port == LEFT { columns.len() } else { 0 };
            columns.splice(at..at, nulls);
        }
        let shown = batch(self.spec.schema.clone(), columns, length)?;
        self.pending.push(rows.with_rows(shown));
        Ok(())
    }

    /// Rows of side `port` with these ids appear or disappear.
    fn flip(
        &mut self,
        port: usize,
        ids: &[ShortId],
        appears: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let side = &self.sides[port];
        let columns = side.table.gather(&side.kept, ids)?;
        let rows = batch(side.schema.clone(), columns, ids.len())?;
        let weights = side.table.weights(ids).unwrap_or_else(|| vec![1; ids.len()]);
        let weights = weights.into_iter().enumerate();
        let weights = weights.map(|(index, w)| if appears(index) { w } else { -w }).collect();
        self.show(port, ChangeBatch::new(rows, weights)?)
    }

    /// The numbers of matches of some rows of side `port` have changed.
    fn flip_counted(&mut self, port: usize, changed: HashMap<ShortId, i64>) -> Result<()> {
        let side = &mut self.sides[port];
        let mut flipped: Vec<(ShortId, bool)> = Vec::new();
        for (id, change) in changed {
            let before = side.table.count(id);
            let after = before + change;
            side.table.set_count(id, after);
            if (before > 0) != (after > 0) {
                flipped.push((id, side.shows.when(after > 0)));
            }
        }
        // Not in the order of a hash table: output does not differ from run to run.
        flipped.sort_unstable();
        for step in flipped.chunks(STEP_ROWS) {
            let ids: Vec<ShortId> = step.iter().map(|(id, _)| *id).collect();
            self.flip(port, &ids, |index| step[index].1)?;
        }
        Ok(())
    }

    /// Keys may have come to side `1 - port` or gone there: rows of side `port` with them flip.
    fn flip_keys(
        &mut self,
        port: usize,
        keys: Vec<ArrayRef>,
        before: &[ShortId],
        after: &[ShortId],
    ) -> Result<()> {
        let changed = |row: &usize| (before[*row] == NIL) != (after[*row] == NIL);
        let rows: Vec<u32> = (0..before.len()).filter(changed).map(|row| row as u32).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let indices = UInt32Array::from(rows.clone());
        let keys = keys.iter().map(|column| compute::take(column, &indices, None));
        let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
        let mut heads = self.sides[port].table.heads(keys, rows.len())?;
        // A key that changed in several rows flips once: its rows hang on one head.
        let mut seen = HashSet::with_capacity(heads.len());
        for head in &mut heads {
            if *head != NIL && !seen.insert(*head) {
                *head = NIL;
            }
        }
        let shows = self.sides[port].shows;
        let mut walk = Walk::new(&heads);
        let mut more = true;
        while more {
            let (mut pair_rows, mut ids) = (Vec::new(), Vec::new());
            more = self.sides[port].table.walk(&mut walk, STEP_ROWS, &mut pair_rows, &mut ids);
            let matched = |index: usize| after[rows[pair_rows[index] as usize] as usize] != NIL;
            self.flip(port, &ids, |index| shows.when(matched(index)))?;
        }
        Ok(())
    }

    /// Changes enter the table of their side.
    fn apply(&mut self, port: usize, changes: &ChangeBatch, matches: &Matches) -> Result<()> {
        let counted = self.sides[port].shows != Shows::Never && self.residual.is_some();
        let side = &mut self.sides[port];
        let kept = if side.keeps_all { changes.clone() } else { changes.project(&side.kept)? };
        side.table.apply_with_counts(&kept, counted.then_some(matches.of_rows.as_slice()))
    }

    /// Whether the epoch's output may hold rows that take each other back, when only one side
    /// changed: a padded row looks like a pair with a row of NULLs only.
    fn padding_may_look_like_a_pair(&self) -> bool {
        let pads = matches!(self.spec.kind, JoinKind::Left | JoinKind::Right | JoinKind::Full);
        pads && (self.spec.keys.is_empty() || self.spec.null_equals_null)
    }

    /// Counts the matches of all rows anew.
    fn restore_counts(&mut self) -> Result<()> {
        for port in [LEFT, RIGHT] {
            if self.residual.is_none() || self.sides[port].shows == Shows::Never {
                continue;
            }
            let segments = self.sides[port].table.live().collect::<Result<Vec<_>>>()?;
            for (ids, rows) in segments {
                let rows = ChangeBatch::inserts(rows);
                let mut matches = Matches { of_rows: Vec::new(), of_others: HashMap::new() };
                // What fails was reported when it first did.
                let mut reported = Output::default();
                for start in (0..rows.num_rows()).step_by(STEP_ROWS) {
                    let step = rows.slice(start, STEP_ROWS.min(rows.num_rows() - start));
                    self.match_rows(port, &step, &mut matches, false, &mut reported)?;
                }
                for (id, count) in ids.iter().zip(matches.of_rows) {
                    self.sides[port].table.set_count(*id, count);
                }
            }
        }
        Ok(())
    }
}

impl Operator for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        if self.answers_at_once() {
            return self.advance(port, batch, out);
        }
        self.sides[port].changes.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.sides[port].watermark = Some(watermark);
        if self.sides.iter().all(|side| side.watermark == Some(Watermark::END)) {
            out.emit_watermark(Watermark::END);
        }
        Ok(())
    }

    fn on_epoch(&mut self, _epoch: Epoch, out: &mut Output) -> Result<()> {
        // The side whose rows show by their matches advances last: it sees all of them.
        let order = if self.spec.kind == JoinKind::Right { [LEFT, RIGHT] } else { [RIGHT, LEFT] };
        let both = self.sides.iter().all(|side| !side.changes.is_empty());
        for port in order {
            let side = &mut self.sides[port];
            let changes = std::mem::take(&mut side.changes);
            for changes in consolidate(&side.schema, changes)? {
                self.advance(port, changes, out)?;
            }
        }
        let mut pending = std::mem::take(&mut self.pending);
        if both || self.padding_may_look_like_a_pair() {
            pending = consolidate(&self.spec.schema, pending)?;
        }
        for batch in pending {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, _epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        for (side, table) in self.sides.iter_mut().zip(TABLES) {
            assert!(side.changes.is_empty(), "an epoch's changes are taken in when it completes");
            writer.write(table, side.table.checkpoint_delta()?);
        }
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        for (side, table) in self.sides.iter_mut().zip(TABLES) {
            side.table.restore(reader.read(table, &side.table_keys)?)?;
        }
        self.restore_counts()
    }

    fn memory_bytes(&self) -> usize {
        let side = |side: &Side| {
            side.table.memory_bytes()
                + side.changes.iter().map(ChangeBatch::size_bytes).sum::<usize>()
        };
        self.sides.iter().map(side).sum()
    }

    fn state_rows(&self) -> usize {
        self.sides.iter().map(|side| side.table.live_rows()).sum()
    }
}

/// Rows of a batch and rows of the other side's table that match.
struct Pairs {
    rows: UInt32Array,
    ids: Vec<ShortId>,
}

/// The side of `port`, then the other.
fn own_and_other(sides: &mut [Side; 2], port: usize) -> [&mut Side; 2] {
    let [left, right] = sides;
    if port == LEFT { [left, right] } else { [right, left] }
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Changes with equal rows added up. Inserts alone stay as they came.
fn consolidate(schema: &SchemaRef, changes: Vec<ChangeBatch>) -> Result<Vec<ChangeBatch>> {
    if changes.iter().all(ChangeBatch::all_inserts) {
        return Ok(changes);
    }
    let all = ChangeBatch::concat(schema, &changes)?.consolidate()?;
    Ok(if all.is_empty() { vec![] } else { vec![all] })
}

fn weight_overflow() -> Error {
    Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "number of joined rows out of range")
        .detail("A joined row would stand more than 2^63 times.")
}

#[cfg(test)]
mod tests;
