//! What a recognizer says of an event, the body that the uplink makes of it, and what a receiver must understand: shared by the
//! properties of the body and its fuzzing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde_json::{Map, Value, json};
use sophon_uplink::body::constants::Constants;
use sophon_uplink::body::encoder::Pool;
use sophon_uplink::body::{BodyOptions, EventBody, Format, Sent, Template, TimestampUnit};
use sophon_uplink::event::{Event, Malformed, Place, is_name};
use sophon_uplink::picture::{Lost, PictureSource};
use sophon_uplink::ring::consumer;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::{NewEvent, NewPicture, Producer};

/// The keys of a body, in the contract's order.
pub const KEYS: [&str; 7] = ["identity_id", "identity_name", "group_name", "reg_pic", "timestamp", "score", "ext_data"];

/// Everything of an event, owned.
#[derive(Clone, Debug)]
pub struct EventSpec {
    /// identity_id, identity_name, group_name, group_id, device_ip; none longer than what is cut off.
    pub texts: [Vec<u8>; 5],
    pub ext_json: Vec<u8>,
    pub top_json: Vec<u8>,
    /// Place, name and bytes of each named picture.
    pub pictures: Vec<(u8, Vec<u8>, Vec<u8>)>,
    pub timestamp_ms: i64,
    pub score: f32,
    pub person_type: i32,
    pub device_type: i32,
    pub reg_pic: Vec<u8>,
    pub spot_pic: Vec<u8>,
}

impl EventSpec {
    /// Whether a correct recognizer can have said it.
    pub fn is_well_formed(&self) -> bool {
        let names: Vec<_> = self.pictures.iter().map(|(place, name, _)| (place, name)).collect();
        let is_allowed = |(place, name): &(&u8, &Vec<u8>)| {
            let place = Place::ALL.into_iter().find(|known| known.code() == **place);
            place.is_some_and(|place| is_name(name, place))
        };
        self.score.is_finite()
            && (0..=5).contains(&self.person_type)
            && (-1..=4).contains(&self.device_type)
            && names.iter().all(is_allowed)
            && names.iter().enumerate().all(|(index, name)| !names[..index].contains(name))
    }

    /// The pictures that go out at `place`, in order.
    fn pictures_at(&self, place: Place) -> impl Iterator<Item = (String, String)> {
        let here = self.pictures.iter().filter(move |(at, _, bytes)| *at == place.code() && !bytes.is_empty());
        here.map(|(_, name, bytes)| (text(name), STANDARD.encode(bytes)))
    }

    /// The members at the top that are not the documented ones: name and value, in order. None where top_json is not taken whole.
    fn top(&self) -> Option<Map<String, Value>> {
        let json = String::from_utf8_lossy(&self.top_json);
        let mut top =
            if json.is_empty() { Map::new() } else { serde_json::from_str::<Map<String, Value>>(&json).ok()? };
        let pictures: Vec<_> = self.pictures_at(Place::Top).collect();
        top.retain(|key, _| !KEYS.contains(&key.as_str()) && !pictures.iter().any(|(name, _)| name == key));
        top.extend(pictures.into_iter().map(|(name, text)| (name, text.into())));
        Some(top)
    }

    /// Its ext_json as an object, where the parser takes it whole and as deep as it stands in a body; else only some members may
    /// go out, or none.
    fn ext(&self) -> Option<Map<String, Value>> {
        let text = String::from_utf8_lossy(&self.ext_json);
        let inside = |text| serde_json::from_str::<[Map<String, Value>; 1]>(&format!("[{text}]"));
        if text.is_empty() { Some(Map::new()) } else { inside(text).ok().map(|[members]| members) }
    }

    /// What a receiver of JSON must understand; without ext_data where that is not said whole.
    fn expected(&self, options: BodyOptions) -> (Value, Option<Value>) {
        let [identity_id, identity_name, group_name, group_id, _] = self.texts.each_ref().map(|bytes| text(bytes));
        let seconds = options.timestamp_unit == TimestampUnit::Seconds;
        let top = json!({
            "identity_id": identity_id,
            "identity_name": identity_name,
            "group_name": if group_name.is_empty() { group_id } else { group_name },
            "reg_pic": if options.with_reg_pic { STANDARD.encode(&self.reg_pic) } else { String::new() },
            "timestamp": if seconds { self.timestamp_ms.div_euclid(1000) } else { self.timestamp_ms },
            "score": self.score,
        });
        (top, self.ext().map(|ext| self.expected_ext(ext).into()))
    }

