//! The one way by which a config comes into force: at the start, by SIGHUP and by the API alike.
//!
//! ```text
//!  SIGHUP ──▶ read FILE ───────────────────────▶ check ─────────────────▶ in force ─▶ FILE.bak: the same
//!  API ─────▶ read FILE ──▶ change some keys ──▶ check ──▶ save, fsync ──▶ in force ─▶ FILE.bak: the same ─▶ the answer
//! ```
//!
//! - One change at a time; a client that goes away meanwhile does not stop a change half-way.
//! - The API changes the file as it is now, so what somebody wrote by hand stays. A file that is not good is no reason to refuse: it
//!   is kept as `FILE.bad`, and the change is made to the config in force.
//! - `FILE.bak` is what is in force, whoever put it into force: a typing error and a restart bring back no older one, which may name
//!   an owner that the box had before. It is written after the file, and never ahead of it.
//! - A change may name the revision that it is meant for: where that is not in force any more it is refused.
//! - A start with a file that is not good goes on with `FILE.bak`, and says so in the log and in the status. A file that is not there
//!   is another matter: somebody took it away, and nothing is uploaded on the word of an old copy.
//! - Files are read and written on another thread: a flash that takes seconds for an fsync holds up no event.

use std::cell::{Ref, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::{Mutex, Notify};
use tokio::task::{spawn_blocking, spawn_local};
use tracing::{error, info, warn};

use crate::config::document::Document;
use crate::config::{self, Config, ConfigError, ConfigFault, read_file, save};
use crate::deliver::setup::Setup;
use crate::uplink::Uplink;

/// A config that can be in force, and how it was written.
#[derive(Clone, Debug)]
pub struct CheckedConfig {
    text: Bytes,
    /// What it means.
    pub config: Config,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// What was wanted is not allowed.
    #[error("{}", listed(.0))]
    Refused(Vec<ConfigFault>),
    /// It cannot be put into force: a certificate file of the config that was good before.
    #[error("the config cannot be put into force, and nothing was changed: {0}")]
    NotNow(ConfigFault),
    /// The file system does not take it.
    #[error("the config file cannot be written, and nothing was changed: {}", save::explained(.0))]
    NotSaved(io::Error),
    /// It was meant for another revision than the one in force.
    #[error(
        "somebody else has changed the config meanwhile, and nothing was changed now: look at what is in force, then send the change with its revision {0:?}"
    )]
    Stale(String),
}

/// The spool gives way so often for one change.
const WAYS_GIVEN: u32 = 8;

/// The revisions that a change is meant for, as [`Control::revision`] names them.
pub type Revisions = Vec<String>;

/// Holds the config in force and changes it.
pub struct Control {
    path: PathBuf,
    uplink: Rc<Uplink>,
    good: RefCell<CheckedConfig>,
    /// What is wrong with the file, where it is not what is in force.
    trouble: RefCell<Option<String>>,
    /// Held while a config is being changed.
    turn: Mutex<()>,
    changed: Notify,
}

impl CheckedConfig {
    /// Reads, checks, and tries the files that it names.
    ///
    /// # Errors
    /// Every fault.
    pub fn read(path: &Path) -> Result<CheckedConfig, ConfigError> {
        let text = read_file(path).map_err(|error| {
            let allowed = format!("it cannot be read: {error}");
            ConfigError {
                path: path.to_owned(),
                faults: vec![ConfigFault { key: "the file".into(), value: None, allowed }],
            }
        })?;
        CheckedConfig::of_text(text.into(), path)
    }

    fn of_text(text: Bytes, path: &Path) -> Result<CheckedConfig, ConfigError> {
        let config = Config::of_text(&text, path)?;
        match Setup::read(&config) {
            Ok(_) => Ok(CheckedConfig { text, config }),
            Err(fault) => Err(ConfigError { path: path.to_owned(), faults: vec![fault] }),
        }
    }

    /// What the file says, or where that cannot be used the last good one; no other file is touched. For who is still root: what
    /// the config names is read by the user that he becomes.
    ///
    /// # Errors
    /// The file's, when neither can be used.
    pub fn peek(path: &Path) -> Result<Config, ConfigError> {
        let path = &save::followed(path);
        let other = |extension| Config::load(&save::beside(path, extension));
        Config::load(path).or_else(|error| other("saving").or_else(|_| other("bak")).map_err(|_| error))
    }

