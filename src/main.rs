//! Role dispatch, then the command line.
fn main() {}
