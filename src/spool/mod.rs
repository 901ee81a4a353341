//! Stores events on the disk while a destination is down. Events that are stored together share one file. The file has a name for
//! each event in the folder of each destination that lacks it. What the folders list is what there is.
//!
//! ```text
//!  spool/new/00000000000000000017.event            being written; deleted at every start
//!  spool/to/4fb1c0e2a9d37761/url                   the destination's URL, which also tells its report
//!  spool/to/4fb1c0e2a9d37761/heirs                 the destination was removed: which destinations get its events, and which do not
//!  spool/to/4fb1c0e2a9d37761/00000000000000000012.event    one file, a name in the folder of
//!  spool/to/09ab…/00000000000000000012.event               each destination that lacks the event,
//!  spool/to/4fb1c0e2a9d37761/00000000000000000013.event    and for each event in it
//!  spool/dead/4fb1…/00000000000000000009.event     a dead letter: refused by the server, kept for a person
//!  spool/reasons                                   the reasons of all dead letters
//!  spool/bad/00000000000000000001.bad              quarantine: damaged, or not a file of the spool
//!
//!   store: make room ▶ write new/N ▶ fsync it ▶ link it into each folder ▶ fsync each ▶ unlink new/N ▶ stored
//!   delivered: unlink          start: empty new/, list the folders, fsync them
//!   destination removed: note its heirs ▶ make their folders ▶ link ▶ fsync ▶ unlink
//!   … with no heir: parked; its events stay in its folder until it, or a new destination, comes
//! ```
//!
//! # What holds
//! - An event is stored when its file and every folder that names it are durable. A file that is only half written has no name
//!   outside `new/`.
//! - There is no index on the disk. Memory has a copy of the listing ([`index`] says why).
//! - Deleting a name is not made durable. After a power cut the event may be there again, and is delivered again under the same
//!   id. An fsync for each delivery would wear the flash, and the receiver must expect repeated events anyway. But a start makes
//!   what it found durable before it uses new numbers, so no number ever means two events.
//! - The spool is bounded in bytes (blocks of 4 KiB; every file under `spool/`, and one block each for the `url` and the `heirs` of
//!   a destination), in files, and by the free space that it leaves to others. The oldest event is evicted first, and counted for
//!   each destination that loses it. Never evict for an event that cannot fit; stop after one eviction if the disk still reports full.
//! - After a failed fsync the file is never fsynced again, because the kernel may have dropped what it could not write. The event
//!   is written to a new file, a few times.
//! - A name that cannot be deleted, or a file that cannot be read now, is not offered again before the folders are listed anew,
//!   at the next start or after the spool could not be used. It stays where it is and counts, and the reader continues.
//! - If the config names a key, files are sealed ([`seal`] says how), and nothing is written in clear, even while the key is
//!   missing. A file that is sealed with another key stays where it is, and is offered when its key is
//!   back: at once if there was none, at SIGHUP if there was another one.
//! - An intact file in an unknown format was written by another release, and stays where it is for that release.
//! - There are no clocks, no threads, and no random numbers except the salts of sealed files: a call does its work and returns.
//!   [`worker`] runs the spool in a thread of its own.
//!
//! # Parts
//! Each part owns its state: its fields are private to its file, and the rest of the spool uses its functions.
//!
//! | part | its state |
//! | --- | --- |
//! | [`volume`] | the disk, the folder, what was written, names in `new/` that could not be taken away |
//! | [`destinations`] | the destinations in their slots: the config's and removed ones, heirs, folders, counts |
//! | `events.rs` | which event has a name in which folder ([`index`]), which are not offered and why, the next number |
//! | `letters.rs` | the dead letters, and why they are ([`reasons`]) |
//! | [`quarantine`] | what is damaged or not ours |
//! | [`key`] | the key in use |
//! | `swapped.rs` | what lies in a folder that was the spool's |
//! | `readers.rs` | the files that are being read, which take their room without a name, too |
//!
//! | what [`Spool`] does with them | in |
//! | --- | --- |
//! | gives events to the lanes, and is told what became of them | `mod.rs` |
//! | stores: makes room, writes one event or several | [`store`], [`batch`], `room.rs`, `write.rs` |
//! | opens an event, and reads it | [`read`], [`opened`] |
//! | makes dead letters, and sends them again | [`dead`] |
//! | gives the events of a removed destination to its heirs | `heirs.rs` |
//! | starts; follows when another folder is at its path | [`recover`], [`recovered`], `swapped.rs` |
//! | says how it is | [`status`] |
//!
//! | and | |
//! | --- | --- |
//! | [`mod@file`], [`group`], [`seal`] | formats: of an event, of several in one file, of sealed files |
//! | [`disk`], [`disk_error`], [`mapped_file`] | the trait and the real disk; its errors; its files in memory |
//! | `shelf.rs` | files with their blocks, the oldest first |
//! | [`worker`] | its thread in the running uplink |
//! | [`inspect`], [`judge`](mod@judge) | looks from outside |