    /// What ext_json says under a key of the table counts where the event says nothing, and only if it is of the table's type.
    fn expected_ext(&self, mut ext: Map<String, Value>) -> Map<String, Value> {
        let is_good = |key: &str, value: &Value| match key {
            "device_ip" => value.is_string(),
            "person_type" => value.as_i64().is_some_and(|kind| (1..=5).contains(&kind)),
            "device_type" => value.as_str().is_some_and(|kind| ["0", "1", "2", "3", "4"].contains(&kind)),
            key => key != "spot_pic",
        };
        let pictures: Vec<_> = self.pictures_at(Place::ExtData).collect();
        ext.retain(|key, value| is_good(key, value) && !pictures.iter().any(|(name, _)| name == key));
        ext.extend(pictures.into_iter().map(|(name, text)| (name, text.into())));
        let device_ip = text(&self.texts[4]);
        if !device_ip.is_empty() {
            ext.insert("device_ip".into(), device_ip.into());
        }
        if self.person_type != 0 {
            ext.insert("person_type".into(), self.person_type.into());
        }
        if self.device_type != -1 {
            ext.insert("device_type".into(), self.device_type.to_string().into());
        }
        if !self.spot_pic.is_empty() {
            ext.insert("spot_pic".into(), STANDARD.encode(&self.spot_pic).into());
        }
        ext
    }

    /// Through a ring, as every event comes: the content type and the body.
    ///
    /// # Errors
    /// What the uplink finds malformed.
    pub fn body(&self, options: BodyOptions) -> Result<(String, Vec<u8>), Malformed> {
        let texts = &self.texts;
        let pictures = self.pictures.iter();
        let pictures: Vec<_> = pictures.map(|(place, name, jpeg)| NewPicture { place: *place, name, jpeg }).collect();
        let event = NewEvent {
            identity_id: &texts[0],
            identity_name: &texts[1],
            group_name: &texts[2],
            group_id: &texts[3],
            device_ip: &texts[4],
            ext_json: &self.ext_json,
            timestamp_ms: self.timestamp_ms,
            score: self.score,
            person_type: self.person_type,
            device_type: self.device_type,
            reg_pic: &self.reg_pic,
            spot_pic: &self.spot_pic,
            top_json: &self.top_json,
            pictures: &pictures,
        };
        let memory = Arc::new(Mapping::on_heap((2 * event.record_len()).next_power_of_two()));
        Producer::attach(Arc::clone(&memory)).publish(&event).unwrap();
        let frame = consumer::attach(Arc::clone(&memory)).0.read().unwrap().unwrap();
        let event = Event::from_record(&memory, &frame, RingId([7; 16]))?;
        Ok(written(&event, memory, options))
    }

    /// Sends its body as `options` say, and looks at it with parsers that are not ours.
    pub fn check_body(&self, options: BodyOptions) {
        let (content_type, body) = match self.body(options) {
            Ok(written) => written,
            Err(malformed) => return assert!(!self.is_well_formed(), "{malformed}"),
        };
        assert!(self.is_well_formed());
        let (expected, ext) = self.expected(options);
        let (parsed, score, timestamp, ext_data) = match content_type.strip_prefix("multipart/form-data") {
            None => {
                assert_eq!(content_type, "application/json");
                let parsed: Value = serde_json::from_slice(&body).unwrap();
                let timestamp = parsed["timestamp"].to_string();
                (parsed.clone(), parsed["score"].as_f64().unwrap() as f32, timestamp, parsed["ext_data"].clone())
            }
            Some(_) => {
                let form = parse_form(&content_type, body);
                let part = |key: &str| form[key].as_str().unwrap().to_owned();
                let ext_data = serde_json::from_str(&part("ext_data")).unwrap();
                (form.clone(), part("score").parse().unwrap(), part("timestamp"), ext_data)
            }
        };
        let keys: Vec<_> = parsed.as_object().unwrap().keys().collect();
        let (documented, further) = keys.split_at(KEYS.len() - 1);
        assert_eq!(documented, &KEYS[..KEYS.len() - 1]);
        let (last, further) = further.split_last().unwrap();
        assert_eq!(*last, KEYS[KEYS.len() - 1]);
        if let Some(top) = self.top() {
            self.check_top(&parsed, further, top, options);
        }
        for key in ["identity_id", "identity_name", "group_name", "reg_pic"] {
            assert_eq!(parsed[key], expected[key]);
        }
        assert_eq!(timestamp, expected["timestamp"].to_string());
        assert_eq!(score.to_bits(), self.score.to_bits());
        let members = ext_data.as_object().unwrap();
        if !self.spot_pic.is_empty() {
            assert_eq!(members.keys().next_back().unwrap(), "spot_pic");
        }
        if let Some(ext) = ext {
            assert_eq!(ext_data, ext);
        }
    }
}

