//! The admin pages of a program, as an operator's tools read them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::openmetrics::Metrics;

/// How long one page may take; pages are served by a thread of their own.
const PAGE_LIMIT: Duration = Duration::from_secs(10);

/// How long a test waits for the content of a page.
const EVENTUALLY: Duration = Duration::from_secs(10);

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The status line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Gets a page.
///
/// # Errors
/// If no answer comes in time, or what comes is not HTTP.
pub async fn get(admin: SocketAddr, path: &str) -> io::Result<Page> {
    let got = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PAGE_LIMIT, got).await??;
    let no_answer = || io::Error::other(format!("no answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Page {
        status: status.ok_or_else(no_answer)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// Waits until the program is ready, at most ten seconds.
///
/// # Panics
/// If it is not ready in time.
pub async fn is_ready(admin: SocketAddr) {
    becomes(admin, "/readyz", |page| page.status == 200).await;
}

/// Waits until the program is not ready, at most ten seconds, and returns its reasons.
///
/// # Panics
/// If it is still ready then.
pub async fn is_not_ready(admin: SocketAddr) -> String {
    becomes(admin, "/readyz", |page| page.status == 503)
        .await
        .body
}

/// Gets a page until `is` is true of it, for at most ten seconds, and returns it.
///
/// # Panics
/// If it is not in time.
pub async fn becomes(admin: SocketAddr, path: &str, is: impl Fn(&Page) -> bool) -> Page {
    let deadline = Instant::now() + EVENTUALLY;
    loop {
        let page = get(admin, path).await;
        if let Ok(page) = &page
            && is(page)
        {
            return page.clone();
        }
        assert!(Instant::now() < deadline, "{path} is still {page:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Scrapes the metrics.
///
/// # Panics
/// If there are none, or they break the format.
pub async fn metrics(admin: SocketAddr) -> Metrics {
    let page = get(admin, "/metrics").await.expect("a page");
    assert_eq!(page.status, 200, "{page:?}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(page.head.lines().any(|line| line == kind), "{}", page.head);
    Metrics::parse(&page.body).unwrap_or_else(|error| panic!("{error} in\n{}", page.body))
}

/// Scrapes until `are` is true of the metrics, for at most ten seconds.
///
/// # Panics
/// If it is not in time; the message names `what`.
pub async fn metrics_become(
    what: &str,
    admin: SocketAddr,
    are: impl Fn(&Metrics) -> bool,
) -> Metrics {
    let deadline = Instant::now() + EVENTUALLY;
    loop {
        let metrics = metrics(admin).await;
        if are(&metrics) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{what}: still {metrics:#?}");
        sleep(Duration::from_millis(5)).await;
    }
}
