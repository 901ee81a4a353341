//! The addresses of a host: lookups, which all connections share, and what is remembered of the addresses.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, getaddrinfo};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::deliver::failure::{Code, Failure};

/// How long to wait for the other family's addresses when one family has some: RFC 8305 section 3.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long an address is remembered; after that the resolver's order counts again.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What is remembered of a destination's addresses.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Known>);

#[derive(Debug, Default)]
pub(super) struct Known {
    /// The latest lookups, for IPv6 and IPv4.
    lookups: [Option<watch::Receiver<Answer>>; 2],
    /// The address that connected although another one was first in order.
    pub(super) first: Option<(IpAddr, Instant)>,
    /// The address on which a request broke off.
    last: Option<(IpAddr, Instant)>,
}

/// None while the lookup runs.
type Answer = Option<Result<Vec<IpAddr>, Unresolved>>;

/// Why there is no address.
#[derive(Clone, Debug)]
pub(super) struct Unresolved {
    /// No DNS server answered, so the name may exist.
    is_unanswered: bool,
    why: String,
}

/// An address that is not remembered for too long.
fn fresh(known: Option<(IpAddr, Instant)>) -> Option<IpAddr> {
    known.filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(address, _)| address)
}

impl Memory {
    /// A request on a connection to `address` ended well, or broke off.
    pub fn note(&self, address: IpAddr, is_good: bool) {
        let mut known = self.known();
        let is_last = known.last.is_some_and(|(last, _)| last == address);
        match is_good {
            true if is_last => known.last = None,
            true => {}
            false => {
                known.first = known.first.filter(|(first, _)| *first != address);
                known.last = Some((address, Instant::now()));
            }
        }
    }

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sorts addresses into the order of attempts.
    pub(super) fn sort(&self, addresses: &mut Vec<IpAddr>) {
        let known = self.known();
        let (first, last) = (fresh(known.first), fresh(known.last));
        interleave(addresses);
        let mut move_to = |address: Option<IpAddr>, is_front: bool| {
            if let Some(from) = addresses.iter().position(|known| Some(*known) == address) {
                let address = addresses.remove(from);
                addresses.insert(if is_front { 0 } else { addresses.len() }, address);
            }
        };
        move_to(last, false);
        move_to(first, true);
    }

