//! The promise: what the API says is in force is in force and on disk, and whoever may not use it changes nothing.

mod by_hand;
mod clients;

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
fn a_bad_file_is_set_aside_by_a_change_and_the_last_good_one_serves_a_start() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/".into()], json!({ "threshold": 0.5 }));
    let api = daemon.api();
    crate::common::wait_until("the first last good one", || bak(&home).exists());
    fs::write(home.config(), "{\"event_server_url\": [\"ftp://hand/\"]}").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("the config stays as it was");
    assert_eq!(get(api, URL).json()["data"]["event_server_url"], json!(["http://192.0.2.1/"]));
    assert_eq!(
        post_json(api, URL, &json!({"event_server_url": ["http://192.0.2.2/"], "content-type": "json"})).status,
        200
    );
    assert_eq!(on_disk(&home)["threshold"], 0.5);
    let aside = fs::read_to_string(home.folder.path().join("uplink.json.bad")).unwrap();
    assert!(aside.contains("ftp://hand/"));
    daemon.terminate();

    for torn in ["", "{\"event_server_url\": [", "{\"event_server_url\": [\"ftp://x/\"]}"] {
        fs::write(home.config(), torn).unwrap();
        let daemon = Daemon::restart(&home);
        daemon.wait_log("in force is the last good one");
        assert_eq!(get(daemon.api(), URL).json()["data"]["event_server_url"], json!(["http://192.0.2.2/"]));
        assert_eq!(fs::read_to_string(home.config()).unwrap(), torn, "it is left for whoever wrote it");
        daemon.terminate();
    }
    fs::remove_file(home.config()).unwrap();
    let (status, log) = Daemon::restart(&home).wait();
    assert_eq!(status.code(), Some(78), "a file that was taken away is not replaced by an old one: {log}");
}

/// Else a typing error and a restart would bring back what was in force before, and faces go to a former owner.
#[test]
fn the_last_good_one_is_what_is_in_force_whoever_put_it_into_force() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/".into()], json!({}));
    let api = daemon.api();
    let is_kept = || fs::read(bak(&home)).is_ok_and(|kept| kept == fs::read(home.config()).unwrap());
    for (number, path) in [(2, URL), (3, "/api/settings")] {
        let mut call = json!({"event_server_url": [format!("http://192.0.2.{number}/")], "content-type": "json"});
        if number == 2 {
            call["real_need_reg_pic"] = json!(false);
        }
        assert_eq!(post_json(api, path, &call).status, 200);
        assert!(is_kept(), "before the answer");
    }
    home.configure(&["http://192.0.2.4/".into()], json!({}));
    daemon.signal(Signal::SIGHUP);
    crate::common::wait_until("the last good one", is_kept);
    fs::write(home.config(), "{\"event_server_url\": [}").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("the config stays as it was");
    daemon.terminate();
    let daemon = Daemon::restart(&home);
    assert_eq!(get(daemon.api(), URL).json()["data"]["event_server_url"], json!(["http://192.0.2.4/"]));
    daemon.terminate();
}

