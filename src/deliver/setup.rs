//! What a config, and the files that it names, say to the clients of its destinations. They are read whenever a config comes into force.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::client::Settings;
use super::history::History;
use super::rate::Rate;
use super::signature::Key;
use super::tls::ClientConfigs;
use crate::body::base64::Pool;
use crate::body::constants::Constants;
use crate::body::{BodyOptions, Format};
use crate::config::proxy::Proxy;
use crate::config::{Config, Fault, Options, Url};
use crate::secret_file::{self, Secret};

/// A config with its files read.
pub struct Setup {
    config: Config,
    tls: ClientConfigs,
    constants: Arc<Constants>,
    /// By their files.
    keys: Vec<(PathBuf, Key)>,
    /// Of all destinations without bounds of their own.
    rate: Option<Arc<Rate>>,
}

/// The most bytes of a key that requests are signed with, and the fewest.
const KEY: RangeInclusive<usize> = 16..=1024;

impl Setup {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that does not do: the key that names it, and why.
    pub fn read(config: &Config) -> Result<Setup, Fault> {
        let constants = Arc::new(config.constants.read()?);
        let files =
            config.event_server_url.iter().filter_map(|url| config.options_of(url).sign).map(|sign| sign.key_file);
        let keys = files.map(|file| Ok((file.clone(), key(&file)?))).collect::<Result<_, Fault>>()?;
        let rate = rate(&config.options);
        Ok(Setup { keys, rate, tls: ClientConfigs::read(config)?, constants, config: config.clone() })
    }

    /// For a destination.
    pub fn of(&self, url: &Url, pool: &Arc<Pool>, history: &Rc<History>) -> Settings {
        let options = self.config.options_of(url);
        let standby = options.standby.clone();
        let own = self.config.own_options.iter().find(|(known, own)| known == url && own.bounds.is_some());
        let rate = own.map_or(self.rate.clone(), |(_, own)| rate(own));
        let sign =
            options.sign.as_ref().and_then(|sign| Some((sign.header.clone(), self.key(&sign.key_file)?.clone())));
        let settings = Settings {
            sign,
            standby: Vec::new(),
            rate,
            body: self.config.body,
            constants: Arc::clone(&self.constants),
            headers: self.config.headers.clone(),
            timeouts: self.config.timeouts,
            options,
            proxy: self.proxy(url),
            tls: self.tls.of(url),
            pool: Arc::clone(pool),
            history: Rc::clone(history),
        };
        let standing_in = standby.into_iter().map(|url| {
            let settings = Settings { proxy: self.proxy(&url), tls: self.tls.of(&url), ..settings.clone() };
            (url, settings)
        });
        Settings { standby: standing_in.collect(), ..settings }
    }

    fn proxy(&self, url: &Url) -> Option<Arc<Proxy>> {
        self.config.proxy.clone().filter(|proxy| proxy.is_for(url))
    }

    fn key(&self, file: &Path) -> Option<&Key> {
        self.keys.iter().find(|(known, _)| known == file).map(|(_, key)| key)
    }

    /// For trying a server in a format, with counters of its own.
    pub fn for_trial(&self, url: &Url, format: Format) -> Settings {
        let body = BodyOptions { format, ..self.config.body };
        Settings { body, ..self.of(url, &Arc::default(), &Rc::default()) }
    }
}

fn rate(options: &Options) -> Option<Arc<Rate>> {
    options.bounds.as_ref()?.bytes_per_second.map(|bytes| Arc::new(Rate::new(bytes)))
}

fn key(file: &Path) -> Result<Key, Fault> {
    let fault = |why: String| Fault { key: "sign.key_file".into(), value: None, allowed: format!("the file {why}") };
    let Secret { bytes, length } = secret_file::read(file, *KEY.end()).map_err(fault)?;
    if bytes.len() > *KEY.end() {
        return Err(fault(format!("has {length} bytes, and takes {} at the most", KEY.end())));
    }
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if !KEY.contains(&secret.len()) {
        return Err(fault(format!("has {} bytes, and a key has 16 to 1024", secret.len())));
    }
    Ok(Key::new(secret))
}