    /// The addresses of `host` in one family. Joins a lookup that is under way, or starts one.
    pub(super) async fn lookup(&self, host: &str, family: Family) -> Result<Vec<IpAddr>, Unresolved> {
        let mut answer = {
            let lookup = &mut self.known().lookups[family as usize];
            match lookup {
                Some(running) if running.borrow().is_none() && running.has_changed().is_ok() => running.clone(),
                _ => {
                    let (tell, answer) = watch::channel(None);
                    let host = host.to_owned();
                    tokio::task::spawn_blocking(move || tell.send(Some(ask(&host, family))));
                    lookup.insert(answer).clone()
                }
            }
        };
        let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.unwrap_or_else(|| Err(Unresolved { is_unanswered: true, why: "the resolver ended".into() }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Family {
    V6,
    V4,
}

/// Asks the C library, which may take as long as resolv.conf allows.
fn ask(host: &str, family: Family) -> Result<Vec<IpAddr>, Unresolved> {
    let address = if family == Family::V6 { libc::AF_INET6 } else { libc::AF_INET };
    let hints = AddrInfoHints { address, socktype: libc::SOCK_STREAM, ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints)).map_err(|error| {
        let is_unanswered = matches!(error.kind(), LookupErrorKind::Again);
        Unresolved { is_unanswered, why: io::Error::from(error).to_string() }
    })?;
    Ok(found.filter_map(Result::ok).map(|found| found.sockaddr.ip()).collect())
}

/// Alternates between the families, each in its own order, beginning with the family of the first address.
fn interleave(addresses: &mut Vec<IpAddr>) {
    let is_first = addresses.first().is_some_and(IpAddr::is_ipv6);
    let of = |is_six| addresses.iter().copied().filter(move |address| address.is_ipv6() == is_six);
    let (mut one, mut other) = (of(is_first), of(!is_first));
    let mut mixed = Vec::with_capacity(addresses.len());
    while mixed.len() < addresses.len() {
        mixed.extend(one.next());
        mixed.extend(other.next());
    }
    *addresses = mixed;
}

/// A host's addresses, and the family whose answer is still missing, if any.
pub(super) async fn resolve(host: &str, memory: &Memory) -> Result<(Vec<IpAddr>, Option<Family>), Failure> {
    let mut six = Box::pin(memory.lookup(host, Family::V6));
    let mut four = Box::pin(memory.lookup(host, Family::V4));
    let (first, second) = tokio::select! {
        biased;
        found = &mut six => (found, Family::V4),
        found = &mut four => (found, Family::V6),
    };
    let has_some = first.as_ref().is_ok_and(|found| !found.is_empty());
    let remembered = fresh(memory.known().first);
    let is_enough = has_some && first.as_ref().is_ok_and(|found| found.iter().any(|one| Some(*one) == remembered));
    let rest = async { if second == Family::V4 { four.await } else { six.await } };
    let other = match () {
        () if is_enough => None,
        // With some addresses found, the others are waited for only this long.
        () if has_some => tokio::time::timeout(RESOLUTION_DELAY, rest).await.ok(),
        () => Some(rest.await),
    };
    let is_late = other.is_none();
    let other = other.unwrap_or(Ok(Vec::new()));
    let (six, four) = if second == Family::V4 { (first, other) } else { (other, first) };
    match (six, four) {
        (Err(six), Err(four)) => {
            // The resolver's error for IPv4 tells more, unless no server answered for IPv6.
            let told = if six.is_unanswered { six } else { four };
            Err(if told.is_unanswered { no_server(host, &told.why) } else { unknown(host, &told.why) })
        }
        (six, four) => {
            let mut all = six.unwrap_or_default();
            all.extend(four.unwrap_or_default());
            Ok((all, is_late.then_some(second)))
        }
    }
}

fn unknown(host: &str, why: &str) -> Failure {
    Failure::new(Code::DnsFailed, format!("the name {host} cannot be resolved: {why}"))
}

fn no_server(host: &str, why: &str) -> Failure {
    let why = format!(
        "the name {host} cannot be resolved, because no DNS server answers ({why}): check the network, and the servers in /etc/resolv.conf"
    );
    Failure::new(Code::DnsTimeout, why)
}

/// No lookup ended before the deadline, which was `bound` away.
pub(super) fn unanswered(host: &str, bound: Duration) -> Failure {
    let ms = bound.as_millis();
    let why = format!(
        "no DNS server answered within {ms} ms for the name {host}: check the network, and the servers in /etc/resolv.conf"
    );
    Failure::new(Code::DnsTimeout, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_are_tried_in_turn_beginning_with_what_worked_and_ending_with_what_broke_off() {
        let memory = Memory::default();
        let sorted = |list: &[&str]| {
            let mut list = addresses(list);
            memory.sort(&mut list);
            list
        };
        let all = ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert_eq!(sorted(&all), addresses(&["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"]));
        assert_eq!(sorted(&["10.0.0.1", "fd00::1"]), addresses(&["10.0.0.1", "fd00::1"]));
        memory.known().first = Some(("10.0.0.2".parse().unwrap(), Instant::now()));
        assert_eq!(sorted(&all), addresses(&["10.0.0.2", "fd00::1", "10.0.0.1", "fd00::2", "10.0.0.3"]));
        memory.note("10.0.0.2".parse().unwrap(), false);
        assert_eq!(sorted(&all), addresses(&["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.3", "10.0.0.2"]));
        memory.note("10.0.0.2".parse().unwrap(), true);
        assert_eq!(sorted(&all), addresses(&["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"]));
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_asked_once_however_many_wait_for_it() {
        let memory = Memory::default();
        let (tell, answer) = watch::channel(None);
        memory.known().lookups[Family::V4 as usize] = Some(answer);
        let found = Ok(addresses(&["10.0.0.1"]));
        let (first, second, ()) = tokio::join!(
            memory.lookup("no.such.name.invalid", Family::V4),
            memory.lookup("no.such.name.invalid", Family::V4),
            async { drop(tell.send(Some(found))) }
        );
        assert_eq!((first.unwrap(), second.unwrap()), (addresses(&["10.0.0.1"]), addresses(&["10.0.0.1"])));
    }
}
