//! The promise: a sealed file gives back what was sealed, to its key alone, and whatever was changed of it is noticed; and what
//! was sealed once can be read by every later version.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use crate::model_disk::{Bytes, ModelDisk};
use crate::spool_world::{Records, addresses, config, root};
use proptest::prelude::*;
use sophon_uplink::event::Event;
use sophon_uplink::picture::{Lost, PictureSource};
use sophon_uplink::ring::Words;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::spool::disk::Mapped;
use sophon_uplink::spool::file::HEADER;
use sophon_uplink::spool::key::{Key, SALT};
use sophon_uplink::spool::opened::FileError;
use sophon_uplink::spool::seal::{CHUNK, TAG};
use sophon_uplink::spool::{Destination, Spool, SpooledEvent};

const RING: RingId = RingId([7; 16]);
/// Of a record beside its picture: header, identity_id with its header, the picture's header.
const REST: usize = 40 + 16 + 8;
/// A chunk as it lies in the file.
const SEALED_CHUNK: usize = CHUNK + TAG;

/// Records, and the key and the files that they were sealed to.
struct Sealed {
    records: Records,
    key: Key,
    files: Vec<Vec<u8>>,
}

impl Sealed {
    fn new(sizes: &[usize]) -> Sealed {
        let records = Records::new(sizes);
        let urls = ["http://a/".to_owned()];
        let disk = ModelDisk::new(1);
        let (mut spool, _) = Spool::open(disk.clone(), &config(Some(records.key_file())), &addresses(&urls));
        let to = Destination::of(&urls[0]);
        let file = |frame| {
            let stored = spool.store(RING, &*records.memory, frame, &[to]).unwrap();
            let file = disk.state().read(&root().join(format!("to/{to}/{:020}.event", stored.counter))).unwrap();
            spool.delivered(to, stored.counter).unwrap();
            file
        };
        let files = records.frames.iter().map(file).collect();
        Sealed { key: Key::read(&records.key_file()).unwrap(), records, files }
    }

    fn open(&self, file: &[u8]) -> Result<SpooledEvent<Bytes>, FileError> {
        SpooledEvent::check(Bytes(Arc::new(file.to_vec())), Some(&self.key))
    }

    /// The record in clear.
    fn record(&self, number: usize) -> Vec<u8> {
        let frame = &self.records.frames[number];
        let words = (0..frame.header.length as usize).step_by(8);
        words.flat_map(|at| self.records.memory.word(frame.offset + at).to_le_bytes()).collect()
    }

    #[track_caller]
    fn assert_damaged(&self, file: &[u8], what: &str) {
        match self.open(file) {
            Err(FileError::Damaged(_)) => {}
            other => panic!("{what}: {:?}", other.map(|event| event.id)),
        }
    }
}

/// Mends the checksum of a head that was changed, as who changes it on purpose does.
fn mend(file: &mut [u8]) {
    let crc = crc32fast::hash(&file[..HEADER - 4]);
    file[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}

fn set_length(file: &mut [u8], length: usize) {
    file[0x10..0x18].copy_from_slice(&(length as u64).to_le_bytes());
    mend(file);
}

/// Where a chunk lies in the file.
fn chunk(number: usize) -> Range<usize> {
    let start = HEADER + SALT + number * SEALED_CHUNK;
    start..start + SEALED_CHUNK
}

#[test]
fn every_length_around_the_borders_of_chunks_comes_back() {
    let mut seen = BTreeSet::new();
    let borders = (0..=4).map(|border| border * CHUNK);
    for length in borders.flat_map(|border| (border..border + 48).step_by(8)).filter(|length| *length > REST + 24) {
        let here = Sealed::new(&[length - 24 - REST]);
        let (file, record) = (&here.files[0], here.record(0));
        assert_eq!(file.len(), HEADER + SALT + record.len() + record.len().div_ceil(CHUNK) * TAG);
        seen.insert(record.len());
        let event = here.open(file).unwrap();
        here.records.assert_same(event.id, &event, &event.frame);
        let mut all = Vec::new();
        let whole = event.frame.offset..event.frame.offset + record.len();
        event.lend(whole, &mut |bytes| all.extend_from_slice(bytes)).unwrap();
        assert!(all == record);
    }
    assert!((1..=4).all(|border| seen.contains(&(border * CHUNK))), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Whatever is read in whatever order is what was sealed.
    #[test]
    fn any_part_can_be_read_at_any_time(
        size in 1usize..5 * CHUNK,
        reads in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64, any::<bool>()), 1..40),
    ) {
        let here = Sealed::new(&[size]);
        let (event, record) = (here.open(&here.files[0]).unwrap(), here.record(0));
        let first = event.frame.offset;
        for (start, length, is_word) in reads {
            let start = (start * record.len() as f64) as usize;
            if is_word {
                let at = start / 8 * 8;
                prop_assert_eq!(event.word(first + at).to_le_bytes(), &record[at..at + 8]);
                continue;
            }
            let end = start + (length * (record.len() - start) as f64) as usize;
            let mut read = Vec::new();
            event.lend(first + start..first + end, &mut |bytes| read.extend_from_slice(bytes)).unwrap();
            prop_assert!(read == record[start..end]);
        }
    }
}

