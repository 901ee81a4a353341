//! The promise: the user that the uplink becomes is given what is the uplink's, and nothing else. What takes root says SKIPPED
//! where there is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::common::closed_port::ClosedPort;
use crate::common::confined::{Box, USER, is_root};
use crate::common::daemon::Home;
use crate::common::{Daemon, Sink, program, publish_many, traced, wait_until};
use serde_json::json;
use sophon_uplink::confine::hand_over;
use sophon_uplink::ring::producer::Producer;

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().uid()
}

#[test]
fn what_is_handed_over_is_the_uplinks_and_nothing_that_a_name_leads_to() {
    if !is_root("what_is_handed_over_is_the_uplinks") {
        return;
    }
    let the_box = Box::new();
    let (root, spool) = (the_box.home.folder.path(), the_box.home.spool());
    let secret = root.join("secret");
    fs::write(&secret, "").unwrap();
    fs::create_dir(spool.join("to")).unwrap();
    fs::create_dir(spool.join("to/1")).unwrap();
    fs::write(spool.join("to/1/1.event"), "").unwrap();
    fs::hard_link(spool.join("to/1/1.event"), spool.join("new/1.event")).unwrap();
    symlink(&secret, spool.join("to/1/link")).unwrap();
    hand_over::spool(&spool, USER).unwrap();
    for path in ["", "to", "to/1", "to/1/1.event", "new"] {
        assert_eq!(owner(&spool.join(path)), USER.id, "{path}");
    }
    assert_eq!((owner(&secret), owner(&spool.join("to/1/link"))), (0, 0));

    // In the user's own folder: what root put there, but no second name of something else.
    let config = root.join("config");
    hand_over::config_folder(&the_box.config(), USER).unwrap();
    fs::write(config.join("key.pem"), "").unwrap();
    fs::hard_link(&secret, config.join("planted")).unwrap();
    symlink(&secret, config.join("link")).unwrap();
    fs::create_dir(config.join("folder")).unwrap();
    let said = hand_over::config_folder(&the_box.config(), USER).unwrap_err();
    assert!(said.contains("with hard links elsewhere: 1;") && !said.contains("chown"), "{said}");
    assert_eq!((owner(&config), owner(&config.join("key.pem"))), (USER.id, USER.id));
    assert_eq!([owner(&secret), owner(&config.join("link")), owner(&config.join("folder"))], [0; 3]);
}

#[test]
fn an_event_for_two_servers_is_handed_over_and_a_second_name_of_something_else_is_not() {
    if !is_root("an_event_for_two_servers_is_handed_over") {
        return;
    }
    let the_box = Box::new();
    let (root, spool) = (the_box.home.folder.path(), the_box.home.spool());
    for folder in ["to", "to/1", "to/2", "dead", "dead/1"] {
        fs::create_dir(spool.join(folder)).unwrap();
    }
    let names = ["new/1.event", "to/1/1.event", "to/2/1.event", "dead/1/0.event"].map(|name| spool.join(name));
    fs::write(&names[0], "").unwrap();
    fs::write(&names[3], "").unwrap();
    names[1..3].iter().for_each(|name| fs::hard_link(&names[0], name).unwrap());
    let secret = root.join("secret");
    fs::write(&secret, "").unwrap();
    fs::hard_link(&secret, spool.join("new/2.event")).unwrap();
    for _each_start in 0..2 {
        let said = hand_over::spool(&spool, USER).unwrap_err();
        assert!(said.contains("with hard links elsewhere: 1;"), "{said}");
        assert_eq!((owner(&secret), owner(&spool)), (0, USER.id));
    }
    fs::remove_file(spool.join("new/2.event")).unwrap();
    fs::write(spool.join("new/3.event"), "").unwrap();
    hand_over::spool(&spool, USER).unwrap();
    the_box.assert_all_the_spool_is(USER);
    hand_over::spool(&spool, hand_over::ROOT).unwrap();
    the_box.assert_all_the_spool_is(hand_over::ROOT);
}

/// It was to be root's again, and the power failed; then the init script names the user once more.
#[test]
fn a_spool_that_was_taken_back_in_part_is_given_whole_again() {
    const TEST: &str = "a_spool_that_was_taken_back_in_part";
    if !is_root(TEST) || !traced::is_possible(TEST) {
        return;
    }
    let the_box = Box::new();
    the_box.configure(&[], json!({}));
    let spool = the_box.home.spool();
    let names = ["new/1.event", "new/2.event"].map(|name| spool.join(name));
    names.iter().for_each(|name| fs::write(name, "").unwrap());
    hand_over::spool(&spool, USER).unwrap();
    let daemon = Daemon::spawn(
        Command::new("strace")
            .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fchownat"])
            .args(["-e", "inject=fchownat:error=EIO:when=3+"]) // the folder's group, a file, and no more
            .arg(program("sophon-uplink"))
            .args(["run", "--config"])
            .arg(the_box.config()),
    );
    daemon.wait_log("stays as it is");
    daemon.terminate();
    assert_eq!(names.iter().filter(|name| owner(name) == 0).count(), 1, "half-way");
    hand_over::spool(&spool, USER).unwrap();
    the_box.assert_all_the_spool_is(USER);
}

