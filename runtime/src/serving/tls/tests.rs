use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

const VALID: [i32; 2] = [2000, 4000];
const EXPIRED: [i32; 2] = [2000, 2001];

/// A certificate that is its own authority, and its key.
fn signed(years: [i32; 2]) -> (String, String) {
    let mut params = CertificateParams::new(["x".to_owned()]).unwrap();
    [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files(folder: &Path) -> Files {
    let [certificate, key, client_ca] = ["crt", "key", "ca"].map(|name| folder.join(name));
    Files { certificate, key, client_ca }
}

/// A server's certificate of these years, and an authority of clients where that changes.
fn lay(folder: &Path, years: [i32; 2], authority: Option<&str>) {
    let files = files(folder);
    let (certificate, key) = signed(years);
    std::fs::write(files.certificate, certificate).unwrap();
    std::fs::write(files.key, key).unwrap();
    if let Some(authority) = authority {
        std::fs::write(files.client_ca, authority).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_out_of_its_time_does_not_replace_one_that_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    lay(folder.path(), VALID, Some(&signed(VALID).0));
    let tls = Tls::load(files(folder.path())).await.unwrap();
    let is_valid = || tls.current.read().usable.invalid(SystemTime::now()).is_none();
    for (years, why) in
        [(EXPIRED, "the certificate has expired"), ([4000, 4001], "the certificate is not valid yet")]
    {
        lay(folder.path(), years, None);
        let error = tls.again().await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("crt"), "{error}");
        assert!(is_valid());
    }
    lay(folder.path(), VALID, None);
    assert!(tls.again().await.unwrap() && is_valid());
    assert!(!tls.again().await.unwrap(), "unchanged");
    // where it has none that is valid, one is as good as the other
    lay(folder.path(), EXPIRED, None);
    let tls = Tls::load(files(folder.path())).await.unwrap();
    lay(folder.path(), EXPIRED, None);
    assert!(tls.again().await.unwrap());
}

#[tokio::test]
async fn connections_are_outdated_when_the_authority_of_clients_changes_and_not_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    lay(folder.path(), VALID, Some(&signed(VALID).0));
    let tls = Tls::load(files(folder.path())).await.unwrap();
    let (_, outdated) = tls.current();
    lay(folder.path(), VALID, None);
    assert!(tls.again().await.unwrap() && !outdated.is_cancelled());
    lay(folder.path(), VALID, Some("x"));
    assert!(tls.again().await.is_err() && !outdated.is_cancelled(), "it cannot be used");
    lay(folder.path(), VALID, Some(&signed(VALID).0));
    assert!(tls.again().await.unwrap() && outdated.is_cancelled());
    assert!(!tls.current().1.is_cancelled());
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named_with_a_reason_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = files(folder.path()).certificate;
    let error = async || {
        let error = format!("{:#}", Tls::load(files(folder.path())).await.unwrap_err());
        assert!(error.contains(&path.display().to_string()), "{error}");
        error
    };
    lay(folder.path(), VALID, Some(&signed(VALID).0));
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = error().await;
    assert!(cut.contains("is the file cut off?") && !cut.contains('['), "{cut}");
    std::fs::write(&path, whole.replace("CERTIFICATE-----\n", "CERTIFICATE-----\n?")).unwrap();
    assert!(error().await.contains("not base64"));
    std::fs::write(&path, vec![b' '; 2 << 20]).unwrap();
    assert!(error().await.contains("larger than 1 MiB"));
    // opening it would wait for who writes
    std::fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(error().await.contains("is not a file"));
}
