//! The log on stderr. It never blocks the uplink: if its reader stalls or disappears, lines are lost, and nothing else happens.
//!
//! Lines pass through a short queue to a thread that writes them. Lines that do not fit are counted; the count follows the next
//! line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Maximum number of lines that wait for the reader.
const QUEUE: usize = 256;

/// A line; none marks the end.
type Message = Option<Vec<u8>>;

/// Starts logging to stderr.
///
/// # Errors
/// The system cannot create a thread.
pub fn start() -> io::Result<Flush> {
    let (lines, queue) = sync_channel::<Message>(QUEUE);
    let (end, ended) = sync_channel::<()>(0);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    thread::Builder::new().name("log".into()).stack_size(64 * 1024).spawn(move || {
        write_lines(&queue, &counted);
        drop(end);
    })?;
    let kept = lines.clone();
    let writer = move || Line { lines: lines.clone(), dropped: Arc::clone(&dropped), text: Vec::new() };
    tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_target(false).log_internal_errors(false).init();
    Ok(Flush { lines: kept, ended })
}

/// When dropped, writes the last lines. Waits only briefly if nobody reads them.
#[derive(Debug)]
pub struct Flush {
    lines: SyncSender<Message>,
    ended: Receiver<()>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        if self.lines.try_send(None).is_ok() {
            let _ = self.ended.recv_timeout(Duration::from_millis(200)); // the thread has ended when this is disconnected
        }
    }
}

/// One line before it enters the queue.
struct Line {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Some(std::mem::take(&mut self.text))) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(queue: &Receiver<Message>, dropped: &AtomicU64) {
    while let Ok(Some(line)) = queue.recv() {
        // There is no place to report an error of the log.
        let _ = io::stderr().write_all(&line);
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            count => drop(writeln!(io::stderr(), "({count} log lines were dropped: nobody read them in time)")),
        }
    }
}
