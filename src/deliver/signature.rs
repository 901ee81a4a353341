//! Signed requests: a receiver that shares a key with the box can check that a request comes from the box, and when it was made.
//!
//! `X-Signature: t=1732878000,v1=9f86d0…`: the HMAC-SHA256, in hexadecimal, of the time, a dot and the body. The time is in
//! seconds of Unix time, as in the header. The signature has to come before the body, because most servers drop trailers. So the
//! body is generated twice: once to be signed, and once to be sent. This is done only if signing is on.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::Buf as _;
use hyper::header::HeaderValue;
use ring::hmac;

use crate::body::encoder::Pool;
use crate::body::{EventBody, Sent, Template};
use crate::clock;
use crate::picture::{Lost, PictureSource};

/// A key for signatures.
#[derive(Clone, Debug)]
pub struct Key(hmac::Key);

impl Key {
    /// A key from these bytes.
    pub fn new(secret: &[u8]) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Signs a body with the current time.
    ///
    /// # Errors
    /// The body's pictures are no longer available.
    pub async fn sign(
        &self,
        template: Template,
        source: Arc<dyn PictureSource>,
        pool: Arc<Pool>,
    ) -> Result<HeaderValue, Lost> {
        let time = clock::now();
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{time}.").as_bytes());
        let mut body = EventBody::new(template, source, pool, Sent::default());
        while let Some(frame) = body.frame().await {
            let mut chunk = frame?.into_data().expect("an event's body has no trailers");
            while chunk.has_remaining() {
                let length = chunk.chunk().len();
                context.update(chunk.chunk());
                chunk.advance(length);
            }
            // Encoding 64 KiB takes a while on the box: other tasks run in between.
            tokio::task::yield_now().await;
        }
        let tag: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(HeaderValue::try_from(format!("t={time},v1={tag}")).expect("digits and letters"))
    }
}
