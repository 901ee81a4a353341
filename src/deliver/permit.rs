//! Permits for bodies in transit. Few bodies are in transit at once, which bounds the memory for them.

use std::rc::Rc;

use tokio::sync::oneshot;

/// Tracks the bodies of one upload.
pub trait Bodies {
    /// The body has been sent, or will not be sent any more.
    fn gone(&self);

    /// The upload has to send its body again. The channel tells when it may, or that it may not.
    fn wanted(&self) -> oneshot::Receiver<bool>;

    /// Counts the destination's failures; after a new one a body must not start.
    fn failures(&self) -> u64;
}

/// Permits an upload to send its body; dropped when the last byte was sent.
pub struct BodyPermit {
    bodies: Rc<dyn Bodies>,
}

/// Gives an upload another permit.
pub struct Again {
    bodies: Rc<dyn Bodies>,
}

impl BodyPermit {
    /// The permit of an upload whose body `bodies` already counts.
    pub fn new(bodies: Rc<dyn Bodies>) -> BodyPermit {
        BodyPermit { bodies }
    }

    /// For a second attempt of the same upload.
    pub fn again(&self) -> Again {
        Again { bodies: Rc::clone(&self.bodies) }
    }
}

impl Again {
    /// Waits for a permit, before new uploads get one. None if an attempt failed meanwhile: no body must start then.
    pub async fn permit(self) -> Option<BodyPermit> {
        let failures = self.bodies.failures();
        let may_go = self.bodies.wanted().await.unwrap_or(false);
        // The permit may have become free because another attempt failed just now.
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
