//! Builds the TLS settings of clients, for all destinations or for one: the trusted CAs (the built-in public ones, and a private
//! one from a file), and the client certificate with its key, from two files. Verification cannot be turned off. The files are
//! read once for each config that is checked, so SIGHUP is enough after a certificate was renewed, and a file that is removed
//! later changes nothing.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedCipherSuite};
use tracing::warn;

use crate::config::{self, Config, ConfigFault, TlsFiles, Url};
use crate::readiness;

/// The TLS settings for each destination.
#[derive(Clone)]
pub struct ClientConfigs {
    common: Parsed,
    own: Vec<(Url, Parsed)>,
}

/// What some files hold.
#[derive(Clone)]
struct Parsed {
    files: TlsFiles,
    config: Arc<ClientConfig>,
}

impl ClientConfigs {
    /// Reads the certificate files that are in use, except those that `just_read` has.
    ///
    /// # Errors
    /// The config key of an unusable file, and the reason; never the file's content.
    pub fn read(config: &Config, just_read: Option<&ClientConfigs>) -> Result<ClientConfigs, ConfigFault> {
        let parse = |files: &TlsFiles, key: &str| {
            let known = just_read.and_then(|just_read| just_read.parsed(files));
            let config = known.map_or_else(|| read(files, key), |known| Ok(Arc::clone(&known.config)))?;
            Ok(Parsed { files: files.clone(), config })
        };
        let in_use = config.tls_destinations.iter().filter(|(url, _)| config.has_server(url));
        let own = in_use.map(|(url, files)| Ok((url.clone(), parse(files, &config::tls_key(url))?)));
        Ok(ClientConfigs { common: parse(&config.tls, "tls")?, own: own.collect::<Result<_, ConfigFault>>()? })
    }

    fn parsed(&self, files: &TlsFiles) -> Option<&Parsed> {
        self.own.iter().map(|(_, own)| own).chain([&self.common]).find(|parsed| parsed.files == *files)
    }

    /// The settings for a destination.
    pub fn of(&self, url: &Url) -> Arc<ClientConfig> {
        let own = self.own.iter().find(|(known, _)| known.is_same_server_as(url));
        Arc::clone(&own.map_or(&self.common, |(_, own)| own).config)
    }

    /// The same certificates for other clients: they resume no TLS session of these.
    pub fn without_sessions(mut self) -> ClientConfigs {
        for parsed in self.own.iter_mut().map(|(_, own)| own).chain([&mut self.common]) {
            Arc::make_mut(&mut parsed.config).resumption = Resumption::default();
        }
        self
    }
}

/// The period in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning, in seconds of Unix time.
    pub not_before: u64,
    /// Its end, in seconds of Unix time.
    pub not_after: u64,
}

impl Validity {
    /// The validity of a certificate; none if it cannot be parsed. webpki reports the dates when it verifies the certificate at a
    /// time outside its validity.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Validity> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let error_at = |seconds| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            certificate.verify_for_usage(&[], &[], &[], time, webpki::KeyUsage::server_auth(), None, None).err()
        };
        let webpki::Error::CertNotValidYet { not_before, .. } = error_at(0)? else { return None };
        let webpki::Error::CertExpired { not_after, .. } = error_at(u64::MAX)? else { return None };
        Some(Validity { not_before: not_before.as_secs(), not_after: not_after.as_secs() })
    }
}

/// Reads the files for all destinations.
///
/// # Errors
/// As [`ClientConfigs::read`].
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, ConfigFault> {
    read(files, "tls")
}

