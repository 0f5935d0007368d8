//! Drives one operator from text, including recovery: the vocabulary of every operator test.
//!
//! A script is a list of lines; what follows a `#` is a comment:
//!
//! | line | meaning |
//! |---|---|
//! | `batch 0` | a batch for input port 0; its rows follow, one a line |
//! | `+ 1 10 a`, `- 1 10 a`, `+3 1 10 a` | a row of weight 1, -1, 3; values in column order |
//! | `watermark 0 1000` | the watermark of port 0 moves to 1000 us |
//! | `show` | print what has been emitted since the last line that printed |
//! | `epoch 1` | epoch 1 is complete: call `on_epoch`, print what was emitted |
//! | `checkpoint` | checkpoint at the last epoch, folded onto the earlier ones |
//! | `recover` | checkpoint, then go on with a fresh operator restored from all checkpoints |
//!
//! Values are parsed by column type (numbers, ISO times or plain integers for times, text); `.` is
//! NULL, and text with blanks stands in double quotes. Batches without weights other than `+` are
//! the append-only kind.
//!
//! What comes out is summed up per printed block and sorted as text, so it does not depend on hash
//! order. `cancelled n` is printed when n emitted rows took each other back within one block: a
//! stateful operator must never show it. Rows that failed print as `error ...`, a time at which the
//! operator wants an epoch as `wake ...`.
//!
//! Every script runs twice: with all state in memory, and with all rows on the disk between calls.
//!
//! Tests that make their input by program use [`Driven`], which the script itself runs on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use expect_test::Expect;

use crate::dataflow::operator::{Operator, Output, RowError, complete_checkpoint, complete_epoch};
use crate::state::delta::{CheckpointFold, CheckpointReader, CheckpointWriter};
use crate::state::spill::{EVERYTHING, StateMemory};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::sql_type::SqlType;
use crate::types::time::{Epoch, EventTime, Watermark};

/// Runs `script` on a fresh operator and compares what it prints.
pub fn check(
    make_operator: impl Fn() -> Box<dyn Operator>,
    input_schemas: &[SchemaRef],
    script: &str,
    expect: Expect,
) {
    expect.assert_eq(&run(make_operator, input_schemas, script));
}

/// A schema in SQL: `k bigint, v text`. All columns may be NULL unless they say `not null`.
pub fn schema(columns: &str) -> SchemaRef {
    let fields = columns.split(',').filter(|column| !column.is_empty()).map(|column| {
        let (name, rest) = column.trim().split_once(' ').expect("a column is `name type`");
        let rest = rest.trim();
        let (type_name, nullable) = match rest.strip_suffix(" not null") {
            Some(type_name) => (type_name, false),
            None => (rest, true),
        };
        sql_type(type_name).to_field(name, nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

fn sql_type(name: &str) -> SqlType {
    match name {
        "boolean" => SqlType::Boolean,
        "smallint" => SqlType::Int2,
        "integer" | "int" => SqlType::Int4,
        "bigint" => SqlType::Int8,
        "real" => SqlType::Float4,
        "double" => SqlType::Float8,
        "numeric" => SqlType::Numeric(38, 10),
        "money" => SqlType::Numeric(18, 2),
        "text" => SqlType::Text,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        other => panic!("the script vocabulary has no type {other}"),
    }
}

/// A change batch from row lines (`+ 1 a`, one a line) of this schema.
pub fn batch(schema: &SchemaRef, rows: &str) -> ChangeBatch {
    let mut weights = Vec::new();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); schema.fields().len()];
    for line in rows.lines().map(strip_comment).filter(|line| !line.is_empty()) {
        let mut tokens = tokens(line).into_iter();
        let sign = tokens.next().flatten().expect("a row line begins with its weight");
        weights.push(match sign.as_str() {
            "+" => 1,
            "-" => -1,
            number => number.parse().unwrap_or_else(|e| panic!("weight {number}: {e}")),
        });
        let values: Vec<_> = tokens.collect();
        assert_eq!(values.len(), columns.len(), "row `{line}` against {schema:?}");
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let arrays = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(values, field)| column(values, field.data_type()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .unwrap_or_else(|e| panic!("batch of {schema:?}: {e}"));
    ChangeBatch::new(rows, weights).expect("weights of a test batch")
}

/// Parses the values of one column; times may be given as integers of their unit.
fn column(values: Vec<Option<String>>, data_type: &DataType) -> ArrayRef {
    let options = CastOptions { safe: false, ..Default::default() };
    let integers: Option<Vec<Option<i64>>> = values
        .iter()
        .map(|value| match value {
            Some(text) => text.parse().ok().map(Some),
            None => Some(None),
        })
        .collect();
    let source: ArrayRef = match integers {
        Some(integers) if data_type.is_temporal() => Arc::new(Int64Array::from(integers)),
        _ => Arc::new(StringArray::from_iter(values)),
    };
    // Arrow casts 64-bit integers to 32-bit dates only by way of 32-bit integers.
    let source = match data_type {
        DataType::Date32 if source.data_type() == &DataType::Int64 => {
            cast_with_options(&source, &DataType::Int32, &options).expect("a date in range")
        }
        _ => source,
    };
    cast_with_options(&source, data_type, &options)
        .unwrap_or_else(|e| panic!("values of {data_type}: {e}"))
}

/// The line up to a `#` that does not stand in double quotes.
fn strip_comment(line: &str) -> &str {
    let mut quoted = false;
    for (position, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..position].trim(),
            _ => {}
        }
    }
    line.trim()
}

/// Splits at blanks; `.` is NULL, double quotes hold blanks together.
fn tokens(line: &str) -> Vec<Option<String>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"').expect("a closing double quote");
            tokens.push(Some(text.to_owned()));
            rest = after.trim_start();
        } else {
            let (text, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            tokens.push((text != ".").then(|| text.to_owned()));
            rest = after.trim_start();
        }
    }
    tokens
}

