use std::path::Path;

use clap::Parser;
use tempfile::TempDir;
use towline_tls::devcerts::{DevCerts, Validity};

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    agent: AgentArgs,
}

fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    DevCerts::generate(Validity::days(1))
        .unwrap()
        .write(dir.path())
        .unwrap();
    dir
}

fn files(dir: &Path) -> Vec<String> {
    let file = |flag: &str, name: &str| [flag.to_owned(), dir.join(name).display().to_string()];
    [
        file("--ca-file", "ca.pem"),
        file("--cert-file", "agent.pem"),
        file("--cert-key", "agent-key.pem"),
    ]
    .concat()
}

fn parse(dir: &Path, more: &[&str]) -> Result<AgentArgs, clap::Error> {
    let mut line = vec!["agent".to_owned()];
    line.extend(files(dir));
    line.extend(more.iter().map(ToString::to_string));
    Program::try_parse_from(line).map(|program| program.agent)
}

fn load(dir: &Path, more: &[&str]) -> Result<AgentConfig, ConfigError> {
    AgentConfig::load(&parse(dir, more).unwrap(), AgentKind::Connect)
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let dir = certificates();
    let config = load(dir.path(), &["--server", "localhost:1"]).unwrap();
    assert_eq!(config.admin_listen, "127.0.0.1:8094".parse().unwrap());
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.tunnels.head_timeout, Duration::from_secs(10));
    assert_eq!(config.tunnels.dial_timeout, Duration::from_secs(10));
    assert_eq!(config.tunnels.idle_timeout, None);
    assert_eq!(config.connector.server_name, None);
    let Hello {
        agent_id,
        epoch,
        kind,
        max_streams,
        ..
    } = config.connector.hello;
    assert!(!agent_id.as_str().is_empty());
    assert!(epoch > Epoch(0));
    assert_eq!((kind, max_streams), (AgentKind::Connect, 10_000));
}

#[test]
fn servers_may_be_several_but_not_the_same() {
    let dir = certificates();
    let config = load(dir.path(), &["--server", "a:1", "--server", "[::1]:2 b:3"]).unwrap();
    let servers: Vec<_> = config.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["a:1", "[::1]:2", "b:3"]);
    let error = load(dir.path(), &["--server", "a:1 b:1 a:1"]).unwrap_err();
    assert_eq!(error.to_string(), "--server a:1 is given twice");
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    let dir = certificates();
    let server = ["--server", "a:1"];
    for (flag, value) in [
        ("--server", "a"),
        ("--server", "a:0"),
        ("--server-name", ""),
        ("--server-name", "a b"),
        ("--agent-id", ""),
        ("--agent-id", "a b"),
        ("--drain-timeout", "0s"),
        ("--head-timeout", "10"),
        ("--dial-timeout", "never"),
        ("--idle-timeout", "0s"),
        ("--admin-listen", "localhost:8094"),
    ] {
        let line = [&server[..], &[flag, value]].concat();
        let error = parse(dir.path(), &line).unwrap_err().to_string();
        assert!(
            error.contains(flag) && error.contains(value),
            "{flag} {value}: {error}"
        );
    }
    let error = Program::try_parse_from(["agent"]).unwrap_err().to_string();
    for flag in ["--server", "--ca-file", "--cert-file", "--cert-key"] {
        assert!(error.contains(flag), "{error}");
    }
}

#[test]
fn files_that_cannot_serve_are_named_with_their_flag() {
    let dir = certificates();
    let missing = dir.path().join("missing.pem");
    let server_key = dir.path().join("server-key.pem");
    for (flag, path) in [
        ("--ca-file", &missing),
        ("--cert-file", &missing),
        ("--cert-key", &missing),
        ("--cert-key", &server_key),
    ] {
        let mut line = vec!["agent".to_owned(), "--server=a:1".to_owned()];
        line.extend(files(dir.path()));
        let place = line.iter().position(|word| word == flag).unwrap();
        line[place + 1] = path.display().to_string();
        let args = Program::try_parse_from(line).unwrap().agent;
        let error = AgentConfig::load(&args, AgentKind::Connect)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("{flag} {path:?}: ")), "{error}");
    }
}

#[test]
fn pings_must_come_before_the_peer_gives_up() {
    let dir = certificates();
    let error = load(dir.path(), &["--server", "a:1", "--quic-keep-alive", "5s"]).unwrap_err();
    let expected = "--quic-keep-alive 5s is more than half of --quic-idle-timeout 8s";
    assert_eq!(error.to_string(), expected);
}
