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
//!    those of d do so now; c) d enters the table; d) if rows of the other side show by whether they
//!    match, those whose first match came or whose last match went appear or disappear.
//! 4. All of this stops when enough has been emitted, and goes on in the next call: a batch that
//!    meets a key with very many rows makes pairs as fast as they are taken, never all at once.
//!
//! What is emitted for an epoch must not hold rows that take each other back, though it leaves piece
//! by piece. Let the changes be dL and dR, and R advance first. Where dL and dR are inserts nothing
//! is taken back. Otherwise L advances by its deletions, R by dR, L by its insertions; then a pair
//! (l, r) comes with two signs only if both l and r had copies before and keep some: pairs of such
//! rows of dL, and of dR, are set aside, consolidated and emitted last. So are all rows that show by
//! themselves in a full join of two changed sides, and, where padding with NULLs looks like a pair
//! with a row of NULLs, the padded rows and those pairs. What is set aside is held as a whole.
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
//! A side whose rows never show by themselves may be kept by an index (`side_table.rs`): nothing of it
//! is kept here, and its changes come from the index. They enter by reading it as of the epoch
//! instead of the one before.
//!
//! Rows that are too old to meet anything are forgotten (`aging.rs`): where the keys have a time that
//! both watermarks have passed, or where the residual condition bounds a row's age
//! (`a.ts BETWEEN b.ts - x AND b.ts + y`); in one walk over the tables now and then.
//!
//! The watermark is the lesser one of both sides. It bounds only columns that the keys make equal:
//! a row of one side may still meet any row of the other.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions, UInt32Array,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use hashbrown::{HashMap, HashSet};

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::evaluate::{evaluate_condition, report};
use crate::dataflow::operators::forgetting::Walks;
use crate::dataflow::operators::waiting::WaitingChanges;
use crate::plan::expr::Expr;
use crate::plan::node::{self, JoinKind};
use crate::state::arrangement::Reader;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::multi_table::{MultiTable, Walk};
use crate::state::row_ids::{NIL, ShortId};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::time::{Epoch, Watermark};

mod aging;
mod side_table;

pub use aging::Aging;
use side_table::SideTable;

/// Pairs, and rows looked up, in one step of the kernel; also the rows of an output batch.
const STEP_ROWS: usize = 8192;

/// Pairs that are tried against a residual condition before others get to work, when few meet it.
const TRIED_PAIRS_MAX: usize = 128 * STEP_ROWS;

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
    /// When rows of each side are too old to meet others, and whose watermark tells.
    pub aging: [Aging; 2],
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
            aging: Aging::of(node),
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
    table: SideTable,
    /// Changes of the current epoch.
    changes: WaitingChanges,
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
    /// Changes on their way into the tables, in this order.
    work: VecDeque<Advance>,
    /// Rows that show by themselves are set aside in this epoch.
    shows_aside: bool,
    /// Output of the current epoch that other output may take back.
    aside: WaitingChanges,
    /// Output of the current epoch that has yet to leave.
    leaving: VecDeque<ChangeBatch>,
    /// Pairs tried in this call.
    tried_pairs: usize,
    /// When the tables are looked through for rows that are too old.
    walks: Walks,
    /// The numbers of matches are yet to be computed again: only in an epoch can an index be read.
    counts_due: bool,
}

/// How rows of one side matched.
#[derive(Default)]
struct Matches {
    /// Sum of the weights of each row's matches; without a residual condition only whether it is 0.
    of_rows: Vec<i64>,
    /// What the matches of rows of the other side change by.
    of_others: HashMap<ShortId, i64>,
}

/// Changes of one side on their way into its table, while the other side stands still.
struct Advance {
    port: usize,
    /// Those with a key.
    changes: ChangeBatch,
    /// Whether the pairs of each row are set aside; empty: of none.
    aside: Vec<bool>,
    matches: Matches,
    stage: Stage,
}

