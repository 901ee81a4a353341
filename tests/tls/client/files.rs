//! The promise: certificates and keys are those of the files, as they were when the config was checked.

use super::*;

#[test]
fn a_certificate_file_that_does_not_do_is_a_bad_config_that_names_the_key() {
    let home = Home::new();
    std::fs::write(home.folder.path().join("junk.pem"), "junk").unwrap();
    for (key, tls) in [
        ("tls.ca_file", json!({ "ca_file": "missing.pem" })),
        ("tls.ca_file", json!({ "ca_file": "junk.pem" })),
        ("tls.client_cert_file", json!({ "client_cert_file": "junk.pem", "client_key_file": "junk.pem" })),
    ] {
        let (status, log) = Daemon::start(&home, &[], json!({ "tls": tls })).wait();
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(log.contains(key), "{log}");
    }
}

/// Who the box is, by `ca`: its certificate and its key as files whose names begin with `name`.
pub fn client_files(home: &Home, name: &str, ca: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["box-1".to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let write =
        |end: &str, text: String| std::fs::write(home.folder.path().join(format!("{name}.{end}")), text).unwrap();
    write("ca", ca.pem());
    write("crt", cert.pem());
    write("key", key.serialize_pem());
}

/// The keys of a config for these files.
pub fn files(name: &str) -> Value {
    let [ca, cert, key] = ["ca", "crt", "key"].map(|end| format!("{name}.{end}"));
    json!({ "ca_file": ca, "client_cert_file": cert, "client_key_file": key })
}

#[test]
fn a_destinations_own_certificate_files_stand_in_place_of_the_common_ones() {
    let home = Home::new();
    let (common, own) = (authority("the owner's CA"), authority("the partner's CA"));
    client_files(&home, "common", &common);
    client_files(&home, "own", &own);
    let servers =
        [serve(&common, "localhost", true), serve(&own, "localhost", true), serve(&common, "localhost", false)];
    let urls = servers.each_ref().map(url_of);
    let mut tls = files("common");
    tls["destinations"] = json!({ urls[1].clone(): files("own"), urls[2].clone(): {} });
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    let daemon = Daemon::start(&home, &urls, json!({ "tls": tls }));
    for server in &servers[..2] {
        server.requests.wait("the event", |requests| requests.first().cloned());
    }
    daemon.wait_log("unknown authority"); // nothing of the common files is left where there are others
    let states = daemon.status()["destinations"].as_array().unwrap().iter().map(|told| told["state"].clone()).collect();
    assert_eq!(Value::Array(states), json!(["up", "up", "down"]));
    assert_eq!(daemon.terminate().acknowledged, 2);
    assert!(servers[2].requests.look(Vec::is_empty));
}

#[test]
fn a_destination_that_the_api_takes_away_and_brings_back_has_its_certificate_files_again() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    client_files(&home, "own", &ca);
    let (server, other) = (serve(&ca, "localhost", true), Sink::start());
    let url = url_of(&server);
    let daemon = Daemon::start(
        &home,
        std::slice::from_ref(&url),
        json!({ "tls": { "destinations": { url.clone(): files("own") } } }),
    );
    let change = |urls: &[&str]| {
        let change = json!({ "event_server_url": urls, "content-type": "json" });
        let answer = post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &change);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
    };
    daemon.api(); // it has read the files
    std::fs::rename(home.folder.path().join("own.ca"), home.folder.path().join("aside")).unwrap();
    change(&[&other.url()]); // a file that is not in use need not be there
    daemon.wait_log("not in use, because no report is sent to this URL");
    let checked = Command::new(program("sophon-uplink")).arg("check-config").arg(home.config()).output().unwrap();
    assert!(checked.status.success() && String::from_utf8_lossy(&checked.stderr).contains("not in use"));
    std::fs::rename(home.folder.path().join("aside"), home.folder.path().join("own.ca")).unwrap();
    change(&[&url]);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    server.requests.wait("the event", |requests| requests.first().cloned());
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn certificates_and_keys_are_read_again_at_sighup_and_stay_where_the_new_ones_do_not_do() {
    let home = Home::new();
    let [before, after] = ["the CA before", "the CA after"].map(authority);
    let [old, new] = [&before, &after].map(|ca| serve(ca, "localhost", true));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let mut send = |server: &TlsServer, count: usize| {
        publish(&mut recognizer, &event(b"", b""));
        server.requests.wait("the event", |requests| (requests.len() >= count).then_some(()));
    };
    client_files(&home, "box", &before);
    let daemon = Daemon::start(&home, &[&old, &new].map(url_of), json!({ "tls": files("box") }));
    send(&old, 1);
    daemon.wait_log("unknown authority");

    let broken = [("ca", "tls.ca_file"), ("crt", "tls.client_cert_file"), ("key", "tls.client_key_file")];
    for (count, (end, key)) in broken.into_iter().enumerate() {
        let path = home.folder.path().join(format!("box.{end}"));
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "-----BEGIN torn").unwrap();
        daemon.signal(Signal::SIGHUP);
        let told = || daemon.status()["config"]["problem"].as_str().is_some_and(|problem| problem.contains(key));
        wait_until("the fault in the status", told);
        daemon.wait_log("the config stays as it was");
        send(&old, count + 2);
        std::fs::write(&path, good).unwrap();
    }
    assert!(new.requests.look(Vec::is_empty));

    client_files(&home, "box", &after); // the config is the same to the last byte
    daemon.signal(Signal::SIGHUP);
    new.requests.wait("what waited", |requests| (requests.len() == 4).then_some(()));
    assert_eq!(daemon.status()["config"]["problem"], Value::Null);
    publish(&mut recognizer, &event(b"", b""));
    new.requests.wait("the last event", |requests| (requests.len() == 5).then_some(()));
    let is_down = || daemon.status()["destinations"][0]["state"] == "down";
    wait_until("the old server's end", is_down); // it is of the CA before
    assert_eq!(daemon.terminate().acknowledged, 9);
    assert!(old.requests.look(|requests| requests.len() == 4));
}

