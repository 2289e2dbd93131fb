//! Accepts clients: each connection gets a permit and a task, and nothing else happens here.

pub mod listen;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use towline_service::tasks::Tasks;
use tracing::{debug, error, warn};

use crate::clients::listen::Listen;
use crate::forward::Forward;
use crate::frontend::{Frontend, FrontendArgs};
use crate::listener::{Accepted, BindError, Listener};
use crate::metrics::Metrics;
use crate::request::ClientInfo;

/// How long accepting rests after the system refused it, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// One open listener and what speaks on it.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    role: Arc<Role>,
}

/// What the connections of one door share; they outlive its listener in a drain.
#[derive(Debug)]
struct Role {
    frontend: Frontend,
    /// As logs and the access log name it.
    name: Arc<str>,
}

/// What the connections of all doors share.
#[derive(Debug)]
pub struct Clients {
    /// Turns requests into tunnels.
    pub forward: Arc<Forward>,
    /// The frontends' limits.
    pub frontend: FrontendArgs,
    /// One for each connection.
    pub permits: Arc<Semaphore>,
    /// The connections.
    pub tasks: Tasks,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

// === impl Door ===

impl Door {
    /// Opens the listener that `listen` describes; warns when anybody on the network may use it.
    ///
    /// # Errors
    /// Which address cannot be listened on, and why.
    pub fn open(listen: &Listen) -> Result<Self, BindError> {
        let listener = listen.open()?;
        let name = listen.name(&listener.local_address());
        if listener.is_open_to_the_network() {
            warn!(
                listener = %name,
                "anybody who reaches this listener may reach every target of the agents: \
                 use tls:// with --tls-client-ca-file, unix://, or a loopback address"
            );
        }
        let role = Arc::new(Role {
            frontend: listen.frontend.clone(),
            name: name.into(),
        });
        Ok(Self { listener, role })
    }

    /// The name with the real address, for example `connect=tcp://127.0.0.1:41234`.
    pub fn name(&self) -> &Arc<str> {
        &self.role.name
    }

    /// The open listener.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// What speaks on it.
    pub fn frontend(&self) -> &Frontend {
        &self.role.frontend
    }

    /// Accepts until `stop`, then closes the listener.
    pub async fn run(self, clients: Arc<Clients>, stop: CancellationToken) {
        let mut resting = false;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.accept(&clients) => accepted,
            };
            match accepted {
                Ok((accepted, permit)) => {
                    resting = false;
                    clients.metrics.connected();
                    let (role, own) = (Arc::clone(&self.role), Arc::clone(&clients));
                    clients.tasks.spawn("client", async move {
                        role.serve(accepted, &own).await;
                        drop(permit);
                    });
                }
                Err(error) if died_in_the_queue(&error) => {
                    debug!(listener = %self.name(), %error, "a client left before it was accepted");
                }
                Err(error) => {
                    clients.metrics.accept_failed();
                    if !std::mem::replace(&mut resting, true) {
                        error!(listener = %self.name(), %error, "cannot accept clients, trying on");
                    }
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// The next connection, and the permit to serve it: without one, everybody behind it waits.
    async fn accept(&self, clients: &Clients) -> io::Result<(Accepted, OwnedSemaphorePermit)> {
        let accepted = self.listener.accept().await?;
        let permits = Arc::clone(&clients.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok((accepted, permit));
        }
        clients.metrics.accept_paused();
        let permit = permits.acquire_owned().await;
        Ok((accepted, permit.expect("the semaphore is never closed")))
    }
}

// === impl Role ===

impl Role {
    /// One connection from its first byte to its last.
    async fn serve(&self, accepted: Accepted, clients: &Clients) {
        let address = accepted.address;
        let (stream, identity) = match accepted.open().await {
            Ok(opened) => opened,
            Err(error) => {
                clients.metrics.tls_failed();
                return debug!(listener = %self.name, client = %address, %error, "no TLS");
            }
        };
        let client = ClientInfo {
            listener: Arc::clone(&self.name),
            address,
            identity,
        };
        self.frontend
            .serve(stream, client, &clients.frontend, &clients.forward)
            .await;
    }
}

/// Errors of a connection that was reset while it waited (accept(2)): no reason to rest.
fn died_in_the_queue(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}
