//! The promise: `sophon-uplink try` finds out which events a server takes, how it lets go of larger ones, and what to set.

use std::process::{Command, Output};

use crate::common::daemon::Home;
use crate::common::program;
use crate::common::sink::{Answer, OK, Request, Sink};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Runs `try` and takes what it says.
fn try_server(words: &[&str]) -> Output {
    Command::new(program("sophon-uplink")).arg("try").args(words).output().unwrap()
}

/// The same as JSON, without watching an idle connection; and the exit code.
fn verdict(url: &str, more: &[&str]) -> (Value, i32) {
    let output = try_server(&[&[url, "--json", "--idle", "0"], more].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (serde_json::from_str(&said).unwrap_or_else(|_| panic!("{output:?}")), output.status.code().unwrap())
}

/// A text that lives as long as the test.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn answer(status: &str, headers: &str, body: &str) -> Answer {
    Answer::Raw(kept(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())))
}

#[test]
fn a_server_that_takes_everything_is_good_and_hears_that_each_event_is_a_test() {
    let server = Sink::start();
    let (found, code) = verdict(&server.url(), &[]);
    assert_eq!((&found["verdict"], code), (&json!("all"), 0), "{found}");
    assert_eq!(found["formats"][0]["proven"], false, "a 2xx proves nothing");
    let requests = server.received();
    assert_eq!(requests.len(), 8, "four sizes in two formats");
    let mut ids: Vec<_> = requests.iter().map(Request::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    for request in requests {
        assert_eq!(request.headers["x-event-test"], "1");
        if request.headers["content-type"] == "application/json" {
            let event = request.json();
            assert_eq!((&event["identity_id"], &event["ext_data"]["test"]), (&json!("test"), &json!(true)));
        }
    }
}

#[test]
fn a_limit_is_found_to_a_few_hundredths_with_whose_it_is() {
    const LIMIT: usize = 1 << 20;
    let server = Sink::with(|request, _| {
        if request.body.len() <= LIMIT { OK } else { answer("413 x", "Server: nginx/1.22.1\r\n", "too large") }
    });
    let (found, code) = verdict(&server.url(), &["--format", "json"]);
    assert_eq!((&found["verdict"], code), (&json!("some"), 3), "{found}");
    let json_ladder = &found["formats"][0];
    let bytes = |key: &str| json_ladder[key].as_u64().unwrap();
    assert!(bytes("takes_body_bytes") <= LIMIT as u64 && bytes("refuses_body_bytes") > LIMIT as u64, "{found}");
    assert!(bytes("refuses_body_bytes") - bytes("takes_body_bytes") < LIMIT as u64 / 25, "{found}");
    assert_eq!(json_ladder["status"], 413);
    let likely = json!([{"server": "nginx", "setting": "client_max_body_size 32m;", "is_named": true}]);
    assert_eq!(json_ladder["likely"], likely, "{found}");
    let words = String::from_utf8(try_server(&[&server.url(), "--format", "json", "--idle", "0"]).stdout).unwrap();
    assert!(words.contains("nginx: set client_max_body_size 32m;"), "{words}");
}

/// Says what it has of an event, with pictures cut where the parser's limit is.
fn received(request: &Request, most: usize) -> Answer {
    if request.body.is_empty() {
        return OK; // asked before the body is read
    }
    let event = request.json();
    let picture = |text: &Value| {
        let mut bytes = STANDARD.decode(text.as_str().unwrap()).unwrap();
        bytes.truncate(most);
        json!({"bytes": bytes.len(), "sha256": format!("{:x}", Sha256::digest(&bytes))})
    };
    let pictures = json!({"reg_pic": picture(&event["reg_pic"]), "spot_pic": picture(&event["ext_data"]["spot_pic"])});
    answer("200 OK", "", &json!({ "received": pictures }).to_string())
}

#[test]
fn a_server_that_says_what_it_has_proves_the_pictures_or_shows_which_one_it_lost() {
    let good = Sink::with(|request, _| received(request, usize::MAX));
    let (found, code) = verdict(&good.url(), &["--format", "json"]);
    assert_eq!((&found["formats"][0]["proven"], code), (&json!(true), 0), "{found}");
    let lossy = Sink::with(|request, _| received(request, 500_000));
    let (found, code) = verdict(&lossy.url(), &["--format", "json"]);
    assert_eq!((&found["verdict"], code), (&json!("some"), 3), "{found}");
    let ladder = &found["formats"][0];
    assert_eq!((&ladder["status"], &ladder["error_code"]), (&json!(200), &json!("picture_lost")), "{found}");
    assert!(ladder["why"].as_str().unwrap().contains("it has 500000 of the"), "{found}");
    assert!(ladder["takes_picture_bytes"].as_u64().unwrap() <= 500_000, "{found}");
}

#[test]
fn a_server_that_closes_without_an_answer_is_asked_twice_and_its_limit_found() {
    let server = Sink::with(|request, _| if request.body.len() <= 1 << 20 { OK } else { Answer::Close });
    let (found, code) = verdict(&server.url(), &["--format", "json"]);
    assert_eq!((&found["formats"][0]["error_code"], code), (&json!("closed_without_answer"), 3), "{found}");
    // A server that closes once, by chance, has no limit.
    let clumsy = Sink::with(|_, before| if before == 1 { Answer::Status(503, "") } else { OK });
    let (found, code) = verdict(&clumsy.url(), &["--format", "json"]);
    assert_eq!((&found["verdict"], code), (&json!("all"), 0), "{found}");
}

#[test]
fn what_is_no_receiver_is_said_with_what_to_look_at() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (found, code) = verdict(&format!("http://{nobody}/"), &[]);
    assert_eq!((&found["verdict"], code), (&json!("nothing"), 1), "{found}");
    assert_eq!(found["formats"].as_array().unwrap().len(), 1, "no format changes it: {found}");
    let other = Sink::with(|_, _| Answer::Status(404, ""));
    let (found, code) = verdict(&other.url(), &["--format", "json"]);
    assert_eq!((&found["verdict"], code), (&json!("nothing"), 1), "{found}");
    assert!(found["formats"][0]["why"].as_str().unwrap().contains("check the URL's path"), "{found}");
}

