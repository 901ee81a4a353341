//! The body of a request. It is built from the event for each attempt; its pictures are encoded while they are sent.
//!
//! ```text
//!  Template   {"identity_id":"7",…,"reg_pic":" ░░░░░░░░░ ","timestamp":1,…,"spot_pic":" ░░░░░░░░░ "}}
//!             └──────── Text ───────────────┘└Picture┘└──────── Text ─────────────┘└Picture┘└Text┘
//!  EventBody  walks over it once: hyper requests a frame, a pooled buffer of 63 KiB is filled with the next text and
//!             encoded picture, and that buffer goes to the socket
//! ```
//!
//! The exact length is known before the first byte, so every request has a Content-Length. Memory use does not depend on the size
//! of the pictures: hyper requests the next frame while it holds less than 64 KiB. So an upload has two buffers, and a third
//! while little is left of the first.

mod base64;
pub mod constants;
pub mod encoder;
mod form_data;
mod json;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod vbmi;

use std::borrow::Cow;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use hyper::body::{Frame, SizeHint};

use crate::event::Event;
use crate::picture::{Lost, PictureSource};
use constants::Constants;
use encoder::{Chunk, Pool};

/// The format of a body: the config's `content-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `multipart/form-data`.
    FormData,
}

impl Format {
    /// Both formats.
    pub const ALL: [Format; 2] = [Format::Json, Format::FormData];

    /// Its name in the config and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::FormData => "form-data",
        }
    }
}

/// The unit in which `timestamp` is sent: the config's `timestamp_unit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// The documented unit.
    Seconds,
    /// The unit that some deployed clouds get.
    Milliseconds,
}

/// The config's settings for bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyOptions {
    /// JSON or form-data.
    pub format: Format,
    /// False: `reg_pic` is sent as `""`.
    pub with_reg_pic: bool,
    /// The unit of `timestamp`.
    pub timestamp_unit: TimestampUnit,
}

/// A picture in a body: its position in the text, and its range in the source.
#[derive(Debug)]
struct Picture {
    at: usize,
    range: Range<usize>,
}

/// A body: its text, and the pictures between the parts of the text.
#[derive(Debug)]
pub struct Template {
    text: Vec<u8>,
    /// In the order of their positions.
    pictures: Vec<Picture>,
    length: u64,
    /// For form-data, with the boundary.
    pub content_type: Cow<'static, str>,
}

impl Template {
    /// Writes the whole body except its pictures.
    pub fn new(event: &Event, options: BodyOptions, constants: &Constants) -> Template {
        match options.format {
            Format::Json => json::template(event, options, constants),
            Format::FormData => form_data::template(event, options, constants),
        }
    }

    /// A body that is JSON and has no pictures.
    pub fn of_json(text: Vec<u8>) -> Template {
        let length = text.len() as u64;
        Template { text, pictures: Vec::new(), length, content_type: "application/json".into() }
    }

    /// The Content-Length.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Collects the text and the pictures of a body.
struct Writer {
    text: Vec<u8>,
    pictures: Vec<Picture>,
}

impl Writer {
    fn new(capacity: usize) -> Writer {
        Writer { text: Vec::with_capacity(capacity), pictures: Vec::with_capacity(2) }
    }

    /// Adds a picture in base64 at this position; an empty range adds nothing.
    fn picture(&mut self, range: &Range<usize>) {
        if !range.is_empty() {
            self.pictures.push(Picture { at: self.text.len(), range: range.clone() });
        }
    }

    fn finish(self, content_type: Cow<'static, str>) -> Template {
        let pictures = self.pictures.iter().map(|picture| encoder::encoded_len(picture.range.len())).sum::<u64>();
        let length = self.text.len() as u64 + pictures;
        Template { text: self.text, pictures: self.pictures, length, content_type }
    }
}

/// How many bytes of a body the transport has taken; shared with the code that waits for the answer.
pub type Sent = Arc<std::sync::atomic::AtomicU64>;

/// A [`Template`] being sent.
pub struct EventBody {
    template: Template,
    source: Arc<dyn PictureSource>,
    pool: Arc<Pool>,
    sent: Sent,
    /// How much of the text was returned; the next picture, and how many of its bytes were returned.
    text: usize,
    picture: usize,
    offset: usize,
    /// The bytes that were not returned yet, for `size_hint`.
    left: u64,
}

impl EventBody {
    /// A body from its first byte; `sent` counts the bytes that were sent.
    pub fn new(template: Template, source: Arc<dyn PictureSource>, pool: Arc<Pool>, sent: Sent) -> EventBody {
        let left = template.length;
        EventBody { template, source, pool, sent, text: 0, picture: 0, offset: 0, left }
    }

    /// The next buffer, full unless it is the last.
    fn next_chunk(&mut self) -> Option<Result<Chunk, Lost>> {
        if self.left == 0 {
            return None;
        }
        let mut chunk = Chunk::new(&self.pool, &self.sent);
        loop {
            let next = self.template.pictures.get(self.picture);
            let end = next.map_or(self.template.text.len(), |picture| picture.at);
            self.text += chunk.fill_text(&self.template.text[self.text..end]);
            let Some(picture) = next.filter(|_| self.text == end) else { break };
            let rest = picture.range.start + self.offset..picture.range.end;
            match chunk.fill_picture(&*self.source, rest) {
                Ok(count) => self.offset += count,
                Err(lost) => return Some(Err(lost)),
            }
            if self.offset < picture.range.len() {
                break; // the buffer is full
            }
            (self.picture, self.offset) = (self.picture + 1, 0);
        }
        self.left -= chunk.remaining() as u64;
        if self.left == 0 {
            self.source.drop_clear(); // an answer may take long
        }
        Some(Ok(chunk))
    }
}

impl hyper::body::Body for EventBody {
    type Data = Chunk;
    type Error = Lost;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Lost>>> {
        Poll::Ready(self.next_chunk().map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
