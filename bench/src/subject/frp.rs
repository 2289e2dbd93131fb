//! frp: frps and frpc, with a forwarded port for each service of the target.
//!
//! Certificates on both sides, and the pool of five work connections of frp's full example files:
//! its documentation recommends a pool for short connections. All else is left at its default; the
//! stream multiplexing over TCP is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::go;
use super::setup::{Launch, Place, Setup, file, free_tcp, free_udp};
use crate::client::Route;
use crate::target::Addresses;

pub(super) const PROGRAMS: [&str; 2] = ["frps", "frpc"];

const MODULE: &str = "github.com/fatedier/frp";
const QUIC_MODULE: &str = "github.com/quic-go/quic-go";

/// What carries the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// QUIC.
    Quic,
    /// TCP with TLS, multiplexed.
    Tls,
}

pub(super) async fn describe(binaries: &Path, transport: Transport) -> Result<String> {
    let path = binaries.join(PROGRAMS[0]);
    let version = go::version(&path, MODULE).await?;
    let carrier = match transport {
        Transport::Quic => format!("QUIC (quic-go {})", go::version(&path, QUIC_MODULE).await?),
        Transport::Tls => "TLS on TCP, multiplexed".to_owned(),
    };
    Ok(format!(
        "frp {version} over {carrier}: mutual TLS, pool of 5, fixed ports, log at info"
    ))
}

pub(super) fn set_up(place: Place<'_>, transport: Transport) -> Result<Setup> {
    let [tcp, ports @ ..] = free_tcp::<5>()?;
    let quic = free_udp()?;
    let (dir, at) = (place.dir, Addresses::from(ports));
    let (server, agent) = (dir.join("frps.toml"), dir.join("frpc.toml"));

    let mut text = format!(
        "bindAddr = \"127.0.0.1\"\nbindPort = {}\nproxyBindAddr = \"127.0.0.1\"\n\
         transport.maxPoolCount = 5\ntransport.tls.force = true\n",
        tcp.port()
    );
    if transport == Transport::Quic {
        writeln!(text, "quicBindPort = {}", quic.port())?;
    }
    text.push_str(&tls(place.certs, "server"));
    fs::write(&server, text)?;

    let (protocol, port) = match transport {
        Transport::Quic => ("quic", quic.port()),
        Transport::Tls => ("tcp", tcp.port()),
    };
    let mut text = format!(
        "serverAddr = \"127.0.0.1\"\nserverPort = {port}\ntransport.protocol = \"{protocol}\"\n\
         transport.poolCount = 5\ntransport.tls.serverName = \"localhost\"\n"
    );
    text.push_str(&tls(place.certs, "agent"));
    for ((name, target), entry) in place.target.named().into_iter().zip(ports) {
        writeln!(
            text,
            "[[proxies]]\nname = \"{name}\"\ntype = \"tcp\"\nlocalIP = \"{}\"\nlocalPort = {}\n\
             remotePort = {}",
            target.ip(),
            target.port(),
            entry.port()
        )?;
    }
    fs::write(&agent, text)?;

    let config = |path: &Path| vec!["-c".to_owned(), path.display().to_string()];
    Ok(Setup {
        server: Launch::new(PROGRAMS[0], config(&server)),
        agent: Launch::new(PROGRAMS[1], config(&agent)),
        up: tcp,
        route: Route::Direct,
        at,
    })
}

fn tls(certs: &Path, who: &str) -> String {
    format!(
        "transport.tls.certFile = \"{}\"\ntransport.tls.keyFile = \"{}\"\n\
         transport.tls.trustedCaFile = \"{}\"\n",
        file(certs, &format!("{who}.pem")),
        file(certs, &format!("{who}-key.pem")),
        file(certs, "ca.pem"),
    )
}
