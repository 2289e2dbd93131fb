//! Whole TLS handshakes in memory, between the configurations that the programs use.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, ClientConnection, Connection, Error,
    ExtendedKeyPurpose, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use towline_tls::devcerts::{
    AGENT_URI, CLIENT_URI, DevCa, DevCerts, Issued, Profile, SERVER_NAMES, Validity,
};
use towline_tls::{HTTP_1_1, Identity, quic_client, quic_server, tcp_client, tcp_server};

const ALPN: &[&[u8]] = &[b"towline/1"];

/// More turns than any handshake takes.
const MAX_TURNS: usize = 10;

/// Whether a refusal is the expected one.
type Expected = fn(&CertificateError) -> bool;

/// Both ends after a handshake that is complete on both.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

fn certs() -> DevCerts {
    DevCerts::generate(Validity::days(1)).unwrap()
}

/// Completes a handshake; the error is that of the first end that refuses.
fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Pair, Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut pair = Pair {
        client: ClientConnection::new(Arc::clone(client), name)?,
        server: ServerConnection::new(Arc::clone(server))?,
    };
    for _ in 0..MAX_TURNS {
        let to_server = take(|out| pair.client.write_tls(out));
        deliver(&to_server, |input| pair.server.read_tls(input));
        pair.server.process_new_packets()?;
        let to_client = take(|out| pair.server.write_tls(out));
        deliver(&to_client, |input| pair.client.read_tls(input));
        pair.client.process_new_packets()?;
        if to_server.is_empty() && to_client.is_empty() {
            assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
            return Ok(pair);
        }
    }
    panic!("no end of the handshake after {MAX_TURNS} turns");
}

fn take(mut write: impl FnMut(&mut Vec<u8>) -> std::io::Result<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    while write(&mut out).unwrap() > 0 {}
    out
}

fn deliver(mut bytes: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    while !bytes.is_empty() {
        read(&mut bytes).unwrap();
    }
}

fn quic(server: &Issued, client: &Issued, ca: &DevCa) -> Result<Pair, Error> {
    let server = quic_server(&server.credentials(), &ca.roots(), ALPN).unwrap();
    connect(
        &quic_client(&client.credentials(), &ca.roots(), ALPN),
        &server,
        "localhost",
    )
}

