//! Default size limits of servers and parsers, with the setting that changes each: the rows of docs/receivers.md that have a
//! limit.
//!
//! A row is matched by the measurements (format, kind of refusal, the sizes on both sides of the limit) and by the server's
//! headers and answer. A limit alone proves nothing: several servers have 1 MiB. A name alone proves nothing either: it may be a
//! proxy's.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::failure::{Code, Failure};
use crate::body::Format;

/// How a server refuses an event that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It answers with this status.
    Status(u16),
    /// It closes the connection without an answer.
    Closes,
    /// It answers 2xx, but does not have a whole picture.
    Loses,
}

impl Way {
    /// The kind of refusal; none if the failure says nothing about the event.
    pub fn of(failure: &Failure) -> Option<Way> {
        match (failure.code, failure.status) {
            (Code::EarlyAnswer | Code::PictureLost, _) => Some(Way::Loses),
            (_, Some(status)) => Some(Way::Status(status)),
            (code, None) => matches!(code, Code::ClosedWithoutAnswer | Code::Interrupted).then_some(Way::Closes),
        }
    }
}

/// What is limited, and its limit in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The request's whole body.
    Body(u64),
    /// One field: a picture in base64.
    Field(u64),
}

/// A default limit that is smaller than the largest event.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// The server's name in docs/receivers.md.
    pub server: &'static str,
    /// Texts in the headers or the answer that identify it, in lower case.
    says: &'static [&'static str],
    /// The format; none: both.
    format: Option<Format>,
    way: Way,
    limit: Limit,
    /// The setting, as in docs/receivers.md.
    pub setting: &'static str,
}

const fn row(
    server: &'static str,
    says: &'static [&'static str],
    format: Option<Format>,
    way: Way,
    limit: Limit,
    setting: &'static str,
) -> Row {
    Row { server, says, format, way, limit, setting }
}

