//! A certificate authority for one cluster, and the certificates that it signed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::Place;
use crate::tools::output;

/// The configuration of openssl; `address` is the API server's, as pods know it.
fn config(address: Ipv4Addr) -> String {
    format!(
        "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, IP:{address}, DNS:localhost, DNS:kubernetes.default.svc
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
"
    )
}

/// The files of the authority and of its certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes all certificates.
    ///
    /// # Errors
    /// Where openssl fails.
    pub fn make(place: &Place, address: Ipv4Addr) -> anyhow::Result<Self> {
        let directory = place.dir("certificates")?;
        place.write("certificates/openssl.cnf", config(address))?;
        let made = Self { directory };
        made.certificate("authority", "/CN=kerf-cluster", None)?;
        made.certificate("server", "/CN=kube-apiserver", Some("authority"))?;
        // the API server uses it to ask kubelets for logs
        made.certificate("client", "/O=system:masters/CN=kube-apiserver", Some("authority"))?;
        output(Command::new("openssl").args(["genrsa", "-out"]).arg(made.key("accounts")).arg("2048"))?;
        Ok(made)
    }

    fn certificate(&self, name: &str, subject: &str, authority: Option<&str>) -> anyhow::Result<()> {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "30", "-subj", subject, "-extensions", name, "-config"]);
        command.arg(self.directory.join("openssl.cnf"));
        command.arg("-keyout").arg(self.key(name)).arg("-out").arg(self.file(name));
        if let Some(authority) = authority {
            command.arg("-CA").arg(self.file(authority)).arg("-CAkey").arg(self.key(authority));
        }
        output(&mut command).map(drop)
    }

    /// The file of a certificate.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("crt")
    }

    /// The file of a private key. `accounts` signs the tokens of service accounts.
    pub fn key(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("key")
    }

    /// The directory of all files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
