//! What a client needs to know.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use crate::body::BodyOptions;
use crate::body::constants::Constants;
use crate::body::encoder::Pool;
use crate::config::proxy::Proxy;
use crate::config::sending::{Bounds, GIVES_UP, Order};
use crate::config::{Options, Timeouts, Url};
use crate::deliver::history::History;
use crate::deliver::rate::Rate;
use crate::deliver::signature::Key;

/// The settings of a client.
#[derive(Clone)]
pub struct Settings {
    /// The format of bodies, from the config.
    pub body: BodyOptions,
    /// The parts of a body that are the same for every event of this box.
    pub constants: Arc<Constants>,
    /// The headers, from the config; their values are sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The timeouts, from the config.
    pub timeouts: Timeouts,
    /// The options of this destination, from the config.
    pub options: Options,
    /// The header for the signature, and the key; from the config and its key file.
    pub sign: Option<(HeaderName, Key)>,
    /// The proxy, from the config, if this destination is reached through one.
    pub proxy: Option<Arc<Proxy>>,
    /// The period, if events are sent once a period; none: at once.
    pub period: Option<Duration>,
    /// The standby servers, with their own settings.
    pub standby: Vec<(Url, Settings)>,
    /// Limits the bytes per second.
    pub rate: Option<Arc<Rate>>,
    /// The TLS config, from the config's certificate files.
    pub tls: Arc<rustls::ClientConfig>,
    /// Buffers for encoded chunks, shared by all clients.
    pub pool: Arc<Pool>,
    /// Statistics of deliveries, shared by all clients.
    pub history: Rc<History>,
}

impl Settings {
    /// Set for strict order: how long an event that is not taken stops the others at least, before it is given up; zero: it is
    /// never given up.
    pub fn in_order(&self) -> Option<Duration> {
        let is_strict = self.options.order == Some(Order::Strict);
        is_strict.then(|| self.options.order_gives_up.unwrap_or(GIVES_UP))
    }

    /// The limits on what is sent: rate, hours and age.
    pub fn bounds(&self) -> Bounds {
        self.options.bounds.unwrap_or_default()
    }
}
