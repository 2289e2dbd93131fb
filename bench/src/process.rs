//! Child processes: programs of a subject, and further processes of this binary.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Has the kernel kill what it executes when the thread that started it ends.
const SETPRIV: &str = "/usr/bin/setpriv";

/// The name that Rust gives to the thread whose end is the end of the process.
const MAIN_THREAD: &str = "main";

/// A process of a subject; it is killed when this is dropped and, where setpriv is installed, when
/// this process is killed.
#[derive(Debug)]
pub struct Program {
    /// The process id.
    pub pid: u32,
    name: String,
    process: Child,
    log: PathBuf,
}

/// Another process of this binary, which is told and answers lines; it ends with its stdin, so at
/// the latest when this is dropped or this process ends.
#[derive(Debug)]
pub struct Part {
    /// The process id.
    pub pid: u32,
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The stdin of a [`Part`], as the part itself reads it.
pub type Told = Lines<BufReader<pipe::Receiver>>;

// === impl Program ===

impl Program {
    /// Starts the file `path` with stdout and stderr to a file `name` in `logs`, and without any
    /// environment: variables could set flags, or a runtime's threads and garbage collector.
    pub fn start(name: String, path: &Path, arguments: &[String], logs: &Path) -> Result<Self> {
        let log = logs.join(&name);
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let process = bound(path)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            pid: process.id().context("a process that was just started")?,
            name,
            process,
            log,
        })
    }

    /// Fails when the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.last_line());
        }
        Ok(())
    }

    /// Kills the process and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        self.check_running()?;
        Ok(self.process.kill().await?)
    }

    /// The name and the last line of the log.
    pub fn last_line(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        format!(
            "{}: {}",
            self.name,
            log.lines().next_back().unwrap_or("no log")
        )
    }
}

// === impl Part ===

impl Part {
    /// Starts this binary with these arguments and without any environment.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {arguments:?}"))?;
        let stdin = process.stdin.take().context("the part has a stdin")?;
        let stdout = process.stdout.take().context("the part has a stdout")?;
        Ok(Self {
            pid: process.id().context("a process that was just started")?,
            process,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// Writes a line to the part's stdin.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self.stdin.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// The next line that the part prints.
    pub async fn line(&mut self, limit: Duration) -> Result<String> {
        let line = timeout(limit, self.lines.next_line()).await;
        let line = line.with_context(|| format!("a part printed nothing within {limit:?}"))??;
        line.context("a part of the bench has ended")
    }

    /// Closes the part's stdin and waits for its end.
    pub async fn stop(mut self, limit: Duration) -> Result<()> {
        drop(self.stdin);
        let ended = timeout(limit, self.process.wait()).await;
        let status = ended.with_context(|| format!("a part did not end within {limit:?}"))??;
        ensure!(status.success(), "a part ended with {status}");
        Ok(())
    }
}

/// The lines that this process is told as a [`Part`].
pub fn told() -> Result<Told> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let stdin = pipe::Receiver::from_owned_fd(stdin).context("stdin must be a pipe")?;
    Ok(BufReader::new(stdin).lines())
}

/// Prints a line to the process that started this one.
pub fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

/// What a program prints to stdout for these arguments.
pub async fn printed(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.with_context(|| format!("run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command that executes `path` and does not outlive this process.
///
/// The kernel watches the thread that starts a process. Any thread but the main thread may end
/// long before this process does, so the command is not bound to it.
fn bound(path: &Path) -> Command {
    let main = thread::current().name() == Some(MAIN_THREAD);
    if !main || !Path::new(SETPRIV).exists() {
        return Command::new(path);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    command
}