/// How often each of some files was opened since it was last asked. The kernel counts: it notes each opening and each closing
/// before the call returns, and two in a row that are equal as one.
struct Openings(OwnedFd, Vec<i32>);

impl Openings {
    fn of(paths: &[PathBuf]) -> Openings {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE;
        let numbers = paths.iter().map(|path| inotify::add_watch(&watch, path, flags).unwrap()).collect();
        Openings(watch, numbers)
    }

    fn count(&mut self) -> Vec<usize> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut counts = vec![0; self.1.len()];
        while let Ok(event) = reader.next() {
            let place = self.1.iter().position(|number| *number == event.wd()).unwrap();
            counts[place] += usize::from(event.events().contains(inotify::ReadFlags::OPEN));
        }
        counts
    }
}

#[test]
fn each_change_of_the_config_reads_a_certificate_file_once() {
    let home = Home::new();
    let [ca, another] = ["the owner's CA", "another CA"].map(authority);
    client_files(&home, "box", &ca);
    client_files(&home, "own", &another);
    let (server, other) = (serve(&ca, "localhost", true), serve(&another, "localhost", true));
    let mut tls = files("box");
    tls["destinations"] = json!({ url_of(&other): files("own") });
    let mut openings = Openings::of(
        &["box.ca", "box.crt", "box.key", "own.ca", "own.crt", "own.key"].map(|name| home.folder.path().join(name)),
    );
    home.configure(&[url_of(&server), url_of(&other)], json!({ "tls": tls.clone() }));
    openings.count(); // as they were written
    let daemon = Daemon::restart(&home);
    daemon.api(); // it has read the files
    assert_eq!(openings.count(), [1; 6], "at the start");
    home.configure(&[url_of(&server), url_of(&other)], json!({ "tls": tls, "threshold": 0.5 }));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    assert_eq!(openings.count(), [1; 6], "at SIGHUP");
    let mut change = |format: &str, urls: &[String]| {
        let change = json!({ "event_server_url": urls, "content-type": format });
        let answer = post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &change);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        openings.count()
    };
    assert_eq!(change("form-data", &[url_of(&server), url_of(&other)]), [1; 6], "through the API");
    assert_eq!(change("form-data", &[url_of(&server)]), [1; 6], "before it is known that one is not in use any more");
    assert_eq!(change("json", &[url_of(&server)]), [1, 1, 1, 0, 0, 0], "what is not in use is not read");
    assert_eq!(change("json", &[url_of(&server), url_of(&other)]), [1; 6], "and what comes into use is");
    assert_eq!(daemon.terminate().acknowledged, 0);
}

#[test]
fn a_certificate_file_that_goes_after_its_check_changes_nothing() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    client_files(&home, "box", &ca);
    let server = serve(&ca, "localhost", true);
    home.configure(&[url_of(&server)], json!({ "tls": files("box") }));
    let checked = CheckedConfig::read(&home.config()).unwrap();
    for end in ["ca", "crt", "key"] {
        std::fs::remove_file(home.folder.path().join(format!("box.{end}"))).unwrap();
    }
    assert!(CheckedConfig::read(&home.config()).is_err());
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let uplink = Uplink::start(Arc::clone(checked.setup())).unwrap();
        uplink.apply(Arc::clone(checked.setup()));
        uplink.read_ring(home.ring()).unwrap();
        let mut tests = uplink.test_clients();
        assert!(trial::send(&tests.remove(0), TestPicture::card(), None).await.is_taken());
        while RingState::of(&home.ring()).unwrap().used > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(server.requests.look(Vec::len), 2);
}
