//! The uplink daemon.
fn main() {}
