//! Makes certificates, good ones and bad ones: rcgen what it can, the openssl command what it refuses to.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints, SanType, date_time_ymd,
};

pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// What a server shows: its chain, leaf first, in DER; and its key in PEM.
pub struct Identity {
    pub chain: Vec<Vec<u8>>,
    pub key: String,
}

impl Identity {
    pub fn chain_pem(&self) -> String {
        let pem = |der: &Vec<u8>| {
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
        };
        self.chain.iter().map(pem).collect()
    }
}

/// The authorities that the box trusts, and a folder for what openssl makes.
pub struct Forge {
    pub folder: PathBuf,
    pub root: Authority,
}

/// A leaf's parameters that nothing is wrong with.
pub fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    let name = |name: &&str| match name.parse() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName((*name).try_into().unwrap()),
    };
    params.subject_alt_names = names.iter().map(name).collect();
    params.distinguished_name.push(DnType::OrganizationName, "a server");
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// An authority's parameters.
pub fn ca(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params
}

pub fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// Leaf by `issuer`, with what is between it and the root.
pub fn issued(
    params: CertificateParams,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
    between: &[&Authority],
) -> Identity {
    let leaf = params.signed_by(key, issuer).unwrap().der().to_vec();
    let chain = std::iter::once(leaf).chain(between.iter().map(|ca| ca.der().to_vec())).collect();
    Identity { chain, key: key.serialize_pem() }
}

impl Forge {
    pub fn new(folder: &Path) -> Forge {
        let root = CertifiedIssuer::self_signed(ca("the owner's CA", BasicConstraints::Unconstrained), key()).unwrap();
        let forge = Forge { folder: folder.to_owned(), root };
        forge.write("root.crt", &forge.root.pem());
        forge.write("root.key", &forge.root.key().serialize_pem());
        // MD5 goes with RSA only: a second root.
        forge.openssl(&["req -x509 -newkey rsa:2048 -nodes -days 30 -keyout rsa.key -out rsa.crt -subj /CN=rsa-root"]);
        forge.write("trusted.pem", &(forge.read("root.crt") + &forge.read("rsa.crt")));
        forge
    }

    /// An authority that nobody here trusts.
    pub fn stranger(name: &str) -> Authority {
        CertifiedIssuer::self_signed(ca(name, BasicConstraints::Unconstrained), key()).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }

    /// Runs commands of openssl, of words without spaces.
    fn openssl(&self, commands: &[&str]) {
        for command in commands {
            let made = Command::new("openssl").args(command.split(' ')).current_dir(&self.folder).output().unwrap();
            assert!(made.status.success(), "openssl {command}: {}", String::from_utf8_lossy(&made.stderr));
        }
    }

    /// A leaf for `localhost` by the root, with nothing wrong but what `change` does.
    pub fn changed(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = leaf(&["localhost"]);
        change(&mut params);
        issued(params, &key(), &self.root, &[])
    }

    pub fn named(&self, names: &[&str]) -> Identity {
        self.changed(|params| params.subject_alt_names = leaf(names).subject_alt_names)
    }

    /// Valid from one first of January to another one.
    pub fn valid(&self, from: i32, to: i32) -> Identity {
        self.changed(|params| between(params, from, to))
    }

    pub fn between(&self, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = ca("an authority between", BasicConstraints::Unconstrained);
        change(&mut params);
        CertifiedIssuer::signed_by(params, key(), &self.root).unwrap()
    }

    /// A leaf by an authority below the root, which `change` makes another one.
    pub fn through(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let between = self.between(change);
        issued(leaf(&["localhost"]), &key(), &between, &[&between])
    }

