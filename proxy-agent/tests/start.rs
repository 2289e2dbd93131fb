//! The program proxy-agent as a process: its errors and its exit status.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use towline_tls::devcerts::{DevCerts, Validity};

fn run(dir: &Path, more: &[&str]) -> Output {
    let file = |flag: &str, name: &str| format!("{flag}={}", dir.join(name).display());
    Command::new(env!("CARGO_BIN_EXE_proxy-agent"))
        .env_clear()
        .arg("--server=localhost:1")
        .arg(file("--ca-file", "ca.pem"))
        .arg(file("--cert-key", "agent-key.pem"))
        .args(more)
        .output()
        .unwrap()
}

/// The one line on stderr.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{text}");
    line.to_owned()
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let dir = tempfile::tempdir().unwrap();
    DevCerts::generate(Validity::days(1))
        .unwrap()
        .write(dir.path())
        .unwrap();
    let good = format!("--cert-file={}", dir.path().join("agent.pem").display());
    let output = run(dir.path(), &[&good, "--check-config"]);
    assert!(output.status.success(), "{output:?}");

    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let bad = format!("--cert-file={}", empty.display());
    for more in [&[bad.as_str()][..], &[&bad, "--check-config"]] {
        let output = run(dir.path(), more);
        assert_eq!(output.status.code(), Some(2));
        let expected = format!("proxy-agent: --cert-file {empty:?}: holds no certificate");
        assert_eq!(line(&output), expected);
    }
}

#[test]
fn a_taken_admin_address_is_named() {
    let dir = tempfile::tempdir().unwrap();
    DevCerts::generate(Validity::days(1))
        .unwrap()
        .write(dir.path())
        .unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let cert = format!("--cert-file={}", dir.path().join("agent.pem").display());
    let output = run(dir.path(), &[&cert, &format!("--admin-listen={addr}")]);
    assert_eq!(output.status.code(), Some(2));
    let begin = format!("proxy-agent: --admin-listen: cannot listen on the admin address {addr}: ");
    assert!(line(&output).starts_with(&begin), "{output:?}");
}

#[test]
fn a_flag_that_is_missing_or_unknown_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (more, named) in [(&[][..], "--cert-file"), (&["--cert-fil=x"], "--cert-fil")] {
        let output = run(dir.path(), more);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn a_health_check_without_an_agent_fails_in_one_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_proxy-agent"))
        .env_clear()
        .env("TOWLINE_ADMIN_LISTEN", free.to_string())
        .arg("healthcheck")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        line(&output).starts_with(&format!("proxy-agent: healthcheck {free}: ")),
        "{output:?}"
    );
}
