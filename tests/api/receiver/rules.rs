//! Promise: an event that breaks a rule is answered with 400, and every rule it breaks is named with what came.

use serde_json::{Value, json};

use super::harness::{Server, base64, changed, event, form, parts};

/// Asserts that there is one error, that it begins like this, and that it says what is allowed.
fn assert_named(answer: super::harness::Answer, begins: &str) {
    let errors = answer.errors();
    assert_eq!((answer.status, errors.len()), (400, 1), "{begins}: {errors:?}");
    assert!(errors[0].starts_with(begins) && errors[0].contains("; allowed: "), "{begins}: {}", errors[0]);
    assert!(errors[0].len() < 300, "{}", errors[0]);
}

#[test]
fn each_rule_that_a_json_event_breaks_is_named() {
    let server = Server::in_memory();
    let png = base64(b"\x89PNG\r\n\x1a\n");
    let long = "x".repeat(1 << 20);
    for (key, value, begins) in [
        ("identity_id", json!(1001), "identity_id: came the number 1001"),
        ("identity_id", json!(null), "identity_id: came null"),
        ("identity_name", json!(["a"]), "identity_name: came a list"),
        ("group_name", json!({}), "group_name: came an object"),
        ("reg_pic", json!(null), "reg_pic: came null"),
        ("reg_pic", json!(false), "reg_pic: came false"),
        ("reg_pic", json!("/9j/4A"), "reg_pic: came \"/9j/4A\" (6 characters, not a multiple of 4)"),
        ("reg_pic", json!("/9j/\r\n4A=="), "reg_pic: came \"/9j/\\r\\n4A==\" (a line break at byte 4)"),
        ("reg_pic", json!("_9j_4A=="), "reg_pic: came \"_9j_4A==\" (the URL-safe alphabet"),
        (
            "reg_pic",
            json!("data:image/jpeg;base64,/9j/4A=="),
            "reg_pic: came \"data:image/jpeg;base64,/9j/4A==\" (a data: URL",
        ),
        ("reg_pic", json!(png), "reg_pic: came 8 bytes that are no JPEG: they begin with 89 50 4E 47"),
        ("reg_pic", json!(long), "reg_pic: came 786432 bytes that are no JPEG"),
        ("timestamp", json!("1700000000"), "timestamp: came the string \"1700000000\""),
        ("timestamp", json!(1.5), "timestamp: came the number 1.5"),
        ("timestamp", json!(2_147_483_648_u32), "timestamp: came the number 2147483648"),
        ("timestamp", json!(-2_147_483_649_i64), "timestamp: came the number -2147483649"),
        ("timestamp", json!(1_700_000_000_000_000_u64), "timestamp: came the number 1700000000000000"),
        ("score", json!("0.9"), "score: came the string \"0.9\""),
        ("score", json!(true), "score: came true"),
        ("ext_data", json!([]), "ext_data: came a list"),
        ("ext_data", json!("{}"), "ext_data: came the string \"{}\""),
        ("ext_data/device_ip", json!(1), "ext_data.device_ip: came the number 1"),
        ("ext_data/device_ip", json!(null), "ext_data.device_ip: came null"),
        ("ext_data/spot_pic", json!("!"), "ext_data.spot_pic: came \"!\""),
        ("ext_data/spot_pic", json!(null), "ext_data.spot_pic: came null"),
        ("ext_data/spot_pic", json!(png), "ext_data.spot_pic: came 8 bytes that are no JPEG"),
        ("ext_data/person_type", json!(0), "ext_data.person_type: came the number 0"),
        ("ext_data/person_type", json!(6), "ext_data.person_type: came the number 6"),
        ("ext_data/person_type", json!(1.0), "ext_data.person_type: came the number 1.0"),
        ("ext_data/person_type", json!("1"), "ext_data.person_type: came the string \"1\""),
        ("ext_data/device_type", json!(0), "ext_data.device_type: came the number 0"),
        ("ext_data/device_type", json!("5"), "ext_data.device_type: came the string \"5\""),
        ("ext_data/device_type", json!(""), "ext_data.device_type: came the string \"\""),
    ] {
        assert_named(server.post_json("a", &changed(key, value)), begins);
    }
    assert_eq!(server.counters()[0], 0, "none of them was stored");
    assert!(server.post_json("a", &event()).is_ok(), "and none of them used up the id");
}

