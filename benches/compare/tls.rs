//! Certificates for the sink, and the only cipher.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Both sides of a handshake offer only this cipher, so that no contender is faster because of its choice.
pub const CIPHER: &str = "TLS13_AES_256_GCM_SHA384";

/// rustls's cryptography as in sophon-uplink.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()) == CIPHER);
    Arc::new(provider)
}

/// Writes `ca.pem`, `server.pem` and `server.key` into `folder`.
pub fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    // Must differ from the server's name: OpenSSL would take equal names for self-signed.
    params.distinguished_name.push(DnType::CommonName, "scripts/bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).expect("an address").signed_by(&key, &ca).expect("a certificate");
    for (name, pem) in [("ca.pem", ca.pem()), ("server.pem", server.pem()), ("server.key", key.serialize_pem())] {
        std::fs::write(folder.join(name), pem).expect("a temporary folder");
    }
}

/// A client that trusts these certificates.
pub fn client_config(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("ours")).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Arc::new(builder.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth())
}
