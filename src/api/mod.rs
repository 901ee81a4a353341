//! The local HTTP API and the box's page (docs/api.md).
//!
//! ```text
//!  listen (bounds) ──▶ route ──▶ guard: Host, Origin, token ──▶ read (bounds) ──▶ Control ──▶ file, lanes
//! ```
//!
//! | method | path | answer | token off loopback |
//! | --- | --- | --- | --- |
//! | GET, POST | /SophonFogSys/api/EventServerUrl, HistoryEventUrl, MonitorServerUrl | [`documented`] | yes |
//! | GET, POST | /api/settings | [`settings`]: these values and the other fields of the page's form | yes |
//! | GET | /api/status | [`status`] | yes |
//! | POST | /api/test-event | [`test_event`] | yes |
//! | GET, POST | /api/dead-letters | [`dead_letters`] | yes |
//! | GET | /metrics | [`metrics`] | no: counters; any Host |
//! | GET | /healthz | [`mod@health`]: 200, or 503 and why | no; any Host |
//! | GET | / and its files | the page | no: it contains no data |
//!
//! HEAD works wherever GET does. OPTIONS lists a path's methods, for any Host. The API never shows a header's value, a token or
//! the content of a file. It runs on the thread of the uploads, so all its work is short and bounded: [`Limits`].

pub mod client;
pub mod dead_letters;
pub mod documented;
pub mod error;
mod further;
pub mod guard;
pub mod listen;
pub mod metrics;
pub mod read;
mod route;
pub mod settings;
pub mod status;
pub mod test_event;
pub mod token;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, IF_MATCH, SERVER,
    WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use crate::confine::Confined;
use crate::control::{ChangeError, Control, MakeChanges, Revisions};
use crate::health;
use crate::serve::connection::Bounds;
use crate::serve::reply::typed;
use crate::serve::{discard, exposition, guard as guard_answer};
use crate::status::Status;
use crate::trial::picture::TestPicture;
use crate::uplink::Uplink;
use error::{ApiError, shortened};
use guard::Access;
use route::Route;

/// An answer.
pub type Reply = Response<Full<Bytes>>;

/// Limits on what clients may use of this process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at a time. Further ones get an error and are closed.
    pub connections: usize,
    /// Connections that are being refused at a time. Further ones wait in the kernel.
    pub refusals: usize,
    /// Of each connection.
    pub connection: Bounds,
    /// Size of a body, in bytes.
    pub body_bytes: usize,
    /// Time to receive a whole body.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 32,
            refusals: 64,
            connection: Bounds {
                head_bytes: 16 << 10,
                head_time: Duration::from_secs(5),
                write_progress: Duration::from_secs(5),
            },
            body_bytes: 64 << 10,
            body_time: Duration::from_secs(10),
        }
    }
}

/// The state that the answers are made from.
pub struct App {
    control: Rc<Control>,
    uplink: Rc<Uplink>,
    limits: Limits,
    confined: Confined,
    /// Why the API could not listen the last time it failed.
    problem: RefCell<Option<String>>,
    /// How often listening failed.
    failures: Cell<u64>,
    /// Locked while a test event is being sent.
    testing: tokio::sync::Mutex<()>,
}

impl App {
    /// Creates the API of a running `uplink`. `control` has its config; `confined` says how the process is confined.
    /// [`listen::serve`] serves it.
    pub fn new(control: Rc<Control>, uplink: Rc<Uplink>, confined: Confined, limits: Limits) -> Rc<App> {
        Rc::new(App {
            control,
            uplink,
            limits,
            confined,
            problem: RefCell::default(),
            failures: Cell::new(0),
            testing: tokio::sync::Mutex::default(),
        })
    }

