//! Promise: 200 means that the event is kept, once, as it came; anything else means that nothing of it is.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use super::harness::{Server, base64, changed, ends, event, fixture, lines, parts, pictures, program, sha256};

#[test]
fn json_and_form_data_are_kept_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_store(folder.path());
    let (reg, spot) = (fixture("astronaut-reg-60k.jpg"), fixture("hubble-2m.jpg"));
    let ext_data = json!({"spot_pic": base64(&spot), "person_type": 2, "more": {"a": [1, 2]}});
    let mut sent = changed("ext_data", ext_data.clone());
    sent["reg_pic"] = json!(base64(&reg));
    assert!(server.post_json("ring-1", &sent).is_ok());
    let mut form = parts("reg_pic", Some(&base64(&reg)));
    form.last_mut().unwrap().1 = ext_data.to_string();
    assert!(server.post_form("ring-2", &form).is_ok());

    let lines = lines(folder.path());
    for (line, id, format) in [(&lines[0], "ring-1", "json"), (&lines[1], "ring-2", "form-data")] {
        let note = |which: &str, bytes: &[u8]| json!({"file": format!("pictures/{id}-{which}.jpg"), "sha256": sha256(bytes), "bytes": bytes.len()});
        let received_at = line["received_at"].as_str().unwrap();
        assert!(received_at.len() == 24 && received_at.ends_with('Z'), "{received_at}");
        let ext_data = json!({"spot_pic": note("spot", &spot), "person_type": 2, "more": {"a": [1, 2]}});
        let expected = json!({"id": id, "received_at": received_at, "format": format, "identity_id": "1001",
            "identity_name": "韩梅梅", "group_name": "staff", "reg_pic": note("reg", &reg), "timestamp": 1_700_000_000,
            "score": 0.93, "ext_data": ext_data});
        assert_eq!(*line, expected);
        for (which, picture) in [("reg", &reg), ("spot", &spot)] {
            let file = folder.path().join(format!("pictures/{id}-{which}.jpg"));
            assert_eq!(fs::read(&file).unwrap(), *picture);
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(server.get(&format!("/api/events/{id}/{which}_pic")).body, *picture);
        }
    }
    assert_eq!(pictures(folder.path()).len(), 4, "and nothing beside them");
    assert_eq!(server.events()["events"], json!([lines[1], lines[0]]), "the newest first");
}

#[test]
fn no_picture_stays_an_empty_string() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_store(folder.path());
    assert!(server.post_json("a", &changed("ext_data/spot_pic", json!(""))).is_ok());
    let line = &lines(folder.path())[0];
    assert_eq!((&line["reg_pic"], &line["ext_data"]["spot_pic"]), (&json!(""), &json!("")));
    assert!(pictures(folder.path()).is_empty());
    assert_eq!(server.get("/api/events/a/reg_pic").status, 404);
}

#[test]
fn in_memory_pictures_are_served_too() {
    let server = Server::in_memory();
    let reg = fixture("astronaut-8k.jpg");
    assert!(server.post_json("a", &changed("reg_pic", json!(base64(&reg)))).is_ok());
    let answer = server.get("/api/events/a/reg_pic");
    assert_eq!(answer.body, reg);
    for header in [
        "content-type: image/jpeg",
        "x-content-type-options: nosniff",
        "content-security-policy: default-src 'none'",
        "cache-control: no-store",
    ] {
        assert!(answer.head.contains(header), "{header} is not in {}", answer.head);
    }
    assert_eq!(server.get("/api/events/a/spot_pic").status, 404);
    assert_eq!(server.events()["events"][0]["reg_pic"]["file"], json!(null));
}

#[test]
fn the_same_id_is_kept_once_and_other_ids_are_other_events() {
    let server = Server::in_memory();
    assert!(server.post_json("a-1", &event()).is_ok());
    assert!(server.post_json("a-1", &changed("score", json!(0.1))).is_ok());
    assert!(server.post_json("a-2", &event()).is_ok());
    assert_eq!(server.counters(), [2, 1, 0, 0]);
    let scores: Vec<_> =
        server.events()["events"].as_array().unwrap().iter().map(|event| event["score"].clone()).collect();
    assert_eq!(scores, [json!(0.93), json!(0.93)], "the first one stays");
}

#[test]
fn an_event_without_an_id_is_known_by_its_body() {
    let server = Server::in_memory();
    let body = event().to_string();
    for _ in 0..2 {
        assert!(server.post("Content-Type: application/json\r\n", body.as_bytes()).is_ok());
    }
    assert_eq!(server.counters(), [1, 1, 0, 0]);
    assert_eq!(server.events()["events"][0]["id"], json!(sha256(body.as_bytes())));
    assert!(server.post("Content-Type: application/json\r\nIdempotency-Key: k\r\n", body.as_bytes()).is_ok());
    assert_eq!(server.events()["events"][0]["id"], "k");
    let differ =
        server.post("Content-Type: application/json\r\nX-Event-Id: a\r\nIdempotency-Key: b\r\n", body.as_bytes());
    assert_eq!(
        differ.errors(),
        ["Idempotency-Key: came \"b\", which differs from X-Event-Id; allowed: the same value"]
    );
}

