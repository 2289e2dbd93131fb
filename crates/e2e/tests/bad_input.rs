//! A program refuses unusable input at its start: exit status 2, and one line that names the flag,
//! the value and the reason.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;

use towline_e2e::certs::Certs;
use towline_e2e::process::{Ended, Process, run};
use towline_e2e::programs::Server;
use towline_e2e::target::unused_address;
use towline_e2e::{admin, bounded, client};
use towline_tls::devcerts::{DevCerts, Validity};

const PROGRAMS: [&str; 3] = ["proxy-server", "proxy-agent", "agent-tcp"];

/// A valid command line with some flags changed or added. A flag with an empty value is removed,
/// and one with a value that begins with `=` is given without a value.
fn line(certs: &Certs, program: &str, changes: &[(&str, &str)]) -> Vec<String> {
    let file = |name| certs.flag(name);
    let any = || "127.0.0.1:0".to_owned();
    let nowhere = || "127.0.0.1:1".to_owned();
    let mut flags = match program {
        "proxy-server" => vec![
            ("--cert-file", file("server.pem")),
            ("--cert-key", file("server-key.pem")),
            ("--client-ca-file", file("ca.pem")),
            ("--listen-tcp", any()),
            ("--listen-quic", any()),
        ],
        _ => vec![
            ("--cert-file", file("agent.pem")),
            ("--cert-key", file("agent-key.pem")),
            ("--ca-file", file("ca.pem")),
            ("--server", nowhere()),
        ],
    };
    if program == "agent-tcp" {
        flags.push(("--upstream", nowhere()));
    }
    flags.push(("--admin-listen", any()));
    flags.push(("--log-format", "json".to_owned()));
    for (flag, value) in changes {
        flags.retain(|(other, _)| other != flag || *flag == "--listen");
        flags.push((flag, (*value).to_owned()));
    }
    let mut line = Vec::new();
    for (flag, value) in flags {
        match value.as_str() {
            "" => {}
            "=" => line.push(flag.to_owned()),
            _ => line.extend([flag.to_owned(), value]),
        }
    }
    line
}

async fn run_line(program: &str, line: &[String]) -> Ended {
    let flags: Vec<_> = line.iter().map(String::as_str).collect();
    run(program, &flags, &[]).await
}

/// Exits with 2 and one line that begins with the program's name and contains all of `says`.
/// Warnings in the log do not count.
fn is_refused(program: &str, ended: &Ended, says: &[&str]) {
    let Ended {
        code,
        stderr,
        stdout,
    } = ended;
    assert_eq!(
        (*code, stdout.as_str()),
        (Some(2), ""),
        "{says:?}: {stderr}"
    );
    let is_warning = |line: &str| {
        let event = serde_json::from_str::<serde_json::Value>(line);
        event.is_ok_and(|event| event["level"] == "WARN")
    };
    let lines: Vec<_> = stderr.lines().filter(|line| !is_warning(line)).collect();
    let [line] = lines[..] else {
        panic!("{says:?}: not one line: {stderr}");
    };
    assert!(line.starts_with(&format!("{program}: ")), "{line}");
    for text in says {
        assert!(line.contains(text), "{text:?} is not in {line:?}");
    }
}

/// Exits with 2 and a message of clap that contains all of `says`.
fn is_misused(ended: &Ended, says: &[&str]) {
    let Ended {
        code,
        stderr,
        stdout,
    } = ended;
    assert_eq!(
        (*code, stdout.as_str()),
        (Some(2), ""),
        "{says:?}: {stderr}"
    );
    let text = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.starts_with("error: "), "{text}");
    for says in says {
        assert!(text.contains(says), "{says:?} is not in {text:?}");
    }
}

