//! What a user of Rust would use: reqwest with serde_json and base64 Strings. A peer of scripts/bench.
//!
//! `reqwest-peer URL CA_FILE` sends an event for each line `REG_PIC SPOT_PIC` of its input.

use std::error::Error;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

#[derive(Serialize)]
struct Event {
    identity_id: &'static str,
    identity_name: &'static str,
    group_name: &'static str,
    reg_pic: String,
    timestamp: i64,
    score: f32,
    ext_data: ExtData,
}

#[derive(Serialize)]
struct ExtData {
    device_ip: &'static str,
    person_type: u8,
    device_type: &'static str,
    spot_pic: String,
}

fn picture(path: &str) -> std::io::Result<String> {
    Ok(STANDARD.encode(std::fs::read(path)?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, ca_file] = &arguments[..] else { return Err("reqwest-peer URL CA_FILE".into()) };
    let ca = reqwest::Certificate::from_pem(&std::fs::read(ca_file)?)?;
    let client = reqwest::Client::builder().add_root_certificate(ca).build()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (reg_pic, spot_pic) = line.split_once(' ').ok_or("two paths in a line")?;
        let event = Event {
            identity_id: "100001",
            identity_name: "Ada Lovelace",
            group_name: "staff",
            reg_pic: picture(reg_pic)?,
            timestamp: 1_700_000_000,
            score: 0.9,
            ext_data: ExtData {
                device_ip: "192.168.1.30",
                person_type: 1,
                device_type: "1",
                spot_pic: picture(spot_pic)?,
            },
        };
        client.post(url).json(&event).send().await?.error_for_status()?.bytes().await?;
    }
    Ok(())
}
