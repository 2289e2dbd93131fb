//! **One tunnel from its head to its last byte**: read the head, connect, answer, splice, record.

mod record;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use towline_protocol::ask::Ask;
use towline_protocol::code::StreamCode;
use towline_protocol::control::AgentKind;
use towline_protocol::refusal::{Reason, Refusal};
use towline_session::incoming::{IncomingTunnel, NotAnswered};
use towline_session::splice::{Options, splice};
use towline_session::stream::ReadHeadError;
use towline_session::tunnel_table::{Direction, TunnelTable};
use tracing::debug;

use crate::config::TunnelConfig;
use crate::connector::Connector;
use crate::metrics::AgentMetrics;
use crate::serve::record::Record;
use crate::session_loop::StreamHandler;

/// Serves the tunnels of an agent through its connector; clones share everything.
#[derive(Debug)]
pub struct TunnelHandler<C>(Arc<Inner<C>>);

#[derive(Debug)]
struct Inner<C> {
    /// The program's name in Proxy-Status answers.
    name: &'static str,
    config: TunnelConfig,
    table: TunnelTable,
    metrics: AgentMetrics,
    connector: C,
}

/// Why a tunnel ended before it carried payload.
#[derive(Debug, Clone, Error)]
enum TunnelError {
    /// The server is told why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server no longer wants the tunnel, or takes no answer.
    #[error("cancelled by the server")]
    Cancelled,
    /// This process ended it.
    #[error("ended as {0}")]
    Aborted(StreamCode),
}

// === impl TunnelHandler ===

impl<C: Connector> StreamHandler for TunnelHandler<C> {
    const KIND: AgentKind = C::KIND;

    async fn serve(&self, mut tunnel: IncomingTunnel) {
        // Before the first wait, so that the tunnel can be aborted from now on and is recorded
        // however it ends.
        let mut record = Record::new(&self.0.metrics, self.0.table.register());

        // Head and connection, on the heap for as long as they take: a tunnel lives longer.
        let local = match Box::pin(self.open(&mut tunnel, &mut record)).await {
            Ok(local) => local,
            Err(error) => {
                record.failed(error.clone());
                return self.decline(tunnel, error).await;
            }
        };

        // Answer.
        let stream = match tunnel.accept().await {
            Ok(stream) => stream,
            Err(NotAnswered) => return record.failed(TunnelError::Cancelled),
        };

        // Payload, both ways.
        let options = Options {
            from_socket: Direction::ToClient,
            idle_timeout: self.0.config.idle_timeout,
        };
        let reason = splice(local, Bytes::new(), stream, record.guard_mut(), options).await;

        record.closed(reason);
    }

    fn tunnels(&self) -> &TunnelTable {
        &self.0.table
    }
}

impl<C: Connector> TunnelHandler<C> {
    /// A handler for the program `name` whose tunnels are in `table`.
    pub fn new(
        name: &'static str,
        config: TunnelConfig,
        table: TunnelTable,
        metrics: AgentMetrics,
        connector: C,
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            config,
            table,
            metrics,
            connector,
        }))
    }

    /// Reads the head and connects; both are dropped as soon as the server cancels the tunnel or
    /// this process aborts it.
    async fn open(
        &self,
        tunnel: &mut IncomingTunnel,
        record: &mut Record<'_>,
    ) -> Result<C::Stream, TunnelError> {
        let (cancelled, aborted) = (tunnel.cancelled(), record.guard().aborted());
        let connected = pin!(async {
            let (ask, limit) = self.read_head(tunnel, record).await?;
            self.connect(ask, limit).await
        });
        tokio::select! {
            biased;
            connected = connected => connected,
            () = cancelled => Err(TunnelError::Cancelled),
            code = aborted => Err(TunnelError::aborted(code)),
        }
    }

    /// Notes the head in the record, within the head timeout; returns what it asks for, and how long
    /// the connection may take.
    async fn read_head<'r>(
        &self,
        tunnel: &mut IncomingTunnel,
        record: &'r mut Record<'_>,
    ) -> Result<(&'r Ask, Duration), TunnelError> {
        let TunnelConfig {
            head_timeout,
            dial_timeout,
            ..
        } = self.0.config;
        let head = timeout(head_timeout, tunnel.read_request())
            .await
            .map_err(|_elapsed| Refusal::from(Reason::HeadTimeout))??;
        let asked = head.deadline;
        let limit = asked.map_or(dial_timeout, |asked| asked.min(dial_timeout));
        Ok((record.requested(head), limit))
    }

    async fn connect(&self, ask: &Ask, limit: Duration) -> Result<C::Stream, TunnelError> {
        let began = Instant::now();
        let connected = self.0.connector.connect(ask, limit).await;
        match &connected {
            Ok(_) => self.0.metrics.dialed("connected", began.elapsed()),
            // Nothing was dialed.
            Err(refusal) if matches!(refusal.reason, Reason::BadRequest | Reason::Denied) => {}
            Err(_) => self.0.metrics.dialed("failed", began.elapsed()),
        }
        Ok(connected?)
    }

    /// Tells the server that there is no tunnel.
    async fn decline(&self, tunnel: IncomingTunnel, error: TunnelError) {
        match error {
            TunnelError::Refused(refusal) => {
                if let Err(error) = tunnel.refuse(&refusal, self.0.name).await {
                    debug!(%error, "sending the refusal failed");
                }
            }
            TunnelError::Cancelled => tunnel.reset(StreamCode::Cancelled),
            TunnelError::Aborted(code) => tunnel.reset(code),
        }
    }
}

impl<C> Clone for TunnelHandler<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

// === impl TunnelError ===

impl TunnelError {
    /// A tunnel that the shutdown of this agent ends may be served by another agent.
    fn aborted(code: StreamCode) -> Self {
        match code {
            StreamCode::Draining => {
                Refusal::new(Reason::AgentLost, "the agent is shutting down").into()
            }
            other => Self::Aborted(other),
        }
    }
}

impl From<ReadHeadError> for TunnelError {
    fn from(error: ReadHeadError) -> Self {
        match error {
            ReadHeadError::Head(error) => Refusal::from(error).into(),
            ReadHeadError::Eof => Refusal::new(Reason::BadRequest, error.to_string()).into(),
            ReadHeadError::Stream(_) => Self::Cancelled,
        }
    }
}
