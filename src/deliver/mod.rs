//! Delivers each event to every destination, and releases it in the ring once each destination has it or the spool has stored it.
//!
//! ```text
//!            ┌─▶ lane ─▶ Client ─▶ server 1 ─┐
//!   event ───┼─▶ lane ─▶ Client ─▶ server 2 ─┼──▶ a delivery done ──▶ Ledger ──▶ the ring's tail
//!            └─▶ lane ─▶ …                  ─┤    (the last one)    (in order)
//!                  ▲                         │
//!                  └── backlog ── spool ◀────┘  failure, a ring that fills, shutdown
//! ```
//!
//! | file | what it does |
//! | --- | --- |
//! | [`mod@core`] | the state machine that makes all decisions, without I/O; it has one lane for each destination |
//! | [`driver`] | carries the decisions out: runs uploads, and has the spool's thread store and fetch events |
//! | [`setup`], [`signature`] | build each client's settings from the config and its files; sign requests |
//! | `report` | posts a report that is not an event, once |
//! | [`endpoints`], [`rate`] | choose between a destination's own server and its standby servers; limit the bytes per second |
//! | [`client`], [`connect`], [`transport`], [`wire`], [`tunnel`], [`tls`], [`tls_error`] | make one attempt, and the connection for it |
//! | [`answer`], [`head`], [`progress`], [`deadline`], [`link`], [`unacknowledged`] | read the response; detect a connection without progress |
//! | [`permit`], [`record`] | what an attempt holds: the permit for its body, and the memory where its pictures are |
//! | [`outcome`], [`failure`] | classify a response, and describe why an attempt failed |
//! | [`recent`], [`history`] | outcomes and latencies of the last hour's events |
//! | [`sizes`], [`servers`] | the event sizes that a server accepts, and which software likely sets the limit |
//! | [`ledger`] | tracks which part of a ring can be released |

pub mod answer;
pub mod client;
pub mod connect;
pub mod core;
pub mod deadline;
pub mod driver;
pub mod endpoints;
pub mod failure;
pub mod head;
pub mod history;
pub mod ledger;
pub mod link;
pub mod outcome;
pub mod permit;
pub mod progress;
pub mod rate;
pub mod recent;
pub mod record;
mod report;
pub mod servers;
pub mod setup;
pub mod signature;
pub mod sizes;
pub mod tls;
pub mod tls_error;
pub mod transport;
pub mod tunnel;
pub mod unacknowledged;
pub mod wire;
