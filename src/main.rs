/*! The `qualm` command: it only maps errors to exit codes. */
fn main() {}
