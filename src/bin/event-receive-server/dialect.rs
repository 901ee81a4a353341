//! The two reports that carry events, and their rules for an event. This is the table of the box's documentation:
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
//! `event.rs` has the other members. A further member is also a picture if its text begins like a JPEG in base64.

use serde_json::value::RawValue;
use sophon_uplink::event::Place;

/// The report that an event came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Report {
    /// /RealTimeEvent, and every --path.
    #[default]
    RealTime,
    /// /HistoryEvent.
    History,
}

/// The required type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Object,
    Picture,
    /// Any type.
    Any,
}

/// The first characters of a JPEG in base64.
const JPEG: &str = "/9j/";

/// Path of history events.
pub const HISTORY_PATH: &str = "/HistoryEvent";

impl Report {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Report::RealTime => "realtime",
            Report::History => "history",
        }
    }

    /// The id under which an event of this report is stored. An event that came in both reports is stored twice.
    pub fn id(self, id: String) -> String {
        const OF_HISTORY: &str = "-history";
        if self == Report::History && !id.ends_with(OF_HISTORY) { id + OF_HISTORY } else { id }
    }

    /// The members of ext_data that an event of this report must have.
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

/// The required type of a member that is not in the table of `event.rs`. `text` is its value if that is a text.
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
