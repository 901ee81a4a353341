//! `GET /api/dead-letters`: what servers refused, the oldest first, in pages: `?limit=100&after=17`. `POST`: sends it once more, as
//! `{"all": true}` or `{"numbers": [17, 23]}`, and with `"to": "http://…"` to another destination of the config.
//!
//! A page costs what its letters cost, however many events wait. A call that sends many works in batches, between which others have the
//! spool, and answers after a few seconds: `after` then says where the next call is to go on.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::read::Fields;
use super::refusal::{ApiError, shortened};
use crate::spool::Resent;
use crate::spool::dead;
use crate::uplink::Uplink;

/// Letters in a page, where none is said and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 256;
/// A call that sends letters answers after this: its client waits no longer than ten seconds.
const TURN: Duration = Duration::from_secs(4);

/// Which letters to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Those with a higher number.
    after: Option<u64>,
    limit: usize,
}

/// What to send again.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// None: all.
    pub numbers: Option<Vec<u64>>,
    /// None: where each was to go before.
    pub to: Option<String>,
    /// Those with a higher number.
    pub after: Option<u64>,
}

impl Page {
    /// What a query asks for.
    ///
    /// # Errors
    /// 400: something else than `limit` and `after`, once each.
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

/// Some dead letters, by destination; `next` is what `after` is to be for further ones.
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

/// What a call wants.
///
/// # Errors
/// 400: it does not say what, or not in this way.
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
        return Err(ApiError::invalid("either all: true or numbers says which dead letters"));
    }
    Ok(Wanted { numbers, to, after })
}

/// Sends them: how many wait again, and which stay because their destination is not in the config. `after` is a number where there are
/// further ones for another call.
///
/// # Errors
/// 400: a destination that is not in the config; 500: the disk.
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
