//! Events reach their servers, whatever the servers, the config and the end of a process do meanwhile.

#[path = "../common/mod.rs"]
mod common;

mod backlog;
mod connections;
mod dead_letters;
mod events;
mod kill;
mod kill_at_system_calls;
mod lanes;
mod leaving;
mod misbehaving_servers;
mod pressure;
mod removals;
mod reports;
mod sending;
mod shutdown;
mod state_reports;
mod trial;
