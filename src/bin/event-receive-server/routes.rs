//! The route table, and what all answers have in common.
//!
//! | method | path | answer |
//! | --- | --- | --- |
//! | POST | /RealTimeEvent, every --path, /HistoryEvent, /SophonFogStatus | `receive` |
//! | GET | / /receiver.css /receiver.js /language.js /icon.svg | the page |
//! | GET | /boxes /boxes.js | the page of boxes |
//! | GET | /api/boxes | `{"boxes":[…]}`, boxes with problems first |
//! | GET | /api/events?limit=N&person=…&box=…&from=…&to=… | `{"events":[…],"received":…}`, the newest first of those that the search finds (`search`); N is 50 if absent, at most 1000 |
//! | GET | /api/events/ID/reg_pic, …/spot_pic, …/top/NAME, …/ext_data/NAME | a picture |
//! | GET | /api/stream?person=… | `stream` |
//! | GET | /healthz | 200, or 503 while events cannot be stored |
//! | GET | /metrics | for Prometheus; only of a gateway (`fleet`) |
//!
//! A gateway stores nothing that could be shown: it serves only the paths for POST, /healthz and /metrics. HEAD works wherever
//! GET does. Paths are compared as sent, byte for byte. There is no login: the page and the events are open to everyone who
//! reaches the address, as the help says.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
};
use hyper::{Method, Request, Response, StatusCode};
use sophon_uplink::event::Place;
use sophon_uplink::house_css;
use sophon_uplink::serve::{discard, exposition, guard, reply};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::boxes::STATE_PATH;
use crate::dialect::{HISTORY_PATH, Report};
use crate::escape::decoded;
use crate::event::Which;
use crate::folder::Folder;
use crate::http::Limits;
use crate::journal::Journal;
use crate::json::shortened;
use crate::receive;
use crate::search::{self, Search};
use crate::store::{Budget, Expected, Store};
use crate::stream as live;

/// An answer.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The state that the answers are made from.
pub struct App {
    /// The store for received data.
    pub store: Arc<dyn Store>,
    /// What the page shows; a gateway has no page.
    pub shown: Option<Arc<Folder>>,
    /// The paths for realtime events.
    pub paths: Vec<String>,
    pub limits: Limits,
    /// Limits on connections, on readers of the stream, and on bodies (in units of `receive::ROOM_UNIT`).
    pub connections: Arc<Semaphore>,
    pub streams: Arc<Semaphore>,
    pub bodies: Arc<Semaphore>,
}

impl App {
    /// A server that has received nothing and has no connections.
    pub fn new(store: Arc<dyn Store>, shown: Option<Arc<Folder>>, paths: Vec<String>, limits: Limits) -> App {
        let room = |most| Arc::new(Semaphore::new(most));
        App {
            store,
            shown,
            paths,
            connections: room(limits.connections),
            streams: room(limits.streams),
            bodies: room((limits.bodies_bytes / receive::ROOM_UNIT) as usize),
            limits,
        }
    }

    fn budget(&self) -> Budget {
        let limit = self.limits.bodies_bytes;
        Budget { limit, used: limit.saturating_sub(self.bodies.available_permits() as u64 * receive::ROOM_UNIT) }
    }

    /// The route of a GET to this path, if any.
    fn shows(&self, path: &str) -> Option<Route> {
        Route::of(path).filter(|route| self.shown.is_some() || matches!(route, Route::Health | Route::Metrics))
    }

    /// What a POST to this path must contain, if the path accepts POST.
    fn expected(&self, path: &str) -> Option<Expected> {
        match path {
            HISTORY_PATH => Some(Expected::Event(Report::History)),
            STATE_PATH => Some(Expected::State),
            path => self.paths.iter().any(|known| known == path).then_some(Expected::Event(Report::RealTime)),
        }
    }
}

/// The purpose of a path.
enum Route {
    Asset(&'static str, &'static str),
    Events,
    Boxes,
    Picture { id: String, which: Which },
    Stream,
    Health,
    Metrics,
}

impl Route {
    fn of(path: &str) -> Option<Route> {
        Some(match path {
            "/" => Route::Asset("text/html; charset=utf-8", include_str!("page/index.html")),
            "/receiver.css" => {
                Route::Asset("text/css; charset=utf-8", concat!(house_css!(), include_str!("page/receiver.css")))
            }
            "/language.js" => Route::Asset("text/javascript; charset=utf-8", include_str!("page/language.js")),
            "/receiver.js" => Route::Asset("text/javascript; charset=utf-8", include_str!("page/receiver.js")),
            "/icon.svg" => Route::Asset("image/svg+xml", include_str!("page/icon.svg")),
            "/boxes" => Route::Asset("text/html; charset=utf-8", include_str!("page/boxes.html")),
            "/boxes.js" => Route::Asset("text/javascript; charset=utf-8", include_str!("page/boxes.js")),
            "/api/events" => Route::Events,
            "/api/boxes" => Route::Boxes,
            "/api/stream" => Route::Stream,
            "/healthz" => Route::Health,
            "/metrics" => Route::Metrics,
            _ => {
                let (id, which) = path.strip_prefix("/api/events/")?.split_once('/')?;
                let which = match which.split_once('/') {
                    None if which == "reg_pic" => Which::Reg,
                    None if which == "spot_pic" => Which::Spot,
                    Some(("top", name)) => Which::Named(Place::Top, decoded(name)?),
                    Some(("ext_data", name)) => Which::Named(Place::ExtData, decoded(name)?),
                    _ => return None,
                };
                Route::Picture { id: decoded(id)?, which }
            }
        })
    }
}

