//! Exit statuses, signals and the log of a whole process. The test starts itself as that process:
//! `process child MODE`.

#![expect(
    clippy::unwrap_used,
    reason = "a test; the lint's exception asks for a harness"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Args, Command as Cli, FromArgMatches};
use towline_service::runtime::{self, RunError, StartError};
use towline_service::shutdown::Shutdown;
use towline_service::tasks::Tasks;
use towline_service::telemetry::{self, TelemetryArgs};

/// Longer than any child takes; one that takes longer is killed and fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a child prints once it handles signals.
const READY: &str = "ready";

/// How a child ended, and what it wrote to stderr.
struct Ended {
    status: ExitStatus,
    log: String,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("child"), Some(mode)) => runtime::run("child", child(mode)),
        _ => parent(),
    }
}

// === the child ===

async fn child(mode: String) -> Result<(), RunError> {
    let format = if mode == "drain" { "text" } else { "json" };
    let cli = TelemetryArgs::augment_args(Cli::new("child"));
    let matches = cli.try_get_matches_from(["child", "--log-format", format])?;
    let log = telemetry::init(&TelemetryArgs::from_arg_matches(&matches)?);
    let _log = log.map_err(StartError::new)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(StartError::new)?;
    match mode.as_str() {
        "drain" => {
            say(READY)?;
            shutdown.requested().await;
            tracing::info!("drained\nto the last tunnel");
            Ok(())
        }
        "stuck" => {
            tracing::info!("about to be stuck");
            say(READY)?;
            shutdown.requested().await;
            say("requested")?;
            loop {
                thread::park();
            }
        }
        "panic" => {
            let tasks = Tasks::new();
            tasks.spawn("clumsy", async { panic!("first\nsecond") });
            assert!(tasks.finish_within(PATIENCE).await);
            assert_eq!(tasks.panics(), 1);
            panic!("the body too");
        }
        "start" => Err(StartError::new("no such file"))?,
        _ => Err(RunError::new("the disk is full")),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

// === the parent ===

fn parent() -> ExitCode {
    for signal in ["TERM", "INT"] {
        the_first_signal_ends_the_program_in_order(signal);
    }
    the_second_signal_aborts_a_stuck_program_and_flushes_its_log();
    panics_are_logged_on_one_line_each_and_the_status_is_1();
    errors_are_one_line_and_a_status();
    ExitCode::SUCCESS
}

fn the_first_signal_ends_the_program_in_order(signal: &str) {
    let (mut child, stdout) = start("drain");
    expect_line(&mut child, &stdout, READY);
    send(signal, &child);
    let Ended { status, log } = wait(child);
    assert_eq!(status.code(), Some(0), "{log}");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].contains(&format!("received SIG{signal}")), "{log}");
    assert!(lines[1].ends_with("drained\\nto the last tunnel"), "{log}");
}

fn the_second_signal_aborts_a_stuck_program_and_flushes_its_log() {
    let (mut child, stdout) = start("stuck");
    expect_line(&mut child, &stdout, READY);
    send("TERM", &child);
    expect_line(&mut child, &stdout, "requested");
    send("INT", &child);
    let Ended { status, log } = wait(child);
    assert_eq!(status.code(), Some(130), "{log}");
    let messages: Vec<String> = log.lines().map(message).collect();
    assert_eq!(messages.len(), 3, "{log}");
    assert_eq!(messages[0], "about to be stuck");
    assert!(messages[1].starts_with("received SIGTERM"), "{log}");
    assert!(messages[2].starts_with("received SIGINT"), "{log}");
}

fn panics_are_logged_on_one_line_each_and_the_status_is_1() {
    let (child, _stdout) = start("panic");
    let Ended { status, log } = wait(child);
    assert_eq!(status.code(), Some(1), "{log}");
    let messages: Vec<String> = log.lines().map(message).collect();
    assert_eq!(messages.len(), 3, "{log}");
    for expected in ["a task panicked: first\nsecond", "the body too"] {
        assert!(
            messages.iter().any(|message| message.contains(expected)),
            "{log}"
        );
    }
    let places = messages
        .iter()
        .filter(|message| message.contains("process.rs:"));
    assert_eq!(places.count(), 2, "{log}");
}

fn errors_are_one_line_and_a_status() {
    for (mode, code, line) in [
        ("start", 2, "child: no such file\n"),
        ("later", 1, "child: the disk is full\n"),
    ] {
        let (child, _stdout) = start(mode);
        let Ended { status, log } = wait(child);
        assert_eq!(status.code(), Some(code), "{log}");
        assert_eq!(log, line);
    }
}

fn start(mode: &str) -> (Child, mpsc::Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", mode])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (line, lines) = mpsc::channel();
    thread::spawn(move || {
        for text in stdout.lines() {
            if line.send(text.unwrap()).is_err() {
                break;
            }
        }
    });
    (child, lines)
}

fn expect_line(child: &mut Child, stdout: &mpsc::Receiver<String>, expected: &str) {
    match stdout.recv_timeout(PATIENCE) {
        Ok(line) => assert_eq!(line, expected),
        Err(error) => {
            child.kill().unwrap();
            panic!("the child did not say {expected:?}: {error}");
        }
    }
}

fn send(signal: &str, child: &Child) {
    let script = format!("kill -{signal} {}", child.id());
    let sent = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end of the child, which closes its stderr.
fn wait(mut child: Child) -> Ended {
    let mut stderr = child.stderr.take().unwrap();
    let (end, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        end.send(log).unwrap();
    });
    let log = ended.recv_timeout(PATIENCE);
    if log.is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let log = log.expect("the child ends in time");
    Ended { status, log }
}

fn message(line: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    event["message"].as_str().unwrap().to_owned()
}
