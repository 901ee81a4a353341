//! The box's documented calls that set where it reports to: `EventServerUrl`, `HistoryEventUrl` and `MonitorServerUrl`. Each has
//! GET and POST, as JSON or as a form. A table lists the keys of each call. The values are checked by the config, as for every
//! config.

use serde_json::{Map, Value, json};

use super::error::{ApiError, shortened};
use super::read::Fields;
use crate::body::Format;
use crate::config::reports::{HISTORY_URLS, MONITOR_URL, PERIOD};
use crate::control::{Changes, Control, MakeChanges};

const URLS: &str = "event_server_url";
const REG_PIC: &str = "real_need_reg_pic";
const FORMAT: &str = "content-type";
const HISTORY_REG_PIC: &str = "history_need_reg_pic";
/// The period that is shown if none is set, in seconds.
const USUAL_PERIOD: u64 = 60;

/// One of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Destinations of realtime events.
    EventServerUrl,
    /// Destinations that get all events once per period.
    HistoryEventUrl,
    /// Destination of the state report.
    MonitorServerUrl,
}

/// The type of a key's value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Urls,
    /// True if it is missing.
    Switch,
    Text,
    Seconds,
}

/// A key of a call.
struct Key {
    name: &'static str,
    kind: Kind,
    /// The expected value, for the message if it is missing.
    wanted: &'static str,
}

const FORMAT_KEY: Key = Key { name: FORMAT, kind: Kind::Text, wanted: "\"json\" or \"form-data\"" };
const PERIOD_KEY: Key = Key { name: PERIOD, kind: Kind::Seconds, wanted: "seconds, 1 to 86400" };

const EVENT_SERVER_URL: [Key; 3] = [
    Key { name: URLS, kind: Kind::Urls, wanted: "a list of URLs; [] uploads nothing" },
    Key { name: REG_PIC, kind: Kind::Switch, wanted: "" },
    FORMAT_KEY,
];
const HISTORY_EVENT_URL: [Key; 4] = [
    Key { name: HISTORY_URLS, kind: Kind::Urls, wanted: "a list of URLs; [] ends the report" },
    Key { name: HISTORY_REG_PIC, kind: Kind::Switch, wanted: "" },
    FORMAT_KEY,
    PERIOD_KEY,
];
const MONITOR_SERVER_URL: [Key; 3] = [
    Key { name: MONITOR_URL, kind: Kind::Text, wanted: "a URL; \"\" ends the report" },
    Key { name: FORMAT, kind: Kind::Text, wanted: "\"json\"" },
    PERIOD_KEY,
];

