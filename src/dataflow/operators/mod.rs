//! The operators, one file each, named as their `plan::Node`.
