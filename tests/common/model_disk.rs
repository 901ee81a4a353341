//! A disk in memory that loses power and fails: what a POSIX file system may do at its worst.
//!
//! - A file's bytes are durable after `sync` of the file; before that, after a power cut, any part of them may be there, or
//!   zeros, or rubbish, and the file may have any length.
//! - A name (made, linked, moved, taken away) is durable after `sync_folder` of its folder; before that each change of a name may
//!   have happened or not, independently of all others, even of the other half of a rename.
//! - A failed `sync` loses what was written since the last one; the next `sync` succeeds and changes nothing. The same for the
//!   names of files in a folder.
//! - Any call may fail, with or without having had its effect (but what could not be removed is still there); a write may be
//!   short.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use sophon_uplink::picture::{Lost, PictureSource};
use sophon_uplink::ring::Words;
use sophon_uplink::spool::disk::{Disk, Former, Free, Mapped, Stat};

#[derive(Clone)]
enum Node {
    File { data: Arc<Vec<u8>>, durable: Arc<Vec<u8>>, dirty: bool, forgotten: bool },
    Folder { names: BTreeMap<String, usize>, durable: BTreeMap<String, usize>, pending: Vec<(String, Option<usize>)> },
}

/// Calls number `at.start..at.end` fail with `errno`, after their effect if `after`.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at: Range<u64>,
    pub errno: i32,
    pub after: bool,
}

/// The disk's whole state: cheap to copy.
#[derive(Clone)]
pub struct State {
    nodes: Vec<Rc<Node>>,
    random: fastrand::Rng,
    pub capacity: u64,
    /// Inodes.
    pub max_files: u64,
    /// Whether a file can have several names.
    pub has_links: bool,
    pub calls: u64,
    pub failure: Option<Failure>,
    /// A file of this name can neither be deleted nor get another name: its inode is damaged, or it is another user's.
    pub stuck: Option<(String, i32)>,
    /// Files of this name cannot be read: EIO.
    pub unreadable: Option<String>,
}

/// A handle on a disk; clones are the same disk.
#[derive(Clone)]
pub struct ModelDisk {
    state: Rc<RefCell<State>>,
    /// The state before every call that changes something, while somebody wants it.
    pub history: Rc<RefCell<Option<Vec<State>>>>,
}

/// Bytes as they were when the file was opened.
#[derive(Debug)]
pub struct Bytes(pub Arc<Vec<u8>>);

impl Bytes {
    pub fn of(bytes: Vec<u8>) -> Bytes {
        Bytes(Arc::new(bytes))
    }
}

impl Words for Bytes {
    fn word(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8));
        u64::from_le_bytes(self.0[offset..offset + 8].try_into().unwrap())
    }
}

impl PictureSource for Bytes {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        encode(&self.0[range]);
        Ok(())
    }
}

impl Mapped for Bytes {
    fn size(&self) -> usize {
        self.0.len()
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        path.iter().skip(1).try_fold(0, |node, name| match &*self.nodes[node] {
            Node::Folder { names, .. } => names.get(name.to_str().unwrap()).copied().ok_or(errno(libc::ENOENT)),
            Node::File { .. } => Err(errno(libc::ENOTDIR)),
        })
    }

