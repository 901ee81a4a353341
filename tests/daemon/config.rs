//! The promise: a config does what it says, or every fault of it is named with key, value and what is allowed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::program;
use serde_json::{Value, json};
use sophon_uplink::body::{Format, TimestampUnit};
use sophon_uplink::config::answers::Meaning;
use sophon_uplink::config::{Config, ConfigFault};

fn check(config: Value) -> Result<Config, Vec<ConfigFault>> {
    Config::check(config, Path::new("/etc/box"))
}

#[test]
fn the_example_of_the_contract_is_good_and_says_what_the_defaults_say() {
    let example = json!({
        "rings": ["/dev/shm/sophonfog.events"],
        "event_server_url": [],
        "real_need_reg_pic": true,
        "content-type": "json",
        "threshold": 0.0,
        "timestamp_unit": "s",
        "headers": {},
        "tls": { "ca_file": null, "client_cert_file": null, "client_key_file": null },
        "timeouts_ms": { "connect": 5000, "progress": 10000, "response": 10000 },
        "spool": { "dir": "/system/data/sophon_gate/spool", "max_bytes": 268_435_456u64, "min_free_bytes": 67_108_864u64,
            "group_ms": 2000 },
        "api": { "listen": "127.0.0.1:5555", "token_file": "/system/data/sophon_gate/config/api.token" }
    });
    assert_eq!(check(example).unwrap(), check(json!({ "event_server_url": [] })).unwrap());
}

#[test]
fn what_is_written_is_what_is_in_force() {
    let config = check(json!({
        "rings": ["a", "/b"],
        "event_server_url": ["http://192.168.1.19:9528/RealTimeEvent", "https://[::1]/x?y=z"],
        "real_need_reg_pic": false,
        "content-type": "form-data",
        "threshold": 0.7,
        "timestamp_unit": "ms",
        "headers": { "Authorization": "Bearer secret" },
        "timeouts_ms": { "connect": 100, "progress": 600_000 },
        "tls": { "ca_file": "ca.pem", "destinations": { "https://[::1]/x?y=z": { "client_cert_file": "c", "client_key_file": "k" },
            "https://elsewhere/": {} } },
    }))
    .unwrap();
    assert_eq!(config.rings, [PathBuf::from("/etc/box/a"), "/b".into()]);
    assert_eq!(config.event_server_url[1].to_string(), "https://[::1]/x?…", "a query may hold a token");
    assert_eq!(config.event_server_url[1].target(), "/x?y=z");
    assert_eq!(config.event_server_url[0].authority(), "192.168.1.19:9528");
    assert_eq!((config.body.format, config.body.timestamp_unit), (Format::FormData, TimestampUnit::Milliseconds));
    assert!(!config.body.with_reg_pic && config.threshold.0 == 0.7f32);
    assert_eq!(config.timeouts.connect, Duration::from_millis(100));
    assert_eq!(config.timeouts.response, Duration::from_secs(10));
    assert_eq!(config.tls.ca_file, Some("/etc/box/ca.pem".into()));
    let (url, own) = &config.tls_destinations[0];
    assert_eq!((url, &own.ca_file), (&config.event_server_url[1], &None), "all three files are its own");
    assert_eq!(own.client_key_file, Some("/etc/box/k".into()));
    assert_eq!(
        config.warnings(),
        ["tls.destinations.\"https://elsewhere/\": not in use, because no report is sent to this URL"]
    );
    assert!(!format!("{config:?}").contains("Bearer secret"));
}

