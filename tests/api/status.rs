//! The promise: what is told of the uplink is so, to people, programs and Prometheus alike, and holds no secret.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use crate::common::daemon::Home;
use crate::common::http::{call, get, post_json};
use crate::common::{Answer, Daemon, Sink, event, program, publish};
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;

const URL: &str = "/SophonFogSys/api/EventServerUrl";

fn ask(home: &Home, more: &[&str]) -> Output {
    Command::new(program("sophon-uplink")).arg("status").arg("--config").arg(home.config()).args(more).output().unwrap()
}

/// Samples by name and labels.
fn metrics(api: SocketAddr) -> HashMap<String, f64> {
    let text = get(api, "/metrics").body;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

#[test]
fn status_metrics_and_the_command_say_the_same_and_it_balances() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url() + "/secret-path?token=secret-query"], json!({ "threshold": 0.5 }));
    let port = daemon.api().port();
    let api = daemon.api();
    // The command finds the address in the config.
    let text = fs::read_to_string(home.config()).unwrap().replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    fs::write(home.config(), text).unwrap();
    for number in 0..10 {
        let mut event = event(b"\xFF\xD8\xFF", b"");
        event.score = if number < 3 { 0.1 } else { 0.9 };
        publish(&mut recognizer, &event);
    }
    sink.wait(7);
    crate::common::wait_until("the count of what was acknowledged", || {
        get(api, "/api/status").json()["shares"]["acknowledged"] == 7
    });
    let status = get(api, "/api/status").json();
    assert_eq!(status["events"], json!({"read": 10, "filtered": 3, "malformed": 0, "sent": 7}));
    let destination = &status["destinations"][0];
    assert_eq!(
        (&destination["state"], &destination["acknowledged"], &destination["last_answer"]),
        (&json!("up"), &json!(7), &json!(200))
    );
    assert_eq!(status["history"]["delivered"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>(), 7);
    assert_eq!(status["health"], json!({"ok": true, "problems": [], "notes": []}));

    let samples = metrics(api);
    let server = format!("{{destination=\"1\",server=\"http://{}\"}}", sink.address);
    for (name, value) in [
        ("sophon_uplink_events_read_total".to_owned(), 10.0),
        ("sophon_uplink_events_filtered_total".into(), 3.0),
        ("sophon_uplink_deliveries_total{outcome=\"acknowledged\"}".into(), 7.0),
        ("sophon_uplink_upload_duration_seconds_count".into(), 7.0),
        ("sophon_uplink_upload_duration_seconds_bucket{le=\"+Inf\"}".into(), 7.0),
        ("sophon_uplink_healthy".into(), 1.0),
        (format!("sophon_uplink_destination_up{server}"), 1.0),
        (format!("sophon_uplink_destination_acknowledged_total{server}"), 7.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name}: {samples:?}");
    }
    let metrics = get(api, "/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(!metrics.body.contains("secret-") && !get(api, "/healthz").body.contains("secret-"));
    assert!(!get(api, "/api/status").body.contains("secret-query"), "a query may hold a token");

    let words = ask(&home, &[]);
    let said = String::from_utf8(words.stdout).unwrap();
    assert!(words.status.success() && said.contains("10 read, 3 below the threshold"), "{said}");
    assert!(said.contains("7 acknowledged") && said.contains("all is well"), "{said}");
    let machine: Value = serde_json::from_slice(&ask(&home, &["--json"]).stdout).unwrap();
    assert_eq!(machine["events"], status["events"]);
    daemon.terminate();
    let gone = ask(&home, &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("is the uplink running?"));
}

#[test]
fn another_program_on_the_port_is_told_apart() {
    let home = Home::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    home.configure(&[], json!({ "api": { "listen": other.local_addr().unwrap().to_string() } }));
    let serving = std::thread::spawn(move || {
        let (mut socket, _) = other.accept().unwrap();
        std::io::Read::read(&mut socket, &mut [0; 4096]).unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").unwrap();
    });
    let answer = ask(&home, &[]);
    serving.join().unwrap();
    assert_eq!(answer.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("another program answers"), "{answer:?}");
}

#[test]
fn health_is_progress() {
    let home = Home::new();
    let sink = Sink::with(|request, _| match request.line.contains("/right") {
        true => crate::common::sink::OK,
        false => Answer::Status(404, ""),
    });
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[format!("http://{}/wrong", sink.address)], json!({}));
    let api = daemon.api();
    assert_eq!(
        (get(api, "/healthz").status, get(api, "/healthz").json()),
        (200, json!({"status": "ok"})),
        "nothing to do is well"
    );
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    crate::common::wait_until("the failure to show", || get(api, "/healthz").status == 503);
    let why = get(api, "/healthz").json();
    let problem = why["problems"][0].as_str().unwrap();
    assert!(
        problem.contains(&sink.address.to_string()) && problem.contains("misconfigured") && !problem.contains("/wrong"),
        "{why}"
    );
    assert_eq!(metrics(api)["sophon_uplink_healthy"], 0.0);
    assert_eq!(get(api, "/api/status").json()["health"]["ok"], false);
    let right = json!({"event_server_url": [format!("http://{}/right", sink.address)], "content-type": "json"});
    assert_eq!(post_json(api, URL, &right).status, 200);
    crate::common::wait_until("progress", || get(api, "/healthz").status == 200);
    daemon.terminate();
}

