//! The paths of the API, and what each takes.

use super::documented::Call;
use crate::serve::reply::allowed;

/// A file of the page, compressed by `build.rs`.
macro_rules! page {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The content type, and the file as gzip.
    Asset(&'static str, &'static [u8]),
    Documented(Call),
    Settings,
    Status,
    TestEvent,
    DeadLetters,
    Metrics,
    Health,
}

impl Route {
    /// The route of a path; none if there is none.
    pub(super) fn of(path: &str) -> Option<Route> {
        Some(match path {
            "/" => Route::Asset("text/html; charset=utf-8", page!("index.html")),
            "/uplink.css" => Route::Asset("text/css; charset=utf-8", page!("uplink.css")),
            "/texts.js" => Route::Asset("text/javascript; charset=utf-8", page!("texts.js")),
            "/uplink.js" => Route::Asset("text/javascript; charset=utf-8", page!("uplink.js")),
            "/icon.svg" => Route::Asset("image/svg+xml", page!("icon.svg")),
            "/SophonFogSys/api/EventServerUrl" => Route::Documented(Call::EventServerUrl),
            "/SophonFogSys/api/HistoryEventUrl" => Route::Documented(Call::HistoryEventUrl),
            "/SophonFogSys/api/MonitorServerUrl" => Route::Documented(Call::MonitorServerUrl),
            "/api/settings" => Route::Settings,
            "/api/status" => Route::Status,
            "/api/test-event" => Route::TestEvent,
            "/api/dead-letters" => Route::DeadLetters,
            "/metrics" => Route::Metrics,
            "/healthz" => Route::Health,
            _ => return None,
        })
    }

    /// Whether it takes POST.
    pub(super) fn takes_post(self) -> bool {
        matches!(self, Route::Documented(_) | Route::Settings | Route::TestEvent | Route::DeadLetters)
    }

    /// Whether it takes GET and HEAD.
    pub(super) fn takes_get(self) -> bool {
        self != Route::TestEvent
    }

    /// Whether it needs no token.
    pub(super) fn is_public(self) -> bool {
        matches!(self, Route::Asset(..) | Route::Metrics | Route::Health)
    }

    /// The header `Allow`.
    pub(super) fn allowed(self) -> &'static str {
        allowed(self.takes_get(), self.takes_post())
    }
}
