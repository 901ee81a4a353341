//! The promise: in steady state what an event costs in heap memory does not depend on its pictures, and their bytes are copied
//! by nothing but the encoder.
//!
//! The uplink runs in this process, on a thread of its own whose allocations are counted.
#![allow(unsafe_code)] // a global allocator that counts

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Buf;
use common::daemon::Home;
use common::{Sink, event, picture, publish};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::json;
use sophon_uplink::body::constants::Constants;
use sophon_uplink::body::encoder::{Chunk, Pool};
use sophon_uplink::body::{BodyOptions, EventBody, Format, Sent, Template, TimestampUnit};
use sophon_uplink::config::Config;
use sophon_uplink::deliver::setup::Setup;
use sophon_uplink::event::Event;
use sophon_uplink::picture::Lost;
use sophon_uplink::ring::consumer;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::uplink::Uplink;
use tokio::runtime::LocalOptions;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(size: usize) {
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + size as u64));
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: everything is the system allocator's; counting touches only thread-locals without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The uplink on a thread of its own; asked for what the thread allocated so far, in bytes, and the largest piece since then.
fn start(home: &Home) -> mpsc::Sender<mpsc::Sender<(u64, usize)>> {
    let (ask, asked) = mpsc::channel::<mpsc::Sender<(u64, usize)>>();
    let config = Config::load(&home.config()).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.unwrap().block_on(async move {
            let ring = config.rings[0].clone();
            let uplink = Uplink::start(Arc::new(Setup::read(config).unwrap())).unwrap();
            uplink.read_ring(ring).unwrap();
            loop {
                match asked.try_recv() {
                    Ok(answer) => drop(answer.send((ALLOCATED.get(), LARGEST.replace(0)))),
                    Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(mpsc::TryRecvError::Disconnected) => break,
                }
            }
        });
    });
    ask
}

/// Bytes an event, of docs/benchmarks.md.
const BUDGET: f64 = 20480.0;

/// Bytes allocated an event, and the largest piece, over events that each have two pictures of `size` bytes.
fn measure(format: &str, size: usize) -> (f64, usize) {
    const EVENTS: u64 = 50;
    let home = Home::new();
    let sink = Sink::start();
    home.configure(&[sink.url()], json!({ "content-type": format }));
    let mut recognizer = Producer::open(&home.ring(), 32 << 20).unwrap();
    let ask = start(&home);
    let allocated = || {
        let (answer, answered) = mpsc::channel();
        ask.send(answer).unwrap();
        answered.recv().unwrap()
    };
    let mut send = |count: u64, picture: &[u8]| {
        for _ in 0..count {
            let sequence = publish(&mut recognizer, &event(picture, picture));
            common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sequence);
            sink.take();
        }
    };
    let picture = picture(size, 1);
    send(100, &picture[..100]); // sequence numbers have their three digits
    send(10, &picture); // connections, pools and buffers have their sizes
    let (before, _) = allocated();
    send(EVENTS, &picture);
    let (after, largest) = allocated();
    ((after - before) as f64 / EVENTS as f64, largest)
}

#[test]
fn the_bytes_allocated_an_event_do_not_depend_on_its_pictures() {
    for format in ["json", "form-data"] {
        let (small, _) = measure(format, 8 << 10);
        let (large, largest) = measure(format, 2 << 20);
        println!(
            "{format}: {small:.0} bytes allocated an event with 2 x 8 KiB of pictures, {large:.0} with 2 x 2 MiB; the largest piece {largest}"
        );
        // The timers of a longer upload may cost a little; a picture, or a chunk of one, would be far more.
        assert!((large - small).abs() < 64.0, "{format}: {small} and {large} bytes an event");
        assert!(large < BUDGET, "{format}: {large} bytes an event, the budget is {BUDGET}");
        assert!(largest < 16 << 10, "a piece of {largest} bytes was allocated in steady state");
    }
}

/// A body that notes where its chunks lie.
struct Noting {
    inner: EventBody,
    chunks: Arc<Mutex<HashSet<usize>>>,
}

impl Body for Noting {
    type Data = Chunk;
    type Error = Lost;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Lost>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(chunk) = frame.data_ref()
        {
            self.chunks.lock().unwrap().insert(chunk.chunk().as_ptr() as usize);
        }
        frame
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that notes where the bytes lie that it is given, and how many there are.
struct Socket {
    given: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.poll_write_vectored(cx, &[std::io::IoSlice::new(bytes)])
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let mut given = self.given.lock().unwrap();
        given.extend(slices.iter().map(|slice| (slice.as_ptr() as usize, slice.len())));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

#[test]
fn the_encoders_output_is_the_very_memory_that_the_socket_is_given() {
    let memory = Arc::new(Mapping::on_heap(1 << 20));
    let pic = picture(300_000, 1);
    Producer::attach(Arc::clone(&memory)).publish(&event(&pic, b"")).unwrap();
    let frame = consumer::attach(Arc::clone(&memory)).0.read().unwrap().unwrap();
    let event = Event::from_record(&memory, &frame, RingId([0; 16])).unwrap();
    let options = BodyOptions { format: Format::Json, with_reg_pic: true, timestamp_unit: TimestampUnit::Seconds };
    let template = Template::new(&event, options, &Constants::default());
    let length = template.length() as usize;
    let chunks = Arc::default();
    let given = Arc::new(Mutex::new(Vec::new()));
    let inner = EventBody::new(template, memory, Arc::<Pool>::default(), Sent::default());
    let body = Noting { inner, chunks: Arc::clone(&chunks) };
    let socket = Socket { given: Arc::clone(&given) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
        tokio::task::spawn_local(connection);
        let answer = sender.send_request(hyper::Request::post("/").body(body).unwrap());
        let enough = async {
            while given.lock().unwrap().iter().map(|(_, length)| length).sum::<usize>() <= length {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = answer => panic!("there is no answer"),
            () = enough => {}
        }
        let chunks = chunks.lock().unwrap();
        let from_chunks = given
            .lock()
            .unwrap()
            .iter()
            .filter(|(address, _)| chunks.contains(address))
            .map(|(_, length)| length)
            .sum::<usize>();
        assert_eq!(from_chunks, length, "a part of the body was copied on its way");
    }));
}
