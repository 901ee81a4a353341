//! `GET /api/dead-letters` lists the events that servers refused, the oldest first, in pages: `?limit=100&after=17`. `POST` sends
//! them again: `{"all": true}` or `{"numbers": [17, 23]}`. With `"to": "http://…"` it sends them to another destination of the
//! config.
//!
//! The cost of a page depends on its letters, not on how many events wait. A call that sends many letters works in batches and
//! lets others use the spool between two batches. It answers after a few seconds; `after` then says where the next call
//! continues.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::error::{ApiError, shortened};
use super::read::Fields;
use crate::spool::Resent;
use crate::spool::dead;
use crate::uplink::Uplink;

/// Letters per page: the default and the maximum.
const PAGE: usize = 100;
const MAX_PAGE: usize = 256;
/// A call that resends letters answers after this time. Its client waits for ten seconds at most.
const TURN: Duration = Duration::from_secs(4);

/// Which letters to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Only letters with a higher number.
    after: Option<u64>,
    limit: usize,
}

/// Which letters to send again.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: all.
    pub numbers: Option<Vec<u64>>,
    /// `None`: each goes to its original destination.
    pub to: Option<String>,
    /// Only letters with a higher number.
    pub after: Option<u64>,
}

impl Page {
    /// Reads the page that a query requests.
    ///
    /// # Errors
    /// 400: anything other than `limit` and `after`, each at most once.
    pub fn of(query: Option<&str>) -> Result<Page, ApiError> {
        let (mut after, mut limit) = (None, None);
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = value.parse::<u64>().ok();
            match (key, number) {
                ("after", Some(_)) if after.is_none() => after = number,
                ("limit", Some(1..)) if limit.is_none() => limit = number,
                _ => {
                    let allowed = "allowed: limit=1 to limit=256, and after=NUMBER of the last letter seen";
                    return Err(ApiError::invalid(format!("{}: {allowed}", shortened(pair))));
                }
            }
        }
        let limit = limit.map_or(PAGE, |limit| limit.min(MAX_PAGE as u64) as usize);
        Ok(Page { after, limit })
    }
}

/// One page of dead letters, by destination. `next` is the value of `after` for the next page.
pub async fn show(uplink: &Uplink, page: Page) -> Value {
    let (total, letters, next) = uplink.letters(page.after, page.limit).await;
    let mut folders: Vec<Value> = Vec::new();
    for letter in letters {
        let name = letter.destination.to_string();
        let place = folders.iter().position(|folder| folder["name"] == name);
        let place = place.unwrap_or_else(|| {
            folders.push(json!({ "url": letter.url, "name": name, "events": [] }));
            folders.len() - 1
        });
        let shown = serde_json::to_value(&letter).expect("plain data");
        folders[place]["events"].as_array_mut().expect("it was made as one").push(shown);
    }
    json!({ "dead": folders, "total": total, "next": next })
}

/// Reads the body of a resend call.
///
/// # Errors
/// 400: the body does not say which letters, or has a wrong format.
pub fn wanted(fields: Fields) -> Result<Wanted, ApiError> {
    let Fields::Json(members) = fields else {
        return Err(ApiError::invalid("this call is sent as application/json"));
    };
    let (mut all, mut numbers, mut to, mut after) = (false, None, None, None);
    for (key, value) in members {
        match key.as_str() {
            "all" => all = value.as_bool().ok_or_else(|| ApiError::invalid("all: allowed: true"))?,
            "numbers" => {
                let list = value.as_array().and_then(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
                numbers = Some(list.ok_or_else(|| ApiError::invalid("numbers: allowed: a list of numbers"))?);
            }
            "to" => {
                let url = value.as_str().map(str::to_owned);
                to = Some(url.ok_or_else(|| ApiError::invalid("to: allowed: the URL of a destination"))?);
            }
            "after" => {
                after =
                    Some(value.as_u64().ok_or_else(|| ApiError::invalid("after: allowed: the number of a letter"))?);
            }
            _ => return Err(ApiError::invalid(format!("{}: there are all, numbers, to and after", shortened(&key)))),
        }
    }
    if all == numbers.is_some() {
        return Err(ApiError::invalid("say which dead letters: either \"all\": true or \"numbers\""));
    }
    Ok(Wanted { numbers, to, after })
}

/// Sends the letters again. The answer says how many wait again, and which were skipped because their destination is not in the
/// config. If letters remain for another call, `after` is a number.
///
/// # Errors
/// 400: the destination is not in the config. 500: the disk failed.
pub async fn resend(uplink: &Uplink, wanted: Wanted) -> Result<Value, ApiError> {
    let unknown = |to: &str| ApiError::invalid(format!("to: {} is not a destination of the config", shortened(to)));
    let to = wanted.to.map(|to| uplink.destination(&to).ok_or_else(|| unknown(&to))).transpose()?;
    let mut wanted = dead::Wanted { numbers: wanted.numbers, to, after: wanted.after };
    let (end, mut done) = (Instant::now() + TURN, Resent::default());
    loop {
        let some = uplink.resend(wanted.clone()).await;
        done.add(
            some.map_err(|fault| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", fault.to_string()))?,
        );
        if done.after.is_none() || Instant::now() >= end {
            break;
        }
        wanted.after = done.after;
    }
    let skipped: Map<_, _> = done.skipped.iter().map(|(url, letters)| (url.clone(), json!(letters))).collect();
    Ok(json!({ "resent": done.resent, "skipped": skipped, "after": done.after }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_which_letters_and_nothing_else() {
        let call = |members: &[(&str, Value)]| {
            wanted(Fields::Json(members.iter().map(|(key, value)| ((*key).into(), value.clone())).collect()))
        };
        assert_eq!(call(&[("all", json!(true))]), Ok(Wanted { numbers: None, to: None, after: None }));
        let some = Wanted { numbers: Some(vec![3, 5]), to: Some("http://a/".into()), after: None };
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
            vec![("all", json!(true)), ("after", json!("1"))],
        ] {
            assert!(call(&bad).is_err(), "{bad:?}");
        }
        assert!(wanted(Fields::Form(vec![("all".into(), "true".into())])).is_err());
    }

    #[test]
    fn a_page_of_letters_is_asked_for_by_number_and_length() {
        assert_eq!(Page::of(None).unwrap(), Page { after: None, limit: PAGE });
        assert_eq!(
            Page::of(Some("limit=7&after=18446744073709551615")).unwrap(),
            Page { after: Some(u64::MAX), limit: 7 }
        );
        assert_eq!(Page::of(Some("limit=100000")).unwrap().limit, MAX_PAGE);
        for bad in ["limit=0", "limit=x", "after=-1", "after", "limit", "page=2", "limit=1&limit=2"] {
            assert!(Page::of(Some(bad)).is_err(), "{bad}");
        }
    }
}