const JSON: Option<Format> = Some(Format::Json);
const FORM: Option<Format> = Some(Format::FormData);
const TOO_LARGE: Way = Way::Status(413);
const BAD: Way = Way::Status(400);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// All rows. If two match equally well, the first one is named first.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("nginx", &["nginx"], None, TOO_LARGE, Limit::Body(MIB), "client_max_body_size 32m;"),
    row("Flask", &["werkzeug", "exceeds the capacity limit"], FORM, TOO_LARGE, Limit::Field(500_000), "app.config[\"MAX_FORM_MEMORY_SIZE\"] = 32 << 20"),
    row("Quart", &["hypercorn", "exceeds the capacity limit"], FORM, TOO_LARGE, Limit::Field(500_000), "app.config[\"MAX_FORM_MEMORY_SIZE\"] = 32 << 20"),
    row("Django", &["wsgiserver", "gunicorn", "bad request (400)"], None, BAD, Limit::Body(5 * MIB / 2), "DATA_UPLOAD_MAX_MEMORY_SIZE = 32 << 20"),
    row("FastAPI", &["maximum size of 1024kb", "uvicorn", "hypercorn", "granian"], FORM, BAD, Limit::Field(MIB), "request.form(max_part_size=32 << 20)"),
    row("Falcon", &["body part is too large"], FORM, BAD, Limit::Field(MIB), "MultipartFormHandler().parse_options.max_body_part_buffer_size"),
    row("aiohttp", &["aiohttp", "maximum request body size"], None, TOO_LARGE, Limit::Body(MIB), "web.Application(client_max_size=32 << 20)"),
    row("Litestar", &["request entity too large"], None, TOO_LARGE, Limit::Body(10_000_000), "Litestar(request_max_body_size=32 << 20)"),
    row("Bottle", &["wsgiserver", "bottle", "request entity too large"], JSON, TOO_LARGE, Limit::Body(100 * KIB), "BaseRequest.MEMFILE_MAX = 32 << 20"),
    row("Bottle", &["wsgiserver", "bottle"], FORM, BAD, Limit::Body(100 * KIB), "BaseRequest.MEMFILE_MAX = 32 << 20"),
    row("Bottle", &["wsgiserver", "bottle"], FORM, Way::Loses, Limit::Field(100 * KIB), "BaseRequest.MEMFILE_MAX = 32 << 20"),
    row("Express", &["express", "payloadtoolargeerror", "request entity too large"], JSON, TOO_LARGE, Limit::Body(100 * KIB), "express.json({limit: \"32mb\"})"),
    row("multer", &["multererror", "field value too long"], FORM, Way::Status(500), Limit::Field(MIB), "multer({limits: {fieldSize: 32 << 20}})"),
    row("Nest", &["field value too long"], FORM, BAD, Limit::Field(MIB), "multer({limits: {fieldSize: 32 << 20}})"),
    row("busboy", &["express"], FORM, Way::Loses, Limit::Field(MIB), "busboy({limits: {fieldSize: 32 << 20}})"),
    row("Fastify", &["fst_err_ctp_body_too_large", "request body is too large"], JSON, TOO_LARGE, Limit::Body(MIB), "bodyLimit"),
    row("Fastify", &["fastify"], FORM, Way::Loses, Limit::Field(MIB), "limits: {fieldSize: 32 << 20}"),
    row("Koa", &["payload too large", "request entity too large"], JSON, TOO_LARGE, Limit::Body(MIB), "jsonLimit: \"32mb\""),
    row("hapi", &["payload content length greater than maximum"], None, TOO_LARGE, Limit::Body(MIB), "payload.maxBytes"),
    row("multiparty", &["maximum fields length exceeded", "maxfieldssize"], FORM, TOO_LARGE, Limit::Body(2 * MIB), "maxFieldsSize"),
    row("Node-RED", &["express", "request entity too large"], JSON, TOO_LARGE, Limit::Body(5 * MIB), "apiMaxLength: \"32mb\""),
    row("sails", &["sails"], JSON, BAD, Limit::Body(MIB), "skipper({strict: true, limit: \"32mb\"})"),
    row("PHP", &["php"], FORM, Way::Loses, Limit::Body(8 * MIB), "post_max_size = 32M"),
    row("Tomcat", &["tomcat"], FORM, Way::Loses, Limit::Body(2 * MIB), "setMaxPostSize(32 << 20)"),
    row("Jetty", &["jetty", "form is larger than max length"], FORM, BAD, Limit::Body(200_000), "setMaxFormContentSize(32 << 20)"),
    row("Go fasthttp", &["fasthttp"], None, BAD, Limit::Body(4 * MIB), "Server{MaxRequestBodySize: 32 << 20}"),
    row("axum", &["length limit exceeded", "failed to buffer the request body"], None, TOO_LARGE, Limit::Body(2 * MIB), "DefaultBodyLimit::max(32 << 20)"),
    row("axum", &[], FORM, Way::Closes, Limit::Body(2 * MIB), "DefaultBodyLimit::max(32 << 20)"),
    row("actix-web", &["payload reached size limit", "payload size"], JSON, TOO_LARGE, Limit::Body(2 * MIB), "JsonConfig::limit"),
    row("actix-web", &["payload reached size limit"], FORM, BAD, Limit::Body(2 * MIB), "MultipartFormConfig::memory_limit"),
    row("Rocket", &["rocket"], JSON, TOO_LARGE, Limit::Body(MIB), "limits = {json = \"32MiB\", data-form = \"32MiB\", string = \"32MiB\"}"),
    row("Rocket", &["rocket"], FORM, Way::Status(422), Limit::Body(2 * MIB), "limits = {json = \"32MiB\", data-form = \"32MiB\", string = \"32MiB\"}"),
    row("POCO", &["poco"], FORM, Way::Status(500), Limit::Field(256 * KIB), "setValueLengthLimit(32 << 20)"),
    row("Pistache", &["pistache"], None, TOO_LARGE, Limit::Body(4 * KIB), "Http::Endpoint::options().maxRequestSize(32 << 20)"),
    row("Racket", &["racket"], JSON, Way::Closes, Limit::Body(MIB), "make-safety-limits"),
    row("Racket", &["racket"], FORM, Way::Closes, Limit::Field(8 * KIB), "make-safety-limits"),
    row("Nim asynchttpserver", &[], None, TOO_LARGE, Limit::Body(8 * MIB), "newAsyncHttpServer(maxBody = 33554432)"),
    row("ModSecurity", &["apache"], None, TOO_LARGE, Limit::Body(128 * KIB), "SecRequestBodyNoFilesLimit"),
];

