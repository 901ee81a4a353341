//! The sockets: accepts connections and applies every limit to them.

use std::sync::Arc;
use std::time::Duration;

use sophon_uplink::rate_limited::RateLimited;
use sophon_uplink::serve::connection::{self, Bounds, accept};
use tokio::net::TcpListener;

use crate::routes::{App, answer};

/// Limits on what clients may use of this process. Fields instead of constants, so that tests need not wait.
pub struct Limits {
    /// Connections at a time. Further ones wait to be accepted.
    pub connections: usize,
    /// Readers of /api/stream at a time. They stay connected, so this is less than `connections`: events can always get in.
    pub streams: usize,
    /// Of each connection.
    pub connection: Bounds,
    /// Size of a body, in bytes.
    pub body_bytes: u64,
    /// Size of all bodies in memory at a time, in bytes. A further body waits.
    pub bodies_bytes: u64,
    /// How long that body waits.
    pub room_time: Duration,
    /// Time to receive the next bytes of a body.
    pub body_progress: Duration,
    /// Time to receive a whole body.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            streams: 32,
            connection: Bounds {
                head_bytes: 64 << 10,
                head_time: Duration::from_secs(30),
                write_progress: Duration::from_secs(30),
            },
            body_bytes: 64 << 20,
            bodies_bytes: 128 << 20,
            room_time: Duration::from_secs(15),
            body_progress: Duration::from_secs(15),
            body_time: Duration::from_secs(120),
        }
    }
}

/// Serves every connection in a task of its own, until the caller drops it.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let log_limiter = RateLimited::new(1);
    loop {
        let room = app.connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (socket, _) = accept(&listener, "", &log_limiter).await;
        let app = app.clone();
        tokio::spawn(async move {
            connection::serve(socket, &app.limits.connection, |request| answer(app.clone(), request)).await;
            drop(room);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::folder::Folder;
    use crate::journal::Journal;
    use crate::picture::Picture;
    use crate::record::Arrival;
    use sophon_uplink::serve::connection::adopt;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener as StdListener, TcpStream};

    fn app(limits: Limits) -> Arc<App> {
        of(Arc::new(Folder::new(Journal::in_memory())), limits)
    }

    fn of(folder: Arc<Folder>, limits: Limits) -> Arc<App> {
        Arc::new(App::new(folder.clone(), Some(folder), vec!["/RealTimeEvent".into()], limits))
    }

    /// Runs a client against a server. The client blocks, so it has its own thread.
    fn against(app: Arc<App>, client: impl FnOnce(SocketAddr) + Send + 'static) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = tokio::task::spawn_blocking(move || client(address));
            tokio::select! {
                () = serve(adopt(listener).unwrap(), app) => {}
                done = client => done.unwrap(),
            }
        });
    }

    fn with(change: impl FnOnce(&mut Bounds)) -> Limits {
        let mut limits = Limits::default();
        change(&mut limits.connection);
        limits
    }

    fn soon() -> Duration {
        Duration::from_millis(50)
    }

    fn connected(address: SocketAddr, request: &str) -> TcpStream {
        let mut socket = TcpStream::connect(address).unwrap();
        // Only a failing test reaches this: it is less than the limits of Limits::default().
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        socket
    }

    /// Everything that the server sends until it closes the connection.
    fn answer_to(address: SocketAddr, request: &str) -> String {
        let mut answer = String::new();
        connected(address, request).read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_head_that_does_not_end_ends_the_connection() {
        against(app(with(|bounds| bounds.head_time = soon())), |address| {
            let answer = answer_to(address, "GET / HTTP/1.1\r\nHost: x\r\n");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        });
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        against(app(with(|bounds| bounds.head_bytes = 8192)), |address| {
            let answer = answer_to(address, &format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8180)));
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        });
    }

    #[test]
    fn a_body_that_does_not_go_on_is_answered_and_the_connection_closed() {
        let head =
            "POST /RealTimeEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        for limits in
            [Limits { body_progress: soon(), ..Limits::default() }, Limits { body_time: soon(), ..Limits::default() }]
        {
            against(app(limits), move |address| {
                let answer = answer_to(address, head);
                assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("1 of 100 bytes"), "{answer}");
            });
        }
    }

    #[test]
    fn a_body_that_finds_no_room_in_memory_is_told_to_come_again() {
        let app = app(Limits { bodies_bytes: 4096, room_time: soon(), body_progress: soon(), ..Limits::default() });
        let _others = app.bodies.clone().try_acquire_many_owned(1).unwrap();
        against(app, |address| {
            let answer = answer_to(address, "POST /RealTimeEvent HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
        });
    }

    #[test]
    fn connections_beyond_the_bound_wait_for_one_that_ends() {
        against(app(Limits { connections: 1, ..Limits::default() }), |address| {
            let first = TcpStream::connect(address).unwrap();
            let mut second = connected(address, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            second.set_read_timeout(Some(soon())).unwrap();
            assert!(second.read(&mut [0]).is_err(), "it was answered while another connection had the only room");
            drop(first);
            second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut answer = String::new();
            second.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        });
    }

    #[test]
    fn streams_beyond_the_bound_are_refused_until_a_reader_goes() {
        let app = app(Limits { streams: 1, ..Limits::default() });
        let room = app.streams.clone();
        against(app, move |address| {
            let mut first = connected(address, "GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut start = [0; 15];
            first.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200 OK");
            let second = answer_to(address, "GET /api/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert!(second.starts_with("HTTP/1.1 503"), "{second}");
            drop(first);
            while room.available_permits() == 0 {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn a_reader_that_takes_nothing_is_dropped() {
        // The reader holds the only connection, so another one is answered only after the reader was dropped.
        let folder = Arc::new(Folder::new(Journal::in_memory()));
        let app = of(folder.clone(), Limits { connections: 1, ..with(|bounds| bounds.write_progress = soon()) });
        let larger_than_socket_buffers = vec![0; 64 << 20].into();
        let picture = Picture { bytes: larger_than_socket_buffers, sha256: String::new() };
        let event = Event { reg_pic: Some(picture), ..Event::default() };
        folder
            .journal
            .take(Arrival { id: "a".into(), box_name: None, received_at: String::new(), format: "json", event })
            .unwrap();
        against(app, |address| {
            let _reader = connected(address, "GET /api/events/a/reg_pic HTTP/1.1\r\nHost: x\r\n\r\n");
            let other = answer_to(address, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert!(other.starts_with("HTTP/1.1 200"), "{other}");
        });
    }
}