#[test]
fn a_bad_file_that_cannot_be_read_or_is_large_is_set_aside_whole() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/".into()], json!({}));
    let api = daemon.api();
    let aside = home.folder.path().join("uplink.json.bad");
    for (number, text) in [(2, "{\"by hand\": ".to_owned()), (3, "x".repeat(3 << 20))] {
        let mine = home.folder.path().join("mine");
        fs::write(&mine, &text).unwrap();
        fs::set_permissions(&mine, PermissionsExt::from_mode(0o000)).unwrap();
        let inode = fs::metadata(&mine).unwrap().ino();
        fs::rename(&mine, home.config()).unwrap();
        let call = json!({"event_server_url": [format!("http://192.0.2.{number}/")], "content-type": "json"});
        assert_eq!(post_json(api, URL, &call).status, 200);
        assert_eq!(fs::metadata(&aside).unwrap().ino(), inode, "it is the same file");
        fs::set_permissions(home.config(), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(on_disk(&home)["event_server_url"], call["event_server_url"]);
    }
    // A folder has nothing that could be kept: it is said, and stays.
    fs::remove_file(home.config()).unwrap();
    fs::create_dir(home.config()).unwrap();
    let answer = post_json(api, URL, &json!({"event_server_url": [], "content-type": "json"}));
    refused(&answer, 500, "INTERNAL", "something else than a file");
    assert_eq!(get(daemon.api(), URL).json()["data"]["event_server_url"], json!(["http://192.0.2.3/"]));
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
fn the_last_good_one_is_what_the_last_good_start_had_in_force() {
    use std::os::unix::fs::MetadataExt as _;
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/".into()], json!({}));
    crate::common::wait_until("the first last good one", || bak(&home).exists());
    daemon.terminate();
    home.configure(&["http://192.0.2.2/".into()], json!({})); // by hand, while nothing runs
    let is_kept = || fs::read(bak(&home)).is_ok_and(|kept| kept == fs::read(home.config()).unwrap());
    let daemon = Daemon::restart(&home);
    crate::common::wait_until("the last good one", is_kept);
    daemon.terminate();
    let inode = fs::metadata(bak(&home)).unwrap().ino();
    let daemon = Daemon::restart(&home);
    get(daemon.api(), URL);
    daemon.terminate();
    assert_eq!(fs::metadata(bak(&home)).unwrap().ino(), inode, "it was written again");
    fs::write(home.config(), "{\"event_server_url\": [").unwrap();
    let daemon = Daemon::restart(&home);
    daemon.wait_log("in force is the last good one");
    assert_eq!(get(daemon.api(), URL).json()["data"]["event_server_url"], json!(["http://192.0.2.2/"]));
    daemon.terminate();
}

#[test]
fn a_config_that_cannot_be_saved_is_not_in_force() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &["http://192.0.2.1/".into()], json!({}));
    let api = daemon.api();
    crate::common::wait_until("the first last good one", || bak(&home).exists());
    fs::create_dir_all(home.folder.path().join("uplink.json.new/in the way")).unwrap();
    let before = fs::read(home.config()).unwrap();
    let answer = post_json(api, URL, &json!({"event_server_url": ["http://192.0.2.2/"], "content-type": "json"}));
    refused(&answer, 500, "INTERNAL", "nothing was changed");
    assert_eq!(fs::read(home.config()).unwrap(), before);
    assert_eq!(get(api, URL).json()["data"]["event_server_url"], json!(["http://192.0.2.1/"]));
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

/// An uplink whose API others can reach: its address here, the token's file, and the token.
fn off_loopback(home: &Home) -> (Daemon, SocketAddr, PathBuf, String) {
    let daemon = Daemon::start(home, &[], json!({ "api": { "listen": "0.0.0.0:0", "token_file": "api.token" } }));
    let api = SocketAddr::from(([127, 0, 0, 1], daemon.api().port()));
    let file = home.folder.path().join("api.token");
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();
    (daemon, api, file, token)
}

