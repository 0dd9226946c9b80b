//! Role dispatch, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread exists: a role must start single-threaded.
    cellblock::roles::run().unwrap_or_else(cellblock::cli::run)
}
