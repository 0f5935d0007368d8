//! The `millstream` program. Everything is in the library; see `cli.rs`.

use std::process::ExitCode;

/// Measured against the system's allocator and jemalloc: the fastest for batches that one thread
/// makes and another drops.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millstream::cli::main()
}
