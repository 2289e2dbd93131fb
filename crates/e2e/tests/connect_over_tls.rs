//! CONNECT over TLS: with a client certificate if an authority is configured, else without one.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ProtocolVersion;
use towline_e2e::certs::Certs;
use towline_e2e::client::{self, Way, Ways};
use towline_e2e::programs::pair;
use towline_e2e::target::Target;
use towline_e2e::{bounded, eventually};
use towline_tls::devcerts::{Profile, Validity};

#[tokio::test]
async fn a_client_with_a_certificate_is_served() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let echo = Target::echo().await;
        let mut stream = enter(&ways.certs.connector(true), ways.server.tcp(1)).await;
        let answer = client::ask(&mut stream, echo.address).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        let version = stream.get_ref().1.protocol_version();
        assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
        echoes(&mut stream).await;
        drop(stream);
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_old_client_is_served_over_tls_1_2() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let echo = Target::echo().await;
        let mut stream = enter(&ways.certs.old_connector(), ways.server.tcp(1)).await;
        let answer = client::ask(&mut stream, echo.address).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.head);
        let version = stream.get_ref().1.protocol_version();
        assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
        echoes(&mut stream).await;
        drop(stream);
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn clients_without_a_valid_certificate_are_refused() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let echo = Target::echo().await;
        let (certs, foreign) = (&ways.certs, Certs::new());
        let expired = certs.issue(&Profile::client().valid(Validity::expired()));
        let early = certs.issue(&Profile::client().valid(Validity::not_yet()));
        let server = certs.issue(&Profile::server(&["localhost"]));
        for (case, connector, alert) in [
            ("none", certs.connector(false), "CertificateRequired"),
            (
                "of another authority",
                certs.connector_as(Some(&foreign.client())),
                "UnknownCA",
            ),
            (
                "expired",
                certs.connector_as(Some(&expired.credentials())),
                "CertificateExpired",
            ),
            // RFC 8446 §6.2: "expired or is not currently valid".
            (
                "not yet valid",
                certs.connector_as(Some(&early.credentials())),
                "CertificateExpired",
            ),
            (
                "for servers only",
                certs.connector_as(Some(&server.credentials())),
                "UnsupportedCertificate",
            ),
        ] {
            let error = refusal_of(&connector, ways.server.tcp(1)).await;
            assert!(error.contains(alert), "certificate {case}: {error}");
            // The server goes on serving, on this listener and on the others.
            let mut tunnel = ways.tunnel(Way::Tls, echo.address).await;
            tunnel.write_all(b"!").await.unwrap();
            assert_eq!(tunnel.read_u8().await.unwrap(), b'!');
        }
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn without_an_authority_no_client_certificate_is_requested() {
    bounded(async {
        let certs = Certs::new();
        let echo = Target::echo().await;
        let (server, agent) = pair(
            &certs,
            &[
                "--listen",
                "connect=tls://127.0.0.1:0",
                "--tls-cert-file",
                &certs.flag("server.pem"),
                "--tls-private-key-file",
                &certs.flag("server-key.pem"),
            ],
        )
        .await;
        for certificate in [false, true] {
            let mut stream = enter(&certs.connector(certificate), server.tcp(1)).await;
            let answer = client::ask(&mut stream, echo.address).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.head);
            echoes(&mut stream).await;
        }
        server.is_at_rest().await;
        agent.stop().await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_stands_still_ends() {
    bounded(async {
        let ways = Ways::start(&["--tls-handshake-timeout", "200ms"]).await;
        let mut silent = TcpStream::connect(ways.server.tcp(1)).await.unwrap();
        let mut rest = Vec::new();
        // A client that speaks no TLS gets no answer; its connection ends.
        silent.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        eventually("client tasks", 0, || ways.server.client_tasks.len()).await;
        ways.rest_and_stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_refused() {
    bounded(async {
        let ways = Ways::start(&[]).await;
        let echo = Target::echo().await;
        let mut stream = TcpStream::connect(ways.server.tcp(1)).await.unwrap();
        let answer = client::ask(&mut stream, echo.address).await;
        assert!(answer.is_err(), "an answer without TLS: {answer:?}");
        drop(ways.tunnel(Way::Tls, echo.address).await);
        ways.rest_and_stop().await;
    })
    .await;
}

async fn enter(connector: &TlsConnector, proxy: SocketAddr) -> TlsStream<TcpStream> {
    client::tls(connector, proxy).await.expect("a handshake")
}

/// The alert that refuses a client. The client sends no request: bytes that the server leaves
/// unread would make its close a reset, which may overtake the alert.
async fn refusal_of(connector: &TlsConnector, proxy: SocketAddr) -> String {
    let heard = async {
        // In TLS 1.3 the client's handshake ends before the server has its certificate.
        let mut stream = client::tls(connector, proxy).await?;
        stream.read_u8().await
    };
    let error: io::Error = heard.await.expect_err("an alert");
    error.to_string()
}

async fn echoes(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"ping").await.expect("a tunnel");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.expect("an echo");
    assert_eq!(&answer, b"ping");
}