#[test]
fn off_loopback_a_token_is_made_and_asked_for() {
    let home = Home::new();
    let (daemon, api, file, token) = off_loopback(&home);
    assert!(token.len() == 32 && fs::metadata(&file).unwrap().permissions().mode() & 0o777 == 0o600);
    let change = json!({"event_server_url": ["http://192.0.2.1/"], "content-type": "json"}).to_string();
    let json_type = "Content-Type: application/json\r\n";
    for (method, path) in [("GET", URL), ("POST", URL), ("GET", "/api/settings"), ("POST", "/api/settings")] {
        for wrong in ["", "Authorization: Bearer 00112233445566778899aabbccddeeff\r\n", "Authorization: Bearer\r\n"] {
            let reply = call(api, method, path, &format!("{json_type}{wrong}"), change.as_bytes());
            refused(&reply, 401, "UNAUTHENTICATED", "token");
            assert!(reply.head.contains("www-authenticate: bearer"), "{}", reply.head);
        }
    }
    let right = format!("{json_type}Authorization: Bearer {token}\r\n");
    assert_eq!(call(api, "GET", URL, &right, b"").json()["data"]["event_server_url"], json!([]), "nothing was changed");
    assert_eq!(call(api, "POST", URL, &right, change.as_bytes()).status, 200);
    assert_eq!(get(api, "/icon.svg").status, 200, "the page's own files hold nothing");
    // Another token is in force as soon as the config is read again, and connections that knew the old one end.
    let mut open = TcpStream::connect(api).unwrap();
    open.write_all(format!("GET {URL} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes())
        .unwrap();
    let mut start = [0; 15];
    open.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    fs::write(&file, "another-token-of-ours\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    open.set_read_timeout(Some(crate::common::BOUND)).unwrap();
    while open.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    assert_eq!(call(api, "GET", URL, &right, b"").status, 401, "the old token");
    assert_eq!(call(api, "GET", URL, "Authorization: Bearer another-token-of-ours\r\n", b"").status, 200);
    let stopped = daemon.terminate();
    assert!(!stopped.log.contains(&token) && !stopped.log.contains("another-token-of-ours"));
}

/// The system chose the port, so another socket would have another one. And a port below 1024 could not be bound again.
#[test]
fn a_token_that_cannot_be_used_closes_the_api_and_the_next_one_opens_it_at_the_same_socket() {
    let home = Home::new();
    let (daemon, api, file, token) = off_loopback(&home);
    let asked = |token: &str| {
        let request =
            format!("GET {URL} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        raw(api, request.as_bytes()).map(|reply| reply.status)
    };
    assert_eq!(asked(&token), Some(200));
    for round in ["the first", "the second"] {
        fs::write(&file, "short").unwrap();
        daemon.signal(Signal::SIGHUP);
        crate::common::wait_until("the end of the old token", || asked(&token).is_none());
        assert_eq!(asked("short"), None, "connections are closed: {round} time");
        let next = format!("a-token-of-{}", round.replace(' ', "-"));
        fs::write(&file, &next).unwrap();
        crate::common::wait_until("the next token", || asked(&next) == Some(200));
        assert_eq!(asked(&token), Some(401), "the old token");
        assert_eq!(daemon.api().port(), api.port());
    }
    let stopped = daemon.terminate();
    assert!(stopped.log.contains("the API does not listen, trying again"), "{}", stopped.log);
}

#[test]
fn without_a_token_it_does_not_listen_off_loopback_and_uploads_go_on() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    fs::create_dir(home.folder.path().join("api.token")).unwrap();
    let daemon =
        Daemon::start(&home, &[sink.url()], json!({ "api": { "listen": "0.0.0.0:0", "token_file": "api.token" } }));
    daemon.wait_log("the API does not listen");
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    sink.wait(1);
    fs::remove_dir(home.folder.path().join("api.token")).unwrap();
    let port = daemon.api().port();
    refused(&get(SocketAddr::from(([127, 0, 0, 1], port)), URL), 401, "UNAUTHENTICATED", "token");
    daemon.terminate();
}

#[test]
fn a_port_in_use_is_named_retried_and_stops_no_upload() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "api": { "listen": address.to_string() } }));
    daemon.wait_log(&format!("cannot listen on {address}: another program uses this port"));
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    sink.wait(1);
    drop(taken);
    assert_eq!(daemon.api(), address);
    assert_eq!(get(address, URL).status, 200);
    let stopped = daemon.terminate();
    assert_eq!(stopped.log.matches("cannot listen").count(), 1, "said once: {}", stopped.log);
}

#[test]
fn slow_heads_and_half_bodies_are_told_so_and_uploads_go_on() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    let before = Instant::now();
    let slow = TcpStream::connect(api).unwrap();
    (&slow).write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let half = TcpStream::connect(api).unwrap();
    let head = format!(
        "POST {URL} HTTP/1.1\r\nHost: {api}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    (&half).write_all(head.as_bytes()).unwrap();
    let idle = TcpStream::connect(api).unwrap();
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    sink.wait(1);
    // Both clients still have their time: nothing was said to them.
    for socket in [&slow, &half] {
        socket.set_nonblocking(true).unwrap();
        let said = socket.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(said, Err(std::io::ErrorKind::WouldBlock), "an upload waited for a slow client");
        socket.set_nonblocking(false).unwrap();
    }
    let said = |mut socket: TcpStream| {
        socket.set_read_timeout(Some(crate::common::BOUND)).unwrap();
        socket.peek(&mut [0]).unwrap();
        let (after, mut text) = (before.elapsed(), String::new());
        socket.read_to_string(&mut text).unwrap();
        (after, text)
    };
    let (after, text) = said(slow);
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("DEADLINE_EXCEEDED"), "{text}");
    assert!(after >= Duration::from_secs(5), "a head has 5 s, this one had {after:?}");
    let (after, text) = said(half);
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("only 1 bytes"), "{text}");
    assert!(after >= Duration::from_secs(10), "a body has 10 s, this one had {after:?}");
    assert_eq!(said(idle).1, "", "an idle connection is closed without a word: its client may be asking just now");
    assert_eq!(get(api, URL).status, 200);
    daemon.terminate();
}