/// One line per row, values as a script would give them.
pub fn row_texts(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new();
    let formatters: Vec<_> = rows
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("a printable column"))
        .collect();
    (0..rows.num_rows())
        .map(|row| {
            let values = rows.columns().iter().zip(&formatters).map(|(column, formatter)| {
                if column.is_null(row) {
                    return ".".to_owned();
                }
                let text = formatter.value(row).to_string();
                if text.is_empty() || text == "." || text.contains([' ', '#', '"']) {
                    format!("\"{text}\"")
                } else {
                    text
                }
            });
            values.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// What an operator sent since it was last asked.
#[derive(Debug, Default)]
pub struct Sent {
    /// Row text to its summed weight; rows that sum up to 0 are left out.
    pub rows: BTreeMap<String, i64>,
    /// Emitted copies of rows that another emitted copy took back.
    pub cancelled: i64,
    pub watermark: Option<Watermark>,
    pub errors: Vec<RowError>,
    pub wake_at: Option<EventTime>,
}

impl Sent {
    fn of(out: &mut Output) -> Sent {
        let (watermark, wake_at) = (out.take_watermark(), out.take_wake_at());
        let mut sent = Sent { watermark, wake_at, ..Sent::default() };
        let mut copies = 0;
        for batch in out.take_batches() {
            assert!(!batch.is_empty(), "empty batches are never emitted");
            for (row, text) in row_texts(batch.rows()).into_iter().enumerate() {
                assert_ne!(batch.weight(row), 0, "no batch holds a row of weight 0: {text}");
                copies += batch.weight(row).abs();
                *sent.rows.entry(text).or_default() += batch.weight(row);
            }
        }
        sent.rows.retain(|_, weight| *weight != 0);
        sent.cancelled = copies - sent.rows.values().map(|w| w.abs()).sum::<i64>();
        sent.errors = out.take_row_errors();
        sent
    }

    fn print(&self, text: &mut String) {
        for (row, weight) in &self.rows {
            let sign = match weight {
                1 => "+".to_owned(),
                -1 => "-".to_owned(),
                weight => format!("{weight:+}"),
            };
            text.push_str(format!("{sign} {row}").trim_end());
            text.push('\n');
        }
        if self.cancelled != 0 {
            text.push_str(&format!("cancelled {}\n", self.cancelled));
        }
        let mut errors: Vec<String> = self
            .errors
            .iter()
            .map(|e| {
                let sqlstate = e.error.sqlstate().0;
                let message = e.error.message();
                format!(
                    "error {sqlstate} {message} in {} for {:+} {}",
                    e.expression, e.weight, e.row
                )
            })
            .collect();
        errors.sort();
        for error in errors {
            text.push_str(&error);
            text.push('\n');
        }
        if let Some(watermark) = self.watermark {
            text.push_str(&format!("watermark {watermark}\n"));
        }
        if let Some(EventTime(at)) = self.wake_at {
            text.push_str(&format!("wake {at}\n"));
        }
    }
}

/// One operator, its output, and the checkpoints it has written.
pub struct Driven<'a> {
    make_operator: Box<dyn Fn() -> Box<dyn Operator> + 'a>,
    operator: Box<dyn Operator>,
    out: Output,
    fold: CheckpointFold,
    epoch: Epoch,
    /// Ports that had a batch or watermark since the last epoch: then no checkpoint is allowed.
    open: bool,
    /// Where all rows go between two calls; `None`: they stay in memory.
    disk: Option<Arc<StateMemory>>,
}

impl<'a> Driven<'a> {
    pub fn new(make_operator: impl Fn() -> Box<dyn Operator> + 'a) -> Driven<'a> {
        let operator = make_operator();
        Driven {
            make_operator: Box::new(make_operator),
            operator,
            // Operators that work with fuel stop after each batch.
            out: Output::with_fuel(1),
            fold: CheckpointFold::default(),
            epoch: Epoch(0),
            open: false,
            disk: None,
        }
    }

    /// The same with all rows of state on the disk between two calls.
    #[must_use]
    pub fn on_disk(self) -> Driven<'a> {
        self.on_disk_if(true)
    }

    #[must_use]
    pub fn on_disk_if(mut self, on_disk: bool) -> Driven<'a> {
        self.disk = on_disk.then(|| Arc::new(StateMemory::always_full(std::env::temp_dir())));
        self
    }

    fn spill(&mut self) {
        if let Some(memory) = &self.disk {
            self.operator.visit_stores(&mut |store| store.spill(memory, EVERYTHING));
        }
    }

    /// Bytes of state that are on the disk now.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, |memory| memory.disk().now_bytes())
    }

    pub fn batch(&mut self, port: usize, batch: ChangeBatch) -> Result<()> {
        self.open = true;
        self.spill();
        self.operator.on_batch(port, batch, &mut self.out)
    }

    pub fn watermark(&mut self, port: usize, watermark: Watermark) -> Result<()> {
        self.open = true;
        self.spill();
        self.operator.on_watermark(port, watermark, &mut self.out)
    }

    /// Completes `epoch`; what it emitted is read by [`Driven::sent`].
    pub fn epoch(&mut self, epoch: Epoch) -> Result<()> {
        assert!(epoch > self.epoch, "epochs go up");
        self.epoch = epoch;
        self.open = false;
        self.spill();
        complete_epoch(self.operator.as_mut(), epoch, &mut self.out)
    }

    /// What was emitted since the last call.
    pub fn sent(&mut self) -> Sent {
        Sent::of(&mut self.out)
    }

    /// Checkpoints at the last epoch, on top of the checkpoints before.
    pub fn checkpoint(&mut self) -> Result<()> {
        assert!(!self.open, "a checkpoint follows an epoch");
        let mut writer =
            self.disk.clone().map_or_else(CheckpointWriter::default, CheckpointWriter::within);
        self.spill();
        complete_checkpoint(self.operator.as_mut(), self.epoch, &mut writer)?;
        self.fold.apply(writer)
    }

    /// Goes on with a fresh operator, restored from all checkpoints. Its own checkpoints start a
    /// new base: row ids are new after a restore.
    pub fn restart(&mut self) -> Result<()> {
        let fold = std::mem::take(&mut self.fold);
        self.operator = (self.make_operator)();
        self.operator.restore(&mut CheckpointReader::new(&[fold], 0, 1)?)
    }

    pub fn memory_bytes(&self) -> usize {
        self.operator.memory_bytes()
    }

    pub fn state_rows(&self) -> usize {
        self.operator.state_rows()
    }

    /// What the operator counts under a name.
    pub fn counted(&self, name: &str) -> u64 {
        let counted = self.operator.counted();
        let found = counted.iter().find(|(other, _)| other == name);
        found.unwrap_or_else(|| panic!("{name} is not among {counted:?}")).1
    }
}