/// `key` is the config object that names the files.
fn read(files: &TlsFiles, key: &str) -> Result<Arc<ClientConfig>, ConfigFault> {
    let (ca_key, cert_key) = (format!("{key}.ca_file"), format!("{key}.client_cert_file"));
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &files.ca_file {
        for certificate in certificates(&ca_key, path)? {
            roots.add(certificate).map_err(|error| fault(&ca_key, Some(path), &error.to_string()))?;
        }
    }
    let provider = Arc::new(provider(has_aes()));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(key, None, &error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&files.client_cert_file, &files.client_key_file) {
        (Some(cert), Some(secret)) => {
            let chain = certificates(&cert_key, cert)?;
            // The path of the private key is not reported: a folder's name may be a secret, too.
            let bad_key =
                |why: &dyn std::fmt::Display| fault(&format!("{key}.client_key_file"), None, &why.to_string());
            let text = pem_text(secret).map_err(|why| bad_key(&why))?;
            let secret =
                PrivateKeyDer::from_pem_slice(&text).map_err(|error| bad_key(&without(&error, "private key")))?;
            match readiness::randomness() {
                true => builder.with_client_auth_cert(chain, secret).map_err(|error| bad_key(&error))?,
                false => {
                    let key = format!("{key}.client_key_file");
                    builder.with_client_cert_resolver(Arc::new(LaterKey { key, chain, secret, made: OnceLock::new() }))
                }
            }
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The cipher suites, in the order of preference. The suites that cost this processor the least come first, because most servers
/// follow the client's order. With AES instructions, AES-128 costs less than AES-256; without them, ChaCha20 costs less than
/// both.
fn provider(has_aes: bool) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let rank = |suite: &SupportedCipherSuite| {
        let name = suite.suite().as_str().unwrap_or_default();
        let is_of_aes = name.contains("_AES_");
        [suite.tls13().is_none(), is_of_aes != has_aes, name.contains("_AES_256_")]
    };
    let all = std::mem::take(&mut provider.cipher_suites);
    for wanted in 0..8u8 {
        let wanted = [4, 2, 1].map(|bit| wanted & bit != 0);
        provider.cipher_suites.extend(all.iter().filter(|suite| rank(suite) == wanted));
    }
    provider
}

/// Whether the processor has AES instructions.
fn has_aes() -> bool {
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    return false;
}

/// A client certificate whose key is prepared with the first handshake. Preparing an ECDSA key needs random numbers, and neither
/// a start nor a check of the config may wait for these.
struct LaterKey {
    /// The key of the config that names the file.
    key: String,
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
    made: OnceLock<Option<Arc<CertifiedKey>>>,
}

impl LaterKey {
    fn make(&self) -> Option<Arc<CertifiedKey>> {
        let provider = rustls::crypto::ring::default_provider();
        let made = CertifiedKey::from_der(self.chain.clone(), self.secret.clone_key(), &provider);
        made.map(Arc::new)
            .map_err(|error| warn!("{} is not usable: servers get no client certificate: {error}", self.key))
            .ok()
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

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigFault> {
    let bad = |why: &str| fault(key, Some(path), why);
    let text = pem_text(path).map_err(|why| bad(&why))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| bad(&without(&error, "certificate")))?;
    if found.is_empty() {
        return Err(bad(&without(&pem::Error::NoItemsFound, "certificate")));
    }
    Ok(found)
}

/// The text of a PEM file. For a file in another known format the error says how to convert it.
fn pem_text(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = config::read_file(path).map_err(|error| error.to_string())?;
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    let has = |words: &str| bytes.windows(words.len()).any(|part| part == words.as_bytes());
    let is_der = bytes.first() == Some(&0x30) && !bytes.is_ascii();
    let how = match () {
        () if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") => {
            "it is UTF-16: save it as ASCII or UTF-8"
        }
        () if is_der && bytes.get(4..7) == Some(&[2, 1, 3]) => {
            "it is PKCS #12: openssl pkcs12 -in FILE -clcerts -nokeys -out CERT.pem, and -nocerts -nodes -out KEY.pem"
        }
        () if is_der => "it is DER: openssl x509 -inform DER -in FILE -out FILE.pem (a key: openssl pkey -inform DER)",
        () if has("-----BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => {
            "the key is encrypted, and there is no way to enter its passphrase: openssl pkey -in FILE -out KEY.pem"
        }
        () if has("-----BEGIN TRUSTED CERTIFICATE") => {
            "it is a TRUSTED CERTIFICATE, which only OpenSSL knows: openssl x509 -in FILE -out FILE.pem"
        }
        () if has("-----BEGIN PKCS7") => "it is PKCS #7: openssl pkcs7 -in FILE -print_certs -out FILE.pem",
        () => return Ok(bytes),
    };
    Err(how.into())
}

/// The text for an error in a PEM file that should have a `wanted`.
fn without(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("there is no {wanted} in it (-----BEGIN ...)"),
        error => error.to_string(),
    }
}

fn fault(key: &str, path: Option<&Path>, why: &str) -> ConfigFault {
    let value = path.map(|path| path.display().to_string());
    ConfigFault { key: key.into(), value, allowed: format!("a readable PEM file: {why}") }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[test]
    fn the_cipher_that_costs_the_processor_the_least_is_offered_first() {
        let names = |has_aes| -> Vec<String> {
            let suites = provider(has_aes).cipher_suites;
            suites.iter().map(|suite| suite.suite().as_str().unwrap().to_owned()).collect()
        };
        let tls13 = ["TLS13_AES_128_GCM_SHA256", "TLS13_AES_256_GCM_SHA384", "TLS13_CHACHA20_POLY1305_SHA256"];
        assert_eq!(names(true)[..3], tls13);
        assert_eq!(names(false)[..3], [tls13[2], tls13[0], tls13[1]]);
        for has_aes in [true, false] {
            let older = &names(has_aes)[3..];
            assert!(older[0].contains(if has_aes { "_AES_128_GCM_" } else { "_CHACHA20_" }), "{older:?}");
            assert_eq!(older.len(), 6, "none is left out");
        }
    }

    #[test]
    fn a_file_of_another_format_is_named_with_how_to_make_it_pem_and_a_byte_order_mark_is_none() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (text, key) = (cert.pem(), signing_key.serialize_pem());
        let utf16 = |text: &str| [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let folder = tempfile::tempdir().unwrap();
        let judge = |bytes: Vec<u8>, is_key: bool| {
            let (path, cert) = (folder.path().join("judged"), folder.path().join("cert"));
            std::fs::write(&path, bytes).unwrap();
            std::fs::write(&cert, &text).unwrap();
            let files = match is_key {
                true => TlsFiles { client_cert_file: Some(cert), client_key_file: Some(path), ..TlsFiles::default() },
                false => TlsFiles { ca_file: Some(path), ..TlsFiles::default() },
            };
            client_config(&files).map_or_else(|fault| fault.to_string(), |_| "good".into())
        };
        for (words, bytes, is_key) in [
            ("good", text.clone().into_bytes(), false),
            ("good", format!("\u{FEFF}{}", text.replace('\n', "\r\n")).into_bytes(), false),
            ("good", key.clone().into_bytes(), true),
            ("UTF-16", utf16(&text), false),
            ("DER: openssl x509 -inform DER", cert.der().to_vec(), false),
            ("DER: openssl", signing_key.serialize_der(), true),
            ("PKCS #12", b"\x30\x82\x0a\x3f\x02\x01\x03\x30\x82\xff".to_vec(), true),
            ("PKCS #7", b"-----BEGIN PKCS7-----\n".to_vec(), false),
            ("TRUSTED CERTIFICATE", text.replace("BEGIN CERT", "BEGIN TRUSTED CERT").into_bytes(), false),
            ("encrypted", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_vec(), true),
            ("encrypted", b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".to_vec(), true),
            ("no certificate in it", key.into_bytes(), false),
            ("no private key in it", text.clone().into_bytes(), true),
        ] {
            let said = judge(bytes, is_key);
            assert!(said.contains(words) && (said == words || words != "good"), "{words}: {said}");
        }
    }
}
