//! A tunnel that a server asks an agent for: the request head, and the wait for the answer.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use towline_protocol::code::StreamCode;
use towline_protocol::failure::OpenError;
use towline_protocol::head::{Answer, RequestHead};
use towline_protocol::refusal::{Reason, Refusal};

use crate::stream::{ReadHeadError, TunnelStream};

/// How long an agent may be late with the answer whose deadline it was told.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Sends the head on a fresh stream and waits for the answer, until a grace after `deadline`.
pub(crate) async fn ask(
    mut stream: TunnelStream,
    mut head: RequestHead,
    deadline: Instant,
) -> Result<TunnelStream, Refusal> {
    head.deadline = Some(deadline.saturating_duration_since(Instant::now()));
    let answer = async {
        stream.write_all(&head.encode()).await?;
        stream.read_answer().await
    };
    let answer = timeout_at(deadline + ANSWER_GRACE, answer)
        .await
        .map_err(|_elapsed| Refusal::from(Reason::AgentTimeout))?;
    match answer {
        Ok(Answer::Accepted) => Ok(stream),
        Ok(Answer::Refused(refusal)) => Err(refusal),
        Err(ReadHeadError::Stream(_) | ReadHeadError::Eof) => Err(Reason::AgentLost.into()),
        Err(ReadHeadError::Head(error)) => {
            stream.reset(StreamCode::Protocol);
            let details = format!("the agent's answer: {error}");
            Err(Refusal::new(Reason::Internal, details))
        }
    }
}

/// Why a session that opens no stream serves no tunnel.
pub(crate) fn unopened(error: OpenError) -> Refusal {
    match error {
        OpenError::Full => Refusal::new(Reason::Overload, error.to_string()),
        OpenError::Lost => Reason::AgentLost.into(),
    }
}
