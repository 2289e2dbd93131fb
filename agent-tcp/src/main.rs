//! agent-tcp
fn main() {}
