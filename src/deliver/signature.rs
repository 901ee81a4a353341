//! Signed requests: a receiver that shares a key with the box knows that a request is the box's, and when it was made.
//!
//! `X-Signature: t=1732878000,v1=9f86d0…`: HMAC-SHA256, in hexadecimal, over the seconds of Unix time as in the header, a dot, and the body.
//! A signature must stand before the body, and trailers are lost on the way through most servers, so the body is written twice: once to be
//! signed, and once to go out. Only where this is on.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::Buf as _;
use hyper::header::HeaderValue;
use ring::hmac;

use crate::body::encoder::Pool;
use crate::body::{EventBody, Sent, Template};
use crate::clock;
use crate::ring::mapping::{Lost, PictureSource};

/// A key.
#[derive(Clone, Debug)]
pub struct Key(hmac::Key);

impl Key {
    /// The key of these bytes.
    pub fn new(secret: &[u8]) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Signs a body as it is written now.
    ///
    /// # Errors
    /// Its pictures went away.
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
            // 64 KiB take a while on the box: others are not to wait for all of it.
            tokio::task::yield_now().await;
        }
        let tag: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(HeaderValue::try_from(format!("t={time},v1={tag}")).expect("digits and letters"))
    }
}
