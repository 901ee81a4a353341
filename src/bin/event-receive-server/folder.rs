//! The store that comes with the program: the journal, in memory or in files (`--store DIR`), and the boxes' last reports. The page
//! shows what is in it.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::StatusCode;
use tokio::time::Instant;

use crate::boxes::{Boxes, Came};
use crate::journal::Journal;
use crate::picture::sha256_hex;
use crate::record::Arrival;
use crate::refusal::Refusal;
use crate::store::{Asked, Delivery, Sender, Store, What};

/// See the module.
pub struct Folder {
    pub journal: Journal,
    /// The boxes that sent their state.
    pub boxes: Boxes,
}

impl Folder {
    /// What the journal holds, and no box.
    pub fn new(journal: Journal) -> Folder {
        Folder { journal, boxes: Boxes::default() }
    }

    /// Blocks while the disk works.
    fn keep_now(&self, delivery: Delivery) -> Result<(), Refusal> {
        let Delivery { id, received_at, format, body, what, .. } = delivery;
        match what {
            What::State(report) => {
                let name = report.name().to_owned();
                self.boxes.take(name, report, Came { received_at, ..Came::default() }, Instant::now());
            }
            What::Event(event) => {
                let id = event.report.id(id.unwrap_or_else(|| sha256_hex(&body)));
                self.journal
                    .take(Arrival { id, box_name: None, received_at, format, event: *event })
                    .map_err(not_stored)?;
            }
        }
        Ok(())
    }
}

impl Store for Folder {
    fn admit(&self, _: &Asked) -> Result<Sender, Refusal> {
        Ok(None)
    }

    /// On a thread that may wait for the disk. It ends even if the sender goes away meanwhile.
    fn keep(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<(), Refusal>> {
        let broken =
            |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be stored: this is a bug");
        Box::pin(async move { tokio::task::spawn_blocking(move || self.keep_now(delivery)).await.map_err(broken)? })
    }

    fn refused(&self, refusal: &Refusal) {
        if refusal.incomplete {
            self.journal.cut_short();
        } else {
            self.journal.reject(&refusal.errors);
        }
    }

    fn fault(&self) -> Option<String> {
        self.journal.fault()
    }
}

fn not_stored(error: io::Error) -> Refusal {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let status = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, format!("the event could not be stored, nothing of it was kept: {error}"))
}