impl Call {
    fn keys(self) -> &'static [Key] {
        match self {
            Call::EventServerUrl => &EVENT_SERVER_URL,
            Call::HistoryEventUrl => &HISTORY_EVENT_URL,
            Call::MonitorServerUrl => &MONITOR_SERVER_URL,
        }
    }

    /// The values in force, as GET shows them. URLs are shown as they were written.
    pub fn show(self, control: &Control) -> Value {
        json!({"data": self.data(control)})
    }

    /// The answer to a change.
    pub fn changed(self, control: &Control) -> Value {
        match self {
            Call::EventServerUrl => self.show(control),
            Call::HistoryEventUrl => json!({"data": self.data(control), "message": "ok"}),
            Call::MonitorServerUrl => json!({"data": "ok"}),
        }
    }

    fn data(self, control: &Control) -> Value {
        let config = control.config();
        // The value that was set, even if the report has no URL.
        let written = |key: &str, member: &str, default: Value| {
            let object = control.written(key);
            object.and_then(|object| object.get(member).cloned()).unwrap_or(default)
        };
        match self {
            Call::EventServerUrl => json!({
                URLS: control.written(URLS).unwrap_or_else(|| json!([])),
                REG_PIC: config.body.with_reg_pic,
                FORMAT: format_name(config.body.format),
            }),
            Call::HistoryEventUrl => json!({
                HISTORY_URLS: written("history", HISTORY_URLS, json!([])),
                HISTORY_REG_PIC: written("history", HISTORY_REG_PIC, json!(true)),
                FORMAT: written("history", FORMAT, json!(format_name(Format::Json))),
                PERIOD: written("history", PERIOD, json!(USUAL_PERIOD)),
            }),
            Call::MonitorServerUrl => json!({
                MONITOR_URL: written("monitor", MONITOR_URL, json!("")),
                PERIOD: written("monitor", PERIOD, json!(USUAL_PERIOD)),
            }),
        }
    }

    /// Returns how a call changes the config. The config checks the values.
    ///
    /// # Errors
    /// 400: a key is missing, unknown or repeated, or a value has the wrong type.
    pub fn changes(self, fields: Fields) -> Result<MakeChanges, ApiError> {
        let values = self.values(fields)?;
        Ok(Box::new(move |present, _| {
            let (key, kept) = match self {
                Call::EventServerUrl => return Ok(values),
                Call::HistoryEventUrl => ("history", None),
                // Members that the call does not mention stay as they are.
                Call::MonitorServerUrl => ("monitor", present.get("monitor")),
            };
            let mut members = match kept {
                Some(Value::Object(members)) => members,
                _ => Map::new(),
            };
            members.extend(values.into_iter().map(|(key, value)| (key.to_owned(), value)));
            Ok(vec![(key, members.into())])
        }))
    }

    /// The value of each key, in order.
    fn values(self, fields: Fields) -> Result<Changes, ApiError> {
        let keys = self.keys();
        let mut values: Vec<Option<Value>> = vec![None; keys.len()];
        let place_of = |name: &str| keys.iter().position(|key| key.name == name);
        match fields {
            Fields::Json(members) => {
                for (key, value) in members {
                    let place = place_of(&key).ok_or_else(|| self.unknown(&key))?;
                    values[place] = Some(keys[place].of_json(value)?);
                }
            }
            Fields::Form(fields) => {
                let (mut listed, mut numbers) = (Vec::new(), Vec::new());
                for (key, value) in fields {
                    let (name, index) = indexed(&key);
                    if let Some(number) = index.filter(|number| !number.is_empty()) {
                        if numbers.contains(&number.to_owned()) {
                            return Err(ApiError::invalid(format!("{key}: it is there twice")));
                        }
                        numbers.push(number.to_owned());
                    }
                    let place = place_of(name).ok_or_else(|| self.unknown(&key))?;
                    match keys[place].kind {
                        Kind::Urls => listed.push(value),
                        _ if index.is_some() => return Err(self.unknown(&key)),
                        Kind::Switch => once(&mut values[place], &key, boolean(name, &value)?)?,
                        Kind::Text => once(&mut values[place], &key, value.into())?,
                        Kind::Seconds => once(&mut values[place], &key, seconds(value.into()))?,
                    }
                }
                if let Some(place) = keys.iter().position(|key| key.kind == Kind::Urls) {
                    values[place] = list(keys[place].name, listed)?;
                }
            }
        }
        let named = keys.iter().zip(values).map(|(key, value)| match value {
            Some(value) => Ok((key.name, value)),
            None if key.kind == Kind::Switch => Ok((key.name, Value::Bool(true))),
            None => Err(ApiError::invalid(format!("{}: it is missing; {}", key.name, key.wanted))),
        });
        named.collect()
    }

    fn unknown(self, key: &str) -> ApiError {
        let names: Vec<_> = self.keys().iter().map(|key| key.name).collect();
        let (last, others) = names.split_last().expect("a call has keys");
        let there_are = format!("there are {} and {last}", others.join(", "));
        ApiError::invalid(format!("{}: this key is not known; {there_are}", shortened(key)))
    }
}

impl Key {
    fn of_json(&self, value: Value) -> Result<Value, ApiError> {
        Ok(match self.kind {
            Kind::Urls => url_list(self.name, value)?,
            Kind::Switch => switch(value),
            Kind::Text => value,
            Kind::Seconds => seconds(value),
        })
    }
}

/// The config's name for a format.
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::FormData => "form-data",
    }
}

/// Converts a text to a number: some clients write numbers as text.
fn seconds(value: Value) -> Value {
    let number = value.as_str().and_then(|text| text.trim().parse::<u64>().ok());
    number.map_or(value, Value::from)
}

fn once(place: &mut Option<Value>, key: &str, value: Value) -> Result<(), ApiError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ApiError::invalid(format!("{key}: it is there twice"))),
    }
}

