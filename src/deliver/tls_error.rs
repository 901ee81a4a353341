//! Texts and codes for TLS failures. The texts are plain and say what to do, for the log and the status; the codes are for the
//! web page.
//!
//! Names from a server's certificate are shortened, and control characters are removed. The texts do not depend on the time of
//! the attempt, so a failure that persists is logged once.

use std::error::Error as StdError;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::failure::{Code, Failure};
use crate::clock;

/// The most names of a certificate that are reported.
const NAMES: usize = 3;
/// The most characters of each name that are reported.
const NAME_LENGTH: usize = 64;

/// The failure for a TLS error, if `error` or one of its causes is one.
pub fn failure_for(error: &(dyn StdError + 'static)) -> Option<Failure> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(failure(error));
        }
        // The source of an io::Error is the source of the error inside it.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    None
}

/// The failure of a connection that ended in the handshake without a TLS alert.
pub fn broken_off(error: &io::Error) -> Failure {
    let why = format!(
        "the server ended the connection in the TLS handshake ({error}): check that its port speaks HTTPS, and see its log"
    );
    Failure::new(Code::TlsNotSpoken, why)
}

fn failure(error: &Error) -> Failure {
    Failure::new(code(error), words(error))
}

fn code(error: &Error) -> Code {
    use AlertDescription as Alert;
    match error {
        Error::InvalidCertificate(error) => code_of_certificate(error),
        Error::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity)
        | Error::PeerIncompatible(_) => Code::TlsTooOld,
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Code::TlsClientCertificate,
        Error::AlertReceived(Alert::UnrecognisedName) => Code::TlsWrongName,
        Error::InvalidMessage(_) => Code::TlsNotSpoken,
        Error::NoCertificatesPresented => Code::TlsBadCertificate,
        Error::FailedToGetCurrentTime => Code::ClockNotSet,
        _ => Code::TlsFailed,
    }
}

fn code_of_certificate(error: &CertificateError) -> Code {
    use CertificateError as Bad;
    match error {
        Bad::ExpiredContext { .. } | Bad::Expired => Code::TlsExpired,
        Bad::NotValidYetContext { .. } | Bad::NotValidYet => Code::TlsNotYetValid,
        Bad::NotValidForNameContext { .. } | Bad::NotValidForName => Code::TlsWrongName,
        Bad::UnknownIssuer => Code::TlsUnknownCa,
        Bad::BadSignature
        | Bad::UnsupportedSignatureAlgorithmContext { .. }
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        | Bad::BadEncoding => Code::TlsWeakCertificate,
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => Code::TlsWrongPurpose,
        Bad::Other(other) => match other.0.downcast_ref() {
            Some(
                webpki::Error::CaUsedAsEndEntity
                | webpki::Error::EndEntityUsedAsCa
                | webpki::Error::NameConstraintViolation
                | webpki::Error::PathLenConstraintViolated,
            ) => Code::TlsWrongPurpose,
            Some(webpki::Error::UnsupportedCertVersion) => Code::TlsWeakCertificate,
            _ => Code::TlsBadCertificate,
        },
        _ => Code::TlsBadCertificate,
    }
}

fn words(error: &Error) -> String {
    let what = match error {
        Error::InvalidCertificate(error) => return of_certificate(error),
        Error::AlertReceived(alert) => return of_alert(*alert),
        Error::InvalidMessage(_) => {
            "the port does not speak TLS: use the server's HTTPS port, or http:// for a server without TLS"
        }
        Error::NoCertificatesPresented => "the server shows no certificate: install one there",
        Error::FailedToGetCurrentTime => clock::NOT_SET,
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TOO_OLD,
        Error::PeerIncompatible(_) => NOTHING_IN_COMMON,
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => {
            return format!(
                "the server breaks the rules of TLS ({error}): update it, and see what lies between it and the box"
            );
        }
        _ => return format!("TLS failed: {error}"),
    };
    what.into()
}

const TOO_OLD: &str = "the server's TLS is too old: enable TLS 1.2 or 1.3 there";
const NOTHING_IN_COMMON: &str = "the server and the box have no TLS cipher in common, or the server wants a client certificate: let it \
    offer TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20; or set tls.client_cert_file and tls.client_key_file";

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion => TOO_OLD.into(),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => NOTHING_IN_COMMON.into(),
        Alert::CertificateRequired => {
            "the server wants a client certificate: set tls.client_cert_file and tls.client_key_file".into()
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => format!(
            "the server does not accept the box's client certificate ({alert:?}): check tls.client_cert_file, and which authorities \
             the server trusts"
        ),
        Alert::UnrecognisedName => {
            "the server has no certificate for this name: check the host in event_server_url".into()
        }
        alert => format!("the server broke TLS off ({alert:?}): see its log"),
    }
}

