//! Storing several events at once: each file is made durable, but each folder only once for all of them, and the disk may write them
//! together.

use super::disk::Disk;
use super::file::Destination;
use super::index::{Entry, Mask, slots};
use super::store::{Reason, StoreError, Stored};
use super::volume::Home;
use super::{Evicted, Spool, State};
use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::ring::mapping::PictureSource;

/// An event to store, as for [`Spool::store`].
#[derive(Clone, Copy, Debug)]
pub struct Order<'a, S: ?Sized> {
    /// The ring that it came through.
    pub ring: RingId,
    /// Where its record lies.
    pub source: &'a S,
    /// The record in `source`.
    pub frame: &'a Frame,
    /// Who lacks it.
    pub to: &'a [Destination],
}

impl<D: Disk> Spool<D> {
    /// Stores events, each of which is durable with its Ok. What the batch cannot do is done again for each event alone: there
    /// everything is tried.
    pub fn store_all<S: Words + PictureSource + ?Sized>(
        &mut self,
        orders: &[Order<'_, S>],
    ) -> Vec<Result<Stored, StoreError>> {
        let mut evicted = Vec::new();
        let together = if orders.len() > 1 { self.store_together(orders, &mut evicted).ok() } else { None };
        let together = together.unwrap_or_else(|| vec![None; orders.len()]);
        let each = together.into_iter().zip(orders).map(|(counter, order)| match counter {
            Some(counter) => Ok(Stored { counter, evicted: Vec::new() }),
            None => self.store(order.ring, order.source, order.frame, order.to),
        });
        let mut stored: Vec<_> = each.collect();
        if let Some(Ok(Stored { evicted: told, .. }) | Err(StoreError { evicted: told, .. })) = stored.first_mut() {
            told.splice(..0, evicted);
        }
        stored
    }

    /// The counters of those that are durable now; nothing is left of the others.
    fn store_together<S: Words + PictureSource + ?Sized>(
        &mut self,
        orders: &[Order<'_, S>],
        evicted: &mut Vec<Evicted>,
    ) -> Result<Vec<Option<u64>>, Reason> {
        let masks = orders.iter().map(|order| self.mask(order.to)).collect::<Result<Vec<_>, _>>()?;
        let all = masks.iter().fold(0, |all, mask| all | mask);
        self.check_key()?;
        self.sweep()?;
        let copies: Vec<u64> = masks.iter().map(|mask| self.copies(*mask)).collect();
        let each = orders.iter().zip(&copies);
        let blocks = each.map(|(order, copies)| copies * u64::from(self.file_blocks(order.frame))).sum();
        self.make_room(blocks, copies.iter().sum(), evicted)?;
        self.make_folders(all)?;
        self.make_all_folders();
        let entries = self.write_together(orders, &masks);
        let linked: Vec<_> = entries.into_iter().map(|entry| entry.filter(|entry| self.name(*entry))).collect();
        if let Err(fault) = self.sync_folders(all) {
            linked.iter().flatten().for_each(|entry| self.unlink_names(*entry));
            linked.iter().flatten().for_each(|entry| self.remove_fresh(entry.counter));
            return Err(fault.into());
        }
        for entry in linked.iter().flatten() {
            self.events.add(*entry);
            slots(entry.mask).for_each(|slot| self.count(slot, |tally| &mut tally.stored));
            self.remove_fresh(entry.counter);
            (self.state, self.eviction_helps) = (State::Usable, true);
        }
        Ok(linked.into_iter().map(|entry| entry.map(|entry| entry.counter)).collect())
    }

    /// Writes the files, then makes each of them durable; none for one that failed.
    fn write_together<S: Words + PictureSource + ?Sized>(
        &mut self,
        orders: &[Order<'_, S>],
        masks: &[Mask],
    ) -> Vec<Option<Entry>> {
        let mut files = Vec::with_capacity(orders.len());
        for (order, mask) in orders.iter().zip(masks) {
            if self.next == u64::MAX {
                files.push(None); // [`Spool::store`] says so
                continue;
            }
            let entry = Entry { counter: self.next, blocks: self.file_blocks(order.frame), mask: *mask };
            self.next += 1;
            let fresh = self.volume.file(Home::New, entry.counter);
            let file = self.write(&fresh, order.ring, order.source, order.frame);
            let begun = file.inspect(|file| self.volume.begin_to_write_back(file));
            files.push(begun.map(|file| (entry, file)).map_err(|_| self.remove_fresh(entry.counter)).ok());
        }
        let durable = |written: Option<(Entry, D::File)>| {
            let (entry, mut file) = written?;
            let synced = self.volume.sync(&mut file, &self.volume.file(Home::New, entry.counter));
            synced.map_err(|_| self.remove_fresh(entry.counter)).ok().map(|()| entry)
        };
        files.into_iter().map(durable).collect()
    }

    /// Gives a durable file its names; they are not durable then.
    fn name(&mut self, entry: Entry) -> bool {
        let named = self.link_names(&self.volume.file(Home::New, entry.counter), entry);
        named.map_err(|_| self.remove_fresh(entry.counter)).is_ok()
    }
}
