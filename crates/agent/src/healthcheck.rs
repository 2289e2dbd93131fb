//! The health check of containers: asks the running agent's `/livez`, as `curl` would.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// How long each step may take; a live agent answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(2);

/// What the answer of a live agent begins with.
const LIVE: &[u8; 12] = b"HTTP/1.1 200";

/// Asks the agent whose `--admin-listen` this is: exits 0 when it is alive, else 1 with a line on
/// stderr.
pub fn run(name: &str, admin: SocketAddr) -> ExitCode {
    match ask(admin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When even stderr is gone, the exit status has to say it all.
            drop(writeln!(
                io::stderr().lock(),
                "{name}: healthcheck {admin}: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn ask(admin: SocketAddr) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&reachable(admin), LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.write_all(b"GET /livez HTTP/1.1\r\nHost: healthcheck\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; LIVE.len()];
    socket.read_exact(&mut status)?;
    if status == *LIVE {
        Ok(())
    } else {
        Err(io::Error::other("the answer is not 200"))
    }
}

/// An agent that listens everywhere is asked on loopback.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, admin.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use prometheus_client::registry::Registry;
    use towline_service::admin::Admin;
    use towline_service::readiness::Readiness;

    use super::*;

    #[test]
    fn a_live_agent_that_is_not_ready_is_healthy() {
        let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = admin.local_addr().port();
        let readiness = Readiness::new();
        let _latch = readiness.latch("sessions", "none");
        let _thread = admin
            .serve(readiness, Arc::new(Registry::default()))
            .unwrap();
        ask((Ipv4Addr::LOCALHOST, port).into()).unwrap();
        ask((Ipv4Addr::UNSPECIFIED, port).into()).unwrap();
    }

    #[test]
    fn nobody_and_anybody_else_are_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let stranger = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").unwrap();
            io::copy(&mut socket, &mut io::sink()).ok();
        });
        let error = ask(addr).unwrap_err();
        assert_eq!(error.to_string(), "the answer is not 200");
        stranger.join().unwrap();
        assert_eq!(
            ask(addr).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