/// The observations of a server that accepts smaller events than the largest.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The format.
    pub format: Format,
    /// How the larger events were refused.
    pub way: Way,
    /// The largest accepted body (0 if none) and the smallest refused one.
    pub body: (u64, u64),
    /// The same for a picture in base64.
    pub field: (u64, u64),
    /// The names in the headers and the answer's text, in lower case.
    pub said: &'a str,
}

/// A row that matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likely {
    /// The row.
    pub row: &'static Row,
    /// Whether the server's own words match; otherwise only the limit and the kind of refusal do.
    pub is_named: bool,
}

impl Serialize for Likely {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Likely", 3)?;
        fields.serialize_field("server", self.row.server)?;
        fields.serialize_field("setting", self.row.setting)?;
        fields.serialize_field("is_named", &self.is_named)?;
        fields.end()
    }
}

/// The rows that match best: those that the server's words identify, or else all that match its behaviour.
pub fn find(seen: &Seen) -> Vec<Likely> {
    let fit = ROWS.iter().filter(|row| row.fits(seen));
    let fit: Vec<_> =
        fit.map(|row| Likely { row, is_named: row.says.iter().any(|word| seen.said.contains(word)) }).collect();
    let is_any_named = fit.iter().any(|likely| likely.is_named);
    fit.into_iter().filter(|likely| likely.is_named == is_any_named).collect()
}

impl Row {
    fn fits(&self, seen: &Seen) -> bool {
        let (limit, (taken, refused)) = match self.limit {
            Limit::Body(limit) => (limit, seen.body),
            Limit::Field(limit) => (limit, seen.field),
        };
        // Some parsers also count what surrounds a value.
        let slack = limit / 32;
        self.format.is_none_or(|format| format == seen.format)
            && self.way == seen.way
            && taken <= limit + slack
            && limit <= refused + slack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: [&str; 2] =
        [include_str!("../../docs/receivers.md"), include_str!("../../docs/receivers.zh-CN.md")];

    #[test]
    fn every_row_stands_in_the_document_with_its_setting_in_both_languages() {
        let is_in = |document: &str, row: &Row| {
            let lines = document.lines().filter(|line| line.starts_with("| "));
            lines.into_iter().any(|line| line.contains(row.server) && line.contains(row.setting))
        };
        let missing: Vec<_> =
            ROWS.iter().filter(|row| !DOCUMENTS.iter().all(|document| is_in(document, row))).collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }

    /// Observations for pictures of this many bytes.
    fn seen<'a>(format: Format, way: Way, pictures: (u64, u64), said: &'a str) -> Seen<'a> {
        let field = |bytes: u64| bytes.div_ceil(3) * 4;
        let body = |bytes: u64| 2 * field(bytes) + 400;
        let (taken, refused) = pictures;
        Seen { format, way, body: (body(taken), body(refused)), field: (field(taken), field(refused)), said }
    }

    fn names(seen: &Seen) -> Vec<&'static str> {
        find(seen).iter().map(|likely| likely.row.server).collect()
    }

    #[test]
    fn a_server_is_found_by_its_limit_its_way_and_its_name() {
        let flask = seen(Format::FormData, TOO_LARGE, (370_000, 380_000), "werkzeug/3.1.3 python/3.11");
        assert_eq!(names(&flask), ["Flask"]);
        let nginx = seen(Format::Json, TOO_LARGE, (390_000, 400_000), "nginx/1.22.1");
        assert_eq!(names(&nginx), ["nginx"]);
        let php = seen(Format::FormData, Way::Loses, (3_100_000, 3_200_000), "php/8.2.36");
        assert_eq!(names(&php), ["PHP"]);
    }

    #[test]
    fn without_a_name_all_that_fit_are_likely_and_others_are_not() {
        let nameless = seen(Format::FormData, Way::Closes, (780_000, 790_000), "");
        let found = find(&nameless);
        assert!(found.iter().all(|likely| !likely.is_named));
        assert_eq!(names(&nameless), ["axum"]);
        assert!(names(&seen(Format::Json, Way::Closes, (10_000, 11_000), "")).is_empty());
    }

    #[test]
    fn a_name_in_front_of_another_limit_is_not_believed() {
        let behind_nginx = seen(Format::FormData, BAD, (780_000, 790_000), "nginx/1.22.1");
        assert_eq!(names(&behind_nginx), ["FastAPI", "Falcon", "Nest", "actix-web"]);
    }
}
