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
//! | module | contents |
//! | --- | --- |
//! | [`picture`] | how a picture's bytes are lent, whatever memory they are in |
//! | [`sigbus`] | the guard of mapped files: a file that shrinks costs the mapping and not the process |
//! | [`ring`] | the shared memory: layout, mapping (the `unsafe`), file and locks, consumer, producer, wake-up |
//! | [`event`] | a checked record as a typed event |
//! | [`body`] | the request body: text and pictures, exact length, JSON and form-data, base64 |
//! | [`deliver`] | fan-out, lanes, HTTP client, outcomes, back-off, release |
//! | [`spool`] | events that wait on the disk, as files in folders; the folders are the only record |
//! | [`config`] | the configuration file, checked and saved |
//! | [`confine`] | least privilege: user, capabilities, the filter of system calls |
//! | [`uplink`] | the tasks that tie these together |
//! | [`monitor`] | the state report |
//! | [`control`] | puts configs into force |
//! | [`api`] | the local HTTP API and the box's page |
//! | [`trial`] | tests a server: test events of every size, the limit found, and the product that has it |
//! | [`serve`] | code shared by the HTTP servers of the package |
//! | [`status`], [`health`] | the state of the running uplink, and its problems |
//! | [`readiness`], [`clock`] | whether the box has what TLS and sealing need: random numbers and the time |
//! | [`signals`] | signals that the uplink handles, and signals that it ignores |
//! | `backtrace` | on the box: removes backtraces and their code |
//! | [`secret_file`] | reads files with keys |
//! | [`log`], [`rate_limited`] | a log that never blocks the uplink, and a rate limit for messages |
//! | [`output`] | prints the output of commands |

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))] // they panic if nobody reads: see [`output`]

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
pub mod picture;
pub mod rate_limited;
pub mod readiness;
pub mod ring;
pub mod secret_file;
pub mod serve;
pub mod sigbus;
pub mod signals;
pub mod spool;
pub mod status;
pub mod trial;
pub mod uplink;
