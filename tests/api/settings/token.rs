//! The promise: off loopback nobody uses the API without the token.

use super::*;

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
