//! The answers to what was sent: one inbox, one subscription, and a table of those that wait.
//!
//! The client library has the same for its requests, but keeps an entry for ever for each that was never answered. Here an entry
//! goes with whoever waits for it, so that an outage of days costs no memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, Message};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Message>>>>;

/// See the module. Dropping it ends the subscription.
pub struct Replies {
    inbox: String,
    waiting: Waiting,
    next: AtomicU64,
    /// Reads the answers, and owns the subscription.
    reader: AbortHandle,
}

/// An answer that is waited for.
pub struct Expected {
    /// Where it is to be sent.
    pub subject: String,
    receiver: oneshot::Receiver<Message>,
    key: u64,
    waiting: Waiting,
}

impl Replies {
    /// Subscribes; the library does so again on each new connection.
    pub async fn start(client: &Client) -> Result<Replies, String> {
        let (inbox, waiting) = (client.new_inbox(), Waiting::default());
        let mut answers =
            client.subscribe(format!("{inbox}.*")).await.map_err(|error| format!("cannot subscribe: {error}"))?;
        let table = waiting.clone();
        let reader = tokio::spawn(async move {
            while let Some(answer) = answers.next().await {
                let key = answer.subject.rsplit_once('.').and_then(|(_, key)| key.parse().ok());
                if let Some(sender) = key.and_then(|key: u64| lock(&table).remove(&key)) {
                    let _ = sender.send(answer);
                }
            }
        });
        Ok(Replies { inbox, waiting, next: AtomicU64::new(0), reader: reader.abort_handle() })
    }

    /// A place for one answer.
    pub fn expect(&self) -> Expected {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(key, sender);
        Expected { subject: format!("{}.{key}", self.inbox), receiver, key, waiting: self.waiting.clone() }
    }
}

impl Expected {
    /// The answer; none when there will be none.
    pub async fn wait(&mut self) -> Option<Message> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_no_longer_waits_leaves_nothing_behind() {
        let reader = tokio::spawn(std::future::pending::<()>());
        let replies = Replies {
            inbox: "_INBOX.x".into(),
            waiting: Waiting::default(),
            next: AtomicU64::new(0),
            reader: reader.abort_handle(),
        };
        let (first, mut second) = (replies.expect(), replies.expect());
        assert_eq!((first.subject.as_str(), second.subject.as_str()), ("_INBOX.x.0", "_INBOX.x.1"));
        drop(first);
        assert_eq!(lock(&replies.waiting).len(), 1);
        lock(&replies.waiting).clear(); // as when the connection is gone for good
        assert!(second.wait().await.is_none());
        drop(second);
        assert!(lock(&replies.waiting).is_empty());
        // Otherwise each attempt of a gallery to reach its servers would leave a subscription.
        drop(replies);
        assert!(reader.await.unwrap_err().is_cancelled());
    }
}
