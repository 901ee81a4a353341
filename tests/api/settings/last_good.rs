//! The promise: the last good config is kept beside the file, and a bad file is set aside whole.

use std::fs;

use super::*;

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
        daemon.wait_log("the last good config is in force");
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
    daemon.wait_log("the last good config is in force");
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
