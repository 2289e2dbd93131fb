//! proxy-agent
fn main() {}
