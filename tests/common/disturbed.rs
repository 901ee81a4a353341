//! A recognizer and an uplink on a ring that a third process writes into ([`super::restless`]), and what must hold: shared by the
//! properties of the ring and its fuzzing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sophon_uplink::body::encoder::encoded_len;
use sophon_uplink::body::{BodyOptions, Format, TimestampUnit};
use sophon_uplink::event::Event;
use sophon_uplink::ring::consumer::{self, Frame, Reader, Releaser};
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::layout::EVENT_HEADER;
use sophon_uplink::ring::producer::{NewEvent, NewPicture, Producer};
use sophon_uplink::ring::{Memory, Word};

use super::event_spec::written;
use super::restless::{Restless, Write};

/// Bytes of the ring.
pub const CAPACITY: usize = 1024;
/// Publications after which the two sides must have found each other again: one to show `head` anew, one for the uplink to go
/// there, one that comes through; and once more, where what the third process wrote looks like an event until then.
const TO_HEAL: usize = 4;

/// Good events after it.
const GOOD: u8 = 5;

type Shared = Arc<Restless>;

/// What happens: the ring's first position, the events published before the disturbance, and the disturbance.
pub struct Story {
    pub start: u64,
    pub events: u8,
    pub writes: Vec<Write>,
}

struct Uplink {
    memory: Shared,
    reader: Reader<Shared>,
    releaser: Releaser<Shared>,
}

/// Lets it happen, and checks that
/// - nothing outside a record that was checked is used, whatever changes after the check;
/// - the uplink comes to an end of what is there;
/// - every event that it takes can be sent: its body parses, and is as long as announced;
/// - the events published after it come through.
pub fn check(story: Story) {
    let memory = Arc::new(Restless::new(CAPACITY));
    memory.store(Word::Head, story.start & !7, Ordering::Relaxed);
    memory.store(Word::Tail, story.start & !7, Ordering::Relaxed);
    let mut producer = Producer::attach(Arc::clone(&memory));
    for number in 0..story.events {
        let picture = vec![number; usize::from(number) * 3];
        let named = [NewPicture { place: number % 2, name: b"named", jpeg: &picture }];
        let pictures = if number % 3 == 0 { &named[..] } else { &[] };
        let top_json: &[u8] = if number % 4 == 0 { br#"{"top":[1]}"# } else { b"" };
        let _ = producer.publish(&NewEvent { pictures, top_json, ..event(&picture) }); // no more than has room
    }
    // Each write may make the whole ring readable anew, and lets at most 255 moments pass before.
    let most = (story.writes.len() + 2) * (CAPACITY / 8 + 255);
    memory.disturb(story.writes);
    let mut uplink = Uplink::attach(&memory);
    let mut steps = 0;
    while uplink.step().is_some() || !memory.is_at_rest() {
        memory.moment();
        steps += 1;
        assert!(steps <= most, "the uplink comes to no end");
    }
    uplink.heal(&mut producer);
    for number in 0..GOOD {
        assert!(uplink.takes_what(&mut producer, &[number; 33]), "a good event after it was lost");
    }
}

fn event(picture: &[u8]) -> NewEvent<'_> {
    NewEvent { identity_id: b"17", reg_pic: picture, device_type: -1, score: 0.5, ..NewEvent::default() }
}

impl Uplink {
    fn attach(memory: &Shared) -> Uplink {
        let (reader, releaser, _) = consumer::attach(Arc::clone(memory));
        Uplink { memory: Arc::clone(memory), reader, releaser }
    }

    /// Takes one record, as the running uplink does; none at the end. The inner option is a good event and its picture.
    fn step(&mut self) -> Option<Option<(u64, Vec<u8>)>> {
        match self.reader.read() {
            Ok(None) => None,
            Ok(Some(frame)) => {
                check_frame(&frame);
                let event = Event::from_record(&self.memory, &frame, RingId([0; 16])).ok();
                let taken = event.map(|event| (event.id.sequence, self.send(&event, &frame)));
                self.releaser.release(frame.end, 1);
                Some(taken)
            }
            Err(corrupt) => {
                assert!(!corrupt.reason.is_empty());
                self.releaser.release(corrupt.resume, 0);
                Some(None)
            }
        }
    }

    /// Sends it in both formats, each as long as announced; its reg_pic as the receiver of JSON has it.
    fn send(&self, event: &Event, frame: &Frame) -> Vec<u8> {
        let record = frame.offset + EVENT_HEADER..frame.offset + frame.header.length as usize;
        let is_inside = |range: &Range<usize>| {
            range.is_empty() || (record.start <= range.start && range.start <= range.end && range.end <= record.end)
        };
        let pictures = event.pictures.iter().map(|named| &named.range);
        assert!(pictures.chain([&event.reg_pic, &event.spot_pic]).all(is_inside), "{event:?} in {record:?}");
        assert!(event.score.is_finite());
        let options =
            BodyOptions { format: Format::Json, with_reg_pic: true, timestamp_unit: TimestampUnit::Milliseconds };
        let (_, body) = written(event, Arc::clone(&self.memory) as _, options);
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let picture = parsed["reg_pic"].as_str().unwrap();
        assert_eq!(picture.len() as u64, encoded_len(event.reg_pic.len()));
        written(event, Arc::clone(&self.memory) as _, BodyOptions { format: Format::FormData, ..options });
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, picture).unwrap()
    }

    /// The two sides find each other again.
    fn heal(&mut self, producer: &mut Producer<Shared>) {
        let healed = (0..TO_HEAL).any(|_| self.takes_what(producer, b"heal"));
        assert!(healed, "the ring did not heal");
    }

    /// Publishes an event and reads on; whether it came through.
    fn takes_what(&mut self, producer: &mut Producer<Shared>, picture: &[u8]) -> bool {
        self.releaser.refresh(); // as a few times a second
        let published = producer.publish(&event(picture));
        let mut came = false;
        while let Some(taken) = self.step() {
            came |= taken.is_some_and(|(sequence, sent)| Ok(sequence) == published && sent == picture);
        }
        came
    }
}

fn check_frame(frame: &Frame) {
    let length = frame.header.length as usize;
    assert!(length >= EVENT_HEADER && length.is_multiple_of(8) && length <= CAPACITY / 2, "{frame:?}");
    assert!(frame.offset + length <= CAPACITY, "{frame:?}");
    assert_eq!((frame.offset + length) % CAPACITY, (frame.end % CAPACITY as u64) as usize, "{frame:?}");
}
