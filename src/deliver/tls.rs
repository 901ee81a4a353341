//! Who is believed over TLS: the public CAs built in, a private CA from a file, and who we are, from two files; for all destinations
//! or for one. There is no way to turn verification off. The files are read whenever a config comes into force, so that SIGHUP is
//! enough for a certificate that was renewed.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tracing::warn;

use crate::config::{self, Config, Fault, TlsFiles, Url};
use crate::readiness;

/// What connections to each destination use.
pub struct ClientConfigs {
    common: Arc<ClientConfig>,
    own: Vec<(Url, Arc<ClientConfig>)>,
}

impl ClientConfigs {
    /// Reads the files that are in use.
    ///
    /// # Errors
    /// The key of the file that does not do, and why; never what is in it.
    pub fn read(config: &Config) -> Result<ClientConfigs, Fault> {
        let in_use = config.tls_destinations.iter().filter(|(url, _)| config.event_server_url.contains(url));
        let own = in_use.map(|(url, files)| Ok((url.clone(), read(files, &config::tls_key(url))?)));
        Ok(ClientConfigs { common: client_config(&config.tls)?, own: own.collect::<Result<_, Fault>>()? })
    }

    /// For a destination.
    pub fn of(&self, url: &Url) -> Arc<ClientConfig> {
        let own = self.own.iter().find(|(known, _)| known == url);
        Arc::clone(own.map_or(&self.common, |(_, own)| own))
    }
}

/// Reads the files for all destinations.
///
/// # Errors
/// As [`ClientConfigs::read`].
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, Fault> {
    read(files, "tls")
}

/// `key` names the object that the files stand in.
fn read(files: &TlsFiles, key: &str) -> Result<Arc<ClientConfig>, Fault> {
    let (ca_key, cert_key) = (format!("{key}.ca_file"), format!("{key}.client_cert_file"));
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &files.ca_file {
        for certificate in certificates(&ca_key, path)? {
            roots.add(certificate).map_err(|error| fault(&ca_key, Some(path), &error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(key, None, &error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&files.client_cert_file, &files.client_key_file) {
        (Some(cert), Some(secret)) => {
            let chain = certificates(&cert_key, cert)?;
            // Where the key lies is nobody's business but the config's: a folder's name may be a secret, too.
            let bad_key =
                |why: &dyn std::fmt::Display| fault(&format!("{key}.client_key_file"), None, &why.to_string());
            let secret = PrivateKeyDer::from_pem_file(secret).map_err(|error| bad_key(&error))?;
            match readiness::randomness() {
                true => builder.with_client_auth_cert(chain, secret).map_err(|error| bad_key(&error))?,
                false => builder.with_client_cert_resolver(Arc::new(LaterKey::new(chain, secret))),
            }
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client certificate whose key is looked at with the first handshake: making an ECDSA key ready draws random numbers, for which
/// neither a start nor a check of the config may wait.
struct LaterKey {
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
    made: OnceLock<Option<Arc<CertifiedKey>>>,
}

impl LaterKey {
    fn new(chain: Vec<CertificateDer<'static>>, secret: PrivateKeyDer<'static>) -> LaterKey {
        LaterKey { chain, secret, made: OnceLock::new() }
    }

    fn make(&self) -> Option<Arc<CertifiedKey>> {
        let provider = rustls::crypto::ring::default_provider();
        let made = CertifiedKey::from_der(self.chain.clone(), self.secret.clone_key(), &provider);
        made.map(Arc::new).map_err(|error| warn!("tls.client_key_file is not shown to servers: {error}")).ok()
    }
}

impl fmt::Debug for LaterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaterKey")
    }
}

impl ResolvesClientCert for LaterKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.made.get_or_init(|| self.make()).clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| fault(key, Some(path), &error.to_string()))?;
    if found.is_empty() {
        return Err(fault(key, Some(path), "there is no certificate in it"));
    }
    Ok(found)
}

fn fault(key: &str, path: Option<&Path>, why: &str) -> Fault {
    let value = path.map(|path| path.display().to_string());
    Fault { key: key.into(), value, allowed: format!("a readable PEM file: {why}") }
}
