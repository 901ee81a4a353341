//! The promise: the state of the box goes out as its documentation has it, and no report that fails holds up anything.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::http::{get, post_json};
use crate::common::meter::times_decide;
use crate::common::sink::OK;
use crate::common::{Daemon, Request, Sink, wait_until};
use crate::reports::{MONITOR, RING, publish_some};
use serde_json::{Value, json};
use sophon_uplink::config::Config;
use sophon_uplink::deliver::setup::Setup;
use sophon_uplink::monitor::{ReadStatus, Reporter, Sender};
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::status::Status;
use sophon_uplink::uplink::Uplink;

fn monitor(url: &str, period: u64) -> Value {
    json!({ "monitor_server_url": url, "content-type": "json", "reported_peroid": period })
}

#[test]
fn the_state_report_has_what_the_documentation_wants_and_how_the_uplink_fares() {
    let home = Home::new();
    let (sink, down) = (Sink::start(), ClosedPort::new());
    let devices = home.folder.path().join("devices.json");
    let camera = json!({
        "ep_id": "AKOPKKKKK__192.168.1.25", "ep_ip": "192.168.1.25", "ep_status": "online", "ep_type": "1",
        "ep_ext_data": {"sw_version": "1.2", "group_name": "East"}
    });
    std::fs::write(&devices, json!([camera]).to_string()).unwrap();
    let mut monitor = monitor(&sink.url(), 1);
    monitor["headers"] = json!({"X-Key": "k"});
    let config = json!({
        "monitor": monitor, "headers": {"Authorization": "of the events' server"}, "health": {"max_silence_s": 100},
        "box": {"serial": "SN-1", "name": "Gate 东", "dev_sno": "AKOPKKKKK", "sub_devices_file": devices}
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[down.url()], config);
    publish_some(&mut recognizer, 3);
    let find = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        let found = |requests: &[Request]| requests.last().is_some_and(|request| is_so(&request.json()));
        sink.wait_for(what, found).last().unwrap().clone()
    };
    let request = find("a report with a backlog", &|report| report["sophon_uplink"]["backlog"] == 3);
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!((request.headers.get("authorization"), request.headers["x-key"].as_str()), (None, "k"));
    assert!(!request.headers.contains_key("x-event-id"));
    let report = request.json();
    let keys: Vec<_> = report.as_object().unwrap().keys().collect();
    let wanted = [
        "gateway_ip",
        "gateway_name",
        "gateway_status",
        "gateway_sn",
        "dev_sno",
        "gateway_ext_data",
        "sub_devices",
        "sophon_uplink",
    ];
    assert_eq!(keys, wanted);
    let said = ["gateway_ip", "gateway_name", "gateway_status", "gateway_sn", "dev_sno"]
        .map(|key| report[key].as_str().unwrap());
    assert_eq!(said, ["127.0.0.1", "Gate 东", "online", "SN-1", "AKOPKKKKK"]);
    assert_eq!(report["sub_devices"], json!([camera]));
    let ext_data = &report["gateway_ext_data"];
    for key in ["cpu_use", "memory_size", "memory_use", "disk_size", "disk_use"] {
        assert!(ext_data[key].as_f64().is_some_and(|number| number >= 0.0), "{key}: {ext_data}");
    }
    assert_eq!(ext_data["sw_version"], env!("CARGO_PKG_VERSION"));
    let ours = &report["sophon_uplink"];
    assert_eq!(
        (&ours["last_error_code"], &ours["destinations_up"], &ours["dropped"]),
        (&json!("connect_refused"), &json!(0), &json!(0))
    );
    assert_eq!((&ours["rings"][0]["recognizer"], &ours["rings"][0]["published"]), (&json!("alive"), &json!(3)));

    // What is wrong with the cameras' file, or with the box, is said.
    std::fs::write(&devices, r#"[{"ep_id": 1}]"#).unwrap();
    let report = find("a report that names it", &|report| report["gateway_ext_data"]["status"] == "-1").json();
    let said = report["gateway_ext_data"]["status_desc"].as_str().unwrap();
    assert!(said.contains("devices.json: [0].ep_id") && report["sub_devices"] == json!([]), "{said}");
    std::fs::remove_file(&devices).unwrap();
    find("a report without the file", &|report| {
        report["gateway_ext_data"]["status_desc"].as_str().is_some_and(|said| said.contains("No such file"))
    });
    assert_eq!(daemon.status()["monitor"]["last_error"], Value::Null);
    daemon.terminate();
}

#[test]
fn reports_that_nobody_takes_do_not_pile_up_and_the_next_one_is_a_new_one() {
    let home = Home::new();
    let port = ClosedPort::new();
    let daemon = Daemon::start(&home, &[], json!({ "monitor": monitor(&port.url(), 1) }));
    wait_until("several failures", || daemon.status()["monitor"]["last_error_code"] == "connect_refused");
    let then = daemon.status()["uptime_seconds"].as_f64().unwrap();
    std::thread::sleep(Duration::from_secs(3)); // in which three more would come
    let sink = Sink::on(port.open(), |_, _| OK);
    let first = sink.wait(1)[0].json();
    let uptime = first["sophon_uplink"]["uptime_seconds"].as_f64().unwrap();
    assert!(uptime > then, "it speaks of now, after {uptime} s, and not of when the first one failed, after {then} s");
    let requests = sink.wait(3);
    let uptimes: Vec<f64> =
        requests.iter().map(|request| request.json()["sophon_uplink"]["uptime_seconds"].as_f64().unwrap()).collect();
    assert!(uptimes.windows(2).all(|pair| pair[1] > pair[0]), "one a second: {uptimes:?}");
    wait_until("the status says so", || daemon.status()["monitor"]["last_error"].is_null());
    // Without a URL it ends.
    assert_eq!(post_json(daemon.api(), MONITOR, &monitor("", 1)).status, 200);
    assert_eq!(daemon.status()["monitor"], Value::Null);
    daemon.terminate();
}

/// The reporters of a thousand boxes in one process, each with a serial number of its own.
#[test]
fn a_thousand_boxes_report_evenly_over_the_period_and_one_that_dies_is_shown_as_gone() {
    const BOXES: usize = 1000;
    const PERIOD: u64 = 6;
    let server = ReceiveServer::start();
    let home = Home::new();
    let url = format!("http://{}/SophonFogStatus", server.address);
    home.configure(&[], json!({ "monitor": monitor(&url, PERIOD) }));
    let config = |serial: usize| {
        let text = json!({ "event_server_url": [], "box": { "serial": format!("{serial:04}") }, "monitor": monitor(&url, PERIOD) });
        Config::of_text(text.to_string().as_bytes(), &home.config()).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let quiet = json!({ "event_server_url": [], "spool": { "dir": home.spool() } });
        let quiet = Config::of_text(quiet.to_string().as_bytes(), &home.config()).unwrap();
        let uplink = Uplink::start(Arc::new(Setup::read(quiet).unwrap())).unwrap();
        let settings = {
            let setup = Setup::read(config(0)).unwrap();
            setup.of_monitor(setup.config().monitor.as_ref().unwrap())
        };
        let ask = move || {
            let uplink = Rc::clone(&uplink);
            let asked: Pin<Box<dyn Future<Output = Option<Status>>>> =
                Box::pin(async move { Some(uplink.status().await) });
            asked
        };
        let ask: ReadStatus = Rc::new(ask);
        let mut reporters: Vec<Reporter> = (0..BOXES)
            .map(|serial| {
                let config = config(serial);
                let sender = Sender { this_box: config.this_box, spool: home.spool() };
                let reporter = Reporter::default();
                reporter.configure(Some((config.monitor.unwrap(), settings.clone())), sender, Rc::clone(&ask));
                reporter
            })
            .collect();
        let count = |state: &str| server.boxes()["counts"][state].as_u64().unwrap() as usize;
        let nap = || tokio::time::sleep(Duration::from_millis(100));
        while count("good") < BOXES {
            nap().await;
        }
        // When each came last, in the second of the period.
        let mut seconds = [0; PERIOD as usize];
        for one in server.boxes()["boxes"].as_array().unwrap() {
            seconds[one["heard_seconds"].as_u64().unwrap() as usize % seconds.len()] += 1;
        }
        println!("{BOXES} boxes, by the second in which they reported: {seconds:?}");
        let even = BOXES / seconds.len();
        // A machine that is busy makes them late: `src/monitor` asserts the same of the moments themselves.
        let is_even = seconds.iter().all(|count| (even / 3..even * 3).contains(count));
        assert!(is_even || !times_decide(), "{seconds:?}");
        reporters.truncate(BOXES - 10);
        // On a busy machine others are late, too, and gone for a while.
        let dead: BTreeSet<_> = (BOXES - 10..BOXES).map(|serial| format!("{serial:04}")).collect();
        let gone = || -> BTreeSet<String> {
            let boxes = server.boxes();
            let first =
                boxes["boxes"].as_array().unwrap().iter().take(boxes["counts"]["gone"].as_u64().unwrap() as usize);
            first.map(|one| one["box"].as_str().unwrap().to_owned()).collect()
        };
        while gone() != dead {
            nap().await;
        }
        assert_eq!(count("bad"), 0);
    });
}

struct ReceiveServer {
    child: std::process::Child,
    address: std::net::SocketAddr,
}

impl ReceiveServer {
    fn start() -> ReceiveServer {
        let mut command = std::process::Command::new(crate::common::program("event-receive-server"));
        command.args(["--listen", "127.0.0.1:0"]).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().parse().unwrap();
        ReceiveServer { child, address }
    }

    fn boxes(&self) -> Value {
        get(self.address, "/api/boxes").json()
    }
}

impl Drop for ReceiveServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
