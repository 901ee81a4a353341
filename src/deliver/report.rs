//! Posts a text once that is not an event: the state report.

use std::net::IpAddr;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use hyper::header::HeaderMap;

use super::answer::answer_in_time;
use super::client::{Client, broken};
use super::failure::Failure;
use super::outcome::AttemptOutcome;
use super::progress::Begun;
use crate::body::{Sent, Template};
use crate::picture::{Lost, PictureSource};

/// The source of a body without pictures.
struct NoPictures;

impl PictureSource for NoPictures {
    fn lend(&self, _: Range<usize>, _: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        Err(Lost) // such a body has no ranges
    }
}

impl Client {
    /// Posts JSON on a connection of its own. `write` builds the text, and gets the local address of the connection.
    ///
    /// # Errors
    /// The failure; an answer other than 2xx is one as well.
    pub async fn report(&self, write: impl FnOnce(Option<IpAddr>) -> Vec<u8>) -> Result<(), Failure> {
        let mut connection = self.connect_unless_retired().await?;
        let template = Template::of_json(write(connection.local));
        let (sent, length) = (Sent::default(), template.length());
        let request = self.request(None, Arc::new(NoPictures), template, &sent);
        let begins = !connection.is_tls; // a new TLS connection may receive session tickets at any time
        connection.progress.begin(Begun { sent, length, permit: None, turn: None, begins }, self.link());
        let answer = {
            let answer = pin!(connection.sender.send_request(request));
            answer_in_time(answer, &connection.progress, self.timeouts()).await
        };
        connection.progress.end();
        let status = match answer {
            Ok(Ok(response)) => response.status().as_u16(),
            Ok(Err(error)) => return Err(broken(&error, &connection.progress)),
            Err(failure) => return Err(failure),
        };
        self.note_answer(status);
        match AttemptOutcome::of_answer(status, &HeaderMap::new(), connection.progress.early()).failure() {
            None => Ok(()),
            Some(failure) => Err(failure.clone()),
        }
    }
}
