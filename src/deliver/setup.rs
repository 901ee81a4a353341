//! What a config, and the files that it names, say to the clients of its destinations. They are read whenever a config comes into force.

use std::rc::Rc;
use std::sync::Arc;

use super::client::Settings;
use super::history::History;
use super::tls::ClientConfigs;
use crate::body::base64::Pool;
use crate::body::constants::Constants;
use crate::body::{BodyOptions, Format};
use crate::config::{Config, Fault, Url};

/// A config with its files read.
pub struct Setup {
    config: Config,
    tls: ClientConfigs,
    constants: Arc<Constants>,
}

impl Setup {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that does not do: the key that names it, and why.
    pub fn read(config: &Config) -> Result<Setup, Fault> {
        let constants = Arc::new(config.constants.read()?);
        Ok(Setup { tls: ClientConfigs::read(config)?, constants, config: config.clone() })
    }

    /// For a destination.
    pub fn of(&self, url: &Url, pool: &Arc<Pool>, history: &Rc<History>) -> Settings {
        Settings {
            body: self.config.body,
            constants: Arc::clone(&self.constants),
            headers: self.config.headers.clone(),
            timeouts: self.config.timeouts,
            options: self.config.options_of(url),
            proxy: self.config.proxy.clone().filter(|proxy| proxy.is_for(url)),
            tls: self.tls.of(url),
            pool: Arc::clone(pool),
            history: Rc::clone(history),
        }
    }

    /// For trying a server in a format, with counters of its own.
    pub fn for_trial(&self, url: &Url, format: Format) -> Settings {
        let body = BodyOptions { format, ..self.config.body };
        Settings { body, ..self.of(url, &Arc::default(), &Rc::default()) }
    }
}
