//! Certificate authorities that exist for one test, and what they sign.

use std::path::Path;

use kerf_runtime::serving::tls::Files;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// The name that servers have in their certificates.
pub const SERVER: &str = "localhost";

/// What a certificate is for.
#[derive(Clone, Debug)]
pub struct Purpose {
    pub usage: ExtendedKeyUsagePurpose,
    /// The years on whose first day it becomes valid and expires.
    pub years: [i32; 2],
}

const VALID: [i32; 2] = [2000, 4000];
pub const CLIENT: Purpose = Purpose { usage: ExtendedKeyUsagePurpose::ClientAuth, years: VALID };
pub const SERVER_CERTIFICATE: Purpose = Purpose { usage: ExtendedKeyUsagePurpose::ServerAuth, years: VALID };

/// An authority.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
#[derive(Debug)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn sign(&self, purpose: &Purpose) -> Signed {
        let mut params = CertificateParams::new([SERVER.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose.usage.clone()];
        [params.not_before, params.not_after] = purpose.years.map(|year| date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Writes what a server of `authority` reads, each file as a whole, as kubelet replaces those of a Secret.
pub fn lay(folder: &Path, authority: &Authority) {
    let server = authority.sign(&SERVER_CERTIFICATE);
    let Files { certificate, key, client_ca } = files(folder);
    for (path, text) in [(certificate, &*server.certificate), (key, &*server.key), (client_ca, authority.pem())] {
        let staged = folder.join("staged");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, path).unwrap();
    }
}

/// Where [`lay`] writes.
pub fn files(folder: &Path) -> Files {
    let [certificate, key, client_ca] = ["crt", "key", "ca"].map(|name| folder.join(name));
    Files { certificate, key, client_ca }
}