/// A client of another implementation: one version, the opposite order of ciphers, no ALPN.
fn outsider(ca: &DevCa, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let ours = tcp_client(&ca.roots(), None);
    let mut provider = CryptoProvider::clone(ours.crypto_provider());
    provider.cipher_suites.reverse();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn chosen(end: &Connection) -> (ProtocolVersion, NamedGroup, CipherSuite, Vec<u8>) {
    (
        end.protocol_version().unwrap(),
        end.negotiated_key_exchange_group().unwrap().name(),
        end.negotiated_cipher_suite().unwrap().suite(),
        end.alpn_protocol().unwrap().to_vec(),
    )
}

#[test]
fn agents_get_the_hybrid_key_exchange_and_the_cheapest_strong_cipher() {
    let certs = certs();
    let pair = quic(&certs.server, &certs.agent, &certs.ca).unwrap();
    let peer = &pair.server.peer_certificates().unwrap()[0];
    assert_eq!(Identity::of(peer).unwrap().name(), AGENT_URI);
    let expected = (
        ProtocolVersion::TLSv1_3,
        NamedGroup::X25519MLKEM768,
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        ALPN[0].to_vec(),
    );
    assert_eq!(chosen(&pair.client.into()), expected);
    assert_eq!(chosen(&pair.server.into()), expected);
}

#[test]
fn the_server_order_of_ciphers_decides() {
    let certs = certs();
    let client = outsider(&certs.ca, &TLS13);
    let server = tcp_server(&certs.server.credentials(), None, &[HTTP_1_1]).unwrap();
    let pair = connect(&client, &server, "localhost").unwrap();
    let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(
        pair.client.alpn_protocol(),
        None,
        "a client without ALPN is served"
    );
}

#[test]
fn clients_of_tls_1_2_are_served_over_tcp_and_not_over_quic() {
    let certs = certs();
    let old = outsider(&certs.ca, &TLS12);
    let tcp = tcp_server(&certs.server.credentials(), None, &[HTTP_1_1]).unwrap();
    let pair = connect(&old, &tcp, "localhost").unwrap();
    assert_eq!(
        pair.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    let suite = pair.server.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    let quic = quic_server(&certs.server.credentials(), &certs.ca.roots(), ALPN).unwrap();
    let refusal = connect(&old, &quic, "localhost").err().unwrap();
    assert!(matches!(refusal, Error::PeerIncompatible(_)), "{refusal:?}");
}

#[test]
fn a_client_certificate_is_required_exactly_where_roots_are_given() {
    let certs = certs();
    let roots = certs.ca.roots();
    let credentials = certs.server.credentials();
    let open = tcp_server(&credentials, None, &[HTTP_1_1]).unwrap();
    let closed = tcp_server(&credentials, Some(&roots), &[HTTP_1_1]).unwrap();
    let quic = quic_server(&credentials, &roots, &[b"http/1.1"]).unwrap();
    let anonymous = tcp_client(&roots, None);
    let known = tcp_client(&roots, Some(&certs.client.credentials()));

    assert!(
        connect(&anonymous, &open, "localhost")
            .unwrap()
            .server
            .peer_certificates()
            .is_none()
    );
    assert!(
        connect(&known, &open, "localhost")
            .unwrap()
            .server
            .peer_certificates()
            .is_none()
    );
    for server in [&closed, &quic] {
        let refusal = connect(&anonymous, server, "localhost").err();
        assert_eq!(refusal, Some(Error::NoCertificatesPresented));
        let pair = connect(&known, server, "localhost").unwrap();
        let peer = &pair.server.peer_certificates().unwrap()[0];
        assert_eq!(Identity::of(peer).unwrap().name(), CLIENT_URI);
        assert_eq!(pair.server.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn a_bad_client_certificate_is_refused_by_the_server() {
    let certs = certs();
    let foreign = DevCa::generate(Validity::days(1)).unwrap();
    let agent = Profile::client().uri(AGENT_URI);
    let expired = certs
        .ca
        .issue(&agent.clone().valid(Validity::expired()))
        .unwrap();
    let early = certs
        .ca
        .issue(&agent.clone().valid(Validity::not_yet()))
        .unwrap();
    let stranger = foreign.issue(&agent).unwrap();
    let cases: [(&Issued, Expected); 4] = [
        (&expired, |error| {
            matches!(error, CertificateError::ExpiredContext { .. })
        }),
        (&early, |error| {
            matches!(error, CertificateError::NotValidYetContext { .. })
        }),
        (&stranger, |error| *error == CertificateError::UnknownIssuer),
        (&certs.server, |error| {
            matches!(error, CertificateError::InvalidPurposeContext { required, .. }
                if *required == ExtendedKeyPurpose::ClientAuth)
        }),
    ];
    for (client, is_expected) in cases {
        match quic(&certs.server, client, &certs.ca).err() {
            Some(Error::InvalidCertificate(error)) => assert!(is_expected(&error), "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bad_server_certificate_is_refused_by_the_client() {
    let certs = certs();
    let foreign = DevCa::generate(Validity::days(1)).unwrap();
    let localhost = Profile::server(&["localhost"]);
    let expired = certs
        .ca
        .issue(&localhost.clone().valid(Validity::expired()))
        .unwrap();
    let stranger = foreign.issue(&localhost).unwrap();
    let elsewhere = certs
        .ca
        .issue(&Profile::server(&["elsewhere.test"]))
        .unwrap();
    let purpose = certs.ca.issue(&Profile::client().dns("localhost")).unwrap();
    let cases: [(&Issued, Expected); 4] = [
        (&expired, |error| {
            matches!(error, CertificateError::ExpiredContext { .. })
        }),
        (&stranger, |error| *error == CertificateError::UnknownIssuer),
        (&elsewhere, |error| {
            matches!(error, CertificateError::NotValidForNameContext { .. })
        }),
        (&purpose, |error| {
            matches!(error, CertificateError::InvalidPurposeContext { .. })
        }),
    ];
    for (server, is_expected) in cases {
        match quic(server, &certs.agent, &certs.ca).err() {
            Some(Error::InvalidCertificate(error)) => assert!(is_expected(&error), "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_server_certificate_serves_each_of_its_names_and_no_other() {
    let certs = certs();
    let server = tcp_server(&certs.server.credentials(), None, &[HTTP_1_1]).unwrap();
    let client = tcp_client(&certs.ca.roots(), None);
    for name in SERVER_NAMES {
        connect(&client, &server, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for name in ["other", "127.0.0.2", "sub.localhost"] {
        assert!(connect(&client, &server, name).is_err(), "{name}");
    }
}

#[test]
fn a_foreign_alpn_is_refused() {
    let certs = certs();
    let server = quic_server(&certs.server.credentials(), &certs.ca.roots(), ALPN).unwrap();
    let client = quic_client(&certs.agent.credentials(), &certs.ca.roots(), &[b"h3"]);
    let refusal = connect(&client, &server, "localhost").err();
    assert_eq!(refusal, Some(Error::NoApplicationProtocol));
}

#[test]
fn every_handshake_is_a_full_one_without_tickets() {
    let certs = certs();
    let client = quic_client(&certs.agent.credentials(), &certs.ca.roots(), ALPN);
    let server = quic_server(&certs.server.credentials(), &certs.ca.roots(), ALPN).unwrap();
    for _ in 0..3 {
        let pair = connect(&client, &server, "localhost").unwrap();
        assert_eq!(pair.server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(pair.client.tls13_tickets_received(), 0);
    }
}