const CRITICAL: &str =
    "the server's certificates have a critical extension that the box does not know: get certificates without it";

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError as Bad;
    let what = match error {
        Bad::ExpiredContext { not_after, .. } => {
            return format!(
                "the server's certificate, or one of its chain, has expired ({}): renew it, and check the box's clock",
                date(*not_after)
            );
        }
        Bad::Expired => {
            "the server's certificate, or one of its chain, has expired: renew it, and check the box's clock"
        }
        Bad::NotValidYetContext { not_before, .. } => {
            return format!(
                "the server's certificate, or one of its chain, is not valid yet ({}): check the clocks of the box and of its authority",
                date(*not_before)
            );
        }
        Bad::NotValidYet => "the server's certificate, or one of its chain, is not valid yet: check the box's clock",
        Bad::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            return format!(
                "the server's certificate is not for {expected} but for {}: use a name of it in event_server_url, or a certificate \
                 with {expected} in its subjectAltName",
                names(presented)
            );
        }
        Bad::NotValidForName => "the server's certificate is not for this name: use a name of it in event_server_url",
        Bad::UnknownIssuer => {
            "the server's certificate comes from an unknown authority: put that authority's certificate (a self-signed one: itself) \
             into tls.ca_file, and let the server send its whole chain"
        }
        Bad::BadSignature => {
            "a signature of the server is wrong: its key is too weak (RSA needs 2048 bits) or another one than its certificate's, or \
             a certificate was changed"
        }
        Bad::UnsupportedSignatureAlgorithmContext { .. }
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificates are signed in a way that is not safe: get some with SHA-256 and RSA of 2048 bits, P-256, P-384 \
             or Ed25519"
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "the server's certificate is not made for servers: get one whose extendedKeyUsage has serverAuth"
        }
        Bad::UnhandledCriticalExtension => CRITICAL,
        Bad::BadEncoding => "the server's certificate is damaged: install it again",
        Bad::Other(other) => return of_chain(other.0.downcast_ref(), error),
        _ => return not_accepted(error),
    };
    what.into()
}

/// The text for errors that rustls does not describe itself.
fn of_chain(error: Option<&webpki::Error>, whole: &CertificateError) -> String {
    use webpki::Error as Bad;
    let what = match error {
        Some(Bad::CaUsedAsEndEntity) => {
            "the server uses an authority's certificate as its own: get one with basicConstraints CA:FALSE (openssl req -x509 makes \
             CA:TRUE: give it -addext basicConstraints=critical,CA:FALSE and -addext subjectAltName=DNS:NAME or IP:ADDRESS, and put the \
             certificate into tls.ca_file)"
        }
        Some(Bad::EndEntityUsedAsCa) => {
            "the server's certificate was issued with one that is no authority's: get it from an authority"
        }
        Some(Bad::NameConstraintViolation) => {
            "the server's certificate is for a name that its authority may not issue for"
        }
        Some(Bad::PathLenConstraintViolated) => {
            "the server's certificate was issued through more authorities than the first one allows"
        }
        Some(Bad::UnsupportedCriticalExtension) => CRITICAL,
        Some(Bad::UnsupportedCertVersion) => "the server's certificate is of an old version: get an X.509 v3 one",
        Some(Bad::MaximumPathDepthExceeded) => "the server's chain of certificates is too long",
        _ => return not_accepted(whole),
    };
    what.into()
}

fn not_accepted(error: &CertificateError) -> String {
    format!("the server's certificate is not accepted: {error}")
}

fn date(time: UnixTime) -> String {
    clock::date(time.as_secs())
}

