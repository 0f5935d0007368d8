//! Files: csv, JSON lines and parquet, one or many, complete or growing.
//!
//! Every file is a split, named by its path. Offsets are bytes (of the decompressed text) and
//! lines, or rows of a parquet file.
//!
//! | file | owns |
//! |---|---|
//! | `input.rs` | opening, decompressing and skipping |
//! | `text.rs` | csv and JSON lines: block by block through a decoder of `formats` |
//! | `parquet.rs` | parquet |
//! | `infer.rs` | columns from the files, when none are declared |

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arrow::datatypes::SchemaRef;

use crate::connectors::options::{Connector, OptionSpec, Options};
use crate::connectors::{DeclaredSchema, Read, ReadRange, Source, SplitId, SplitReader};
use crate::formats::csv::CsvFormat;
use crate::types::error::{Error, Result, SqlState};

mod infer;
mod input;
mod parquet;
mod text;

/// The entry in the connector list.
pub const CONNECTOR: Connector = Connector {
    name: "file",
    doc: "Rows of csv, JSON lines or parquet files on the server's machine.",
    options: &[
        OptionSpec::required(
            "path",
            &[],
            "text",
            "a file, a directory, or a pattern with `*`, `**`, `?` and `[...]`",
        ),
        OptionSpec::optional(
            "format",
            &[],
            "csv | ndjson | json | parquet",
            "",
            "how the files are written; by default what their name says (`json` is `ndjson`)",
        ),
        OptionSpec::optional(
            "compression",
            &[],
            "auto | none | gzip | zstd",
            "auto",
            "`auto` goes by the name: .gz and .zst; parquet has its own",
        ),
        OptionSpec::optional(
            "csv.delimiter",
            &[],
            "character",
            ",",
            "between fields; `\\t` is a tab",
        ),
        OptionSpec::optional("csv.header", &[], "boolean", "true", "the first record has names"),
        OptionSpec::optional("csv.null", &[], "text", "", "a field of this text is NULL"),
        OptionSpec::optional(
            "csv.quote",
            &[],
            "character",
            "\"",
            "around fields that hold delimiters or line ends; `none`: nothing is quoted",
        ),
        OptionSpec::optional(
            "follow",
            &[],
            "boolean",
            "false",
            "go on with lines that are appended, and with new files",
        ),
        OptionSpec::optional(
            "check.columns",
            &[],
            "read | all",
            "read",
            "the columns that a record must fit, else it is malformed: those that a query reads, \
             or all declared ones",
        ),
    ],
    open_prefixes: &[],
    source: Some(open),
};

/// A file that was changed within this time may still be being written.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    /// By the file's name.
    Auto,
    None,
    Gzip,
    Zstd,
}

/// What the options say.
#[derive(Clone, Debug)]
struct Settings {
    /// A path, or a pattern of paths.
    path: String,
    format: Format,
    compression: Compression,
    csv: CsvFormat,
    csv_header: bool,
    follow: bool,
    /// A record must fit all columns, also those that nobody reads.
    check_all: bool,
}

fn open(options: &Options, declared: DeclaredSchema) -> Result<Arc<dyn Source>> {
    let settings = Arc::new(Settings::from_options(options)?);
    let schema = match declared {
        Some(schema) => schema,
        None => infer::infer_schema(&settings)?,
    };
    Ok(Arc::new(FileSource { settings, schema, listed: Mutex::new(Vec::new()) }))
}