    /// Answers one request.
    async fn answer(self: Rc<Self>, request: Request<Incoming>, access: Rc<Access>) -> Reply {
        let (head, mut body) = request.into_parts();
        let answered = self.try_answer(&head, &mut body, &access).await;
        let mut reply = answered.unwrap_or_else(|error| {
            let mut reply = typed(error.status, "application/json", error.json());
            match error.status {
                StatusCode::UNAUTHORIZED => {
                    reply
                        .headers_mut()
                        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sophon-uplink\""));
                }
                StatusCode::METHOD_NOT_ALLOWED => {
                    let allowed = Route::of(head.uri.path()).map_or("GET, HEAD", Route::allowed);
                    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                }
                _ => {}
            }
            reply
        });
        if !hyper::body::Body::is_end_stream(&body) {
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        discard(body, &head.headers, self.limits.connection.write_progress);
        reply
            .headers_mut()
            .insert(SERVER, HeaderValue::from_static(concat!("sophon-uplink/", env!("CARGO_PKG_VERSION"))));
        guard_answer(reply.headers_mut());
        reply
    }

    async fn try_answer(
        &self,
        head: &hyper::http::request::Parts,
        body: &mut Incoming,
        access: &Access,
    ) -> Result<Reply, ApiError> {
        let path = head.uri.path();
        let route = Route::of(path);
        // Monitors and load balancers use any Host, or none. Counters and health are not secret. Nor is the fact that the API
        // listens: HAProxy's plain check is `OPTIONS / HTTP/1.0`, and the answer to OPTIONS grants nothing to a CORS preflight.
        if head.method != Method::OPTIONS && !matches!(route, Some(Route::Metrics | Route::Health)) {
            let hosts = &self.control.config().api.hosts;
            guard::check_source(&head.method, &head.uri, &head.headers, access, hosts)?;
        }
        let route = route.ok_or_else(|| {
            let message = format!("{}: there is no such path; the page is at /", shortened(path));
            ApiError::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
        })?;
        if head.method == Method::OPTIONS {
            let mut reply = typed(StatusCode::NO_CONTENT, "text/plain", "");
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allowed()));
            return Ok(reply);
        }
        let reads = [Method::GET, Method::HEAD].contains(&head.method) && route.takes_get();
        let writes = head.method == Method::POST && route.takes_post();
        if !reads && !writes {
            let message = format!("{} {path}: allowed: {}", shortened(head.method.as_str()), route.allowed());
            return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message));
        }
        if !route.is_public() {
            guard::check_token(&head.headers, access)?;
        }
        if writes { self.write(route, head, body).await } else { self.read(route, head.uri.query()).await }
    }

    async fn read(&self, route: Route, query: Option<&str>) -> Result<Reply, ApiError> {
        Ok(match route {
            // Always gzip, whatever the client accepts: the uplink has no decompressor, and every browser accepts gzip.
            Route::Asset(kind, packed) => {
                let mut reply = typed(StatusCode::OK, kind, packed);
                reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                reply
            }
            Route::Documented(call) => self.tagged(&call.show(&self.control)),
            Route::Settings => self.tagged(&settings::show(&self.control)),
            Route::Status => json(&status::report(self, &self.uplink.status().await)),
            Route::Metrics => {
                let text = metrics::text(&self.uplink.status().await, &self.uplink.history().histogram());
                typed(StatusCode::OK, exposition::CONTENT_TYPE, text)
            }
            Route::DeadLetters => json(&dead_letters::show(&self.uplink, dead_letters::Page::of(query)?).await),
            Route::Health => health(&self.uplink.status().await),
            Route::TestEvent => unreachable!("it takes no GET"),
        })
    }

    async fn write(
        &self,
        route: Route,
        head: &hyper::http::request::Parts,
        body: &mut Incoming,
    ) -> Result<Reply, ApiError> {
        match route {
            Route::Documented(call) => {
                let fields = read::read(&head.headers, body, &self.limits).await?;
                self.change(call.changes(fields)?, if_match(&head.headers)).await?;
                Ok(self.tagged(&call.changed(&self.control)))
            }
            Route::Settings => {
                let (changes, revision) = settings::changes(read::read(&head.headers, body, &self.limits).await?)?;
                self.change(changes, revision.map(|revision| vec![revision]).or_else(|| if_match(&head.headers)))
                    .await?;
                Ok(self.tagged(&settings::show(&self.control)))
            }
            Route::TestEvent => {
                // The body is optional.
                let picture = if body.is_end_stream() {
                    TestPicture::card()
                } else {
                    test_event::picture(read::read(&head.headers, body, &self.limits).await?)?
                };
                self.send_test_event(picture).await
            }
            Route::DeadLetters => {
                let wanted = dead_letters::wanted(read::read(&head.headers, body, &self.limits).await?)?;
                Ok(json(&dead_letters::resend(&self.uplink, wanted).await?))
            }
            Route::Asset(..) | Route::Status | Route::Metrics | Route::Health => unreachable!("they take no POST"),
        }
    }

    /// Adds the revision of the config in force as the ETag.
    fn tagged(&self, value: &Value) -> Reply {
        let mut reply = json(value);
        let tag = HeaderValue::try_from(format!("\"{}\"", self.control.revision())).expect("hexadecimal digits");
        reply.headers_mut().insert(ETAG, tag);
        reply
    }

    async fn send_test_event(&self, picture: TestPicture) -> Result<Reply, ApiError> {
        let Ok(_one_at_a_time) = self.testing.try_lock() else {
            let message = "a test event is on its way; wait for its end";
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", message));
        };
        let headers = self.control.config().headers.clone();
        Ok(json(&test_event::send(&self.uplink, &headers, picture).await))
    }

    async fn change(&self, changes: MakeChanges, revision: Option<Revisions>) -> Result<(), ApiError> {
        self.control.change(changes, revision).await.map_err(|error| match &error {
            ChangeError::Refused(_) => ApiError::invalid(error.to_string()),
            ChangeError::Stale(_) => {
                ApiError::new(StatusCode::PRECONDITION_FAILED, "FAILED_PRECONDITION", error.to_string())
            }
            ChangeError::NotNow(_) | ChangeError::NotSaved(_) => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", error.to_string())
            }
        })
    }
}

/// The revisions in `If-Match` that a call applies to; none: any revision. A proxy may have made a tag weak.
fn if_match(headers: &HeaderMap) -> Option<Revisions> {
    let mut tags = Vec::new();
    for written in headers.get_all(IF_MATCH) {
        let written = String::from_utf8_lossy(written.as_bytes()).into_owned();
        tags.extend(
            written.split(',').map(str::trim).map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned()),
        );
    }
    (!tags.is_empty() && !tags.iter().any(|tag| tag == "*")).then_some(tags)
}

fn health(status: &Status) -> Reply {
    let (problems, notes) = (health::problems(status), health::notes(status));
    let mut answer = serde_json::json!({"status": if problems.is_empty() { "ok" } else { "failing" }});
    for (key, list) in [("problems", &problems), ("notes", &notes)] {
        if !list.is_empty() {
            answer[key] = list.as_slice().into();
        }
    }
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    typed(status, "application/json", answer.to_string())
}

fn json(value: &Value) -> Reply {
    typed(StatusCode::OK, "application/json", value.to_string())
}
