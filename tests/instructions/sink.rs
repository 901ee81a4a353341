//! A server that takes requests and keeps nothing, with TLS or without.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub struct Sink {
    address: String,
    /// Of the CA that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    answered: Arc<AtomicU64>,
}

impl Sink {
    pub fn start(tls: bool, folder: &Path) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("{}://{}", if tls { "https" } else { "http" }, listener.local_addr().unwrap());
        let (config, ca_file) = if tls { identity(folder) } else { Default::default() };
        let answered = Arc::default();
        let count = Arc::clone(&answered);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let (config, count) = (config.clone(), Arc::clone(&count));
                thread::spawn(move || match config {
                    None => serve(stream, &count),
                    Some(config) => serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &count),
                });
            }
        });
        Sink { address, ca_file, answered }
    }

    pub fn url(&self) -> String {
        format!("{}/RealTimeEvent", self.address)
    }

    /// Requests until now.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// A certificate for 127.0.0.1 and the file of the CA that signed it.
fn identity(folder: &Path) -> (Option<Arc<ServerConfig>>, Option<PathBuf>) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "tests/instructions"); // unlike the server's, or OpenSSL takes that for self-signed
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap();
    (Some(Arc::new(config)), Some(file))
}

fn serve(stream: impl Read + Write, count: &AtomicU64) {
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    while let Some(length) = read_head(&mut stream) {
        let taken = std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink());
        let answered = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        if taken.is_err() || answered.and_then(|()| stream.get_mut().flush()).is_err() {
            return; // the client went away
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The length of the body.
fn read_head(input: &mut impl BufRead) -> Option<u64> {
    let (mut length, mut line) = (None, String::new());
    loop {
        line.clear();
        input.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok(),
            _ if line.trim_end().is_empty() => return length,
            _ => {}
        }
    }
}