#[test]
fn what_holds_for_one_destination_stands_in_place_of_what_holds_for_all() {
    let config = check(json!({
        "event_server_url": ["http://a/", "http://b/"],
        "answers": { "retry": [409, "5xx"], "refuse": ["4xx", 503], "accept": [404] },
        "destinations": { "HTTP://B:80": { "answers": {}, "accept_body": { "/code": 0 } }, "http://c/": {} },
    }))
    .unwrap();
    let [of_a, of_b] = [0, 1].map(|index| config.options_of(&config.event_server_url[index]));
    let meanings = [404, 409, 410, 500, 503, 200].map(|status| of_a.answers.as_ref().unwrap().meaning(status));
    let [accept, retry, refuse] = [Meaning::Accept, Meaning::Retry, Meaning::Refuse].map(Some);
    assert_eq!(meanings, [accept, retry, refuse, retry, refuse, None], "a single status goes before its class");
    assert_eq!(of_b.answers.unwrap().meaning(409), None);
    assert!(of_a.accept_body.is_none() && of_b.accept_body.unwrap().check(b"{\"code\":0}").is_ok());
    assert_eq!(config.warnings().len(), 1, "http://c/ is not in use");
}

#[test]
fn every_fault_names_its_key() {
    let with = |key: &str, value: Value| json!({ "event_server_url": [], key: value });
    let url = |url: &str| json!({ "event_server_url": [url] });
    let tls = |tls: Value| json!({ "event_server_url": [], "tls": tls });
    for (key, config) in [
        ("event_server_url", json!({})),
        ("event_server_url", json!({ "event_server_url": "http://a/" })),
        ("event_server_url[0]", json!({ "event_server_url": [5] })),
        ("event_server_url[1]", json!({ "event_server_url": ["http://a/", "http://a/"] })),
        ("event_server_url[0]", url("ftp://a/")),
        ("event_server_url[0]", url("a/b")),
        ("event_server_url[0]", url("http:///x")),
        ("event_server_url[0]", url("http://a:0/")),
        ("event_server_url[0]", url("http://a:/")),
        ("event_server_url[0]", url("http://a:70000/")),
        ("event_server_url[0]", url("http://u:p@a/")),
        ("event_server_url[0]", url("http://a/#f")),
        ("event_server_url[0]", url("http://a b/")),
        ("event_server_url[0]", url("http://a/\r\nx")),
        ("event_server_url[0]", url("http://e\u{301}.example/")),
        ("event_server_url[0]", url("http://a/,http://b/")),
        ("event_server_url[1]", json!({ "event_server_url": ["http://a/x", "HTTP://A:080/x"] })),
        ("event_server_url[0]", url("http://169.254.169.254/")),
        ("event_server_url[0]", url("http://0xA9.254.169.254/")),
        ("event_server_url[0]", url("http://169.254.43518/")),
        ("event_server_url[0]", url("http://0xa9fea9fe/")),
        ("event_server_url[0]", url("http://0251.0376.0251.0376/")),
        ("event_server_url[0]", url("http://2852039166./")),
        ("event_server_url[0]", url("http://[fe80::1]/")),
        ("event_server_url[0]", url("http://[::ffff:a9fe:a9fe]/")),
        ("event_server_url[0]", url("http://[64:ff9b::a9fe:a9fe]/")),
        ("event_server_url[0]", url("http://[fd00:ec2::254]/")),
        ("event_server_url[0]", url("http://[2002:a9fe:a9fe::]/")),
        ("event_server_url[0]", url("http://[64:ff9b:1::a9fe:a9fe]/")),
        ("event_server_url[0]", url("http://168.63.129.16/")),
        ("event_server_url[0]", url("http://METADATA.google.internal./")),
        ("rings", json!({ "event_server_url": [], "rings": [] })),
        ("rings[0]", json!({ "event_server_url": [], "rings": [""] })),
        ("real_need_reg_pic", json!({ "event_server_url": [], "real_need_reg_pic": 1 })),
        ("content-type", json!({ "event_server_url": [], "content-type": "xml" })),
        ("timestamp_unit", json!({ "event_server_url": [], "timestamp_unit": 1 })),
        ("threshold", json!({ "event_server_url": [], "threshold": "0.5" })),
        ("threshold", json!({ "event_server_url": [], "threshold": 1e300 })),
        ("headers", json!({ "event_server_url": [], "headers": [] })),
        ("headers.Content-Length", json!({ "event_server_url": [], "headers": { "Content-Length": "1" } })),
        ("headers.X", json!({ "event_server_url": [], "headers": { "X": "a\nb" } })),
        ("tls", json!({ "event_server_url": [], "tls": null })),
        ("tls.verify", tls(json!({ "verify": false }))),
        ("tls.insecure", tls(json!({ "insecure": true }))),
        ("tls.min_version", tls(json!({ "min_version": "1.0" }))),
        ("tls.ciphers", tls(json!({ "ciphers": "ALL" }))),
        ("tls.destinations", tls(json!({ "destinations": ["https://a/"] }))),
        ("tls.destinations[0]", tls(json!({ "destinations": { "a": {} } }))),
        ("tls.destinations[0]", tls(json!({ "destinations": { "http://a/": {} } }))),
        ("tls.destinations[0]", tls(json!({ "destinations": { "https://u:p@a/": {} } }))),
        ("tls.destinations[1]", tls(json!({ "destinations": { "https://a/": {}, "HTTPS://A/": {} } }))),
        ("tls.destinations.\"https://a/\"", tls(json!({ "destinations": { "https://a/": null } }))),
        (
            "tls.destinations.\"https://a/\".verify",
            tls(json!({ "destinations": { "https://a/": { "verify": false } } })),
        ),
        ("tls.destinations.\"https://a/\".ca_file", tls(json!({ "destinations": { "https://a/": { "ca_file": 5 } } }))),
        (
            "tls.destinations.\"https://a/?…\".client_cert_file",
            tls(json!({ "destinations": { "https://a/?key=secret": { "client_key_file": "k" } } })),
        ),
        ("tls.client_cert_file", json!({ "event_server_url": [], "tls": { "client_cert_file": "a" } })),
        ("timeouts_ms.connect", json!({ "event_server_url": [], "timeouts_ms": { "connect": 0 } })),
        ("timeouts_ms.response", json!({ "event_server_url": [], "timeouts_ms": { "response": 1.5 } })),
        ("spool.max_bytes", json!({ "event_server_url": [], "spool": { "max_bytes": -1 } })),
        ("spool.dir", json!({ "event_server_url": [], "spool": { "dir": 5 } })),
        ("api.listen", json!({ "event_server_url": [], "api": { "listen": "localhost" } })),
        ("api.hosts", json!({ "event_server_url": [], "api": { "hosts": "box" } })),
        ("api.hosts[0]", json!({ "event_server_url": [], "api": { "hosts": ["http://box"] } })),
        ("api.hosts[0]", json!({ "event_server_url": [], "api": { "hosts": ["box:5555"] } })),
        ("api.hosts[0]", json!({ "event_server_url": [], "api": { "hosts": ["*.example"] } })),
        ("api.hosts[1]", json!({ "event_server_url": [], "api": { "hosts": ["box", "BOX."] } })),
        ("ext_data", with("ext_data", json!([]))),
        ("ext_data.spot_pic", with("ext_data", json!({ "spot_pic": "x" }))),
        ("ext_data.person_type", with("ext_data", json!({ "person_type": 1 }))),
        ("ext_data.device_ip", with("ext_data", json!({ "device_ip": 1 }))),
        ("ext_data.\"\"", with("ext_data", json!({ "": 1 }))),
        ("ext_data.site", with("ext_data", json!({ "site": { "a": ["${home}"] } }))),
        ("ext_data.site", with("ext_data", json!({ "site": "x".repeat(4096) }))),
        ("box.serial_file", with("ext_data", json!({ "dev_sno": "${serial}" }))),
        ("box.serial", with("box", json!({ "serial": 7 }))),
        ("top.score", with("top", json!({ "score": 1 }))),
        ("top.a\"b", with("top", json!({ "a\"b": 1 }))),
        ("answers", with("answers", json!([409]))),
        ("answers.retry[0]", with("answers", json!({ "retry": [199] }))),
        ("answers.retry[1]", with("answers", json!({ "retry": [409, "6xx"] }))),
        ("answers.retry[1]", with("answers", json!({ "retry": [409, 409] }))),
        ("answers.refuse", with("answers", json!({ "accept": [409], "refuse": [409] }))),
        ("answers.ignore", with("answers", json!({ "ignore": [409] }))),
        ("accept_body", with("accept_body", json!("code"))),
        ("accept_body.code", with("accept_body", json!({ "code": 0 }))),
        ("destinations[0]", with("destinations", json!({ "a": {} }))),
        (
            "destinations.\"http://a/\".answers.retry[0]",
            with("destinations", json!({ "http://a/": { "answers": { "retry": [1] } } })),
        ),
        ("destinations.\"http://a/\".threshold", with("destinations", json!({ "http://a/": { "threshold": 1 } }))),
        ("sign", with("sign", json!("k"))),
        ("sign.key_file", with("sign", json!({}))),
        ("sign.header", with("sign", json!({ "key_file": "k", "header": "Content-Length" }))),
        ("sign.scheme", with("sign", json!({ "key_file": "k", "scheme": "md5" }))),
        ("proxy", with("proxy", json!("http://a:1"))),
        ("proxy.url", with("proxy", json!({}))),
        ("proxy.url", with("proxy", json!({ "url": "https://a:1" }))),
        ("proxy.url", with("proxy", json!({ "url": "http://a:1/path" }))),
        ("proxy.no_proxy[1]", with("proxy", json!({ "url": "http://a:1", "no_proxy": ["b", "10.0.0.0/33"] }))),
        ("proxy.no_proxy[0]", with("proxy", json!({ "url": "http://a:1", "no_proxy": ["http://b/"] }))),
        ("proxy.user", with("proxy", json!({ "url": "http://a:1", "user": "u" }))),
        ("headers.Proxy-Authorization", with("headers", json!({ "Proxy-Authorization": "x" }))),
        ("treshold", json!({ "event_server_url": [], "treshold": 0.5 })),
        ("the file", json!([])),
    ] {
        let faults = check(config.clone()).expect_err(&config.to_string());
        assert_eq!(faults.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), [key], "{config}: {faults:?}");
        assert!(!faults[0].allowed.is_empty());
    }
}

