//! Requests to a gateway: each becomes a message of its sender's own box, or is refused. Runs the code from the head and body of
//! a request to the message, without sockets and without a server.
//!
//! Input: flags (u8), the id after its length (u8), the Content-Type after its length (u8) where the flags ask for one, a token
//! after its length (u8) where they do, then the body. The oracle does not use the gateway's own escaping.
#![no_main]
#![allow(dead_code)] // what the rest of the program uses

#[path = "../../src/bin/event-receive-server/boxes.rs"]
mod boxes;
#[path = "../../src/bin/event-receive-server/clock.rs"]
mod clock;
#[path = "../../src/bin/event-receive-server/dialect.rs"]
mod dialect;
#[path = "../../src/bin/event-receive-server/escape.rs"]
mod escape;
#[path = "../../src/bin/event-receive-server/event.rs"]
mod event;
#[path = "../../src/bin/event-receive-server/fields.rs"]
mod fields;
#[path = "../../src/bin/event-receive-server/fleet"]
mod fleet {
    pub mod access;
    pub mod message;
}
#[path = "../../src/bin/event-receive-server/error.rs"]
mod error;
#[path = "../../src/bin/event-receive-server/json.rs"]
mod json;
#[path = "../../src/bin/event-receive-server/picture.rs"]
mod picture;
#[path = "../../src/bin/event-receive-server/request.rs"]
mod request;
#[path = "../../src/bin/event-receive-server/state_report.rs"]
mod state_report;
#[path = "../../src/bin/event-receive-server/store.rs"]
mod store;

use std::cell::OnceCell;

use bytes::Bytes;
use error::ApiError;
use fleet::access::Access;
use fleet::message::{self, MOST_OF_HEADERS, Message};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use sophon_uplink_fuzz::Input;
use store::Expected;
use tokio::runtime::Runtime;

/// The boxes that have tokens, each with its name as a subject has it.
const BOXES: [(&str, &str, &str); 2] =
    [("gate-1", "0123456789abcdef", "gate-1"), ("\u{4e1c}.>*\u{7f}", "fedcba9876543210", "%E4%B8%9C%2E%3E%2A%7F")];

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
    static KNOWN: OnceCell<Access> = const { OnceCell::new() };
}

struct Request<'a> {
    expected: Expected,
    headers: HeaderMap,
    body: &'a [u8],
    /// Whether the gateway asks for tokens.
    asks: bool,
}

fn request<'a>(input: &mut Input<'a>) -> Request<'a> {
    let flags = input.u8();
    let expected = match flags & 3 {
        0 | 1 => Expected::Event(dialect::Report::RealTime),
        2 => Expected::Event(dialect::Report::History),
        _ => Expected::State,
    };
    let mut headers = HeaderMap::new();
    let mut insert = |name: &'static str, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    };
    let length = input.u8().into();
    insert("x-event-id", input.bytes(length));
    match flags >> 2 & 3 {
        0 | 1 => insert(CONTENT_TYPE.as_str(), b"application/json"),
        2 => insert(CONTENT_TYPE.as_str(), b"multipart/form-data; boundary=edge"),
        _ => {
            // A head may have 64 KiB.
            let (length, times) = (input.u8().into(), input.u8().into());
            insert(CONTENT_TYPE.as_str(), &[input.bytes(length), &b" ; a=b".repeat(times)].concat());
        }
    }
    let token = match flags >> 4 & 3 {
        0 | 1 => BOXES[usize::from(flags >> 4 & 1)].1.as_bytes(),
        2 => b"",
        _ => {
            let length = input.u8().into();
            input.bytes(length)
        }
    };
    insert(AUTHORIZATION.as_str(), &[b"Bearer ", token].concat());
    Request { expected, headers, body: input.0, asks: flags & 0x40 == 0 }
}

/// As the gateway does it: the token, the id, the body, the message.
async fn taken(access: &Access, request: &Request<'_>) -> Result<(Message, Option<String>), ApiError> {
    let sender = access.sender(&request.headers)?;
    let id = request::event_id(&request.headers);
    if let Expected::Event(_) = request.expected {
        message::check_id(&id)?;
    }
    let body = Bytes::copy_from_slice(request.body);
    let delivery = request::delivery(request.expected, &request.headers, sender.clone(), id, body).await?;
    Ok((message::of(delivery, "EVENTS")?, sender.map(|name| name.to_string())))
}

fn check(message: &Message, sender: Option<String>, request: &Request) {
    let subject: Vec<&str> = message.subject.split('.').collect();
    let &["events", name, kind] = subject.as_slice() else { panic!("{}", message.subject) };
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_%".contains(&byte);
    assert!(!name.is_empty() && name.bytes().all(is_legal), "{name:?}");
    assert_eq!(sender.is_some(), request.asks);
    if let Some(sender) = sender {
        let own = BOXES.iter().find(|(name, ..)| *name == sender).expect("a box that is known");
        assert_eq!(name, own.2, "another box's subject");
        let given = request.headers[AUTHORIZATION].to_str().expect("a token");
        assert!(given.ends_with(own.1), "{given:?} is not the token of {name}");
    }
    let wanted = match request.expected {
        Expected::Event(report) => report.name(),
        Expected::State => "status",
    };
    assert_eq!(kind, wanted);
    let mut size = "NATS/1.0\r\n\r\n".len();
    for (name, values) in message.headers.iter() {
        for value in values {
            let (name, value): (&[u8], &str) = (name.as_ref(), value.as_str());
            size += name.len() + value.len() + ": \r\n".len();
            assert!(!value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "{value:?}");
        }
    }
    assert!(size <= MOST_OF_HEADERS, "{size} bytes of headers");
    assert_eq!(message.payload, request.body, "the body as it came");
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
    match (request.expected, header("Nats-Msg-Id")) {
        (Expected::State, None) => {}
        (Expected::Event(_), Some(id)) => {
            let (of, own) = id.split_once(':').expect("the box's name");
            assert_eq!((of, Some(own)), (name, header("Event-Id")));
        }
        (_, id) => panic!("{id:?}"),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let request = request(&mut Input(bytes));
    let taken = RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.max_blocking_threads(1).build().expect("a runtime")
        });
        KNOWN.with(|known| {
            let lines = BOXES.map(|(name, token, _)| format!("{name} {token}\n")).concat();
            let known = known.get_or_init(|| Access::read(&lines).expect("a list of boxes"));
            runtime.block_on(taken(if request.asks { known } else { &Access::Everybody }, &request))
        })
    });
    match taken {
        Ok((message, sender)) => check(&message, sender, &request),
        Err(refusal) => {
            assert!(refusal.status.is_client_error(), "{refusal:?}");
            assert!(!refusal.errors.is_empty() && refusal.errors.iter().all(|error| !error.contains(['\r', '\n'])));
        }
    }
});
