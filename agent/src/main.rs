//! The podcreds binary.
fn main() {}
