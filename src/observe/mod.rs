//! Seeing and timing.
//!
//! | file | owns |
//! |---|---|
//! | `clock.rs` | the only reader of the wall clock; a test clock beside it |

pub mod clock;