/// Splits a field's name and index. PHP, Rails, axios and jQuery write lists so: `name[]`, `name[0]`.
fn indexed(key: &str) -> (&str, Option<&str>) {
    let split = key.strip_suffix(']').and_then(|rest| rest.split_once('['));
    let split = split.filter(|(_, index)| index.bytes().all(|byte| byte.is_ascii_digit()));
    split.map_or((key, None), |(name, index)| (name, Some(index)))
}

/// The list is either the repeated fields, or one field that holds a JSON list.
fn list(key: &str, fields: Vec<String>) -> Result<Option<Value>, ApiError> {
    match fields.as_slice() {
        [] => Ok(None),
        [only] if only.trim_start().starts_with('[') => match serde_json::from_str::<Value>(only) {
            Ok(list) => url_list(key, list).map(Some),
            Err(error) => Err(ApiError::invalid(format!("{key}: it begins like a JSON list and is none: {error}"))),
        },
        _ => url_list(key, fields.into()).map(Some),
    }
}

/// Converts a JSON value to a list of URLs without surrounding blanks. A text is either a list of one URL, as R writes it, or a
/// JSON list.
///
/// # Errors
/// 400: a text that begins like a JSON list but is not one.
pub fn url_list(key: &str, value: Value) -> Result<Value, ApiError> {
    let trimmed = |item: Value| match item {
        Value::String(text) => text.trim().into(),
        other => other,
    };
    match value {
        Value::String(text) => Ok(list(key, vec![text])?.unwrap_or_default()),
        Value::Array(items) => Ok(items.into_iter().map(trimmed).collect()),
        other => Ok(other),
    }
}

/// Accepts 1 and 0: Perl writes these.
fn switch(value: Value) -> Value {
    match value.as_u64() {
        Some(number @ 0..=1) => (number == 1).into(),
        _ => value,
    }
}

