//! scaffold
use crate::dataflow::operator::*;
use crate::state::delta::*;
use crate::types::{change::ChangeBatch, error::Result, time::*};
pub struct Union;
impl Operator for Union {
    fn name(&self) -> &'static str {
        "union"
    }
    fn on_batch(&mut self, _p: usize, b: ChangeBatch, out: &mut Output) -> Result<()> {
        out.emit(b);
        Ok(())
    }
    fn on_watermark(&mut self, _p: usize, _w: Watermark, _o: &mut Output) -> Result<()> {
        Ok(())
    }
    fn on_epoch(&mut self, _e: Epoch, _o: &mut Output) -> Result<()> {
        Ok(())
    }
    fn checkpoint(&mut self, _e: Epoch, _w: &mut CheckpointWriter) -> Result<()> {
        Ok(())
    }
    fn restore(&mut self, _r: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }
    fn memory_bytes(&self) -> usize {
        0
    }
}