/// How far changes have come.
enum Stage {
    /// Rows from `next` on have yet to look up the other side; some before are about to.
    Match { next: usize, step: Option<LookUp> },
    /// The changes are in the table; rows of the other side appear or disappear.
    Flip(Flips),
}

/// Rows, at most `STEP_ROWS` of them, that look up the other side.
struct LookUp {
    rows: ChangeBatch,
    /// Where they stand in the changes.
    first: usize,
    walk: Walk,
}

/// Rows that have yet to appear (or disappear) because their matches changed.
enum Flips {
    /// Row and whether it appears, from `next` on.
    Rows { flipped: Vec<(ShortId, bool)>, next: usize },
    /// The rows of the chains of some keys.
    Keys {
        walk: Walk,
        /// By key: whether the rows appear.
        appear: Vec<bool>,
    },
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
            let table = if spec.aging[port].append_only { table } else { table.deleting() };
            let counted = shows != Shows::Never && residual.is_some();
            Ok(Side {
                schema: schema.clone(),
                keys,
                shows,
                kept,
                keeps_all: !only_keys,
                table_keys,
                table: SideTable::Own(if counted { table.with_counts() } else { table }),
                changes: WaitingChanges::default(),
                watermark: None,
            })
        };
        let sides = [side(LEFT, left)?, side(RIGHT, right)?];
        Ok(Join {
            spec,
            sides,
            residual,
            emits_pairs,
            work: VecDeque::new(),
            shows_aside: false,
            aside: WaitingChanges::default(),
            leaving: VecDeque::new(),
            tried_pairs: 0,
            walks: Walks::default(),
            counts_due: false,
        })
    }

    /// The same join, which reads the rows of a side from an index instead of keeping them.
    /// `columns` says where each of the side's columns is in the index, whose key are the columns of
    /// the join's keys in their order.
    #[must_use]
    pub fn sharing(mut self, port: usize, reader: Reader, columns: Vec<usize>) -> Join {
        let side = &mut self.sides[port];
        assert_eq!(side.shows, Shows::Never, "rows that show by themselves are kept by the join");
        side.table = SideTable::shared(reader, columns);
        self
    }

    fn answers_at_once(&self) -> bool {
        let shared = self.sides.iter().any(|side| side.table.is_shared());
        self.spec.kind == JoinKind::Inner && self.spec.append_only && !shared
    }

    /// Whether it is time to let others work.
    fn is_enough(&self, out: &Output) -> bool {
        out.is_full() || self.tried_pairs >= TRIED_PAIRS_MAX
    }

    /// Queues changes of a side.
    fn enqueue(&mut self, port: usize, changes: ChangeBatch, aside: Vec<bool>) {
        if !changes.is_empty() {
            let stage = Stage::Match { next: 0, step: None };
            let matches = Matches::default();
            self.work.push_back(Advance { port, changes, aside, matches, stage });
        }
    }

    /// Queues the changes of a complete epoch.
    fn enqueue_epoch(&mut self, out: &mut Output) -> Result<()> {
        if self.sides.iter().all(|side| side.changes.is_empty()) {
            return Ok(());
        }
        // The side whose rows show by their matches advances last: it sees all of them. One that is
        // read from an index advances at once, which only the first does.
        let left_first = self.spec.kind == JoinKind::Right || self.sides[LEFT].table.is_shared();
        let [first, last] = if left_first { [LEFT, RIGHT] } else { [RIGHT, LEFT] };
        assert!(!self.sides[last].table.is_shared(), "a side in an index never shows by itself");
        let both = self.sides.iter().all(|side| !side.changes.is_empty());
        self.shows_aside =
            both && self.spec.kind == JoinKind::Full || self.padding_may_look_like_a_pair();
        let [firsts, lasts] = [first, last].map(|port| -> Result<Vec<ChangeBatch>> {
            let changes = self.sides[port].changes.take();
            let side = &self.sides[port];
            let mut changes = consolidate(&side.schema, changes)?;
            if side.table.is_shared() && changes.len() > 1 {
                // They enter all at once.
                changes = vec![ChangeBatch::concat(&side.schema, &changes)?];
            }
            changes.into_iter().map(|batch| self.pass_null_keys(port, batch, out)).collect()
        });
        let (firsts, lasts) = (firsts?, lasts?);
        let inserts = |batches: &[ChangeBatch]| batches.iter().all(ChangeBatch::all_inserts);
        if !both || inserts(&firsts) && inserts(&lasts) {
            firsts.into_iter().for_each(|batch| self.enqueue(first, batch, vec![]));
            lasts.into_iter().for_each(|batch| self.enqueue(last, batch, vec![]));
            return Ok(());
        }
        let [first_copies, last_copies] = self.copies_of_both([first, last], [&firsts, &lasts])?;
        let mut insertions = Vec::new();
        for (batch, copies) in lasts.into_iter().zip(last_copies) {
            let deletes = |row: &usize| batch.weight(*row) < 0;
            let (minus, plus): (Vec<usize>, Vec<usize>) = (0..batch.num_rows()).partition(deletes);
            for (rows, deletes) in [(minus, true), (plus, false)] {
                let places: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
                let part = batch.take(&UInt32Array::from(places))?;
                let copies = match copies.is_empty() {
                    true => vec![],
                    false => rows.iter().map(|row| copies[*row]).collect(),
                };
                match deletes {
                    true => self.enqueue(last, part, copies),
                    false => insertions.push((part, copies)),
                }
            }
        }
        for (batch, copies) in firsts.into_iter().zip(first_copies) {
            self.enqueue(first, batch, copies);
        }
        for (batch, copies) in insertions {
            self.enqueue(last, batch, copies);
        }
        Ok(())
    }

    /// Which changed rows of two sides have copies that stay in the tables; empty where that does not
    /// matter, because those of the other side have none.
    fn copies_of_both(
        &mut self,
        ports: [usize; 2],
        changes: [&[ChangeBatch]; 2],
    ) -> Result<[Vec<Vec<bool>>; 2]> {
        let nothing = changes.map(|changes| vec![vec![]; changes.len()]);
        let any = |copies: &[Vec<bool>]| copies.iter().flatten().any(|copied| *copied);
        // Where keys have few rows these are soon looked through; often it is one each.
        let chain_rows = ports.map(|port| self.sides[port].table.chain_rows());
        let short = usize::from(chain_rows[1] < chain_rows[0]);
        let short_copies = self.copies(ports[short], changes[short])?;
        if !any(&short_copies) {
            return Ok(nothing);
        }
        let long_copies = self.copies(ports[1 - short], changes[1 - short])?;
        if !any(&long_copies) {
            return Ok(nothing);
        }
        let both = [short_copies, long_copies];
        Ok(if short == 0 {
            both
        } else {
            let [short, long] = both;
            [long, short]
        })
    }

    /// Which changed rows have copies that stay in the table.
    fn copies(&mut self, port: usize, changes: &[ChangeBatch]) -> Result<Vec<Vec<bool>>> {
        if !self.emits_pairs {
            return Ok(vec![vec![]; changes.len()]);
        }
        let table = &mut self.sides[port].table;
        let of_batch = |batch: &ChangeBatch| -> Result<Vec<bool>> {
            let there = table.weights_of(batch.rows())?;
            let staying =
                |(row, there): (usize, i64)| there.saturating_add(batch.weight(row).min(0)) > 0;
            Ok(there.into_iter().enumerate().map(staying).collect())
        };
        changes.iter().map(of_batch).collect()
    }

    /// Goes on with what is queued, until it is done or enough has been emitted.
    fn work(&mut self, out: &mut Output) -> Result<()> {
        self.tried_pairs = 0;
        while !self.is_enough(out)
            && let Some(mut advance) = self.work.pop_front()
        {
            if !self.advance(&mut advance, out)? {
                self.work.push_front(advance);
            }
        }
        Ok(())
    }

    /// Goes on advancing a side; true when that is done.
    fn advance(&mut self, advance: &mut Advance, out: &mut Output) -> Result<bool> {
        if let Stage::Match { .. } = advance.stage {
            if !self.match_changes(advance, out)? {
                return Ok(false);
            }
            advance.stage = Stage::Flip(self.enter(advance)?);
        }
        match &mut advance.stage {
            Stage::Flip(flips) => self.flip_others(1 - advance.port, flips, out),
            Stage::Match { .. } => unreachable!("the changes have just entered the table"),
        }
    }

    /// Lets rows look up the other side; true when all have.
    fn match_changes(&mut self, advance: &mut Advance, out: &mut Output) -> Result<bool> {
        let Advance { port, changes, aside, matches, stage } = advance;
        let Stage::Match { next, step } = stage else { return Ok(true) };
        loop {
            let mut now = match step.take() {
                Some(step) => step,
                None if *next == changes.num_rows() => return Ok(true),
                None => {
                    let rows = STEP_ROWS.min(changes.num_rows() - *next);
                    let step = self.look_up(*port, changes.slice(*next, rows), *next, matches)?;
                    *next += rows;
                    step
                }
            };
            while self.meet(*port, &mut now, matches, Some(aside), out)? {
                if self.is_enough(out) {
                    *step = Some(now);
                    return Ok(false);
                }
            }
            let shows = self.sides[*port].shows;
            if shows != Shows::Never {
                let of_rows = &matches.of_rows[now.first..];
                let shown = of_rows.iter().map(|matches| Some(shows.when(*matches > 0)));
                let shown = now.rows.filter(&BooleanArray::from_iter(shown))?;
                self.show(*port, shown, out)?;
            }
            if self.is_enough(out) && *next < changes.num_rows() {
                return Ok(false);
            }
        }
    }

    /// Puts the changes into the table; gives what that does to rows of the other side.
    fn enter(&mut self, advance: &mut Advance) -> Result<Flips> {
        let Advance { port, changes, matches, .. } = advance;
        let (port, other) = (*port, 1 - *port);
        let others_show = self.sides[other].shows != Shows::Never;
        if others_show && self.residual.is_some() {
            self.apply(port, changes, matches)?;
            return Ok(self.count_matches(other, std::mem::take(&mut matches.of_others)));
        }
        if others_show && self.sides[other].table.live_rows() > 0 {
            let keys = self.sides[port].key_columns(changes);
            let before = self.sides[port].table.heads(keys.clone(), changes.num_rows())?;
            self.apply(port, changes, matches)?;
            let after = self.sides[port].table.heads(keys.clone(), changes.num_rows())?;
            return self.changed_keys(other, keys, &before, &after);
        }
        self.apply(port, changes, matches)?;
        Ok(Flips::Rows { flipped: vec![], next: 0 })
    }

    /// Rows with a NULL key match nothing; gives the others.
    fn pass_null_keys(
        &mut self,
        port: usize,
        changes: ChangeBatch,
        out: &mut Output,
    ) -> Result<ChangeBatch> {
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
            self.show(port, passing, out)?;
        }
        changes.filter(&keyed)
    }

    /// Lets rows of side `port`, at most `STEP_ROWS` of them, look up the other side's chains.
    fn look_up(
        &mut self,
        port: usize,
        rows: ChangeBatch,
        first: usize,
        matches: &mut Matches,
    ) -> Result<LookUp> {
        let [own, other] = own_and_other(&mut self.sides, port);
        if self.residual.is_none() && !self.emits_pairs && own.shows == Shows::Never {
            // The right side of a semi or anti join: nobody asks what its rows match.
            return Ok(LookUp { rows, first, walk: Walk::default() });
        }
        let heads = other.table.heads(own.key_columns(&rows), rows.num_rows())?;
        assert_eq!(matches.of_rows.len(), first, "rows look up the other side in order");
        if self.residual.is_some() {
            matches.of_rows.resize(first + rows.num_rows(), 0);
        } else {
            matches.of_rows.extend(heads.iter().map(|head| i64::from(*head != NIL)));
        }
        let walks = self.residual.is_some() || self.emits_pairs;
        let walk = if walks { Walk::new(&heads) } else { Walk::default() };
        Ok(LookUp { rows, first, walk })
    }

    /// Goes on with the pairs of rows that look up the other side; false when there are no more.
    /// Only rows that advance, which come with `aside`, have their pairs emitted and counted for
    /// the other side.
    fn meet(
        &mut self,
        port: usize,
        step: &mut LookUp,
        matches: &mut Matches,
        aside: Option<&[bool]>,
        out: &mut Output,
    ) -> Result<bool> {
        let (mut pair_rows, mut ids) = (Vec::new(), Vec::new());
        let other = &mut self.sides[1 - port].table;
        let more = other.walk(&mut step.walk, STEP_ROWS, &mut pair_rows, &mut ids);
        self.tried_pairs += ids.len();
        let rows = &step.rows;
        let pairs = Pairs { rows: UInt32Array::from(pair_rows), ids };
        let Some(pairs) = self.meet_residual(port, rows, pairs, out)? else { return Ok(more) };
        let weights = self.sides[1 - port].table.weights(&pairs.ids);
        if self.residual.is_some() {
            let others = aside.is_some() && self.sides[1 - port].shows != Shows::Never;
            for (index, (row, id)) in pairs.rows.values().iter().zip(&pairs.ids).enumerate() {
                let row = *row as usize;
                let weight = weights.as_ref().map_or(1, |weights| weights[index]);
                matches.of_rows[step.first + row] += weight;
                if others {
                    *matches.of_others.entry(*id).or_default() += rows.weight(row);
                }
            }
        }
        if let Some(aside) = aside
            && self.emits_pairs
        {
            let aside = if aside.is_empty() { aside } else { &aside[step.first..] };
            self.emit_pairs(port, rows, &pairs, weights, aside, out)?;
        }
        Ok(more)
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

    /// Emits pairs, or sets them aside where that is said for their row.
    fn emit_pairs(
        &mut self,
        port: usize,
        rows: &ChangeBatch,
        pairs: &Pairs,
        weights: Option<Vec<i64>>,
        aside: &[bool],
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
        let mut set_aside = self.like_padding(&joined);
        if !aside.is_empty() {
            let by_row = pairs.rows.values().iter().map(|row| aside[*row as usize]);
            let by_row = BooleanBuffer::from_iter(by_row);
            set_aside = Some(set_aside.map_or_else(|| by_row.clone(), |other| &by_row | &other));
        }
        match set_aside.filter(|set_aside| set_aside.count_set_bits() > 0) {
            None => out.emit(joined),
            Some(set_aside) => {
                let set_aside = BooleanArray::new(set_aside, None);
                self.aside.push(joined.filter(&set_aside)?);
                out.emit(joined.filter(&compute::not(&set_aside)?)?);
            }
        }
        Ok(())
    }

    /// Which pairs look like a row that is padded with NULLs; `None`: none.
    fn like_padding(&self, pairs: &ChangeBatch) -> Option<BooleanBuffer> {
        if !self.padding_may_look_like_a_pair() {
            return None;
        }
        let left_columns = self.sides[LEFT].schema.fields().len();
        let (left, right) = pairs.rows().columns().split_at(left_columns);
        let padded = match self.spec.kind {
            JoinKind::Left => [None, all_null(right, pairs.num_rows())],
            JoinKind::Right => [all_null(left, pairs.num_rows()), None],
            _ => [all_null(left, pairs.num_rows()), all_null(right, pairs.num_rows())],
        };
        padded.into_iter().flatten().reduce(|left, right| &left | &right)
    }

    /// Rows of side `port` appear (or with negative weight disappear) by themselves.
    fn show(&mut self, port: usize, rows: ChangeBatch, out: &mut Output) -> Result<()> {
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
        let shown = rows.with_rows(shown);
        if self.shows_aside {
            self.aside.push(shown);
        } else {
            for start in (0..length).step_by(STEP_ROWS) {
                out.emit(shown.slice(start, STEP_ROWS.min(length - start)));
            }
        }
        Ok(())
    }

    /// Rows of side `port` with these ids appear or disappear.
    fn flip(
        &mut self,
        port: usize,
        ids: &[ShortId],
        appears: impl Fn(usize) -> bool,
        out: &mut Output,
    ) -> Result<()> {
        let side = &self.sides[port];
        let columns = side.table.gather(&side.kept, ids)?;
        let rows = batch(side.schema.clone(), columns, ids.len())?;
        let weights = side.table.weights(ids).unwrap_or_else(|| vec![1; ids.len()]);
        let weights = weights.into_iter().enumerate();
        let weights = weights.map(|(index, w)| if appears(index) { w } else { -w }).collect();
        self.show(port, ChangeBatch::new(rows, weights)?, out)
    }

    /// Goes on letting rows of side `port` appear or disappear; true when all have.
    fn flip_others(&mut self, port: usize, flips: &mut Flips, out: &mut Output) -> Result<bool> {
        loop {
            if self.is_enough(out) {
                return Ok(false);
            }
            match flips {
                Flips::Rows { flipped, next } => {
                    let step = &flipped[*next..flipped.len().min(*next + STEP_ROWS)];
                    if step.is_empty() {
                        return Ok(true);
                    }
                    let ids: Vec<ShortId> = step.iter().map(|(id, _)| *id).collect();
                    self.flip(port, &ids, |index| step[index].1, out)?;
                    *next += ids.len();
                }
                Flips::Keys { walk, appear } => {
                    let (mut keys, mut ids) = (Vec::new(), Vec::new());
                    let table = &mut self.sides[port].table;
                    let more = table.walk(walk, STEP_ROWS, &mut keys, &mut ids);
                    self.flip(port, &ids, |index| appear[keys[index] as usize], out)?;
                    if !more {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// The numbers of matches of some rows of side `port` have changed.
    fn count_matches(&mut self, port: usize, changed: HashMap<ShortId, i64>) -> Flips {
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
        Flips::Rows { flipped, next: 0 }
    }

    /// Keys may have come to side `1 - port` or gone there: rows of side `port` with them flip.
    fn changed_keys(
        &self,
        port: usize,
        keys: Vec<ArrayRef>,
        before: &[ShortId],
        after: &[ShortId],
    ) -> Result<Flips> {
        let changed = |row: &usize| (before[*row] == NIL) != (after[*row] == NIL);
        let rows: Vec<u32> = (0..before.len()).filter(changed).map(|row| row as u32).collect();
        let shows = self.sides[port].shows;
        let appear = rows.iter().map(|row| shows.when(after[*row as usize] != NIL)).collect();
        let indices = UInt32Array::from(rows);
        let keys = keys.iter().map(|column| compute::take(column, &indices, None));
        let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
        let mut heads = self.sides[port].table.heads(keys, indices.len())?;
        // A key that changed in several rows flips once: its rows hang on one head.
        let mut seen = HashSet::with_capacity(heads.len());
        for head in &mut heads {
            if *head != NIL && !seen.insert(*head) {
                *head = NIL;
            }
        }
        Ok(Flips::Keys { walk: Walk::new(&heads), appear })
    }

    /// Changes enter the table of their side.
    fn apply(&mut self, port: usize, changes: &ChangeBatch, matches: &Matches) -> Result<()> {
        self.walks.changed(changes.num_rows());
        let counted = self.sides[port].shows != Shows::Never && self.residual.is_some();
        let side = &mut self.sides[port];
        let kept = if side.keeps_all { changes.clone() } else { changes.project(&side.kept)? };
        side.table.apply_with_counts(&kept, counted.then_some(matches.of_rows.as_slice()))
    }

    /// Whether a padded row may look like a pair: one with a row of NULLs only.
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
                let mut matches = Matches::default();
                // What fails was reported when it first did.
                let mut reported = Output::default();
                for start in (0..rows.num_rows()).step_by(STEP_ROWS) {
                    let step = rows.slice(start, STEP_ROWS.min(rows.num_rows() - start));
                    let mut step = self.look_up(port, step, start, &mut matches)?;
                    while self.meet(port, &mut step, &mut matches, None, &mut reported)? {}
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
        if !self.answers_at_once() {
            self.sides[port].changes.push(batch);
            return Ok(());
        }
        let batch = self.pass_null_keys(port, batch, out)?;
        self.enqueue(port, batch, vec![]);
        self.work(out)
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.sides[port].watermark = Some(watermark);
        self.walks.moved();
        // What it means for a column is the plan's to say (`plan::event_time`).
        if let [Some(left), Some(right)] = [0, 1].map(|side| self.sides[side].watermark) {
            out.emit_watermark(left.min(right));
        }
        Ok(())
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        for side in &mut self.sides {
            side.table.begin(epoch, !side.changes.is_empty());
        }
        if std::mem::take(&mut self.counts_due) {
            self.restore_counts()?;
        }
        self.enqueue_epoch(out)?;
        self.work(out)?;
        if !self.work.is_empty() {
            out.unfinished();
            return Ok(());
        }
        let aside = self.aside.take();
        self.leaving.extend(consolidate(&self.spec.schema, aside)?);
        while !out.is_full()
            && let Some(batch) = self.leaving.pop_front()
        {
            let step = STEP_ROWS.min(batch.num_rows());
            if step < batch.num_rows() {
                self.leaving.push_front(batch.slice(step, batch.num_rows() - step));
            }
            out.emit(batch.slice(0, step));
        }
        if !self.leaving.is_empty() {
            out.unfinished();
            return Ok(());
        }
        self.sides.iter_mut().for_each(|side| side.table.finish(epoch));
        self.forget_old()
    }

    fn checkpoint(&mut self, _epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        let done = self.work.is_empty() && self.aside.is_empty() && self.leaving.is_empty();
        assert!(done, "an epoch completes when all of its output has left");
        for (side, table) in self.sides.iter_mut().zip(TABLES) {
            assert!(side.changes.is_empty(), "an epoch's changes are taken in when it completes");
            side.table.checkpoint(table, writer)?;
        }
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        for (side, table) in self.sides.iter_mut().zip(TABLES) {
            side.table.restore(table, &side.table_keys, reader)?;
        }
        if self.sides.iter().any(|side| side.table.is_shared()) {
            self.counts_due = true;
            return Ok(());
        }
        self.restore_counts()
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        for side in &mut self.sides {
            side.table.visit(&mut *visit);
            visit(&mut side.changes);
        }
        visit(&mut self.aside);
    }

    fn memory_bytes(&self) -> usize {
        let side = |side: &Side| side.table.memory_bytes() + side.changes.memory_bytes();
        let held = self.work.iter().map(|advance| &advance.changes);
        let held = held.chain(&self.leaving).map(ChangeBatch::size_bytes).sum::<usize>();
        self.sides.iter().map(side).sum::<usize>() + self.aside.memory_bytes() + held
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

/// Where all columns are NULL; `None`: nowhere, for sure.
fn all_null(columns: &[ArrayRef], rows: usize) -> Option<BooleanBuffer> {
    let mut some = BooleanBuffer::new_unset(rows);
    for column in columns {
        some = &some | column.logical_nulls()?.inner();
    }
    Some(!&some)
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
