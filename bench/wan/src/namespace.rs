//! Network namespaces, made and removed with `ip`.
//!
//! A shell waits beside them for the end of this process, whichever way it ends, then kills what
//! still runs inside and removes them.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip` keeps its namespaces.
const FOLDER: &str = "/run/netns";

/// What the guardian does: its stdin is a pipe from us, which ends when we do. A Ctrl-C is meant
/// for us and must not end it.
const GUARDIAN: &str = r#"
trap '' HUP INT TERM
owner=$1; shift
cat >/dev/null
for name in "$@"; do
    for pid in $(ip netns pids "$name"); do
        [ "$pid" = "$owner" ] || kill -KILL "$pid"
    done
    ip netns delete "$name"
done
"#;

/// Counts the pairs of this process.
static PAIRS: AtomicU32 = AtomicU32::new(0);

/// A network namespace of ours.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

/// Removes namespaces when this is dropped, or when this process ends.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

// === impl Namespace ===

impl Namespace {
    /// Two empty namespaces with names that nobody else on this machine uses, and their guardian.
    ///
    /// # Errors
    /// When this is not root's process, or `ip` is not there or fails.
    pub(crate) fn pair() -> Result<([Self; 2], Guardian)> {
        ensure!(
            geteuid().is_root(),
            "needs root: network namespaces and TUN devices are made"
        );
        let (id, pair) = (process::id(), PAIRS.fetch_add(1, Ordering::Relaxed));
        let names = ["near", "far"].map(|side| format!("wan-{id}-{pair}-{side}"));
        let guardian = Guardian::over(&names)?;
        let [near, far] = names.map(Self::add);
        Ok(([near?, far?], guardian))
    }

    /// The one that this process was started in.
    pub(crate) fn machine() -> Result<Self> {
        // That of the main thread, which nobody moves.
        Ok(Self {
            name: "machine".to_owned(),
            file: File::open("/proc/self/ns/net")?,
        })
    }

    /// The name that `ip netns exec` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace: sockets that it opens and processes that it
    /// starts from now on are inside. Not for the main thread: that one stands for the machine.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter the namespace {}", self.name))
    }

    /// Runs `work` inside, on a thread of its own.
    ///
    /// # Errors
    /// Those of `work`, and when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside
                .join()
                .map_err(|_| anyhow!("a thread inside {} panicked", self.name))?
        })
    }

    /// A command that starts `program` inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Has `ip` do a line per command inside.
    pub(crate) fn configure(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        run(ip, lines)
    }

    fn add(name: String) -> Result<Self> {
        let mut ip = Command::new("ip");
        ip.args(["netns", "add", &name]);
        run(ip, "")?;
        let file = File::open(format!("{FOLDER}/{name}"))?;
        Ok(Self { name, file })
    }
}

// === impl Guardian ===

impl Guardian {
    fn over(names: &[String]) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", GUARDIAN, "towline-wan-guardian"])
            .arg(process::id().to_string())
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start sh")?;
        Ok(Self(child))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself, and nobody could do anything about its status.
        self.0.wait().map(|_| ()).unwrap_or_default();
    }
}

/// Runs a command with `input` as its stdin; what it says becomes the error.
fn run(mut command: Command, input: &str) -> Result<()> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let mut stdin = child.stdin.take().context("a pipe to the command")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
