//! The default store: the journal, in memory or in files (`--store DIR`), and the boxes' last reports. The page shows its
//! content.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::StatusCode;
use tokio::time::Instant;

use crate::boxes::{Boxes, Came};
use crate::error::ApiError;
use crate::journal::Journal;
use crate::picture::sha256_hex;
use crate::record::Arrival;
use crate::store::{Content, Delivery, RequestHead, Sender, Store};

/// See the module.
pub struct Folder {
    pub journal: Journal,
    /// Boxes that sent their state.
    pub boxes: Boxes,
}

impl Folder {
    /// A store with the events of the journal and without boxes.
    pub fn new(journal: Journal) -> Folder {
        Folder { journal, boxes: Boxes::default() }
    }

    /// Stores a delivery. Blocks during disk operations.
    fn keep_now(&self, delivery: Delivery) -> Result<(), ApiError> {
        let Delivery { id, received_at, format, body, content, .. } = delivery;
        match content {
            Content::State(report) => {
                let name = report.name().to_owned();
                self.boxes.take(name, report, Came { received_at, ..Came::default() }, Instant::now());
            }
            Content::Event(event) => {
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
    fn admit(&self, _: &RequestHead) -> Result<Sender, ApiError> {
        Ok(None)
    }

    /// Runs on a thread that may wait for the disk. It finishes even if the sender disconnects.
    fn keep(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<(), ApiError>> {
        let broken =
            |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be stored: this is a bug");
        Box::pin(async move { tokio::task::spawn_blocking(move || self.keep_now(delivery)).await.map_err(broken)? })
    }

    fn refused(&self, error: &ApiError) {
        if error.incomplete {
            self.journal.cut_short();
        } else {
            self.journal.reject(&error.errors);
        }
    }

    fn fault(&self) -> Option<String> {
        self.journal.fault()
    }
}

fn not_stored(error: io::Error) -> ApiError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let status = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiError::new(status, format!("the event could not be stored, nothing of it was kept: {error}"))
}