#[test]
fn no_bit_of_a_file_can_be_changed_unnoticed() {
    let here = Sealed::new(&[200, 2 * CHUNK]);
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let [small, large] = &here.files[..] else { panic!() };
    let every = (0..8 * small.len()).map(|bit| (small, bit));
    let some = (0..500).map(|_| (large, random.usize(..8 * large.len())));
    for (file, bit) in every.chain(some).collect::<Vec<_>>() {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        here.assert_damaged(&changed, &format!("bit {bit} of {} bytes", file.len()));
    }
}

#[test]
fn a_head_that_was_changed_with_its_checksum_is_noticed() {
    let here = Sealed::new(&[200]);
    for byte in (0x10..HEADER - 4).chain([8, 12]) {
        let mut file = here.files[0].clone();
        file[byte] ^= if byte == 8 { 4 } else { 1 }; // version 3 is a group
        mend(&mut file);
        let is_key_id = (0x34..0x3C).contains(&byte);
        match here.open(&file) {
            Err(FileError::Locked(_)) if is_key_id => {}
            Err(FileError::Foreign(6)) if byte == 8 => {}
            Err(FileError::Damaged(_)) if !is_key_id && byte != 8 => {}
            other => panic!("byte {byte:#x}: {:?}", other.map(|event| event.id)),
        }
    }
}

#[test]
fn chunks_cannot_be_moved_doubled_left_out_or_taken_from_another_file() {
    let here = Sealed::new(&[4 * CHUNK - REST, 4 * CHUNK - REST]);
    let [one, other] = &here.files[..] else { panic!() };
    let mut swapped = one.clone();
    swapped[chunk(1)].copy_from_slice(&one[chunk(2)]);
    swapped[chunk(2)].copy_from_slice(&one[chunk(1)]);
    here.assert_damaged(&swapped, "swapped");
    let mut doubled = one.clone();
    doubled.copy_within(chunk(1), chunk(2).start);
    here.assert_damaged(&doubled, "doubled");
    let mut mixed = one.clone();
    mixed[chunk(1)].copy_from_slice(&other[chunk(1)]);
    here.assert_damaged(&mixed, "out of another file");
    let mut left_out = one.clone();
    left_out.drain(chunk(1));
    set_length(&mut left_out, 3 * CHUNK);
    here.assert_damaged(&left_out, "left out");
    let mut foreign_salt = one.clone();
    foreign_salt[HEADER..HEADER + SALT].copy_from_slice(&other[HEADER..HEADER + SALT]);
    here.assert_damaged(&foreign_salt, "another salt");
    let mut foreign_head = other.clone();
    foreign_head[..HEADER].copy_from_slice(&one[..HEADER]);
    here.assert_damaged(&foreign_head, "another head");
}

#[test]
fn a_file_that_was_cut_off_is_noticed_wherever_that_was() {
    let here = Sealed::new(&[3 * CHUNK]);
    let file = &here.files[0];
    for length in (0..file.len()).step_by(997).chain((0..4).map(|number| chunk(number).start)) {
        here.assert_damaged(&file[..length], "shorter");
    }
    for chunks in 1..=3 {
        // After a whole chunk, with a head that says so: what is missing is the mark on the last one.
        let mut cut = file[..chunk(chunks).start].to_vec();
        set_length(&mut cut, chunks * CHUNK);
        here.assert_damaged(&cut, "a whole number of chunks");
    }
    let mut longer = file.clone();
    longer.push(0);
    here.assert_damaged(&longer, "longer");
}

#[test]
fn the_same_event_sealed_twice_has_nothing_in_common() {
    let here = Sealed::new(&[500]);
    let urls = ["http://a/".to_owned()];
    let disk = ModelDisk::new(1);
    let (mut spool, _) = Spool::open(disk.clone(), &config(Some(here.records.key_file())), &addresses(&urls));
    let to = Destination::of(&urls[0]);
    // The same number too, as for a spool that was wiped.
    spool.store(RING, &*here.records.memory, &here.records.frames[0], &[to]).unwrap();
    let again = disk.state().read(&root().join(format!("to/{to}/{:020}.event", 1))).unwrap();
    let same = here.files[0][HEADER..].iter().zip(&again[HEADER..]).filter(|(one, other)| one == other).count();
    assert_eq!(here.files[0][..HEADER], again[..HEADER]);
    assert!(same < again.len() / 20, "{same} of {} bytes are the same", again.len());
}

