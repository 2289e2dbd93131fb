//! The health check of a container: requests `/livez` from a running program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

/// Timeout of the connect and of each read; container runtimes wait 30 s by default.
const LIMIT: Duration = Duration::from_secs(3);

/// The program is not alive, or did not answer as a live one does.
#[derive(Debug, Error)]
#[error("healthcheck {addr}: {why}")]
pub struct ProbeError {
    addr: SocketAddr,
    why: String,
}

/// Requests `/livez` from the admin address of a program. An unspecified address (`0.0.0.0`, `::`)
/// is requested on loopback.
///
/// # Errors
/// When there is no answer within 3 s, or one with another status than 200.
pub fn livez(admin: SocketAddr) -> Result<(), ProbeError> {
    let addr = SocketAddr::new(reachable(admin.ip()), admin.port());
    let failed = |why: String| ProbeError { addr, why };
    let status = status_line(addr).map_err(|error| failed(error.to_string()))?;
    if status.starts_with("HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(failed(format!("answered {status:?}")))
    }
}

fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn status_line(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    // Enough for any status line.
    let mut answer = Vec::new();
    stream.take(1024).read_to_end(&mut answer)?;
    let line = answer
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use prometheus_client::registry::Registry;

    use super::livez;
    use crate::admin::Admin;
    use crate::readiness::Readiness;

    #[test]
    fn a_living_program_is_alive_and_a_missing_one_is_not() {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = admin.local_addr();
        let thread = admin
            .serve(Readiness::new(), Arc::new(Registry::default()))
            .unwrap();
        livez(addr).unwrap();
        livez(([0, 0, 0, 0], addr.port()).into()).unwrap();
        drop(thread);
        livez(addr).unwrap_err();
    }

    #[test]
    fn silence_is_not_alive() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = livez(silent.local_addr().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("healthcheck "), "{error}");
    }
}
