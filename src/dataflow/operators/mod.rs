//! The operators, one file each, named as their `plan::Node`.

pub mod evaluate;
pub mod map;
pub mod union;
