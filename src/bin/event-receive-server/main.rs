//! The receiving server that the box offers for trying the uplink out.
fn main() {}
