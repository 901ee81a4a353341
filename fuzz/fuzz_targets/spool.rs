//! A spooled event's file of any bytes: damaged, or an event that is what its header says and can be sent.
//!
//! Input: flags (u8), which bit to turn over (u16), then the file. Flag 1: its checksums are made right, so that what lies behind
//! them is reached; flag 2: its size in the header too.
#![no_main]

use std::sync::Arc;

use sophon_uplink::body::{BodyOptions, Format, TimestampUnit};
use sophon_uplink::event::Event;
use sophon_uplink::spool::disk::Mapped as _;
use sophon_uplink::spool::file::{Flaw, HEADER, Header, SpooledEvent};
use sophon_uplink_fuzz::Input;
use sophon_uplink_fuzz::given::{parse_form, written};
use sophon_uplink_fuzz::model_disk::Bytes;

fn check(file: &[u8]) -> Result<SpooledEvent<Bytes>, Flaw> {
    SpooledEvent::check(Bytes::of(file.to_vec()))
}

fn repair(file: &mut [u8], also_size: bool) {
    if file.len() < HEADER {
        return;
    }
    let (header, record) = file.split_at_mut(HEADER);
    if also_size {
        header[0x10..0x18].copy_from_slice(&(record.len() as u64).to_le_bytes());
    }
    header[0x30..0x34].copy_from_slice(&crc32fast::hash(record).to_le_bytes());
    let crc = crc32fast::hash(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// Everything that is taken from a good file lies in it, and says what its header says.
fn check_good(file: &[u8], event: SpooledEvent<Bytes>) {
    let again =
        Header { id: event.id, record_len: (file.len() - HEADER) as u64, record_crc: crc32fast::hash(&file[HEADER..]) };
    assert_eq!(again.to_bytes()[..0x34], file[..0x34]);
    assert_eq!((event.frame.offset, event.frame.end), (HEADER, file.len() as u64));
    assert_eq!(event.frame.header.sequence, event.id.sequence);
    let Ok(read) = Event::from_record(&event, &event.frame, event.id.ring) else { return };
    assert_eq!(read.id, event.id);
    for range in [&read.reg_pic, &read.spot_pic] {
        assert!(range.is_empty() || (HEADER <= range.start && range.end <= file.len()));
    }
    let source = Arc::new(event);
    let json = BodyOptions { format: Format::Json, with_reg_pic: true, timestamp_unit: TimestampUnit::Seconds };
    let (_, body) = written(&read, source.clone(), json);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let (content_type, form) = written(&read, source, BodyOptions { format: Format::FormData, ..json });
    assert_eq!(parse_form(&content_type, form)["reg_pic"], body["reg_pic"]);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (flags, bit) = (input.u8(), usize::from(input.u16()));
    let mut file = input.0.to_vec();
    if flags & 1 != 0 {
        repair(&mut file, flags & 2 != 0);
    }
    match check(&file) {
        Err(flaw) => assert!(matches!(&flaw, Flaw::Damaged(why) if !why.is_empty())),
        Ok(event) => {
            assert_eq!(event.frame.end, Bytes::of(file.clone()).size() as u64);
            check_good(&file, event);
            let at = bit % (8 * file.len());
            file[at / 8] ^= 1 << (at % 8);
            assert!(check(&file).is_err(), "bit {at} turned over was not noticed");
            file.pop();
            assert!(check(&file).is_err());
        }
    }
});
