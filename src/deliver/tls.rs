//! Who is believed over TLS: the public CAs built in, a private CA from a file, and who we are, from two files.
//! There is no way to turn verification off.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Fault, TlsFiles};

/// Reads the files and makes what every connection uses.
///
/// # Errors
/// The key of the file that does not do, and why; never what is in it.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, Fault> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &files.ca_file {
        for certificate in certificates("tls.ca_file", path)? {
            roots.add(certificate).map_err(|error| fault("tls.ca_file", path, &error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault("tls", Path::new(""), &error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&files.client_cert_file, &files.client_key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates("tls.client_cert_file", cert)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| fault("tls.client_key_file", key, &error.to_string()))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| fault("tls.client_key_file", key, &error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| fault(key, path, &error.to_string()))?;
    if found.is_empty() {
        return Err(fault(key, path, "there is no certificate in it"));
    }
    Ok(found)
}

/// Where the key lies is nobody's business but the config's: a folder's name may be a secret, too.
fn fault(key: &str, path: &Path, why: &str) -> Fault {
    let value = (key != "tls.client_key_file").then(|| path.display().to_string());
    Fault { key: key.into(), value, allowed: format!("a readable PEM file: {why}") }
}
