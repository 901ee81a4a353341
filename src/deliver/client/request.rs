//! The request of an event: its head, its name, and its signature.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request};

use super::{Client, Settings, Upload};
use crate::body::{EventBody, Sent, Template};
use crate::config::Report;
use crate::config::proxy::Proxy;
use crate::event::EventId;
use crate::picture::{Lost, PictureSource};

const X_EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The length of the longest event id: 32 digits of the ring, 20 of the sequence number, and [`OF_HISTORY`].
const ID_LENGTH: usize = 32 + 1 + 20 + OF_HISTORY.len();
/// The suffix of an event's id in the history report. A receiver of both reports must not take the second one for a duplicate,
/// and can join the two.
const OF_HISTORY: &str = "-history";

impl Client {
    /// The header with the signature of an event's body, if requests are signed.
    pub(super) async fn signature(&self, upload: &Upload) -> Result<Option<(HeaderName, HeaderValue)>, Lost> {
        let (sign, pool) = {
            let settings = self.settings.borrow();
            (settings.sign.clone(), Arc::clone(&settings.pool))
        };
        let Some((header, key)) = sign else { return Ok(None) };
        let signature = key.sign(self.template(&upload.event), Arc::clone(&upload.source), pool).await?;
        Ok(Some((header, signature)))
    }

    /// The proxy that parses and forwards requests; none with a tunnel, because a proxy does not read those.
    pub(super) fn forward_proxy<'a>(&self, settings: &'a Settings) -> Option<&'a Proxy> {
        settings.proxy.as_deref().filter(|_| !self.url.is_tls())
    }

    /// A POST request with a body; `id` is the id of its event, if it is for one.
    pub(in crate::deliver) fn request(
        &self,
        id: Option<EventId>,
        source: Arc<dyn PictureSource>,
        mut template: Template,
        sent: &Sent,
    ) -> Request<EventBody> {
        let settings = self.settings.borrow();
        let content_type = match std::mem::take(&mut template.content_type) {
            Cow::Borrowed(name) => HeaderValue::from_static(name),
            Cow::Owned(name) => HeaderValue::try_from(name).expect("a valid boundary"),
        };
        let mut headers = HeaderMap::with_capacity(8 + settings.headers.len());
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sophon-uplink/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &settings.headers {
            headers.insert(name, value.clone());
        }
        let proxy = self.forward_proxy(&settings);
        if let Some(login) = proxy.and_then(Proxy::authorization) {
            headers.insert(PROXY_AUTHORIZATION, login.clone());
        }
        headers.insert(CONTENT_TYPE, content_type);
        if let Some(id) = id.map(|id| self.name_of(id)) {
            headers.insert(X_EVENT_ID, id.clone());
            headers.insert(IDEMPOTENCY_KEY, id);
        }
        let body = EventBody::new(template, source, Arc::clone(&settings.pool), Arc::clone(sent));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = if proxy.is_some() { self.url.uri() } else { self.url.target() }.clone();
        *request.headers_mut() = headers;
        request
    }

    /// The event's id in this destination's report.
    fn name_of(&self, id: EventId) -> HeaderValue {
        let mut name = String::with_capacity(ID_LENGTH);
        write!(name, "{id}").expect("writing to a String");
        if self.url.report() == Report::History {
            name.push_str(OF_HISTORY);
        }
        HeaderValue::try_from(name).expect("hex and digits")
    }
}
