//! Servers that prove who they are, and servers that do not.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, SanType};

use super::forge::{Forge, Identity, between, ca, dns, forged, issued, key, leaf, network, unknown_extension};

/// What becomes of an event for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    Delivered,
    /// With these words in the status, and not a byte of HTTP.
    Refused(&'static str),
}

use Expect::{Delivered, Refused};

/// A server.
pub struct Row {
    pub name: &'static str,
    /// In the URL.
    pub host: &'static str,
    pub make: fn(&Forge) -> Identity,
    /// What nginx is told beside the certificate; none where nginx cannot be brought to do it.
    pub nginx: Option<&'static str>,
    /// The same for `openssl s_server`.
    pub openssl: Option<&'static str>,
    /// Served by a server of our own, which shows whatever it is given.
    pub own: bool,
    pub expect: Expect,
}

const BOTH: Row = Row {
    name: "",
    host: "localhost",
    make: |forge| forge.named(&["localhost"]),
    nginx: Some(""),
    openssl: Some(""),
    own: false,
    expect: Delivered,
};
const OPENSSL: Row = Row { nginx: None, ..BOTH };
const OWN: Row = Row { nginx: None, openssl: None, own: true, ..BOTH };

const fn good(name: &'static str, make: fn(&Forge) -> Identity) -> Row {
    Row { name, make, ..BOTH }
}

const fn bad(name: &'static str, words: &'static str, make: fn(&Forge) -> Identity) -> Row {
    Row { name, make, expect: Refused(words), ..BOTH }
}

const fn at(host: &'static str, row: Row) -> Row {
    Row { host, ..row }
}

const EXPIRED: &str = "has expired";
const OTHER_NAME: &str = "certificate is not for";
const UNKNOWN: &str = "unknown authority";
const PURPOSE: &str = "not made for servers";
const SIGNATURE: &str = "a signature of the server is wrong";
const UNSAFE: &str = "signed in a way that is not safe";
const NO_AUTHORITY: &str = "issued with one that is no authority's";
const CONSTRAINED: &str = "a name that its authority may not issue for";
const CRITICAL: &str = "a critical extension";
const NOTHING_IN_COMMON: &str = "no TLS cipher in common";

