//! HTTP/1.1 CONNECT (RFC 9110 §9.3.6): curl's `--proxy`, `HTTPS_PROXY`, kube-apiserver.
//!
//! A client that closes its sending side before it got its answer has left: a CONNECT client sends
//! nothing before the answer that a close could end, and only so is a dial cancelled that no client
//! waits for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::timeout;
use towline_protocol::ask::Ask;
use towline_protocol::head::{self, MAX_HEAD};
use towline_protocol::refusal::{Reason, Refusal};
use towline_tls::HTTP_1_1;

use crate::forward::Responder;
use crate::frontend::{Connection, Frontend, FrontendDesc, ServeContext, http_answer};
use crate::listener::ClientStream;
use crate::request::{ClientInfo, Request};

/// Bytes that a client may send behind its head before it is answered; more wait in its socket.
const MAX_EARLY: usize = 16 * 1024;

/// How long an answer may take to leave; it is far smaller than any socket buffer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long and how much a refused client may go on sending. Closing on unread bytes would reset
/// the connection, and the client might never see why it was refused.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: u64 = 16 * 1024 * 1024;

const ACCEPTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The frontend's entry in the table.
pub const DESC: FrontendDesc = FrontendDesc {
    name: "connect",
    keys: &[],
    alpn: &[HTTP_1_1],
    build: |_| Ok(new()),
};

/// Serves CONNECT.
#[derive(Debug)]
struct Connect;

/// Answers one client; holds what it sent behind its head.
struct ConnectResponder {
    stream: ClientStream,
    early: BytesMut,
}

/// How reading the head went wrong.
enum HeadFailed {
    /// The client left, or its connection failed: there is no client to answer.
    Gone,
    Refused(Refusal),
}

/// The frontend; it has no settings.
pub fn new() -> Arc<dyn Frontend> {
    Arc::new(Connect)
}

// === impl Connect ===

impl Frontend for Connect {
    fn name(&self) -> &'static str {
        DESC.name
    }

    fn serve<'a>(
        &'a self,
        connection: Connection,
        context: &'a ServeContext,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(serve(connection.stream, connection.client, context))
    }
}

/// Serves one connection: head, tunnel or refusal, end.
async fn serve(mut stream: ClientStream, client: ClientInfo, context: &ServeContext) {
    let head = timeout(context.head_timeout, read_head(&mut stream))
        .await
        .unwrap_or_else(|_elapsed| Err(HeadFailed::Refused(Reason::HeadTimeout.into())));
    match head {
        Ok((head, early)) => {
            let request = Request {
                ask: head.ask,
                client,
                traceparent: head.traceparent,
            };
            let responder = ConnectResponder { stream, early };
            context.forward.handle(request, responder).await;
        }
        Err(HeadFailed::Gone) => context.forward.client_left_early(&client),
        Err(HeadFailed::Refused(refusal)) => {
            let responder = ConnectResponder {
                stream,
                early: BytesMut::new(),
            };
            context
                .forward
                .refuse_unread(&client, responder, &refusal)
                .await;
        }
    }
}

/// Reads the head in however many pieces it comes; returns what came behind it as well.
async fn read_head(stream: &mut ClientStream) -> Result<(head::RequestHead, BytesMut), HeadFailed> {
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        if stream
            .read_buf(&mut bytes)
            .await
            .map_err(|_| HeadFailed::Gone)?
            == 0
        {
            return Err(HeadFailed::Gone);
        }
        match head::parse_request(&bytes) {
            Err(error) => return Err(HeadFailed::Refused(error.into())),
            Ok(Some((request, _))) if request.ask == Ask::Upstream => {
                let why = Refusal::new(Reason::BadRequest, "the port of a target cannot be 0");
                return Err(HeadFailed::Refused(why));
            }
            // A copy of what is left, so that no tunnel keeps its head's buffer for life.
            Ok(Some((request, used))) => return Ok((request, BytesMut::from(&bytes[used..]))),
            Ok(None) => bytes.reserve(MAX_HEAD.min(bytes.len())),
        }
    }
}

// === impl ConnectResponder ===

impl Responder for ConnectResponder {
    type Stream = ClientStream;

    async fn hung_up(&mut self) {
        while self.early.len() < MAX_EARLY {
            match self.stream.read_buf(&mut self.early).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        // The client has sent all that fits; whether it is still there shows with the answer.
        std::future::pending().await
    }

    async fn accept(mut self) -> io::Result<(ClientStream, Bytes)> {
        // Flushed before any payload is even read: kube-apiserver fails on a payload byte that
        // comes along with the head.
        send(&mut self.stream, ACCEPTED).await?;
        // A stream socket joins two writes that come before the first read: a client that waits
        // for its answer gets a turn to take it alone.
        yield_now().await;
        Ok((self.stream, self.early.freeze()))
    }

    fn status(reason: Reason) -> u16 {
        http_answer::status(reason)
    }

    async fn refuse(mut self, refusal: &Refusal) -> io::Result<()> {
        send(&mut self.stream, &http_answer::response(refusal)).await?;
        let linger = async {
            self.stream.shutdown().await?;
            let rest = &mut (&mut self.stream).take(MAX_LINGER_BYTES);
            tokio::io::copy(rest, &mut tokio::io::sink()).await
        };
        // A client that neither reads nor closes has had its answer all the same.
        timeout(LINGER, linger).await.ok();
        Ok(())
    }
}

async fn send(stream: &mut ClientStream, answer: &[u8]) -> io::Result<()> {
    let sent = async {
        stream.write_all(answer).await?;
        stream.flush().await
    };
    timeout(ANSWER_TIMEOUT, sent)
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests;
