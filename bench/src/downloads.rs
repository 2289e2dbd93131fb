//! Bulk downloads in a process of their own: a process that measures small messages would otherwise
//! also measure its own work on bulk.
//!
//! The process opens the tunnels and prints `ready`. It answers each line on stdin with the number
//! of bytes received so far, and ends with stdin. An error is its last line.

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::task::JoinSet;

use crate::client::{Entry, Flow, LIMIT, TimedOut};
use crate::process::{Part, say, told};

/// The process prints this once all tunnels are open.
const READY: &str = "ready";

/// The last line begins with one of these.
const TIMED_OUT: &str = "timed out: ";
const FAILED: &str = "failed: ";

/// The downloads' process; it ends when this is dropped.
#[derive(Debug)]
pub struct Downloads(Part);

/// The process's command line.
#[derive(Debug, Clone, Copy, Args)]
pub struct DownloadsArgs {
    #[arg(value_parser = entry)]
    source: Entry,
    streams: u32,
}

// === impl Downloads ===

impl Downloads {
    /// Starts so many downloads and waits until all tunnels are open.
    pub async fn start(source: Entry, streams: u32) -> Result<Self> {
        let source = serde_json::to_string(&source)?;
        let arguments = ["downloads".to_owned(), source, streams.to_string()];
        let mut part = Part::start(&arguments)?;
        match part.line(LIMIT * (streams + 1)).await?.as_str() {
            READY => Ok(Self(part)),
            other => Err(reported(other)),
        }
    }

    /// How many bytes all have received so far.
    pub async fn received(&mut self) -> Result<u64> {
        // This fails when the process has ended; its last line then tells why.
        self.0.tell("").await.ok();
        let line = self.0.line(LIMIT).await?;
        line.parse().map_err(|_| reported(&line))
    }
}

/// Runs the downloads until stdin ends or one of them does.
pub async fn serve(args: DownloadsArgs) -> Result<()> {
    let Err(error) = download(args).await else {
        return Ok(());
    };
    let word = if error.is::<TimedOut>() {
        TIMED_OUT
    } else {
        FAILED
    };
    say(&format!("{word}{error:#}"))
}

async fn download(args: DownloadsArgs) -> Result<()> {
    let (flow, mut streams, mut stdin) = (Flow::default(), JoinSet::new(), told()?);
    for _ in 0..args.streams {
        streams.spawn(flow.clone().receive(args.source.open().await?, u64::MAX));
    }
    say(READY)?;
    loop {
        tokio::select! {
            line = stdin.next_line() => match line? {
                Some(_) => say(&flow.bytes().to_string())?,
                None => return Ok(()),
            },
            Some(ended) = streams.join_next() => ended?.context("a download")?,
        }
    }
}

/// The error that a last line reports.
fn reported(line: &str) -> anyhow::Error {
    match line.strip_prefix(TIMED_OUT) {
        Some(why) => TimedOut(why.to_owned()).into(),
        None => anyhow!("{}", line.strip_prefix(FAILED).unwrap_or(line)),
    }
}

fn entry(json: &str) -> Result<Entry, serde_json::Error> {
    serde_json::from_str(json)
}
