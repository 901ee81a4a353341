//! Shared by the fuzz targets: the fakes and oracles of the tests, and a parser for input bytes.

#[path = "../../tests/common/answered.rs"]
pub mod answered;
#[path = "../../tests/common/disturbed.rs"]
pub mod disturbed;
#[path = "../../tests/common/event_spec.rs"]
pub mod event_spec;
#[path = "../../tests/common/model_disk.rs"]
pub mod model_disk;
#[path = "../../tests/common/restless.rs"]
pub mod restless;

/// A runtime with a virtual clock: waiting takes no time. Ignores SIGPIPE, so that a write to a closed socket is an error. Other
/// Rust programs do this by default, but not a fuzzer, whose `main` is not Rust's.
pub fn runtime() -> tokio::runtime::Runtime {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let _inside = runtime.enter();
    drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::pipe()).expect("a handler"));
    runtime
}

/// A fuzzer's input, read from the front; zeros after its end.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes(N);
        std::array::from_fn(|index| taken.get(index).copied().unwrap_or(0))
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}
