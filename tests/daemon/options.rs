//! The promise: what the config adds to events, and what it says of answers, holds for every destination or for one.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::daemon::Home;
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, Sink, event, picture, publish, wait_until};
use ring::hmac;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 1 << 20;

fn body(text: &'static str) -> Answer {
    Answer::Raw(Box::leak(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_boxed_str()))
}

/// The texts of a form's parts by their names.
fn form(content_type: &str, body: &[u8]) -> Value {
    let boundary = format!("--{}", content_type.split_once("boundary=").unwrap().1);
    let text = String::from_utf8(body.to_vec()).unwrap();
    let parts = text.split(&boundary).filter_map(|part| part.split_once("name=\"")?.1.split_once("\"\r\n\r\n"));
    parts
        .map(|(name, value)| (name.to_owned(), json!(value.trim_end_matches("\r\n"))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn every_event_has_the_boxs_own_members_where_it_has_none_of_that_name() {
    let home = Home::new();
    std::fs::write(home.folder.path().join("serial"), "AKOP-0815\n\0").unwrap();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let constants = json!({
        "box": { "serial_file": "serial" },
        "ext_data": { "dev_sno": "${serial}", "site": "north gate", "device_ip": "10.9.9.9", "tags": ["at ${hostname}", 7] },
        "top": { "tenant": "李 \"x\"", "level": 3 },
    });
    for format in ["json", "form-data"] {
        let sink = Sink::start();
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let mut config = constants.clone();
        config["content-type"] = format.into();
        let daemon = Daemon::start(&home, &[sink.url()], config);
        publish(&mut recognizer, &NewEvent { device_ip: b"", ..event(b"reg", b"spot") });
        publish(
            &mut recognizer,
            &NewEvent { device_ip: b"10.0.0.1", ext_json: br#"{"site": "its own"}"#, ..event(b"", b"") },
        );
        let mut requests = sink.wait(2);
        requests.sort_by_key(|request| request.sequence());
        for (request, site, device_ip) in
            [(&requests[0], "north gate", "10.9.9.9"), (&requests[1], "its own", "10.0.0.1")]
        {
            let (event, level) = match format {
                "json" => (request.json(), json!(3)),
                _ => (form(&request.headers["content-type"], &request.body), json!("3")),
            };
            assert_eq!((&event["tenant"], &event["level"]), (&json!("李 \"x\""), &level), "{event}");
            let ext = match &event["ext_data"] {
                Value::String(text) => serde_json::from_str::<Value>(text).unwrap(),
                ext => ext.clone(),
            };
            assert_eq!((&ext["site"], &ext["device_ip"]), (&json!(site), &json!(device_ip)), "{ext}");
            assert_eq!((&ext["dev_sno"], &ext["tags"]), (&json!("AKOP-0815"), &json!([format!("at {hostname}"), 7])));
            let members: Vec<_> = ext.as_object().unwrap().keys().collect();
            assert_eq!(members.iter().filter(|key| **key == "site").count(), 1, "{ext}");
        }
        home.wait_done();
        daemon.terminate();
        drop(recognizer);
    }
}

#[test]
fn a_serial_file_that_does_not_do_is_named() {
    let home = Home::new();
    home.configure(&[], json!({ "box": { "serial_file": "serial" }, "ext_data": { "dev_sno": "${serial}" } }));
    for content in [None, Some(""), Some("two\nlines"), Some("\u{1b}[2J")] {
        if let Some(content) = content {
            std::fs::write(home.folder.path().join("serial"), content).unwrap();
        }
        let (code, said) = home.check_config();
        assert_eq!((code, said.contains("box.serial_file")), (Some(78), true), "{content:?}: {said}");
    }
}

#[test]
fn statuses_mean_what_the_config_says_for_all_destinations_or_for_one() {
    let home = Home::new();
    let taken_already = Sink::with(|_, _| Answer::Status(409, ""));
    let busy_with_400 = Sink::with(|_, before| if before < 2 { Answer::Status(400, "") } else { OK });
    let final_503 = Sink::with(|_, _| Answer::Status(503, ""));
    let urls = [taken_already.url(), busy_with_400.url(), final_503.url()];
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let destinations =
        json!({ &urls[0]: { "answers": { "accept": [409] } }, &urls[2]: { "answers": { "refuse": ["5xx"] } } });
    let daemon = Daemon::start(&home, &urls, json!({ "answers": { "retry": [400] }, "destinations": destinations }));
    publish(&mut recognizer, &event(b"reg", b"spot"));
    home.wait_done();
    let status = daemon.status();
    let told = |index: usize, key: &str| status["destinations"][index][key].as_u64().unwrap();
    assert_eq!((told(0, "acknowledged"), told(0, "failed_tries")), (1, 0), "{status}");
    assert_eq!((told(1, "acknowledged"), told(1, "failed_tries")), (1, 2), "{status}");
    assert_eq!((told(2, "acknowledged"), told(2, "dead")), (0, 1), "{status}");
    daemon.terminate();
}

#[test]
fn a_200_is_an_acknowledgement_only_where_its_body_says_so() {
    let home = Home::new();
    let server = Sink::with(|_, before| {
        [
            body(r#"{"code": 500, "message": "database is down"}"#),
            body("<html>Please log in</html>"),
            Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ]
        .get(before)
        .cloned()
        .unwrap_or(body(r#"{"code": 0, "message": "ok"}"#))
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({ "accept_body": { "/code": 0 } }));
    publish(&mut recognizer, &event(b"reg", b"spot"));
    daemon.wait_log("the server answered 200, and its body is not what accept_body wants: /code is 500 and not 0");
    wait_until("it is acknowledged", || daemon.status()["destinations"][0]["acknowledged"] == 1);
    let told = daemon.status()["destinations"][0].clone();
    assert_eq!((&told["failed_tries"], &told["last_error_code"]), (&json!(3), &json!("not_accepted")), "{told}");
    assert_eq!(server.received().len(), 4);
    home.wait_done();
    daemon.terminate();
}

#[test]
fn a_2xx_whose_head_breaks_the_rules_is_no_acknowledgement_where_its_body_counts() {
    let home = Home::new();
    let server = Sink::with(|_, before| match before {
        0 => Answer::RawThenClose("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nno colon\r\n\r\n{\"code\": 500}"),
        1 => Answer::RawThenClose("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\nno colon\r\n\r\n"),
        _ => body(r#"{"code": 0}"#),
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = json!({ "accept_body": { "/code": 0 }, "answers": { "accept": [409] } });
    let daemon = Daemon::start(&home, &[server.url()], config);
    publish(&mut recognizer, &event(b"reg", b"spot"));
    daemon.wait_log("the server answered 200, and its body is not what accept_body wants: it cannot be read");
    daemon.wait_log("the server answered 409, and its body is not what accept_body wants: it cannot be read");
    home.wait_done();
    assert_eq!((daemon.terminate().acknowledged, server.received().len()), (1, 3));
}

#[test]
fn a_2xx_whose_body_has_no_end_is_no_acknowledgement_where_its_body_counts() {
    let home = Home::new();
    let server = Sink::with(|_, before| match before {
        0 => Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{\"code\": 0"),
        _ => body(r#"{"code": 0}"#),
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({ "accept_body": { "/code": 0 } }));
    publish(&mut recognizer, &event(b"reg", b"spot"));
    daemon.wait_log("it does not end in time, or in 64 KiB");
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn a_signature_is_over_its_time_and_every_byte_of_the_body() {
    let home = Home::new();
    let key = home.folder.path().join("sign.key");
    std::fs::write(&key, "0123456789abcdef0123\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (sink, plain) = (Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
    let signed = json!({ sink.url(): { "sign": { "key_file": "sign.key", "header": "X-Box-Signature" } } });
    for format in ["json", "form-data"] {
        let urls = [sink.url(), plain.url()];
        let daemon = Daemon::start(&home, &urls, json!({ "destinations": &signed, "content-type": format }));
        publish(&mut recognizer, &event(&picture(700_000, 1), &picture(300_001, 2)));
        home.wait_done();
        daemon.terminate();
        let request = sink.take().pop().unwrap();
        let header = request.headers["x-box-signature"].clone();
        let (time, tag) = header.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123");
        let expected = hmac::sign(&key, &[time.as_bytes(), b".", &request.body].concat());
        let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(tag, expected, "{format}");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!((now - 600..=now).contains(&time.parse().unwrap()), "{header}");
    }
    assert!(plain.received().iter().all(|request| !request.headers.contains_key("x-box-signature")));
}

#[test]
fn a_key_that_does_not_do_is_named_and_never_shown() {
    let home = Home::new();
    home.configure(&["http://a/".into()], json!({ "sign": { "key_file": "sign.key" } }));
    let key = home.folder.path().join("sign.key");
    for (content, mode, words) in [
        (None, 0, "cannot be read"),
        (Some("0123456789abcdef"), 0o640, "may be read or changed by others"),
        (Some("0123456789abcde\n"), 0o600, "has 15 bytes"),
        (Some(&*"s3cret".repeat(200)), 0o600, "may have 1024 at most"),
    ] {
        if let Some(content) = content {
            std::fs::write(&key, content).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let (code, said) = home.check_config();
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("sign.key_file") && said.contains(words) && !said.contains("s3cret"), "{said}");
    }
    std::fs::write(&key, "x".repeat(1024) + "\n").unwrap();
    assert_eq!(home.check_config().0, Some(0), "the longest key, on a line");
}
