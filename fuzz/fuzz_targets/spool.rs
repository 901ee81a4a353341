//! Reads a spooled event's file of arbitrary bytes. It is either damaged, or an event that matches its header and can be sent.
//!
//! Input: flags (u8), the bit to flip (u16), then the file. Flag 1 repairs its checksums, so that the content behind them is
//! reached; flag 2 also repairs the size in the header; flag 4 marks it as sealed with our key. A good unsealed file is also
//! sealed and opened again.
#![no_main]

use std::sync::Arc;

use sophon_uplink::body::{BodyOptions, Format, TimestampUnit};
use sophon_uplink::event::Event;
use sophon_uplink::spool::SpooledEvent;
use sophon_uplink::spool::disk::Mapped as _;
use sophon_uplink::spool::file::{Form, HEADER, Header};
use sophon_uplink::spool::key::{Key, SALT};
use sophon_uplink::spool::opened::FileError;
use sophon_uplink::spool::seal::CHUNK;
use sophon_uplink_fuzz::Input;
use sophon_uplink_fuzz::event_spec::{parse_form, written};
use sophon_uplink_fuzz::model_disk::Bytes;

fn check(file: &[u8], key: Option<&Key>) -> Result<SpooledEvent<Bytes>, FileError> {
    SpooledEvent::check(Bytes::of(file.to_vec()), key)
}

fn repair(file: &mut [u8], also_size: bool, sealed_with: Option<&Key>) {
    if file.len() < HEADER {
        return;
    }
    let (header, record) = file.split_at_mut(HEADER);
    if also_size {
        header[0x10..0x18].copy_from_slice(&(record.len() as u64).to_le_bytes());
    }
    header[0x30..0x34].copy_from_slice(&crc32fast::hash(record).to_le_bytes());
    if let Some(key) = sealed_with {
        header[0x08..0x10].copy_from_slice(&[2, 0, 0, 0, 0x60, 0, 0, 0]);
        header[0x34..0x3C].copy_from_slice(&key.id.0);
    }
    let crc = crc32fast::hash(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// Checks that all parts of a good file lie inside it and match its header.
fn check_good(file: &[u8], event: SpooledEvent<Bytes>) {
    let form = Form::Clear { crc: crc32fast::hash(&file[HEADER..]) };
    let again = Header { id: event.id, record_len: (file.len() - HEADER) as u64, form };
    assert_eq!(again.to_bytes()[..0x34], file[..0x34]);
    assert_eq!((event.frame.offset, event.frame.end), (HEADER, file.len() as u64));
    assert_eq!(event.frame.header.sequence, event.id.sequence);
    let Ok(read) = Event::from_record(&event, &event.frame, event.id.ring) else { return };
    assert_eq!(read.id, event.id);
    for range in [&read.reg_pic, &read.spot_pic] {
        assert!(range.is_empty() || (HEADER <= range.start && range.end <= file.len()));
    }
    let (content_type, form, json) = bodies(&read, event);
    assert_eq!(parse_form(&content_type, form)["reg_pic"], json["reg_pic"]);
}

/// The form with its content type, and the JSON.
fn bodies(read: &Event, event: SpooledEvent<Bytes>) -> (String, Vec<u8>, serde_json::Value) {
    let source = Arc::new(event);
    let json = BodyOptions { format: Format::Json, with_reg_pic: true, timestamp_unit: TimestampUnit::Seconds };
    let (_, body) = written(read, source.clone(), json);
    let (content_type, form) = written(read, source, BodyOptions { format: Format::FormData, ..json });
    (content_type, form, serde_json::from_slice(&body).unwrap())
}

/// Seals the event of a good file.
fn sealed(file: &[u8], event: &SpooledEvent<Bytes>, key: &Key) -> Vec<u8> {
    let record = &file[HEADER..];
    let header = Header { id: event.id, record_len: record.len() as u64, form: Form::Sealed { key: key.id } };
    let (head, salt) = (header.to_bytes(), [7; SALT]); // each key has one file here, so the salt may be constant
    let of_file = key.of_file(&head, &salt);
    let mut bytes = [&head[..], &salt].concat();
    for (number, chunk) in record.chunks(CHUNK).enumerate() {
        let from = bytes.len();
        bytes.extend_from_slice(chunk);
        of_file.seal(number, (number + 1) * CHUNK >= record.len(), &mut bytes, from);
    }
    bytes
}

fn check_sealed(file: &[u8], event: &SpooledEvent<Bytes>, key: &Key, bit: usize) {
    let mut bytes = sealed(file, event, key);
    assert!(matches!(check(&bytes, None), Err(FileError::Locked(id)) if id == key.id));
    let opened = check(&bytes, Some(key)).expect("it was sealed with this key");
    assert_eq!(opened.id, event.id);
    if let Ok(read) = Event::from_record(&opened, &opened.frame, opened.id.ring) {
        let clear = check(file, None).unwrap();
        let in_clear = Event::from_record(&clear, &clear.frame, clear.id.ring).expect("so it is sealed");
        assert_eq!(bodies(&read, opened).2, bodies(&in_clear, clear).2);
    }
    let at = bit % (8 * bytes.len());
    bytes[at / 8] ^= 1 << (at % 8);
    assert!(check(&bytes, Some(key)).is_err(), "bit {at} turned over was not noticed");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (flags, bit) = (input.u8(), usize::from(input.u16()));
    let mut file = input.0.to_vec();
    let key = Key::new(std::array::from_fn(|index| index as u8));
    if flags & 1 != 0 {
        repair(&mut file, flags & 2 != 0, (flags & 4 != 0).then_some(&key));
    }
    match check(&file, Some(&key)) {
        Err(flaw) => match flaw {
            FileError::Damaged(why) => assert!(!why.is_empty()),
            FileError::Locked(id) => assert_ne!(id, key.id),
            FileError::Foreign(version) => assert!(!(1..=3).contains(&version)),
            FileError::Unreadable => panic!("memory can be read"),
        },
        Ok(event) => {
            assert_eq!(event.frame.end, Bytes::of(file.clone()).size() as u64, "nobody seals what we made up");
            check_sealed(&file, &event, &key, bit);
            check_good(&file, event);
            let at = bit % (8 * file.len());
            file[at / 8] ^= 1 << (at % 8);
            assert!(check(&file, None).is_err(), "bit {at} turned over was not noticed");
            file.pop();
            assert!(check(&file, None).is_err());
        }
    }
});