#[test]
fn off_loopback_the_command_sends_the_token_to_any_address_of_the_box() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({ "api": { "listen": "0.0.0.0:0", "token_file": "api.token" } }));
    let address = format!("127.0.0.1:{}", daemon.api().port());
    let asked = || {
        let output = ask(&home, &["--api", &address]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said, _) = asked();
    assert!(code == Some(0) && said.contains("all is well"), "{said}");
    // Who may not read the token learns who may.
    fs::write(home.folder.path().join("api.token"), "not-the-token-in-force").unwrap();
    let (code, _, fault) = asked();
    assert!(code == Some(1) && fault.contains("run this as the uplink's user or as root"), "{fault}");
    daemon.terminate();
}

#[test]
fn a_test_event_shows_the_answer_and_is_in_no_count() {
    let home = Home::new();
    let good = Sink::start();
    let bad = Sink::with(|_, _| Answer::Raw("HTTP/1.1 422 x\r\nContent-Length: 9\r\n\r\nno thanks"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [good.url(), bad.url(), format!("http://{nobody}/")];
    // A threshold that no test event would pass, if it were asked.
    let daemon = Daemon::start(&home, &urls, json!({ "threshold": 1e9, "content-type": "form-data" }));
    let api = daemon.api();
    let reply = call(api, "POST", "/api/test-event", "", b"");
    let results = reply.json()["results"].clone();
    let outline = |index: usize| {
        let result = &results[index];
        (result["delivered"].as_bool().unwrap(), result["status"].as_u64(), result["answer"].as_str().map(String::from))
    };
    assert_eq!(outline(0), (true, Some(200), Some("ok".into())));
    assert_eq!(outline(1), (false, Some(422), Some("no thanks".into())));
    assert_eq!(outline(2), (false, None, None));
    assert!(results[1]["error"].as_str().unwrap().contains("422"), "{results}");
    assert!(results[2]["error"].as_str().unwrap().contains("refused"), "{results}");
    let request = &good.received()[0];
    assert!(request.headers["content-type"].starts_with("multipart/form-data"));
    assert!(String::from_utf8_lossy(&request.body).contains("\"test\":true"));
    assert_eq!(request.id(), results[0]["event_id"].as_str().unwrap());
    let status = get(api, "/api/status").json();
    assert_eq!((&status["events"]["read"], &status["shares"]["entered"]), (&json!(0), &json!(0)));
    assert_eq!(status["destinations"][2]["state"], "up", "a test says nothing of the lanes");
    assert_eq!(get(api, "/api/test-event").status, 405);
    daemon.terminate();
}

#[test]
fn a_test_event_to_a_server_that_says_nothing_is_answered_within_20_seconds() {
    let home = Home::new();
    let silent = Sink::with(|_, _| Answer::Hang);
    let patient = json!({ "timeouts_ms": { "response": 600_000 } });
    let daemon = Daemon::start(&home, &[silent.url()], patient);
    let results = call(daemon.api(), "POST", "/api/test-event", "", b"").json()["results"].clone();
    assert_eq!(results[0]["error"], "no answer within 20 s", "{results}");
    let took = results[0]["milliseconds"].as_u64().unwrap();
    assert!(took >= 20_000, "the server has 20 s, this one had {took} ms");
    daemon.terminate();
}

/// What came out anywhere must not have the canaries that went in.
#[test]
fn a_secret_comes_out_nowhere() {
    const CANARIES: [&str; 4] = ["canary-header", "canary-bearer", "canary-token-0123456789", "canary-folder"];
    let home = Home::new();
    // A server that says back every header, and refuses.
    let echo = Sink::with(|_, _| {
        Answer::Raw(
            "HTTP/1.1 401 x\r\nContent-Length: 72\r\n\r\n{\"x-key\": \"canary-header\", \"authorization\": \"Bearer canary-bearer\"}     ",
        )
    });
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    fs::write(home.folder.path().join("api.token"), "canary-token-0123456789\n").unwrap();
    let headers = json!({"X-Key": "canary-header", "Authorization": "Bearer canary-bearer"});
    let listen = json!({"listen": "0.0.0.0:0", "token_file": "api.token"});
    let daemon = Daemon::start(&home, &[echo.url()], json!({ "headers": headers, "api": listen }));
    let api = SocketAddr::from(([127, 0, 0, 1], daemon.api().port()));
    let token = "Authorization: Bearer canary-token-0123456789\r\n";
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    daemon.wait_log("not delivered");
    let mut seen = Vec::new();
    let mut keep = |reply: crate::common::http::Reply| seen.push((reply.status, reply.head + &reply.body));
    for path in ["/", URL, "/api/settings", "/api/status", "/metrics", "/healthz", "/nothing"] {
        keep(call(api, "GET", path, token, b""));
        keep(get(api, path));
    }
    keep(call(api, "POST", "/api/test-event", token, b""));
    let json_type = format!("{token}Content-Type: application/json\r\n");
    for body in [
        json!({"event_server_url": [], "content-type": "xml"}),
        json!({"headers": {}}),
        json!({"event_server_url": [echo.url()], "content-type": "json"}),
    ] {
        keep(call(api, "POST", URL, &json_type, body.to_string().as_bytes()));
    }
    // A key's file that is not there: every way in which that is said.
    const HTTPS: &str = "https://127.0.0.1:9/x";
    let files = json!({"client_cert_file": "cert.pem", "client_key_file": "canary-folder/key.pem"});
    let cert = rcgen::generate_simple_self_signed(vec!["a".into()]).unwrap();
    fs::write(home.folder.path().join("cert.pem"), cert.cert.pem()).unwrap();
    for (tls, key) in [
        (files.clone(), "tls.client_key_file: "),
        (json!({"destinations": {HTTPS: files}}), "tls.destinations.\"https://127.0.0.1:9/x\".client_key_file: "),
    ] {
        home.configure(&[echo.url(), HTTPS.into()], json!({ "headers": headers, "api": listen, "tls": tls }));
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        daemon.wait_log(key);
        keep(call(api, "GET", "/api/status", token, b""));
        keep(call(
            api,
            "POST",
            URL,
            &json_type,
            json!({"event_server_url": [], "content-type": "json"}).to_string().as_bytes(),
        ));
    }
    let checked = Command::new(program("sophon-uplink"))
        .arg("check-config")
        .arg(home.folder.path().join("uplink.json.bad"))
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(78));
    seen.push((78, String::from_utf8_lossy(&checked.stderr).into_owned()));
    let stopped = daemon.terminate();
    seen.push((0, stopped.log));
    assert!(
        seen.iter().any(|(status, text)| *status == 200 && text.contains("•••")),
        "the test event's answer was seen"
    );
    for (status, text) in &seen {
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} came out with {status}: {text}");
        }
    }
}

