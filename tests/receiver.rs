//! The receiving server, from outside: the rules of an event, what is kept of it, and what misbehaving clients get.

#[path = "receiver/harness.rs"]
mod harness;
#[path = "receiver/http.rs"]
mod http;
#[path = "receiver/reports.rs"]
mod reports;
#[path = "receiver/rules.rs"]
mod rules;
#[path = "receiver/store.rs"]
mod store;
