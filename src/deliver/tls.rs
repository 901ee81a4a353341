//! Who is believed over TLS: the public CAs built in, a private CA from a file, and who we are, from two files; for all destinations
//! or for one. There is no way to turn verification off. The files are read whenever a config comes into force, so that SIGHUP is
//! enough for a certificate that was renewed.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{self, Config, Fault, TlsFiles, Url};

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
            builder.with_client_auth_cert(chain, secret).map_err(|error| bad_key(&error))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
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