impl Settings {
    fn from_options(options: &Options) -> Result<Settings> {
        let path = options.required("path")?;
        let path = path.strip_prefix("file://").unwrap_or(path).to_owned();
        if path.is_empty() {
            return Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, "option \"path\" is empty"));
        }
        let format = match options.one_of("format", &["csv", "ndjson", "json", "parquet"])? {
            Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            Some(_) => Format::Ndjson,
            None => format_by_name(&path)?,
        };
        let compressions = ["auto", "none", "gzip", "zstd"];
        let compression = match options.one_of("compression", &compressions)? {
            Some("none") => Compression::None,
            Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            _ => Compression::Auto,
        };
        let delimiter = character(options, "csv.delimiter")?.unwrap_or(b',');
        let quote = character(options, "csv.quote")?;
        if quote == Some(delimiter) {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                "options \"csv.delimiter\" and \"csv.quote\" are the same",
            ));
        }
        Ok(Settings {
            path,
            format,
            compression,
            csv: CsvFormat {
                delimiter,
                quote,
                null: options.get("csv.null").unwrap_or_default().to_owned(),
            },
            csv_header: options.boolean("csv.header")?.unwrap_or(true),
            follow: options.boolean("follow")?.unwrap_or(false),
            check_all: options.one_of("check.columns", &["read", "all"])? == Some("all"),
        })
    }

    fn compression_of(&self, path: &str) -> Compression {
        match self.compression {
            Compression::Auto if has_extension(path, "gz") => Compression::Gzip,
            Compression::Auto if has_extension(path, "zst") => Compression::Zstd,
            Compression::Auto => Compression::None,
            chosen => chosen,
        }
    }

    /// The files there are now, sorted by path.
    fn list(&self) -> Result<Vec<String>> {
        let is_pattern = self.path.contains(['*', '?', '[']);
        if !is_pattern {
            let path = Path::new(&self.path);
            return match std::fs::metadata(path) {
                Ok(found) if !found.is_dir() => Ok(vec![self.path.clone()]),
                Ok(_) => {
                    let directory = glob::Pattern::escape(self.path.trim_end_matches('/'));
                    list_pattern(&format!("{directory}/*"))
                }
                // When following, it may come yet.
                Err(error) if self.follow && error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(Vec::new())
                }
                Err(error) => Err(file_error("open", &self.path, &error)),
            };
        }
        let files = list_pattern(&self.path)?;
        if files.is_empty() && !self.follow {
            return Err(Error::external(
                SqlState::UNDEFINED_FILE,
                format!("no file matches \"{}\"", self.path),
            ));
        }
        Ok(files)
    }
}

fn list_pattern(pattern: &str) -> Result<Vec<String>> {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let found = glob::glob_with(pattern, options).map_err(|error| {
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"path\": {} at character {}", error.msg, error.pos + 1),
        )
    })?;
    let mut files = Vec::new();
    for path in found {
        let path: PathBuf = path
            .map_err(|error| file_error("read", &error.path().to_string_lossy(), error.error()))?;
        if path.is_dir() {
            continue;
        }
        let name = path.into_os_string().into_string().map_err(|path| {
            Error::external(
                SqlState::IO_ERROR,
                format!("the name of file {path:?} is not valid UTF-8"),
            )
        })?;
        files.push(name);
    }
    files.sort();
    Ok(files)
}

/// One byte; `none` and the empty text are no character.
fn character(options: &Options, name: &str) -> Result<Option<u8>> {
    match options.get(name) {
        None | Some("" | "none") => Ok(None),
        Some("\\t" | "tab") => Ok(Some(b'\t')),
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(Some(*byte)),
            _ => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\": {text:?} is not a single one-byte character"),
            )),
        },
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn format_by_name(path: &str) -> Result<Format> {
    let plain = if has_extension(path, "gz") || has_extension(path, "zst") {
        &path[..path.rfind('.').unwrap_or(path.len())]
    } else {
        path
    };
    if has_extension(plain, "csv") {
        Ok(Format::Csv)
    } else if ["ndjson", "jsonl", "json"].iter().any(|e| has_extension(plain, e)) {
        Ok(Format::Ndjson)
    } else if has_extension(plain, "parquet") {
        Ok(Format::Parquet)
    } else {
        Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, "option \"format\" is missing")
            .detail(format!("The name \"{path}\" does not tell the format."))
            .hint("Add format = 'csv', 'ndjson' or 'parquet' to the WITH clause."))
    }
}

