//! The other reports: every dialect of events, and the boxes' state.

use serde_json::{Value, json};

use super::harness::{Answer, Server, event, post_request};

fn post(server: &Server, path: &str, headers: &str, body: &Value) -> Answer {
    let headers = format!("Content-Type: application/json\r\n{headers}");
    server.raw(&post_request(path, &headers, body.to_string().as_bytes()))
}

/// JPEG in name, as base64.
const JPEG: &str = "/9j/4AAQ";

fn of_history() -> Value {
    let mut event = event();
    event["ext_data"]["dev_sno"] = json!("AKOPKKKKK");
    event["ext_data"]["grab_fiqa_info"] = json!({"blur": [0.1]});
    event["ext_data"]["box_fiqa_info"] = json!({});
    event
}

#[test]
fn the_history_is_kept_beside_the_realtime_events_and_wants_what_its_dialect_wants() {
    let server = Server::in_memory();
    assert!(post(&server, "/RealTimeEvent", "X-Event-Id: a-1\r\n", &event()).is_ok());
    assert!(post(&server, "/HistoryEvent", "X-Event-Id: a-1-history\r\n", &of_history()).is_ok());
    // One that calls it the same in both reports.
    assert!(post(&server, "/RealTimeEvent", "X-Event-Id: a-2\r\n", &event()).is_ok());
    assert!(post(&server, "/HistoryEvent", "X-Event-Id: a-2\r\n", &of_history()).is_ok());
    assert!(post(&server, "/HistoryEvent", "X-Event-Id: a-2\r\n", &of_history()).is_ok());
    let events = server.events();
    let list = events["events"].as_array().unwrap();
    let kept: Vec<_> = list.iter().map(|event| (event["id"].as_str().unwrap(), event["report"].as_str())).collect();
    let history = Some("history");
    assert_eq!(kept, [("a-2-history", history), ("a-2", None), ("a-1-history", history), ("a-1", None)]);
    assert_eq!(server.counters(), [4, 1, 0, 0]);
    assert!(String::from_utf8_lossy(&server.get("/api/events").body).contains(r#""grab_fiqa_info":{"blur":[0.1]}"#));

    let mut without = of_history();
    without.as_object_mut().unwrap().remove("reg_pic");
    assert!(post(&server, "/HistoryEvent", "X-Event-Id: a-3\r\n", &without).is_ok(), "it may be switched off");
    for key in ["dev_sno", "grab_fiqa_info", "box_fiqa_info"] {
        let mut without = of_history();
        without["ext_data"].as_object_mut().unwrap().remove(key);
        let errors = post(&server, "/HistoryEvent", "", &without).errors();
        assert!(errors.len() == 1 && errors[0].starts_with(&format!("ext_data.{key}: missing")), "{errors:?}");
        assert!(post(&server, "/RealTimeEvent", "", &without).is_ok(), "there it may be missing");
    }
}

#[test]
fn members_of_every_dialect_are_checked_and_kept_and_every_picture_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for server in [Server::in_memory(), Server::with_store(folder.path())] {
        let mut event = of_history();
        event["device_id"] = json!("9d1c");
        event["identity_info"] = json!({"ids": [1]});
        event["whole_scene"] = json!(JPEG);
        event["../x"] = json!(JPEG);
        event["ext_data"]["recognize_face"] = json!(JPEG);
        event["ext_data"]["ep_id"] = json!("AKOPKKKKK__192.168.1.25");
        let answer = post(&server, "/RealTimeEvent", "X-Event-Id: a-1\r\n", &event);
        assert!(answer.is_ok());
        let received: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(received["received"]["recognize_face"]["bytes"], 6);
        let kept = &server.events()["events"][0];
        assert_eq!((&kept["top"]["device_id"], &kept["top"]["identity_info"]), (&json!("9d1c"), &json!({"ids": [1]})));
        assert_eq!(kept["ext_data"]["recognize_face"]["bytes"], 6);
        assert_eq!(kept["unknown_keys"], Value::Null, "{kept}");
        let mut pictures: Vec<(String, String)> = serde_json::from_value(kept["pictures"].clone()).unwrap();
        pictures.sort();
        let named = |place: &str, name: &str| (place.to_owned(), name.to_owned());
        assert_eq!(pictures, [named("ext_data", "recognize_face"), named("top", "../x"), named("top", "whole_scene")]);
        for path in ["ext_data/recognize_face", "top/whole_scene", "top/..%2Fx"] {
            let answer = server.get(&format!("/api/events/a-1/{path}"));
            assert_eq!(
                (answer.status, answer.body.as_slice()),
                (200, b"\xFF\xD8\xFF\xE0\x00\x10".as_slice()),
                "{path}"
            );
        }
        assert_eq!(server.get("/api/events/a-1/top/recognize_face").status, 404);
    }
    let stored = std::fs::read_dir(folder.path().join("pictures")).unwrap().count();
    assert_eq!(stored, 3, "and nothing outside of its folder");

    let server = Server::in_memory();
    for (place, key, value) in [
        (None, "device_id", json!(7)),
        (None, "identity_info", json!("x")),
        (None, "scene", json!("/9j/no base64")),
        (Some("ext_data"), "ep_id", json!({})),
        (Some("ext_data"), "dev_sno", json!(null)),
        (Some("ext_data"), "recognize_face", json!("x")),
        (Some("ext_data"), "grab_fiqa_info", json!([])),
        (Some("ext_data"), "box_fiqa_info", json!("{}")),
    ] {
        let mut event = event();
        match place {
            None => event[key] = value,
            Some(place) => event[place][key] = value,
        }
        let name = place.map_or(key.to_owned(), |place| format!("{place}.{key}"));
        let errors = post(&server, "/RealTimeEvent", "", &event).errors();
        assert!(errors.len() == 1 && errors[0].starts_with(&format!("{name}: came")), "{errors:?}");
    }
    // In a form an object is text, and so is everything else.
    let mut parts = super::harness::parts("", None);
    parts.push(("identity_info", r#"{"ids": [1.50]}"#.into()));
    parts.push(("site", "1.50".into()));
    assert!(server.post_form("form", &parts).is_ok());
    let kept = String::from_utf8(server.get("/api/events").body).unwrap();
    assert!(kept.contains(r#""identity_info":{"ids":[1.50]},"site":"1.50""#), "{kept}");
}

#[test]
fn the_boxes_are_a_page_and_a_list_with_what_is_wrong_first() {
    let server = Server::in_memory();
    let report = |serial: &str, status: &str| {
        json!({
            "gateway_ip": "10.0.0.2", "gateway_name": "East", "gateway_status": "online", "gateway_sn": serial,
            "gateway_ext_data": {"status": status, "cpu_use": 3.25}, "sub_devices": []
        })
    };
    for (serial, status) in [("a", "0"), ("b", "-1"), ("a", "0")] {
        assert_eq!(post(&server, "/SophonFogStatus", "", &report(serial, status)).status, 200);
    }
    let boxes: Value = serde_json::from_slice(&server.get("/api/boxes").body).unwrap();
    let states: Vec<_> =
        boxes["boxes"].as_array().unwrap().iter().map(|one| [&one["box"], &one["state"], &one["reports"]]).collect();
    assert_eq!(json!(states), json!([["b", "bad", 1], ["a", "good", 2]]));
    assert_eq!(boxes["counts"], json!({"gone": 0, "bad": 1, "good": 1}));
    assert_eq!(boxes["boxes"][1]["report"]["gateway_ext_data"]["cpu_use"], 3.25);
    let errors = post(&server, "/SophonFogStatus", "", &json!({"gateway_ip": 7})).errors();
    assert!(errors[0].starts_with("gateway_ip: came the number 7") && errors.len() == 6, "{errors:?}");
    let form = "Content-Type: multipart/form-data; boundary=b\r\n";
    let answer = server.raw(&post_request(
        "/SophonFogStatus",
        form,
        b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n",
    ));
    assert_eq!(answer.status, 415);
    assert_eq!(server.get("/boxes").status, 200);
    assert_eq!(server.get("/HistoryEvent").status, 405);
    assert_eq!(server.counters()[0], 0, "no event");
}
