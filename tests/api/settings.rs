//! The promise: what the API says is in force is in force and on disk, and whoever may not use it changes nothing.

mod by_hand;
mod clients;
mod connections;
mod last_good;
mod token;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::daemon::Home;
use crate::common::http::{Reply, call, get, post_json, raw};
use crate::common::{Daemon, Sink, event, publish};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;

const URL: &str = "/SophonFogSys/api/EventServerUrl";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn bak(home: &Home) -> PathBuf {
    home.folder.path().join("uplink.json.bak")
}

fn on_disk(home: &Home) -> Value {
    serde_json::from_slice(&fs::read(home.config()).unwrap()).unwrap()
}

#[track_caller]
fn refused(reply: &Reply, status: u16, word: &str, named: &str) {
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (status, &json!(status)), "{reply:?}");
    assert_eq!(error["status"], word, "{reply:?}");
    assert!(error["message"].as_str().unwrap().contains(named), "{named}: {reply:?}");
}

#[test]
fn a_new_url_gets_what_waits_at_once_and_is_on_disk_before_the_answer() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let daemon =
        Daemon::start(&home, &[format!("http://{nobody}/")], json!({ "threshold": 0.25, "timestamp_unit": "ms" }));
    let api = daemon.api();
    assert_eq!(
        get(api, URL).json(),
        json!({"data": {"event_server_url": [format!("http://{nobody}/")], "real_need_reg_pic": true, "content-type": "json"}})
    );
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    daemon.wait_log("not delivered");

    let call = json!({"event_server_url": [sink.url()], "real_need_reg_pic": false, "content-type": "form-data"});
    let answer = post_json(api, URL, &call);
    assert_eq!(answer.json(), json!({ "data": call }));
    let mut wanted = json!({"threshold": 0.25, "timestamp_unit": "ms", "rings": [home.ring()]});
    wanted.as_object_mut().unwrap().extend(call.as_object().unwrap().clone());
    let mut found = on_disk(&home);
    for key in ["api", "spool"] {
        found.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(found, wanted);
    let kept: Value = serde_json::from_slice(&fs::read(bak(&home)).unwrap()).unwrap();
    assert_eq!(kept, on_disk(&home), "the last good one is what is in force");

    let request = &sink.wait(1)[0];
    assert!(request.headers["content-type"].starts_with("multipart/form-data"));
    let body = String::from_utf8_lossy(&request.body);
    assert!(body.contains("name=\"timestamp\"\r\n\r\n1700000000123\r\n"), "{body}");
    assert!(body.contains("name=\"reg_pic\"\r\n\r\n\r\n"), "without the registered picture: {body}");
    home.wait_released();
    assert_eq!(get(api, URL).json(), answer.json());
    daemon.terminate();
    let daemon = Daemon::restart(&home);
    assert_eq!(get(daemon.api(), URL).json(), answer.json());
    daemon.terminate();
}

#[test]
fn json_and_every_form_do_the_same_and_absent_means_true() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({}));
    let api = daemon.api();
    let boundary = "Content-Type: multipart/form-data; boundary=xx\r\n";
    let part =
        |name: &str, value: &str| format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let urls = ["http://192.0.2.1:9528/RealTimeEvent", "https://two.example/x?y=z"];
    let multipart = part("event_server_url", urls[0])
        + &part("content-type", "form-data")
        + &part("event_server_url", urls[1])
        + "--xx--\r\n";
    let listed = part("content-type", "form-data") + &part("event_server_url", &json!(urls).to_string()) + "--xx--\r\n";
    let coded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let [a, b] = urls.map(coded);
    for (headers, body) in [
        (
            "Content-Type: application/json\r\n",
            json!({"event_server_url": urls, "content-type": "form-data"}).to_string(),
        ),
        (boundary, multipart),
        (boundary, listed),
        (FORM, format!("event_server_url={a}&event_server_url={b}&content-type=form-data")),
        (
            FORM,
            format!(
                "event_server_url={}&content-type=form-data&real_need_reg_pic=True",
                coded(&json!(urls).to_string())
            ),
        ),
    ] {
        let first =
            post_json(api, URL, &json!({"event_server_url": [], "content-type": "json", "real_need_reg_pic": false}));
        assert_eq!(first.status, 200);
        let answer = call(api, "POST", URL, headers, body.as_bytes());
        let wanted = json!({"event_server_url": urls, "real_need_reg_pic": true, "content-type": "form-data"});
        assert_eq!(answer.json(), json!({ "data": wanted }), "{body}");
        assert_eq!(get(api, URL).json(), answer.json());
        assert_eq!(on_disk(&home)["event_server_url"], json!(urls));
    }
    daemon.terminate();
}

