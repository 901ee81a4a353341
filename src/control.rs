//! Puts configs into force. There is only this way: at the start, on SIGHUP and through the API.
//!
//! ```text
//!  SIGHUP ──▶ read FILE ───────────────────────▶ check ─────────────────▶ in force ─▶ FILE.bak: the same
//!  API ─────▶ read FILE ──▶ change some keys ──▶ check ──▶ save, fsync ──▶ in force ─▶ FILE.bak: the same ─▶ the answer
//! ```
//!
//! - One change at a time. A change is completed even if its client disconnects.
//! - The API changes the present content of the file, so manual edits stay. If the file is bad, the API still accepts a change:
//!   it keeps the file as `FILE.bad` and applies the change to the config in force.
//! - `FILE.bak` is the config in force, whatever put it into force. So a typing error and a restart never bring back an older
//!   config, which may name a former owner of the box. `FILE.bak` is written after the file and is never newer.
//! - A change may name the revision that it applies to. It is refused if that revision is no longer in force.
//! - If the file is bad at a start, the uplink uses `FILE.bak` and reports it in the log and in the status. If the file is
//!   missing, the uplink does not start: somebody removed it, and an old copy must not cause uploads.
//! - Files are read and written on another thread: a flash that needs seconds for an fsync does not delay events.

use std::cell::{Ref, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::{Mutex, Notify};
use tokio::task::{spawn_blocking, spawn_local};
use tracing::{error, info, warn};

use crate::config::document::Document;
use crate::config::{self, Config, ConfigError, ConfigFault, read_file, save};
use crate::deliver::setup::Setup;
use crate::uplink::Uplink;

/// A config that can be put into force, with its text and with the content of the files that it names. Putting it into force
/// reads nothing and cannot fail.
pub struct CheckedConfig {
    text: Bytes,
    setup: Arc<Setup>,
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The change is not allowed.
    #[error("{}", listed(.0))]
    Refused(Vec<ConfigFault>),
    /// The config cannot be put into force: a certificate file that was good before is not good any more.
    #[error("the config cannot be put into force, and nothing was changed: {0}")]
    NotNow(ConfigFault),
    /// The file cannot be written.
    #[error("the config file cannot be written, and nothing was changed: {}", save::explained(.0))]
    NotSaved(io::Error),
    /// The change was made for a revision that is not in force.
    #[error(
        "somebody else has changed the config, so nothing was changed now: check the config in force, then send the change with its revision {0:?}"
    )]
    Stale(String),
}

