use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::devcerts::{DevCa, Issued, Profile, Validity};

/// Writes `cert` and `key` into a folder and loads them; the error with the folder cut out.
fn load_text(cert: &str, key: &str) -> Result<Credentials, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = |flag, name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        PemPath { flag, path }
    };
    let cert = file("--cert-file", "cert.pem", cert);
    let key = file("--cert-key", "key.pem", key);
    Credentials::load(&cert, &key).map_err(|error| line(&error, dir.path()))
}

fn line(error: &LoadError, dir: &Path) -> String {
    let line = error
        .to_string()
        .replace(&format!("{}/", dir.display()), "");
    assert!(!line.contains('\n'), "{line:?}");
    line
}

fn ca() -> DevCa {
    DevCa::generate(Validity::days(1)).unwrap()
}

fn issue(ca: &DevCa) -> Issued {
    ca.issue(&Profile::client().uri("a:b")).unwrap()
}

#[test]
fn each_fault_has_its_line() {
    let ca = ca();
    let (good, other) = (issue(&ca), issue(&ca));
    let (cert, key) = (good.certificate_pem.as_str(), good.key_pem.as_str());
    let cut = |pem: &str| pem[..pem.len() / 2].to_owned();
    let spoilt = |pem: &str| pem.replacen("MI", "!!", 1);
    let section = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let huge = " ".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
    let not_der = format!("{cert}{}", section("CERTIFICATE"));
    let cases: &[(&str, &str, &str)] = &[
        ("", key, r#"--cert-file "cert.pem": holds no certificate"#),
        (key, key, r#"--cert-file "cert.pem": holds no certificate"#),
        (cert, "", r#"--cert-key "key.pem": holds no private key"#),
        (cert, cert, r#"--cert-key "key.pem": holds no private key"#),
        (
            &huge,
            key,
            r#"--cert-file "cert.pem": is larger than 1048576 bytes"#,
        ),
        (
            cert,
            &huge,
            r#"--cert-key "key.pem": is larger than 1048576 bytes"#,
        ),
        (
            &cut(cert),
            key,
            r#"--cert-file "cert.pem": is not valid PEM: a section has no end line"#,
        ),
        (
            cert,
            &cut(key),
            r#"--cert-key "key.pem": is not valid PEM: a section has no end line"#,
        ),
        (
            cert,
            &spoilt(key),
            r#"--cert-key "key.pem": is not valid PEM: a section is not base64"#,
        ),
        (
            "-----BEGIN CERTIFICATE\n",
            key,
            r#"--cert-file "cert.pem": is not valid PEM: a bad BEGIN line"#,
        ),
        (
            &not_der,
            key,
            r#"--cert-file "cert.pem": certificate 2 cannot be used: TrailingData(SignedData)"#,
        ),
        (
            cert,
            &section("PRIVATE KEY"),
            "--cert-key \"key.pem\": private key cannot be used: \
             not RSA of 2048 to 8192 bits, ECDSA or Ed25519",
        ),
        (
            cert,
            &section("ENCRYPTED PRIVATE KEY"),
            r#"--cert-key "key.pem": private key cannot be used: it is encrypted"#,
        ),
        (
            cert,
            &other.key_pem,
            "--cert-key \"key.pem\": does not belong to the certificate in \
             --cert-file \"cert.pem\"",
        ),
    ];
    for (cert, key, expected) in cases {
        assert_eq!(load_text(cert, key).unwrap_err(), *expected);
    }
    assert_eq!(
        load_text(cert, key).unwrap().chain(),
        [good.certificate().clone()]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_what_the_system_said() {
    let dir = tempfile::tempdir().unwrap();
    let folder = PemPath {
        flag: "--ca-file",
        path: dir.path().join(""),
    };
    let absent = PemPath {
        flag: "--ca-file",
        path: dir.path().join("no\n.pem"),
    };
    let cases = [
        (
            folder,
            r#"--ca-file "": cannot be read: Is a directory (os error 21)"#,
        ),
        (
            absent,
            r#"--ca-file "no\n.pem": cannot be read: No such file or directory (os error 2)"#,
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(line(&Roots::load(&file).unwrap_err(), dir.path()), expected);
    }
}

#[test]
fn the_dates_of_the_whole_chain_are_checked_to_the_second() {
    let ca = ca();
    let dir = tempfile::tempdir().unwrap();
    let leaf = ca
        .issue(&Profile::client().valid(Validity::days(30)))
        .unwrap();
    let (cert, key) = leaf.write(dir.path(), "leaf").unwrap();
    let both = leaf.certificate_pem.clone() + ca.pem();
    fs::write(&cert.path, both).unwrap();
    let dates = |der: &CertificateDer<'_>| {
        let (_, parsed) = X509Certificate::from_der(der).unwrap();
        let validity = parsed.validity();
        (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        )
    };
    let at = |now| Credentials::load_at(&cert, &key, now).map_err(|error| line(&error, dir.path()));
    let chain = at(SystemTime::now().into()).unwrap();
    let (leaf_first, _) = dates(&chain.chain()[0]);
    let (_, ca_last) = dates(&chain.chain()[1]);
    let second = Duration::from_secs(1);
    let expected = |what: &str, date| {
        format!(
            r#"--cert-file "leaf.pem": certificate {what} {}"#,
            Date(date)
        )
    };
    assert_eq!(
        at(leaf_first - second).unwrap_err(),
        expected("1 is not valid before", leaf_first)
    );
    at(ca_last + Duration::from_millis(999)).unwrap();
    assert_eq!(
        at(ca_last + second).unwrap_err(),
        expected("2 expired on", ca_last)
    );
}

#[test]
fn dates_are_shown_in_full() {
    let date = Date((UNIX_EPOCH + Duration::from_secs(981_173_106)).into());
    assert_eq!(date.to_string(), "2001-02-03 04:05:06 UTC");
}

#[test]
fn expired_and_future_certificates_are_refused_at_load() {
    let ca = ca();
    for (validity, text) in [
        (Validity::expired(), "certificate 1 expired on"),
        (Validity::not_yet(), "certificate 1 is not valid before"),
    ] {
        let issued = ca.issue(&Profile::client().valid(validity)).unwrap();
        let error = load_text(&issued.certificate_pem, &issued.key_pem).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn bytes_that_were_read_give_what_their_files_give() {
    let ca = ca();
    let (good, other) = (issue(&ca), issue(&ca));
    let path = |flag, name: &str| PemPath {
        flag,
        path: name.into(),
    };
    let (cert, key) = (
        path("--cert-file", "cert.pem"),
        path("--cert-key", "key.pem"),
    );
    let roots = path("--ca-file", "ca.pem");
    let chain = good.certificate_pem.as_bytes();
    let now = SystemTime::now();
    let parse = |key_pem: &str, now| {
        let key = key.with(key_pem.as_bytes());
        Credentials::parse(cert.with(chain), key, now).map_err(|error| error.to_string())
    };
    let parsed = parse(&good.key_pem, now).unwrap();
    assert_eq!(parsed.chain(), [good.certificate().clone()]);
    let error = parse(&other.key_pem, now).unwrap_err();
    assert_eq!(
        error,
        load_text(&good.certificate_pem, &other.key_pem).unwrap_err()
    );
    let later = now + Duration::from_hours(48);
    let error = parse(&good.key_pem, later).unwrap_err();
    assert!(error.contains("certificate 1 expired on"), "{error}");

    let bundle = roots.with(ca.pem().as_bytes());
    assert_eq!(Roots::parse(bundle, now).unwrap().len(), 1);
    let error = Roots::parse(bundle, later).unwrap_err().to_string();
    assert!(error.contains("certificate 1 expired on"), "{error}");
    let huge = vec![b' '; usize::try_from(MAX_FILE).unwrap() + 1];
    let error = Roots::parse(roots.with(&huge), now).unwrap_err();
    assert!(matches!(error.reason, LoadReason::TooLarge), "{error}");
}

#[test]
fn roots_leave_out_the_expired_and_refuse_to_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    let file = PemPath {
        flag: "--ca-file",
        path: dir.path().join("ca.pem"),
    };
    let old = DevCa::generate(Validity::expired()).unwrap();
    let next = DevCa::generate(Validity::not_yet()).unwrap();
    let load = |text: String| {
        fs::write(&file.path, text).unwrap();
        Roots::load(&file).map_err(|error| line(&error, dir.path()))
    };
    assert_eq!(
        load([old.pem(), ca().pem(), next.pem()].concat())
            .unwrap()
            .len(),
        2
    );
    let error = load(old.pem().to_owned()).unwrap_err();
    assert!(
        error.starts_with(r#"--ca-file "ca.pem": certificate 1 expired on 2"#),
        "{error}"
    );
    let error = load("# nothing yet\n".to_owned()).unwrap_err();
    assert_eq!(error, r#"--ca-file "ca.pem": holds no certificate"#);
}

#[test]
fn debug_shows_no_key() {
    let issued = issue(&ca());
    let credentials = load_text(&issued.certificate_pem, &issued.key_pem).unwrap();
    let expected = "Credentials { chain: 1 certificates, key: redacted }";
    assert_eq!(format!("{credentials:?}"), expected);
    assert_eq!(format!("{issued:?}"), "Issued { key: redacted }");
    let file = PemPath {
        flag: "--cert-key",
        path: "key.pem".into(),
    };
    let shown = format!("{:?}", file.with(b"secret"));
    assert_eq!(shown, r#"--cert-key "key.pem" (6 bytes)"#);
}
