//! The store of `--store DIR`: `events.jsonl`, one line an event, and `pictures/`, one file a picture.
//!
//! An event is stored if its complete line is there. So the pictures are written first (to a temporary name, flushed, renamed,
//! their folder flushed). Then the line is written in one write and flushed. After a failure everything is undone: the pictures
//! are removed, and the file is truncated to its previous length. A power cut leaves at most an incomplete line, which the next
//! start cuts off, and pictures without a line, which the next delivery of the same event replaces. The folder itself is flushed
//! when the store is opened.
//!
//! Only one process may use the store: it holds a lock on events.jsonl. Faces are personal data, so folders have mode 0700 and
//! files 0600.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use tracing::warn;

use crate::event::{Event, Which};
use crate::record::picture_file;

/// Name of a file until it is complete.
const UNFINISHED: &str = "tmp";

/// The open and locked store.
pub struct Disk {
    folder: PathBuf,
    events: Flock<File>,
    /// Length of events.jsonl up to the last complete line. Bytes beyond it are left by a failed write.
    length: u64,
}

/// The part of a line that identifies an event.
#[derive(Deserialize)]
struct Known {
    id: String,
}

impl Disk {
    /// Opens or creates the store. Calls `each` for every event in it, the oldest first. Repairs the effects of a power cut.
    pub fn open(folder: &Path, each: impl FnMut(String, Vec<u8>)) -> Result<Disk, String> {
        let in_folder = |error: io::Error| format!("cannot use {} as --store: {error}", folder.display());
        let pictures = folder.join("pictures");
        DirBuilder::new().recursive(true).mode(0o700).create(&pictures).map_err(in_folder)?;
        let path = folder.join("events.jsonl");
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(in_folder)?;
        let events = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => format!("another event-receive-server is using {} as --store", folder.display()),
            error => in_folder(error.into()),
        })?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(in_folder)?;
        // A folder above that was there before may belong to somebody else.
        if let Ok(above) = File::open(folder.join("..")) {
            above.sync_all().map_err(in_folder)?;
        }
        remove_unfinished(&pictures).map_err(in_folder)?;
        let length = read_events(&events, &path, each).map_err(in_folder)?;
        Ok(Disk { folder: folder.to_path_buf(), events, length })
    }

    /// Stores an event. After an error nothing of it is left.
    pub fn store(&mut self, id: &str, event: &Event, line: &str) -> io::Result<()> {
        // If an earlier failure could not be undone, do that before appending.
        if self.events.metadata()?.len() != self.length {
            self.events.set_len(self.length)?;
        }
        let mut written = Vec::new();
        let stored = self.store_pictures(id, event, &mut written).and_then(|()| self.append(line));
        if stored.is_err() {
            for picture in &written {
                let _ = fs::remove_file(picture);
            }
            let _ = self.events.set_len(self.length);
        }
        stored
    }

    /// Path of a picture of an event.
    pub fn picture_path(folder: &Path, id: &str, which: &Which) -> PathBuf {
        folder.join(picture_file(id, which))
    }

    fn store_pictures(&self, id: &str, event: &Event, written: &mut Vec<PathBuf>) -> io::Result<()> {
        for (which, picture) in event.pictures() {
            let path = Disk::picture_path(&self.folder, id, &which);
            let unfinished = path.with_extension(UNFINISHED);
            written.push(unfinished.clone());
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(&picture.bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            written.push(path);
        }
        if !written.is_empty() {
            File::open(self.folder.join("pictures"))?.sync_all()?;
        }
        Ok(())
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        self.events.write_all(line.as_bytes())?;
        self.events.sync_data()?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Removes pictures that were being written at a power cut.
fn remove_unfinished(pictures: &Path) -> io::Result<()> {
    for entry in fs::read_dir(pictures)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            warn!("removed {}, which was not finished", path.display());
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Reads every line and cuts off an incomplete last one. Returns the file's length.
fn read_events(events: &File, path: &Path, mut each: impl FnMut(String, Vec<u8>)) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, events);
    let (mut length, mut number, mut unreadable) = (0, 0_u64, 0_u64);
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            if !line.is_empty() {
                events.set_len(length)?;
                events.sync_data()?;
                warn!("{}: cut off a last line of {} bytes that was not finished", path.display(), line.len());
            }
            break;
        }
        number += 1;
        length += line.len() as u64 + 1;
        match serde_json::from_slice::<Known>(&line) {
            Ok(Known { id }) => each(id, line),
            Err(error) => {
                unreadable += 1;
                if unreadable == 1 {
                    warn!("{}: line {number} is no event and is left as it is: {error}", path.display());
                }
            }
        }
    }
    if unreadable > 1 {
        warn!("{}: {unreadable} lines in all are no events", path.display());
    }
    Ok(length)
}