/// The parts in parentheses of names like `DnsName("a.b")` and `IpAddress(1.2.3.4)`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all (the subject's name does not count)".into();
    }
    let inner = |name: &String| -> String {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name).trim_matches('"');
        inner.chars().take(NAME_LENGTH).map(|char| if char.is_ascii_graphic() { char } else { '?' }).collect()
    };
    let told: Vec<_> = presented.iter().take(NAMES).map(inner).collect();
    let more = if presented.len() > NAMES { ", …" } else { "" };
    format!("{}{more}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use rustls::{InvalidMessage, OtherError};

    use super::*;

    fn certificate(error: CertificateError) -> Failure {
        failure(&Error::InvalidCertificate(error))
    }

    fn chain(error: webpki::Error) -> Failure {
        certificate(CertificateError::Other(OtherError(std::sync::Arc::new(error))))
    }

    #[test]
    fn each_cause_is_said_in_words_of_its_own_and_has_its_code() {
        use AlertDescription as Alert;
        use CertificateError as Bad;
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let alert = |alert| failure(&Error::AlertReceived(alert));
        let incompatible = |why| failure(&Error::PeerIncompatible(why));
        let (expired, early) = (
            Bad::ExpiredContext { time: time(9), not_after: time(0) },
            Bad::NotValidYetContext { time: time(9), not_before: time(u64::MAX) },
        );
        for (code, needle, failure) in [
            (Code::TlsExpired, "has expired:", certificate(Bad::Expired)),
            (Code::TlsExpired, "has expired (Thu, 01 Jan 1970 00:00:00 GMT)", certificate(expired)),
            (Code::TlsNotYetValid, "is not valid yet (Fri, 31 Dec 9999 23:59:59 GMT)", certificate(early)),
            (Code::TlsWrongName, "is not for this name", certificate(Bad::NotValidForName)),
            (Code::TlsUnknownCa, "unknown authority", certificate(Bad::UnknownIssuer)),
            (Code::TlsWeakCertificate, "a signature of the server is wrong", certificate(Bad::BadSignature)),
            (Code::TlsWeakCertificate, "is damaged", certificate(Bad::BadEncoding)),
            (Code::TlsWeakCertificate, "X.509 v3", chain(webpki::Error::UnsupportedCertVersion)),
            (Code::TlsWrongPurpose, "serverAuth", certificate(Bad::InvalidPurpose)),
            (Code::TlsWrongPurpose, "CA:FALSE", chain(webpki::Error::CaUsedAsEndEntity)),
            (Code::TlsWrongPurpose, "no authority's", chain(webpki::Error::EndEntityUsedAsCa)),
            (Code::TlsWrongPurpose, "may not issue for", chain(webpki::Error::NameConstraintViolation)),
            (Code::TlsWrongPurpose, "more authorities", chain(webpki::Error::PathLenConstraintViolated)),
            (Code::TlsBadCertificate, "critical extension", certificate(Bad::UnhandledCriticalExtension)),
            (Code::TlsBadCertificate, "critical extension", chain(webpki::Error::UnsupportedCriticalExtension)),
            (Code::TlsBadCertificate, "not accepted: ", chain(webpki::Error::EmptyEkuExtension)),
            (Code::TlsBadCertificate, "not accepted", certificate(Bad::Revoked)),
            (Code::TlsBadCertificate, "no certificate", failure(&Error::NoCertificatesPresented)),
            (Code::TlsFailed, "breaks the rules of TLS", failure(&Error::DecryptError)),
            (Code::TlsFailed, "TLS failed: ", failure(&Error::General("x".into()))),
            (Code::TlsWrongName, "no certificate for this name", alert(Alert::UnrecognisedName)),
            (Code::TlsFailed, "broke TLS off (InternalError)", alert(Alert::InternalError)),
            (
                Code::TlsNotSpoken,
                "does not speak TLS",
                failure(&Error::InvalidMessage(InvalidMessage::InvalidContentType)),
            ),
            (Code::TlsNotSpoken, "in the TLS handshake (x)", broken_off(&io::Error::other("x"))),
            (Code::ClockNotSet, "clock is not set", failure(&Error::FailedToGetCurrentTime)),
            (Code::TlsTooOld, "too old", incompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)),
            (Code::TlsTooOld, "too old", alert(Alert::ProtocolVersion)),
            (Code::TlsTooOld, "no TLS cipher in common", incompatible(PeerIncompatible::NoCipherSuitesInCommon)),
            (Code::TlsTooOld, "no TLS cipher in common", alert(Alert::HandshakeFailure)),
            (Code::TlsClientCertificate, "wants a client certificate", alert(Alert::CertificateRequired)),
            (Code::TlsClientCertificate, "client certificate (UnknownCA)", alert(Alert::UnknownCA)),
        ] {
            assert!(failure.why.contains(needle), "{needle}: {failure}");
            assert_eq!(failure.code, code, "{failure}");
        }
    }

    #[test]
    fn a_hostile_servers_names_are_told_shortly_and_without_control_characters() {
        let wrong_name = |presented: &[&str]| {
            certificate(CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("box.test").unwrap(),
                presented: presented.iter().map(|name| (*name).to_owned()).collect(),
            })
            .why
        };
        let text = wrong_name(&["DnsName(\"a.test\")", "IpAddress(10.0.0.1)"]);
        assert!(text.contains("not for box.test but for a.test, 10.0.0.1: "), "{text}");
        assert!(wrong_name(&[]).contains("no name at all"));
        let long = format!("DnsName(\"{}\")", "\u{1b}[2J\nfake log line ".repeat(50));
        let text = wrong_name(&[&long, "x", "y", "z"]);
        assert!(!text.contains(['\u{1b}', '\n', 'z']) && text.len() < 500, "{text}");
    }

    #[test]
    fn the_cause_is_found_however_deep_it_lies() {
        let tls = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert!(failure_for(&nested).unwrap().why.contains("unknown authority"));
        assert_eq!(failure_for(&io::Error::other("refused")), None);
    }
}
