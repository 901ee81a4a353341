//! sophon-uplink: from the recognizer's ring in shared memory to the owner's cloud.
//!
//! Data flows one way:
//!
//! ```text
//!  recognizer (C++) ──shm ring──▶ ring::consumer ──▶ event ──▶ threshold ──▶ deliver: a lane per destination
//!                        ▲                                                       │
//!                        │                                           body: text, and pictures in between
//!                        │                                                       │ base64, 63 KiB at a time,
//!                        │                                                       ▼ straight from the mapping
//!                        └── released when every destination has it ◀────── hyper ──▶ server
//!                            or the spool has it for them
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`ring`] | the shared memory: layout, mapping (the `unsafe`), file and locks, consumer, producer, wake-up |
//! | [`event`] | a checked record as a typed event |
//! | [`body`] | the request body: text and pictures, exact length, JSON and form-data, base64 |
//! | [`deliver`] | fan-out, lanes, HTTP client, outcomes, back-off, release |
//! | [`spool`] | events that wait on the disk: one file an event, the folders are the truth |
//! | [`config`] | the configuration file, checked and saved |
//! | [`confine`] | least privilege: user, capabilities, the filter of system calls |
//! | [`uplink`] | the tasks that tie these together |
//! | [`monitor`] | the state report |
//! | [`control`] | the one way by which a config comes into force |
//! | [`api`] | the local HTTP API and the box's page |
//! | [`trial`] | trying a server: test events of every size, what they show, whose limit it is |
//! | [`serve`] | what the HTTP servers of the package share |
//! | [`status`], [`health`] | what is told about the running uplink, and what of it is a problem |
//! | [`readiness`], [`clock`] | whether the box has what TLS and sealing need: random numbers, the time |
//! | [`signals`] | which it obeys, whatever hangs, and which it does not mind |
//! | `backtrace` | on the box: no backtraces, and nothing that makes them |
//! | [`log`], [`rate_limited`] | a log that cannot stop the uplink, a brake for messages |
//! | [`output`] | what the commands print |

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))] // they panic where nobody reads: see [`output`]

pub mod api;
#[cfg(all(target_env = "musl", panic = "abort"))]
mod backtrace;
pub mod body;
pub mod clock;
pub mod config;
pub mod confine;
pub mod control;
pub mod deliver;
pub mod event;
pub mod health;
pub mod log;
pub mod monitor;
pub mod output;
pub mod rate_limited;
pub mod readiness;
pub mod ring;
pub mod secret_file;
pub mod serve;
pub mod signals;
pub mod spool;
pub mod status;
pub mod trial;
pub mod uplink;
