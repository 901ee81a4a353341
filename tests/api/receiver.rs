//! The receiving server, from outside: the rules of an event, what is kept of it, and what misbehaving clients get.

mod harness;
mod http;
mod reports;
mod rules;
mod store;
