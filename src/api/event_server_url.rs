//! `GET` and `POST /SophonFogSys/api/EventServerUrl`, as the box's documentation has it.

use serde_json::{Value, json};

use super::read::Fields;
use super::refusal::{Refusal, shortened};
use crate::body::Format;
use crate::control::Control;

const URLS: &str = "event_server_url";
const REG_PIC: &str = "real_need_reg_pic";
const FORMAT: &str = "content-type";

/// What is in force; the URLs as they were written.
pub fn show(control: &Control) -> Value {
    let config = control.config();
    json!({"data": {
        URLS: control.written(URLS).unwrap_or_else(|| json!([])),
        REG_PIC: config.body.with_reg_pic,
        FORMAT: format_name(config.body.format),
    }})
}

/// How the config names a format.
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::FormData => "form-data",
    }
}

/// The keys of the config that a call wants changed; their values are checked where every config is.
///
/// # Errors
/// 400: a key that is missing, unknown or there twice, or a value of the wrong type.
pub fn changes(fields: Fields) -> Result<Vec<(&'static str, Value)>, Refusal> {
    let (mut urls, mut reg_pic, mut format) = (None, None, None);
    match fields {
        Fields::Json(members) => {
            for (key, value) in members {
                let place = match key.as_str() {
                    URLS => &mut urls,
                    REG_PIC => &mut reg_pic,
                    FORMAT => &mut format,
                    _ => return Err(unknown(&key)),
                };
                *place = Some(value);
            }
            urls = urls.map(url_list).transpose()?;
            reg_pic = reg_pic.map(switch);
        }
        Fields::Form(fields) => {
            let mut listed = Vec::new();
            let mut numbers = Vec::new();
            for (key, value) in fields {
                let (name, index) = indexed(&key);
                if let Some(number) = index.filter(|number| !number.is_empty()) {
                    if numbers.contains(&number.to_owned()) {
                        return Err(Refusal::invalid(format!("{key}: it is there twice")));
                    }
                    numbers.push(number.to_owned());
                }
                match name {
                    URLS => listed.push(value),
                    _ if index.is_some() => return Err(unknown(&key)),
                    REG_PIC => once(&mut reg_pic, &key, boolean(&value)?)?,
                    FORMAT => once(&mut format, &key, value.into())?,
                    _ => return Err(unknown(&key)),
                }
            }
            urls = list(listed)?;
        }
    }
    let urls = urls.ok_or_else(|| missing(URLS, "a list of URLs; [] uploads nothing"))?;
    let format = format.ok_or_else(|| missing(FORMAT, "\"json\" or \"form-data\""))?;
    Ok(vec![(URLS, urls), (REG_PIC, reg_pic.unwrap_or(Value::Bool(true))), (FORMAT, format)])
}

fn once(place: &mut Option<Value>, key: &str, value: Value) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::invalid(format!("{key}: it is there twice"))),
    }
}

/// The name and the index of a field as PHP, Rails, axios and jQuery write lists: `name[]`, `name[0]`.
fn indexed(key: &str) -> (&str, Option<&str>) {
    let split = key.strip_suffix(']').and_then(|rest| rest.split_once('['));
    let split = split.filter(|(_, index)| index.bytes().all(|byte| byte.is_ascii_digit()));
    split.map_or((key, None), |(name, index)| (name, Some(index)))
}

/// Repeated fields are the list; so is one field that holds a JSON list.
fn list(fields: Vec<String>) -> Result<Option<Value>, Refusal> {
    match fields.as_slice() {
        [] => Ok(None),
        [only] if only.trim_start().starts_with('[') => match serde_json::from_str::<Value>(only) {
            Ok(list) => url_list(list).map(Some),
            Err(error) => Err(Refusal::invalid(format!("{URLS}: it begins like a JSON list and is none: {error}"))),
        },
        _ => url_list(fields.into()).map(Some),
    }
}

/// A JSON value as a list of URLs without blanks around them. A text is a list of one, as R writes it, or a JSON list.
///
/// # Errors
/// 400: a text that begins like a JSON list and is none.
pub fn url_list(value: Value) -> Result<Value, Refusal> {
    let trimmed = |item: Value| match item {
        Value::String(text) => text.trim().into(),
        other => other,
    };
    match value {
        Value::String(text) => Ok(list(vec![text])?.unwrap_or_default()),
        Value::Array(items) => Ok(items.into_iter().map(trimmed).collect()),
        other => Ok(other),
    }
}

/// Perl writes 1 and 0.
fn switch(value: Value) -> Value {
    match value.as_u64() {
        Some(number @ 0..=1) => (number == 1).into(),
        _ => value,
    }
}

/// Python's requests writes True and False; PHP's curl writes 1, and nothing for false.
fn boolean(value: &str) -> Result<Value, Refusal> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true.into()),
        "false" | "0" | "" => Ok(false.into()),
        _ => Err(Refusal::invalid(format!("{REG_PIC}: {} is not allowed: true, false, 1 or 0", shortened(value)))),
    }
}

fn missing(key: &str, what: &str) -> Refusal {
    Refusal::invalid(format!("{key}: it is missing; {what}"))
}

fn unknown(key: &str) -> Refusal {
    Refusal::invalid(format!("{}: this key is not known; there are {URLS}, {REG_PIC} and {FORMAT}", shortened(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_call(value: Value) -> Result<Vec<(&'static str, Value)>, String> {
        let Value::Object(members) = value else { panic!("an object") };
        changes(Fields::Json(members.into_iter().collect())).map_err(|refusal| refusal.message)
    }

    fn form_call(fields: &[(&str, &str)]) -> Result<Vec<(&'static str, Value)>, String> {
        let fields = fields.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        changes(Fields::Form(fields)).map_err(|refusal| refusal.message)
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
}
