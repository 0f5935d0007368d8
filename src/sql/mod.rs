//! Text to plan; knows SQL, knows nothing of threads or storage.
//!
//! | file | owns |
//! |---|---|
//! | `statement.rs` | the statements, one variant each |
//! | `parse.rs`, `parse/` | text to statements: tokens, our grammar around sqlparser's, errors |
//! | `rewrite.rs` | streaming extensions of queries, turned into forms sqlparser has |

pub mod parse;
mod rewrite;
pub mod statement;
