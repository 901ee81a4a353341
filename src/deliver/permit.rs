//! What allows a body to be on its way: few of them are at once, for memory is for these.

use std::rc::Rc;

use tokio::sync::oneshot;

/// Who keeps account of the bodies of one upload.
pub trait Bodies {
    /// The body has gone, or is not sent any more.
    fn gone(&self);

    /// The upload begins once more; whether and when its body may go comes through the channel.
    fn wanted(&self) -> oneshot::Receiver<bool>;

    /// Counts the failures after which it is no time to begin.
    fn failures(&self) -> u64;
}

/// An upload's body may be on its way; dropped when its last byte has gone.
pub struct BodyPermit {
    bodies: Rc<dyn Bodies>,
}

/// What gives an upload another permit.
pub struct Again {
    bodies: Rc<dyn Bodies>,
}

impl BodyPermit {
    /// For an upload of which `bodies` knows that its body is on its way.
    pub fn new(bodies: Rc<dyn Bodies>) -> BodyPermit {
        BodyPermit { bodies }
    }

    /// For a second try of the same upload.
    pub fn again(&self) -> Again {
        Again { bodies: Rc::clone(&self.bodies) }
    }
}

impl Again {
    /// Waits until the body may go once more, before those of new uploads. None where a try failed meanwhile: then it is no time to begin.
    pub async fn permit(self) -> Option<BodyPermit> {
        let failures = self.bodies.failures();
        let may_go = self.bodies.wanted().await.unwrap_or(false);
        // The body that went away for this one may have been that of a try that failed just now.
        let is_time = self.bodies.failures() == failures;
        may_go.then(|| BodyPermit { bodies: self.bodies }).filter(|_| is_time)
    }
}

impl std::fmt::Debug for BodyPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyPermit")
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.bodies.gone();
    }
}
