//! Rows as they are in memory: an Arrow IPC stream, uncompressed, whose parts are the buffers of
//! the batches themselves. Writing copies nothing but small buffers, and reading copies nothing:
//! arrays stand on the bytes that were read.
//!
//! 1. The stream is cut into pieces, at ends of batches, of at least [`PIECE_BYTES`]. Whoever
//!    stores it stores the lengths of the pieces beside it.
//! 2. A reader gets each piece into memory of its own, so that a batch which goes later takes its
//!    memory with it, whatever becomes of the others of its file.
//! 3. Small batches that follow each other become one: a batch costs some hundred bytes.
//!
//! For a disk this is the cheapest form there is. Where bytes are dear, in a bucket, rows are
//! Parquet (`table_files.rs`).

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamEncoder;
use bytes::{Bytes, BytesMut};

use crate::types::error::{Error, Result};

/// Pieces have at least so many bytes, but for the last.
const PIECE_BYTES: u64 = 256 * 1024;
/// Buffers below this are copied into one: each part is a write of its own.
const SHARED_BYTES_MIN: usize = 4096;
/// The end of a stream.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Batches below this many rows become one with those beside them ...
const SMALL_ROWS: usize = 1024;
/// ... up to this many.
const JOINED_ROWS: usize = 8192;

/// A stream that is to be written.
#[derive(Debug, Default)]
pub struct RawRows {
    pub parts: Vec<Bytes>,
    pub rows: u64,
    /// The lengths of the pieces, which together are all of it.
    pub pieces: Vec<u64>,
}

impl RawRows {
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().sum()
    }
}

/// Whether rows with these columns can be written so. Others would bring more than themselves.
pub fn fits(schema: &Schema) -> bool {
    schema.fields().iter().all(|field| match field.data_type() {
        DataType::Utf8View | DataType::BinaryView => true,
        other => is_plain(other),
    })
}

fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View
        | DataType::BinaryView
        | DataType::Dictionary(_, _)
        | DataType::RunEndEncoded(_, _)
        | DataType::Union(_, _)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => is_plain(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_plain(field.data_type())),
        _ => true,
    }
}

/// The stream of these batches.
///
/// # Errors
/// When a batch cannot be had, or has other columns.
pub fn encode(
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<RawRows> {
    let mut stream = Stream::new(schema)?;
    let (mut small, mut small_rows) = (Vec::new(), 0);
    for batch in batches {
        let batch = batch?;
        let rows = batch.num_rows();
        if rows >= SMALL_ROWS || small_rows + rows > JOINED_ROWS {
            stream.push_all(schema, &mut small)?;
            small_rows = 0;
        }
        if rows >= SMALL_ROWS {
            stream.push(&batch)?;
        } else if rows > 0 {
            small.push(batch);
            small_rows += rows;
        }
    }
    stream.push_all(schema, &mut small)?;
    stream.finish()
}

/// A stream in the making.
struct Stream {
    encoder: StreamEncoder,
    out: Out,
}

impl Stream {
    fn new(schema: &Schema) -> Result<Stream> {
        Ok(Stream { encoder: StreamEncoder::try_new(schema)?, out: Out::default() })
    }

    fn push_all(&mut self, schema: &SchemaRef, batches: &mut Vec<RecordBatch>) -> Result<()> {
        match &batches[..] {
            [] => {}
            [one] => self.push(one)?,
            many => self.push(&concat_batches(schema, many)?)?,
        }
        batches.clear();
        Ok(())
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.out.add(self.encoder.encode(&without_strangers(batch)?)?);
        self.out.done.rows += batch.num_rows() as u64;
        if self.out.piece >= PIECE_BYTES {
            self.out.done.pieces.push(std::mem::take(&mut self.out.piece));
        }
        Ok(())
    }

    fn finish(self) -> Result<RawRows> {
        let Stream { encoder, mut out } = self;
        out.add(encoder.finish()?);
        out.end_copied();
        out.done.pieces.push(out.piece);
        Ok(out.done)
    }
}

/// What has been encoded.
#[derive(Default)]
struct Out {
    done: RawRows,
    /// Small buffers that stand before the next part.
    copied: BytesMut,
    /// Bytes of the piece that has begun.
    piece: u64,
}

impl Out {
    fn add(&mut self, buffers: Vec<Buffer>) {
        for buffer in buffers {
            self.piece += buffer.len() as u64;
            if buffer.len() < SHARED_BYTES_MIN {
                self.copied.extend_from_slice(&buffer);
            } else {
                self.end_copied();
                self.done.parts.push(Bytes::from_owner(Shared(buffer)));
            }
        }
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.done.parts.push(self.copied.split().freeze());
        }
    }
}

