//! The dialer of kube-apiserver, with the files of `deploy/egress-selector`, over a Unix socket and
//! over TCP with mutual TLS.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towline_e2e::certs::Certs;
use towline_e2e::interop::{Peer, go_program};
use towline_e2e::programs::{Agent, Server};
use towline_e2e::target::{BlackHole, Closed, Target};
use towline_e2e::{admin, bounded, eventually};

/// How kube-apiserver reaches the proxy.
#[derive(Debug, Clone, Copy)]
enum Transport {
    Unix,
    Tcp,
}

/// A server with both listeners, and the values for the configuration files.
struct Proxy {
    certs: Certs,
    folder: TempDir,
    server: Server,
}

/// The folder of kube-apiserver's certificates in the configuration files.
const FOLDER: &str = "/etc/kubernetes/towline";

const BOTH: [Transport; 2] = [Transport::Unix, Transport::Tcp];

/// Longer than any test, so that a dial ends for another reason than its deadline.
const NO_DIAL_LIMIT: [&str; 2] = ["--dial-timeout", "10m"];

#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn requests_reach_the_target() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&[]).await;
        let target = answers("hello from the cluster").await;
        for transport in BOTH {
            let address = target.address.to_string();
            let asked = [
                "-dial",
                &address,
                "-count",
                "100",
                "-parallel",
                "10",
                "-want",
                "hello from the cluster",
            ];
            let outcomes = proxy.dial(transport, &asked).await;
            assert_eq!(outcomes.len(), 100);
            for outcome in outcomes {
                assert_eq!(outcome["outcome"], "ok", "{transport:?}: {outcome}");
                assert_eq!(outcome["status"], 200, "{transport:?}: {outcome}");
            }
        }
        proxy.server.is_at_rest().await;
        agent.is_at_rest().await;
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn a_refusal_says_what_happened() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&[]).await;
        let port = Closed::new();
        let closed = port.address;
        for transport in BOTH {
            let name = proxy.name(transport);
            let said = proxy.refused(transport, &closed.to_string()).await;
            let expected = format!(
                "proxy error from {name} while dialing {closed}, \
                 code 502: 502 dial {closed}: connection refused"
            );
            assert_eq!(said, expected);

            let said = proxy.refused(transport, "host.invalid:80").await;
            let expected = format!(
                "proxy error from {name} while dialing host.invalid:80, \
                 code 502: 502 look up host.invalid: "
            );
            assert!(said.starts_with(&expected), "{said}");
        }
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn without_an_agent_the_refusal_says_so() {
    bounded(async {
        let proxy = Proxy::start(&[]);
        for transport in BOTH {
            let said = proxy.refused(transport, "10.0.0.7:10250").await;
            let expected = format!(
                "proxy error from {} while dialing 10.0.0.7:10250, \
                 code 503: 503 no agent is connected",
                proxy.name(transport)
            );
            assert_eq!(said, expected);
        }
        proxy.server.stop().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn a_certificate_of_another_authority_is_refused() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&[]).await;
        let foreign = Certs::new();
        let client = proxy.client_as(&foreign, Transport::Tcp, &["-dial", "127.0.0.1:1"]);
        let lines = client.ended().await;
        let expected = "failed: remote error: tls: certificate required";
        assert!(lines[0].contains(expected), "{lines:?}");
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn a_target_that_does_not_answer_ends_with_the_dial_deadline() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&["--dial-timeout", "200ms"]).await;
        let hole = BlackHole::new();
        for transport in BOTH {
            let said = proxy.refused(transport, &hole.address.to_string()).await;
            let expected = format!("code 504: 504 dial {}: no answer in ", hole.address);
            assert!(said.contains(&expected), "{said}");
        }
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

/// kube-apiserver's dialer ignores a cancellation once it is connected to the proxy: the proxy sees
/// only the end of the connection, here that of its process.
#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn a_client_that_ends_while_it_dials_leaves_nothing_behind() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&NO_DIAL_LIMIT).await;
        let hole = BlackHole::new();
        let address = hole.address.to_string();
        for (ended, transport) in (1_u32..).zip(BOTH) {
            let asked = ["-dial", &address, "-timeout", "10m"];
            let client = proxy.client(transport, &asked);
            eventually("streams at the server", 1, || proxy.streams()).await;
            client.kill().await;

            proxy.server.is_at_rest().await;
            let cancelled = [("outcome", "cancelled")];
            for (admin, name) in [
                (proxy.server.admin, "towline_server_tunnels_total"),
                (agent.admin, "towline_agent_tunnels_total"),
            ] {
                admin::metrics_become("tunnels cancelled", admin, |metrics| {
                    metrics.value(name, &cancelled) == f64::from(ended)
                })
                .await;
            }
        }
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn a_cancelled_dial_goes_on_until_its_process_ends() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&NO_DIAL_LIMIT).await;
        let hole = BlackHole::new();
        let address = hole.address.to_string();
        for transport in BOTH {
            let asked = [
                "-dial",
                &address,
                "-mode",
                "cancel",
                "-cancel-after",
                "1s",
                "-grace",
                "300ms",
            ];
            let outcomes = proxy.dial(transport, &asked).await;
            assert_eq!(outcomes.len(), 1);
            assert_eq!(outcomes[0]["outcome"], "cancelled", "{}", outcomes[0]);
            assert_eq!(outcomes[0]["pending"], true, "{}", outcomes[0]);
            proxy.server.is_at_rest().await;
        }
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