    /// What was good before: a text whose writing in place was cut off, else the one that was in force last.
    fn before(path: &Path) -> Result<CheckedConfig, ConfigError> {
        let path = save::followed(path);
        CheckedConfig::read(&save::beside(&path, "saving"))
            .or_else(|_| CheckedConfig::read(&save::beside(&path, "bak")))
    }

    /// The same as [`CheckedConfig::read`], or the last good one with what is wrong with the file.
    ///
    /// # Errors
    /// When neither is good, or the file is not there.
    pub fn read_or_last(path: &Path) -> Result<(CheckedConfig, Option<ConfigError>), ConfigError> {
        let error = match CheckedConfig::read(path) {
            Ok(good) => return Ok((good, None)),
            Err(error) => error,
        };
        let before = path.exists().then(|| CheckedConfig::before(path));
        match before {
            Some(Ok(good)) => Ok((good, Some(error))),
            _ => Err(error),
        }
    }
}

impl Control {
    /// Of the running `uplink`, which has `good` in force; `fault` is what is wrong with the file, where it is not `good`.
    pub fn new(path: &Path, uplink: Rc<Uplink>, good: CheckedConfig, fault: Option<ConfigError>) -> Rc<Control> {
        let trouble = fault.map(|fault| format!("{fault}\n  in force is the last good one, {}.bak", path.display()));
        if let Some(trouble) = &trouble {
            error!("{trouble}");
        }
        good.config.warnings().iter().for_each(|warning| warn!("{warning}"));
        let control = Rc::new(Control {
            path: path.to_owned(),
            uplink,
            good: RefCell::new(good),
            trouble: RefCell::new(trouble),
            turn: Mutex::new(()),
            changed: Notify::new(),
        });
        spawn_local(Rc::clone(&control).remember_the_start());
        control
    }

    /// What was changed by hand before a start is the last good one from now on, and what was cut off while it was written in place
    /// is finished. Where nothing is to be done nothing is written.
    async fn remember_the_start(self: Rc<Self>) {
        let _turn = self.turn.lock().await;
        let (path, text) = (self.path.clone(), self.good.borrow().text.clone());
        let torn = self.trouble.borrow().is_some().then_some(text);
        let finished =
            spawn_blocking(move || save::finish(&path, torn.as_deref())).await.expect("saving does not panic");
        match finished {
            Ok(true) => {
                info!(config = %self.path.display(), "the file's writing was cut off, and is finished");
                self.trouble.replace(None);
            }
            Ok(false) => {}
            Err(error) => warn!("{} cannot be written: {}", self.path.display(), save::explained(&error)),
        }
        self.remember().await;
    }

