//! An address at which nobody listens yet.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A port that is bound, so that nobody else gets it, and that refuses connections until somebody listens there.
pub struct ClosedPort {
    socket: Socket,
    pub address: SocketAddr,
}

impl ClosedPort {
    pub fn new() -> ClosedPort {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        ClosedPort { socket, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Somebody listens there, as long as the listener or this lives.
    pub fn open(&self) -> TcpListener {
        self.socket.listen(64).unwrap();
        self.socket.try_clone().unwrap().into()
    }
}