/// A target that sends as soon as it is connected: its bytes may come in one read with the 200,
/// which is an error to kube-apiserver; no other error may come.
#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn early_bytes_are_whole_or_the_known_error() {
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&[]).await;
        let target = Target::sends(b"banner".to_vec()).await;
        for transport in BOTH {
            let address = target.address.to_string();
            let asked = ["-dial", &address, "-mode", "hold", "-count", "20"];
            let outcomes = proxy.dial(transport, &asked).await;
            let done: Vec<_> = outcomes
                .iter()
                .filter(|line| line["event"] == "done")
                .collect();
            assert_eq!(done.len(), 20);
            let known = format!(
                "unexpected 6 bytes of buffered data from CONNECT proxy \"{}\"",
                proxy.name(transport)
            );
            for outcome in done {
                let whole = outcome["outcome"] == "ok" && outcome["bytes"] == 6;
                assert!(whole || outcome["error"] == known.as_str(), "{outcome}");
            }
        }
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

/// Bytes that the target sends unasked once the connection is in use, and its end of file.
#[tokio::test]
#[ignore = "needs the programs that `make interop` builds"]
async fn late_bytes_reach_the_client() {
    const LATE: usize = 1 << 20;
    bounded(async {
        let (proxy, agent) = Proxy::with_agent(&[]).await;
        let (speak, listen) = tokio::sync::watch::channel(false);
        let target = Target::start(move |mut stream| {
            let mut told = listen.clone();
            async move {
                let told = told.wait_for(|told| *told).await.is_ok();
                if told && stream.write_all(&vec![7; LATE]).await.is_ok() {
                    stream.shutdown().await.ok();
                    stream.read_to_end(&mut Vec::new()).await.ok();
                }
            }
        })
        .await;
        for transport in BOTH {
            speak.send_replace(false);
            let address = target.address.to_string();
            let client = proxy.client(transport, &["-dial", &address, "-mode", "hold"]);
            client.says("held", |lines| outcome(lines, "held")).await;
            speak.send_replace(true);
            let done = client.says("done", |lines| outcome(lines, "done")).await;
            assert_eq!(done["outcome"], "ok", "{transport:?}: {done}");
            assert_eq!(done["bytes"], LATE, "{transport:?}: {done}");
        }
        agent.stop().await;
        proxy.server.stop().await;
    })
    .await;
}

// === impl Proxy ===

