//! Functions over partitions in order that DataFusion lacks.
//!
//! | file | owns |
//! |---|---|
//! | `session.rs` | where the session of a row begins and ends |

pub mod session;

use std::sync::Arc;

use datafusion::logical_expr::WindowUDF;

/// All of them.
pub fn all() -> Vec<Arc<WindowUDF>> {
    session::all()
}