/// Looking through it would hold up each start by all that waits.
#[test]
fn a_spool_that_was_handed_over_is_not_looked_through_and_what_cannot_be_read_there_stays_and_is_said() {
    if !is_root("a_spool_that_was_handed_over_is_not_looked_through") {
        return;
    }
    let (the_box, port) = (Box::new(), ClosedPort::new());
    the_box.configure(&[port.url()], json!({}));
    let mut recognizer = Producer::open(&the_box.home.ring(), 1 << 20).unwrap();
    let daemon = the_box.start();
    for number in 1..=3 {
        publish_many(&mut recognizer, 1); // one at a time: each gets a file of its own
        wait_until("events in the spool", || the_box.home.spooled_sequences().len() == number);
    }
    daemon.terminate();
    let roots = the_box.home.spool().join(the_box.home.spooled_files().remove(0));
    chown(&roots, Some(0), Some(0)).unwrap();
    let sink = Sink::on(port.open(), |_, _| crate::common::sink::OK);
    let daemon = the_box.start();
    sink.wait(2);
    daemon.wait_log("cannot be read");
    assert!(daemon.log().contains("Permission denied"), "{}", daemon.log());
    daemon.terminate();
    assert_eq!((owner(&roots), sink.received().len()), (0, 2));
    chown(&roots, Some(USER.id), Some(USER.group)).unwrap();
    let daemon = the_box.start();
    sink.wait(3);
    the_box.home.wait_done();
    daemon.terminate();
}

#[test]
fn root_that_stays_root_goes_on_with_what_a_user_had() {
    if !is_root("root_that_stays_root_goes_on") {
        return;
    }
    let (the_box, sink) = (Box::new(), Sink::start());
    let down = ClosedPort::new();
    the_box.configure(&[down.url()], json!({}));
    let mut recognizer = Producer::open(&the_box.home.ring(), 1 << 20).unwrap();
    let daemon = the_box.start();
    publish_many(&mut recognizer, 2);
    wait_until("events in the spool", || the_box.home.spooled_sequences().len() == 2);
    daemon.terminate();
    the_box.configure(&[sink.url()], json!({}));
    let daemon = Daemon::spawn(&mut the_box.command("run"));
    sink.wait(2);
    let log = daemon.log();
    daemon.terminate();
    assert!(!log.contains("stays as it is"), "{log}");
    the_box.assert_all_the_spool_is(hand_over::ROOT);
}

#[test]
fn a_folder_that_may_be_somebody_elses_stays_and_that_is_said() {
    if !is_root("a_folder_that_may_be_somebody_elses") {
        return;
    }
    let home_folder = Home::new();
    let home = &home_folder;
    let folder = |name: &str, mode: u32, inside: &[&str]| {
        let path = home.folder.path().join(name);
        fs::create_dir(&path).unwrap();
        inside.iter().for_each(|name| fs::create_dir(path.join(name)).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let spool = folder("a spool", 0o700, &["new", "to"]);
    let link = home.folder.path().join("link");
    symlink(&spool, &link).unwrap();
    for (path, why) in [
        (folder("an empty home", 0o700, &[]), "it does not look like a spool"),
        (folder("a home", 0o700, &["new", ".ssh"]), "it does not look like a spool"),
        (folder("a public spool", 0o755, &["new"]), "not private"),
        (link, "directory"),
    ] {
        let said = hand_over::spool(&path, USER).unwrap_err();
        assert!(said.contains(why) && said.contains("chown -R 65528:65527"), "{said}");
        assert_eq!(owner(&path), 0, "{}", path.display());
    }
    assert_eq!(owner(&spool), 0);
    let card = folder("the root of a card", 0o700, &["new", "to", "lost+found"]);
    assert_eq!((hand_over::spool(&card, USER), owner(&card)), (Ok(()), 65528));
    assert!(hand_over::spool(&home.folder.path().join("none"), USER).is_ok(), "the user makes it");
    let etc = folder("etc", 0o755, &[]);
    assert!(hand_over::config_folder(&etc.join("uplink.json"), USER).is_err());
    assert_eq!(owner(&etc), 0);
    // A home, and another user's folder.
    let home = folder("root's home", 0o700, &[".ssh"]);
    let said = hand_over::config_folder(&home.join("uplink.json"), USER).unwrap_err();
    assert!(said.contains("a folder of its own") && !said.contains("chown") && owner(&home) == 0, "{said}");
    let another = folder("another's", 0o700, &[]);
    chown(&another, Some(1234), Some(1234)).unwrap();
    let said = hand_over::config_folder(&another.join("uplink.json"), USER).unwrap_err();
    assert!(said.contains("neither root nor that user") && owner(&another) == 1234, "{said}");
}
