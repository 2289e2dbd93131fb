//! curl with the command lines of a user. Skipped with a message if there is no curl.

use std::io::{self, Write};
use std::process::Output;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use towline_e2e::bounded;
use towline_e2e::certs::Certs;
use towline_e2e::client::Ways;
use towline_e2e::target::{Closed, Target};

/// The body that every target here sends.
const PAGE: &str = "behind the proxy\n";

/// The code with which curl ends when a proxy refuses (`CURLE_RECV_ERROR`).
const TUNNEL_FAILED: i32 = 56;

#[tokio::test]
async fn https_through_a_plain_proxy() {
    bounded(async {
        let Some(curl) = Curl::find().await else {
            return;
        };
        let ways = Ways::start(&[]).await;
        let target = https(&ways.certs).await;
        let proxy = format!("http://{}", ways.server.tcp(0));
        let url = format!("https://localhost:{}/", target.address.port());
        let ca = ways.certs.flag("ca.pem");
        let page = curl.run(&["--proxy", &proxy, "--cacert", &ca, &url]).await;
        assert_eq!(page, (0, PAGE.to_owned()));
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn http_through_a_tunnel() {
    bounded(async {
        let Some(curl) = Curl::find().await else {
            return;
        };
        let ways = Ways::start(&[]).await;
        let target = Target::start(serve_page).await;
        let proxy = format!("http://{}", ways.server.tcp(0));
        let url = format!("http://{}/", target.address);
        let page = curl.run(&["-p", "--proxy", &proxy, &url]).await;
        assert_eq!(page, (0, PAGE.to_owned()));
        // Without -p curl sends the proxy a request to forward, which is refused.
        let status = ["-w", "%{http_code}", "-o", "/dev/null"];
        let line = [&status[..], &["--proxy", &proxy, &url]].concat();
        assert_eq!(curl.run(&line).await, (0, "405".to_owned()));
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_proxy_of_the_environment() {
    bounded(async {
        let Some(curl) = Curl::find().await else {
            return;
        };
        let ways = Ways::start(&[]).await;
        let target = https(&ways.certs).await;
        let url = format!("https://localhost:{}/", target.address.port());
        let ca = ways.certs.flag("ca.pem");
        let proxy = format!("http://{}", ways.server.tcp(0));
        let line = ["-v", "--cacert", &ca, &url];
        let output = curl.output(&line, &[("HTTPS_PROXY", &proxy)]).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), PAGE);
        // The request went through the proxy.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("CONNECT localhost:"), "{said}");
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_proxy_over_tls_with_a_client_certificate() {
    bounded(async {
        let Some(curl) = Curl::find().await else {
            return;
        };
        let ways = Ways::start(&[]).await;
        let target = https(&ways.certs).await;
        let proxy = format!("https://localhost:{}", ways.server.tcp(1).port());
        let [ca, cert, key] =
            ["ca.pem", "client.pem", "client-key.pem"].map(|file| ways.certs.flag(file));
        let url = format!("https://localhost:{}/", target.address.port());
        let trust = ["--proxy", &proxy, "--proxy-cacert", &ca, "--cacert", &ca];
        let identity = ["--proxy-cert", &cert, "--proxy-key", &key];
        let line = [&trust[..], &identity, &[&url]].concat();
        assert_eq!(curl.run(&line).await, (0, PAGE.to_owned()));
        let (code, page) = curl.run(&[&trust[..], &[&url]].concat()).await;
        assert!(
            code != 0 && page.is_empty(),
            "a client without a certificate was served: {page}"
        );
        ways.rest_and_stop().await;
    })
    .await;
}

/// curl knows no CONNECT proxy on a Unix socket. With CONNECT as the method of a request to an
/// origin on one, it sends the same bytes, and prints what comes through the tunnel.
#[tokio::test]
async fn connect_over_a_unix_socket() {
    bounded(async {
        let Some(curl) = Curl::find().await else {
            return;
        };
        let ways = Ways::start(&[]).await;
        let target = Target::sends(PAGE.into()).await;
        let socket = ways.certs.flag("front.sock");
        let connect = ["-X", "CONNECT", "--request-target"];
        let address = target.address.to_string();
        let ask = ["--unix-socket", &socket, "http://towline/"];
        let line = [&connect[..], &[&address], &ask].concat();
        assert_eq!(curl.run(&line).await, (0, PAGE.to_owned()));
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_shown_with_its_status() {
    bounded(async {
        let Some(curl) = Curl::find().await else {
            return;
        };
        let ways = Ways::start(&[]).await;
        let closed = Closed::new();
        let proxy = format!("http://{}", ways.server.tcp(0));
        let url = format!("https://{}/", closed.address);
        let line = ["-v", "-w", "%{http_connect}", "--proxy", &proxy, &url];
        let output = curl.output(&line, &[]).await;
        assert_eq!(output.status.code(), Some(TUNNEL_FAILED));
        assert_eq!(output.stdout, b"502");
        let said = String::from_utf8_lossy(&output.stderr);
        let why = format!("502 dial {}: connection refused", closed.address);
        assert!(said.contains(&why), "{said}");
        ways.rest_and_stop().await;
    })
    .await;
}

/// The curl of this machine.
struct Curl;

// === impl Curl ===

impl Curl {
    /// Prints a message if there is none.
    async fn find() -> Option<Self> {
        match Command::new("curl").arg("--version").output().await {
            Ok(_) => Some(Self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut stderr = io::stderr().lock();
                writeln!(stderr, "SKIPPED: there is no curl on this machine").expect("stderr");
                None
            }
            Err(error) => panic!("curl: {error}"),
        }
    }

    /// Its exit code, and what it printed.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.output(arguments, &[]).await;
        let code = output.status.code().expect("it ended by itself");
        (code, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with these alone: without the settings of the user who runs the test.
    async fn output(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new("curl");
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
            .args(["-q", "--silent", "--show-error", "--max-time", "30"])
            .args(arguments)
            .envs(environment.iter().copied())
            .kill_on_drop(true);
        command.output().await.expect("curl runs")
    }
}

/// A target that speaks HTTPS.
async fn https(certs: &Certs) -> Target {
    let acceptor = TlsAcceptor::from(Arc::clone(&certs.tls_server()));
    Target::start(move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move { serve_page(acceptor.accept(stream).await.expect("a handshake")).await }
    })
    .await
}

/// Reads one request, sends the page and closes.
async fn serve_page<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let length = PAGE.len();
    let page = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{PAGE}");
    stream.write_all(page.as_bytes()).await.expect("a reader");
    stream.shutdown().await.expect("a reader");
}
