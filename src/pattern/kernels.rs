//! The kernels of a MATCH_RECOGNIZE: one, or one for each pattern that its partitions have.
//!
//! With PATTERN FROM, each partition's pattern is a text in one of its columns. A text is compiled
//! when its first partition comes, and kept. Conditions and measures are the same for all of them,
//! so rows of partitions with different patterns are looked at together. A text that is no pattern
//! has a kernel that never matches and says what is wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::pattern::kernel::Kernel;
use crate::pattern::rows::PartitionRows;
use crate::plan::match_recognize::{MatchSpec, text};
use crate::types::error::{Error, Result, SqlState};

/// Compiled patterns that are kept; when there are more, all are compiled again as they come.
const PATTERNS_MAX: usize = 4096;

/// See the head of the file.
#[derive(Debug)]
pub struct Kernels {
    /// Of the pattern that was written; with PATTERN FROM it matches nothing.
    base: Arc<Kernel>,
    /// By the text of the pattern.
    by_text: Mutex<HashMap<String, Arc<Kernel>>>,
}

impl Kernels {
    /// # Errors
    /// For a pattern that is too large or means nothing.
    pub fn new(spec: MatchSpec) -> Result<Kernels> {
        Ok(Kernels { base: Arc::new(Kernel::new(spec)?), by_text: Mutex::default() })
    }

    /// For what does not depend on the pattern.
    pub fn base(&self) -> &Arc<Kernel> {
        &self.base
    }

    pub fn spec(&self) -> &MatchSpec {
        &self.base.spec
    }

    /// The kernel of a partition; of one without rows, one that matches nothing.
    ///
    /// # Errors
    /// When the pattern's column cannot be read.
    pub fn of_partition(&self, rows: &RecordBatch, place: &PartitionRows) -> Result<Arc<Kernel>> {
        match place.start < place.end {
            true => self.of_row(rows, place.start),
            false => Ok(self.base.clone()),
        }
    }

    /// The kernel of the partition that a row belongs to.
    ///
    /// # Errors
    /// When the pattern's column cannot be read.
    pub fn of_row(&self, rows: &RecordBatch, row: usize) -> Result<Arc<Kernel>> {
        let Some(from) = &self.spec().pattern_from else { return Ok(self.base.clone()) };
        let value: ArrayRef = cast(&rows.column(from.column).slice(row, 1), &DataType::Utf8)?;
        let value = value.as_string::<i32>();
        // NULL is a rule that looks for nothing.
        if value.is_null(0) {
            return Ok(self.base.clone());
        }
        self.of_text(value.value(0), &from.names)
    }

    fn of_text(&self, text: &str, names: &[String]) -> Result<Arc<Kernel>> {
        // Who panicked has left the map as it was.
        let mut by_text = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = by_text.get(text) {
            return Ok(kernel.clone());
        }
        let kernel = match self.compile(text, names) {
            Ok(kernel) => kernel,
            Err(error) => Kernel::broken(self.spec().clone(), in_text(text, &error))?,
        };
        if by_text.len() >= PATTERNS_MAX {
            by_text.clear();
        }
        let kernel = Arc::new(kernel);
        by_text.insert(text.to_owned(), kernel.clone());
        Ok(kernel)
    }

    fn compile(&self, text: &str, names: &[String]) -> Result<Kernel> {
        let pattern = text::of_value(text, names)?;
        Kernel::new(MatchSpec { pattern, pattern_from: None, ..self.spec().clone() })
    }
}

fn in_text(text: &str, error: &Error) -> Error {
    let sqlstate = match error.sqlstate() {
        SqlState::UNDEFINED_OBJECT => SqlState::UNDEFINED_OBJECT,
        SqlState::STATEMENT_TOO_COMPLEX => SqlState::STATEMENT_TOO_COMPLEX,
        _ => SqlState::SYNTAX_ERROR,
    };
    let message = format!("{} in the pattern \"{text}\"", error.message());
    let own = Error::user(sqlstate, message);
    match &error.body().hint {
        Some(hint) => own.hint(hint.clone()),
        None => own,
    }
}
