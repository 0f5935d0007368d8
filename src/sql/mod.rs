//! Text to plan; knows SQL, knows nothing of threads or storage.
pub mod parse;
pub mod statement;
