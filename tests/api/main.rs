//! What serves HTTP: the API of the box, and event-receive-server.

#[path = "../common/mod.rs"]
mod common;

mod bad_inputs;

mod config;
mod pages;
mod receiver;
mod settings;
mod status;
