//! Servers that nobody here wrote: nginx, and `openssl s_server`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use crate::common::tls_server::whole_request;
use crate::common::{Watched, wait_until};

use super::forge::Identity;

/// What OpenSSL does not do of itself any more: old versions, weak keys and ciphers. A bad server does it.
const CARELESS: &str = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = any\n[any]\nMinProtocol = None\n\
    CipherString = DEFAULT:@SECLEVEL=0\n";

/// The certificate and the key of an identity as files.
pub struct Files {
    folder: PathBuf,
    name: String,
    has_chain: bool,
}

impl Files {
    pub fn write(folder: &Path, name: &str, identity: &Identity) -> Files {
        let pem = identity.chain_pem();
        let (leaf, rest) = pem.split_at(pem.find("-----END").unwrap() + "-----END CERTIFICATE-----\n".len());
        for (end, text) in [("all", pem.as_str()), ("leaf", leaf), ("chain", rest), ("key", &identity.key)] {
            std::fs::write(folder.join(format!("{name}.{end}")), text).unwrap();
        }
        Files { folder: folder.to_owned(), name: name.into(), has_chain: !rest.is_empty() }
    }

    pub fn path(&self, end: &str) -> String {
        format!("{}/{}.{end}", self.folder.display(), self.name)
    }
}

fn careless(command: &mut Command, folder: &Path) -> Child {
    let conf = folder.join("careless.cnf");
    std::fs::write(&conf, CARELESS).unwrap();
    command.env("OPENSSL_CONF", conf).current_dir(folder).spawn().unwrap()
}

/// `openssl s_server`: what it is sent it prints, what it is told it answers.
pub struct OpenSsl {
    child: Child,
    pub port: u16,
    said: Arc<Watched<Vec<u8>>>,
}

impl OpenSsl {
    pub fn start(files: &Files, more: &str) -> OpenSsl {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", &files.path("leaf"), "-key", &files.path("key")]);
        if files.has_chain {
            command.args(["-cert_chain", &files.path("chain")]);
        }
        command.args(more.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = careless(&mut command, &files.folder);
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let said = Arc::new(Watched::<Vec<u8>>::default());
        let kept = Arc::clone(&said);
        thread::spawn(move || {
            let (mut buffer, mut answered) = ([0; 16384], 0);
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                kept.change(|said| said.extend_from_slice(&buffer[..count]));
                let requests = kept.look(|said| requests(said).len());
                while answered < requests {
                    answered += 1;
                    let _gone = stdin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            }
            kept.change(|said| said.extend_from_slice(b"\nACCEPT :0\n")); // it ended: no address comes any more
        });
        let port = said.wait("the address of openssl s_server", |said| {
            let text = String::from_utf8_lossy(said);
            let (line, _) = text.split_once("ACCEPT ")?.1.split_once('\n')?;
            line.rsplit(':').next()?.parse().ok()
        });
        assert!(port > 0, "openssl s_server {more} for {} did not start", files.name);
        OpenSsl { child, port, said }
    }

    /// Requests that came whole.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.said.look(|said| requests(said))
    }

    pub fn heard_http(&self) -> bool {
        self.said.look(|said| find(said, b"POST ").is_some() || find(said, b"HTTP/1.1").is_some())
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|bytes| bytes == part)
}

fn requests(mut said: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some(start) = find(said, b"POST ") {
        said = &said[start..];
        let Some(length) = whole_request(said) else { break };
        found.push(said[..length].to_vec());
        said = &said[length..];
    }
    found
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One nginx with many servers, each at a port of its own, which pass on what they get to `backend`.
pub struct Nginx {
    child: Child,
    folder: PathBuf,
    pub ports: Vec<u16>,
    /// A port without TLS.
    pub plain: u16,
}

impl Nginx {
    pub fn start(folder: &Path, backend: &str, servers: &[(&Files, &str)]) -> Nginx {
        // Its ports cannot come from the system: those that are free now may be taken in a moment.
        for _ in 0..5 {
            if let Some(nginx) = Nginx::try_to_start(folder, backend, servers) {
                return nginx;
            }
        }
        let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
        panic!("nginx does not start:\n{log}");
    }

    fn try_to_start(folder: &Path, backend: &str, servers: &[(&Files, &str)]) -> Option<Nginx> {
        let free: Vec<_> = (0..=servers.len()).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut ports: Vec<_> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let plain = ports.pop().unwrap();
        drop(free);
        let server = |((files, more), port): (&(&Files, &str), &u16)| {
            let protocols = if more.contains("ssl_protocols") { "" } else { "ssl_protocols TLSv1.2 TLSv1.3;" };
            let (all, key) = (files.path("all"), files.path("key"));
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {all}; ssl_certificate_key {key}; {protocols} {more} \
                 location / {{ proxy_pass http://{backend}; }} }}\n"
            )
        };
        let servers: String = servers.iter().zip(&ports).map(server).collect();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path {name};\n")).collect();
        let conf = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log info;\nevents {{ worker_connections 512; }}\n\
             http {{ log_format ports '$server_port $request'; access_log access.log ports; client_max_body_size 64m;\n\
             {temporary}{servers} server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://{backend}; }} }} }}\n"
        );
        std::fs::write(folder.join("nginx.conf"), conf).unwrap();
        let mut command = Command::new(super::nginx().expect("it was found before"));
        command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]).stderr(Stdio::null());
        let mut nginx = Nginx { child: careless(&mut command, folder), folder: folder.to_owned(), ports, plain };
        let mut has_ended = false;
        wait_until("nginx", || {
            has_ended = nginx.child.try_wait().unwrap().is_some();
            has_ended || nginx.ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
        (!has_ended).then_some(nginx)
    }

    /// What came at a port that was HTTP, a line for each request.
    pub fn requests_at(&self, port: u16) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with(&format!("{port} "))).map(String::from).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
