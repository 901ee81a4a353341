//! https: to servers that prove who they are, and to no others.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod servers;