#[test]
fn a_recognizer_that_died_is_told_from_one_that_closed_its_ring() {
    let home = Home::new();
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    let ring = |name: &str| get(api, "/api/status").json()["rings"][0][name].clone();
    let sample = |name: &str| metrics(api)[&format!("sophon_uplink_{name}{{ring=\"{}\"}}", home.ring().display())];
    assert_eq!((ring("recognizer"), ring("last_event_seconds")), (json!("absent"), Value::Null));
    assert_eq!(sample("ring_recognizer_alive"), 0.0);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    crate::common::wait_until("the living recognizer", || ring("recognizer") == "alive");
    assert_eq!(
        (sample("ring_recognizer_alive"), sample("ring_recognizer_died"), sample("ring_removed")),
        (1.0, 0.0, 0.0)
    );
    assert!(sample("ring_last_event_seconds") >= 0.0);
    assert_eq!(ring("state")["consumer"], daemon.pid(), "it is itself the consumer");
    drop(recognizer);
    crate::common::wait_until("its end in order", || ring("recognizer") == "closed");
    daemon.wait_log("the recognizer has closed the ring");
    let mut killed = Command::new(program("fake-recognizer"))
        .args(["--rate", "20", "--ring"])
        .arg(home.ring())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::common::wait_until("another recognizer", || ring("state")["producer"] == killed.id());
    killed.kill().unwrap();
    killed.wait().unwrap();
    crate::common::wait_until("its death", || ring("recognizer") == "died");
    daemon.wait_log("the recognizer has died");
    assert_eq!((sample("ring_recognizer_alive"), sample("ring_recognizer_died")), (0.0, 1.0));
    std::fs::remove_file(home.ring()).unwrap();
    let problem = ring("problem").to_string();
    assert!(!problem.contains("while its recognizer uses it"), "it is dead: {problem}");
    daemon.terminate();
}