impl EventSpec {
    /// The further members at the top are `top`; a form has texts without quotes, everything else as JSON, and names as browsers
    /// write them.
    fn check_top(&self, parsed: &Value, further: &[&String], top: Map<String, Value>, options: BodyOptions) {
        let escaped = |key: &String| key.replace('\r', "%0D").replace('\n', "%0A").replace('"', "%22");
        let is_form = options.format == Format::FormData;
        let name = |key: &String| if is_form { escaped(key) } else { key.clone() };
        // An object's order is that of its keys' last values in the text; a picture comes after all of them.
        assert_eq!(further.len(), top.len(), "{further:?} for {top:?}");
        for (key, value) in &top {
            let got = &parsed[&name(key)];
            match (is_form, value) {
                (false, value) => assert_eq!(got, value),
                (true, Value::String(text)) => assert_eq!(got, text),
                (true, value) => assert_eq!(serde_json::from_str::<Value>(got.as_str().unwrap()).unwrap(), *value),
            }
        }
    }
}

thread_local!(static POOL: Arc<Pool> = Arc::default());

/// What becomes of bytes that are no UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The content type and the body of an event whose pictures lie in `source`; it is as long as announced.
pub fn written(event: &Event, source: Arc<dyn PictureSource>, options: BodyOptions) -> (String, Vec<u8>) {
    let template = Template::new(event, options, &Constants::default());
    let (length, content_type) = (template.length(), template.content_type.clone().into_owned());
    let sent = Sent::default();
    #[allow(clippy::arc_with_non_send_sync)] // a body takes an Arc
    let source = Arc::new(Watched { source, is_dropped: AtomicBool::new(false) });
    let body = EventBody::new(template, Arc::clone(&source) as _, POOL.with(Arc::clone), Arc::clone(&sent));
    assert_eq!(body.size_hint().exact(), Some(length));
    let bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
    assert_eq!(sent.load(Ordering::Relaxed), length);
    assert_eq!(bytes.len() as u64, length);
    assert!(source.is_dropped.load(Ordering::Relaxed), "what is in clear is dropped with the body's last byte");
    (content_type, bytes.to_vec())
}

/// Notices that nothing is read after what is in clear was dropped.
struct Watched {
    source: Arc<dyn PictureSource>,
    is_dropped: AtomicBool,
}

impl PictureSource for Watched {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        assert!(!self.is_dropped.load(Ordering::Relaxed), "it is opened again");
        self.source.lend(range, encode)
    }

    fn drop_clear(&self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

/// Each part once, as text, in the order of the form.
pub fn parse_form(content_type: &str, body: Vec<u8>) -> Value {
    let boundary = multer::parse_boundary(content_type).unwrap();
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(body))]);
    let mut form = multer::Multipart::new(stream, boundary);
    let parts = async {
        let mut parts = Map::new();
        while let Some(field) = form.next_field().await.unwrap() {
            assert!(field.file_name().is_none() && field.content_type().is_none());
            let name = field.name().unwrap().to_owned();
            let value = String::from_utf8(field.bytes().await.unwrap().into()).unwrap();
            assert!(parts.insert(name, value.into()).is_none());
        }
        parts
    };
    Value::Object(parts.now_or_never().unwrap())
}
