//! The ring and the body that comes from it: recognizers in Rust and C, good and hostile.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/disturbed.rs"]
mod disturbed;
#[path = "../common/event_spec.rs"]
mod event_spec;
#[path = "../common/restless.rs"]
mod restless;

mod body_properties;
mod c_producer;
mod file;
mod hostile_producer;
mod properties;
