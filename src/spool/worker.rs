//! The spool's own thread: the disk may take its time, and no upload waits for it.
//!
//! Calls are worked in the order in which they were made, each with the whole spool to itself.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread;

use tokio::sync::oneshot;

use super::{RealDisk, Recovered, Spool};
use crate::config;

/// The spool of the running uplink.
pub type RealSpool = Spool<RealDisk>;

type Work = Box<dyn FnOnce(&mut RealSpool) + Send>;

/// A handle on the thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Worker {
    calls: Sender<Work>,
}

impl Worker {
    /// Starts the thread, which opens the spool before anything else; what it found comes through the second value.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(config: config::Spool, urls: Vec<String>) -> io::Result<(Worker, oneshot::Receiver<Recovered>)> {
        let (calls, called) = channel::<Work>();
        let (tell, found) = oneshot::channel();
        thread::Builder::new().name("spool".into()).spawn(move || {
            let (mut spool, recovered) = Spool::open(RealDisk::default(), &config, &urls);
            let _nobody_may_listen = tell.send(recovered);
            called.into_iter().for_each(|work| work(&mut spool));
        })?;
        Ok((Worker { calls }, found))
    }

    /// Does `work` in the thread and returns what it returned. It is done even if nobody waits for it.
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut RealSpool) -> T + Send + 'static) -> Called<T> {
        let (tell, told) = oneshot::channel();
        let sent = self.calls.send(Box::new(move |spool| drop(tell.send(work(spool)))));
        assert!(sent.is_ok(), "the spool's thread lives as long as its handles");
        Called(told)
    }
}

/// What a call will return.
#[derive(Debug)]
pub struct Called<T>(oneshot::Receiver<T>);

impl<T> Future for Called<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context).map(|told| told.expect("the spool's thread does every call"))
    }
}