#[test]
fn a_key_that_is_missing_or_comes_twice_is_named() {
    let server = Server::in_memory();
    for key in ["identity_id", "identity_name", "group_name", "reg_pic", "timestamp", "score", "ext_data"] {
        let mut event = event();
        event.as_object_mut().unwrap().remove(key);
        assert_named(server.post_json("a", &event), &format!("{key}: missing"));
        assert_named(server.post_form("a", &parts(key, None)), &format!("{key}: missing"));
    }
    let json = |text: String| server.post("Content-Type: application/json\r\n", text.as_bytes());
    let twice = event().to_string().replace("{\"identity_id\"", "{\"score\":1,\"identity_id\"");
    assert_named(json(twice), "score: came 2 times");
    let twice = event().to_string().replace("\"ext_data\":{", "\"ext_data\":{\"person_type\":1,\"person_type\":3");
    assert_named(json(twice), "ext_data.person_type: came more than once");
    let mut form = parts("", None);
    form.push(("score", "1".into()));
    assert_named(server.post_form("a", &form), "score: came 2 times");
}

#[test]
fn each_rule_that_a_form_breaks_is_named() {
    let server = Server::in_memory();
    for (key, value, begins) in [
        ("reg_pic", "no base64", "reg_pic: came \"no base64\""),
        ("timestamp", "", "timestamp: came the text \"\""),
        ("timestamp", "now", "timestamp: came the text \"now\""),
        ("timestamp", "4000000000", "timestamp: came the text \"4000000000\""),
        ("score", "high", "score: came the text \"high\""),
        ("score", "NaN", "score: came the text \"NaN\""),
        ("score", "inf", "score: came the text \"inf\""),
        ("score", "1e999", "score: came the text \"1e999\""),
        ("ext_data", "", "ext_data: came the text \"\""),
        ("ext_data", "person_type=1", "ext_data: came the text \"person_type=1\""),
        ("ext_data", "[]", "ext_data: came the text \"[]\""),
        ("ext_data", "{\"person_type\":9}", "ext_data.person_type: came the number 9"),
        ("ext_data", "{\"device_type\":1}", "ext_data.device_type: came the number 1"),
    ] {
        assert_named(server.post_form("a", &parts(key, Some(value))), begins);
    }
    let headers = "Content-Type: multipart/form-data; boundary=between\r\n";
    let latin1 = [form(&[("identity_name", "x".into())]).as_slice(), b""].concat();
    let latin1: Vec<u8> = latin1.iter().map(|byte| if *byte == b'x' { 0xE9 } else { *byte }).collect();
    let errors = server.post(headers, &latin1).errors();
    assert_eq!(errors, ["identity_name: came 1 bytes that are not UTF-8 from byte 0 on"]);
    let picture = [
        b"--between\r\nContent-Disposition: form-data; name=\"reg_pic\"\r\n\r\n".as_slice(),
        b"\xFF\xD8\xFF\xE0",
        b"\r\n--between--",
    ]
    .concat();
    assert!(server.post(headers, &picture).errors()[0].ends_with("a picture is sent as base64 text"));
    let cut = form(&parts("", None));
    assert!(
        server.post(headers, &cut[..cut.len() / 2]).errors()[0].starts_with("body: came broken multipart/form-data")
    );
}