#[test]
fn what_was_written_by_hand_stays_and_is_put_into_force_with_the_change() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({}));
    let api = daemon.api();
    let by_hand =
        "{\"api\": {\"listen\": \"127.0.0.1:0\"},\n \"threshold\": 0.62500000000000000000,\"event_server_url\":[] }";
    fs::write(home.config(), by_hand).unwrap();
    assert_eq!(
        post_json(api, URL, &json!({"event_server_url": ["http://192.0.2.1/"], "content-type": "json"})).status,
        200
    );
    let text = fs::read_to_string(home.config()).unwrap();
    assert!(text.contains("\"threshold\": 0.62500000000000000000"), "{text}");
    assert_eq!(get(daemon.api(), "/api/settings").json()["data"]["threshold"], 0.625);

    // A call that changes nothing writes nothing: clouds that repeat it every minute must not wear the flash.
    let before = fs::metadata(home.config()).unwrap();
    assert_eq!(
        post_json(api, URL, &json!({"event_server_url": ["http://192.0.2.1/"], "content-type": "json"})).status,
        200
    );
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(home.config()).unwrap().ino(), before.ino());
    daemon.terminate();
}

#[test]
fn a_change_that_is_meant_for_another_revision_is_refused_and_one_without_a_revision_is_made() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/".into()], json!({}));
    let api = daemon.api();
    let settings = || get(api, "/api/settings").json();
    let seen = settings()["revision"].as_str().unwrap().to_owned();
    let answer = get(api, URL);
    assert!(answer.head.contains(&format!("etag: \"{seen}\"")), "{}", answer.head);
    assert_eq!(answer.json().as_object().unwrap().len(), 1, "the documented keys and no others");
    let vendor = json!({"event_server_url": ["http://192.0.2.2/"], "content-type": "json"});
    assert_eq!(post_json(api, URL, &vendor).json().as_object().unwrap().len(), 1);

    let with_tag = |path: &str, tag: &str, body: &Value| {
        let head = format!("Content-Type: application/json\r\nIf-Match: {tag}\r\n");
        call(api, "POST", path, &head, body.to_string().as_bytes())
    };
    let before = fs::read(home.config()).unwrap();
    let stale = json!({"threshold": 0.5, "revision": seen});
    refused(&post_json(api, "/api/settings", &stale), 412, "FAILED_PRECONDITION", "somebody else has changed");
    for tag in [format!("\"{seen}\""), "\"x\", \"y\"".into()] {
        let change = json!({"threshold": 0.5});
        refused(&with_tag("/api/settings", &tag, &change), 412, "FAILED_PRECONDITION", "nothing was changed");
        refused(&with_tag(URL, &tag, &vendor), 412, "FAILED_PRECONDITION", "nothing was changed");
    }
    assert_eq!(fs::read(home.config()).unwrap(), before);

    let current = settings()["revision"].as_str().unwrap().to_owned();
    let answer = post_json(api, "/api/settings", &json!({"threshold": 0.5, "revision": current})).json();
    assert_eq!(
        (&answer["data"]["threshold"], &answer["data"]["event_server_url"]),
        (&json!(0.5), &vendor["event_server_url"])
    );
    let next = answer["revision"].as_str().unwrap().to_owned();
    assert_ne!(next, current);
    assert_eq!(with_tag("/api/settings", "*", &json!({"threshold": 0.25})).status, 200);
    let now = settings()["revision"].as_str().unwrap().to_owned();
    assert_eq!(with_tag(URL, &format!("W/\"{now}\", \"{next}\""), &vendor).status, 200);
    // By hand is a change as well, and a revision alone is none.
    assert_eq!(post_json(api, "/api/settings", &json!({"revision": settings()["revision"]})).status, 200);
    home.configure(&[], json!({}));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    assert_eq!(post_json(api, "/api/settings", &json!({"revision": now})).status, 412);
    daemon.terminate();
}

