//! The two reports that carry events, and what each wants of one. The table of the box's documentation, in its dialects:
//!
//! | key | in | realtime | history |
//! | --- | --- | --- | --- |
//! | device_id | top | string | string |
//! | identity_info | top | object | object |
//! | reg_pic | top | required | optional |
//! | ep_id | ext_data | string | string |
//! | dev_sno | ext_data | string | string, required |
//! | grab_fiqa_info, box_fiqa_info | ext_data | object | object, required |
//! | recognize_face | ext_data | picture | picture |
//!
//! What else there is of an event is in `event.rs`. A further member whose text begins as a JPEG in base64 does is a picture, too.

use serde_json::value::RawValue;
use sophon_uplink::event::Place;

/// Which report an event came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Report {
    /// /RealTimeEvent, and every --path.
    #[default]
    RealTime,
    /// /HistoryEvent.
    History,
}

/// What a value is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Object,
    Picture,
    /// Whatever it is.
    Any,
}

/// What JPEG in base64 begins with.
const JPEG: &str = "/9j/";

/// The path of history events.
pub const HISTORY_PATH: &str = "/HistoryEvent";

impl Report {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Report::RealTime => "realtime",
            Report::History => "history",
        }
    }

    /// The id under which its event is kept: an event that came in both reports is there twice.
    pub fn id(self, id: String) -> String {
        const OF_HISTORY: &str = "-history";
        if self == Report::History && !id.ends_with(OF_HISTORY) { id + OF_HISTORY } else { id }
    }

    /// Members of ext_data that an event of it must have.
    pub fn required(self) -> &'static [&'static str] {
        match self {
            Report::RealTime => &[],
            Report::History => &["dev_sno", "grab_fiqa_info", "box_fiqa_info"],
        }
    }
}

/// Whether the documentation has this member at the top.
pub fn is_documented_at_top(name: &str) -> bool {
    matches!(name, "device_id" | "identity_info")
}

/// What a member beside the table of `event.rs` is to be; `text` is its value, where that is a text.
pub fn kind(place: Place, name: &str, text: Option<&str>) -> Kind {
    match (place, name) {
        (Place::Top, "device_id") | (Place::ExtData, "ep_id" | "dev_sno") => Kind::Text,
        (Place::Top, "identity_info") | (Place::ExtData, "grab_fiqa_info" | "box_fiqa_info") => Kind::Object,
        (Place::ExtData, "recognize_face") => Kind::Picture,
        _ if text.is_some_and(|text| text.starts_with(JPEG)) => Kind::Picture,
        _ => Kind::Any,
    }
}

/// Whether a JSON value is an object.
pub fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}