    pub fn has(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    /// A file's bytes.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        match &*self.nodes[self.find(path).ok()?] {
            Node::File { data, .. } => Some(data.to_vec()),
            Node::Folder { .. } => None,
        }
    }

    /// Whether a file has bytes that are not durable: a power cut may then tear all of it.
    pub fn is_dirty(&self, path: &Path) -> bool {
        self.find(path).is_ok_and(|node| matches!(*self.nodes[node], Node::File { dirty: true, .. }))
    }

    /// Whether the file's names can be changed.
    fn moves(&self, path: &Path) -> io::Result<()> {
        match &self.stuck {
            Some((name, number)) if path.file_name().is_some_and(|its| its == name.as_str()) => Err(errno(*number)),
            _ => Ok(()),
        }
    }

    fn place(&self, path: &Path) -> io::Result<(usize, String)> {
        Ok((self.find(path.parent().unwrap())?, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn names(&self, node: usize) -> io::Result<&BTreeMap<String, usize>> {
        match &*self.nodes[node] {
            Node::Folder { names, .. } => Ok(names),
            Node::File { .. } => Err(errno(libc::ENOTDIR)),
        }
    }

    /// Gives a name to a node, or takes it away.
    fn set(&mut self, (folder, name): (usize, String), node: Option<usize>) {
        let Node::Folder { names, pending, .. } = Rc::make_mut(&mut self.nodes[folder]) else { panic!("a file") };
        match node {
            Some(node) => drop(names.insert(name.clone(), node)),
            None => drop(names.remove(&name)),
        }
        pending.push((name, node));
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let place = self.place(path)?;
        if self.names(place.0)?.contains_key(&place.1) {
            return Err(errno(libc::EEXIST));
        }
        self.nodes.push(Rc::new(node));
        self.set(place, Some(self.nodes.len() - 1));
        Ok(self.nodes.len() - 1)
    }

    /// The power goes and comes back.
    pub fn cut(&self, random: &mut fastrand::Rng) -> State {
        let nodes = self.nodes.iter().map(|node| match &**node {
            Node::File { data, durable, dirty, forgotten } => {
                let data = if *dirty || *forgotten { Arc::new(torn(data, durable, random)) } else { Arc::clone(data) };
                Rc::new(Node::File { durable: Arc::clone(&data), data, dirty: false, forgotten: false })
            }
            Node::Folder { durable, pending, names } if pending.is_empty() && names == durable => Rc::clone(node),
            Node::Folder { durable, pending, .. } => {
                let mut names = durable.clone();
                for (name, node) in pending {
                    match node {
                        _ if random.bool() => {} // it did not happen; a later change of the same name may have
                        Some(node) => drop(names.insert(name.clone(), *node)),
                        None => drop(names.remove(name)),
                    }
                }
                Rc::new(Node::Folder { durable: names.clone(), names, pending: Vec::new() })
            }
        });
        State {
            nodes: nodes.collect(),
            random: random.fork(),
            calls: 0,
            failure: None,
            stuck: None,
            unreadable: None,
            ..*self
        }
    }

    /// Every file below `path`, by node, with its size.
    pub fn files_below(&self, path: &Path) -> BTreeMap<usize, u64> {
        let (mut files, mut folders) = (BTreeMap::new(), BTreeSet::from([self.find(path).unwrap_or(0)]));
        while let Some(folder) = folders.pop_first() {
            for (name, node) in self.names(folder).unwrap() {
                match &*self.nodes[*node] {
                    Node::Folder { .. } => drop(folders.insert(*node)),
                    // Notes, and what is made and taken away while a spool is opened.
                    Node::File { .. } if ["url", "heirs", "reasons", "probe", "probe-2"].contains(&name.as_str()) => {}
                    Node::File { data, .. } => drop(files.insert(*node, data.len() as u64)),
                }
            }
        }
        files
    }

    /// Counts a call: whether it fails, and whether it has its effect.
    fn call(&mut self) -> (Option<io::Error>, bool) {
        self.calls += 1;
        match &self.failure {
            Some(failure) if failure.at.contains(&(self.calls - 1)) => (Some(errno(failure.errno)), failure.after),
            _ => (None, true),
        }
    }
}

/// What may be left of a file that was not flushed.
fn torn(data: &[u8], durable: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = if random.u8(..4) == 0 { durable.to_vec() } else { data.to_vec() };
    if random.bool() {
        bytes.truncate(random.usize(..bytes.len() + 1));
    }
    let from = random.usize(..bytes.len() + 1);
    let hole = from..random.usize(from..bytes.len() + 1);
    match random.u8(..4) {
        0 => bytes[hole].fill(0),
        1 => random.fill(&mut bytes[hole]),
        _ => {}
    }
    bytes
}

impl ModelDisk {
    /// An empty disk with the folder `/data`.
    pub fn new(seed: u64) -> ModelDisk {
        let names = BTreeMap::from([("data".to_owned(), 1)]);
        let root = Node::Folder { durable: names.clone(), names, pending: Vec::new() };
        let data = Node::Folder { names: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() };
        ModelDisk::of(State {
            nodes: vec![Rc::new(root), Rc::new(data)],
            random: fastrand::Rng::with_seed(seed),
            capacity: 1 << 30,
            max_files: u64::MAX,
            has_links: true,
            calls: 0,
            failure: None,
            stuck: None,
            unreadable: None,
        })
    }

    pub fn of(state: State) -> ModelDisk {
        ModelDisk { state: Rc::new(RefCell::new(state)), history: Rc::default() }
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub fn replace(&self, state: State) {
        *self.state.borrow_mut() = state;
    }

    /// What the file system cannot do: give a file several names, hold more files.
    pub fn limit(&self, has_links: bool, max_files: u64) {
        let mut state = self.state.borrow_mut();
        (state.has_links, state.max_files) = (has_links, max_files);
    }

    pub fn fail(&self, failure: Option<Failure>) {
        self.state.borrow_mut().failure = failure;
    }

    /// Reads of files of this name fail with EIO.
    pub fn fail_reads_of(&self, name: Option<&str>) {
        self.state.borrow_mut().unreadable = name.map(str::to_owned);
    }

    pub fn stick(&self, stuck: Option<(String, i32)>) {
        self.state.borrow_mut().stuck = stuck;
    }

    pub fn calls(&self) -> u64 {
        self.state.borrow().calls
    }

    /// A call that changes something.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        if let Some(history) = &mut *self.history.borrow_mut() {
            history.push(self.state());
        }
        let mut state = self.state.borrow_mut();
        match state.call() {
            (None, _) => change(&mut state),
            (Some(error), after) => {
                if after {
                    drop(change(&mut state));
                }
                Err(error)
            }
        }
    }

    /// As `change`, but one that fails has no effect.
    fn change_or_not<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        if let Some(history) = &mut *self.history.borrow_mut() {
            history.push(self.state());
        }
        let mut state = self.state.borrow_mut();
        state.call().0.map_or_else(|| change(&mut state), Err)
    }

    /// A call that only looks.
    fn look<T>(&self, look: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.borrow_mut();
        match state.call() {
            (None, _) => look(&state),
            (Some(error), _) => Err(error),
        }
    }
}