    /// The config file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in force.
    pub fn config(&self) -> Ref<'_, Config> {
        Ref::map(self.good.borrow(), |good| &good.config)
    }

    /// A key of what is in force, as it was written; none where it was not.
    pub fn written(&self, key: &str) -> Option<Value> {
        Document::parse(&self.good.borrow().text).ok()?.get(key)
    }

    /// Which config is in force: a word that is the same while the text is.
    pub fn revision(&self) -> String {
        format!("{:08x}", crc32fast::hash(&self.good.borrow().text))
    }

    /// Why the file is not what is in force, where it is not.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Returns after the next time that a config came into force; remembers one such time. For one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Puts the file into force, or says what is wrong with it and changes nothing.
    pub async fn reload(self: Rc<Self>) {
        let _turn = self.turn.lock().await;
        let path = self.path.clone();
        let read = spawn_blocking(move || CheckedConfig::read(&path)).await.expect("reading does not panic");
        match read.and_then(|good| self.put_into_force(good).map_err(|fault| self.error(fault))) {
            Ok(()) => {
                info!(config = %self.path.display(), "config read again");
                self.remember().await;
            }
            Err(error) => {
                error!("the config stays as it was: {error}");
                self.trouble.replace(Some(format!("{error}\n  in force is what was read before")));
            }
        }
    }

    /// Changes some keys, on the disk and in force when this returns. `revision`: of the config that it is meant for, where that
    /// matters.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing has changed.
    pub async fn change(
        self: &Rc<Self>,
        changes: Vec<(&'static str, Value)>,
        revision: Option<Revisions>,
    ) -> Result<(), ChangeError> {
        let control = Rc::clone(self);
        let change = async move { control.change_in_turn(&changes, revision.as_ref()).await };
        spawn_local(change).await.expect("changing does not panic")
    }

    async fn change_in_turn(
        &self,
        changes: &[(&'static str, Value)],
        revision: Option<&Revisions>,
    ) -> Result<(), ChangeError> {
        let _turn = self.turn.lock().await;
        let current = self.revision();
        if revision.is_some_and(|meant| !meant.contains(&current)) {
            return Err(ChangeError::Stale(current));
        }
        let path = self.path.clone();
        let read = spawn_blocking(move || CheckedConfig::read(&path)).await.expect("reading does not panic");
        let (base, fault) = match read {
            Ok(good) => (good.text, None),
            Err(error) => (self.good.borrow().text.clone(), Some(error)),
        };
        let document = Document::parse(&base).expect("it was good");
        let is_new = fault.is_some() || changes.iter().any(|(key, value)| document.get(key).as_ref() != Some(value));
        let text = if is_new { document.with(changes).text() } else { base.clone() };
        let good = match Config::of_text(&text, &self.path) {
            Ok(config) => CheckedConfig { text, config },
            Err(error) => return Err(ChangeError::Refused(error.faults)),
        };
        // Before anything is written: a certificate that went away must not leave a file that cannot be in force.
        Setup::read(&good.config).map_err(ChangeError::NotNow)?;
        if is_new {
            let old = fault.is_none().then(|| base.clone());
            let was_kept = self.save(good.text.clone(), old).await.map_err(ChangeError::NotSaved)?;
            if let Some(fault) = fault.filter(|_| was_kept) {
                warn!(
                    "the file that was there is not what is in force, and is kept as {}.bad: {fault}",
                    self.path.display()
                );
            }
        }
        let now = good.text.clone();
        if let Err(fault) = self.put_into_force(good) {
            let back = self.save(base, Some(now)).await;
            if let Err(error) = back {
                error!("the config file has a change that is not in force: {error}");
            }
            return Err(ChangeError::NotNow(fault));
        }
        info!(config = %self.path.display(), "config changed through the API");
        self.remember().await;
        Ok(())
    }

    /// `old`: what the file holds, where that is good.
    async fn save(&self, new: Bytes, old: Option<Bytes>) -> io::Result<bool> {
        for _ in 0..WAYS_GIVEN {
            let (path, new, old) = (self.path.clone(), new.clone(), old.clone());
            let replaced = spawn_blocking(move || save::replace(&path, &new, old.as_deref()));
            match replaced.await.expect("saving does not panic") {
                // A server that moved must be told to us even where events have filled the disk.
                Err(error)
                    if save::is_full(&error)
                        && self.uplink.give_way(config::folder_of(&save::followed(&self.path))).await => {}
                replaced => return replaced,
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Keeps what is in force as the last good one. That it fails is no reason to refuse a config that is good.
    async fn remember(&self) {
        let (path, text) = (self.path.clone(), self.good.borrow().text.clone());
        let kept = spawn_blocking(move || save::keep(&path, &text)).await.expect("saving does not panic");
        if let Err(error) = kept {
            let why = save::explained(&error);
            warn!("{}.bak, the last good config, cannot be written: {why}", self.path.display());
        }
    }

    fn put_into_force(&self, good: CheckedConfig) -> Result<(), ConfigFault> {
        self.uplink.apply(good.config.clone())?;
        good.config.warnings().iter().for_each(|warning| warn!("{warning}"));
        self.good.replace(good);
        self.trouble.replace(None);
        self.changed.notify_one();
        Ok(())
    }

    fn error(&self, fault: ConfigFault) -> ConfigError {
        ConfigError { path: self.path.clone(), faults: vec![fault] }
    }
}

fn listed(faults: &[ConfigFault]) -> String {
    faults.iter().map(ConfigFault::to_string).collect::<Vec<_>>().join("; ")
}