#[test]
fn headers_of_a_config_go_out_only_where_it_is_named() {
    let (home, server) = (Home::new(), Sink::start());
    home.configure(&[], json!({"headers": {"Authorization": "Bearer canary"}}));
    verdict(&server.url(), &["--format", "json"]);
    assert!(server.take().iter().all(|request| !request.headers.contains_key("authorization")));
    verdict(&server.url(), &["--format", "json", "--config", home.config().to_str().unwrap()]);
    assert!(server.take().iter().all(|request| request.headers["authorization"] == "Bearer canary"));
}

#[test]
fn a_wrong_command_line_is_told_what_is_wrong() {
    for (words, said) in [
        (&[][..], "the URL of a server is missing"),
        (&["ftp://a/"], "is no URL of a server"),
        (&["http://a/", "--format", "xml"], "neither json nor form-data"),
        (&["http://a/", "--idle", "long"], "no number of seconds"),
        (&["http://a/", "http://b/"], "there is no command"),
    ] {
        let output = try_server(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(said), "{words:?}: {error}");
    }
}

#[test]
fn the_time_after_which_a_server_closes_an_idle_connection_is_seen() {
    let closing = Sink::with(|_, _| answer("200 OK", "Connection: close\r\n", ""));
    let words = String::from_utf8(try_server(&[&closing.url(), "--format", "json"]).stdout).unwrap();
    assert!(words.contains("closes the connection after each answer"), "{words}");
    let keeping = Sink::start();
    let words = String::from_utf8(try_server(&[&keeping.url(), "--format", "json", "--idle", "1"]).stdout).unwrap();
    assert!(words.contains("keeps an idle connection for more than 1 s"), "{words}");
}
