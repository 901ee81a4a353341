//! Asks the kernel for unacknowledged bytes, and limits the send queue. This is the only file with `unsafe` for sockets, which it
//! knows only by their descriptors. There is no safe interface for `SIOCOUTQ`, and its answer is the only evidence of what a
//! server can have received.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::time::Duration;

/// Bytes written to `socket` that its peer has not acknowledged (`SIOCOUTQ`); 0 if the kernel does not say.
pub fn unacknowledged(socket: RawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int to a place that outlives the call, for any descriptor. For one that is closed or is not a
    // socket it returns an error. (TIOCOUTQ is the older name of the same number.)
    let result = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Further signs that a peer receives bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// About how many bytes it has received behind a gap (SACK).
    pub beyond_a_gap: u64,
    /// While segments are in transit: how long ago the peer's TCP last acknowledged something. If a peer does not read, no
    /// segments are in transit.
    pub heard_before: Option<Duration>,
    /// The smoothed round-trip time. Behind a queue it is much longer than the connection took to be made.
    pub smoothed_rtt: Option<Duration>,
}

/// Asks the kernel (`TCP_INFO`); all fields are empty if it does not say.
pub fn signs(socket: RawFd) -> Signs {
    // The beginning of `struct tcp_info`, which is the same in every kernel: 8 bytes, then rto, ato, snd_mss, rcv_mss, unacked,
    // sacked, lost, retrans, fackets, last_data_sent, last_ack_sent, last_data_recv, last_ack_recv (in ms), pmtu, rcv_ssthresh,
    // rtt (in µs).
    let mut info = [0u32; 18];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`, and the new length; both outlive the call.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    if result != 0 {
        return Signs::default();
    }
    let (mss, under_way, sacked, last_ack, rtt) = (info[4], info[6], info[7], info[14], info[17]);
    Signs {
        beyond_a_gap: u64::from(mss) * u64::from(sacked),
        heard_before: (under_way > 0).then(|| Duration::from_millis(last_ack.into())),
        smoothed_rtt: Some(Duration::from_micros(rtt.into())),
    }
}

/// Limits the bytes in the send queue and in transit to about this many from now on (`SO_SNDBUF`).
pub fn bound_queue(socket: RawFd, bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one int, which outlives the call. If it refuses, the queue stays as long as before.
    let _unbounded = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn whoever_answers_has_acknowledged_what_was_asked_and_who_reads_nothing_has_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        for length in [1, 100, 10_000] {
            client.write_all(&vec![0; length]).unwrap();
            server.read_exact(&mut vec![0; length]).unwrap();
            server.write_all(b"yes").unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(unacknowledged(client.as_raw_fd()), 0);
        }
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged(client.as_raw_fd()) > 0);
    }
}