    /// The same with constraints on names.
    pub fn constrained(&self, permitted: &[GeneralSubtree], excluded: &[GeneralSubtree]) -> Identity {
        self.through(|params| {
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees: permitted.to_vec(), excluded_subtrees: excluded.to_vec() });
        })
    }

    /// Through `count` authorities, one below the other.
    pub fn long(&self, count: usize) -> Identity {
        let mut chain = vec![self.between(|_| {})];
        while chain.len() < count {
            let params = ca(&format!("authority {}", chain.len()), BasicConstraints::Unconstrained);
            let next = CertifiedIssuer::signed_by(params, key(), &chain[chain.len() - 1]).unwrap();
            chain.push(next);
        }
        let between: Vec<_> = chain.iter().rev().collect();
        issued(leaf(&["localhost"]), &key(), between[0], &between)
    }

    /// A leaf for `localhost` with a key that `genpkey` makes, signed by `issuer` with `digest`.
    pub fn by_openssl(&self, name: &str, genpkey: &str, issuer: &str, digest: &str) -> Identity {
        self.write(
            "leaf.ext",
            "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
        );
        let sign = format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial -days 30 {digest}");
        self.openssl(&[
            &format!("genpkey {genpkey} -out {name}.key"),
            &format!("req -new -key {name}.key -subj /CN=localhost -out {name}.csr"),
            &format!("x509 -req -in {name}.csr {sign} -extfile leaf.ext -outform DER -out {name}.der"),
        ]);
        self.made(name)
    }

    fn made(&self, name: &str) -> Identity {
        let chain = vec![std::fs::read(self.folder.join(format!("{name}.der"))).unwrap()];
        Identity { chain, key: self.read(&format!("{name}.key")) }
    }

    pub fn rsa(&self, bits: u32) -> Identity {
        let name = format!("rsa{bits}");
        self.by_openssl(&name, &format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"), "root", "-sha256")
    }

    pub fn curve(&self, curve: &str) -> Identity {
        self.by_openssl(curve, &format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}"), "root", "-sha256")
    }

    /// Without a subjectAltName, and of version 1.
    pub fn version_1(&self) -> Identity {
        self.openssl(&[
            "req -new -newkey rsa:2048 -nodes -keyout v1.key -subj /CN=localhost -out v1.csr",
            "x509 -req -in v1.csr -CA root.crt -CAkey root.key -CAcreateserial -days 30 -outform DER -out v1.der",
        ]);
        self.made("v1")
    }

    /// Through an authority with an RSA key of 1024 bits.
    pub fn weak_authority(&self) -> Identity {
        self.write("weak.ext", "basicConstraints=critical,CA:TRUE\n");
        self.openssl(&[
            "req -new -newkey rsa:1024 -nodes -keyout weak.key -subj /CN=weak -out weak.csr",
            "x509 -req -in weak.csr -CA root.crt -CAkey root.key -CAcreateserial -days 30 -extfile weak.ext -out weak.crt",
            "x509 -in weak.crt -outform DER -out weak.der",
        ]);
        let mut identity =
            self.by_openssl("below-weak", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "weak", "-sha256");
        identity.chain.push(std::fs::read(self.folder.join("weak.der")).unwrap());
        identity
    }

    /// What `openssl req -x509` makes, as guides on the web have it.
    pub fn self_signed_authority(&self) -> Identity {
        self.openssl(&[
            "req -x509 -newkey rsa:2048 -nodes -days 30 -keyout self.key -outform DER -out self.der -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost",
        ]);
        self.made("self")
    }
}

pub fn between(params: &mut CertificateParams, from: i32, to: i32) {
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
}

/// An extension of an experiment (RFC 5612's arc) that must be understood.
pub fn unknown_extension() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

pub fn dns(name: &str) -> GeneralSubtree {
    GeneralSubtree::DnsName(name.into())
}

pub fn network(ip: [u8; 4], prefix: u8) -> GeneralSubtree {
    GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(ip, prefix))
}

/// The same certificate with some bytes put in the place of others.
pub fn forged(mut identity: Identity, from: &[u8], to: &[u8]) -> Identity {
    let leaf = &mut identity.chain[0];
    let at = leaf.windows(from.len()).position(|bytes| bytes == from).unwrap();
    leaf[at..at + to.len()].copy_from_slice(to);
    identity
}