/// Runs `script` on a fresh operator; gives what it prints.
pub fn run(
    make_operator: impl Fn() -> Box<dyn Operator>,
    input_schemas: &[SchemaRef],
    script: &str,
) -> String {
    let in_memory = run_driven(Driven::new(&make_operator), input_schemas, script);
    let on_disk = run_driven(Driven::new(&make_operator).on_disk(), input_schemas, script);
    assert_eq!(in_memory, on_disk, "it makes no difference where rows are");
    in_memory
}

fn run_driven(mut driven: Driven<'_>, input_schemas: &[SchemaRef], script: &str) -> String {
    let mut text = String::new();
    let mut lines = script.lines().map(strip_comment).filter(|l| !l.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = match words.as_slice() {
            ["batch", port] => {
                let port: usize = port.parse().expect("batch takes a port");
                let mut rows = String::new();
                while let Some(row) = lines.next_if(|l| l.starts_with(['+', '-'])) {
                    rows.push_str(row);
                    rows.push('\n');
                }
                driven.batch(port, batch(&input_schemas[port], &rows))
            }
            ["watermark", port, time] => driven.watermark(
                port.parse().expect("watermark takes a port"),
                Watermark(EventTime(time.parse().expect("watermark takes microseconds"))),
            ),
            ["show"] => {
                text.push_str("show\n");
                driven.sent().print(&mut text);
                Ok(())
            }
            ["epoch", epoch] => {
                let result = driven.epoch(Epoch(epoch.parse().expect("epoch takes a number")));
                text.push_str(&format!("epoch {epoch}\n"));
                driven.sent().print(&mut text);
                result
            }
            ["checkpoint"] => driven.checkpoint(),
            ["recover"] => driven.checkpoint().and_then(|()| driven.restart()),
            _ => panic!("not a script line: {line}"),
        };
        if let Err(error) = result {
            text.push_str(&format!("failed: {error:?}\n"));
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::state::delta::TableDelta;
    use arrow::array::UInt64Array;

    /// Keeps all rows of odd calls and gives them back, with their weights doubled, at the epoch.
    struct Doubler {
        schema: SchemaRef,
        pending: Vec<ChangeBatch>,
        written: u64,
        rows: usize,
    }

    impl Operator for Doubler {
        fn name(&self) -> &'static str {
            "doubler"
        }

        fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
            if port == 1 {
                out.emit(batch);
            } else {
                self.rows += batch.num_rows();
                self.pending.push(batch);
            }
            Ok(())
        }

        fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
            out.emit_watermark(watermark);
            Ok(())
        }

        fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
            for batch in std::mem::take(&mut self.pending) {
                out.emit(batch.clone());
                out.emit(batch);
            }
            Ok(())
        }

        fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
            let rows = batch(&self.schema, &format!("+ {} rows .", self.rows)).into_rows();
            let deleted = if self.written == 0 { vec![] } else { vec![self.written - 1] };
            let ids = UInt64Array::from(vec![self.written]);
            self.written += 1;
            writer.write("doubler", TableDelta { appended: vec![(ids, rows)], deleted });
            Ok(())
        }

        fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
            for rows in reader.read("doubler", &[])? {
                let text = row_texts(&rows).join("");
                self.rows = text.split(' ').next().expect("a count").parse().expect("a number");
            }
            Ok(())
        }

        fn memory_bytes(&self) -> usize {
            0
        }
    }

    fn doubler() -> Box<dyn Operator> {
        let schema = schema("k bigint, v text, at timestamp");
        Box::new(Doubler { schema, pending: vec![], written: 0, rows: 0 })
    }

    #[test]
    fn a_script_drives_an_operator_and_prints_sorted_sums() {
        let schema = schema("k bigint, v text, at timestamp");
        check(
            doubler,
            &[schema.clone(), schema],
            r#"
            batch 0
              + 2 "b #c" 1970-01-01T00:00:01
              -3 1 . .   # three at once
            watermark 0 7
            epoch 1
            batch 1
              + 5 x 1000000
            show
            batch 1
              + 5 x .
            batch 0
              - 5 x .
            epoch 2
            "#,
            expect![[r#"
                epoch 1
                -6 1 . .
                +2 2 "b #c" 1970-01-01T00:00:01
                watermark 7
                show
                + 5 x 1970-01-01T00:00:01
                epoch 2
                - 5 x .
                cancelled 2
            "#]],
        );
    }

    #[test]
    fn recovery_folds_all_checkpoints_into_a_fresh_operator() {
        let mut driven = Driven::new(doubler);
        let row = batch(&schema("k bigint, v text, at timestamp"), "+ 1 a .");
        for epoch in 1..4 {
            driven.batch(0, row.clone()).expect("takes a batch");
            driven.epoch(Epoch(epoch)).expect("completes");
            driven.checkpoint().expect("checkpoints");
        }
        driven.restart().expect("restores");
        driven.checkpoint().expect("a new base");
        let mut reader = CheckpointReader::new(&[driven.fold], 0, 1).expect("reads");
        let rows = reader.read("doubler", &[]).expect("one table");
        assert_eq!(row_texts(&rows[0]), ["3 rows ."]);
    }
}
