//! Constant members that the config adds to every event, so that a cloud with many boxes can tell which box sent it. The event's
//! own members take precedence.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::event::{self, Event, Place};

/// A constant member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its key.
    pub key: String,
    /// Its value as JSON.
    pub json: Box<RawValue>,
    /// Its value for a form field: a string without its quotes.
    pub text: String,
}

impl Member {
    /// A member with that value.
    pub fn new(key: String, value: &Value) -> Member {
        let json = serde_json::value::to_raw_value(value).expect("a value is JSON");
        let text = value.as_str().map_or_else(|| json.get().to_owned(), str::to_owned);
        Member { key, json, text }
    }
}

/// All constant members, in the order of the config.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    /// At the top, before `ext_data`.
    pub top: Vec<Member>,
    /// In `ext_data`.
    pub ext_data: Vec<Member>,
    /// `ext_data.device_ip`.
    pub device_ip: Option<String>,
}

impl Constants {
    /// Adds members of `ext_data` whose names the config does not have.
    pub fn with_fallbacks(mut self, members: Vec<Member>) -> Constants {
        for member in members {
            if !self.ext_data.iter().any(|known| known.key == member.key) {
                self.ext_data.push(member);
            }
        }
        self
    }

    /// The members for the top level of an event that has no member or picture of that name.
    pub fn top_beside<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Member> {
        self.top.iter().filter(|member| !has(&event.top, event, Place::Top, &member.key))
    }

    /// The same for its `ext_data`.
    pub fn ext_data_beside<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Member> {
        self.ext_data.iter().filter(|member| !has(&event.ext, event, Place::ExtData, &member.key))
    }

    /// The texts of all members.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let members = self.top.iter().chain(&self.ext_data);
        members.flat_map(|member| [member.key.as_str(), member.text.as_str()]).chain(self.device_ip.as_deref())
    }
}

fn has(members: &[event::Member], event: &Event, place: Place, key: &str) -> bool {
    members.iter().any(|(known, _)| known == key) || event.pictures_at(place).any(|picture| picture.name == key)
}