/// Writes every file that cannot be used.
fn write_bad_files(dir: &Path, certs: &Certs) {
    let good = fs::read_to_string(certs.path("server.pem")).unwrap();
    let key = fs::read_to_string(certs.path("server-key.pem")).unwrap();
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    let scrambled = |text: &str| text.replacen('\n', "\n*", 2);
    for (name, text) in [
        ("empty.pem", String::new()),
        (
            "prose.pem",
            "certificates are in the other folder\n".to_owned(),
        ),
        ("cut.pem", cut(&good)),
        ("cut-key.pem", cut(&key)),
        ("scrambled.pem", scrambled(&good)),
        ("scrambled-key.pem", scrambled(&key)),
        (
            "encrypted-key.pem",
            key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")
                .replace("END PRIVATE", "END ENCRYPTED PRIVATE"),
        ),
        (
            "no-der.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        ),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::write(dir.join("binary.pem"), [0, 159, 146, 150, 255]).unwrap();
    fs::write(dir.join("huge.pem"), vec![b'\n'; 1024 * 1024 + 1]).unwrap();
    for (name, validity) in [
        ("expired", Validity::expired()),
        ("early", Validity::not_yet()),
    ] {
        let certs = DevCerts::generate(validity).unwrap();
        certs.write(&dir.join(name)).unwrap();
    }
}

/// Every pair of a certificate's flag and its key's, of every program.
const PAIRS: [(&str, &str, &str); 4] = [
    ("proxy-server", "--cert-file", "--cert-key"),
    ("proxy-server", "--tls-cert-file", "--tls-private-key-file"),
    ("proxy-agent", "--cert-file", "--cert-key"),
    ("agent-tcp", "--cert-file", "--cert-key"),
];

/// Every flag of authorities.
const AUTHORITIES: [(&str, &str); 4] = [
    ("proxy-server", "--client-ca-file"),
    ("proxy-server", "--tls-client-ca-file"),
    ("proxy-agent", "--ca-file"),
    ("agent-tcp", "--ca-file"),
];

/// Whether the certificate or its key is refused.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Cert,
    Key,
}

const GOOD: &str = "good/server.pem";
const GOOD_KEY: &str = "good/server-key.pem";

/// Certificate, key, which of both is refused, and the reason.
const BAD_PAIRS: [(&str, &str, Fault, &str); 20] = [
    (
        "missing.pem",
        GOOD_KEY,
        Fault::Cert,
        "cannot be read: No such file or directory",
    ),
    (".", GOOD_KEY, Fault::Cert, "cannot be read: Is a directory"),
    ("empty.pem", GOOD_KEY, Fault::Cert, "holds no certificate"),
    ("prose.pem", GOOD_KEY, Fault::Cert, "holds no certificate"),
    ("binary.pem", GOOD_KEY, Fault::Cert, "holds no certificate"),
    (GOOD_KEY, GOOD_KEY, Fault::Cert, "holds no certificate"),
    (
        "cut.pem",
        GOOD_KEY,
        Fault::Cert,
        "is not valid PEM: a section has no end line",
    ),
    (
        "scrambled.pem",
        GOOD_KEY,
        Fault::Cert,
        "is not valid PEM: a section is not base64",
    ),
    (
        "no-der.pem",
        GOOD_KEY,
        Fault::Cert,
        "certificate 1 cannot be used: ",
    ),
    (
        "huge.pem",
        GOOD_KEY,
        Fault::Cert,
        "is larger than 1048576 bytes",
    ),
    (
        "expired/server.pem",
        "expired/server-key.pem",
        Fault::Cert,
        "certificate 1 expired on 20",
    ),
    (
        "early/server.pem",
        "early/server-key.pem",
        Fault::Cert,
        "certificate 1 is not valid before 20",
    ),
    (
        GOOD,
        "missing.pem",
        Fault::Key,
        "cannot be read: No such file or directory",
    ),
    (GOOD, "empty.pem", Fault::Key, "holds no private key"),
    (GOOD, "binary.pem", Fault::Key, "holds no private key"),
    (GOOD, GOOD, Fault::Key, "holds no private key"),
    (
        GOOD,
        "cut-key.pem",
        Fault::Key,
        "is not valid PEM: a section has no end line",
    ),
    (
        GOOD,
        "scrambled-key.pem",
        Fault::Key,
        "is not valid PEM: a section is not base64",
    ),
    (
        GOOD,
        "encrypted-key.pem",
        Fault::Key,
        "private key cannot be used: it is encrypted",
    ),
    (
        GOOD,
        "good/agent-key.pem",
        Fault::Key,
        "does not belong to the certificate in ",
    ),
];

/// A file of authorities, and the reason why it is refused.
const BAD_AUTHORITIES: [(&str, &str); 7] = [
    ("missing.pem", "cannot be read: No such file or directory"),
    ("empty.pem", "holds no certificate"),
    ("binary.pem", "holds no certificate"),
    (GOOD_KEY, "holds no certificate"),
    ("cut.pem", "is not valid PEM: a section has no end line"),
    ("no-der.pem", "certificate 1 cannot be used: "),
    ("expired/ca.pem", "certificate 1 expired on 20"),
];

const SERVER: &str = "proxy-server";
const AGENT: &str = "proxy-agent";

/// Values that their flags do not accept.
const BAD_VALUES: [(&str, &str, &str); 41] = [
    (SERVER, "--listen-tcp", "localhost:1"),
    (SERVER, "--listen-tcp", "127.0.0.1"),
    (SERVER, "--listen-tcp", "127.0.0.1:65536"),
    (SERVER, "--listen-tcp", "::1:80"),
    (SERVER, "--listen-quic", "8888"),
    (SERVER, "--admin-listen", "everywhere"),
    (SERVER, "--listen", "tcp://127.0.0.1:0"),
    (SERVER, "--listen", "grpc=tcp://127.0.0.1:0"),
    (SERVER, "--listen", "connect=udp://127.0.0.1:0"),
    (SERVER, "--listen", "connect=unix://front.sock"),
    (SERVER, "--listen", "connect=tcp://127.0.0.1:0,target=db:1"),
    (SERVER, "--listen", "raw=tcp://127.0.0.1:0,target=db"),
    (SERVER, "--unix-mode", "0888"),
    (SERVER, "--unix-mode", "7777"),
    (SERVER, "--unix-mode", "rw-rw----"),
    (SERVER, "--dial-timeout", "10"),
    (SERVER, "--dial-timeout", "0s"),
    (SERVER, "--head-timeout", "25h"),
    (SERVER, "--drain-timeout", "soon"),
    (SERVER, "--tls-handshake-timeout", "1 parsec"),
    (SERVER, "--idle-timeout", "0s"),
    (SERVER, "--quic-idle-timeout", "eight"),
    (SERVER, "--max-connections", "0"),
    (SERVER, "--max-connections", "many"),
    (SERVER, "--max-tunnels-per-session", "0"),
    (SERVER, "--stream-window", "1KiB"),
    (SERVER, "--stream-window", "2 parsecs"),
    (SERVER, "--stall-budget", "much"),
    (SERVER, "--udp-receive-buffer", "big"),
    (SERVER, "--legacy-agents", "maybe"),
    (SERVER, "--log-format", "xml"),
    (SERVER, "--log", "loud"),
    (AGENT, "--server", "host"),
    (AGENT, "--server", "host:0"),
    (AGENT, "--server", "user@host:1"),
    (AGENT, "--server-name", "two words"),
    (AGENT, "--agent-id", "two words"),
    (AGENT, "--dial-timeout", "10"),
    (AGENT, "--quic-keep-alive", "0s"),
    ("agent-tcp", "--upstream", "db"),
    ("agent-tcp", "--upstream", "db:0"),
];

/// A program, its flags, and the texts in its error.
type Conflict = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

/// Flags that contradict each other. They are checked before a socket is opened, so the addresses
/// are arbitrary.
const CONFLICTS: [Conflict; 8] = [
    (
        SERVER,
        &[
            ("--listen-tcp", "127.0.0.1:81"),
            ("--listen", "raw=tcp://127.0.0.1:81"),
        ],
        &["--listen", "two listeners on tcp://127.0.0.1:81"],
    ),
    (
        SERVER,
        &[
            ("--listen-tcp", "127.0.0.1:81"),
            ("--listen", "connect=tls://127.0.0.1:81"),
        ],
        &["--listen", "two listeners on tls://127.0.0.1:81"],
    ),
    (
        SERVER,
        &[
            ("--listen", "connect=unix:///x.sock"),
            ("--listen", "raw=unix:///x.sock"),
        ],
        &["--listen", "two listeners on unix:///x.sock"],
    ),
    (
        SERVER,
        &[("--listen", "connect=tls://127.0.0.1:82")],
        &[
            "--listen",
            "tls://127.0.0.1:82",
            "--tls-cert-file",
            "--tls-private-key-file",
        ],
    ),
    (
        SERVER,
        &[("--stall-budget", "1MiB"), ("--stream-window", "2MiB")],
        &["--stall-budget 1.0 MiB", "--stream-window 2.0 MiB"],
    ),
    (
        AGENT,
        &[("--stall-budget", "0"), ("--stream-window", "64KiB")],
        &["--stall-budget 0 B", "--stream-window 64.0 KiB"],
    ),
    (
        AGENT,
        &[("--server", "a:1 b:1 a:1")],
        &["--server", "a:1", "twice"],
    ),
    (
        AGENT,
        &[("--quic-keep-alive", "7s"), ("--quic-idle-timeout", "8s")],
        &["--quic-keep-alive 7s", "--quic-idle-timeout 8s"],
    ),
];

/// The path of a valid file, or of one that [`write_bad_files`] wrote.
fn place(certs: &Certs, bad: &Path, name: &str) -> String {
    match name.strip_prefix("good/") {
        Some(name) => certs.flag(name),
        None => bad.join(name).to_str().unwrap().to_owned(),
    }
}

#[tokio::test]
async fn bad_certificates_and_keys_are_refused() {
    bounded(async {
        let certs = Certs::new();
        let dir = tempfile::tempdir().unwrap();
        write_bad_files(dir.path(), &certs);
        for (program, cert_flag, key_flag) in PAIRS {
            for (cert, key, fault, why) in BAD_PAIRS {
                let file = |name| place(&certs, dir.path(), name);
                let (cert, key) = (file(cert), file(key));
                let named = match fault {
                    Fault::Cert => format!("{cert_flag} {cert:?}: "),
                    Fault::Key => format!("{key_flag} {key:?}: "),
                };
                let line = line(&certs, program, &[(cert_flag, &cert), (key_flag, &key)]);
                is_refused(program, &run_line(program, &line).await, &[&named, why]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn bad_authorities_are_refused() {
    bounded(async {
        let certs = Certs::new();
        let dir = tempfile::tempdir().unwrap();
        write_bad_files(dir.path(), &certs);
        let (cert, key) = (certs.flag("server.pem"), certs.flag("server-key.pem"));
        for (program, flag) in AUTHORITIES {
            for (file, why) in BAD_AUTHORITIES {
                let file = place(&certs, dir.path(), file);
                let named = format!("{flag} {file:?}: ");
                let mut changes = vec![(flag, file.as_str())];
                if flag.starts_with("--tls") {
                    changes.extend([
                        ("--tls-cert-file", &*cert),
                        ("--tls-private-key-file", &*key),
                    ]);
                }
                let line = line(&certs, program, &changes);
                is_refused(program, &run_line(program, &line).await, &[&named, why]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_that_no_listener_shows_are_refused() {
    bounded(async {
        let certs = Certs::new();
        let (cert, key) = (certs.flag("server.pem"), certs.flag("server-key.pem"));
        let files = [
            ("--tls-cert-file", &*cert),
            ("--tls-private-key-file", &key),
        ];
        let line = line(&certs, "proxy-server", &files);
        let says = ["--tls-cert-file", "no --listen", "tls://"];
        is_refused(
            "proxy-server",
            &run_line("proxy-server", &line).await,
            &says,
        );
    })
    .await;
}

#[tokio::test]
async fn addresses_in_use_are_refused() {
    bounded(async {
        let certs = Certs::new();
        let dir = tempfile::tempdir().unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = held.local_addr().unwrap().to_string();
        let held_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = held_udp.local_addr().unwrap().to_string();
        let socket = dir.path().join("live.sock");
        let _live = UnixListener::bind(&socket).unwrap();
        let file = dir.path().join("notes.txt");
        fs::write(&file, "mine").unwrap();
        let on = |scheme: &str, place: &str| format!("connect={scheme}://{place}");
        let tls = [
            ("--tls-cert-file", certs.flag("server.pem")),
            ("--tls-private-key-file", certs.flag("server-key.pem")),
        ];
        let in_use = "Address already in use";
        let cases: [(&str, String, &[&str]); 8] = [
            ("--listen-tcp", tcp.clone(), &["--listen-tcp", &tcp, in_use]),
            ("--listen", on("tcp", &tcp), &["--listen", &tcp, in_use]),
            ("--listen", on("tls", &tcp), &["--listen", &tcp, in_use]),
            (
                "--listen-quic",
                udp.clone(),
                &["--listen-quic", &udp, in_use],
            ),
            (
                "--admin-listen",
                tcp.clone(),
                &["--admin-listen", &tcp, in_use],
            ),
            (
                "--listen",
                on("unix", socket.to_str().unwrap()),
                &["--listen", "live.sock", "another process listens there"],
            ),
            (
                "--listen",
                on("unix", file.to_str().unwrap()),
                &[
                    "--listen",
                    "notes.txt",
                    "a file that is not a socket is there",
                ],
            ),
            (
                "--listen",
                on("unix", "/no/such/folder/front.sock"),
                &[
                    "--listen",
                    "/no/such/folder/front.sock",
                    "No such file or directory",
                ],
            ),
        ];
        for (flag, value, says) in &cases {
            let mut changes = vec![(*flag, value.as_str())];
            if value.contains("tls://") {
                changes.extend(tls.iter().map(|(flag, value)| (*flag, value.as_str())));
            }
            let line = line(&certs, "proxy-server", &changes);
            is_refused("proxy-server", &run_line("proxy-server", &line).await, says);
        }
        for program in ["proxy-agent", "agent-tcp"] {
            let line = line(&certs, program, &[("--admin-listen", &tcp)]);
            let says = ["--admin-listen", &tcp, in_use];
            is_refused(program, &run_line(program, &line).await, &says);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    })
    .await;
}

#[tokio::test]
async fn flags_that_do_not_go_together_are_refused() {
    bounded(async {
        let certs = Certs::new();
        for (program, changes, says) in CONFLICTS {
            for check in [&[][..], &[("--check-config", "=")]] {
                let line = line(&certs, program, &[changes, check].concat());
                is_refused(program, &run_line(program, &line).await, says);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn flags_that_make_no_sense_are_refused() {
    bounded(async {
        let certs = Certs::new();
        for program in PROGRAMS {
            let unknown = line(&certs, program, &[("--no-such-flag", "=")]);
            is_misused(&run_line(program, &unknown).await, &["--no-such-flag"]);
            let stray = line(&certs, program, &[("stray", "=")]);
            is_misused(&run_line(program, &stray).await, &["stray"]);
            for flag in ["--cert-file", "--cert-key"] {
                let line = line(&certs, program, &[(flag, "")]);
                is_misused(&run_line(program, &line).await, &[flag]);
            }
        }
        for (program, flag) in [
            ("proxy-server", "--client-ca-file"),
            ("proxy-agent", "--ca-file"),
            ("proxy-agent", "--server"),
            ("agent-tcp", "--upstream"),
        ] {
            let line = line(&certs, program, &[(flag, "")]);
            is_misused(&run_line(program, &line).await, &[flag]);
        }
        let alone = line(
            &certs,
            "proxy-server",
            &[("--tls-cert-file", &certs.flag("server.pem"))],
        );
        is_misused(
            &run_line("proxy-server", &alone).await,
            &["--tls-private-key-file"],
        );
        let alone = line(
            &certs,
            "proxy-server",
            &[("--tls-client-ca-file", &certs.flag("ca.pem"))],
        );
        is_misused(
            &run_line("proxy-server", &alone).await,
            &["--tls-cert-file"],
        );
        for (program, flag, value) in BAD_VALUES {
            let line = line(&certs, program, &[(flag, value)]);
            is_misused(&run_line(program, &line).await, &[flag, value]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_good_configuration_is_checked_without_opening_anything() {
    bounded(async {
        let certs = Certs::new();
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (taken, taken_udp) = (
            tcp.local_addr().unwrap().to_string(),
            udp.local_addr().unwrap().to_string(),
        );
        let socket = dir.path().join("front.sock");
        let listen = format!("connect=unix://{}", socket.display());
        for program in PROGRAMS {
            let mut changes = vec![("--admin-listen", taken.as_str()), ("--check-config", "=")];
            if program == "proxy-server" {
                changes.extend([
                    ("--listen-tcp", taken.as_str()),
                    ("--listen-quic", taken_udp.as_str()),
                    ("--listen", listen.as_str()),
                ]);
            }
            let ended = run_line(program, &line(&certs, program, &changes)).await;
            assert_eq!(
                (ended.code, ended.stderr.as_str()),
                (Some(0), ""),
                "{program}"
            );
        }
        assert!(!socket.exists());
    })
    .await;
}

#[tokio::test]
async fn every_flag_is_an_environment_variable_too() {
    bounded(async {
        for program in PROGRAMS {
            let help = run(program, &["--help"], &[]).await;
            assert_eq!(help.code, Some(0));
            let mut flags = 0;
            for text in help.stdout.split("\n      --").skip(1) {
                let name = text.split([' ', '\n']).next().unwrap_or_default();
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let variable = format!("[env: TOWLINE_{}=", name.replace('-', "_").to_uppercase());
                assert!(
                    text.contains(&variable),
                    "{program} --{name} has no {variable}]"
                );
                flags += 1;
            }
            assert!(flags > 10, "{}", help.stdout);
        }
    })
    .await;
}

#[tokio::test]
async fn the_environment_serves_and_flags_win() {
    bounded(async {
        let certs = Certs::new();
        let (cert, key, ca) = (
            certs.flag("server.pem"),
            certs.flag("server-key.pem"),
            certs.flag("ca.pem"),
        );
        let environment = [
            ("TOWLINE_CERT_FILE", &*cert),
            ("TOWLINE_CERT_KEY", &*key),
            ("TOWLINE_CLIENT_CA_FILE", &*ca),
            (
                "TOWLINE_LISTEN",
                "connect=tcp://127.0.0.1:0 raw=tcp://127.0.0.1:0",
            ),
            ("TOWLINE_LISTEN_QUIC", "127.0.0.1:0"),
            ("TOWLINE_ADMIN_LISTEN", "127.0.0.1:0"),
        ];
        let server = Process::start_in("proxy-server", &[], &environment);
        assert_ne!(server.address("connect").await, server.address("raw").await);
        admin::is_ready(server.admin().await).await;

        let missing = [
            &environment[..],
            &[("TOWLINE_CERT_KEY", "/no/such/key.pem")],
        ]
        .concat();
        let ended = run("proxy-server", &[], &missing).await;
        is_refused(
            "proxy-server",
            &ended,
            &["--cert-key \"/no/such/key.pem\": "],
        );
        let wins = run(
            "proxy-server",
            &["--check-config", "--cert-key", &key],
            &missing,
        )
        .await;
        assert_eq!((wins.code, wins.stderr.as_str()), (Some(0), ""));
        for (variable, value, flag) in [
            ("TOWLINE_LISTEN", "nowhere", "--listen"),
            ("TOWLINE_DIAL_TIMEOUT", "10", "--dial-timeout"),
            ("TOWLINE_MAX_CONNECTIONS", "0", "--max-connections"),
        ] {
            let bad = [&environment[..], &[(variable, value)]].concat();
            is_misused(&run("proxy-server", &[], &bad).await, &[flag, value]);
        }
    })
    .await;
}

#[tokio::test]
async fn development_certificates_overwrite_nothing() {
    bounded(async {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("certs");
        let line = ["dev-certs", "--out", out.to_str().unwrap()];
        let made = run("proxy-server", &line, &[]).await;
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let read = |file: &&str| fs::read(out.join(file)).unwrap();
        let before: Vec<_> = DevCerts::FILES.iter().map(read).collect();
        let again = run("proxy-server", &line, &[]).await;
        is_refused("proxy-server", &again, &["ca.pem", "exists already"]);
        let after: Vec<_> = DevCerts::FILES.iter().map(read).collect();
        assert!(before == after, "a file has changed");
        // One existing file is enough, even the last that would be written.
        for file in &DevCerts::FILES[..DevCerts::FILES.len() - 1] {
            fs::remove_file(out.join(file)).unwrap();
        }
        let last = DevCerts::FILES[DevCerts::FILES.len() - 1];
        let refused = run("proxy-server", &line, &[]).await;
        is_refused("proxy-server", &refused, &[last, "exists already"]);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    })
    .await;
}

#[tokio::test]
async fn the_health_check_tells_running_programs_from_stopped_ones() {
    bounded(async {
        let certs = Certs::new();
        let server = Server::start(&certs, &[]);
        let unused = unused_address().await.to_string();
        for program in PROGRAMS {
            let line = ["healthcheck", "--admin-listen", &server.admin.to_string()];
            let alive = run(program, &line, &[]).await;
            assert_eq!(
                (alive.code, alive.stderr.as_str()),
                (Some(0), ""),
                "{program}"
            );
            let dead = run(
                program,
                &["healthcheck"],
                &[("TOWLINE_ADMIN_LISTEN", &unused)],
            )
            .await;
            assert_eq!(dead.code, Some(1), "{program}: {}", dead.stderr);
            assert_eq!(dead.stderr.lines().count(), 1, "{}", dead.stderr);
            assert!(
                dead.stderr.starts_with(&format!("{program}: ")),
                "{}",
                dead.stderr
            );
            assert!(dead.stderr.contains(&unused), "{}", dead.stderr);
        }
        // A listener for clients does not serve the admin pages.
        let line = ["healthcheck", "--admin-listen", &server.tcp(0).to_string()];
        assert_eq!(run("proxy-server", &line, &[]).await.code, Some(1));
        let (_, answer) = client::connect(server.tcp(0), "host:1").await.unwrap();
        assert_eq!(answer.status, 503);
    })
    .await;
}