#[test]
fn a_thousand_connections_are_bounded_told_so_and_gone() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = descriptors();
    let crowd: Vec<_> = (0..1000).map(|_| TcpStream::connect(api).unwrap()).collect();
    let naps = crate::common::Naps::start();
    let sent = publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    assert_eq!(sink.wait(1)[0].sequence(), sent);
    assert!(naps.passed() < Duration::from_secs(3), "an upload waited for the crowd");
    assert!(descriptors() < before + 200, "{} descriptors", descriptors());
    let mut told = 0;
    for mut socket in crowd {
        socket.set_read_timeout(Some(crate::common::BOUND)).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        if text.starts_with("HTTP/1.1 503") {
            assert!(text.contains("too many connections"), "{text}");
            told += 1;
        }
    }
    // Those that were served had five seconds for a request; should the crowd have taken longer to come, others took their
    // places.
    assert!((1000 - 4 * 32..=1000 - 32).contains(&told), "{told}");
    crate::common::wait_until("the crowd's end", || descriptors() <= before + 1);
    assert_eq!(get(api, URL).status, 200);
    daemon.terminate();
}

#[test]
fn what_no_route_takes_is_said() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({}));
    let api = daemon.api();
    refused(&get(api, "/nothing"), 404, "NOT_FOUND", "/nothing");
    refused(&get(api, "/SophonFogSys/api/eventserverurl"), 404, "NOT_FOUND", "page");
    for method in ["PUT", "DELETE", "TRACE", "PATCH"] {
        let reply = call(api, method, URL, "", b"");
        refused(&reply, 405, "METHOD_NOT_ALLOWED", "POST");
        assert!(reply.head.contains("allow: get, head, post"), "{}", reply.head);
    }
    let head = call(api, "HEAD", URL, "", b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("cache-control: no-store") && head.head.contains("nosniff"));
    let reply = raw(api, b"nonsense\r\n\r\n").unwrap();
    assert_eq!(reply.status, 400);
    for (head, status) in [(15 << 10, 200), (17 << 10, 431)] {
        let request = format!("GET / HTTP/1.1\r\nHost: {api}\r\nX: {}\r\n\r\n", "x".repeat(head));
        assert_eq!(raw(api, request.as_bytes()).unwrap().status, status, "{head} bytes");
    }
    daemon.terminate();
}

#[test]
fn health_and_metrics_answer_any_host_and_http_1_0_without_one() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({"api": {"listen": "127.0.0.1:0", "hosts": ["Fleet.example"]}}));
    let api = daemon.api();
    for path in ["/healthz", "/metrics"] {
        for request in [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: box17.lan:5555\r\nConnection: close\r\n\r\n"),
            format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        ] {
            assert_eq!(raw(api, request.as_bytes()).unwrap().status, 200, "{request}");
        }
    }
    // HAProxy's plain check; a page of another site gets no leave by it.
    for (path, allowed) in [("/", "get, head"), (URL, "get, head, post"), ("/api/test-event", "post")] {
        let reply = raw(api, format!("OPTIONS {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let says = format!("\r\nallow: {allowed}\r\n");
        assert!(reply.status == 204 && reply.head.contains(&says), "{path}: {}", reply.head);
        assert!(!reply.head.contains("access-control"), "{}", reply.head);
    }
    let asked = |path: &str, host: &str| {
        raw(api, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap()
    };
    for path in ["/", URL, "/api/settings", "/api/status", "/api/dead-letters"] {
        assert_eq!(asked(path, "fleet.example").status, 200, "{path}");
        refused(&asked(path, "box17.lan"), 403, "PERMISSION_DENIED", "api.hosts");
        assert_eq!(raw(api, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap().status, 400, "{path}");
    }
    // Through a proxy that sends a Host of its own, from the page as the proxy shows it.
    let post = |origin: &str| {
        let headers = format!("Content-Type: application/json\r\nOrigin: {origin}\r\nSec-Fetch-Site: same-origin\r\n");
        call(api, "POST", "/api/settings", &headers, b"{\"threshold\":0.5}")
    };
    assert_eq!(post("https://fleet.example").status, 200);
    refused(&post("https://evil.example"), 403, "PERMISSION_DENIED", "Origin");
    // Below a path of the proxy's, every file of the page and every call is found.
    let source = |name: &str| {
        let text = fs::read_to_string(format!("{}/src/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let is_comment = |line: &str| line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    for (file, is) in [
        ("/", source("api/page/index.html")),
        ("/uplink.js", source("api/page/uplink.js")),
        ("/uplink.css", source("serve/house.css") + &source("api/page/uplink.css")),
        ("/texts.js", source("api/page/texts.js")),
    ] {
        let text = get(api, file).body;
        assert_eq!(text, is, "{file}: it comes compressed, and is the file without indentation and comments");
        for absolute in ["=\"/", "(\"/", "='/", "('/", "url(/"] {
            assert!(!text.contains(absolute), "{file}: {absolute}");
        }
    }
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