#[test]
fn all_faults_of_an_event_are_named_at_once() {
    let server = Server::in_memory();
    let bad = json!({"identity_id": 7, "group_name": "g", "reg_pic": "?", "score": null,
                     "ext_data": {"person_type": 9, "device_type": 9, "device_ip": 9, "spot_pic": 9}});
    let answer = server.post("Content-Type: application/json\r\nX-Event-Id: a b\r\n", bad.to_string().as_bytes());
    let errors = answer.errors();
    let keys: Vec<&str> = errors.iter().map(|error| error.split(':').next().unwrap()).collect();
    let expected = [
        "X-Event-Id",
        "identity_id",
        "identity_name",
        "reg_pic",
        "timestamp",
        "score",
        "ext_data.person_type",
        "ext_data.device_type",
        "ext_data.device_ip",
        "ext_data.spot_pic",
    ];
    assert_eq!(keys, expected, "{errors:?}");
    assert_eq!(server.events()["last_rejection"]["errors"], json!(errors));
}

#[test]
fn a_body_that_is_no_event_at_all_is_named() {
    let server = Server::in_memory();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(100_000));
    for (body, begins) in [
        (&b""[..], "body: empty"),
        (b"[]", "body: came no JSON object"),
        (b"{\"score\":1", "body: came no JSON object"),
        (b"{} {}", "body: came no JSON object"),
        (b"\xFF", "body: came 1 bytes that are not UTF-8 from byte 0 on"),
        (deep.as_bytes(), "body: came no JSON object"),
        (many.as_bytes(), "body: came no JSON object: more than 1000 members"),
    ] {
        let errors = server.post("Content-Type: application/json\r\n", body).errors();
        assert!(errors.len() == 1 && errors[0].starts_with(begins), "{begins}: {errors:?}");
    }
    let nested = changed("ext_data/x", json!(1)).to_string().replace("\"x\":1", &format!("\"x\":{deep}"));
    let errors = server.post("Content-Type: application/json\r\n", nested.as_bytes()).errors();
    assert_eq!(errors, ["ext_data.x: came a value that nests deeper than 64; allowed: less"]);
}

#[test]
fn what_the_rules_allow_is_taken_as_it_came() {
    let server = Server::in_memory();
    let taken = |id: &str, text: String| {
        let answer = server
            .post(&format!("Content-Type: application/json;charset=utf-8\r\nX-Event-Id: {id}\r\n"), text.as_bytes());
        assert!(answer.is_ok(), "{text}: {}", answer.text());
        server.events()["events"][0].clone()
    };
    for (number, (key, value)) in [
        ("timestamp", json!(1_700_000_000_123_u64)),
        ("timestamp", json!(i32::MAX)),
        ("timestamp", json!(i32::MIN)),
        ("score", json!(0.5)),
        ("score", json!(-1e300)),
        ("identity_id", json!("")),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(taken(&format!("a-{number}"), changed(key, value.clone()).to_string())[key], value);
    }
    let odd = event()
        .to_string()
        .replace("\"ext_data\":{}", "\"ext_data\":{\"f\":0.10000000000000000555, \"n\":null},\"zzz\":[1],\"é\\n\":2");
    let kept = taken("odd", odd);
    assert_eq!(kept["ext_data"], json!({"f": 0.1, "n": null}));
    assert_eq!(kept["unknown_keys"], json!(["zzz", "\"é\\n\""]));
    assert!(server.get("/api/events?limit=1").text().contains("\"f\":0.10000000000000000555,"), "to the last digit");
    // PHP's json_encode escapes the slashes of base64.
    let escaped = taken("php", changed("reg_pic", json!("/9j/4A==")).to_string().replace("/9j/", "\\/9j\\/"));
    assert_eq!(escaped["reg_pic"]["bytes"], 4);
    let types: Value = json!({"device_ip": "fe80::1", "person_type": 5, "device_type": "4"});
    assert_eq!(taken("types", changed("ext_data", types.clone()).to_string())["ext_data"], types);
}
