//! A process of a subject.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// Has the kernel kill what it executes when the thread that started it ends, however it ends.
const SETPRIV: &str = "/usr/bin/setpriv";

/// The name that Rust gives to the thread whose end is the end of this process.
const MAIN_THREAD: &str = "main";

/// A process of a subject; it is killed when this is dropped, and where the machine has setpriv
/// also when this process is killed.
#[derive(Debug)]
pub struct Program {
    /// The program's name.
    pub name: &'static str,
    /// The process's id.
    pub pid: u32,
    process: Child,
    log: PathBuf,
}

// === impl Program ===

impl Program {
    /// Starts a program of the folder `binaries`, with stdout and stderr to a file in `logs`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(
        name: &'static str,
        binaries: &Path,
        flags: &[(&str, String)],
        logs: &Path,
    ) -> Result<Self> {
        let flags = flags.iter().flat_map(|(flag, value)| [*flag, value]);
        Self::launch(name, &binaries.join(name), flags.map(str::to_owned), logs)
    }

    /// Starts the file `path` with stdout and stderr to a file `name` in `logs`.
    ///
    /// It gets no environment: variables that set flags, or a runtime's threads and collector, are
    /// nobody's default.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn launch(
        name: &'static str,
        path: &Path,
        arguments: impl IntoIterator<Item = String>,
        logs: &Path,
    ) -> Result<Self> {
        let log = logs.join(name);
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
            name,
            pid: process.id().context("a process that was just started")?,
            process,
            log,
        })
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// How it ended, and its last words.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Kills the process and waits for its end.
    ///
    /// # Errors
    /// When it had ended before.
    pub async fn stop(mut self) -> Result<()> {
        self.still_runs()?;
        Ok(self.process.kill().await?)
    }

    /// The last line of the log.
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().next_back().unwrap_or("no log").to_owned();
        format!("{}: {last}", self.name)
    }
}

/// A command that executes `path` and that does not outlive this process.
///
/// The kernel looks at the thread that starts a process: another one than the main thread may end
/// long before this process does, so what that one starts is not bound.
fn bound(path: &Path) -> Command {
    let main = thread::current().name() == Some(MAIN_THREAD);
    if !main || !Path::new(SETPRIV).exists() {
        return Command::new(path);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    command
}

/// The first line that a program prints for these arguments.
pub(super) async fn first_line(program: &Path, arguments: &[&str]) -> Result<String> {
    let text = printed(program, arguments).await?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// What stands behind `start` in what a program prints for this flag; `unknown` without it.
pub(super) async fn line_with(program: &Path, flag: &str, start: &str) -> Result<String> {
    let text = printed(program, &[flag]).await?;
    let found = text.lines().find_map(|line| line.strip_prefix(start));
    Ok(found.map_or("unknown", str::trim).to_owned())
}

async fn printed(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.with_context(|| format!("run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
