//! Why an attempt failed: a code for programs and the web page, and a text for people.
//!
//! The text says what to do and may change in any release. The codes are listed in docs/api.md and do not change.

use std::fmt;

use crate::readiness::NotReady;

/// A failure of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code, for programs.
    pub code: Code,
    /// The text, for people: what happened, and what to do if that is known.
    pub why: String,
    /// The status of the server's answer; none without an answer.
    pub status: Option<u16>,
    /// Set if the server answered before it had the whole body.
    pub early: Option<Early>,
}

/// How much of a body a server had when it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Early {
    /// Bytes of the body that the server's TCP had acknowledged.
    pub sent: u64,
    /// Bytes of the whole body.
    pub total: u64,
}

impl From<NotReady> for Failure {
    fn from(lack: NotReady) -> Failure {
        let code = match lack {
            NotReady::Clock => Code::ClockNotSet,
            NotReady::Randomness => Code::RandomnessNotReady,
        };
        Failure::new(code, lack.why())
    }
}

impl Failure {
    /// Whether it is the same failure as `other`, apart from numbers that differ between events. Then it is not logged again.
    pub fn is_like(&self, other: &Failure) -> bool {
        self.code == other.code && (self.why == other.why || self.early.is_some() && other.early.is_some())
    }

    /// A failure without an answer.
    pub fn new(code: Code, why: impl Into<String>) -> Failure {
        Failure { code, why: why.into(), status: None, early: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} of {} bytes", self.sent, self.total)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])+ $code:ident $name:literal,)+) => {
        /// The kind of a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])+ $code,)+
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$code,)+];

            /// Its name in the status, which is the same in all releases.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Code::$code => $name,)+
                }
            }
        }
    };
}

codes! {
    /// The name does not exist in DNS.
    DnsFailed "dns_failed",
    /// No DNS server answered in time.
    DnsTimeout "dns_timeout",
    /// The name resolves only to addresses that events may not go to.
    AddressForbidden "address_forbidden",
    /// The connection was refused: nothing listens on the port.
    ConnectRefused "connect_refused",
    /// There is no route to the address.
    ConnectUnreachable "connect_unreachable",
    /// The address did not answer the connection attempt in time.
    ConnectTimeout "connect_timeout",
    /// The server did not answer in the TLS handshake in time.
    TlsTimeout "tls_timeout",
    /// The connection failed for another reason.
    ConnectFailed "connect_failed",
    /// 407: the proxy requires a login.
    ProxyLogin "proxy_login",
    /// The proxy cannot be reached, or does not connect to the server.
    ProxyFailed "proxy_failed",
    /// The box's clock is not set.
    ClockNotSet "clock_not_set",
    /// The box's kernel has no random numbers yet.
    RandomnessNotReady "randomness_not_ready",
    /// A certificate has expired.
    TlsExpired "tls_expired",
    /// A certificate is not valid yet.
    TlsNotYetValid "tls_not_yet_valid",
    /// The certificate is for another name.
    TlsWrongName "tls_wrong_name",
    /// The issuer of the certificate is unknown.
    TlsUnknownCa "tls_unknown_ca",
    /// The certificate is not for a server, or its issuer may not issue it.
    TlsWrongPurpose "tls_wrong_purpose",
    /// A signature is wrong or weak, or the certificate is damaged.
    TlsWeakCertificate "tls_weak_certificate",
    /// There is no certificate, or it is not accepted for another reason.
    TlsBadCertificate "tls_bad_certificate",
    /// The server's TLS is too old, or has no cipher in common with the box.
    TlsTooOld "tls_too_old",
    /// The server requires a client certificate, or does not accept the box's.
    TlsClientCertificate "tls_client_certificate",
    /// The server does not use TLS on this port.
    TlsNotSpoken "tls_not_spoken",
    /// TLS failed for another reason.
    TlsFailed "tls_failed",
    /// No byte of the request moved for too long.
    Stalled "stalled",
    /// The whole request was sent, and no answer came in time.
    NoAnswer "no_answer",
    /// The connection ended without an answer after the whole request was sent.
    ClosedWithoutAnswer "closed_without_answer",
    /// The connection ended before the whole request was sent.
    Interrupted "interrupted",
    /// The server sent a response without a request.
    UnsolicitedResponse "unasked_answer",
    /// The response is not HTTP.
    BadAnswer "bad_answer",
    /// The head of the answer is too long.
    AnswerTooLarge "answer_too_large",
    /// 2xx before the server had the whole event.
    EarlyAnswer "early_answer",
    /// 3xx.
    AnsweredRedirect "answered_redirect",
    /// 401.
    AnsweredUnauthorized "answered_unauthorized",
    /// 403.
    AnsweredForbidden "answered_forbidden",
    /// 404 and 405.
    AnsweredNotFound "answered_not_found",
    /// 408, 425 and 429.
    AnsweredBusy "answered_busy",
    /// 413.
    AnsweredTooLarge "answered_too_large",
    /// Any other 4xx.
    AnsweredBadRequest "answered_bad_request",
    /// 5xx.
    AnsweredServerError "answered_server_error",
    /// A status that HTTP does not define.
    AnsweredUnknown "answered_unknown",
    /// 2xx, which is no acknowledgement by the config's `answers` or `accept_body`.
    NotAccepted "not_accepted",
    /// The destination is no longer in the config.
    Removed "removed",
    /// The server reports that it did not get a test picture whole.
    PictureLost "picture_lost",
}

impl Code {
    /// Whether the server answered the request, with any status.
    pub const fn is_answer(self) -> bool {
        matches!(
            self,
            Code::AnsweredRedirect
                | Code::AnsweredUnauthorized
                | Code::AnsweredForbidden
                | Code::AnsweredNotFound
                | Code::AnsweredBusy
                | Code::AnsweredTooLarge
                | Code::AnsweredBadRequest
                | Code::AnsweredServerError
                | Code::AnsweredUnknown
                | Code::EarlyAnswer
                | Code::NotAccepted
                | Code::ProxyLogin
        )
    }

    /// The code of an answer that is no acknowledgement.
    pub const fn of_status(status: u16) -> Code {
        match status {
            300..=399 => Code::AnsweredRedirect,
            401 => Code::AnsweredUnauthorized,
            407 => Code::ProxyLogin,
            403 => Code::AnsweredForbidden,
            404 | 405 => Code::AnsweredNotFound,
            408 | 425 | 429 => Code::AnsweredBusy,
            413 => Code::AnsweredTooLarge,
            400..=499 => Code::AnsweredBadRequest,
            500..=599 => Code::AnsweredServerError,
            _ => Code::AnsweredUnknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_and_has_words_on_the_page_in_each_language() {
        const PAGE: &str = include_str!("../api/page/texts.js");
        const DOCS: &str = include_str!("../../docs/api.md");
        let (_, table) = PAGE.split_once("const ERRORS = {").unwrap();
        let (table, _) = table.split_once("\n};").unwrap();
        for code in Code::ALL {
            let name = code.name();
            assert!(DOCS.contains(&format!("`{name}`")), "{name} is not in docs/api.md");
            let (_, key) =
                table.split_once(&format!(" {name}: \"")).unwrap_or_else(|| panic!("{name} is not on the page"));
            let (key, _) = key.split_once('"').unwrap();
            assert_eq!(PAGE.matches(&format!("\n      {key}: [\"")).count(), 2, "{name}: {key}");
        }
        assert_eq!(table.matches(": \"").count(), Code::ALL.len(), "the page has no code that there is not");
    }
}