#[test]
fn a_client_that_goes_away_leaves_no_change_half_made() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/0".into()], json!({}));
    let api = daemon.api();
    for number in 1..=50 {
        let body =
            json!({"event_server_url": [format!("http://192.0.2.1/{number}")], "content-type": "json"}).to_string();
        let head = format!("POST {URL} HTTP/1.1\r\nHost: {api}\r\nContent-Type: application/json\r\n");
        let mut socket = TcpStream::connect(api).unwrap();
        socket.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(); // so that closing is noticed at once
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..300))); // the moment is the point
        drop(socket);
        crate::common::wait_until("the same on disk and in force", || {
            get(api, URL).json()["data"]["event_server_url"] == on_disk(&home)["event_server_url"]
        });
    }
    daemon.terminate();
}

#[test]
fn the_page_changes_its_settings_and_no_others() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({ "headers": { "X-Key": "canary" } }));
    let api = daemon.api();
    let answer = post_json(api, "/api/settings", &json!({"threshold": 0.75, "timestamp_unit": "ms"}));
    let wanted = json!({"event_server_url": [], "real_need_reg_pic": true, "content-type": "json", "threshold": 0.75, "timestamp_unit": "ms", "more": {}});
    assert_eq!(answer.json()["data"], wanted);
    assert_eq!((&on_disk(&home)["threshold"], &on_disk(&home)["headers"]["X-Key"]), (&json!(0.75), &json!("canary")));
    refused(&post_json(api, "/api/settings", &json!({"headers": {}})), 400, "INVALID_ARGUMENT", "headers");
    refused(&post_json(api, "/api/settings", &json!({"threshold": "high"})), 400, "INVALID_ARGUMENT", "threshold");
    let more = json!({"order": "strict", "proxy": {"url": "http://gate:canary@192.0.2.9:1"}});
    let answer = post_json(api, "/api/settings", &json!({ "more": more }));
    assert_eq!(answer.json()["data"]["more"]["proxy"]["url"], "http://***@192.0.2.9:1");
    assert_eq!((&on_disk(&home)["order"], &on_disk(&home)["proxy"]), (&more["order"], &more["proxy"]));
    let left = json!({"proxy": answer.json()["data"]["more"]["proxy"]});
    post_json(api, "/api/settings", &json!({ "more": left }));
    assert_eq!((&on_disk(&home)["order"], &on_disk(&home)["proxy"]), (&json!("any"), &more["proxy"]));
    let wrong = json!({"more": {"bounds": {"bytes_per_second": 1}}});
    refused(&post_json(api, "/api/settings", &wrong), 400, "INVALID_ARGUMENT", "bounds.bytes_per_second");
    refused(&post_json(api, "/api/settings", &json!({"more": {"headers": {}}})), 400, "INVALID_ARGUMENT", "more.");
    daemon.terminate();
}

#[test]
fn two_notations_of_one_url_are_one_destination() {
    let home = Home::new();
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    let set = |urls: Value| post_json(api, URL, &json!({"event_server_url": urls, "content-type": "json"}));
    for second in ["http://box.example:80/x", "HTTP://BOX.example:0080/x", " http://box.example/x\n"] {
        refused(&set(json!(["http://box.example/x", second])), 400, "INVALID_ARGUMENT", "it is there twice");
    }
    let odd = format!(" http://{}/事件/{{a}}?b c \n", sink.address);
    assert_eq!(set(json!([odd])).json()["data"]["event_server_url"], json!([odd.trim()]));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    assert_eq!(sink.wait(1)[0].line, "POST /%E4%BA%8B%E4%BB%B6/%7Ba%7D?b%20c HTTP/1.1");
    daemon.terminate();
}
