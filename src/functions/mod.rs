//! SQL functions that DataFusion lacks or means differently, one file each or each family.
//!
//! | file | owns |
//! |---|---|
//! | `scalar/` | functions of one row |

pub mod scalar;
