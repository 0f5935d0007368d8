//! The demo.
use crate::frontend::repl::client::ClientError;
use crate::frontend::repl::{Next, Shell};
pub(super) async fn run(_shell: &mut Shell) -> Result<Next, ClientError> {
    Ok(Next::GoOn)
}
