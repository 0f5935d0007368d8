//! A target that counts rows and keeps nothing: for trying out and for benchmarks.

use async_trait::async_trait;

use crate::connectors::options::{Connector, Options};
use crate::connectors::sink::{Batch, Committed, SinkConnector, SinkInput, Target};
use crate::types::error::Result;

/// The connector's entry in the list.
pub const CONNECTOR: SinkConnector = SinkConnector {
    connector: Connector {
        name: "blackhole",
        doc: "Counts rows and keeps nothing.",
        options: &[],
        open_prefixes: &[],
        source: None,
    },
    open,
    forgets: true,
};

struct Blackhole;

fn open(_options: &Options, _input: &SinkInput) -> Result<Box<dyn Target>> {
    Ok(Box::new(Blackhole))
}

#[async_trait]
impl Target for Blackhole {
    async fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    async fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed> {
        let rows = batch.changes.iter().map(|changes| changes.num_rows() as u64).sum();
        let bytes = batch.changes.iter().map(|changes| changes.size_bytes() as u64).sum();
        Ok(Committed { rows, bytes })
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
