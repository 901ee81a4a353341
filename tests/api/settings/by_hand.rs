//! The file is edited by hand, and the API changes it before it is read again.

use std::fs;

use serde_json::json;

use super::on_disk;
use crate::common::Daemon;
use crate::common::daemon::Home;
use crate::common::http::{get, post_json};

/// Secrets that the API hides are completed from the file, which may be newer than what is in force.
#[test]
fn what_was_written_by_hand_beside_the_changed_members_stays() {
    let home = Home::new();
    let monitor =
        json!({"monitor_server_url": "", "content-type": "json", "reported_peroid": 60, "headers": {"X-Key": "old"}});
    let proxy = json!({"url": "http://gate:old@192.0.2.9:1"});
    let destinations = json!({"http://192.0.2.1/": {"order": "strict", "sign": {"key_file": "old"}}});
    fs::write(home.folder.path().join("old"), "a key of 16 bytes or more").unwrap();
    fs::write(home.folder.path().join("new"), "another key of 16 bytes").unwrap();
    let more = json!({"monitor": monitor, "proxy": proxy, "destinations": destinations});
    let daemon = Daemon::start(&home, &[], more);
    let api = daemon.api();
    let mut shown = get(api, "/api/settings").json()["data"]["more"].clone();
    let by_hand = fs::read_to_string(home.config()).unwrap().replace(r#""old""#, r#""new""#).replace(":old@", ":new@");
    fs::write(home.config(), by_hand.replacen('{', r#"{"bounds": {"max_age_s": 60}, "#, 1)).unwrap();

    let call = json!({"monitor_server_url": "", "content-type": "json", "reported_peroid": 30});
    assert_eq!(post_json(api, "/SophonFogSys/api/MonitorServerUrl", &call).status, 200);
    let secrets = || {
        let written = on_disk(&home);
        let sign = &written["destinations"]["http://192.0.2.1/"]["sign"]["key_file"];
        assert_eq!(written["bounds"], json!({"max_age_s": 60}));
        [&written["monitor"]["headers"]["X-Key"], &written["proxy"]["url"], sign]
            .map(|value| value.as_str().unwrap().to_owned())
    };
    let new = ["new", "http://gate:new@192.0.2.9:1", "new"];
    assert_eq!(
        (secrets().as_slice(), &on_disk(&home)["monitor"]["reported_peroid"]),
        (&new.map(String::from)[..], &json!(30))
    );

    // The same through the page, which saw the settings before.
    let old = fs::read_to_string(home.config()).unwrap().replace(r#""new""#, r#""old""#).replace(":new@", ":old@");
    fs::write(home.config(), old).unwrap();
    shown["monitor"]["reported_peroid"] = json!(20);
    shown["proxy"]["no_proxy"] = json!(["*"]);
    shown["destinations"]["http://192.0.2.1/"]["order"] = json!("any");
    shown["bounds"] = json!({"max_age_s": 60});
    assert_eq!(post_json(api, "/api/settings", &json!({ "more": shown })).status, 200);
    assert_eq!(secrets(), ["old", "http://gate:old@192.0.2.9:1", "old"]);
    assert_eq!(on_disk(&home)["monitor"]["reported_peroid"], 20);
    daemon.terminate();
}