#[test]
fn an_id_that_is_no_file_name_cannot_leave_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_store(&folder.path().join("store"));
    let reg = fixture("astronaut-8k.jpg");
    for id in ["../../escaped", "/etc/x", "a%2Fb", &"a".repeat(200)] {
        assert!(server.post_json(id, &changed("reg_pic", json!(base64(&reg)))).is_ok());
        let coded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(server.get(&format!("/api/events/{coded}/reg_pic")).body, reg, "{id}");
    }
    assert!(pictures(&folder.path().join("store")).iter().all(|name| name.starts_with("sha256_")));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_restart_remembers_and_cuts_off_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    for id in ["a", "b"] {
        // The server is killed each time: nothing it answered for may depend on a clean end.
        assert!(Server::with_store(folder.path()).post_json(id, &event()).is_ok());
    }
    let mut file = fs::OpenOptions::new().append(true).open(folder.path().join("events.jsonl")).unwrap();
    file.write_all(b"damaged\n{\"id\":\"c\",\"recei").unwrap();
    fs::write(folder.path().join("pictures/c-reg.tmp"), b"\xFF\xD8").unwrap();

    let server = Server::with_store(folder.path());
    assert!(pictures(folder.path()).is_empty(), "the picture that was not finished is gone");
    let text = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    assert!(text.ends_with("\ndamaged\n"), "the torn line is gone: {text}");
    assert_eq!(server.counters()[0], 2);
    for id in ["a", "b", "c"] {
        assert!(server.post_json(id, &event()).is_ok());
    }
    assert_eq!(server.counters(), [3, 2, 0, 0], "the torn event was never answered for, so it is new");
    let text = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    let starts: Vec<&str> = text.lines().map(|line| &line[..7.min(line.len())]).collect();
    assert_eq!(starts, ["{\"id\":\"", "{\"id\":\"", "damaged", "{\"id\":\""], "a damaged line is left for its owner");
}

#[test]
fn when_the_store_is_full_nothing_is_kept_by_halves() {
    let folder = tempfile::tempdir().unwrap();
    // A bound on the size of files stands for a full disk; it is inherited, and so is ignoring its signal.
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --listen 127.0.0.1:0 --store \"$1\"";
    limited.args(["-c", script, env!("CARGO_BIN_EXE_event-receive-server")]).arg(folder.path()).stdout(Stdio::piped());
    let server = Server::of(limited);

    let large = changed("reg_pic", json!(base64(&fixture("astronaut-spot-200k.jpg"))));
    let answer = server.post_json("large", &large);
    assert_eq!(answer.status, 507);
    assert!(answer.errors()[0].starts_with("the event could not be stored, nothing of it was kept: "), "{answer:?}");
    assert!(pictures(folder.path()).is_empty() && lines(folder.path()).is_empty());
    assert_eq!(server.get("/healthz").status, 503);

    let mut kept = 0;
    let refused = loop {
        let answer = server.post_json(&format!("small-{kept}"), &event());
        if answer.status != 200 {
            break answer;
        }
        kept += 1;
        assert!(kept < 1000, "the bound does not work here");
    };
    assert_eq!(
        (refused.status, lines(folder.path()).len()),
        (507, kept),
        "the file ends with the last event that was answered for"
    );
    assert!(kept > 0);
    assert_eq!(server.counters(), [kept as u64, 0, 2, 0]);

    drop(server);
    let server = Server::with_store(folder.path());
    assert!(server.post_json("large", &large).is_ok(), "a refused event can be sent again");
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.counters(), [kept as u64 + 1, 0, 0, 0]);
}

/// Else a power cut takes a new folder away, with every event in it.
#[test]
fn a_new_store_is_flushed_with_the_folder_above_it() {
    let name = "a_new_store_is_flushed_with_the_folder_above_it";
    if !crate::common::traced::is_possible(name) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, record) = (folder.path().join("store"), folder.path().join("record"));
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-qq", "-y", "-e", "trace=fsync", "-o"]).arg(&record);
    traced.arg(env!("CARGO_BIN_EXE_event-receive-server"));
    traced.args(["--listen", "127.0.0.1:0", "--store"]).arg(&store).stdout(Stdio::piped());
    let _server = Server::of(traced);
    for flushed in [store.as_path(), folder.path()] {
        let call = format!("<{}>)", flushed.display());
        crate::common::wait_until(&call, || fs::read_to_string(&record).unwrap().contains(&call));
    }
}

#[test]
fn a_store_has_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::with_store(folder.path());
    let second = ends(program(&["--listen", "127.0.0.1:0", "--store", folder.path().to_str().unwrap()]));
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another event-receive-server is using"));
}
