//! Runs the spool in a thread of its own, so that no upload waits for the disk.
//!
//! Calls run one after the other, in the order in which they were made.

use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread;

use tokio::sync::oneshot;

use super::{Address, RealDisk, Recovered, Spool};
use crate::config;

/// The spool of the running uplink.
pub type RealSpool = Spool<RealDisk>;

type Work = Box<dyn FnOnce(&mut RealSpool) + Send>;

/// A handle on the thread. The thread ends with the last handle.
#[derive(Clone, Debug)]
pub struct Worker {
    calls: Sender<Work>,
}

impl Worker {
    /// Starts the thread, which first opens the spool. The second value receives what was found.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        config: config::Spool,
        destinations: Vec<Address>,
    ) -> io::Result<(Worker, oneshot::Receiver<Recovered>)> {
        let (calls, called) = channel::<Work>();
        let (tell, found) = oneshot::channel();
        thread::Builder::new().name("spool".into()).spawn(move || {
            let (mut spool, recovered) = Spool::open(RealDisk::default(), &config, &destinations);
            let _nobody_may_listen = tell.send(recovered);
            called.into_iter().for_each(|work| work(&mut spool));
        })?;
        Ok((Worker { calls }, found))
    }

    /// Runs `work` in the thread and returns its result. It runs even if nobody waits for the result.
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut RealSpool) -> T + Send + 'static) -> Called<T> {
        let (tell, told) = oneshot::channel();
        let sent = self.calls.send(Box::new(move |spool| drop(tell.send(work(spool)))));
        assert!(sent.is_ok(), "the spool's thread lives as long as its handles");
        Called(told)
    }
}

/// The future result of a call.
#[derive(Debug)]
pub struct Called<T>(oneshot::Receiver<T>);

impl<T> Future for Called<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context).map(|told| told.expect("the spool's thread does every call"))
    }
}