pub mod batch;
pub mod dead;
pub mod destinations;
pub mod disk;
pub mod disk_error;
mod events;
pub mod file;
pub mod group;
mod heirs;
pub mod index;
pub mod inspect;
pub mod judge;
pub mod key;
mod letters;
pub mod mapped_file;
pub mod opened;
pub mod quarantine;
pub mod read;
mod readers;
pub mod reasons;
pub mod recover;
pub mod recovered;
mod room;
pub mod seal;
mod shelf;
pub mod status;
pub mod store;
mod swapped;
pub mod volume;
pub mod worker;
mod write;

use crate::config;
pub use dead::Resent;
use destinations::Destinations;
use disk::Disk;
pub use disk::RealDisk;
pub use disk_error::DiskError;
use events::{Events, Hidden};
pub use file::{Address, Destination};
use index::BLOCK;
use key::KeyInUse;
use letters::Letters;
pub use opened::SpooledEvent;
use quarantine::Quarantine;
pub use read::ReadError;
use readers::Readers;
pub use reasons::DeadLetterReason;
use reasons::Reasons;
pub use recovered::Recovered;
pub use status::{DestinationStatus, State, Status, Tally};
pub use store::{Evicted, StoreError, Stored};
pub use swapped::Moved;
use swapped::Swapped;
use volume::Volume;

/// The bounds of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In whole blocks, with dead letters and quarantine.
    pub max_bytes: u64,
    /// Events, dead letters and files in quarantine.
    pub max_files: u64,
    /// The space that is left to others on the same file system.
    pub min_free_bytes: u64,
}

/// The default of [`Bounds::max_files`]: enough for days, and few enough for the inodes of a small file system.
pub const MAX_FILES: u64 = 200_000;

impl From<&config::Spool> for Bounds {
    fn from(config: &config::Spool) -> Bounds {
        Bounds { max_bytes: config.max_bytes, max_files: MAX_FILES, min_free_bytes: config.min_free_bytes }
    }
}

/// The spool on a disk.
#[derive(Debug)]
pub struct Spool<D: Disk> {
    volume: Volume<D>,
    bounds: Bounds,
    state: State,
    key: KeyInUse,
    destinations: Destinations,
    events: Events,
    letters: Letters<D::File>,
    quarantine: Quarantine,
    swapped: Swapped,
    readers: Readers,
    /// Whether evictions are known to make room on a full disk.
    eviction_helps: bool,
}

/// An event that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number. It grows with every event that is stored.
    pub counter: u64,
    /// The size of its file, in whole blocks.
    pub bytes: u64,
}

impl<D: Disk> Spool<D> {
    /// Opens the spool of `config` for these destinations. The second value says what was found. If the disk cannot be used, the
    /// spool is [`State::Unavailable`]; [`Spool::open_again`] tries again.
    pub fn open(disk: D, config: &config::Spool, destinations: &[Address]) -> (Spool<D>, Recovered) {
        let mut spool = Spool {
            volume: Volume::new(disk, &config.dir),
            bounds: config.into(),
            state: State::Unavailable("it was not opened yet".into()),
            key: KeyInUse::default(),
            destinations: Destinations::default(),
            events: Events::default(),
            letters: Letters::new(Reasons::new(&config.dir)),
            quarantine: Quarantine::default(),
            swapped: Swapped::default(),
            readers: Readers::default(),
            eviction_helps: true,
        };
        for address in destinations {
            let added = spool.add(address);
            debug_assert!(added.is_ok(), "a config has fewer destinations than there are slots");
        }
        let _the_status_says_so = spool.use_key_file(config.key_file.as_deref());
        let recovered = spool.open_again();
        (spool, recovered)
    }

