//! proxy-server
fn main() {}
