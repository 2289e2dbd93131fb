//! Loads: bytes that flow, and messages that go there and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use towline_bench::cell::Window;
use towline_bench::client::{CHUNK, LIMIT, StoodStill};

use crate::target::ORDER;

/// How much has flowed; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Flow(Arc<AtomicU64>);

// === impl Flow ===

impl Flow {
    /// Has the target send for ever, and counts what arrives.
    pub fn start(stream: TcpStream, workers: &mut JoinSet<Result<()>>) -> Self {
        let flow = Self::default();
        workers.spawn(flow.clone().receive(stream, u64::MAX));
        flow
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Has the target send so many bytes, and counts them as they arrive.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn receive(self, mut stream: TcpStream, bytes: u64) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        order(&mut stream, &mut [0; ORDER], bytes).await?;
        while self.bytes() < bytes {
            let count = stream.read(&mut buffer).await.context("receive")?;
            ensure!(count > 0, "the stream ended after {} bytes", self.bytes());
            self.0.fetch_add(u64::try_from(count)?, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Sends messages of `size` bytes one after the other and returns how long each took until its
/// answer of the same size was there: of all that began within the window.
///
/// # Errors
/// When the stream breaks, or an answer takes longer than [`LIMIT`].
pub async fn exchanges(
    mut stream: TcpStream,
    size: usize,
    window: Window,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    loop {
        let begin = Instant::now();
        if begin >= window.end {
            return Ok(times);
        }
        exchange(&mut stream, size).await?;
        if begin >= window.start {
            times.push(begin.elapsed());
        }
    }
}

async fn exchange(stream: &mut TcpStream, size: usize) -> Result<()> {
    let exchange = async {
        let mut message = vec![0x2e; size];
        order(stream, &mut message, u64::try_from(size)?).await?;
        stream
            .read_exact(&mut message)
            .await
            .context("read an answer")?;
        anyhow::Ok(())
    };
    let done = timeout(LIMIT, exchange).await;
    done.with_context(|| StoodStill(format!("no answer within {LIMIT:?}")))?
}

/// Sends a message that orders so many bytes; its first [`ORDER`] bytes are the order.
async fn order(stream: &mut TcpStream, message: &mut [u8], bytes: u64) -> Result<()> {
    let (head, rest) = message.split_at_mut(ORDER);
    let (swallow, send) = head.split_at_mut(ORDER / 2);
    swallow.copy_from_slice(&u64::try_from(rest.len())?.to_be_bytes());
    send.copy_from_slice(&bytes.to_be_bytes());
    stream.write_all(message).await.context("send")?;
    Ok(())
}
