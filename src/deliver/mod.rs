//! From one event to every destination, and back to the ring when all have it or the spool has it for them.
//!
//! ```text
//!            ┌─▶ lane ─▶ Client ─▶ server 1 ─┐
//!   event ───┼─▶ lane ─▶ Client ─▶ server 2 ─┼──▶ a delivery over ──▶ Ledger ──▶ the ring's tail
//!            └─▶ lane ─▶ …                  ─┤    (the last one)    (in order)
//!                  ▲                         │
//!                  └── backlog ── spool ◀────┘  failure, a ring that fills, shutdown
//! ```
//!
//! | file | what it is |
//! | --- | --- |
//! | [`mod@core`] | decides everything: a state machine without I/O, a lane for each destination |
//! | [`driver`] | does it: uploads, and what the spool's thread does for deliveries |
//! | [`setup`], [`signature`] | what the config and its files say to each client; signed requests |
//! | `report` | a text that is no event, posted once |
//! | [`endpoints`], [`rate`] | a destination's own server and those that stand in; how fast bytes may go out |
//! | [`client`], [`connect`], [`transport`], [`tunnel`], [`tls`], [`tls_error`] | one try, and the connection for it |
//! | [`answer`], [`head`], [`progress`], [`deadline`], [`link`], [`unacknowledged`] | what comes back, and how long it is waited for |
//! | [`permit`], [`record`] | what a try holds: a body's permit; where its pictures lie |
//! | [`outcome`], [`failure`] | what an answer means, why a try failed |
//! | [`recent`], [`history`] | what became of the last hour's events, and how long they took |
//! | [`sizes`], [`servers`] | how large the events are that a server takes, and whose limit that likely is |
//! | [`ledger`] | what of a ring can be given back |

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
