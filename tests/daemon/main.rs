//! The uplink as a process of the box: config, options, privileges, signals, log and clock.

#[path = "../common/mod.rs"]
mod common;

mod clock;
mod config;
mod hand_over;
mod least_privilege;
mod options;
mod other_user;
mod public_behaviour;
mod robustness;