pub const TABLE: &[Row] = &[
    good("P-256", |forge| forge.named(&["localhost"])),
    good("P-384", |forge| forge.curve("P-384")),
    good("Ed25519", |forge| forge.by_openssl("ed25519", "-algorithm ED25519", "root", "-sha256")),
    good("RSA 2048", |forge| forge.rsa(2048)),
    good("RSA 3072", |forge| forge.rsa(3072)),
    good("RSA 4096", |forge| forge.rsa(4096)),
    good("an RSA root", |forge| forge.by_openssl("good", "-algorithm RSA", "rsa", "-sha256")),
    good("an authority between", |forge| forge.through(|_| {})),
    good("three authorities between", |forge| forge.long(3)),
    good("the root sent along", |forge| issued(leaf(&["localhost"]), &key(), &forge.root, &[&forge.root])),
    good("many names", |forge| forge.named(&["a.test", "*.b.test", "localhost", "10.0.0.1"])),
    good("a name in capitals", |forge| forge.named(&["LocalHost"])),
    good("names as permitted", |forge| forge.constrained(&[dns("localhost")], &[dns("test")])),
    at("www.box.test", good("a wildcard", |forge| forge.named(&["*.box.test"]))),
    at("127.0.0.1", good("an IP address", |forge| forge.named(&["127.0.0.1"]))),
    Row { name: "TLS 1.2 only", nginx: Some("ssl_protocols TLSv1.2;"), openssl: Some("-tls1_2"), ..BOTH },
    Row { name: "TLS 1.3 only", nginx: Some("ssl_protocols TLSv1.3;"), openssl: Some("-tls1_3"), ..BOTH },
    // --- time ---
    bad("expired", EXPIRED, |forge| forge.valid(2015, 2020)),
    bad("not yet valid", "is not valid yet", |forge| forge.valid(2100, 2110)),
    bad("ends before it begins", EXPIRED, |forge| forge.valid(2020, 2010)),
    bad("the authority between has expired", EXPIRED, |forge| forge.through(|params| between(params, 2015, 2020))),
    bad("the authority between is not yet valid", "is not valid yet", |forge| {
        forge.through(|params| between(params, 2100, 2110))
    }),
    // --- names ---
    bad("another name", "is not for localhost but for elsewhere.test", |forge| forge.named(&["elsewhere.test"])),
    bad("the name in the subject only", "no name at all", |forge| common_name(forge, "localhost", &[])),
    bad("the name in the subject, another one beside", OTHER_NAME, |forge| {
        common_name(forge, "localhost", &["elsewhere.test"])
    }),
    bad("an IP address for a name", "but for 127.0.0.1", |forge| forge.named(&["127.0.0.1"])),
    at("127.0.0.1", bad("a name for an IP address", OTHER_NAME, |forge| forge.named(&["localhost"]))),
    at("127.0.0.1", bad("another IP address", OTHER_NAME, |forge| forge.named(&["127.0.0.2"]))),
    at(
        "127.0.0.1",
        bad("an IP address written as a name", OTHER_NAME, |forge| san(forge, SanType::DnsName, "127.0.0.1")),
    ),
    bad("an e-mail address", OTHER_NAME, |forge| san(forge, SanType::Rfc822Name, "localhost")),
    bad("a URI", OTHER_NAME, |forge| san(forge, SanType::URI, "https://localhost/")),
    bad("a name with a NUL behind", OTHER_NAME, |forge| forge.named(&["localhost\0.elsewhere.test"])),
    at("box.test", bad("a wildcard over a top level", OTHER_NAME, |forge| forge.named(&["*.test"]))),
    at("a.b.box.test", bad("a wildcard over two labels", OTHER_NAME, |forge| forge.named(&["*.box.test"]))),
    at("a.b.box.test", bad("two wildcards", OTHER_NAME, |forge| forge.named(&["*.*.box.test"]))),
    at("www.box.test", bad("a part of a label wild", OTHER_NAME, |forge| forge.named(&["w*.box.test"]))),
    at("box.test", bad("a wildcard without its label", OTHER_NAME, |forge| forge.named(&["*.box.test"]))),
    at("www.box.test", bad("the domain above", OTHER_NAME, |forge| forge.named(&["box.test"]))),
    bad("nothing but a wildcard", OTHER_NAME, |forge| forge.named(&["*"])),
    // --- purpose ---
    bad("made for clients", PURPOSE, |forge| purpose(forge, ExtendedKeyUsagePurpose::ClientAuth)),
    bad("made for signing code", PURPOSE, |forge| purpose(forge, ExtendedKeyUsagePurpose::CodeSigning)),
    bad("the authority between is for clients", PURPOSE, |forge| {
        forge.through(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }),
    bad("an authority's own", "CA:FALSE", |forge| {
        forge.changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }),
    // --- who issued it ---
    bad("self-signed", UNKNOWN, |_| {
        let key = key();
        let own = leaf(&["localhost"]).self_signed(&key).unwrap();
        Identity { chain: vec![own.der().to_vec()], key: key.serialize_pem() }
    }),
    bad("self-signed by openssl req -x509", "CA:FALSE", Forge::self_signed_authority),
    bad("an unknown authority", UNKNOWN, |_| by_stranger("a stranger")),
    bad("an unknown authority of the same name", SIGNATURE, |_| by_stranger("the owner's CA")),
    bad("the authority between missing", UNKNOWN, |forge| {
        issued(leaf(&["localhost"]), &key(), &forge.between(|_| {}), &[])
    }),
    bad("another authority between", UNKNOWN, |forge| {
        let other = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "another one");
        issued(leaf(&["localhost"]), &key(), &forge.between(|_| {}), &[&forge.between(other)])
    }),
    bad("issued by a leaf", NO_AUTHORITY, |forge| forge.through(|params| params.is_ca = IsCa::ExplicitNoCa)),
    bad("issued by one without basic constraints", NO_AUTHORITY, |forge| {
        forge.through(|params| params.is_ca = IsCa::NoCa)
    }),
    bad("more authorities than allowed", "more authorities than", |forge| {
        let first = forge.between(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let second = CertifiedIssuer::signed_by(ca("second", BasicConstraints::Unconstrained), key(), &first).unwrap();
        issued(leaf(&["localhost"]), &key(), &second, &[&second, &first])
    }),
    bad("a chain without end", "chain of certificates is too long", |forge| forge.long(9)),
    bad("an excluded name", CONSTRAINED, |forge| forge.constrained(&[], &[dns("localhost")])),
    bad("a name that is not permitted", CONSTRAINED, |forge| forge.constrained(&[dns("box.test")], &[])),
    at(
        "127.0.0.1",
        bad("an IP address that is not permitted", CONSTRAINED, |forge| {
            let authority = |params: &mut CertificateParams| {
                params.name_constraints = Some(rcgen::NameConstraints {
                    permitted_subtrees: vec![network([10, 0, 0, 0], 8)],
                    excluded_subtrees: vec![],
                });
            };
            let between = forge.between(authority);
            issued(leaf(&["127.0.0.1"]), &key(), &between, &[&between])
        }),
    ),
    // --- content ---
    bad("an unknown critical extension", CRITICAL, |forge| {
        forge.changed(|params| params.custom_extensions = vec![unknown_extension()])
    }),
    bad("the same in the authority between", CRITICAL, |forge| {
        forge.through(|params| params.custom_extensions = vec![unknown_extension()])
    }),
    bad("a signature with a flipped bit", SIGNATURE, |forge| {
        let mut identity = forge.named(&["localhost"]);
        let last = identity.chain[0].last_mut().unwrap();
        *last ^= 1;
        identity
    }),
    bad("another name written over", SIGNATURE, |forge| forged(forge.named(&["lacalhost"]), b"lacal", b"local")),
    bad("version 1", "X.509 v3", Forge::version_1),
    Row { expect: Refused("is damaged"), make: |forge| cut(forge.named(&["localhost"])), name: "cut off", ..OWN },
    Row { expect: Refused("is damaged"), make: |_| no_certificate(), name: "no certificate at all", ..OWN },
    Row { expect: Refused("shows no certificate"), make: |forge| without_chain(forge), name: "an empty chain", ..OWN },
    Row { expect: Refused(SIGNATURE), make: another_key, name: "another certificate's key", ..OWN },
    // --- keys and signatures that are not safe ---
    bad("an RSA key of 1024 bits", SIGNATURE, |forge| forge.rsa(1024)),
    bad("an authority's RSA key of 1024 bits", SIGNATURE, Forge::weak_authority),
    bad("a signature with SHA-1", UNSAFE, |forge| forge.by_openssl("sha1", "-algorithm ED25519", "root", "-sha1")),
    bad("a signature with MD5", UNSAFE, |forge| forge.by_openssl("md5", "-algorithm ED25519", "rsa", "-md5")),
    bad("P-224", NOTHING_IN_COMMON, |forge| forge.curve("secp224r1")),
    bad("P-521", NOTHING_IN_COMMON, |forge| forge.curve("secp521r1")),
    bad("secp256k1", NOTHING_IN_COMMON, |forge| forge.curve("secp256k1")),
    bad("Ed448", NOTHING_IN_COMMON, |forge| forge.by_openssl("ed448", "-algorithm ED448", "root", "-sha256")),
    // --- TLS that is not safe ---
    Row {
        name: "TLS 1.0 only",
        nginx: Some("ssl_protocols TLSv1;"),
        openssl: Some("-tls1"),
        expect: Refused("TLS is too old"),
        ..BOTH
    },
    Row {
        name: "TLS 1.1 only",
        nginx: Some("ssl_protocols TLSv1.1;"),
        openssl: Some("-tls1_1"),
        expect: Refused("TLS is too old"),
        ..BOTH
    },
    Row {
        name: "no authentication",
        openssl: Some("-tls1_2 -cipher aNULL"),
        expect: Refused(NOTHING_IN_COMMON),
        ..OPENSSL
    },
    Row {
        name: "no encryption",
        openssl: Some("-tls1_2 -cipher eNULL"),
        expect: Refused(NOTHING_IN_COMMON),
        ..OPENSSL
    },
    Row {
        name: "no forward secrecy",
        make: |forge| forge.rsa(2048),
        nginx: Some("ssl_protocols TLSv1.2; ssl_ciphers AES128-GCM-SHA256;"),
        openssl: Some("-tls1_2 -cipher AES128-GCM-SHA256"),
        expect: Refused(NOTHING_IN_COMMON),
        ..BOTH
    },
    Row {
        name: "CBC only",
        nginx: Some("ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES128-SHA;"),
        openssl: Some("-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA"),
        expect: Refused(NOTHING_IN_COMMON),
        ..BOTH
    },
    Row {
        name: "a short Diffie-Hellman group",
        make: |forge| forge.rsa(2048),
        openssl: Some("-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256"),
        expect: Refused(NOTHING_IN_COMMON),
        ..OPENSSL
    },
];

fn common_name(forge: &Forge, name: &str, names: &[&str]) -> Identity {
    forge.changed(|params| {
        params.subject_alt_names = leaf(names).subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, name);
    })
}

fn san(forge: &Forge, kind: fn(rcgen::string::Ia5String) -> SanType, text: &str) -> Identity {
    forge.changed(|params| params.subject_alt_names = vec![kind(text.try_into().unwrap())])
}

fn purpose(forge: &Forge, purpose: ExtendedKeyUsagePurpose) -> Identity {
    forge.changed(|params| params.extended_key_usages = vec![purpose])
}

fn by_stranger(name: &str) -> Identity {
    issued(leaf(&["localhost"]), &key(), &Forge::stranger(name), &[])
}

fn cut(mut identity: Identity) -> Identity {
    let length = identity.chain[0].len() / 2;
    identity.chain[0].truncate(length);
    identity
}

fn no_certificate() -> Identity {
    Identity { chain: vec![b"no certificate".to_vec()], key: key().serialize_pem() }
}

fn without_chain(forge: &Forge) -> Identity {
    Identity { chain: vec![], ..forge.named(&["localhost"]) }
}

fn another_key(forge: &Forge) -> Identity {
    Identity { key: key().serialize_pem(), ..forge.named(&["localhost"]) }
}
