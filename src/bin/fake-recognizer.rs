//! A stand-in for the recognizer.
fn main() {}
