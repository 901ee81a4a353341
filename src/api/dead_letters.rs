//! `GET /api/dead-letters`: what servers refused, and what nobody was left to get. `POST`: sends it once more, as
//! `{"all": true}` or `{"numbers": [17, 23]}`, and with `"to": "http://…"` to another destination of the config.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::read::Fields;
use super::refusal::{Refusal, shortened};
use crate::uplink::Uplink;

/// What to send again.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// None: all.
    pub numbers: Option<Vec<u64>>,
    /// None: where each was to go before.
    pub to: Option<String>,
}

/// Every dead letter, by destination.
///
/// # Errors
/// 500: the spool cannot be read.
pub async fn show(uplink: &Uplink) -> Result<Value, Refusal> {
    let contents = uplink.spool_contents().await.map_err(|error| internal(error.to_string()))?;
    Ok(json!({ "dead": contents.dead }))
}

/// What a call wants.
///
/// # Errors
/// 400: it does not say what, or not in this way.
pub fn wanted(fields: Fields) -> Result<Wanted, Refusal> {
    let Fields::Json(members) = fields else {
        return Err(Refusal::invalid("this call is sent as application/json"));
    };
    let (mut all, mut numbers, mut to) = (false, None, None);
    for (key, value) in members {
        match key.as_str() {
            "all" => all = value.as_bool().ok_or_else(|| Refusal::invalid("all: allowed: true"))?,
            "numbers" => {
                let list = value.as_array().and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
                numbers = Some(list.ok_or_else(|| Refusal::invalid("numbers: allowed: a list of numbers"))?);
            }
            "to" => {
                let url = value.as_str().map(str::to_owned);
                to = Some(url.ok_or_else(|| Refusal::invalid("to: allowed: the URL of a destination"))?);
            }
            _ => return Err(Refusal::invalid(format!("{}: there are all, numbers and to", shortened(&key)))),
        }
    }
    if all == numbers.is_some() {
        return Err(Refusal::invalid("either all: true or numbers says which dead letters"));
    }
    Ok(Wanted { numbers, to })
}

/// Sends them; how many there were.
///
/// # Errors
/// 400: a destination that is not in the config; 500: the disk.
pub async fn resend(uplink: &Uplink, wanted: Wanted) -> Result<Value, Refusal> {
    if let Some(to) = &wanted.to
        && !uplink.has_destination(to)
    {
        return Err(Refusal::invalid(format!("to: {} is not a destination of the config", shortened(to))));
    }
    let resent = uplink.resend(wanted.numbers, wanted.to).await;
    resent.map(|resent| json!({ "resent": resent })).map_err(|fault| internal(fault.to_string()))
}

fn internal(why: String) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_which_letters_and_nothing_else() {
        let call = |members: &[(&str, Value)]| {
            wanted(Fields::Json(members.iter().map(|(key, value)| ((*key).into(), value.clone())).collect()))
        };
        assert_eq!(call(&[("all", json!(true))]), Ok(Wanted { numbers: None, to: None }));
        let some = Wanted { numbers: Some(vec![3, 5]), to: Some("http://a/".into()) };
        assert_eq!(call(&[("numbers", json!([3, 5])), ("to", json!("http://a/"))]), Ok(some));
        for bad in [
            vec![],
            vec![("all", json!(false))],
            vec![("all", json!("true"))],
            vec![("all", json!(true)), ("numbers", json!([1]))],
            vec![("numbers", json!([-1]))],
            vec![("numbers", json!(["1"]))],
            vec![("numbers", json!(1))],
            vec![("all", json!(true)), ("to", json!(1))],
            vec![("all", json!(true)), ("x", json!(1))],
        ] {
            assert!(call(&bad).is_err(), "{bad:?}");
        }
        assert!(wanted(Fields::Form(vec![("all".into(), "true".into())])).is_err());
    }
}
