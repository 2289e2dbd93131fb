//! The program proxy-server as a process: how it says no, and what it exits with.
//!
//! That this package has an integration test is also why `cargo test --workspace` builds the
//! program, which the end-to-end tests run.

use std::process::{Command, Output};

fn run(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_proxy-server"))
        .env_clear()
        .args(line)
        .output()
        .expect("the program of this package")
}

#[test]
fn what_is_missing_is_named() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for flag in ["--cert-file", "--cert-key", "--client-ca-file"] {
        assert!(text.contains(flag), "{text}");
    }
}

#[test]
fn certificates_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("certs");
    let line = ["dev-certs", "--out", out.to_str().unwrap()];
    assert!(run(&line).status.success());
    let again = run(&line);
    assert_eq!(again.status.code(), Some(2));
    let expected = format!("proxy-server: {:?} exists already\n", out.join("ca.pem"));
    assert_eq!(String::from_utf8(again.stderr).unwrap(), expected);
}