/// A failure of the file system, as Postgres words it.
fn file_error(doing: &str, path: &str, error: &std::io::Error) -> Error {
    let state = match error.kind() {
        std::io::ErrorKind::NotFound => SqlState::UNDEFINED_FILE,
        std::io::ErrorKind::PermissionDenied => SqlState::INSUFFICIENT_PRIVILEGE,
        _ => SqlState::IO_ERROR,
    };
    // The operating system's text without its "(os error 2)".
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    Error::external(state, format!("could not {doing} file \"{path}\": {text}"))
}

/// Whether a file was changed so lately that it may not be complete.
#[expect(clippy::disallowed_methods, reason = "compared with the file system's clock")]
fn may_be_growing(path: &str) -> bool {
    let changed = std::fs::metadata(path).and_then(|found| found.modified());
    changed.is_ok_and(|changed| {
        SystemTime::now().duration_since(changed).map_or(true, |age| age < SETTLED_AFTER)
    })
}

struct FileSource {
    settings: Arc<Settings>,
    schema: SchemaRef,
    /// Every split that was ever listed, sorted: a file that goes away stays one.
    listed: Mutex<Vec<String>>,
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn bounded(&self) -> bool {
        !self.settings.follow
    }

    fn splits(&self) -> Result<Vec<SplitId>> {
        let found = self.settings.list()?;
        // A list of names is whole at any moment, also when a holder panicked.
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        for path in found {
            if let Err(place) = listed.binary_search(&path) {
                listed.insert(place, path);
            }
        }
        Ok(listed.iter().cloned().map(SplitId).collect())
    }

    fn open(&self, split: &SplitId, mut range: ReadRange) -> Result<Box<dyn SplitReader>> {
        let mut projection = None;
        if self.settings.check_all {
            let all = (0..self.schema.fields().len()).collect();
            projection = Some(std::mem::replace(&mut range.columns, all));
        }
        let path = split.0.clone();
        let (settings, schema) = (self.settings.clone(), self.schema.clone());
        let reader: Box<dyn SplitReader> = match self.settings.format {
            Format::Parquet => {
                Box::new(parquet::ParquetReader::new(settings, path, schema, range)?)
            }
            Format::Csv | Format::Ndjson => {
                Box::new(text::TextReader::new(settings, path, schema, range)?)
            }
        };
        Ok(match projection {
            Some(columns) => Box::new(Projected { reader, columns }),
            None => reader,
        })
    }
}

/// Gives out some of the columns that its reader makes.
struct Projected {
    reader: Box<dyn SplitReader>,
    columns: Vec<usize>,
}

impl SplitReader for Projected {
    fn read(&mut self, rows_max: usize) -> Result<Read> {
        let mut found = self.reader.read(rows_max)?;
        if let Read::Rows(told) = &mut found {
            told.rows = told.rows.project(&self.columns)?;
        }
        Ok(found)
    }
}

/// For each declared column, the file's column of that name; without one, the first whose name
/// differs in case only.
fn match_columns(schema: &SchemaRef, names: &[String]) -> Vec<Option<usize>> {
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    schema
        .fields()
        .iter()
        .map(|field| {
            let name = field.name();
            let wanted = name.to_lowercase();
            let exact = names.iter().position(|found| found == name);
            exact.or_else(|| lower.iter().position(|found| *found == wanted))
        })
        .collect()
}

/// The file has none of the columns, or lacks one that must not be NULL.
fn check_columns(
    path: &str,
    schema: &SchemaRef,
    names: &[String],
    matched: &[Option<usize>],
) -> Result<()> {
    let list = names.iter().take(50).map(String::as_str).collect::<Vec<_>>().join(", ");
    if !matched.is_empty() && matched.iter().all(Option::is_none) {
        return Err(Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("file \"{path}\" has none of the declared columns"),
        )
        .detail(format!("Its columns are: {list}."))
        .hint("Check the column names, and csv.delimiter and csv.header for a csv file."));
    }
    let mut fields = schema.fields().iter().zip(matched);
    match fields.find(|(field, found)| !field.is_nullable() && found.is_none()) {
        None => Ok(()),
        Some((field, _)) => Err(Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("file \"{path}\" has no column \"{}\", which is NOT NULL", field.name()),
        )
        .detail(format!("Its columns are: {list}."))),
    }
}

#[cfg(test)]
mod tests;