/// Python's requests writes True and False. PHP's curl writes 1 for true and an empty value for false.
fn boolean(key: &str, value: &str) -> Result<Value, ApiError> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true.into()),
        "false" | "0" | "" => Ok(false.into()),
        _ => Err(ApiError::invalid(format!("{key}: {} is not allowed: true, false, 1 or 0", shortened(value)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_call(value: Value) -> Result<Vec<(&'static str, Value)>, String> {
        let Value::Object(members) = value else { panic!("an object") };
        Call::EventServerUrl.values(Fields::Json(members.into_iter().collect())).map_err(|error| error.message)
    }

    fn form_call(fields: &[(&str, &str)]) -> Result<Vec<(&'static str, Value)>, String> {
        let fields = fields.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Call::EventServerUrl.values(Fields::Form(fields)).map_err(|error| error.message)
    }

    #[test]
    fn json_and_both_ways_of_a_form_mean_the_same() {
        let wanted =
            Ok(vec![(URLS, json!(["http://a/", "http://b/"])), (REG_PIC, json!(true)), (FORMAT, json!("json"))]);
        assert_eq!(json_call(json!({URLS: ["http://a/", "http://b/"], FORMAT: "json"})), wanted);
        assert_eq!(form_call(&[(URLS, "http://a/"), (FORMAT, "json"), (URLS, "http://b/")]), wanted);
        assert_eq!(form_call(&[(URLS, " [\"http://a/\", \"http://b/\"]"), (FORMAT, "json"), (REG_PIC, "1")]), wanted);
    }

    #[test]
    fn a_form_says_true_and_false_in_several_ways() {
        for (text, value) in
            [("true", true), ("True", true), ("1", true), ("false", false), ("False", false), ("0", false), ("", false)]
        {
            let read = form_call(&[(URLS, "[]"), (FORMAT, "json"), (REG_PIC, text)]).unwrap();
            assert_eq!(read[1], (REG_PIC, json!(value)), "{text}");
        }
        for text in ["yes", "2", "null", "on", "-1"] {
            assert!(form_call(&[(URLS, "[]"), (FORMAT, "json"), (REG_PIC, text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_taken_as_php_rails_axios_and_r_write_them() {
        let wanted = json!(["http://a/", "http://b/"]);
        let whole = wanted.to_string();
        for fields in [
            &[("event_server_url[]", "http://a/"), ("event_server_url[]", "http://b/")][..],
            &[("event_server_url[0]", "http://a/"), ("event_server_url[1]", "http://b/")],
            &[("event_server_url[7]", " http://a/"), ("event_server_url", "http://b/\r\n")],
            &[("event_server_url[]", &whole)],
        ] {
            let read = form_call(&[fields, &[(FORMAT, "json")]].concat()).unwrap();
            assert_eq!(read[0], (URLS, wanted.clone()), "{fields:?}");
        }
        assert_eq!(json_call(json!({URLS: "http://a/ ", FORMAT: "json"})).unwrap()[0].1, json!(["http://a/"]));
        assert_eq!(json_call(json!({URLS: whole, FORMAT: "json"})).unwrap()[0].1, wanted);
        assert_eq!(json_call(json!({URLS: [], FORMAT: "json", REG_PIC: 0})).unwrap()[1].1, json!(false));
        assert_eq!(json_call(json!({URLS: [], FORMAT: "json", REG_PIC: 1})).unwrap()[1].1, json!(true));
        for key in [
            "event_server_url[",
            "event_server_url]",
            "event_server_url[a]",
            "event_server_url[0][1]",
            "event_server_url[-1]",
            "[]",
            "content-type[]",
            "real_need_reg_pic[0]",
        ] {
            let fields = [(URLS, "http://a/"), (FORMAT, "json"), (key, "http://b/")];
            assert!(form_call(&fields).unwrap_err().contains("this key is not known"), "{key}");
        }
        let twice = [("event_server_url[0]", "http://a/"), ("event_server_url[0]", "http://b/"), (FORMAT, "json")];
        assert!(form_call(&twice).unwrap_err().contains("it is there twice"));
    }

    #[test]
    fn what_is_missing_unknown_or_there_twice_is_named() {
        for (fields, named) in [
            (&[(FORMAT, "json")][..], URLS),
            (&[(URLS, "http://a/")], FORMAT),
            (&[(URLS, "[]"), (FORMAT, "json"), (FORMAT, "json")], FORMAT),
            (&[(URLS, "[]"), (FORMAT, "json"), (REG_PIC, "1"), (REG_PIC, "1")], REG_PIC),
            (&[(URLS, "[]"), (FORMAT, "json"), ("threshold", "1")], "threshold"),
            (&[(URLS, "[nonsense"), (FORMAT, "json")], URLS),
        ] {
            let message = form_call(fields).unwrap_err();
            assert!(message.contains(named), "{message}");
        }
        assert!(json_call(json!({URLS: []})).unwrap_err().starts_with(FORMAT));
        assert!(json_call(json!({FORMAT: "json"})).unwrap_err().starts_with(URLS));
    }

    #[test]
    fn the_other_calls_have_their_own_keys() {
        let form = |call: Call, fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            call.values(Fields::Form(fields)).map_err(|error| error.message)
        };
        let history = [("history_upload_event_url[]", "http://a/h"), (FORMAT, "json"), (PERIOD, " 60")];
        let wanted = vec![
            (HISTORY_URLS, json!(["http://a/h"])),
            (HISTORY_REG_PIC, json!(true)),
            (FORMAT, json!("json")),
            (PERIOD, json!(60)),
        ];
        assert_eq!(form(Call::HistoryEventUrl, &history), Ok(wanted));
        let monitor = [(MONITOR_URL, "http://a/m"), (FORMAT, "json"), (PERIOD, "5")];
        let wanted = vec![(MONITOR_URL, json!("http://a/m")), (FORMAT, json!("json")), (PERIOD, json!(5))];
        assert_eq!(form(Call::MonitorServerUrl, &monitor), Ok(wanted));
        for (call, missing) in [(Call::HistoryEventUrl, PERIOD), (Call::MonitorServerUrl, FORMAT)] {
            let keys = call.keys().iter().filter(|key| key.name != missing).map(|key| (key.name, "1"));
            let said = form(call, &keys.collect::<Vec<_>>()).unwrap_err();
            assert!(said.starts_with(missing) && said.contains("it is missing"), "{said}");
        }
        let said = form(Call::MonitorServerUrl, &[(URLS, "http://a/")]).unwrap_err();
        assert!(said.ends_with("there are monitor_server_url, content-type and reported_peroid"), "{said}");
        for url in ["monitor_server_url[0]", "monitor_server_url[]"] {
            assert!(form(Call::MonitorServerUrl, &[(url, "http://a/")]).unwrap_err().contains("not known"));
        }
    }
}