impl Proxy {
    fn start(flags: &[&str]) -> Self {
        let certs = Certs::new();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("front.sock");
        let unix = format!("connect=unix://{}", socket.display());
        let files = [
            certs.flag("server.pem"),
            certs.flag("server-key.pem"),
            certs.flag("ca.pem"),
        ];
        let listeners = [
            "--listen",
            &unix,
            "--listen",
            "connect=tls://127.0.0.1:0",
            "--tls-cert-file",
            &files[0],
            "--tls-private-key-file",
            &files[1],
            "--tls-client-ca-file",
            &files[2],
        ];
        let server = Server::try_start(&certs, &[&listeners[..], flags].concat());
        let server = server.expect("the server starts");
        Self {
            certs,
            folder,
            server,
        }
    }

    /// A server and an agent, both with `flags`.
    async fn with_agent(flags: &[&str]) -> (Self, Agent) {
        let proxy = Self::start(flags);
        let agent = Agent::start(&proxy.certs, proxy.server.agents, flags);
        proxy.server.has_sessions(1).await;
        (proxy, agent)
    }

    /// The proxy's name in the configuration of kube-apiserver.
    fn name(&self, transport: Transport) -> String {
        match transport {
            Transport::Unix => self.folder.path().join("front.sock").display().to_string(),
            Transport::Tcp => self.server.tcp(1).to_string(),
        }
    }

    /// Starts the dialer with the file of `deploy/egress-selector`, its paths and port replaced.
    fn client(&self, transport: Transport, flags: &[&str]) -> Peer {
        self.client_as(&self.certs, transport, flags)
    }

    /// The same, with the client certificate of `certs` if the transport has one.
    fn client_as(&self, certs: &Certs, transport: Transport, flags: &[&str]) -> Peer {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/egress-selector");
        let name = self.name(transport);
        let (file, replaced) = match transport {
            Transport::Unix => (
                "egress-selector-uds.yaml",
                vec![format!("/run/towline/front.sock={name}")],
            ),
            Transport::Tcp => (
                "egress-selector-tcp.yaml",
                vec![
                    format!("127.0.0.1:8444={name}"),
                    format!("{FOLDER}/ca.pem={}", self.certs.flag("ca.pem")),
                    format!("{FOLDER}/client.pem={}", certs.flag("client.pem")),
                    format!("{FOLDER}/client-key.pem={}", certs.flag("client-key.pem")),
                ],
            ),
        };
        let config = files.join(file).display().to_string();
        let mut line = vec!["-config", &config];
        line.extend(replaced.iter().flat_map(|pair| ["-set", pair]));
        line.extend(flags);
        Peer::start(&go_program("egress"), &line)
    }

    /// Runs the dialer to its end.
    async fn dial(&self, transport: Transport, flags: &[&str]) -> Vec<Value> {
        let lines = self.client(transport, flags).ended().await;
        let parsed = lines.iter().map(|line| serde_json::from_str(line));
        parsed
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{error}: {lines:?}"))
    }

    /// The dialer's error for a request that must be refused, without the prefix of net/http.
    async fn refused(&self, transport: Transport, address: &str) -> String {
        let outcomes = self.dial(transport, &["-dial", address]).await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0]["outcome"], "err", "{}", outcomes[0]);
        let error = outcomes[0]["error"].as_str().expect("an error");
        let prefix = format!("Get \"http://{address}/\": ");
        error
            .strip_prefix(&prefix)
            .unwrap_or_else(|| panic!("{error}"))
            .to_owned()
    }

    fn streams(&self) -> usize {
        let members = self.server.registry.snapshot();
        members
            .iter()
            .map(|member| member.session.open_streams())
            .sum()
    }
}

/// An HTTP target that gives every request this body.
async fn answers(body: &'static str) -> Target {
    Target::start(move |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        // The outcome of a client that is gone shows an error here.
        stream.write_all(answer.as_bytes()).await.ok();
        stream.shutdown().await.ok();
        stream.read_to_end(&mut Vec::new()).await.ok();
    })
    .await
}

/// The first line about this event.
fn outcome(lines: &[String], event: &str) -> Option<Value> {
    let mut outcomes = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    outcomes.find(|outcome| outcome["event"] == event)
}