/// A buffer that belongs to its batch, too.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The batch with views that hold their own texts only: a stream has all buffers of a view.
fn without_strangers(batch: &RecordBatch) -> Result<RecordBatch> {
    let is_view =
        |column: &ArrayRef| matches!(column.data_type(), DataType::Utf8View | DataType::BinaryView);
    if !batch.columns().iter().any(is_view) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => std::sync::Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => std::sync::Arc::new(column.as_binary_view().gc()) as ArrayRef,
        _ => column.clone(),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)?)
}

/// The batches of a stream, from its pieces in order. The arrays stand on the pieces.
///
/// # Errors
/// When it is not a whole stream.
pub fn decode(pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<RecordBatch>> {
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    let mut ended = false;
    for piece in pieces {
        ended = piece.ends_with(&END);
        let mut rest = Buffer::from(piece);
        while !rest.is_empty() {
            batches.extend(decoder.decode(&mut rest)?);
        }
    }
    decoder.finish()?;
    if decoder.schema().is_none() || !ended {
        return Err(Error::internal("a stream of rows is not whole"));
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::Field;

    use super::*;

    fn batch(from: i64, rows: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("t", DataType::Utf8, true),
        ]));
        let numbers = Int64Array::from_iter_values(from..from + rows);
        let texts = StringArray::from_iter(
            (from..from + rows).map(|n| (n % 7 != 0).then(|| n.to_string())),
        );
        RecordBatch::try_new(schema, vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
    }

    fn pieces(raw: &RawRows) -> Vec<Bytes> {
        let all: Vec<u8> = raw.parts.iter().flatten().copied().collect();
        assert_eq!(all.len() as u64, raw.bytes());
        let mut all = Bytes::from(all);
        raw.pieces.iter().map(|length| all.split_to(*length as usize)).collect()
    }

    #[test]
    fn large_batches_are_not_copied_and_small_ones_become_one() {
        let large = batch(0, 100_000);
        let batches = [batch(-3, 1), large.slice(50_000, 50_000), batch(5, 10), batch(15, 20)];
        let all = encode(&large.schema(), batches.iter().cloned().map(Ok)).unwrap();
        assert_eq!(all.rows, 50_031);
        let numbers = large.column(0).to_data().buffers()[0].as_slice().as_ptr_range();
        assert!(all.parts.iter().any(|part| numbers.contains(&part.as_ptr())));
        let back = decode(pieces(&all)).unwrap();
        assert_eq!(back.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [1, 50_000, 30]);
        let schema = large.schema();
        let (before, after) = (concat_batches(&schema, &batches), concat_batches(&schema, &back));
        assert_eq!(before.unwrap(), after.unwrap());
        // A piece that is missing, and one that is cut, are seen.
        let mut torn = pieces(&all);
        torn.pop();
        assert!(decode(torn).is_err());
        let mut cut = pieces(&all);
        let last = cut.pop().unwrap();
        cut.push(last.slice(..last.len() - 1));
        assert!(decode(cut).is_err());
    }

    #[test]
    fn a_stream_without_rows_is_one_and_views_bring_only_their_own_texts() {
        let schema = batch(0, 1).schema();
        let none = encode(&schema, std::iter::empty()).unwrap();
        assert_eq!((none.rows, decode(pieces(&none)).unwrap().len()), (0, 0));
        assert!(decode([]).is_err());
        let long: Vec<String> = (0..5_000).map(|n| format!("a text that is long, {n}")).collect();
        let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(&long));
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8View, true)]));
        assert!(fits(&schema));
        let one = RecordBatch::try_new(schema.clone(), vec![views.slice(7, 1)]).unwrap();
        let raw = encode(&schema, std::iter::once(Ok(one.clone()))).unwrap();
        assert!(raw.bytes() < 1_000, "{}", raw.bytes());
        assert_eq!(decode(pieces(&raw)).unwrap(), [one]);
        let list = DataType::new_list(DataType::Utf8View, true);
        assert!(!fits(&Schema::new(vec![Field::new("l", list, true)])));
    }
}
