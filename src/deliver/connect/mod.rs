//! Resolves a host name and connects to it by TCP, with one deadline for everything. It follows RFC 8305 ("Happy Eyeballs").
//!
//! - A and AAAA are queried at the same time. A DNS server that answers only one of them costs `RESOLUTION_DELAY`.
//! - Addresses are tried in the resolver's order, alternating between the families. The next attempt begins after
//!   `ATTEMPT_DELAY`, or when one fails; earlier attempts go on.
//! - When no address is left, the first one is tried once more in parallel, because the kernel retransmits late on a lossy link.
//! - [`Memory`]: if another address than the first one connected, the next connection begins with it. An address on which a
//!   request broke off comes last.
//! - The resolver is the C library's, in a thread of its own. If a lookup hangs, all connections wait for that one lookup.

mod names;
mod race;

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::failure::{Code, Failure};
use crate::config::is_forbidden_address;
pub use names::Memory;
use names::{resolve, unanswered};
use race::race;

/// Connects to `host`, a name or an address, before `deadline`. Also returns how long the TCP connection took.
///
/// # Errors
/// Which step failed, and how.
pub async fn connect(
    host: &str,
    port: u16,
    memory: &Memory,
    deadline: &Deadline,
) -> Result<(TcpStream, Duration), Failure> {
    let (found, late) = match host.parse() {
        Ok(address) => (vec![address], None),
        Err(_) => {
            let looked_up = deadline.wait_for(resolve(host, memory)).await;
            looked_up.unwrap_or_else(|| Err(unanswered(host, deadline.bound())))?
        }
    };
    let addresses = in_order(&found, memory);
    let first = addresses.first().copied();
    // The other family's addresses, if they come later.
    let late = async {
        match late {
            Some(family) => in_order(&memory.lookup(host, family).await.unwrap_or_default(), memory),
            None => Vec::new(),
        }
    };
    let raced = race(&addresses, Box::pin(late), port, deadline).await;
    let (stream, took) = raced.map_err(|failure| failure.unwrap_or_else(|| nowhere(host, found.is_empty())))?;
    let winner = stream.peer_addr().map(|peer| peer.ip()).ok();
    if let Some(winner) = winner.filter(|_| winner != first) {
        memory.known().first = Some((winner, Instant::now()));
    }
    Ok((stream, took))
}

/// The allowed addresses, in the order of attempts.
fn in_order(found: &[IpAddr], memory: &Memory) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = found.iter().copied().filter(|address| !is_forbidden_address(*address)).collect();
    memory.sort(&mut addresses);
    addresses
}

/// There was no address to connect to.
fn nowhere(host: &str, is_empty: bool) -> Failure {
    match is_empty {
        true => Failure::new(Code::DnsFailed, format!("the name {host} cannot be resolved: it has no address")),
        false => {
            let why = format!("the name {host} has no address that events may go to");
            Failure::new(Code::AddressForbidden, why)
        }
    }
}