    /// Sets the bounds, and returns the former ones. The next store, or [`Spool::honour_bounds`], evicts what exceeds them.
    pub fn set_bounds(&mut self, bounds: Bounds) -> Bounds {
        std::mem::replace(&mut self.bounds, bounds)
    }

    /// The events that wait for a destination and are offered, oldest first, after the number `after`.
    pub fn list(&self, destination: Destination, after: Option<u64>) -> impl Iterator<Item = Waiting> {
        let slot = self.destinations.slot(destination);
        let offered = slot.map(|slot| self.events.offered(slot, after).map(move |entry| (slot, entry)));
        let offered = offered.into_iter().flatten();
        let offered = offered.filter(|(slot, entry)| !self.swapped.is_stray(entry.counter, *slot));
        offered.map(|(_, entry)| Waiting { counter: entry.counter, bytes: u64::from(entry.blocks) * BLOCK })
    }

    /// Leases the event: it is being delivered, and not offered before [`Spool::return_lease`].
    pub fn lease(&mut self, destination: Destination, counter: u64) {
        if let Some(slot) = self.slot_with(destination, counter) {
            self.events.lease(counter, slot);
        }
    }

    /// Ends the lease: the event was not delivered, and is offered again.
    pub fn return_lease(&mut self, destination: Destination, counter: u64) {
        let counter = self.follow(destination, counter);
        if let Some(slot) = self.destinations.slot(destination) {
            self.events.return_lease(counter, slot);
        }
    }

    /// Deletes a delivered event from its destination's folder. False if it was not there (evicted meanwhile).
    ///
    /// # Errors
    /// If its name cannot be deleted. The event is not offered again in this run, but the next start may deliver it again.
    pub fn delivered(&mut self, destination: Destination, counter: u64) -> Result<bool, DiskError> {
        self.done_with(destination, counter, |tally| &mut tally.delivered)
    }

    /// The same for an event that the destination inherited twice: it is sent once.
    ///
    /// # Errors
    /// As [`Spool::delivered`].
    pub fn had(&mut self, destination: Destination, counter: u64) -> Result<bool, DiskError> {
        self.done_with(destination, counter, |tally| &mut tally.handed_over)
    }

    /// The same for an event that has waited longer than the config allows.
    ///
    /// # Errors
    /// As [`Spool::delivered`].
    pub fn expired(&mut self, destination: Destination, counter: u64) -> Result<bool, DiskError> {
        self.done_with(destination, counter, |tally| &mut tally.expired)
    }

    fn done_with(
        &mut self,
        destination: Destination,
        counter: u64,
        part: fn(&mut Tally) -> &mut u64,
    ) -> Result<bool, DiskError> {
        let counter = self.follow(destination, counter);
        match self.slot_with(destination, counter) {
            None => Ok(false),
            Some(slot) if self.events.why_hidden(counter, slot) == Some(Hidden::Done) => {
                self.unlink(counter, slot)?;
                Ok(false)
            }
            Some(slot) => {
                self.count(slot, part);
                let removed = self.unlink(counter, slot);
                if removed.is_err() {
                    self.events.hide(counter, slot, Hidden::Done);
                }
                removed
            }
        }
    }

    /// The slot of a destination, if the event has a name in its folder.
    fn slot_with(&self, destination: Destination, counter: u64) -> Option<usize> {
        self.destinations.slot(destination).filter(|slot| self.events.is_in(counter, *slot))
    }

    /// Deletes an event's name from a folder. Returns whether the event was still waiting there.
    fn unlink(&mut self, counter: u64, slot: usize) -> Result<bool, DiskError> {
        self.available()?;
        self.volume.unlink(&self.name_in(slot, counter))?;
        Ok(self.events.forget(counter, slot) != Some(Hidden::Done))
    }

    /// Deletes a name that remains only because it could not be deleted before: the event gets this name again.
    fn unlink_if_done(&mut self, counter: u64, slot: usize) -> Result<(), DiskError> {
        if self.events.why_hidden(counter, slot) == Some(Hidden::Done) {
            self.unlink(counter, slot)?;
        }
        Ok(())
    }

    /// Counts something for a destination and for the whole spool.
    fn count(&mut self, slot: usize, what: impl Fn(&mut Tally) -> &mut u64) {
        self.destinations.count_many(slot, 1, what);
    }
}