/// Config keys and their new values.
pub type Changes = Vec<(&'static str, Value)>;

/// Makes the changes from the present document and from the one in force. They differ if somebody has edited the file.
pub type MakeChanges = Box<dyn FnOnce(&Document, &Document) -> Result<Changes, ConfigFault>>;

/// How often the spool may evict events to make room for one change.
const MAX_EVICTIONS: u32 = 8;

/// The revisions that a change applies to, as [`Control::revision`] names them.
pub type Revisions = Vec<String>;

/// Holds the config in force and changes it.
pub struct Control {
    path: PathBuf,
    uplink: Rc<Uplink>,
    good: RefCell<CheckedConfig>,
    /// What is wrong with the file, if it is not the config in force.
    trouble: RefCell<Option<String>>,
    /// Locked while a config is being changed.
    turn: Mutex<()>,
    changed: Notify,
}

impl CheckedConfig {
    /// Reads and checks the file, and the certificate files that it names.
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

    /// The same of `text`, which is or is to be the file at `path`.
    ///
    /// # Errors
    /// Every fault.
    pub fn of_text(text: Bytes, path: &Path) -> Result<CheckedConfig, ConfigError> {
        match Setup::read(Config::of_text(&text, path)?) {
            Ok(setup) => Ok(CheckedConfig { text, setup: Arc::new(setup) }),
            Err(fault) => Err(ConfigError { path: path.to_owned(), faults: vec![fault] }),
        }
    }

    /// The parsed config.
    pub fn config(&self) -> &Config {
        self.setup.config()
    }

    /// The same with what its files hold.
    pub fn setup(&self) -> &Arc<Setup> {
        &self.setup
    }

    /// Reads the file; if it cannot be used, the last good one. Reads no other file. For a process that is still root: the files
    /// that the config names must be read by the user that it becomes.
    ///
    /// # Errors
    /// The fault of the file, if neither can be used.
    pub fn peek(path: &Path) -> Result<Config, ConfigError> {
        let path = &save::followed(path);
        let other = |extension| Config::load(&save::beside(path, extension));
        Config::load(path).or_else(|error| other("saving").or_else(|_| other("bak")).map_err(|_| error))
    }

    /// The last good config: the text of a write in place that was cut off, or else the config that was in force last.
    fn before(path: &Path) -> Result<CheckedConfig, ConfigError> {
        let path = save::followed(path);
        CheckedConfig::read(&save::beside(&path, "saving"))
            .or_else(|_| CheckedConfig::read(&save::beside(&path, "bak")))
    }

    /// Reads like [`CheckedConfig::read`], or returns the last good config with the fault of the file.
    ///
    /// # Errors
    /// Neither is good, or the file is missing.
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
    /// Creates the control of the running `uplink`, which has `good` in force. `fault` says what is wrong with the file if `good`
    /// comes from another one.
    pub fn new(path: &Path, uplink: Rc<Uplink>, good: CheckedConfig, fault: Option<ConfigError>) -> Rc<Control> {
        let trouble = fault
            .map(|fault| format!("{fault}\n  the last good config is in force: {}.bak or .saving", path.display()));
        if let Some(trouble) = &trouble {
            error!("{trouble}");
        }
        good.config().warnings().iter().for_each(|warning| warn!("{warning}"));
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

    /// Saves the config of this start as the last good one, and completes a write in place that was cut off. Writes only what
    /// differs.
    async fn remember_the_start(self: Rc<Self>) {
        let _turn = self.turn.lock().await;
        let (path, text) = (self.path.clone(), self.good.borrow().text.clone());
        let torn = self.trouble.borrow().is_some().then_some(text);
        let finished =
            spawn_blocking(move || save::finish(&path, torn.as_deref())).await.expect("saving does not panic");
        match finished {
            Ok(true) if self.trouble.borrow().is_none() => {} // the file was whole; only FILE.saving was left
            Ok(true) => {
                info!(config = %self.path.display(), "an interrupted write of the config file was completed");
                self.trouble.replace(None);
            }
            Ok(false) => {}
            Err(error) => warn!("{} cannot be written: {}", self.path.display(), save::explained(&error)),
        }
        self.remember().await;
    }

    /// Path of the config file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The config in force.
    pub fn config(&self) -> Ref<'_, Config> {
        Ref::map(self.good.borrow(), CheckedConfig::config)
    }

    /// A key of the config in force as it was written; none if it was not.
    pub fn written(&self, key: &str) -> Option<Value> {
        self.document().ok()?.get(key)
    }

    fn document(&self) -> Result<Document, String> {
        Document::parse(&self.good.borrow().text)
    }

    /// The revision of the config in force. It stays the same while the text does.
    pub fn revision(&self) -> String {
        format!("{:08x}", crc32fast::hash(&self.good.borrow().text))
    }

    /// Why the file is not in force, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Waits until a config comes into force. Remembers one such moment if nobody waits. For a single waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Puts the file into force. If the file is bad, logs its faults and changes nothing.
    pub async fn reload(self: Rc<Self>) {
        let _turn = self.turn.lock().await;
        let path = self.path.clone();
        let read = spawn_blocking(move || CheckedConfig::read(&path)).await.expect("reading does not panic");
        match read {
            Ok(good) => {
                self.put_into_force(good);
                info!(config = %self.path.display(), "config read again");
                self.remember().await;
            }
            Err(error) => {
                error!("the config stays as it was: {error}");
                self.trouble.replace(Some(format!("{error}\n  the config read before stays in force")));
            }
        }
    }

    /// Changes some keys. When this returns, the change is on the disk and in force. `revision`: the revisions that it applies
    /// to; none: any.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn change(self: &Rc<Self>, changes: MakeChanges, revision: Option<Revisions>) -> Result<(), ChangeError> {
        let control = Rc::clone(self);
        let change = async move { control.change_in_turn(changes, revision.as_ref()).await };
        spawn_local(change).await.expect("changing does not panic")
    }

    async fn change_in_turn(&self, changes: MakeChanges, revision: Option<&Revisions>) -> Result<(), ChangeError> {
        let _turn = self.turn.lock().await;
        let current = self.revision();
        if revision.is_some_and(|meant| !meant.contains(&current)) {
            return Err(ChangeError::Stale(current));
        }
        let path = self.path.clone();
        let read = spawn_blocking(move || CheckedConfig::read(&path)).await.expect("reading does not panic");
        let (base, just_read, fault) = match read {
            Ok(good) => (good.text, Some(good.setup), None),
            Err(error) => (self.good.borrow().text.clone(), None, Some(error)),
        };
        let document = Document::parse(&base).expect("it was good");
        let in_force = self.document().expect("it was good");
        let changes = changes(&document, &in_force).map_err(|fault| ChangeError::Refused(vec![fault]))?;
        let is_new = fault.is_some() || changes.iter().any(|(key, value)| document.get(key).as_ref() != Some(value));
        let text = if is_new { document.with(&changes).text() } else { base.clone() };
        let config = Config::of_text(&text, &self.path).map_err(|error| ChangeError::Refused(error.faults))?;
        // Check this before writing: if a certificate file is missing, the new config could not come into force.
        let setup = match just_read {
            Some(just_read) => just_read.changed(config),
            None => Setup::read(config),
        };
        let good = CheckedConfig { text, setup: Arc::new(setup.map_err(ChangeError::NotNow)?) };
        if is_new {
            let old = fault.is_none().then_some(base);
            let was_kept = self.save(good.text.clone(), old).await.map_err(ChangeError::NotSaved)?;
            if let Some(fault) = fault.filter(|_| was_kept) {
                warn!("the old config file was not in force, and is kept as {}.bad: {fault}", self.path.display());
            }
        }
        self.put_into_force(good);
        info!(config = %self.path.display(), "config changed through the API");
        self.remember().await;
        Ok(())
    }

    /// Saves the file. `old` is the file's present content if it is good.
    async fn save(&self, new: Bytes, old: Option<Bytes>) -> io::Result<bool> {
        let mut evictions = 0;
        loop {
            let (path, new, old) = (self.path.clone(), new.clone(), old.clone());
            let replaced = spawn_blocking(move || save::replace(&path, &new, old.as_deref()));
            match replaced.await.expect("saving does not panic") {
                // A new server address must be accepted even if events have filled the disk.
                Err(error)
                    if evictions < MAX_EVICTIONS
                        && save::is_full(&error)
                        && self.uplink.give_way(config::folder_of(&save::followed(&self.path))).await =>
                {
                    evictions += 1;
                }
                replaced => return replaced,
            }
        }
    }

    /// Saves the config in force as the last good one. A failure does not undo the change: the config itself is good.
    async fn remember(&self) {
        let (path, text) = (self.path.clone(), self.good.borrow().text.clone());
        let kept = spawn_blocking(move || save::keep(&path, &text)).await.expect("saving does not panic");
        if let Err(error) = kept {
            let why = save::explained(&error);
            warn!("{}.bak, the last good config, cannot be written: {why}", self.path.display());
        }
    }

    fn put_into_force(&self, good: CheckedConfig) {
        self.uplink.apply(Arc::clone(&good.setup));
        good.config().warnings().iter().for_each(|warning| warn!("{warning}"));
        self.good.replace(good);
        self.trouble.replace(None);
        self.changed.notify_one();
    }
}

fn listed(faults: &[ConfigFault]) -> String {
    faults.iter().map(ConfigFault::to_string).collect::<Vec<_>>().join("; ")
}