/// A file that somebody writes to while it is read.
#[derive(Clone)]
struct Shifty(Arc<Mutex<Vec<u8>>>);

impl Words for Shifty {
    fn word(&self, _: usize) -> u64 {
        unreachable!("a sealed file has no words of its own")
    }
}

impl PictureSource for Shifty {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        encode(&self.0.lock().unwrap()[range]);
        Ok(())
    }
}

impl Mapped for Shifty {
    fn size(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[test]
fn what_is_changed_after_the_check_is_never_given_out() {
    let here = Sealed::new(&[4 * CHUNK]);
    let file = Shifty(Arc::new(Mutex::new(here.files[0].clone())));
    let opened = || SpooledEvent::check(file.clone(), Some(&here.key)).unwrap();
    let (event, other) = (opened(), opened());
    file.0.lock().unwrap()[chunk(2).start] ^= 1;
    assert_eq!(event.lend(0..2 * CHUNK, &mut |_| ()), Ok(()), "these chunks are as they were");
    let mut given = 0;
    assert_eq!(event.lend(CHUNK..3 * CHUNK, &mut |bytes| given += bytes.len()), Err(Lost));
    assert_eq!(given, 0);
    assert_eq!((other.lend(0..0, &mut |_| ()), other.word(2 * CHUNK)), (Ok(()), 0));
    assert_eq!(other.lend(0..0, &mut |_| ()), Err(Lost), "the word was none");
}

#[test]
fn a_file_opens_to_its_own_key_alone() {
    let here = Sealed::new(&[500]);
    let open =
        |key: Option<&Key>| SpooledEvent::check(Bytes(Arc::new(here.files[0].clone())), key).map(|event| event.id);
    assert!(open(Some(&here.key)).is_ok());
    assert_eq!(open(None), Err(FileError::Locked(here.key.id)));
    assert_eq!(open(Some(&Key::new([9; 32]))), Err(FileError::Locked(here.key.id)));
}

/// `tests/fixtures/spool/make.py` made it out of the description, with other code.
#[test]
fn what_other_code_sealed_by_the_description_can_be_read() {
    let file = include_bytes!("../fixtures/spool/sealed.event");
    let key = Key::new(std::array::from_fn(|index| index as u8));
    let opened = SpooledEvent::check(Bytes(Arc::new(file.to_vec())), Some(&key)).unwrap();
    let event = Event::from_record(&opened, &opened.frame, opened.id.ring).unwrap();
    assert_eq!(event.id.to_string(), "c8c9cacbcccdcecfd0d1d2d3d4d5d6d7-17");
    assert_eq!((&*event.identity_id, &*event.identity_name, &*event.group_name), ("4711", "王芳", "staff"));
    assert_eq!((event.timestamp_ms, event.score, event.device_type), (1_700_000_000_123, 0.75, Some(4)));
    let picture: Vec<u8> = (0..17_000).map(|j| (j * 7 % 251) as u8).collect();
    let mut read = Vec::new();
    opened.lend(event.reg_pic, &mut |bytes| read.extend_from_slice(bytes)).unwrap();
    assert!(read == picture);
}

#[test]
fn a_key_file_is_32_random_bytes_that_nobody_else_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret-place");
    let write = |bytes: &[u8], mode: u32| {
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = |why: &str| {
        let said = Key::read(&path).unwrap_err();
        assert!(said.contains(why) && said.contains("spool.key_file") && !said.contains("secret-place"), "{said}");
    };
    refused("No such file");
    let random: Vec<u8> = (0..33).map(|index| index * 5).collect();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        write(&random[..32], mode);
        refused("chmod 600");
    }
    write(&random[..31], 0o600);
    refused("has 31 bytes");
    write(&random, 0o600);
    refused("has 33 bytes");
    write(&[0; 32], 0o600);
    refused("no random bytes");
    write(b"", 0o600);
    refused("has 0 bytes");
    write(&random[..32], 0o400);
    let key = Key::read(&path).unwrap();
    assert_eq!(format!("{key:?}"), format!("Key({})", key.id), "nothing of it is ever printed");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65528), None).unwrap();
        refused("only an uplink that runs as that user may use it (run --user 65528)");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("not a regular file");
    std::fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    refused("not a regular file");
}
