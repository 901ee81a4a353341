//! Lists the content of a spool for `sophon-uplink spool` and `sophon-uplink dead list`. It changes nothing, and works while an
//! uplink uses the spool.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::disk::{Disk as _, Mapped as _, RealDisk};
use super::file::{Address, BAD_SUFFIX, Destination, EVENT_SUFFIX, Form, HEIRS_FILE, Header, URL_FILE, counter};
use super::group::Part;
use super::reasons::{DeadLetterReason, Letter, REASONS_FILE};

/// The content of a spool. Files may be added and deleted meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// The spool's folder.
    pub dir: PathBuf,
    /// Destinations with their waiting events.
    pub waiting: Vec<Waiting>,
    /// Destinations with their dead letters.
    pub dead: Vec<Folder>,
    /// Files in quarantine.
    pub set_aside: u64,
}

/// The events that wait for a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Where.
    #[serde(flatten)]
    pub folder: Folder,
    /// Whether the destination is parked: its events wait until it, or a new one, is in the config.
    pub parked: bool,
}

/// A destination's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Folder {
    /// None if the folder does not say.
    pub url: Option<String>,
    /// The folder's name.
    pub name: String,
    /// Oldest first.
    pub events: Vec<Filed>,
}

/// An event's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filed {
    /// Its number in the spool.
    pub number: u64,
    /// The size of the file.
    pub bytes: u64,
    /// None if the file's header is damaged, or of another release.
    pub event: Option<String>,
    /// Whether it is sealed.
    pub sealed: bool,
    /// The reason of a dead letter, if it is known.
    #[serde(flatten)]
    pub reason: Option<DeadLetterReason>,
}

impl Contents {
    /// Lists the spool in `dir`. `destinations` are those of the config.
    ///
    /// # Errors
    /// If there is none, or it may not be read.
    pub fn of(dir: &Path, destinations: &[Address]) -> io::Result<Contents> {
        fs::read_dir(dir)?; // no folder is no empty spool
        let known: Vec<String> = destinations
            .iter()
            .flat_map(|address| [Some(address.destination), address.former])
            .flatten()
            .map(|destination| destination.to_string())
            .collect();
        let waiting = folders(&dir.join("to"), &Reasons::new())?;
        let has_heirs = |folder: &Folder| {
            let note = fs::read_to_string(dir.join("to").join(&folder.name).join(HEIRS_FILE)).unwrap_or_default();
            note.lines().any(|line| known.iter().any(|name| name == line))
        };
        let is_parked = |folder: &Folder| !known.contains(&folder.name) && !has_heirs(folder);
        let waiting = waiting.into_iter().map(|folder| Waiting { parked: is_parked(&folder), folder });
        Ok(Contents {
            dir: dir.to_owned(),
            waiting: waiting.collect(),
            dead: dead_letters(dir)?,
            set_aside: names(&dir.join("bad"))?.iter().filter(|name| counter(name, BAD_SUFFIX).is_some()).count()
                as u64,
        })
    }
}

/// The dead letters in the spool at `dir`, by destination.
///
/// # Errors
/// If there is no spool, or it may not be read.
pub fn dead_letters(dir: &Path) -> io::Result<Vec<Folder>> {
    fs::read_dir(dir)?;
    // If the file is missing or may not be read, only the reasons are unknown.
    let reasons = DeadLetterReason::all(&fs::read(dir.join(REASONS_FILE)).unwrap_or_default());
    folders(&dir.join("dead"), &reasons)
}

/// The names in a folder in order, which is also the order of events' numbers. Empty if there is no such folder.
fn names(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names: Vec<_> = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>()?,
    };
    names.sort_unstable();
    Ok(names)
}

/// As [`DeadLetterReason::all`] returns them.
type Reasons = BTreeMap<Letter, (u32, u64, DeadLetterReason)>;

fn folders(above: &Path, reasons: &Reasons) -> io::Result<Vec<Folder>> {
    let mut found = Vec::new();
    for name in names(above)? {
        let (path, destination) = (above.join(&name), Destination::from_name(&name));
        if let Some(destination) = destination {
            let url = fs::read_to_string(path.join(URL_FILE)).ok().map(|url| url.trim_end().to_owned());
            let mut events = events(&path)?;
            for filed in &mut events {
                filed.reason = reasons.get(&(filed.number, destination)).map(|(_, _, reason)| reason.clone());
            }
            found.push(Folder { url, name: destination.to_string(), events });
        }
    }
    Ok(found)
}

fn events(folder: &Path) -> io::Result<Vec<Filed>> {
    let mut found = Vec::new();
    for name in names(folder)? {
        let Some(number) = counter(&name, EVENT_SUFFIX) else { continue };
        let path = folder.join(&name);
        // An event that is gone by now was delivered.
        let Ok(about) = fs::metadata(&path) else { continue };
        let part = RealDisk::default().map(&path).ok().and_then(|mapped| Part::of(mapped, number).ok());
        let bytes = part.as_ref().map_or(about.len(), |part| part.size() as u64);
        let header = part.and_then(|part| Header::read(&part).ok()).map(|(header, _)| header);
        let sealed = header.is_some_and(|header| matches!(header.form, Form::Sealed { .. }));
        found.push(Filed { number, bytes, event: header.map(|header| header.id.to_string()), sealed, reason: None });
    }
    Ok(found)
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "spool      {}", self.dir.display())?;
        let waiting = self.waiting.iter().map(|waiting| (&waiting.folder, waiting.parked)).collect::<Vec<_>>();
        let dead = self.dead.iter().map(|folder| (folder, false)).collect();
        for (kind, folders) in [("waiting", waiting), ("dead", dead)] {
            let total: usize = folders.iter().map(|(folder, _)| folder.events.len()).sum();
            writeln!(f, "{kind:<10} {total}")?;
            for (folder, is_parked) in folders.into_iter().filter(|(folder, _)| !folder.events.is_empty()) {
                let bytes: u64 = folder.events.iter().map(|filed| filed.bytes).sum();
                let (first, last) = (folder.events.first(), folder.events.last());
                let name = |filed: Option<&Filed>| filed.map_or(String::new(), Filed::to_string);
                let count = folder.events.len();
                let parked = if is_parked { ", parked: not in the config" } else { "" };
                writeln!(f, "  {count} events, {bytes} bytes, for {}{parked}", folder.label())?;
                writeln!(f, "    oldest {}", name(first))?;
                writeln!(f, "    newest {}", name(last))?;
            }
        }
        write!(f, "set aside  {}", self.set_aside)
    }
}

impl Folder {
    /// For people.
    pub fn label(&self) -> &str {
        self.url.as_deref().unwrap_or(&self.name)
    }
}

impl fmt::Display for Filed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.number, self.event.as_deref().unwrap_or("(unreadable)"))?;
        if self.sealed { f.write_str("  (sealed)") } else { Ok(()) }
    }
}