impl Disk for ModelDisk {
    type File = usize;
    type Mapped = Bytes;

    fn claim(&mut self, path: &Path) -> io::Result<Option<Former>> {
        self.change(|state| state.find(path).map(|_| None)) // one process has this disk, and nothing is mounted on it
    }

    fn is_claimed(&self, path: &Path) -> io::Result<bool> {
        self.look(|state| state.find(path).map(|_| true))
    }

    fn make_folder(&self, path: &Path, _: bool) -> io::Result<bool> {
        let folder = Node::Folder { names: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() };
        self.change(|state| match state.find(path) {
            Ok(found) => state.names(found).map(|_| false),
            Err(_) => state.add(path, folder).map(|_| true),
        })
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            if !state.names(state.find(path)?)?.is_empty() {
                return Err(errno(libc::ENOTEMPTY));
            }
            let place = state.place(path)?;
            state.set(place, None);
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<usize> {
        let file = Node::File { data: Arc::default(), durable: Arc::default(), dirty: true, forgotten: false };
        self.change(|state| state.add(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<usize> {
        self.change(|state| {
            let node = state.find(path)?;
            if matches!(*state.nodes[node], Node::Folder { .. }) { Err(errno(libc::EISDIR)) } else { Ok(node) }
        })
    }

    fn write_at(&self, file: &mut usize, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.change(|state| {
            let short = state.random.u8(..8) == 0;
            let count = if short { state.random.usize(1..=bytes.len()) } else { bytes.len() };
            let Node::File { data, dirty, .. } = Rc::make_mut(&mut state.nodes[*file]) else { panic!("a folder") };
            let (data, offset) = (Arc::make_mut(data), offset as usize);
            data.resize(data.len().max(offset + count), 0);
            data[offset..offset + count].copy_from_slice(&bytes[..count]);
            *dirty = true;
            Ok(count)
        })
    }

    fn sync(&self, file: &mut usize) -> io::Result<()> {
        let synced = self.change(|state| {
            let Node::File { data, durable, dirty, .. } = Rc::make_mut(&mut state.nodes[*file]) else { panic!() };
            (*durable, *dirty) = (Arc::clone(data), false);
            Ok(())
        });
        if synced.is_err()
            && let Node::File { dirty, forgotten, .. } = Rc::make_mut(&mut self.state.borrow_mut().nodes[*file])
        {
            (*dirty, *forgotten) = (false, true);
        }
        synced
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let (node, place) = (state.find(from)?, state.place(to)?);
            state.moves(from)?;
            if !state.has_links {
                return Err(errno(libc::EPERM));
            }
            if state.names(place.0)?.contains_key(&place.1) {
                return Err(errno(libc::EEXIST));
            }
            state.set(place, Some(node));
            Ok(())
        })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change_or_not(|state| {
            if matches!(*state.nodes[state.find(path)?], Node::Folder { .. }) {
                return Err(errno(libc::EISDIR));
            }
            state.moves(path)?;
            let place = state.place(path)?;
            state.set(place, None);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let (node, old, new) = (state.find(from)?, state.place(from)?, state.place(to)?);
            state.set(new, Some(node));
            state.set(old, None);
            Ok(())
        })
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let synced = self.change(|state| {
            let node = state.find(path)?;
            let Node::Folder { durable, pending, .. } = Rc::make_mut(&mut state.nodes[node]) else { panic!("a file") };
            apply(durable, pending);
            Ok(())
        });
        let mut state = self.state.borrow_mut();
        if synced.is_err()
            && let Ok(node) = state.find(path)
        {
            let mut random = state.random.fork();
            let files: Vec<bool> = state.nodes.iter().map(|node| matches!(**node, Node::File { .. })).collect();
            if let Node::Folder { durable, pending, .. } = Rc::make_mut(&mut state.nodes[node]) {
                // Some come to the disk, the others never do, though they are seen; folders are still to come.
                let is_file = |node: &Option<usize>| node.is_none_or(|node| files[node]);
                let (mut some, later) =
                    std::mem::take(pending).into_iter().partition::<Vec<_>, _>(|(_, node)| is_file(node));
                some.retain(|_| random.bool());
                apply(durable, &mut some);
                *pending = later;
            }
        }
        synced
    }

    fn list(&self, path: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        let names = self.look(|state| Ok(state.names(state.find(path)?)?.keys().cloned().collect::<Vec<_>>()))?;
        names.iter().rev().for_each(|name| each(OsStr::new(name)));
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.look(|state| {
            let node = state.find(path)?;
            Ok(match &*state.nodes[node] {
                Node::File { data, .. } => Stat { bytes: data.len() as u64, regular: true, file: node as u64 },
                Node::Folder { .. } => Stat { bytes: 4096, regular: false, file: node as u64 },
            })
        })
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        if path.file_name().and_then(OsStr::to_str) == self.state.borrow().unreadable.as_deref() {
            return Err(errno(libc::EIO));
        }
        self.look(|state| match &*state.nodes[state.find(path)?] {
            Node::File { data, .. } if !data.is_empty() => Ok(Bytes(Arc::clone(data))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        })
    }

    fn free(&self, _: &Path) -> io::Result<Free> {
        self.look(|state| {
            let files = state.files_below(Path::new("/"));
            let used: u64 = files.values().map(|size| size.next_multiple_of(4096)).sum();
            let files = state.max_files.saturating_sub(files.len() as u64);
            Ok(Free { bytes: state.capacity.saturating_sub(used), files })
        })
    }
}

fn apply(durable: &mut BTreeMap<String, usize>, pending: &mut Vec<(String, Option<usize>)>) {
    for (name, node) in pending.drain(..) {
        match node {
            Some(node) => drop(durable.insert(name, node)),
            None => drop(durable.remove(&name)),
        }
    }
}
