//! Bulk downloads in a process of their own: whoever measures a small tunnel beside them must not
//! be busy with their bytes, or it measures itself.
//!
//! The process opens the tunnels and says `ready`. It answers each line on stdin with the bytes
//! that it has received so far, and ends when stdin does. What breaks is its last line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{CHUNK, LIMIT, Route, StoodStill};

/// What the process says once all tunnels are open.
const READY: &str = "ready";

/// How it begins to say that it waited in vain, and that something broke.
const STOOD_STILL: &str = "stood still: ";
const FAILED: &str = "failed: ";

/// The downloads' process, as the generator holds it; it ends when this is dropped.
#[derive(Debug)]
pub struct Downloads {
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// What the process is told on its command line.
#[derive(Debug, Clone, Args)]
pub struct DownloadsArgs {
    /// How clients reach the target.
    #[arg(long)]
    route: Route,
    /// Who sends.
    #[arg(long)]
    source: SocketAddr,
    /// How many there are.
    #[arg(long)]
    streams: u32,
}

// === impl Downloads ===

impl Downloads {
    /// Starts so many downloads and waits until all are under way.
    ///
    /// # Errors
    /// When one is refused, breaks or takes too long.
    pub async fn start(route: Route, source: SocketAddr, streams: u32) -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .args(["downloads", "--route", &route.to_string()])
            .args(["--source", &source.to_string()])
            .args(["--streams", &streams.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the downloads")?;
        let stdin = process.stdin.take().context("downloads have a stdin")?;
        let stdout = process.stdout.take().context("downloads have a stdout")?;
        let mut downloads = Self {
            stdin,
            lines: BufReader::new(stdout).lines(),
            _process: process,
        };
        match downloads.line(streams + 1).await?.as_str() {
            READY => Ok(downloads),
            other => Err(broken(other)),
        }
    }

    /// How many bytes all have received so far.
    ///
    /// # Errors
    /// Why one has ended, if one has.
    pub async fn received(&mut self) -> Result<u64> {
        // Not heard when the process has ended; its last line says why.
        self.stdin.write_all(b"\n").await.ok();
        let line = self.line(1).await?;
        line.parse().map_err(|_| broken(&line))
    }

    async fn line(&mut self, waits: u32) -> Result<String> {
        let line = timeout(LIMIT * waits, self.lines.next_line()).await;
        let line = line.context("the downloads' process does not answer")??;
        line.context("the downloads' process has ended")
    }
}

/// Is the downloads, until stdin ends or one of them does.
///
/// # Errors
/// When stdin or stdout break.
pub async fn serve(args: &DownloadsArgs) -> Result<()> {
    let Err(error) = download(args).await else {
        return Ok(());
    };
    let word = match error.downcast_ref::<StoodStill>() {
        Some(_) => STOOD_STILL,
        None => FAILED,
    };
    Ok(writeln!(io::stdout().lock(), "{word}{error:#}")?)
}

/// Reads and counts until the stream ends.
///
/// # Errors
/// When the stream breaks.
pub async fn receive(mut stream: TcpStream, received: Arc<AtomicU64>) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await.context("receive")? {
            0 => return Ok(()),
            length => received.fetch_add(u64::try_from(length)?, Ordering::Relaxed),
        };
    }
}

async fn download(args: &DownloadsArgs) -> Result<()> {
    let received = Arc::new(AtomicU64::new(0));
    let mut streams = JoinSet::new();
    for _ in 0..args.streams {
        let stream = args.route.download(args.source).await?;
        streams.spawn(receive(stream, Arc::clone(&received)));
    }
    writeln!(io::stdout().lock(), "{READY}")?;
    let mut stdin = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = stdin.next_line() => match line? {
                Some(_) => writeln!(io::stdout().lock(), "{}", received.load(Ordering::Relaxed))?,
                None => return Ok(()),
            },
            Some(ended) = streams.join_next() => match ended? {
                Ok(()) => bail!("a stream ended early"),
                Err(error) => return Err(error),
            },
        }
    }
}

/// What the process says when something broke.
fn broken(line: &str) -> anyhow::Error {
    match line.strip_prefix(STOOD_STILL) {
        Some(why) => StoodStill(why.to_owned()).into(),
        None => anyhow!("{}", line.strip_prefix(FAILED).unwrap_or(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_in_the_process_is_told_here() {
        let still = broken("stood still: no tunnel");
        assert!(still.downcast_ref::<StoodStill>().is_some(), "{still:?}");
        assert_eq!(still.to_string(), "no tunnel");
        let failed = broken("failed: refused");
        assert!(failed.downcast_ref::<StoodStill>().is_none(), "{failed:?}");
        assert_eq!(failed.to_string(), "refused");
        assert_eq!(broken("x").to_string(), "x");
    }
}