#[test]
fn silence_is_a_problem_where_the_config_says_how_long_it_may_be() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "health": { "max_silence_s": 1 } }));
    let api = daemon.api();
    crate::common::wait_until("the silence", || get(api, "/healthz").body.contains("no event came for"));
    crate::common::wait_until("its end", || {
        publish(&mut recognizer, &event(b"", b""));
        get(api, "/healthz").status == 200
    });
    home.configure(&[sink.url()], json!({ "health": { "max_silence_s": -1 } }));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_log("health.max_silence_s");
    daemon.terminate();
}

#[test]
fn health_says_that_half_of_the_events_become_dead_letters() {
    let home = Home::new();
    let sink = Sink::with(|request, _| match request.sequence() {
        number if number <= 8 && number % 2 == 0 => Answer::Status(413, ""),
        _ => crate::common::sink::OK,
    });
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    for number in 1..=8 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(number);
    }
    crate::common::wait_until("the trouble", || get(api, "/healthz").status == 503);
    crate::common::wait_until("all of it", || get(api, "/healthz").body.contains("4 of the last hour's 8 events"));
    let said = get(api, "/healthz").body;
    assert!(said.contains("413") && said.contains("dead resend") && said.contains(&sink.address.to_string()), "{said}");
    // They were an exception.
    for number in 9..=50 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(number);
    }
    crate::common::wait_until("health", || get(api, "/healthz").status == 200);
    daemon.terminate();
}

#[test]
fn one_event_that_could_not_be_stored_is_no_trouble_once_it_is_delivered() {
    let tib = 1_u64 << 40;
    for (max_bytes, min_free_bytes, why) in
        [(1 << 20, 0, "more than the spool may hold"), (1 << 20, tib, "bytes are free")]
    {
        let home = Home::new();
        let closed = crate::common::closed_port::ClosedPort::new();
        let mut recognizer = Producer::open(&home.ring(), 8 << 20).unwrap();
        let spool = json!({ "dir": home.spool(), "max_bytes": max_bytes, "min_free_bytes": min_free_bytes });
        let daemon = Daemon::start(&home, &[closed.url()], json!({ "spool": spool }));
        let api = daemon.api();
        let large = crate::common::picture(1_200_000, 1);
        publish(&mut recognizer, &event(if min_free_bytes == 0 { &large } else { b"" }, b""));
        daemon.wait_log(why);
        if min_free_bytes > 0 {
            crate::common::wait_until("the trouble", || get(api, "/healthz").body.contains(why));
        }
        let sink = Sink::on(closed.open(), |_, _| crate::common::sink::OK);
        sink.wait(1);
        home.wait_done();
        crate::common::wait_until("health", || get(api, "/healthz").status == 200);
        let status = get(api, "/api/status").json();
        assert_eq!((&status["spool"]["is_usable"], &status["spool"]["problem"]), (&json!(true), &Value::Null));
        daemon.terminate();
    }
}
