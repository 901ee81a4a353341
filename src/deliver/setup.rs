//! Builds the settings of each destination's client from a config and the files that it names. Only this module reads these
//! files, once for each config that is checked. So a checked config can be put into force whatever becomes of its files.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::client::Settings;
use super::history::History;
use super::rate::Rate;
use super::signature::Key;
use super::tls::ClientConfigs;
use crate::body::constants::{Constants, Member};
use crate::body::encoder::Pool;
use crate::body::{BodyOptions, Format};
use crate::config::Report;
use crate::config::proxy::Proxy;
use crate::config::reports::{self, Monitor};
use crate::config::this_box::ThisBox;
use crate::config::{Config, ConfigFault, Options, Url};
use crate::secret_file::{self, Secret};

/// A config with its files read.
#[derive(Clone)]
pub struct Setup {
    config: Config,
    tls: ClientConfigs,
    constants: Arc<Constants>,
    /// The constants for history events, which have some more members.
    history_constants: Arc<Constants>,
    /// Keys for signatures, by file.
    keys: Vec<(PathBuf, Key)>,
    /// The rate limit that all destinations without bounds of their own share.
    rate: Option<Arc<Rate>>,
}

/// The allowed length of a key for signatures, in bytes.
const KEY: RangeInclusive<usize> = 16..=1024;

impl Setup {
    /// Reads the files of a config.
    ///
    /// # Errors
    /// An unusable file: the config key that names it, and why.
    pub fn read(config: Config) -> Result<Setup, ConfigFault> {
        Setup::read_but(config, None)
    }

    /// The same for a change of this config, which was read just now: its files are not read again.
    ///
    /// # Errors
    /// As [`Setup::read`].
    pub fn changed(&self, config: Config) -> Result<Setup, ConfigFault> {
        Setup::read_but(config, Some(self))
    }

    fn read_but(config: Config, just_read: Option<&Setup>) -> Result<Setup, ConfigFault> {
        let constants = config.constants.read()?;
        let history_constants = match &config.history {
            Some(_) => Arc::new(constants.clone().with_fallbacks(required_of_history(&config.this_box)?)),
            None => Arc::default(),
        };
        let constants = Arc::new(constants);
        let files = config.destinations().filter_map(|url| config.options_of(url).sign).map(|sign| sign.key_file);
        let key_in = |file: PathBuf| {
            let known = just_read.and_then(|just_read| just_read.key(&file)).cloned();
            let key = known.map_or_else(|| key(&file), Ok)?;
            Ok((file, key))
        };
        let keys = files.map(key_in).collect::<Result<_, ConfigFault>>()?;
        let rate = rate(&config.options);
        let tls = ClientConfigs::read(&config, just_read.map(|just_read| &just_read.tls))?;
        Ok(Setup { keys, rate, tls, constants, history_constants, config })
    }

    /// The config whose files these are.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same for clients of a test: they share no bound and no TLS session with those in force.
    pub fn for_tests(&self) -> Setup {
        let setup = self.clone();
        Setup { rate: rate(&self.config.options), tls: setup.tls.without_sessions(), ..setup }
    }

    /// The settings for a destination.
    pub fn of(&self, url: &Url, pool: &Arc<Pool>, history: &Rc<History>) -> Settings {
        let options = self.config.options_of(url);
        let standby = options.standby.clone();
        let mut own = self.config.own_options.iter();
        let own = own.find(|(known, own)| known.is_same_server_as(url) && own.bounds.is_some());
        let rate = own.map_or(self.rate.clone(), |(_, own)| rate(own));
        let sign =
            options.sign.as_ref().and_then(|sign| Some((sign.header.clone(), self.key(&sign.key_file)?.clone())));
        let settings = Settings {
            sign,
            standby: Vec::new(),
            rate,
            body: self.body_of(url),
            constants: Arc::clone(if url.report() == Report::History {
                &self.history_constants
            } else {
                &self.constants
            }),
            period: self.history_of(url).map(|history| history.period),
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

    /// The settings for the state report, which has headers of its own.
    pub fn of_monitor(&self, monitor: &Monitor) -> Settings {
        let settings = self.of(&monitor.url, &Arc::default(), &Rc::default());
        Settings { headers: monitor.headers.clone(), sign: None, standby: Vec::new(), ..settings }
    }

    fn history_of(&self, url: &Url) -> Option<&reports::History> {
        self.config.history.as_ref().filter(|_| url.report() == Report::History)
    }

    fn body_of(&self, url: &Url) -> BodyOptions {
        let own = |history: &reports::History| BodyOptions {
            with_reg_pic: history.with_reg_pic,
            format: history.format,
            ..self.config.body
        };
        self.history_of(url).map_or(self.config.body, own)
    }

    fn proxy(&self, url: &Url) -> Option<Arc<Proxy>> {
        self.config.proxy.clone().filter(|proxy| proxy.is_for(url))
    }

    fn key(&self, file: &Path) -> Option<&Key> {
        self.keys.iter().find(|(known, _)| known == file).map(|(_, key)| key)
    }

    /// The settings for a trial of a server in a format, with statistics of their own.
    pub fn for_trial(&self, url: &Url, format: Format) -> Settings {
        let body = BodyOptions { format, ..self.config.body };
        Settings { body, ..self.of(url, &Arc::default(), &Rc::default()) }
    }
}

/// The members that every history event has in ext_data, even if only as `{}`: the box's documentation requires them.
fn required_of_history(this_box: &ThisBox) -> Result<Vec<Member>, ConfigFault> {
    let dev_sno = this_box.dev_sno.clone().map_or_else(|| this_box.serial(), Ok)?;
    Ok(vec![
        Member::new("dev_sno".into(), &dev_sno.into()),
        Member::new("grab_fiqa_info".into(), &Value::Object(Map::new())),
        Member::new("box_fiqa_info".into(), &Value::Object(Map::new())),
    ])
}

fn rate(options: &Options) -> Option<Arc<Rate>> {
    options.bounds.as_ref()?.bytes_per_second.map(|bytes| Arc::new(Rate::new(bytes)))
}

fn key(file: &Path) -> Result<Key, ConfigFault> {
    let fault =
        |why: String| ConfigFault { key: "sign.key_file".into(), value: None, allowed: format!("the file {why}") };
    let most = *KEY.end() + 1; // with a newline
    let Secret { bytes, length } = secret_file::read(file, most).map_err(fault)?;
    if bytes.len() > most {
        return Err(fault(format!("has {length} bytes, but may have {} at most", KEY.end())));
    }
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if !KEY.contains(&secret.len()) {
        return Err(fault(format!("has {} bytes, and a key has 16 to 1024", secret.len())));
    }
    Ok(Key::new(secret))
}
