//! Functions of one row: Postgres's that DataFusion lacks or means differently.
//!
//! | file | owns |
//! |---|---|
//! | `arithmetic.rs` | `+ - * / %` on integers and floats, with errors instead of wrap-around |

pub mod arithmetic;
