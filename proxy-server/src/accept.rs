//! Accept loops: each connection gets a permit and a task, and nothing else happens in the loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::frontend::{Connection, Frontend, ServeContext};
use crate::listen::{ListenConfig, ListenError};
use crate::listener::{Accepted, Listener};
use crate::metrics::ServerMetrics;
use crate::request::ClientInfo;

/// How long accepting pauses after the system refused it, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// Where connections come from.
pub(crate) trait Accept: Send + Sync {
    /// A connection that was accepted.
    type Item: Send;

    /// The next connection. Dropped only when accepting ends: a connection that waits for a permit
    /// then is closed.
    fn accept(&self) -> impl Future<Output = Result<Self::Item, AcceptError>> + Send;
}

/// Why there is no next connection.
#[derive(Debug)]
pub(crate) enum AcceptError {
    /// There will be none: the listener is closed.
    Closed,
    /// One connection failed while it waited; the next one may be there already.
    Connection(io::Error),
    /// The system refused.
    System(io::Error),
}

/// Accepts until `stop` or the listener is closed, and hands each connection to `spawn`, which
/// must not block. `name` names the listener in the log.
pub(crate) async fn accept_loop<A: Accept>(
    listener: &A,
    name: &str,
    metrics: &ServerMetrics,
    stop: &CancellationToken,
    mut spawn: impl FnMut(A::Item) + Send,
) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            // The stop comes first: a queue that is never empty must not outlive it.
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(item) => {
                failing = false;
                spawn(item);
            }
            Err(AcceptError::Closed) => return,
            Err(AcceptError::Connection(error)) => {
                debug!(listener = name, %error, "a client left before it was accepted");
            }
            Err(AcceptError::System(error)) => {
                metrics.accept_failed();
                if !std::mem::replace(&mut failing, true) {
                    error!(listener = name, %error, "accepting clients failed, retrying");
                }
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// A listener for clients that is open, and what speaks on it.
#[derive(Debug)]
pub struct BoundListener {
    listener: Listener,
    permits: Arc<Semaphore>,
    context: Arc<ListenerContext>,
}

/// What the connections of one listener share; it outlives the listener in a drain.
#[derive(Debug)]
pub(crate) struct ListenerContext {
    frontend: Arc<dyn Frontend>,
    /// As logs and the access log name it.
    name: Arc<str>,
    metrics: Arc<ServerMetrics>,
}

/// A client's connection, and the permit to serve it.
pub(crate) struct Client {
    accepted: Accepted,
    permit: OwnedSemaphorePermit,
}

// === impl BoundListener ===

impl BoundListener {
    /// Opens the listener; warns when it serves every host that reaches it over the network. Each
    /// connection takes one of `permits`.
    ///
    /// # Errors
    /// Which address cannot be listened on, and why.
    pub fn bind(
        config: &ListenConfig,
        permits: Arc<Semaphore>,
        metrics: Arc<ServerMetrics>,
    ) -> Result<Self, ListenError> {
        let listener = config.open()?;
        let name = config.name(&listener.local_address());
        if listener.is_open_to_the_network() {
            warn!(
                listener = %name,
                "every host that reaches this listener may reach every target of the agents: \
                 use tls:// with --tls-client-ca-file, unix://, or a loopback address"
            );
        }
        let context = Arc::new(ListenerContext {
            frontend: Arc::clone(config.frontend()),
            name: name.into(),
            metrics,
        });
        Ok(Self {
            listener,
            permits,
            context,
        })
    }

    /// The name with the real address, for example `connect=tcp://127.0.0.1:41234`.
    pub fn name(&self) -> &Arc<str> {
        &self.context.name
    }

    /// The open listener.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// What speaks on it.
    pub fn frontend(&self) -> &Arc<dyn Frontend> {
        &self.context.frontend
    }

    /// Accepts until `stop`, then closes the listener. Each connection is a task of the context.
    pub(crate) async fn run(self, context: Arc<ServeContext>, stop: CancellationToken) {
        let serve = |client: Client| {
            let serve = Arc::clone(&self.context).serve(client, Arc::clone(&context));
            context.tasks.spawn("client", serve);
        };
        accept_loop(&self, self.name(), &self.context.metrics, &stop, serve).await;
    }
}

impl Accept for BoundListener {
    type Item = Client;

    /// The next connection, and the permit to serve it: without one, all later ones wait.
    async fn accept(&self) -> Result<Client, AcceptError> {
        let accepted = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if failed_in_the_queue(&error) => {
                return Err(AcceptError::Connection(error));
            }
            Err(error) => return Err(AcceptError::System(error)),
        };
        let permits = &self.permits;
        let permit = match Arc::clone(permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_none_left) => {
                self.context.metrics.accept_paused();
                let permit = Arc::clone(permits).acquire_owned().await;
                permit.expect("the semaphore is never closed")
            }
        };
        self.context.metrics.connected();
        Ok(Client { accepted, permit })
    }
}

// === impl ListenerContext ===

impl ListenerContext {
    /// One connection from its first byte to its last: what its task runs.
    async fn serve(self: Arc<Self>, client: Client, context: Arc<ServeContext>) {
        let Client { accepted, permit } = client;
        let address = accepted.address;
        let (stream, tls) = match accepted.open().await {
            Ok(opened) => opened,
            Err(error) => {
                self.metrics.tls_failed();
                return debug!(
                    listener = %self.name, client = %address, %error, "TLS handshake failed"
                );
            }
        };
        let client = ClientInfo {
            listener: Arc::clone(&self.name),
            address,
            identity: tls.as_ref().and_then(|tls| tls.identity.clone()),
        };
        let connection = Connection {
            stream,
            client,
            tls,
        };
        self.frontend.serve(connection, &context).await;
        drop(permit);
    }
}

/// Errors of a connection that was reset while it waited (accept(2)): no reason to pause.
fn failed_in_the_queue(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests;
