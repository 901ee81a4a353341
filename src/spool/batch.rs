//! Stores several events at once, in one file that has a name for each ([`group`](super::group)). This needs one fsync for the
//! file and one for each folder.

use std::path::Path;

use super::disk::Disk;
use super::file::Destination;
use super::group::{HEAD, MOST, Table};
use super::index::{Entry, Mask, blocks, slots};
use super::store::{Reason, StoreError, Stored};
use super::volume::{DiskError, Home};
use super::{Evicted, Spool, State};
use crate::picture::PictureSource;
use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;

/// An event to store, as for [`Spool::store`].
#[derive(Debug)]
pub struct Order<'a, S: ?Sized> {
    /// The ring that it came through.
    pub ring: RingId,
    /// The memory that its record is in.
    pub source: &'a S,
    /// The record in `source`.
    pub frame: &'a Frame,
    /// The destinations that lack it.
    pub to: &'a [Destination],
}

impl<S: ?Sized> Clone for Order<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Order<'_, S> {}

impl<D: Disk> Spool<D> {
    /// Stores events. An event is durable if its result is Ok. If they cannot be stored together, each is stored alone.
    pub fn store_all<S: Words + PictureSource + ?Sized>(
        &mut self,
        orders: &[Order<'_, S>],
    ) -> Vec<Result<Stored, StoreError>> {
        let mut evicted = Vec::new();
        let may_be_together = (2..=MOST).contains(&orders.len()) && self.volume.has_links();
        let first = if may_be_together { self.store_together(orders, &mut evicted).ok() } else { None };
        let each = (0..).zip(orders).map(|(at, order)| match first {
            Some(first) => Ok(Stored { counter: first + at, evicted: Vec::new() }),
            None => self.store(order.ring, order.source, order.frame, order.to),
        });
        let mut stored: Vec<_> = each.collect();
        if let Some(Ok(Stored { evicted: told, .. }) | Err(StoreError { evicted: told, .. })) = stored.first_mut() {
            told.splice(..0, evicted);
        }
        stored
    }

    /// Returns the number of the first event; the others have the numbers after it. All are durable, or nothing of them is left.
    fn store_together<S: Words + PictureSource + ?Sized>(
        &mut self,
        orders: &[Order<'_, S>],
        evicted: &mut Vec<Evicted>,
    ) -> Result<u64, Reason> {
        let masks = orders.iter().map(|order| self.mask(order.to)).collect::<Result<Vec<_>, _>>()?;
        let all = masks.iter().fold(0, |all, mask| all | mask);
        self.check_key()?;
        self.sweep()?;
        let first = self.events.next();
        let table = Table::of(first, orders.iter().map(|order| self.file_len(order.frame)));
        let (mut entries, all_blocks) = (Vec::with_capacity(orders.len()), blocks(table.file_len()));
        let mut bytes = 2 * HEAD as u64; // the table's are the first event's
        for (order, mask) in orders.iter().zip(&masks) {
            let blocks = blocks(bytes + self.file_len(order.frame));
            entries.push(Entry { counter: first + entries.len() as u64, blocks, mask: *mask });
            bytes = 0;
        }
        self.make_room(u64::from(all_blocks), entries.len() as u64, Some(evicted))?;
        self.make_needed_folders(all, evicted)?;
        self.make_all_folders();
        self.events.take_numbers(orders.len() as u64).ok_or(Reason::NoSuchDestination)?;
        let fresh = self.volume.file(Home::New, first);
        let stored = self.write_group(&fresh, &table, orders);
        let stored = stored.and_then(|()| Ok(self.name_all(&fresh, &entries, all, all_blocks)?));
        self.volume.remove_fresh(first);
        stored?;
        for entry in &entries {
            self.events.add(*entry);
            slots(entry.mask).for_each(|slot| self.count(slot, |tally| &mut tally.stored));
        }
        self.events.join(first, self.events.next() - 1, all_blocks);
        (self.state, self.eviction_helps) = (State::Usable, true);
        Ok(first)
    }

    /// Writes the file and makes it durable.
    fn write_group<S: Words + PictureSource + ?Sized>(
        &mut self,
        path: &Path,
        table: &Table,
        orders: &[Order<'_, S>],
    ) -> Result<(), Reason> {
        let mut file = self.volume.create(path)?;
        let (head, mut start) = (table.to_bytes(), HEAD as u64);
        self.volume.write(&mut file, path, &head, 0)?;
        for (order, end) in orders.iter().zip(table.ends()) {
            self.write((&mut file, path), start, *order)?;
            start = *end;
        }
        self.volume.write(&mut file, path, &head, start)?;
        Ok(self.volume.sync(&mut file, path)?)
    }

    /// Gives a durable file all its names and makes them durable: all or none. A name that cannot be deleted again keeps the
    /// whole file, which has `blocks` blocks.
    fn name_all(&mut self, fresh: &Path, entries: &[Entry], all: Mask, blocks: u32) -> Result<(), DiskError> {
        let mut named = Vec::with_capacity(entries.len());
        let linked = entries.iter().map(|entry| Entry { blocks, ..*entry }).try_for_each(|entry| {
            self.link_names(fresh, entry)?;
            named.push(entry);
            Ok(())
        });
        let linked = linked.and_then(|()| self.sync_folders(all));
        if linked.is_err() {
            named.into_iter().for_each(|entry| self.unlink_names(entry));
        }
        linked
    }
}
