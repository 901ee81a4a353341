//! The options of a gateway, checked.

use std::path::PathBuf;

/// What follows the other options in the help.
pub const HELP: &str = "
A gateway for many boxes (docs/fleet.md): into a NATS JetStream instead of a folder, without a page

  --jetstream URLS  the servers, separated by commas: nats://a:4222,nats://b:4222, or tls://
  --stream NAME     the stream [default: EVENTS]; it takes events.>
  --creds FILE      how to log in: credentials of NATS, or the seed of an nkey; or
  --token-file FILE a token
  --tls-ca FILE     the CA certificates of the servers; turns TLS on
  --boxes FILE      the boxes that may send, a line each: NAME TOKEN; without it everybody may

A page of what is in a stream: it shows events and boxes as they come, and takes nothing

  --gallery-from URLS  the servers, as above; with --stream, --creds, --token-file and --tls-ca
  --consumer NAME   what its consumers are called, NAME-events and NAME-boxes [default: gallery]; each gallery has its own
";

/// Where the engine is, and who may send to it through here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `nats://HOST:PORT`, each.
    pub servers: Vec<String>,
    pub stream: Option<String>,
    pub creds: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub tls_ca: Option<PathBuf>,
    pub boxes: Option<PathBuf>,
    /// Whether it shows what is in the stream, instead of writing into it.
    pub is_gallery: bool,
    pub consumer: Option<String>,
}

impl Options {
    /// Takes the value of an option; the error says what is allowed.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let file = || {
            if value.is_empty() {
                Err(format!("--{name} \"\": the name of a file is needed"))
            } else {
                Ok(Some(value.clone().into()))
            }
        };
        match name {
            "jetstream" | "gallery-from" => {
                if !self.servers.is_empty() {
                    return Err("--jetstream and --gallery-from: one of them, once".into());
                }
                self.is_gallery = name == "gallery-from";
                self.servers = servers(name, &value)?;
            }
            "stream" | "consumer" => {
                let place = if name == "stream" { &mut self.stream } else { &mut self.consumer };
                *place = Some(token(name, value)?);
            }
            "creds" => self.creds = file()?,
            "token-file" => self.token_file = file()?,
            "tls-ca" => self.tls_ca = file()?,
            _ => self.boxes = file()?,
        }
        Ok(())
    }

    /// The whole, if there is to be a gateway.
    pub fn finish(self, has_store: bool) -> Result<Option<Options>, String> {
        if self.servers.is_empty() {
            let given = [
                ("stream", self.stream.is_some()),
                ("creds", self.creds.is_some()),
                ("token-file", self.token_file.is_some()),
            ];
            let files = [
                ("tls-ca", self.tls_ca.is_some()),
                ("boxes", self.boxes.is_some()),
                ("consumer", self.consumer.is_some()),
            ];
            return match given.into_iter().chain(files).find(|(_, is_given)| *is_given) {
                Some((name, _)) => Err(format!("--{name}: only with --jetstream or --gallery-from")),
                None => Ok(None),
            };
        }
        if has_store {
            return Err(format!("--{} and --store: events are in the one or in the other", self.option()));
        }
        if self.is_gallery && self.boxes.is_some() {
            return Err("--boxes: only with --jetstream; a gallery takes nothing from boxes".into());
        }
        if !self.is_gallery && self.consumer.is_some() {
            return Err("--consumer: only with --gallery-from".into());
        }
        if self.creds.is_some() && self.token_file.is_some() {
            return Err("--creds and --token-file: one of them".into());
        }
        Ok(Some(self))
    }

    /// The option that has the servers.
    pub fn option(&self) -> &'static str {
        if self.is_gallery { "gallery-from" } else { "jetstream" }
    }

    /// What its consumers' names begin with.
    pub fn consumer(&self) -> &str {
        self.consumer.as_deref().unwrap_or("gallery")
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        self.stream.as_deref().unwrap_or("EVENTS")
    }
}

fn servers(option: &str, value: &str) -> Result<Vec<String>, String> {
    let server = |text: &str| {
        let rest = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://"));
        match rest {
            Some(rest) if rest.contains('@') => Err(format!(
                "--{option}: a login in an address can be seen by every user of the machine; use --creds or --token-file"
            )),
            Some(rest) if !rest.is_empty() && text.parse::<async_nats::ServerAddr>().is_ok() => Ok(text.to_owned()),
            _ => Err(format!(
                "--{option} {text:?}: allowed: nats://HOST:PORT or tls://HOST:PORT, several separated by commas"
            )),
        }
    };
    value.split(',').map(|text| server(text.trim())).collect()
}

/// A name that is a token of a subject.
fn token(option: &str, value: String) -> Result<String, String> {
    let is_name = (1..=64).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_name { Ok(value) } else { Err(format!("--{option} {value:?}: allowed: 1 to 64 letters, digits, - and _")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, &str)]) -> Result<Option<Options>, String> {
        let mut options = Options::default();
        for (name, value) in given {
            options.set(name, (*value).to_owned())?;
        }
        options.finish(false)
    }

    #[test]
    fn servers_are_a_list_and_the_stream_has_a_default() {
        let options = of(&[("jetstream", "nats://a:4222, tls://b"), ("creds", "c")]).unwrap().unwrap();
        assert_eq!(
            (options.servers, options.creds),
            (vec!["nats://a:4222".into(), "tls://b".into()], Some("c".into()))
        );
        assert_eq!(Options::default().stream(), "EVENTS");
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let good = ("jetstream", "nats://a");
        for (given, named) in [
            (&[("jetstream", "")][..], "nats://HOST"),
            (&[("jetstream", "http://a")], "http://a"),
            (&[("jetstream", "nats://a,,")], "\"\""),
            (&[("jetstream", "nats://")], "nats://"),
            (&[("jetstream", "nats://me:secret@a")], "--creds"),
            (&[good, ("stream", "a.b")], "a.b"),
            (&[good, ("stream", "")], "--stream"),
            (&[good, ("boxes", "")], "--boxes"),
            (&[good, ("creds", "a"), ("token-file", "b")], "one of them"),
            (&[("boxes", "a")], "--boxes: only with --jetstream"),
            (&[("consumer", "a")], "--consumer: only with"),
            (&[good, ("consumer", "a")], "--consumer: only with --gallery-from"),
            (&[good, ("gallery-from", "nats://a")], "one of them"),
            (&[("gallery-from", "nats://a"), ("boxes", "a")], "--boxes"),
            (&[("gallery-from", "a")], "--gallery-from \"a\""),
            (&[("gallery-from", "nats://a"), ("consumer", "a.b")], "--consumer \"a.b\""),
        ] {
            let fault = of(given).expect_err(named);
            assert!(fault.contains(named), "{fault}");
        }
        let gallery = of(&[("gallery-from", "nats://a"), ("consumer", "wall")]).unwrap().unwrap();
        assert_eq!((gallery.is_gallery, gallery.consumer()), (true, "wall"));
        let with_store = Options { servers: vec!["nats://a".into()], ..Options::default() }.finish(true);
        assert!(with_store.unwrap_err().contains("--store"));
    }
}
