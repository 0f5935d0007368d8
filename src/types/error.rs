//! One error type for the whole server.
//!
//! Its kind says who must act: the user, the outside world, or we. Text follows the Postgres
//! style guide: a primary message in lower case without a full stop, a detail and a hint in
//! whole sentences. A new kind is added only if the caller would act differently.

use std::fmt;

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The statement is wrong; sending it again does not help.
    User,
    /// A file, socket or disk failed; trying again may help.
    External,
    /// A broken invariant of ours: a bug.
    Internal,
}

/// A five-character code of the SQL standard or of Postgres, appendix A of its manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlState(pub &'static str);

impl SqlState {
    pub const WARNING: SqlState = SqlState("01000");
    pub const CONNECTION_EXCEPTION: SqlState = SqlState("08000");
    pub const PROTOCOL_VIOLATION: SqlState = SqlState("08P01");
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState("0A000");
    pub const CARDINALITY_VIOLATION: SqlState = SqlState("21000");
    pub const DATA_EXCEPTION: SqlState = SqlState("22000");
    pub const STRING_DATA_RIGHT_TRUNCATION: SqlState = SqlState("22001");
    pub const NUMERIC_VALUE_OUT_OF_RANGE: SqlState = SqlState("22003");
    pub const INVALID_DATETIME_FORMAT: SqlState = SqlState("22007");
    pub const DATETIME_FIELD_OVERFLOW: SqlState = SqlState("22008");
    pub const DIVISION_BY_ZERO: SqlState = SqlState("22012");
    pub const INTERVAL_FIELD_OVERFLOW: SqlState = SqlState("22015");
    pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = SqlState("22021");
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState("22023");
    pub const ARRAY_SUBSCRIPT_ERROR: SqlState = SqlState("2202E");
    pub const INVALID_REGULAR_EXPRESSION: SqlState = SqlState("2201B");
    pub const INVALID_ARGUMENT_FOR_LOGARITHM: SqlState = SqlState("2201E");
    pub const INVALID_ARGUMENT_FOR_POWER_FUNCTION: SqlState = SqlState("2201F");
    pub const INVALID_ARGUMENT_FOR_WIDTH_BUCKET: SqlState = SqlState("2201G");
    pub const INVALID_ROW_COUNT_IN_LIMIT: SqlState = SqlState("2201W");
    pub const INVALID_ROW_COUNT_IN_OFFSET: SqlState = SqlState("2201X");
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState("22P02");
    pub const INVALID_BINARY_REPRESENTATION: SqlState = SqlState("22P03");
    pub const BAD_COPY_FILE_FORMAT: SqlState = SqlState("22P04");
    pub const UNTRANSLATABLE_CHARACTER: SqlState = SqlState("22P05");
    pub const NOT_NULL_VIOLATION: SqlState = SqlState("23502");
    pub const UNIQUE_VIOLATION: SqlState = SqlState("23505");
    pub const CHECK_VIOLATION: SqlState = SqlState("23514");
    pub const INVALID_TRANSACTION_STATE: SqlState = SqlState("25000");
    pub const ACTIVE_SQL_TRANSACTION: SqlState = SqlState("25001");
    pub const READ_ONLY_SQL_TRANSACTION: SqlState = SqlState("25006");
    pub const NO_ACTIVE_SQL_TRANSACTION: SqlState = SqlState("25P01");
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = SqlState("25P02");
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState("26000");
    pub const INVALID_AUTHORIZATION_SPECIFICATION: SqlState = SqlState("28000");
    pub const DEPENDENT_OBJECTS_STILL_EXIST: SqlState = SqlState("2BP01");
    pub const INVALID_CURSOR_NAME: SqlState = SqlState("34000");
    pub const INVALID_CATALOG_NAME: SqlState = SqlState("3D000");
    pub const INVALID_SCHEMA_NAME: SqlState = SqlState("3F000");
    pub const SERIALIZATION_FAILURE: SqlState = SqlState("40001");
    pub const DEADLOCK_DETECTED: SqlState = SqlState("40P01");
    pub const INSUFFICIENT_PRIVILEGE: SqlState = SqlState("42501");
    pub const GENERATED_ALWAYS: SqlState = SqlState("428C9");
    pub const SYNTAX_ERROR: SqlState = SqlState("42601");
    pub const INVALID_NAME: SqlState = SqlState("42602");
    pub const DUPLICATE_COLUMN: SqlState = SqlState("42701");
    pub const AMBIGUOUS_COLUMN: SqlState = SqlState("42702");
    pub const UNDEFINED_COLUMN: SqlState = SqlState("42703");
    pub const UNDEFINED_OBJECT: SqlState = SqlState("42704");
    pub const DUPLICATE_OBJECT: SqlState = SqlState("42710");
    pub const DUPLICATE_ALIAS: SqlState = SqlState("42712");
    pub const AMBIGUOUS_FUNCTION: SqlState = SqlState("42725");
    pub const GROUPING_ERROR: SqlState = SqlState("42803");
    pub const DATATYPE_MISMATCH: SqlState = SqlState("42804");
    pub const WRONG_OBJECT_TYPE: SqlState = SqlState("42809");
    pub const CANNOT_COERCE: SqlState = SqlState("42846");
    pub const UNDEFINED_FUNCTION: SqlState = SqlState("42883");
    pub const UNDEFINED_TABLE: SqlState = SqlState("42P01");
    pub const UNDEFINED_PARAMETER: SqlState = SqlState("42P02");
    pub const DUPLICATE_CURSOR: SqlState = SqlState("42P03");
    pub const DUPLICATE_DATABASE: SqlState = SqlState("42P04");
    pub const DUPLICATE_PREPARED_STATEMENT: SqlState = SqlState("42P05");
    pub const DUPLICATE_SCHEMA: SqlState = SqlState("42P06");
    pub const DUPLICATE_TABLE: SqlState = SqlState("42P07");
    pub const INVALID_OBJECT_DEFINITION: SqlState = SqlState("42P17");
    pub const INVALID_COLUMN_REFERENCE: SqlState = SqlState("42P10");
    pub const INVALID_RECURSION: SqlState = SqlState("42P19");
    pub const WINDOWING_ERROR: SqlState = SqlState("42P20");
    pub const INVALID_TABLE_DEFINITION: SqlState = SqlState("42P16");
    pub const INDETERMINATE_DATATYPE: SqlState = SqlState("42P18");
    pub const OUT_OF_MEMORY: SqlState = SqlState("53200");
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState("53300");
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState("54000");
    pub const STATEMENT_TOO_COMPLEX: SqlState = SqlState("54001");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState("55000");
    pub const OBJECT_IN_USE: SqlState = SqlState("55006");
    pub const CANT_CHANGE_RUNTIME_PARAM: SqlState = SqlState("55P02");
    pub const LOCK_NOT_AVAILABLE: SqlState = SqlState("55P03");
    pub const QUERY_CANCELED: SqlState = SqlState("57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState("57P01");
    pub const IO_ERROR: SqlState = SqlState("58030");
    pub const UNDEFINED_FILE: SqlState = SqlState("58P01");
    pub const INTERNAL_ERROR: SqlState = SqlState("XX000");
    pub const DATA_CORRUPTED: SqlState = SqlState("XX001");
}

/// What went wrong, for whom, and what would help. Boxed: a `Result` stays one word wide.
#[derive(Clone)]
pub struct Error(Box<ErrorBody>);

/// The fields of an [`Error`].
#[derive(Clone, Debug)]
pub struct ErrorBody {
    pub kind: ErrorKind,
    pub sqlstate: SqlState,
    /// Primary message: lower case, no full stop.
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where in other data than the statement: `COPY data, line 3, column a: "x"`.
    pub place: Option<String>,
    /// 1-based character position in the statement's text.
    pub position: Option<usize>,
    /// Whether the same statement may succeed when sent again.
    pub retryable: bool,
}

/// A result with our error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn with(kind: ErrorKind, sqlstate: SqlState, message: impl Into<String>) -> Error {
        Error(Box::new(ErrorBody {
            kind,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            place: None,
            position: None,
            retryable: kind == ErrorKind::External,
        }))
    }

    /// The user's mistake.
    pub fn user(sqlstate: SqlState, message: impl Into<String>) -> Error {
        Error::with(ErrorKind::User, sqlstate, message)
    }

    /// The outside world's failure.
    pub fn external(sqlstate: SqlState, message: impl Into<String>) -> Error {
        Error::with(ErrorKind::External, sqlstate, message)
    }

    /// Our bug: a broken invariant, reported instead of a panic.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::with(ErrorKind::Internal, SqlState::INTERNAL_ERROR, message)
            .hint("This is a bug in Millstream; please report the statement.")
    }

    /// A statement, clause or type that Millstream does not have (SQLSTATE 0A000).
    pub fn unsupported(what: impl fmt::Display) -> Error {
        Error::user(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the 1-based character position, unless a more precise one is there already.
    #[must_use]
    pub fn position(mut self, position: usize) -> Error {
        self.0.position.get_or_insert(position);
        self
    }

    /// Takes the position away: it counts in a text that the user has not written.
    #[must_use]
    pub fn without_position(mut self) -> Error {
        self.0.position = None;
        self
    }

    /// Says where in data other than the statement the mistake is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        self.0.place = Some(place.into());
        self
    }

    /// Moves the position: the statement stands behind `chars` others in a longer text.
    #[must_use]
    pub fn shift_position(mut self, chars: usize) -> Error {
        if let Some(position) = &mut self.0.position {
            *position += chars;
        }
        self
    }

    #[must_use]
    pub fn retryable(mut self) -> Error {
        self.0.retryable = true;
        self
    }

    /// Puts context in front of the primary message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Error {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    pub fn body(&self) -> &ErrorBody {
        &self.0
    }

    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(detail) = &self.0.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.0.kind, self.0.sqlstate.0, self.0.message)?;
        if let Some(detail) = &self.0.detail {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        let state = match error.kind() {
            std::io::ErrorKind::NotFound => SqlState::UNDEFINED_FILE,
            _ => SqlState::IO_ERROR,
        };
        Error::external(state, error.to_string())
    }
}

impl From<arrow::error::ArrowError> for Error {
    /// Kernels raise arithmetic and cast errors that are the user's; the rest are our mistakes.
    fn from(error: arrow::error::ArrowError) -> Error {
        use arrow::error::ArrowError as A;
        match error {
            A::DivideByZero => Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"),
            A::ArithmeticOverflow(text) => {
                Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range").detail(text)
            }
            A::CastError(text) | A::ParseError(text) => {
                Error::user(SqlState::INVALID_TEXT_REPRESENTATION, text)
            }
            A::ComputeError(text) => Error::user(SqlState::DATA_EXCEPTION, text),
            A::InvalidArgumentError(text) => Error::user(SqlState::INVALID_PARAMETER_VALUE, text),
            A::IoError(text, _) => Error::external(SqlState::IO_ERROR, text),
            A::ExternalError(source) => match source.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Error::internal(other.to_string()),
            },
            other => Error::internal(other.to_string()),
        }
    }
}
