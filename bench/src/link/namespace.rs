//! Network namespaces, made and removed with `ip`, and the settings that each has for itself.
//!
//! A shell waits for the end of this process, however it ends, then kills what still runs inside
//! and removes them.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

/// Where `ip` keeps its namespaces.
const FOLDER: &str = "/run/netns";

/// The shell's script: its stdin is a pipe that ends with this process. A Ctrl-C, which reaches the
/// shell too, must not end it.
const CLEANUP: &str = r#"
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

/// The congestion control of new connections.
const CONGESTION: &str = "tcp_congestion_control";

/// Those that a namespace may choose. Only the machine's own namespace can change it.
const ALLOWED: &str = "tcp_allowed_congestion_control";

/// Counts the pairs of this process.
static PAIRS: AtomicU32 = AtomicU32::new(0);

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

/// Removes namespaces when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Cleanup(Child);

// === impl Namespace ===

impl Namespace {
    /// Two empty namespaces with names that are unique on this machine, and their cleanup.
    pub fn pair() -> Result<([Self; 2], Cleanup)> {
        ensure!(
            geteuid().is_root(),
            "an emulated link needs root, to make network namespaces and TUN devices"
        );
        let (id, pair) = (process::id(), PAIRS.fetch_add(1, Ordering::Relaxed));
        let names = ["near", "far"].map(|side| format!("towline-{id}-{pair}-{side}"));
        let cleanup = Cleanup::over(&names)?;
        let [near, far] = names.map(Self::add);
        Ok(([near?, far?], cleanup))
    }

    /// The namespace in which this process was started.
    fn machine() -> Result<Self> {
        // `self` is the main thread, which never enters another.
        Ok(Self {
            name: "machine".to_owned(),
            file: File::open("/proc/self/ns/net")?,
        })
    }

    /// The file by which `ip` knows it.
    #[cfg(test)]
    pub fn path(&self) -> std::path::PathBuf {
        std::path::Path::new(FOLDER).join(&self.name)
    }

    /// Moves the calling thread into the namespace: sockets that it opens and processes that it
    /// starts from now on are inside. Not for the main thread, see [`Self::machine`].
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter the namespace {}", self.name))
    }

    /// Runs `work` inside, on a thread of its own.
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

    /// Changes a setting below `net/ipv4`.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = sysctl(name);
        let write = || fs::write(&path, value).with_context(|| format!("write {value} to {path}"));
        self.run(write)
    }

    /// Chooses the congestion control of new connections. Where the machine does not allow this one
    /// to all namespaces, it does for this moment.
    pub fn set_congestion(&self, name: &str) -> Result<()> {
        let machine = Self::machine()?;
        let allowed = machine.run(|| Ok(fs::read_to_string(sysctl(ALLOWED))?))?;
        let allowed = allowed.trim();
        if allowed.split_whitespace().any(|one| one == name) {
            return self.set(CONGESTION, name);
        }
        machine.set(ALLOWED, &format!("{allowed} {name}"))?;
        let chosen = self.set(CONGESTION, name);
        machine.set(ALLOWED, allowed)?;
        chosen
    }

    /// Runs `ip` inside, with a command on each line.
    pub fn configure(&self, lines: &str) -> Result<()> {
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

// === impl Cleanup ===

impl Cleanup {
    fn over(names: &[String]) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", CLEANUP, "towline-bench-cleanup"])
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

impl Drop for Cleanup {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself, and its status changes nothing.
        self.0.wait().map(|_| ()).unwrap_or_default();
    }
}

/// Whether the kernel has this congestion control, or loads it on demand.
pub fn has_congestion(name: &str) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    socket.is_ok_and(|socket| socket.set_tcp_congestion(name.as_bytes()).is_ok())
}

fn sysctl(name: &str) -> String {
    format!("/proc/sys/net/ipv4/{name}")
}

/// Runs a command with `input` as its stdin; what it prints to stderr becomes the error.
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