/// Answers one request.
pub async fn answer(app: Arc<App>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_string();
    let expected = app.expected(&path);
    let takes_events = expected.is_some();
    let route = app.shows(&path);
    let method = request.method();
    let mut reply = if let Some(expected) = expected.filter(|_| method == Method::POST) {
        receive::receive(&app, expected, request).await
    } else if let Some(route) = route.as_ref().filter(|_| [Method::GET, Method::HEAD].contains(method)) {
        show(&app, route, request.uri().query().unwrap_or_default()).await
    } else {
        let mut reply = match (&route, takes_events) {
            (None, false) => not_found(&app, &path),
            (route, takes_events) => wrong_method(&app, method, &path, route.is_some(), takes_events),
        };
        // The connection ends here: a body, if any, is not read.
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let (head, body) = request.into_parts();
        discard(body, &head.headers, app.limits.body_progress);
        reply
    };
    guard(reply.headers_mut());
    reply
}

async fn show(app: &Arc<App>, route: &Route, query: &str) -> Reply {
    match (route, &app.shown) {
        (Route::Health, _) => match app.store.fault() {
            None => json(StatusCode::OK, r#"{"status":"ok"}"#.into()),
            Some(fault) => failure(StatusCode::SERVICE_UNAVAILABLE, &[fault]),
        },
        (Route::Metrics, _) => match app.store.metrics(app.budget()) {
            Some(text) => typed(StatusCode::OK, exposition::CONTENT_TYPE, text.into()),
            None => failure(StatusCode::NOT_FOUND, &["only a gateway has metrics (--jetstream)".into()]),
        },
        (Route::Asset(type_, text), _) => {
            let mut reply = typed(StatusCode::OK, type_, Bytes::from_static(text.as_bytes()));
            reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            reply
        }
        (Route::Events | Route::Stream, Some(shown)) => match (search::asked(query), route) {
            (Ok((limit, search)), Route::Events) => events(&shown.journal, limit, &search),
            (Ok((_, search)), _) => live::follow(app, &shown.journal, search),
            (Err(error), _) => failure(StatusCode::BAD_REQUEST, &[error]),
        },
        (Route::Boxes, Some(shown)) => json(StatusCode::OK, shown.boxes.json(Instant::now())),
        (Route::Picture { id, which }, Some(shown)) => picture(shown.clone(), id.clone(), which.clone()).await,
        (_, None) => not_found(app, "this path"),
    }
}

/// Streams the list from the journal in pieces: it may be large.
fn events(journal: &Journal, limit: usize, search: &Search) -> Reply {
    let counters = serde_json::to_string(&journal.counters()).expect("counters have nothing that JSON cannot hold");
    let mut pieces = vec![Bytes::from_static(br#"{"events":["#)];
    for (index, record) in journal.newest(limit, search).into_iter().enumerate() {
        if index > 0 {
            pieces.push(Bytes::from_static(b",\n"));
        }
        pieces.push(record.json.clone());
    }
    pieces.push(format!("],{}", &counters[1..]).into());
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let frames = stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CONTENT_LENGTH, length.into());
    reply
}

async fn picture(shown: Arc<Folder>, id: String, which: Which) -> Reply {
    let name = match &which {
        Which::Named(_, name) => shortened(name),
        which => which.name().to_owned(),
    };
    let found = tokio::task::spawn_blocking(move || shown.journal.picture(&id, &which)).await;
    match found {
        Ok(Ok(Some(bytes))) => {
            let mut reply = typed(StatusCode::OK, "image/jpeg", bytes);
            // Make sure that the bytes, whatever they are, can only be shown as a picture.
            let policy = HeaderValue::from_static("default-src 'none'; sandbox");
            reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            reply
        }
        Ok(Ok(None)) => failure(StatusCode::NOT_FOUND, &[format!("there is no {name} of that event")]),
        _ => failure(StatusCode::INTERNAL_SERVER_ERROR, &["the picture could not be read".into()]),
    }
}

fn not_found(app: &App, path: &str) -> Reply {
    let paths = app.paths.join(", ");
    let page = if app.shown.is_some() { "; the page is at /" } else { "" };
    let error = format!("{}: no such path; events are sent with POST to {paths}{page}", shortened(path));
    failure(StatusCode::NOT_FOUND, &[error])
}

fn wrong_method(app: &App, method: &Method, path: &str, shows: bool, takes_events: bool) -> Reply {
    let allowed = reply::allowed(shows, takes_events);
    let mut error = format!("{} {}: allowed: {allowed}", shortened(method.as_str()), shortened(path));
    if !takes_events {
        error.push_str(&format!("; events are sent with POST to {}", app.paths.join(", ")));
    }
    let mut reply = failure(StatusCode::METHOD_NOT_ALLOWED, &[error]);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// A JSON answer.
pub fn json(status: StatusCode, text: String) -> Reply {
    typed(status, "application/json", text.into())
}

/// An error answer.
pub fn failure(status: StatusCode, errors: &[String]) -> Reply {
    json(status, serde_json::json!({"status": "error", "errors": errors}).to_string())
}

fn typed(status: StatusCode, type_: &'static str, body: Bytes) -> Reply {
    reply::typed(status, type_, body).map(BodyExt::boxed_unsync)
}
