//! The command line of `ucp`.
#![forbid(unsafe_code)]
fn main() {}