/// Found by fuzzing.
#[test]
fn a_key_that_is_no_plain_word_is_quoted_and_no_fault_looks_like_another_line() {
    for (key, shown) in [
        ("", "\"\""),
        ("a b", "\"a b\""),
        ("x\nWARN all is well", "\"x\\nWARN all is well\""),
        ("\u{9b}31m", "\"\u{fffd}31m\""),
    ] {
        let faults = check(json!({ "event_server_url": [], key: 1 })).unwrap_err();
        assert_eq!(faults[0].key, shown);
        let faults = check(json!({ "event_server_url": [], "tls": { key: 1 } })).unwrap_err();
        assert_eq!(faults[0].key, format!("tls.{shown}"));
    }
    let faults =
        check(json!({ "event_server_url": [], "threshold": "\u{7f}\u{9b}31m", "k".repeat(5000): 1 })).unwrap_err();
    let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert!(said.iter().all(|said| said.len() < 500 && !said.contains(char::is_control)), "{said:?}");
}

#[test]
fn no_fault_shows_a_secret() {
    for config in [
        json!({ "event_server_url": ["http://user:hunter2@a/", 5] }),
        json!({ "event_server_url": "http://user:hunter2@a/" }),
        json!({ "event_server_url": [{ "url": "hunter2" }] }),
        json!({ "event_server_url": ["ftp://a/?token=hunter2"] }),
        json!({ "event_server_url": [], "tls": { "destinations": { "https://user:hunter2@a/": {}, "https://a/?k=hunter2": 5 } } }),
        json!({ "event_server_url": [], "headers": "Authorization: hunter2" }),
        json!({ "event_server_url": [], "headers": ["hunter2"] }),
        json!({ "event_server_url": [], "proxy": "http://u:hunter2@a:1" }),
        json!({ "event_server_url": [], "proxy": { "url": "https://u:hunter2@a:1" } }),
        json!({ "event_server_url": [], "headers": { "Authorization": 5, "X-Key": "hunter2\n", "Host": "hunter2" } }),
        json!({ "event_server_url": [], "headers": { "Authorization: Bearer hunter2": "" } }),
        json!({ "event_server_url": [], "proxy": { "url": "http://a:1", "no_proxy": "http://u:hunter2@a:1" } }),
        json!({ "event_server_url": [], "proxy": { "url": "http://a:1", "no_proxy": ["u:hunter2@a", ["hunter2"]] } }),
        json!({ "event_server_url": [], "destinations": "http://a/?token=hunter2" }),
        json!({ "event_server_url": [], "destinations": { "http://a/": "http://a/?token=hunter2" } }),
        json!({ "event_server_url": [], "destinations": { "http://a/": { "standby": "http://a/?token=hunter2" } } }),
        json!({ "event_server_url": [], "destinations": { "http://a/": { "standby": ["ftp://a/?token=hunter2"] } } }),
        json!({ "event_server_url": [], "destinations": { "http://a/": { "sign": "hunter2" } } }),
        json!({ "event_server_url": [], "sign": ["hunter2"] }),
        json!({ "event_server_url": [], "tls": "https://a/?token=hunter2" }),
        json!({ "event_server_url": [], "tls": { "destinations": ["https://a/?token=hunter2"] } }),
        json!({ "event_server_url": [], "tls": { "destinations": { "https://a/": "https://a/?token=hunter2" } } }),
        json!({ "event_server_url": [], "history": "http://a/?token=hunter2", "monitor": ["http://a/?token=hunter2"] }),
    ] {
        let faults = check(config).unwrap_err();
        let text: String = faults.iter().map(ConfigFault::to_string).collect();
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn credentials_in_a_url_are_pointed_to_the_headers() {
    let faults = check(json!({ "event_server_url": ["http://u:p@a/"] })).unwrap_err();
    assert!(faults[0].allowed.contains("headers.Authorization"), "{faults:?}");
}

#[test]
fn a_query_without_a_path_gets_one() {
    let config = check(json!({ "event_server_url": ["http://a?token=x"] })).unwrap();
    assert_eq!(config.event_server_url[0].target(), "/?token=x");
}

/// The ranges that docs/operators.md gives: the ends are taken, and what is beyond them is not.
#[test]
fn every_range_ends_where_the_operators_page_says() {
    let list = |count: usize| json!((0..count).map(|number| format!("http://{number}.example/")).collect::<Vec<_>>());
    let integer = |value: u64| json!(value);
    for (section, key, good, bad) in [
        ("", "rings", vec![list(1), list(16)], vec![list(0), list(17)]),
        ("", "event_server_url", vec![list(0), list(16)], vec![list(17)]),
        ("timeouts_ms", "connect", vec![integer(100), integer(600_000)], vec![integer(99), integer(600_001)]),
        ("timeouts_ms", "progress", vec![integer(100), integer(600_000)], vec![integer(99), integer(600_001)]),
        ("timeouts_ms", "response", vec![integer(100), integer(600_000)], vec![integer(99), integer(600_001)]),
        ("timeouts_ms", "connection_age", vec![integer(100), integer(600_000)], vec![integer(99), integer(600_001)]),
        (
            "spool",
            "max_bytes",
            vec![integer(1 << 20), integer(1 << 40)],
            vec![integer((1 << 20) - 1), integer((1 << 40) + 1)],
        ),
        ("spool", "min_free_bytes", vec![integer(0), integer(1 << 40)], vec![integer((1 << 40) + 1)]),
        ("spool", "group_ms", vec![integer(0), integer(60_000)], vec![integer(60_001)]),
    ] {
        let config = |value: &Value| {
            let mut config = json!({ "event_server_url": [] });
            match section {
                "" => config[key] = value.clone(),
                _ => config[section][key] = value.clone(),
            }
            check(config)
        };
        for value in &good {
            assert!(config(value).is_ok(), "{key}: {value}");
        }
        for value in &bad {
            assert!(config(value).is_err(), "{key}: {value}");
        }
    }
}

/// An object in an object for each part of a key such as `tls.ca_file`; `"URL"` stands for a URL.
fn written(key: &str, value: Value) -> Value {
    let mut parts: Vec<_> = key.split('.').map(|part| part.replace("\"URL\"", "http://a/")).collect();
    let innermost = parts.pop().unwrap();
    parts.into_iter().rev().fold(json!({ innermost: value }), |inner, part| json!({ part: inner }))
}

#[test]
fn every_key_that_the_operators_page_has_is_one_of_the_config() {
    let is_known = |key: &str| {
        let faults = check(written(key, json!(true))).unwrap_err();
        !faults.iter().any(|fault| fault.allowed.contains("is not known"))
    };
    assert!(!is_known("nothing") && !is_known("tls.nothing"));
    let rows = include_str!("../../docs/operators.md").lines().filter(|line| line.starts_with("| `"));
    let keys: Vec<_> = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    assert!(keys.len() > 40, "{keys:?}");
    let unknown: Vec<_> = keys.iter().filter(|key| !is_known(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn check_config_names_every_fault_and_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json");
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(program("sophon-uplink")).arg("check-config").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(r#"{"event_server_url": ["http://a/"]}"#).0, Some(0));
    let (code, text) = run(r#"{"event_server_url": ["x"], "threshold": true, "foo": 1}"#);
    assert_eq!(code, Some(78));
    for expected in ["3 faults", "event_server_url[0]: \"x\"", "threshold: true", "foo: "] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(run("{").1.contains("not JSON"));
    let missing = Command::new(program("sophon-uplink")).args(["check-config", "/nowhere.json"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
}

#[test]
fn a_key_that_is_there_twice_is_a_fault_at_any_depth_and_a_byte_order_mark_is_none() {
    let faults = |text: &[u8]| match Config::of_text(text, Path::new("/etc/box/c.json")) {
        Ok(_) => vec![],
        Err(error) => error.faults,
    };
    let twice = faults(br#"{"event_server_url": ["http://new/"], "event_server_url": ["http://old/"], "spool": {"dir": "a", "dir": "b"}}"#);
    assert_eq!(twice.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), ["event_server_url", "spool.dir"]);
    let secret = faults(br#"{"event_server_url": [], "headers": {"A: hunter2": "", "A: hunter2": ""}}"#);
    assert!(secret.len() == 2 && !format!("{secret:?}").contains("hunter2"), "{secret:?}");
    assert_eq!(faults(b"\xEF\xBB\xBF{\"event_server_url\": []}\r\n"), []);
    assert_eq!(faults(br#"{"event_server_url": [], "api": {"listen": " 127.0.0.1:5555\n"}}"#), []);
    for (text, said) in [
        (&b"\xFF\xFE{\0}\0"[..], "UTF-16"),
        (b"{\0}\0", "UTF-16"),
        (b"\0\0\0\0", "power cut"),
        (b"{\"a\": \"\xB1\xB1\"}", "not UTF-8"),
    ] {
        assert!(faults(text)[0].allowed.contains(said), "{:?}", faults(text));
    }
}

#[test]
fn wrong_usage_is_said_and_exits_2() {
    for arguments in [&["fly"][..], &[], &["run", "x"], &["ring"], &["check-config"], &["run", "--conf"], &["--json"]] {
        let output = Command::new(program("sophon-uplink")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"));
    }
    for argument in ["--help", "--version"] {
        let output = Command::new(program("sophon-uplink")).arg(argument).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty());
    }
}
